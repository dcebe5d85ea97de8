"""Collections in and out: clip-retrieval's folder, FAISS with ids and paths, and one collection
into another.
"""

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from helpers.cli import environment
from helpers.collections import CountingEncoder, content, counts, found_paths
from helpers.interop import facts, opened, report, vectors_of, write_layout
from helpers.photos import paint
from vitsearch import CollectionError, EncoderError, Progress, index_folder
from vitsearch.arrays import unit_rows
from vitsearch.encoders.colour import DIM, ColourEncoder
from vitsearch.errors import CollectionNotFound, EncoderMismatch
from vitsearch.interop import (
    ImportOptions,
    export_clip_retrieval,
    import_clip_retrieval,
)
from vitsearch.photos.columns import METADATA

ALL = ["blue.png", "green.png", "red.png", "sub/blue.png", "yellow.png"]


# -- clip-retrieval --------------------------------------------------------------------------------


@pytest.mark.slow
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
                progress=lambda step: seen.append((step.done, step.total)),
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
        "walked",
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


@pytest.mark.slow
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
        layout, photos, encoder=encoder, progress=lambda step: seen.append((step.done, step.total))
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


@pytest.mark.slow
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


@pytest.mark.slow
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


@pytest.mark.slow
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


@pytest.mark.slow
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


@pytest.mark.slow
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


@pytest.mark.slow
def test_an_import_that_fails_on_its_way_changes_nothing(labelled: Path, tmp_path: Path) -> None:
    with opened(labelled) as found:
        export_clip_retrieval(found, tmp_path / "out", shard_size=1)
    (labelled / "red.png").rename(tmp_path / "red.png")
    index_folder(labelled, encoder=ColourEncoder())
    shutil.move(tmp_path / "red.png", labelled / "red.png")
    before = facts(labelled)

    def stop(step: Progress) -> None:
        if step.done == 4:
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
stop = lambda step: os._exit(9) if step.done == 4 else None
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
        assert subprocess.run(command, env=environment(), timeout=300).returncode == 9
    assert facts(labelled) == before
    with pytest.raises(CollectionNotFound):
        opened(labelled, collection=tmp_path / "second")
    assert import_clip_retrieval(tmp_path / "out", labelled) == report(
        imported=1, unchanged=4, checked=5, total=5
    )
    came = import_clip_retrieval(tmp_path / "out", labelled, collection=tmp_path / "second")
    assert came == report(imported=5, checked=5, total=5)


@pytest.mark.slow
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
    with opened(labelled) as found:  # the index is of this database
        assert all(check.ok for check in found.verify())
    assert found_paths(labelled, "green", 1) == ["green.png"]
    (labelled / ".vitsearch" / "collection.json").unlink()
    with pytest.raises(CollectionError, match=r"holds photos but no collection.json"):
        import_clip_retrieval(tmp_path / "out", labelled)
