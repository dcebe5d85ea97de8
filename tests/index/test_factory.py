"""Factory strings, parsed and bounded before FAISS sees them."""

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import faiss
import numpy as np
import pytest

from vitsearch.errors import RecipeError
from vitsearch.index import MAX_LENGTH, Factory, check_size, parse_factory, smallest
from vitsearch.index.backends import check_recipe
from vitsearch.index.faiss_index import build_faiss_index, make_index
from vitsearch.index.manifest import facts_of, read_manifest, write_manifest
from vitsearch.index.recipe import Recipe
from vitsearch.index.snapshot import FILES, build_snapshot, open_snapshot

DIM = 64
# what FAISS takes at 64 dimensions for inner product
GOOD = [
    "Flat",
    "IDMap,Flat",
    "IDMap2,Flat",
    "SQ8",
    "SQ4",
    "SQfp16",
    "SQbf16",
    "SQ8_direct",
    "HNSW32",
    "HNSW",
    "HNSW16_SQ8",
    "HNSW16,SQ8",
    "IVF16,Flat",
    "IVF16,SQ8",
    "IVF16,PQ8",
    "PQ8",
    "PQ8np",
    "PQ8x4fs",
    "PQ16x12",
    "OPQ8_32,IVF16,PQ8",
    "OPQ8_32,IVF16,PQ8x4fsr,RFlat",
    "PCA32,IVF16,Flat",
    "PCAR32,SQ8",
    "PCAW16,Flat",
    "RR32,Flat",
    "L2norm,Flat",
    "Pad128,Flat",
    "IVF16_HNSW32,Flat",
    "IVF16_HNSW,SQ8",
    "IVF16(IVF4,Flat),Flat",
    "IVF64(RCQ2x3),Flat",
    "RQ8x8",
    "RQ2x8_Nfloat",
    "LSQ8x8",
    "PRQ2x4x8",
    "PLSQ2x4x8",
    "SQ4,Refine(SQ8)",
    "SQ4,RFlat",
    "NSG16,Flat",
    "IVF16,RaBitQ",
    "RaBitQ",
    "IVF16,RaBitQfs",
    "IVF16,FlatDedup",
    "IVF16,RQ4x8_Nqint8",
    "IDMap,HNSW32",
]
BAD = [
    "(" * 20_000,
    "(" * 100,
    "IVF16" + "(" * 50 + "IVF4,Flat" + ")" * 50 + ",Flat",
    "IVF16(IVF4(IVF2(IVF2(IVF2,Flat),Flat),Flat),Flat),Flat",
    "IVF16777216,Flat",
    "IVF99999999999999999999,Flat",
    "IVF16777216(IVF4,Flat),Flat",
    "IVF16(IVF16777216,Flat),Flat",
    "IVF16_HNSW1000000,Flat",
    "IVF16(RCQ4x10),Flat",
    "OPQ64_1000000,IVF16,PQ8",
    "OPQ1000000,PQ8",
    "Pad1000000000,Flat",
    "PCA1000000,Flat",
    "RR100000,Flat",
    "PQ1000000",
    "PQ8x30",
    "PQ8x24",
    "HNSW1000000",
    "NSG1000000,Flat",
    "RQ1000000x8",
    "LSQ64x16",
    "PRQ1000000x1000000x8",
    "RQ64x12",
    "PQ8x4fs_0",
    "IVF0,Flat",
    "IVF16(IVF0,Flat),Flat",
    "PQ00",
    "Pad0,Flat",
    "Refine(Flat",
    "Flat)",
    ")(",
    "",
    ",",
    "IVF16,,Flat",
    "IVF٣,Flat",
    "Flat\n",
    "Flat\0",
    "Nonsense",
    "-1",
    "PQ-8",
    "SQ8" + " " * 190,
    "Flat" * 100,
]


@pytest.mark.parametrize("factory", GOOD)
def test_what_faiss_takes_is_in_the_grammar(factory: str) -> None:
    assert make_index(factory, DIM, 1000).d == DIM
    assert make_index(smallest(factory), DIM).d == DIM


@pytest.mark.parametrize("factory", BAD, ids=lambda text: ascii(text[:24]))
def test_what_would_end_the_process_or_fill_the_memory_is_one_line(factory: str) -> None:
    recipe = Recipe("x", factory=factory)
    for call in (
        lambda: check_size(factory, DIM, 60),
        lambda: make_index(factory, DIM, 60),
        lambda: build_faiss_index(recipe, np.eye(60, DIM, dtype=np.float16), np.arange(60)),
        lambda: check_recipe(recipe, DIM) if factory else make_index(factory, DIM),
    ):
        with pytest.raises(RecipeError) as caught:
            call()
        assert str(caught.value).startswith(("FAISS does not take the factory", "the factory str"))
        assert "\n" not in str(caught.value)
        assert len(str(caught.value)) < MAX_LENGTH + 200


def test_what_a_factory_asks_for() -> None:
    assert parse_factory("Flat", 64) == Factory(0, 0)
    assert parse_factory("IVF100,SQ8", 64) == Factory(100, 100 * (64 + 4 * 64))
    assert parse_factory("OPQ8_32,IVF10(IVF2,Flat),PQ8", 64) == Factory(
        12, 4 * 64 * 32 + 12 * (64 + 4 * 32) + 4 * 32 * 256
    )
    assert parse_factory("RQ2x8", 10) == Factory(0, 4 * 512 * 10 + 2 * 512 * 512)


def test_the_bounds_grow_with_the_rows() -> None:
    check_size("IVF1000000,Flat", 512, 50_000_000)
    check_size("PQ64x16", 512, 60)
    for count in (60, 999_999):
        with pytest.raises(RecipeError, match=r"1,000,000 lists .* too much for"):
            check_size("IVF1000000,Flat", 512, count)


def test_more_lists_than_few_rows_are_a_flat_index() -> None:
    rows = np.eye(60, DIM, dtype=np.float16)
    index = build_faiss_index(Recipe("x", factory="IVF2000000,Flat"), rows, np.arange(60))
    assert index.search(rows[7].astype(np.float32), 1).ids.tolist() == [7]
    check_recipe(Recipe("x", factory="IVF2000000,Flat"), DIM)


def test_checking_a_recipe_takes_no_memory_for_its_lists() -> None:
    code = (
        "import resource; from vitsearch.index.backends import check_recipe; "
        "from vitsearch.index.recipe import Recipe; "
        "check_recipe(Recipe('x', factory='IVF100,SQ8'), 512); "
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss; "
        "check_recipe(Recipe('x', factory='IVF2000000,SQ8'), 512); "
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert int(done.stdout) < 20_000  # kilobytes


@pytest.mark.parametrize(
    ("toml", "words"),
    [
        (
            'name = "x"\nfactory = "HNSW32"\n[search]\nefSearch = 2000000000\n',
            "efSearch must be from 1 to 1,048,576",
        ),
        (
            'name = "x"\nfactory = "IVF4,SQ8"\n[search]\nnprobe = 0\n',
            "nprobe must be from 1 to 1,048,576",
        ),
        (
            'name = "x"\nfactory = "SQ8,RFlat"\n[search]\nk_factor = 0.5\n',
            "k_factor must be from 1 to 1,048,576",
        ),
        (
            'name = "x"\nfactory = "IVF4,SQ8"\n[search]\nmax_codes = -1\n',
            "max_codes must be from 0 to 1,048,576",
        ),
        (
            'name = "x"\nfactory = "SQ8"\noverfetch = 1000000000\n',
            "overfetch must be at most 10,000",
        ),
        ("x = " + "[" * 20_000, "not a TOML file: it is nested too deeply"),
        ("x = " + "[" * 150 + "]" * 150, "not a TOML file: it is nested more than 100 deep"),
        ("x" + ".x" * 5_000 + " = 1", "not a TOML file: it is nested"),
        ("#" * 70_000, "not a TOML file: it is larger than 65,536 bytes"),
        ("x = 1" + "0" * 5000, "not a TOML file: "),
    ],
    ids=range(10),
)
@pytest.mark.slow
def test_recipes_of_any_content_are_one_line(toml: str, words: str) -> None:
    with pytest.raises(RecipeError) as caught:
        Recipe.from_toml(toml, source="stranger.toml")
    assert str(caught.value).startswith("stranger.toml: ")
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


def test_an_index_that_names_lists_elsewhere_is_not_searched(tmp_path: Path) -> None:
    """It would map any file of this machine, and crash where that is short."""
    rows = np.random.default_rng(0).standard_normal((12_000, DIM)).astype(np.float16)
    recipe = Recipe("d", factory="IVF16,SQ8", on_disk=True)
    folder, elsewhere = tmp_path / "index", tmp_path / "elsewhere"
    options = {"dim": DIM, "generation": 1, "fingerprint": "f"}
    build_snapshot(folder, [(np.arange(12_000), rows)], recipe=recipe, **options)
    assert open_snapshot(folder).degraded is None
    index = faiss.read_index(str(folder / "index.faiss"), faiss.IO_FLAG_ONDISK_SAME_DIR)
    whole = (folder / "lists.ivfdata").read_bytes()
    elsewhere.write_bytes(whole)
    lists = faiss.downcast_InvertedLists(index.invlists)
    for change in ("elsewhere", "cut"):
        manifest = read_manifest(folder)
        if change == "elsewhere":
            lists.filename = str(elsewhere)
            faiss.write_index(index, str(folder / "index.faiss"))
            elsewhere.write_bytes(b"root:x:0:0\n")
            (folder / "lists.ivfdata").unlink()
        else:
            (folder / "lists.ivfdata").write_bytes(whole[:99])
        present = {file.name: facts_of(file) for file in folder.iterdir() if file.name in FILES}
        write_manifest(folder, replace(manifest, files=present))  # as who made it would
        snapshot = open_snapshot(folder)
        assert snapshot.degraded is not None
        assert "so the search is exact" in snapshot.degraded
        assert snapshot.search(rows[5].astype(np.float32), 1).ids.tolist() == [5]
    assert elsewhere.read_bytes() == b"root:x:0:0\n"
