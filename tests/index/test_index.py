"""The contract of an index, held over the exact one and over FAISS factories of every family, and
the folder on disk.
"""

import base64
import json
import os
import signal
import subprocess
import sys
import textwrap
import threading
import zlib
from unittest.mock import patch

import faiss
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from helpers.indexes import DIM, brute_force, build, clustered
from helpers.paths import ROOT
from vitsearch.arrays import unit_rows
from vitsearch.errors import IndexDamaged, RecipeError
from vitsearch.index import VectorIndex, backends
from vitsearch.index.backends import ExactIndex, check_recipe
from vitsearch.index.faiss_index import build_faiss_index
from vitsearch.index.manifest import Manifest
from vitsearch.index.recipe import Recipe, list_recipes, load_recipe
from vitsearch.index.snapshot import build_snapshot, manifest_stamp, open_snapshot, verify_snapshot

BUILDABLE = [
    name for name in list_recipes() if name not in ("auto", "gpu-cagra")
]  # always another; needs a GPU (test_gpu.py)
EXACT = ["exact", "Flat", "IDMap2,Flat", "IDMap,Flat"]
# the least share of the exact best 10 that must be among 40 proposals, over clustered rows; nprobe
# and efSearch as given
FLOORS = {
    "HNSW32": ({"efSearch": 64}, 0.95),
    "IVF16,Flat": ({"nprobe": 8}, 0.95),
    "IVF16,SQ8": ({"nprobe": 8}, 0.95),
    "SQ8": ({}, 0.99),
    "SQfp16": ({}, 1.0),
    "IVF16,PQ8": ({"nprobe": 8}, 0.6),
    "PQ8": ({}, 0.6),
    "OPQ8_32,IVF16,PQ8": ({"nprobe": 8}, 0.6),
}


def recipe_of(factory):
    if factory == "exact":
        return Recipe("exact", kind="exact")
    return Recipe("tried", factory=factory, search=FLOORS[factory][0] if factory in FLOORS else {})


def index_of(factory, vectors, ids) -> VectorIndex:
    return (
        ExactIndex(vectors, ids)
        if factory == "exact"
        else build_faiss_index(recipe_of(factory), vectors, ids)
    )


# -- the contract ----------------------------------------------------------------------------------


@pytest.mark.parametrize("factory", EXACT)
def test_an_exact_index_gives_what_brute_force_gives(factory):
    vectors, ids = clustered(3000)
    index = index_of(factory, vectors, ids)
    queries = unit_rows(np.random.default_rng(1).standard_normal((20, DIM)))
    assert (len(index), index.dim) == (3000, DIM)
    for query, found in zip(queries, index.search_batch(queries, 10), strict=True):
        scores, best = brute_force(vectors, ids, query, 10)
        assert found.ids.tolist() == best.tolist() == index.search(query, 10).ids.tolist()
        np.testing.assert_allclose(found.scores, scores, atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("factory", FLOORS)
def test_an_approximate_index_proposes_most_of_the_best(factory):
    vectors, ids = clustered(1000 if "OPQ" in factory else 3000)  # the rotation is slow to learn
    index = index_of(factory, vectors, ids)
    queries, _ = clustered(50, seed=0, spread=0.7)
    hits = 0
    for query, found in zip(queries, index.search_batch(queries, 40), strict=True):
        places = np.searchsorted(ids, np.sort(found.ids))
        _, rescored = brute_force(vectors[places], ids[places], query, 10)
        hits += len(set(rescored.tolist()) & set(brute_force(vectors, ids, query, 10)[1].tolist()))
    assert hits / 500 >= FLOORS[factory][1]


@pytest.mark.parametrize("factory", [*EXACT, *FLOORS])
@pytest.mark.parametrize("count", [1, 2, 3, 40])
def test_few_rows_and_a_k_above_their_number(factory, count, capfd):
    vectors, ids = clustered(count)
    index = index_of(factory, vectors, ids)
    for k in (0, 1, count, count + 50):
        found = index.search(vectors[0].astype(np.float32), k)
        assert found.scores.dtype == np.float32
        assert found.ids.dtype == np.int64
        assert len(found.scores) == len(found.ids) <= min(k, count)
        assert set(found.ids.tolist()) <= set(ids.tolist())
        assert len(set(found.ids.tolist())) == len(found.ids)
        assert (np.diff(found.scores) <= 0).all()
        if count < 4 or factory in EXACT:
            assert len(found.ids) == min(k, count)
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("factory", [*EXACT, "IVF16,Flat", "HNSW32"])
def test_no_queries_and_queries_of_another_length(factory):
    index = index_of(factory, *clustered(100))
    assert index.search_batch(np.empty((0, DIM), np.float32), 5) == []
    with pytest.raises(ValueError, match=r"expected \(m, 64\) queries"):
        index.search(np.zeros(DIM - 1, np.float32), 5)


@pytest.mark.slow
@pytest.mark.parametrize("factory", FLOORS)
def test_training_says_nothing_and_the_same_rows_give_the_same_index(factory, capfd):
    vectors, ids = clustered(300)
    first, second = (
        index_of(factory, vectors, ids).search_batch(vectors[:20].astype(np.float32), 12)
        for _ in range(2)
    )
    assert [found.ids.tolist() for found in first] == [found.ids.tolist() for found in second]
    assert [found.scores.tolist() for found in first] == [found.scores.tolist() for found in second]
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("factory", ["IVF16,Flat", "IVF16,SQ8", "IVF16,PQ8"])
@settings(max_examples=30, deadline=None)
@given(
    count=st.integers(300, 900),
    nprobe=st.integers(1, 20),
    k=st.integers(1, 400),
    threads=st.integers(1, 5),
)
def test_lists_shared_by_threads_give_what_one_thread_gives(factory, count, nprobe, k, threads):
    vectors, ids = clustered(count)
    index = build_faiss_index(
        Recipe("test", factory=factory, search={"nprobe": nprobe}), vectors, ids
    )
    query = vectors[7:8].astype(np.float32)
    before = faiss.omp_get_max_threads()
    faiss.omp_set_num_threads(threads)
    try:
        shared = index.search(query[0], k)
    finally:
        faiss.omp_set_num_threads(before)
    scores, found = index.faiss_index.search(query, min(k, count))
    there = found[0] >= 0
    assert shared.scores.tolist() == pytest.approx(scores[0][there].tolist(), abs=1e-6)
    above = (
        scores[0][there] > scores[0][there][-1] + 1e-6
    )  # among equal scores the last may be another
    assert set(found[0][there][above].tolist()) <= set(shared.ids.tolist())
    order = np.lexsort((shared.ids, -shared.scores))
    assert order.tolist() == list(range(len(order)))


def test_equal_rows_come_in_order_of_id():
    vectors, ids = clustered(700)
    vectors[100:600] = vectors[0]
    found = ExactIndex(vectors, ids).search(vectors[0].astype(np.float32), 300)
    assert found.ids.tolist() == [ids[0], *ids[100:399].tolist()]
    assert len(set(found.scores.tolist())) == 1


@pytest.mark.slow
def test_more_rows_than_a_block_holds():
    vectors, ids = clustered(5000, dim=512)  # ten blocks
    index = ExactIndex(vectors, ids)
    queries, _ = clustered(5, dim=512, seed=2)
    for k in (1, 10, 700, 5000):
        for query, found in zip(queries, index.search_batch(queries, k), strict=True):
            scores, best = brute_force(vectors, ids, query.astype(np.float32), k)
            assert found.ids.tolist() == best.tolist()
            assert found.scores.tolist() == scores.tolist()


@pytest.mark.parametrize("dim", [3, 64])
def test_faiss_scans_many_blocks_in_threads(monkeypatch: pytest.MonkeyPatch, dim: int):
    monkeypatch.setattr(backends, "_MANY", 0)
    vectors, ids = clustered(20_000, dim=dim)  # five blocks, of 3 numbers with many near the best
    vectors[3000:9000:30] = vectors[12_000:19_000:35] = vectors[7]
    index = ExactIndex(vectors, ids)
    for query in (vectors[7], *clustered(3, dim=dim, seed=2)[0]):
        for k in (1, 10, 128, 129):
            found = index.search(query.astype(np.float32), k)
            scores, best = brute_force(vectors, ids, query.astype(np.float32), k)
            assert found.ids.tolist() == best.tolist()
            assert found.scores.tolist() == scores.tolist()


def test_many_rows_are_searched_exactly_where_faiss_cannot_be_loaded(
    monkeypatch: pytest.MonkeyPatch,
):
    monkeypatch.setattr(backends, "_MANY", 0)
    monkeypatch.setitem(sys.modules, "faiss", None)
    monkeypatch.delitem(sys.modules, "vitsearch.index.faiss_large", raising=False)
    vectors, ids = clustered(100)
    query = vectors[0].astype(np.float32)
    found = ExactIndex(vectors, ids).search(query, 5)
    assert found.ids.tolist() == brute_force(vectors, ids, query, 5)[1].tolist()


NUMBERS = st.sampled_from([0.0, 1.0, -1.0, 0.5, 2.0**-20]) | st.floats(-1, 1, width=16)


@st.composite
def collections(draw):
    dim = draw(st.integers(1, 6))
    rows = draw(hnp.arrays(np.float32, (draw(st.integers(0, 30)), dim), elements=NUMBERS))
    copies = draw(st.lists(st.integers(0, max(0, len(rows) - 1)), max_size=20)) if len(rows) else []
    vectors = unit_rows(np.concatenate([rows, rows[copies]])).astype(np.float16)
    gaps = draw(hnp.arrays(np.int64, len(vectors), elements=st.integers(1, 2**40)))
    query = unit_rows(draw(hnp.arrays(np.float32, (1, dim), elements=NUMBERS)))[0]
    return vectors, np.cumsum(gaps), query, draw(st.integers(0, 60))


@given(collections(), st.sampled_from([0, backends._MANY]))
def test_exact_search_is_brute_force_with_ties_by_id(case, many):
    vectors, ids, query, k = case
    with patch.object(backends, "_MANY", many):  # 0: by FAISS
        found = ExactIndex(vectors, ids).search(query, k)
    scores, best = brute_force(vectors, ids, query, k)
    assert found.ids.tolist() == best.tolist()
    assert found.scores.tolist() == scores.tolist()


# -- recipes that FAISS refuses --------------------------------------------------------------------


@pytest.mark.parametrize(
    ("recipe", "words"),
    [
        (
            Recipe("x", factory="Nonsense99"),
            (
                "FAISS does not take the factory string 'Nonsense99' for 64 dimensions: could not "
                "parse"
            ),
        ),
        (
            Recipe("x", factory="PQ7"),
            "FAISS does not take the factory string 'PQ7' for 64 dimensions",
        ),
        (Recipe("x", factory="LSH"), "FAISS does not take the factory string 'LSH'"),
        (
            Recipe("x", factory="HNSW32", search={"nprobe": 4}),
            "FAISS has no search parameter 'nprobe' for this index",
        ),
    ],
)
def test_a_recipe_that_faiss_refuses_is_refused_before_anything_is_written(tmp_path, recipe, words):
    vectors, ids = clustered(10)
    for call in (
        lambda: check_recipe(recipe, DIM),
        lambda: build(tmp_path / "index", vectors, ids, recipe),
    ):
        with pytest.raises(RecipeError) as caught:
            call()
        assert str(caught.value).startswith(words)
        assert "\n" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []


# -- the folder on disk ----------------------------------------------------------------------------


@pytest.mark.parametrize("name", BUILDABLE)
@pytest.mark.parametrize("count", [0, 1, 3, 500])
def test_what_is_built_is_what_is_opened(tmp_path, name, count, capfd):
    vectors, ids = clustered(count)
    folder = build(
        tmp_path / "index", vectors, ids, load_recipe(name), generation=7, fingerprint="ab" * 16
    )
    snapshot = open_snapshot(folder)
    assert (snapshot.recipe, snapshot.generation, len(snapshot), snapshot.dim) == (
        load_recipe(name),
        7,
        count,
        DIM,
    )
    assert (snapshot.fingerprint, snapshot.degraded) == ("ab" * 16, None)
    assert snapshot.ids.tolist() == ids.tolist()
    assert snapshot.vectors.tobytes() == vectors.tobytes() == (folder / "vectors.f16").read_bytes()
    assert (folder / "ids.i64").read_bytes() == ids.astype("<i8").tobytes()
    assert sorted(file.name for file in folder.iterdir()) == sorted(
        ["ids.i64", "manifest.json", "vectors.f16", *(["index.faiss"] if count else [])]
    )
    assert os.listdir(tmp_path) == ["index"]
    assert verify_snapshot(folder) == snapshot.manifest
    query = vectors[0].astype(np.float32) if count else np.zeros(DIM, np.float32)
    built = (
        index_of(load_recipe(name).factory_for(count, DIM), vectors, ids).search(query, 10)
        if count
        else None
    )
    assert snapshot.search(query, 10).ids.tolist() == ([] if built is None else built.ids.tolist())
    assert capfd.readouterr() == ("", "")


def test_an_exact_recipe_needs_no_faiss_file(tmp_path):
    vectors, ids = clustered(50)
    snapshot = open_snapshot(build(tmp_path / "index", vectors, ids, recipe_of("exact")))
    assert not (tmp_path / "index" / "index.faiss").exists()
    assert isinstance(snapshot.index, ExactIndex)
    assert (
        snapshot.search(vectors[3].astype(np.float32), 5).ids.tolist()
        == brute_force(vectors, ids, vectors[3], 5)[1].tolist()
    )


@pytest.mark.parametrize("name", ["plain", "größe 😀\n'\"", os.fsdecode(b"\xff\xfe")])
@pytest.mark.parametrize("recipe", BUILDABLE)
def test_a_folder_of_any_name(tmp_path, name, recipe):
    vectors, ids = clustered(200)
    snapshot = open_snapshot(build(tmp_path / name / "index", vectors, ids, load_recipe(recipe)))
    assert snapshot.degraded is None
    assert type(snapshot.index).__name__ == "FaissIndex"
    assert snapshot.search(vectors[5].astype(np.float32), 1).ids.tolist() == [ids[5]]


@pytest.mark.slow
def test_a_flat_index_is_mapped_and_not_read(tmp_path):
    vectors, ids = clustered(100_000)
    build(tmp_path / "index", vectors, ids)
    code = f"""
    import sys
    from pathlib import Path
    from vitsearch.index.snapshot import open_snapshot
    import vitsearch.index.faiss_index
    def own():
        return int(Path("/proc/self/status").read_text().split("RssAnon:")[1].split()[0])
    before = own()
    shadow = open_snapshot(Path({str(tmp_path / "index")!r}))
    print(type(shadow.index).__name__, len(shadow), own() - before)
    """
    name, count, grown = run_python(code).split()
    assert (name, count) == ("FaissIndex", "100000")
    assert int(grown) < 8_000  # kB; the vectors are 25,600 in the index file alone


def test_the_new_folder_replaces_the_old_one_and_open_readers_go_on(tmp_path):
    vectors, ids = clustered(300)
    folder = build(tmp_path / "index", vectors[:100], ids[:100], generation=1)
    old, stamp = open_snapshot(folder), manifest_stamp(folder)
    build(folder, vectors, ids, generation=2)
    assert manifest_stamp(folder) not in (stamp, None)
    assert manifest_stamp(tmp_path / "none") is None
    query = vectors[200].astype(np.float32)
    assert (
        old.search(query, 5).ids.tolist()
        == brute_force(vectors[:100], ids[:100], query, 5)[1].tolist()
    )
    assert (
        open_snapshot(folder).search(query, 5).ids.tolist()
        == brute_force(vectors, ids, query, 5)[1].tolist()
    )


@pytest.mark.slow
def test_a_reader_meets_a_whole_folder_while_it_is_replaced_again_and_again(tmp_path):
    vectors, ids = clustered(60)
    folder = build(tmp_path / "index", vectors[:1], ids[:1], generation=1)
    done = threading.Event()

    def write():
        for generation in range(2, 60):
            build(folder, vectors[:generation], ids[:generation], generation=generation)
        done.set()

    writer = threading.Thread(target=write)
    writer.start()
    seen = []
    while not done.is_set():
        snapshot = open_snapshot(folder)
        assert snapshot.ids.tolist() == ids[: snapshot.generation].tolist()
        assert len(snapshot.search(vectors[0].astype(np.float32), 100).ids) == snapshot.generation
        seen.append(snapshot.generation)
    writer.join()
    assert seen == sorted(seen)
    assert open_snapshot(folder).generation == 59


@pytest.mark.slow
def test_a_path_is_opened_by_name_where_an_open_file_has_none(tmp_path):
    vectors, ids = clustered(300)
    code = """
    import os, sys
    from pathlib import Path
    exists = Path.exists
    Path.exists = lambda path: not str(path).startswith("/proc") and exists(path)
    from vitsearch.index.snapshot import open_snapshot
    import faiss, numpy as np
    for folder in sys.stdin.read().split("|"):
        shadow = open_snapshot(Path(os.fsdecode(bytes.fromhex(folder))))
        query = np.asarray(shadow.vectors[9], np.float32)
        print(type(shadow.index).__name__, shadow.degraded, shadow.search(query, 1).ids)
    """
    folders = [
        build(tmp_path / os.fsdecode(name), vectors, ids)
        for name in (b"plain", "größe".encode(), b"\xff\xfe")
    ]
    assert (
        run_python(code, typed="|".join(bytes(folder).hex() for folder in folders))
        == "FaissIndex None [28]\n" * 3
    )


def test_the_page_about_the_format_is_true(tmp_path):
    vectors, ids = clustered(40_000)  # files longer than their two ends
    folder = build(tmp_path / "index", vectors, ids)
    facts = json.loads((folder / "manifest.json").read_bytes())
    assert facts.pop("checksum") == zlib.crc32(json.dumps(facts, sort_keys=True).encode())
    assert {**facts, "files": sorted(facts["files"])} == {
        "format": 1,
        "recipe": {
            "name": "flat",
            "kind": "faiss",
            "factory": "IDMap,Flat",
            "description": load_recipe("flat").description,
        },
        "generation": 1,
        "count": 40_000,
        "dim": DIM,
        "fingerprint": "f" * 32,
        "files": ["ids.i64", "index.faiss", "vectors.f16"],
    }
    for name, file in facts["files"].items():
        content, status = (folder / name).read_bytes(), (folder / name).stat()
        parts = [content[start : start + 65_536] for start in range(0, len(content), 65_536)]
        blocks = np.array([zlib.crc32(part) for part in parts], dtype="<u4")
        assert file == {
            "size": len(content),
            "mtime_ns": status.st_mtime_ns,
            "checksum": zlib.crc32(content),
            "edge_checksum": zlib.crc32(content[:65536] + content[-65536:]),
            "blocks": base64.b64encode(blocks).decode(),
        }
    page = (ROOT / "indexes" / "README.md").read_text()
    names = {}
    exec(page.split("```python\n")[1].split("```")[0].replace("index/", f"{folder}/"), names)
    assert names["ids"].tolist() == ids.tolist()
    assert names["vectors"].tobytes() == vectors.tobytes()
    assert faiss.read_index(str(folder / "index.faiss")).ntotal == 40_000


def test_what_a_killed_build_left_is_removed(tmp_path):
    vectors, ids = clustered(20)
    folder = build(tmp_path / "index", vectors, ids)
    for left in ("index.new", "index.old"):
        (tmp_path / left / "deep").mkdir(parents=True)
        (tmp_path / left / "deep" / "file").write_bytes(b"x")
    build(folder, vectors, ids, generation=2)
    assert os.listdir(tmp_path) == ["index"]
    assert open_snapshot(folder).generation == 2


@pytest.mark.slow
def test_a_build_killed_at_any_moment_leaves_a_whole_index(tmp_path):
    vectors, ids = clustered(2000)
    folder = build(tmp_path / "index", vectors, ids, generation=1)
    code = f"""
    import os, signal, sys
    from pathlib import Path
    import numpy as np
    from vitsearch.index.snapshot import build_snapshot, open_snapshot
    old = open_snapshot(Path({str(folder)!r}))
    def batches():
        yield np.array(old.ids[:1000]), np.array(old.vectors[:1000])
        os.kill(os.getpid(), signal.SIGKILL)
    facts = dict(recipe=old.recipe, dim=old.dim, generation=2, fingerprint="")
    build_snapshot(Path({str(folder)!r}), batches(), **facts)
    """
    killed = subprocess.run([sys.executable, "-c", textwrap.dedent(code)], check=False)
    assert killed.returncode == -signal.SIGKILL
    assert verify_snapshot(folder).generation == 1
    assert (tmp_path / "index.new").exists()
    build(folder, vectors, ids, generation=3)
    assert os.listdir(tmp_path) == ["index"]


@pytest.mark.slow
@pytest.mark.parametrize("limit", [20_000, 60_000, 150_000])
def test_a_full_disk_leaves_the_old_index_and_nothing_else(tmp_path, limit):
    # vectors 128,000 bytes, ids 8,000, index.faiss about 264,000: the limits stop the first, the
    # first and the last
    vectors, ids = clustered(1000)
    folder = build(tmp_path / "index", vectors, ids, generation=1)
    code = f"""
    import resource
    from pathlib import Path
    import numpy as np
    from vitsearch.index.snapshot import build_snapshot, open_snapshot
    import vitsearch.index.faiss_index
    old = open_snapshot(Path({str(folder)!r}))
    resource.setrlimit(resource.RLIMIT_FSIZE, ({limit}, {limit}))
    try:
        facts = dict(recipe=old.recipe, dim=old.dim, generation=2, fingerprint="")
        build_snapshot(Path({str(folder)!r}), [(old.ids, old.vectors)], **facts)
    except OSError as error:
        print(error.strerror)
    """
    assert run_python(code) == "File too large\n"
    assert os.listdir(tmp_path) == ["index"]
    assert verify_snapshot(folder).generation == 1


@pytest.mark.parametrize("problem", ["interrupt", "order", "negative", "shape", "type"])
def test_a_build_that_fails_leaves_the_old_index_and_nothing_else(tmp_path, problem):
    vectors, ids = clustered(100)
    folder = build(tmp_path / "index", vectors, ids, generation=1)

    def batches():
        yield ids[:50], vectors[:50]
        if problem == "interrupt":
            raise KeyboardInterrupt
        yield {
            "order": (ids[49:], vectors[49:]),
            "negative": (-ids[50:], vectors[50:]),
            "shape": (ids[50:], vectors[50:, :3]),
            "type": (ids[50:], vectors[50:].astype(np.float32)),
        }[problem]

    error, words = (
        (KeyboardInterrupt, None) if problem == "interrupt" else (ValueError, "expected|ascend")
    )
    with pytest.raises(error, match=words):
        build_snapshot(
            folder, batches(), recipe=load_recipe("flat"), dim=DIM, generation=2, fingerprint=""
        )
    assert os.listdir(tmp_path) == ["index"]
    assert verify_snapshot(folder).generation == 1


# -- damage ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["manifest.json", "vectors.f16", "ids.i64", "index.faiss"])
@pytest.mark.parametrize("damage", ["missing", "empty", "cut", "longer", "a folder"])
def test_a_damaged_file_is_named(tmp_path, name, damage):
    file = build(tmp_path / "index", *clustered(100)) / name
    whole = file.read_bytes()
    file.unlink()
    if damage == "a folder":
        file.mkdir()
    elif damage != "missing":
        file.write_bytes({"empty": b"", "cut": whole[:-1], "longer": whole + b"\0"}[damage])
    for read in (open_snapshot, verify_snapshot):
        with pytest.raises(IndexDamaged) as caught:
            read(tmp_path / "index")
        assert str(caught.value).startswith(f"index file {file} ")
        assert "\n" not in str(caught.value)


def test_no_folder_and_a_file_in_its_place(tmp_path):
    with pytest.raises(IndexDamaged, match="is missing"):
        open_snapshot(tmp_path / "none")
    (tmp_path / "index").write_bytes(b"")
    with pytest.raises(IndexDamaged, match="cannot be read"):
        open_snapshot(tmp_path / "index")
    build(tmp_path / "index", *clustered(5))
    assert len(open_snapshot(tmp_path / "index")) == 5


def test_another_format_is_refused(tmp_path):
    file = build(tmp_path / "index", *clustered(5)) / "manifest.json"
    file.write_text(json.dumps({**json.loads(file.read_bytes()), "format": 2}))
    with pytest.raises(IndexDamaged, match=r"has format 2, newer than this vitsearch reads \(1\);"):
        open_snapshot(tmp_path / "index")


def test_a_byte_altered_in_the_middle_of_a_large_file_is_noticed(tmp_path):
    folder = build(tmp_path / "index", *clustered(5000))
    file = folder / "vectors.f16"  # 640,000 bytes
    status, data = file.stat(), bytearray(file.read_bytes())
    data[320_000] ^= 1
    file.write_bytes(data)
    with pytest.raises(IndexDamaged, match=r"vectors\.f16 was altered"):
        open_snapshot(folder)
    os.utime(
        file, ns=(status.st_atime_ns, status.st_mtime_ns)
    )  # as when a disk goes bad: only reading all of it tells
    assert len(open_snapshot(folder)) == 5000
    with pytest.raises(IndexDamaged, match=r"vectors\.f16 was altered"):
        verify_snapshot(folder)


@pytest.fixture(scope="module")
def built_folders(tmp_path_factory):
    place = tmp_path_factory.mktemp("damage")
    return {
        name: build(place / name / "index", *clustered(300), load_recipe(name))
        for name in ("flat", "hnsw", "ivf")
    }


@pytest.mark.slow
@settings(max_examples=60)
@given(st.data())
def test_random_damage_is_noticed_or_harmless(built_folders, tmp_path_factory, data):
    source = built_folders[data.draw(st.sampled_from(sorted(built_folders)))]
    folder = tmp_path_factory.mktemp("copy")
    for file in source.iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    file = folder / data.draw(st.sampled_from(sorted(entry.name for entry in source.iterdir())))
    content = bytearray(file.read_bytes())
    place = data.draw(st.integers(0, len(content) - 1))
    if data.draw(st.booleans()):
        content = content[:place]
    else:
        content[place] ^= data.draw(st.integers(1, 255))
    file.write_bytes(content)
    query = np.random.default_rng(5).standard_normal(DIM)
    try:
        snapshot = open_snapshot(folder)
    except IndexDamaged:
        return
    assert file.name == "manifest.json"  # white space, an escape
    assert (
        snapshot.search(query, 20).ids.tolist()
        == open_snapshot(source).search(query, 20).ids.tolist()
    )


# -- without FAISS ---------------------------------------------------------------------------------


def run_python(code, typed=None):
    result = subprocess.run(
        [sys.executable, "-W", "error", "-c", textwrap.dedent(code)],
        capture_output=True,
        input=typed,
        text=True,
        check=False,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    assert (result.returncode, result.stderr) == (0, "")
    return result.stdout


WITHOUT = """
import sys
sys.modules["faiss"] = None
import json
from pathlib import Path
import numpy as np
from vitsearch.errors import RecipeError
from vitsearch.index.snapshot import build_snapshot, open_snapshot
from vitsearch.index.recipe import load_recipe
"""


@pytest.mark.slow
@pytest.mark.parametrize("name", BUILDABLE)
def test_an_index_built_with_faiss_is_searched_exactly_without(tmp_path, name):
    vectors, ids = clustered(500)
    folder = build(tmp_path / "index", vectors, ids, load_recipe(name))
    code = f"""{WITHOUT}
shadow = open_snapshot(Path({str(folder)!r}))
found = shadow.search(shadow.vectors[7], 9).ids.tolist()
print(json.dumps([type(shadow.index).__name__, shadow.degraded, found]))
"""
    note = (
        f"FAISS is not installed, so recipe {name!r} is searched exactly: pip install "
        "'vitsearch[faiss]'"
    )
    expected = brute_force(vectors, ids, vectors[7], 9)[1].tolist()
    assert json.loads(run_python(code)) == [
        "ExactIndex",
        None if name in ("flat", "gpu-flat") else note,
        expected,
    ]


@pytest.mark.slow
def test_flat_is_built_and_searched_without_faiss_with_the_same_results(tmp_path):
    vectors, ids = clustered(500)
    with_faiss = open_snapshot(build(tmp_path / "with", vectors, ids))
    np.save(tmp_path / "vectors.npy", vectors)
    code = f"""{WITHOUT}
vectors = np.load({str(tmp_path / "vectors.npy")!r})
ids = np.arange(500) * 3 + 1
facts = dict(recipe=load_recipe("flat"), dim=64, generation=1, fingerprint="x")
build_snapshot(Path({str(tmp_path / "without")!r}), [(ids, vectors)], **facts)
shadow = open_snapshot(Path({str(tmp_path / "without")!r}))
print(json.dumps([shadow.degraded, [shadow.search(row, 10).ids.tolist() for row in vectors[:20]]]))
"""
    queries = vectors[:20].astype(np.float32)
    assert json.loads(run_python(code)) == [
        None,
        [with_faiss.search(query, 10).ids.tolist() for query in queries],
    ]
    without = open_snapshot(tmp_path / "without")  # where FAISS is installed again
    assert isinstance(without.index, ExactIndex)
    assert without.manifest == Manifest(
        load_recipe("flat"), 1, 500, 64, "x", without.manifest.files
    )


@pytest.mark.slow
@pytest.mark.parametrize("name", ["hnsw", "ivf", "sq8"])
def test_without_faiss_another_recipe_says_what_to_install(tmp_path, name):
    code = f"""{WITHOUT}
try:
    facts = dict(recipe=load_recipe({name!r}), dim=64, generation=1, fingerprint="x")
    build_snapshot(Path({str(tmp_path / "index")!r}), [], **facts)
except RecipeError as error:
    print(error)
"""
    assert (
        run_python(code)
        == f"recipe {name!r} needs FAISS, which is not installed: pip install 'vitsearch[faiss]'\n"
    )
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_importing_the_index_room_does_not_import_faiss():
    assert (
        run_python(
            "import sys, vitsearch.index, vitsearch.index.recipe; print('faiss' in sys.modules)"
        )
        == "False\n"
    )
