"""A folder of a FAISS index with ids and paths: out of a collection and into one."""

import json
import pickle
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import faiss
import numpy as np
import pytest

from helpers.interop import facts, opened, report, vectors_of
from vitsearch import CollectionError, index_folder
from vitsearch.encoders.colour import DIM, ColourEncoder
from vitsearch.errors import VitsearchError
from vitsearch.interop import (
    export_faiss,
    import_faiss,
)
from vitsearch.storage.store import PhotoStore


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


@pytest.mark.slow
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


@pytest.mark.slow
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


@pytest.mark.slow
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
        "paths.txt cannot be read .*no .npy file",
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
        store.remove_photos([path for path, *_ in store.stats()])
    store.close()
    with opened(indexed) as found:
        with pytest.raises(CollectionError, match="is empty"):
            export_faiss(found, tmp_path / "out")
    assert not (tmp_path / "out").exists()
