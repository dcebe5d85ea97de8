"""Photos that are there twice: equal files and look-alikes, held against a plain statement of what
they are.
"""

import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from helpers.photos import COLOURS, paint
from helpers.videos import Clip, make_video
from vitsearch import Collection, Photo, QueryError, index_folder
from vitsearch.arrays import Vectors, unit_rows
from vitsearch.collection import duplicates
from vitsearch.collection.duplicates import (
    collapse,
    likeness_to,
    look_alikes,
    same_files,
)
from vitsearch.encoders.colour import ColourEncoder
from vitsearch.storage import THRESHOLDS
from vitsearch.storage.store import PhotoStore
from vitsearch.types import PhotoInfo


def album(prints: Sequence[int]) -> list[Photo]:
    return [
        Photo(9 * place + 1, f"{place:04}.jpg", 1, 1, bytes([print_]), PhotoInfo(1, 1))
        for place, print_ in enumerate(prints)
    ]


def rows_of(seed: int, prints: Sequence[int], dim: int = 4) -> Vectors:
    """Rows near each other, zeros among them; photos with equal files have equal rows."""
    rng = np.random.default_rng(seed)
    centres = rng.normal(size=(6, dim))
    rows = centres[rng.integers(6, size=256)] + rng.choice(
        [0, 0.01, 0.1, 0.4], size=(256, 1)
    ) * rng.normal(size=(256, dim))
    rows[rng.random(256) < 0.1] = 0
    return unit_rows(unit_rows(rows[list(prints)].reshape(len(prints), dim)).astype(np.float16))


def plain(
    photos: Sequence[Photo], rows: Vectors, threshold: float
) -> list[tuple[str, list[tuple[str, float]]]]:
    """The same greedy rule, one pair at a time."""
    free: list[int] = []
    for place, photo in enumerate(photos):
        if photo.fingerprint not in [photos[other].fingerprint for other in free]:
            free.append(place)
    found = []
    while free:
        first = free.pop(0)
        scores = {
            place: float(likeness_to(rows[first], rows[place : place + 1])[0]) for place in free
        }
        others = sorted(
            (place for place in free if scores[place] >= np.float32(threshold)),
            key=lambda place: (-scores[place], place),
        )
        free = [place for place in free if place not in others]
        if others:
            found.append(
                (photos[first].path, [(photos[place].path, scores[place]) for place in others])
            )
    return found


UNLIKE = ["green.png", "sub/blue.png", "yellow.png"]
PRINTS = st.lists(st.integers(0, 60), max_size=80)


@pytest.mark.slow
@given(
    seed=st.integers(0, 10**6),
    prints=PRINTS,
    threshold=st.sampled_from([0.3, 0.9, 0.99, 0.9999, 1.0]),
    block=st.sampled_from([1, 100, 10**7]),
)
@example(seed=0, prints=[], threshold=0.9, block=1)
@example(seed=0, prints=list(range(61)), threshold=1.0, block=100)
@settings(max_examples=100, deadline=None)
def test_look_alikes_are_what_a_plain_loop_finds(
    seed: int, prints: list[int], threshold: float, block: int
) -> None:
    photos, rows, done = album(prints), rows_of(seed, prints), []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(duplicates, "BLOCK", block)
        found = look_alikes(photos, rows, threshold, progress=lambda step: done.append(step.done))
        kept = collapse(rows, [photo.fingerprint for photo in photos], threshold)
    assert [
        (one.photo.path, [(photo.path, score) for photo, score in one.others]) for one in found
    ] == plain(photos, rows, threshold)
    assert done[-1:] == [len(photos)] * bool(photos)
    others = {photo.path for one in found for photo, _ in one.others}
    copies = {photo.path for group in same_files(photos) for photo in group[1:]}
    assert [photos[place].path for place in kept] == [
        photo.path for photo in photos if photo.path not in others | copies
    ]


@given(prints=PRINTS)
def test_equal_files_are_grouped_in_order(prints: list[int]) -> None:
    photos = album(prints)
    groups = same_files(photos)
    assert [photo for group in groups for photo in group] == sorted(
        (photo for photo in photos if prints.count(photo.fingerprint[0]) > 1),
        key=lambda photo: (prints.index(photo.fingerprint[0]), photo.path),
    )
    assert all(len({photo.fingerprint for photo in group}) == 1 for group in groups)
    assert len({group[0].fingerprint for group in groups}) == len(groups)


@pytest.fixture
def twice(photos: Path) -> Path:
    """The four photos, an equal file of one, and another file of the same colour."""
    shutil.copyfile(photos / "red.png", photos / "again.png")
    paint(photos / "sub" / "violet.png", "red", "blue")
    paint(photos / "sub" / "crimson.png", "red", size=(30, 20))
    index_folder(photos, encoder=ColourEncoder())
    return photos


def test_a_collection_has_two_lists(twice: Path) -> None:
    with Collection.open(twice) as found:
        assert [[photo.path for photo in group] for group in found.duplicates()] == [
            ["again.png", "red.png"]
        ]
        assert [
            (one.photo.path, [(photo.path, score) for photo, score in one.others])
            for one in found.lookalikes()
        ] == [("again.png", [("sub/crimson.png", 1.0)])]
        assert found.duplicates(where="path like 'sub/%'") == []
        assert found.lookalikes(where="path like 'sub/%'") == []
        assert [one.photo.path for one in found.lookalikes(where="path != 'again.png'")] == [
            "red.png"
        ]
        photos = list(found.photos())
        assert found.duplicates(where="path is not null") == [[photos[0], photos[2]]]
    assert [photo.path for photo in photos] == [
        "again.png",
        "green.png",
        "red.png",
        "sub/blue.png",
        "sub/crimson.png",
        "sub/violet.png",
        "yellow.png",
    ]
    assert len(photos) == len(COLOURS) + 3


@pytest.mark.slow
def test_a_video_looks_like_others_of_its_length_only(tmp_path: Path) -> None:
    pytest.importorskip("av", reason="needs the extra vitsearch[video]")
    make_video(tmp_path / "a.mp4", "red", "red", "red")
    make_video(tmp_path / "b.mkv", "red", "red", "red", clip=Clip(size=(128, 96)))
    make_video(tmp_path / "cut.mp4", "red")
    paint(tmp_path / "frame.png", "red")
    paint(tmp_path / "photo.png", "red", size=(30, 20))
    index_folder(tmp_path, encoder=ColourEncoder())
    with Collection.open(tmp_path) as found:
        groups = found.lookalikes(0.9)
        assert [[one.photo.path, *(photo.path for photo, _ in one.others)] for one in groups] == [
            ["a.mp4", "b.mkv"],
            ["frame.png", "photo.png"],
        ]


@pytest.mark.parametrize("threshold", [0, -0.5, 1.01, float("nan")])
def test_a_threshold_that_is_none(twice: Path, threshold: float) -> None:
    with Collection.open(twice) as found, pytest.raises(QueryError, match="cosine above 0 up to 1"):
        found.lookalikes(threshold)


def test_the_threshold_is_the_collections(twice: Path) -> None:
    with Collection.open(twice) as found:
        assert (
            found.lookalike_threshold
            == float(str(found.store.get_meta("lookalike")))
            == THRESHOLDS["colour"]
        )
    store = PhotoStore(twice / ".vitsearch" / "photos.db")
    with store.writing():
        store.set_meta("lookalike", "0.25")
    store.close()
    with Collection.open(twice) as found:
        assert found.lookalike_threshold == 0.25
        assert [hit.path for hit in found.search("red", collapse=0.999)] == [
            "again.png",
            "sub/violet.png",
            *UNLIKE,
        ]
        assert [hit.path for hit in found.search("red", collapse=True)] == ["again.png", *UNLIKE]
