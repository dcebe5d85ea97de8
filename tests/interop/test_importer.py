"""Collections in and out: clip-retrieval's folder, FAISS with ids and paths, and one collection
into another.
"""

import json
import os
import pickle
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import faiss
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from helpers.cli import environment, vitsearch
from helpers.collections import CountingEncoder, content, counts, found_paths
from helpers.interop import facts, opened, report
from helpers.photos import paint
from vitsearch import Collection, CollectionError, EncoderError, Prediction, index_folder
from vitsearch.arrays import unit_rows
from vitsearch.encoders.colour import DIM, ColourEncoder
from vitsearch.errors import CollectionNotFound, EncoderMismatch, VitsearchError
from vitsearch.interop import (
    ImportOptions,
    ImportReport,
    MergeReport,
    export_clip_retrieval,
    export_faiss,
    import_clip_retrieval,
    import_faiss,
    merge,
)
from vitsearch.interop.rows import stored_halves, usable
from vitsearch.photos.columns import METADATA
from vitsearch.storage.store import PhotoStore

ALL = ["blue.png", "green.png", "red.png", "sub/blue.png", "yellow.png"]


def vectors_of(photos: Path, paths: Sequence[str]) -> NDArray[np.float32]:
    """The encoder's vectors of some photos."""
    from PIL import Image

    return ColourEncoder().encode_images([Image.open(photos / path) for path in paths])


def write_layout(folder: Path, *shards: tuple[Sequence[str], NDArray[Any]], **columns: Any) -> Path:
    """Write vectors and paths as clip-retrieval's writer does: np.save, and a table with image_path
    and caption.
    """
    (folder / "img_emb").mkdir(parents=True)
    (folder / "metadata").mkdir()
    for number, (paths, vectors) in enumerate(shards):
        np.save(folder / "img_emb" / f"img_emb_{number}.npy", vectors)
        table = pa.table(
            {
                "image_path": pa.array(list(paths), pa.string()),
                "caption": [f"a photo {place}" for place in range(len(paths))],
            }
        )
        pq.write_table(table, folder / "metadata" / f"metadata_{number}.parquet")
    return folder


# -- clip-retrieval --------------------------------------------------------------------------------


@pytest.mark.parametrize("shard_size", [1, 2, 5, 1000])
def test_an_export_comes_back_as_the_same_collection(
    labelled: Path, tmp_path: Path, shard_size: int
) -> None:
    seen: list[tuple[int, int]] = []
    with opened(labelled) as found:
        assert (
            export_clip_retrieval(
                found,
                tmp_path / "out",
                shard_size=shard_size,
                progress=lambda *step: seen.append(step),
            )
            == 5
        )
    assert seen[-1] == (5, 5)
    came = import_clip_retrieval(
        tmp_path / "out", labelled, collection=tmp_path / "second", encoder=ColourEncoder()
    )
    assert came == report(imported=5, checked=5, total=5)
    assert facts(labelled, collection=tmp_path / "second") == facts(labelled)
    assert [row[0] for row in facts(labelled)] == ALL
    encoder = CountingEncoder()
    assert counts(index_folder(labelled, collection=tmp_path / "second", encoder=encoder)) == {
        "unchanged": 5
    }
    assert encoder.embedded == 0
    assert sorted(path.name for path in (tmp_path / "second").iterdir()) == [
        "collection.json",
        "index",
        "lock",
        "photos.db",
    ]


def test_the_export_is_what_clip_retrieval_reads(labelled: Path, tmp_path: Path) -> None:
    with opened(labelled) as found:
        export_clip_retrieval(found, tmp_path / "out", shard_size=2)
        stored = [found.store.vector(one.photo_id) for one in found.photos()]
        photos = list(found.photos())
    arrays, tables = (
        sorted((tmp_path / "out" / name).iterdir()) for name in ("img_emb", "metadata")
    )
    assert [file.name for file in [*arrays, *tables]] == [
        *(f"img_emb_{number}.npy" for number in range(3)),
        *(f"metadata_{number}.parquet" for number in range(3)),
    ]
    loaded = [np.load(file, allow_pickle=False) for file in arrays]
    assert [(array.dtype, array.shape) for array in loaded] == [
        (np.float16, (2, DIM)),
        (np.float16, (2, DIM)),
        (np.float16, (1, DIM)),
    ]
    assert np.concatenate(loaded).tobytes() == np.stack(stored).tobytes()
    rows = [row for file in tables for row in pq.read_table(file).to_pylist()]
    assert rows == [
        {
            "image_path": str(labelled / one.path),
            "path": one.path,
            "path_bytes": None,
            "width": 24,
            "height": 16,
            **dict.fromkeys(METADATA),
            "fingerprint": one.fingerprint.hex(),
            "label": one.label,
            "score": one.label_score,
        }
        for one in photos
    ]
    manifest = json.loads((tmp_path / "out" / "vitsearch.json").read_text())
    golden = np.array(manifest.pop("golden"), np.float32)
    assert manifest == {
        "layout": "clip-retrieval",
        "photos": 5,
        "encoder": "colour",
        "encoder_fingerprint": ColourEncoder.fingerprint,
        "dtype": "float32",
        "dim": DIM,
        "format": 1,
    }
    with opened(labelled) as found:
        assert golden.tobytes() == found.store.get_meta("golden")


def test_shards_are_numbered_so_that_their_names_sort(tmp_path: Path) -> None:
    for number in range(11):
        paint(tmp_path / "photos" / f"{number:02}.png", (number * 20, 90, 10))
    index_folder(tmp_path / "photos", encoder=ColourEncoder())
    with opened(tmp_path / "photos") as found:
        export_clip_retrieval(found, tmp_path / "out", shard_size=1)
    names = sorted(file.name for file in (tmp_path / "out" / "metadata").iterdir())
    assert names == [f"metadata_{number:02}.parquet" for number in range(11)]
    assert [
        pq.read_table(tmp_path / "out" / "metadata" / name).column("path").to_pylist()
        for name in names
    ] == [[f"{number:02}.png"] for number in range(11)]


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
@pytest.mark.parametrize("length", [1.0, 7.5])
def test_a_folder_of_clip_retrieval_becomes_a_collection(
    photos: Path, tmp_path: Path, dtype: Any, length: float
) -> None:
    first, second = ["red.png", "sub/blue.png"], ["yellow.png", "green.png"]
    layout = write_layout(
        tmp_path / "emb",
        (
            [str(photos / path) for path in first],
            (vectors_of(photos, first) * length).astype(dtype),
        ),
        (second, (vectors_of(photos, second) * length).astype(dtype)),
    )
    encoder, seen = CountingEncoder(), []
    came = import_clip_retrieval(
        layout, photos, encoder=encoder, progress=lambda *step: seen.append(step)
    )
    assert came == report(imported=4, checked=4, total=4)
    assert seen == [(2, 4), (4, 4)]
    assert found_paths(photos, "blue", 1) == ["sub/blue.png"]
    index_folder(photos, encoder=ColourEncoder(), collection=tmp_path / "fresh")
    if length == 1.0:
        assert facts(photos) == facts(photos, collection=tmp_path / "fresh")
    given, fresh = content(photos), content(photos, collection=tmp_path / "fresh")
    assert list(given) == list(fresh)
    for path in given:
        np.testing.assert_allclose(
            np.frombuffer(given[path], np.float32),
            np.frombuffer(fresh[path], np.float32),
            atol=2e-3,
        )
    with opened(photos) as found:
        assert found.config.encoder == "colour"
        assert found.store.generation() == 1


def test_paths_of_another_machine_are_read_with_what_they_begin_with(
    photos: Path, tmp_path: Path
) -> None:
    names = ["red.png", "sub/blue.png"]
    for number, start in enumerate(["/data/mine", "mine/./all", "../mine"]):
        layout = write_layout(
            tmp_path / f"emb{number}",
            ([f"{start}/{name}" for name in names], vectors_of(photos, names)),
        )
        with pytest.raises(
            CollectionError, match="none of the 2 vectors of .* is of a photo in the folder"
        ):
            import_clip_retrieval(
                layout, photos, collection=tmp_path / f"c{number}", encoder="colour"
            )
        assert not (tmp_path / f"c{number}").exists()
        options = ImportOptions(paths_from=f"{start}/")
        came = import_clip_retrieval(
            layout, photos, collection=tmp_path / f"c{number}", encoder="colour", options=options
        )
        assert came == report(imported=2, checked=2, total=2)


def test_what_has_no_photo_is_counted_and_named(photos: Path, tmp_path: Path) -> None:
    (photos / "broken.png").write_bytes(b"not a picture")
    paths = [
        "red.png",
        "gone.png",
        "/etc/passwd",
        "../photos.png",
        "",
        "a/../green.png",
        "sub/blue.png",
        "yellow.png",
        "broken.png",
        "red.png",
    ]
    vectors = np.stack(
        [
            vectors_of(photos, [path])[0]
            if (photos / path).suffix and path in ("red.png", "sub/blue.png", "yellow.png")
            else np.ones(DIM) / DIM**0.5
            for path in paths
        ]
    )
    vectors[5] = vectors_of(photos, ["green.png"])[0]
    vectors[6, 3], vectors[7] = np.nan, 0
    layout = write_layout(tmp_path / "emb", (paths, vectors.astype(np.float32)))
    came = import_clip_retrieval(layout, photos, encoder="colour")
    assert came == report(
        imported=2,
        unchanged=1,
        missing=1,
        outside=3,
        unreadable=1,
        damaged=2,
        checked=2,
        total=2,
        problems=(
            ("gone.png", "is not among the photos of the folder"),
            ("/etc/passwd", "lies outside the photo folder"),
            ("../photos.png", "lies outside the photo folder"),
            ("", "lies outside the photo folder"),
            ("sub/blue.png", "its vector is zero or not finite"),
            ("yellow.png", "its vector is zero or not finite"),
            ("broken.png", "not a photo: its content is of no picture format that is read here"),
        ),
    )
    assert list(content(photos)) == ["green.png", "red.png"]
    assert counts(index_folder(photos, encoder=ColourEncoder())) == {
        "unchanged": 2,
        "indexed": 2,
        "failed": 1,
    }


def test_a_photo_that_changed_since_the_export_is_left_to_indexing(
    labelled: Path, tmp_path: Path
) -> None:
    with opened(labelled) as found:
        export_clip_retrieval(found, tmp_path / "out")
    paint(labelled / "green.png", "red")
    came = import_clip_retrieval(
        tmp_path / "out", labelled, collection=tmp_path / "second", encoder=ColourEncoder()
    )
    assert came == report(
        imported=4,
        changed=1,
        checked=4,
        total=4,
        problems=(("green.png", "has changed since its vector was made"),),
    )
    assert list(content(labelled, collection=tmp_path / "second")) == [
        path for path in ALL if path != "green.png"
    ]


def test_one_vector_that_the_encoder_does_not_give_is_left_out(
    labelled: Path, tmp_path: Path
) -> None:
    vectors = vectors_of(labelled, ALL)
    vectors[1] = vectors[0]
    came = import_clip_retrieval(
        write_layout(tmp_path / "emb", (ALL, vectors)),
        labelled,
        collection=tmp_path / "second",
        encoder="colour",
    )
    problem = ("green.png", "the encoder gives another vector for it")
    assert came == report(imported=4, changed=1, checked=5, total=4, problems=(problem,))


def test_a_path_with_two_vectors_is_left_out_where_one_is_wrong(
    photos: Path, tmp_path: Path
) -> None:
    names = ["red.png", "red.png", "green.png", "sub/blue.png", "yellow.png"]
    vectors = vectors_of(photos, ["green.png", *names[1:]])
    came = import_clip_retrieval(
        write_layout(tmp_path / "emb", (names, vectors)), photos, encoder="colour"
    )
    problem = ("red.png", "the encoder gives another vector for it")
    assert came == report(imported=3, changed=2, checked=4, total=3, problems=(problem, problem))


# -- which encoder ---------------------------------------------------------------------------------


def test_vectors_of_another_model_are_refused_with_the_figures(
    photos: Path, tmp_path: Path
) -> None:
    names = ["red.png", "green.png", "sub/blue.png", "yellow.png"]
    other = unit_rows(np.random.default_rng(0).normal(size=(4, DIM)))
    swapped = np.roll(vectors_of(photos, names), 1, axis=0)
    for number, vectors in enumerate([other, swapped]):
        layout = write_layout(tmp_path / f"emb{number}", (names, vectors))
        with pytest.raises(
            EncoderMismatch,
            match=(
                r"of 4 photos embedded to compare, 4 have a cosine below 0.99 \(median "
                r"-?0\.\d+, worst -?0\.\d+"
            ),
        ):
            import_clip_retrieval(layout, photos, encoder="colour")
    assert not (photos / ".vitsearch").exists()


def test_the_encoder_must_be_named_and_fit(photos: Path, tmp_path: Path) -> None:
    layout = write_layout(tmp_path / "emb", (["red.png"], vectors_of(photos, ["red.png"])))
    with pytest.raises(EncoderError, match="does not say which encoder made its vectors: name it"):
        import_clip_retrieval(layout, photos)
    wide = write_layout(tmp_path / "wide", (["red.png"], np.ones((1, 512), np.float16)))
    with pytest.raises(EncoderMismatch, match="have 512 numbers, encoder colour gives 27"):
        import_clip_retrieval(wide, photos, encoder="colour")
    assert not (photos / ".vitsearch").exists()
    index_folder(photos, encoder=ColourEncoder())
    before = facts(photos)
    assert import_clip_retrieval(layout, photos) == report(
        unchanged=1, checked=1, total=4
    )  # the collection says it
    assert facts(photos) == before


def test_an_export_of_another_encoder_is_refused(indexed: Path, tmp_path: Path) -> None:
    with opened(indexed) as found:
        export_clip_retrieval(found, tmp_path / "out")
    manifest = json.loads((tmp_path / "out" / "vitsearch.json").read_text())

    def said(**facts: Any) -> None:
        (tmp_path / "out" / "vitsearch.json").write_text(json.dumps(manifest | facts))

    before = facts(indexed)
    said(encoder_fingerprint="0" * 32)
    with pytest.raises(
        EncoderMismatch,
        match=r"out was made with colour \(fingerprint 0{8}\), not with this colour of .*vitsearch",
    ):
        import_clip_retrieval(tmp_path / "out", indexed)
    with pytest.raises(EncoderMismatch, match="not with this colour"):
        import_clip_retrieval(tmp_path / "out", indexed, collection=tmp_path / "second")
    said(golden=np.roll(manifest["golden"], 1, axis=1).tolist())
    with pytest.raises(EncoderMismatch, match="gives other vectors"):
        import_clip_retrieval(tmp_path / "out", indexed, collection=tmp_path / "second")
    newer = r"vitsearch.json has format 2, newer than this vitsearch reads \(1\): upgrade vitsearch"
    for wrong, words in (
        (
            {"golden": [[1.0]]},
            r"vitsearch.json is damaged \('golden' holds no rows of 27 numbers\)",
        ),
        ({"dim": "27"}, r"vitsearch.json is damaged \('dim' is of the wrong type\)"),
        ({"format": 2}, newer),
        ({"encoder": None}, r"vitsearch.json is damaged \('encoder' is of the wrong type\)"),
    ):
        said(**wrong)
        with pytest.raises(CollectionError, match=words):
            import_clip_retrieval(tmp_path / "out", indexed, collection=tmp_path / "second")
    assert not (tmp_path / "second").exists()
    assert facts(indexed) == before


# -- an existing collection ------------------------------------------------------------------------


def test_an_import_adds_to_a_collection_of_the_same_encoder(labelled: Path, tmp_path: Path) -> None:
    with opened(labelled) as found:
        export_clip_retrieval(found, tmp_path / "out")
    (labelled / "red.png").rename(tmp_path / "red.png")
    paint(labelled / "new.png", "red", "green", "blue")
    index_folder(labelled, encoder=ColourEncoder())
    shutil.move(tmp_path / "red.png", labelled / "red.png")
    came = import_clip_retrieval(tmp_path / "out", labelled)
    assert came == report(imported=1, unchanged=4, checked=5, total=6)
    assert list(content(labelled)) == sorted([*ALL, "new.png"])
    assert {row[0]: row[5] for row in facts(labelled) if row[5]} == {
        "red.png": "warm, \u00e9",
        "sub/blue.png": "cold",
    }
    assert found_paths(
        labelled, labelled / "new.png", 1
    )  # the index is older than the vectors, and they are found anyway
    assert counts(index_folder(labelled, encoder=ColourEncoder())) == {"unchanged": 6}


def test_an_import_that_fails_on_its_way_changes_nothing(labelled: Path, tmp_path: Path) -> None:
    with opened(labelled) as found:
        export_clip_retrieval(found, tmp_path / "out", shard_size=1)
    (labelled / "red.png").rename(tmp_path / "red.png")
    index_folder(labelled, encoder=ColourEncoder())
    shutil.move(tmp_path / "red.png", labelled / "red.png")
    before = facts(labelled)

    def stop(done: int, total: int) -> None:
        if done == 4:
            raise KeyboardInterrupt

    for place in (None, tmp_path / "second"):
        with pytest.raises(KeyboardInterrupt):
            import_clip_retrieval(
                tmp_path / "out", labelled, collection=place, encoder=ColourEncoder(), progress=stop
            )
    assert facts(labelled) == before
    with pytest.raises(CollectionNotFound):
        opened(labelled, collection=tmp_path / "second")
    assert [path.name for path in (tmp_path / "second").iterdir()] == ["lock"]
    (tmp_path / "second" / "photos.db.new").write_bytes(b"what a killed import left")
    (tmp_path / "second" / "photos.db.new-wal").write_bytes(b"the same")
    assert import_clip_retrieval(
        tmp_path / "out", labelled, collection=tmp_path / "second"
    ) == report(imported=5, checked=5, total=5)
    assert [row[0] for row in facts(labelled, collection=tmp_path / "second")] == ALL


KILLED = """
import os, sys
from vitsearch.interop import import_clip_retrieval, ImportOptions
stop = lambda done, total: os._exit(9) if done == 4 else None
source, photos, folder = sys.argv[1:4]
options = ImportOptions(workers=1)
import_clip_retrieval(source, photos, collection=folder, progress=stop, options=options)
"""


@pytest.mark.slow
def test_a_killed_import_leaves_no_half(labelled: Path, tmp_path: Path) -> None:
    with opened(labelled) as found:
        export_clip_retrieval(found, tmp_path / "out", shard_size=1)
    (labelled / "red.png").rename(tmp_path / "red.png")
    index_folder(labelled, encoder=ColourEncoder())
    shutil.move(tmp_path / "red.png", labelled / "red.png")
    before = facts(labelled)
    for place in (labelled / ".vitsearch", tmp_path / "second"):
        command = [sys.executable, "-c", KILLED, tmp_path / "out", labelled, place]
        assert subprocess.run(command, env=environment(), timeout=60).returncode == 9
    assert facts(labelled) == before
    with pytest.raises(CollectionNotFound):
        opened(labelled, collection=tmp_path / "second")
    assert import_clip_retrieval(tmp_path / "out", labelled) == report(
        imported=1, unchanged=4, checked=5, total=5
    )
    came = import_clip_retrieval(tmp_path / "out", labelled, collection=tmp_path / "second")
    assert came == report(imported=5, checked=5, total=5)


def test_a_collection_without_its_database_is_filled_anew(labelled: Path, tmp_path: Path) -> None:
    with opened(labelled) as found:
        export_clip_retrieval(found, tmp_path / "out")
    before = facts(labelled)
    for file in (labelled / ".vitsearch").glob("photos.db*"):
        file.unlink()
    assert import_clip_retrieval(tmp_path / "out", labelled) == report(
        imported=5, checked=5, total=5
    )
    assert facts(labelled) == before
    assert not (labelled / ".vitsearch" / "index").exists()  # it was of the other database
    assert found_paths(labelled, "green", 1) == ["green.png"]
    (labelled / ".vitsearch" / "collection.json").unlink()
    with pytest.raises(CollectionError, match=r"holds photos but no collection.json"):
        import_clip_retrieval(tmp_path / "out", labelled)


# -- odd names -------------------------------------------------------------------------------------

NAMES = st.text(
    st.characters(blacklist_characters="/\0", blacklist_categories=["Cs"]), min_size=1, max_size=12
).filter(
    lambda name: (
        not name.startswith(".")
        and name not in ("@eaDir", "node_modules", "System Volume Information")
    )
)
RAW = (
    st.binary(min_size=1, max_size=8)
    .filter(lambda name: b"/" not in name and b"\0" not in name and not name.startswith(b"."))
    .map(os.fsdecode)
)


@pytest.mark.slow
@settings(max_examples=25, deadline=None)
@given(
    names=st.lists(NAMES | RAW, min_size=1, max_size=4, unique=True),
    layout=st.sampled_from(["clip-retrieval", "faiss"]),
)
def test_any_names_come_back(names: list[str], layout: str) -> None:
    out, into = {
        "clip-retrieval": (export_clip_retrieval, import_clip_retrieval),
        "faiss": (export_faiss, import_faiss),
    }[layout]
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        for number, name in enumerate(names):
            paint(folder / "photos" / f"{name}{number}" / f"{name}.png", (number * 60, 200, 30))
        index_folder(folder / "photos", encoder=ColourEncoder())
        with opened(folder / "photos") as found:
            out(found, folder / "out")
        came = into(
            folder / "out", folder / "photos", collection=folder / "second", encoder=ColourEncoder()
        )
        assert came == report(imported=len(names), checked=len(names), total=len(names))
        assert facts(folder / "photos", collection=folder / "second") == facts(folder / "photos")


@given(st.integers(0, 2**32 - 1), st.sampled_from([27, 512, 768]))
@settings(max_examples=30, deadline=None)
def test_unit_rows_of_half_precision_stay_bit_by_bit(seed: int, dim: int) -> None:
    halves = unit_rows(np.random.default_rng(seed).normal(size=(9, dim))).astype(np.float16)
    assert stored_halves(halves).tobytes() == halves.tobytes()
    assert usable(halves).all()
    np.testing.assert_allclose(
        np.linalg.norm(stored_halves(halves.astype(np.float32) * 1e-3).astype(np.float64), axis=1),
        1,
        atol=1e-3,
    )


def test_rows_that_are_no_direction_are_not_usable() -> None:
    rows = np.array([[1, 0], [0, 0], [np.nan, 1], [np.inf, 1], [1e-30, 0], [3, 4]], np.float32)
    assert usable(rows).tolist() == [True, False, False, False, True, True]
    assert stored_halves(rows[[4, 5]]).tolist() == [[1, 0], np.float16([0.6, 0.8]).tolist()]


# -- damaged folders -------------------------------------------------------------------------------


def longer(folder: Path, vectors: NDArray[Any]) -> None:
    np.save(folder / "img_emb" / "img_emb_0.npy", np.concatenate([vectors, vectors]))


def narrower(folder: Path, vectors: NDArray[Any]) -> None:
    write_layout(folder / "more", (["red.png"], vectors[:1, :5]))
    (folder / "more" / "img_emb" / "img_emb_0.npy").rename(folder / "img_emb" / "img_emb_1.npy")
    (folder / "more" / "metadata" / "metadata_0.parquet").rename(
        folder / "metadata" / "metadata_1.parquet"
    )


def pickled(folder: Path, vectors: NDArray[Any]) -> None:
    (folder / "img_emb" / "img_emb_0.npy").write_bytes(pickle.dumps(vectors))


def objects(folder: Path, vectors: NDArray[Any]) -> None:
    np.save(
        folder / "img_emb" / "img_emb_0.npy",
        np.array(vectors.tolist(), dtype=object),
        allow_pickle=True,
    )


def flat(folder: Path, vectors: NDArray[Any]) -> None:
    np.save(folder / "img_emb" / "img_emb_0.npy", vectors.reshape(-1))


def whole_numbers(folder: Path, vectors: NDArray[Any]) -> None:
    np.save(folder / "img_emb" / "img_emb_0.npy", np.ones(vectors.shape, np.int8))


def cut(name: str) -> Callable[[Path, NDArray[Any]], None]:
    def damage(folder: Path, vectors: NDArray[Any]) -> None:
        file = folder / name
        file.write_bytes(file.read_bytes()[:-60])

    return damage


def garbled(folder: Path, vectors: NDArray[Any]) -> None:
    file = folder / "metadata" / "metadata_0.parquet"
    data = bytearray(file.read_bytes())
    data[4:60] = b"\xff" * 56  # the pages; the schema at the end is whole
    file.write_bytes(data)


def no_paths(folder: Path, vectors: NDArray[Any]) -> None:
    pq.write_table(pa.table({"url": ["a", "b"]}), folder / "metadata" / "metadata_0.parquet")


def number_paths(folder: Path, vectors: NDArray[Any]) -> None:
    pq.write_table(pa.table({"image_path": [1, 2]}), folder / "metadata" / "metadata_0.parquet")


def no_metadata(folder: Path, vectors: NDArray[Any]) -> None:
    (folder / "metadata" / "metadata_0.parquet").unlink()


def no_vectors(folder: Path, vectors: NDArray[Any]) -> None:
    shutil.rmtree(folder / "img_emb")


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (longer, r"img_emb_0.npy holds 4 vectors, metadata_0.parquet 2 rows"),
        (narrower, r"img_emb_1.npy holds vectors of 5 numbers, expected 27"),
        (pickled, r"img_emb_0.npy cannot be read as an array .*pickled"),
        (objects, r"img_emb_0.npy cannot be read as an array .*objects"),
        (flat, r"img_emb_0.npy holds no rows of floating-point numbers"),
        (whole_numbers, r"img_emb_0.npy holds no rows of floating-point numbers"),
        (cut("img_emb/img_emb_0.npy"), r"img_emb_0.npy cannot be read as an array"),
        (cut("metadata/metadata_0.parquet"), r"metadata_0.parquet cannot be read as Parquet"),
        (garbled, r"metadata_0.parquet cannot be read as Parquet"),
        (no_paths, r"metadata_0.parquet has no column image_path \(it has url\)"),
        (number_paths, r"metadata_0.parquet cannot be read as Parquet \(a path is of type int\)"),
        (no_metadata, r"part 0 has vectors but no metadata"),
        (no_vectors, r"holds no img_emb/img_emb_0.npy: give the output folder"),
    ],
)
def test_damaged_folders_are_refused_in_one_line(
    photos: Path, tmp_path: Path, damage: Callable[..., None], message: str
) -> None:
    names = ["red.png", "green.png"]
    vectors = vectors_of(photos, names)
    layout = write_layout(tmp_path / "emb", (names, vectors))
    damage(layout, vectors)
    with pytest.raises(CollectionError, match=message) as error:
        import_clip_retrieval(layout, photos, encoder="colour")
    assert "\n" not in str(error.value)
    assert not (photos / ".vitsearch").exists()


def test_an_empty_source_makes_no_collection(photos: Path, tmp_path: Path) -> None:
    layout = write_layout(tmp_path / "emb", ([], np.empty((0, DIM), np.float16)))
    with pytest.raises(CollectionError, match="none of the 0 vectors .*it is empty"):
        import_clip_retrieval(layout, photos, encoder="colour")
    with pytest.raises(CollectionError, match=r"holds no img_emb"):
        import_clip_retrieval(tmp_path / "nowhere", photos, encoder="colour")
    assert not (photos / ".vitsearch").exists()


@pytest.mark.parametrize("write", [export_clip_retrieval, export_faiss])
def test_an_export_replaces_only_an_export(
    indexed: Path, tmp_path: Path, write: Callable[..., int]
) -> None:
    with opened(indexed) as found:
        (tmp_path / "out").mkdir()
        assert write(found, tmp_path / "out") == 4
        before = {
            file.name: file.read_bytes() for file in (tmp_path / "out").rglob("*") if file.is_file()
        }
        (tmp_path / "out" / "vitsearch.json").touch()
        assert write(found, tmp_path / "out") == 4
        assert {
            file.name: file.read_bytes() for file in (tmp_path / "out").rglob("*") if file.is_file()
        } == before
        (tmp_path / "out" / "image.index").write_bytes(b"mine")
        with pytest.raises(
            CollectionError, match=r"out holds other files \(image.index\): choose a new folder"
        ):
            write(found, tmp_path / "out")
        with pytest.raises(CollectionError, match=r"photos holds other files"):
            write(found, indexed)
        (tmp_path / "out.new").mkdir()  # the user's own, of whatever name
        (tmp_path / "file").write_bytes(b"mine")
        with pytest.raises(CollectionError, match="is there already and no folder"):
            write(found, tmp_path / "file")

        def stop(done: int, total: int) -> None:
            raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            write(found, tmp_path / "cut", progress=stop)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "out", "out.new", "photos"]


# -- FAISS -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("recipe", ["flat", "hnsw", "ivf"])
def test_a_faiss_index_comes_back_as_the_same_collection(
    labelled: Path, tmp_path: Path, recipe: str
) -> None:
    with opened(labelled) as found:
        assert export_faiss(found, tmp_path / "out", recipe=recipe) == 5
        photos = list(found.photos())
    index = faiss.read_index(str(tmp_path / "out" / "index.faiss"))
    assert (index.ntotal, index.d, index.metric_type) == (5, DIM, faiss.METRIC_INNER_PRODUCT)
    assert np.load(tmp_path / "out" / "ids.npy", allow_pickle=False).tolist() == [
        one.photo_id for one in photos
    ]
    scores, ids = index.search(vectors_of(labelled, ["green.png"]), 1)
    assert ids.tolist() == [[next(one.photo_id for one in photos if one.path == "green.png")]]
    assert scores[0, 0] == pytest.approx(1, abs=1e-3)
    lines = [
        json.loads(line) for line in (tmp_path / "out" / "paths.jsonl").read_text().splitlines()
    ]
    assert lines == [
        {
            "id": one.photo_id,
            "path": one.path,
            "fingerprint": one.fingerprint.hex(),
            "label": one.label,
            "score": one.label_score,
        }
        for one in photos
    ]
    came = import_faiss(
        tmp_path / "out", labelled, collection=tmp_path / "second", encoder=ColourEncoder()
    )
    assert came == report(imported=5, checked=5, total=5)
    assert facts(labelled, collection=tmp_path / "second") == facts(labelled)


def faiss_folder(
    folder: Path, index: Any, paths: Sequence[str], ids: Sequence[int] | None = None
) -> Path:
    folder.mkdir()
    faiss.write_index(index, str(folder / "knn.index"))
    (folder / "paths.txt").write_text("".join(f"{path}\n" for path in paths))
    if ids is not None:
        np.save(folder / "ids.npy", np.array(ids))
    return folder


@pytest.mark.parametrize(
    "factory", ["Flat", "IDMap,Flat", "IDMap2,Flat", "HNSW8,Flat", "IVF2,Flat", "IDMap,IVF2,Flat"]
)
def test_a_plain_index_with_paths_becomes_a_collection(
    photos: Path, tmp_path: Path, factory: str
) -> None:
    names = ["red.png", "green.png", "sub/blue.png", "yellow.png"]
    vectors, ids = vectors_of(photos, names), [70, 3, 9_000_000_000, 8]
    index = faiss.index_factory(DIM, factory, faiss.METRIC_L2)
    index.train(vectors)
    keeps_ids = factory.startswith(("ID", "IVF"))
    if keeps_ids:
        index.add_with_ids(vectors, np.array(ids))
    else:
        index.add(vectors)
    folder = faiss_folder(tmp_path / "knn", index, names, ids if keeps_ids else None)
    assert import_faiss(folder, photos, encoder="colour") == report(imported=4, checked=4, total=4)
    index_folder(photos, encoder=ColourEncoder(), collection=tmp_path / "fresh")
    assert facts(photos) == facts(photos, collection=tmp_path / "fresh")


def test_an_index_that_cannot_give_its_vectors_back_is_refused(
    photos: Path, tmp_path: Path
) -> None:
    names = ["red.png", "green.png"]
    vectors = vectors_of(photos, names)
    for number, factory in enumerate(["SQ8", "PCA8,Flat", "LSH"]):
        index = faiss.index_factory(DIM, factory)
        index.train(np.random.default_rng(0).normal(size=(64, DIM)).astype(np.float32))
        index.add(vectors)
        with pytest.raises(
            CollectionError,
            match=r"knn.index is an Index\w+, which keeps no vectors or only rounded ones",
        ):
            import_faiss(
                faiss_folder(tmp_path / f"knn{number}", index, names), photos, encoder="colour"
            )
    assert not (photos / ".vitsearch").exists()


def test_a_damaged_faiss_folder_is_refused_in_one_line(indexed: Path, tmp_path: Path) -> None:
    with opened(indexed) as found:
        export_faiss(found, tmp_path / "out")

    def refused(message: str, **changed: bytes | None) -> None:
        folder = Path(tempfile.mkdtemp(dir=tmp_path))
        shutil.copytree(tmp_path / "out", folder, dirs_exist_ok=True)
        for name, data in changed.items():
            file = folder / name.replace("_", ".")
            file.unlink() if data is None else file.write_bytes(data)
        with pytest.raises(CollectionError, match=message) as error:
            import_faiss(folder, indexed, collection=tmp_path / "second")
        assert "\n" not in str(error.value)

    whole, lines = (
        (tmp_path / "out" / "index.faiss").read_bytes(),
        (tmp_path / "out" / "paths.jsonl").read_bytes(),
    )
    refused("index.faiss cannot be read as a FAISS index", index_faiss=whole[:-9])
    refused("index.faiss cannot be read as a FAISS index", index_faiss=b"")
    refused("index.faiss cannot be read as a FAISS index", index_faiss=pickle.dumps([1]))
    refused("holds 0 FAISS indexes", index_faiss=None)
    refused("holds neither paths.jsonl nor paths.txt", paths_jsonl=None)
    refused("for which there is no path", paths_jsonl=b"".join(lines.splitlines(keepends=True)[1:]))
    refused("paths.jsonl cannot be read .*is not like", paths_jsonl=b'["a.jpg"]\n')
    refused("paths.jsonl cannot be read", paths_jsonl=lines[:-20])
    refused(
        "paths.txt cannot be read .*pickled",
        paths_jsonl=None,
        paths_txt=b"a.png\n",
        ids_npy=pickle.dumps([1]),
    )
    refused("paths.txt cannot be read .*1 lines for 4 ids", paths_jsonl=None, paths_txt=b"a.png\n")
    assert not (tmp_path / "second").exists()


def test_an_empty_collection_and_a_recipe_of_several_files_give_no_faiss_index(
    indexed: Path, tmp_path: Path
) -> None:
    with opened(indexed) as found:
        with pytest.raises(VitsearchError, match="gives no index in one file"):
            export_faiss(found, tmp_path / "out", recipe="disk")
    store = PhotoStore(indexed / ".vitsearch" / "photos.db")
    with store.writing():
        store.remove_photos([path for path, _, _ in store.stats()])
    store.close()
    with opened(indexed) as found:
        with pytest.raises(CollectionError, match="is empty"):
            export_faiss(found, tmp_path / "out")
    assert not (tmp_path / "out").exists()


# -- merging ---------------------------------------------------------------------------------------


def merged(source: Path, target: Path, **options: Any) -> MergeReport:
    with opened(source) as first, opened(target, **options) as second:
        return merge(first, second)


def test_a_collection_of_a_folder_inside_is_merged(tmp_path: Path) -> None:
    outer, inner = tmp_path / "all", tmp_path / "all" / "trips" / "north"
    paint(outer / "red.png", "red")
    index_folder(outer, encoder=ColourEncoder())
    paint(inner / "blue.png", "blue")
    paint(inner / "deep" / "green.png", "green")
    index_folder(inner, encoder=ColourEncoder())
    with opened(inner) as found:
        found.store_labels(
            [Prediction("blue.png", "cold", 0.5, next(one.photo_id for one in found.photos()))]
        )
    inside = {f"trips/north/{row[0]}": row[1:] for row in facts(inner)}
    assert merged(inner, outer) == MergeReport(added=2, unchanged=0, replaced=0, kept=0, total=3)
    now = {row[0]: row[1:] for row in facts(outer)}
    assert {path: row for path, row in now.items() if path != "red.png"} == inside
    assert found_paths(outer, "green", 1) == ["trips/north/deep/green.png"]  # before any indexing
    assert merged(inner, outer) == MergeReport(added=0, unchanged=2, replaced=0, kept=0, total=3)
    encoder = CountingEncoder()
    assert counts(index_folder(outer, encoder=encoder)) == {"unchanged": 3}
    assert encoder.embedded == 0


def test_the_newer_file_wins_where_both_have_a_path(indexed: Path, tmp_path: Path) -> None:
    index_folder(indexed, encoder=ColourEncoder(), collection=tmp_path / "old")
    old = facts(indexed)
    paint(indexed / "red.png", "blue", "red", "green")
    os.utime(indexed / "red.png", ns=(0, next(row[2] for row in old if row[0] == "red.png") + 10))
    index_folder(indexed, encoder=ColourEncoder())
    new = facts(indexed)
    with opened(indexed, collection=tmp_path / "old") as found:
        ids = {one.path: one.photo_id for one in found.photos()}
        found.store_labels(
            [
                Prediction("red.png", "old", 1.0, ids["red.png"]),
                Prediction("green.png", "go", 0.5, ids["green.png"]),
            ]
        )
    with opened(indexed, collection=tmp_path / "old") as source, opened(indexed) as target:
        assert merge(source, target) == MergeReport(
            added=0, unchanged=3, replaced=0, kept=1, total=4
        )
    now = {row[0]: row for row in facts(indexed)}
    assert now["green.png"][5:7] == ("go", 0.5)  # a label that the target lacked
    assert now["red.png"] == next(row for row in new if row[0] == "red.png")
    with opened(indexed) as source, opened(indexed, collection=tmp_path / "old") as target:
        assert merge(source, target) == MergeReport(
            added=0, unchanged=3, replaced=1, kept=0, total=4
        )
    assert {row[0]: row for row in facts(indexed, collection=tmp_path / "old")} == now


def test_what_does_not_belong_together_is_not_merged(indexed: Path, tmp_path: Path) -> None:
    paint(tmp_path / "other" / "a.png", "red")
    index_folder(tmp_path / "other", encoder=ColourEncoder())
    before = facts(indexed)
    with pytest.raises(CollectionError, match=r"other does not lie in .*photos: merge into"):
        merged(tmp_path / "other", indexed)
    with pytest.raises(CollectionError, match="is both collections"):
        merged(indexed, indexed)
    index_folder(indexed, encoder=ColourEncoder(), collection=tmp_path / "changed")
    settings_file = tmp_path / "changed" / "collection.json"
    settings_file.write_text(
        json.dumps(json.loads(settings_file.read_text()) | {"encoder_fingerprint": "1" * 32})
    )
    with (
        Collection.open(indexed, collection=tmp_path / "changed") as source,
        opened(indexed) as target,
    ):
        with pytest.raises(EncoderMismatch, match=r"made with colour \(fingerprint 11111111\)"):
            merge(source, target)

    def stop(done: int, total: int) -> None:
        raise KeyboardInterrupt

    inner = paint(indexed / "more" / "a.png", "red").parent
    index_folder(inner, encoder=ColourEncoder())
    with opened(inner) as source, opened(indexed) as target, pytest.raises(KeyboardInterrupt):
        merge(source, target, progress=stop)
    assert facts(indexed) == before


# -- the command line ------------------------------------------------------------------------------


def test_export_and_import_from_the_command_line(labelled: Path, tmp_path: Path) -> None:
    for layout in ("clip-retrieval", "faiss"):
        done = vitsearch("export", labelled, tmp_path / layout, "--format", layout, "--json")
        assert json.loads(done.stdout) == {
            "photos": 5,
            "format": layout,
            "output": str(tmp_path / layout),
        }
        came = vitsearch(
            "import",
            tmp_path / layout,
            labelled,
            "--collection",
            tmp_path / f"{layout}-back",
            "--json",
        )
        expected = replace(report(imported=5, checked=5, total=5))
        assert json.loads(came.stdout) == {
            name: getattr(expected, name) for name in ImportReport.__slots__ if name != "problems"
        }
        assert (done.returncode, came.returncode) == (0, 0)
        assert facts(labelled, collection=tmp_path / f"{layout}-back") == facts(labelled)


def test_import_says_what_was_left_out(photos: Path, tmp_path: Path) -> None:
    names = ["red.png", *(f"gone{number}.png" for number in range(12))]
    layout = write_layout(
        tmp_path / "emb",
        ([f"old/{name}" for name in names], np.repeat(vectors_of(photos, ["red.png"]), 13, axis=0)),
    )
    done = vitsearch(
        "import", layout, photos, "--encoder", "colour", "--paths-from", "old", "--check", "3"
    )
    assert done.stdout == b"1 photos are searchable (1 imported, 12 missing, 1 checked)\n"
    notes = done.stderr.decode().splitlines()
    assert notes[:2] == [
        f"vitsearch: old/gone{number}.png: is not among the photos of the folder"
        for number in range(2)
    ]
    assert len([line for line in notes if "is not among" in line]) == 10
    assert notes[-1].startswith(f"vitsearch: `vitsearch index {photos}` embeds what is missing")
    refused = vitsearch("import", layout, photos, "--collection", tmp_path / "second")
    assert (refused.returncode, refused.stdout) == (1, b"")
    assert refused.stderr.decode().startswith(
        f"vitsearch: {layout} does not say which encoder made its vectors"
    )


def test_merge_from_the_command_line(indexed: Path) -> None:
    inner = paint(indexed / "more" / "a.png", "red").parent
    index_folder(inner, encoder=ColourEncoder())
    done = vitsearch("merge", inner, indexed, "--json")
    assert json.loads(done.stdout) == {
        "added": 1,
        "unchanged": 0,
        "replaced": 0,
        "kept": 0,
        "total": 5,
    }
    again = vitsearch("merge", inner, indexed)
    assert again.stdout == b"5 photos are in the collection (1 unchanged)\n"
    assert (done.returncode, again.returncode, again.stderr) == (0, 0, b"")


@pytest.mark.slow
def test_a_library_that_is_missing_is_named_with_its_extra(indexed: Path, tmp_path: Path) -> None:
    for library, layout, extra in (
        ("pyarrow", "clip-retrieval", "parquet"),
        ("faiss", "faiss", "faiss"),
    ):
        code = (
            f"import sys; sys.modules[{library!r}] = None; from vitsearch.cli.main import "
            "main; main()"
        )
        for command in (["export", indexed, tmp_path / "out"], ["import", tmp_path, indexed]):
            done = subprocess.run(
                [sys.executable, "-c", code, *command, "--format", layout],
                env=environment(),
                capture_output=True,
                timeout=60,
            )
            assert (done.returncode, done.stdout) == (1, b"")
            assert done.stderr.count(b"\n") == 1
            assert done.stderr.endswith(f": pip install 'vitsearch[{extra}]'\n".encode())
    assert not (tmp_path / "out").exists()
