"""The one rule by which a photo is stored as new, replaced, moved or unchanged."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from vitsearch.storage.rows import Outcome
from vitsearch.storage.store import PhotoStore
from vitsearch.types import Photo, PhotoInfo

ONE, TWO = np.array([1, 0], np.float16), np.array([0, 1], np.float16)
PHOTO = Photo(0, "a.jpg", 10, 100, b"a" * 16, PhotoInfo(2, 3), "red", 0.5)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[PhotoStore]:
    store = PhotoStore(tmp_path / "photos.db")
    with store.writing():
        assert store.keep(PHOTO, ONE) is Outcome.NEW
        store.raise_generation(True)
        yield store
    store.close()


def stored(store: PhotoStore) -> list[tuple[Photo, list[float]]]:
    return [
        (replace(each, photo_id=0), store.vector(each.photo_id).tolist()) for each in store.photos()
    ]


def test_a_new_photo_is_stored_with_its_label(store: PhotoStore) -> None:
    assert stored(store) == [(PHOTO, [1, 0])]
    assert store.count_since(0) == 1
    assert store.keep(replace(PHOTO, path="b.jpg", label=None), TWO) is Outcome.NEW
    assert store.count_since(1) == 1  # under the generation that follows


def test_the_same_content_is_unchanged(store: PhotoStore) -> None:
    touched = replace(PHOTO, mtime_ns=50, label="blue")
    assert store.keep(touched, TWO) is Outcome.UNCHANGED
    assert stored(store) == [(replace(PHOTO, mtime_ns=50), [1, 0])]
    assert store.keep(replace(PHOTO, mtime_ns=70, label="blue"), TWO, newest=True) is (
        Outcome.UNCHANGED
    )
    assert stored(store) == [(replace(PHOTO, mtime_ns=50), [1, 0])]


def test_the_same_content_gets_the_label_that_it_lacks(store: PhotoStore) -> None:
    other = replace(PHOTO, path="b.jpg", label=None, label_score=None)
    store.keep(other, TWO)
    labelled = replace(other, mtime_ns=1, label="blue", label_score=0.25)
    assert store.keep(labelled, ONE, newest=True) is Outcome.UNCHANGED
    assert stored(store)[1] == (replace(labelled, mtime_ns=100), [0, 1])


def test_other_content_replaces_and_forgets_the_label(store: PhotoStore) -> None:
    other = replace(PHOTO, fingerprint=b"b" * 16, mtime_ns=1, label=None, label_score=None)
    assert store.keep(other, TWO) is Outcome.REPLACED
    assert stored(store) == [(other, [0, 1])]


@pytest.mark.parametrize(
    ("mtime_ns", "outcome"),
    [(99, Outcome.OLDER), (100, Outcome.REPLACED), (101, Outcome.REPLACED)],
)
def test_the_file_that_was_changed_last_wins(
    store: PhotoStore, mtime_ns: int, outcome: Outcome
) -> None:
    other = replace(PHOTO, fingerprint=b"b" * 16, mtime_ns=mtime_ns)
    assert store.keep(other, TWO, newest=True) is outcome
    assert stored(store) == [(other, [0, 1]) if outcome.is_stored else (PHOTO, [1, 0])]


def test_a_photo_moves_only_from_a_path_that_is_gone_to_one_that_is_free(
    store: PhotoStore,
) -> None:
    there = replace(PHOTO, path="b.jpg", mtime_ns=7)
    gone = {"c.jpg", "a.jpg"}
    assert store.keep(there, None, gone=gone) is Outcome.MOVED
    assert gone == {"c.jpg"}
    assert stored(store) == [(there, [1, 0])]
    assert store.keep(replace(there, path="d.jpg"), TWO, gone=gone) is Outcome.NEW
    taken = replace(there, path="d.jpg", fingerprint=b"d" * 16)
    assert store.keep(taken, TWO, gone=gone) is Outcome.REPLACED


@pytest.mark.parametrize("vector", [None, np.array([np.nan, 1], np.float16)])
def test_a_photo_without_a_usable_vector_is_not_stored(
    store: PhotoStore, vector: np.ndarray | None
) -> None:
    for path in ("a.jpg", "b.jpg"):
        other = replace(PHOTO, path=path, fingerprint=b"b" * 16)
        assert store.keep(other, vector) is Outcome.UNUSABLE
    assert stored(store) == [(PHOTO, [1, 0])]
