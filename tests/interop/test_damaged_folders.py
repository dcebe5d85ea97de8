"""Folders of vectors with odd names in them, and damaged ones."""

import os
import pickle
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from helpers.interop import facts, opened, report, vectors_of, write_layout
from helpers.photos import paint
from vitsearch import CollectionError, Progress, index_folder
from vitsearch.arrays import unit_rows
from vitsearch.encoders.colour import DIM, ColourEncoder
from vitsearch.interop import (
    export_clip_retrieval,
    export_faiss,
    import_clip_retrieval,
    import_faiss,
)
from vitsearch.interop.base import stored_halves, usable

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
@settings(max_examples=12, deadline=None)
@given(
    names=st.lists(NAMES | RAW, min_size=1, max_size=8, unique=True),
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
            paint(folder / "photos" / f"{name}{number}" / f"{name}.png", (number * 30, 200, 30))
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
        (pickled, r"img_emb_0.npy cannot be read as an array .*no .npy file"),
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
        with pytest.raises(CollectionError, match="is there already and is not a folder"):
            write(found, tmp_path / "file")

        def stop(_: Progress) -> None:
            raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            write(found, tmp_path / "cut", progress=stop)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "out", "out.new", "photos"]
