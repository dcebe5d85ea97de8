"""Copies of real photos, resized, grey and compressed: what finds them, and which is the best."""

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from helpers.photos import paint
from vitsearch import Collection, Photo, QueryError, index_folder
from vitsearch.cli.demo import copy_samples
from vitsearch.collection.copies import (
    FILE,
    Looks,
    best_copy,
    bits_apart,
    find_copies,
    find_looks,
    known_looks,
    looks_of,
    perceptual_hash,
)
from vitsearch.types import PhotoInfo

pytest.importorskip("skimage", reason="the sample photos come with scikit-image")

CHANGED = ("astronaut.png", "chelsea.png", "coffee.png", "retina.jpg")


@pytest.fixture(scope="module")
def samples(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return copy_samples(tmp_path_factory.mktemp("samples"))


@pytest.fixture(scope="module")
def folder(samples: Path) -> Path:
    """The samples; of four of them a copy at a quarter of the size, a grey one, and one that was
    compressed strongly; and blank pictures.
    """
    for name in CHANGED:
        with Image.open(samples / name) as opened:
            photo = opened.convert("RGB")
        stem = name.partition(".")[0]
        (samples / "copies").mkdir(exist_ok=True)
        photo.resize((photo.width // 4, photo.height // 4)).save(
            samples / "copies" / f"{stem} small.png"
        )
        photo.convert("L").save(samples / "copies" / f"{stem} grey.png")
        photo.save(samples / "copies" / f"{stem} saved again.jpg", quality=30)
    for number in range(3):
        paint(samples / "blank" / f"{number}.png", (200 + number, 200, 200), size=(300, 200))
    index_folder(samples)
    return samples


def groups(folder: Path, **keywords: float) -> dict[str, list[str]]:
    with Collection.open(folder) as found:
        return {
            group.photo.path: sorted(photo.path for photo, _ in group.others)
            for group in find_copies(found, **keywords).groups  # type: ignore[arg-type]
        }


@pytest.mark.slow
def test_resized_grey_and_compressed_copies_are_found(folder: Path) -> None:
    expected = {}
    for name in CHANGED:
        stem = name.partition(".")[0]
        first, *others = sorted(
            [name, *(f"copies/{stem} {what}" for what in ("grey.png", "saved again.jpg",
                                                          "small.png"))]
        )  # fmt: skip
        expected[first] = others
    expected["motorcycle_left.png"] = ["motorcycle_right.png"]
    assert groups(folder) == expected
    with Collection.open(folder) as found:
        by_vectors = {
            photo.path
            for group in found.lookalikes()
            for photo in (group.photo, *(photo for photo, _ in group.others))
        }
        assert "blank/0.png" in by_vectors
        assert "copies/retina grey.png" not in by_vectors
        copies = find_copies(found)
        assert copies.blank == 3
        proposals = [
            best_copy([group.photo, *(photo for photo, _ in group.others)], copies.looks)
            for group in copies.groups
            if len(group.others) == 3
        ]
        assert {each.photo.path: each.reason for each in proposals} == {
            name: "more pixels, in colour, the larger file" for name in CHANGED
        }
        # looked at once: what pictures look like is stored
        (found.root / "retina.jpg").rename(found.root / "away")
        try:
            assert find_copies(found, max_unknown=0).groups == copies.groups
        finally:
            (found.root / "away").rename(found.root / "retina.jpg")


@pytest.mark.slow
def test_what_is_stored_is_read_again(folder: Path) -> None:
    with Collection.open(folder) as found:
        photos = list(found.photos())
        stored = found.folder / FILE
        stored.unlink(missing_ok=True)
        with pytest.raises(QueryError, match="run `vitsearch dupes` once"):
            find_copies(found, max_unknown=3)
        looks = find_looks(found.root, found.folder, photos)
        assert len(looks) == len({photo.fingerprint for photo in photos})
        assert known_looks(found.folder).keys() == looks.keys()
        assert find_looks(found.root, found.folder, photos) == known_looks(found.folder)
        for damage in (b"", b"short", b"\xff" * 36):
            stored.write_bytes(damage)
            assert find_looks(found.root, found.folder, photos).keys() == looks.keys()


def test_pictures_in_numbers(samples: Path) -> None:
    with Image.open(samples / "coffee.png") as opened:
        photo = opened.convert("RGB")
    looks = looks_of(photo)
    blurred = looks_of(photo.resize((100, 67)).resize(photo.size))
    assert blurred.sharpness < looks.sharpness / 2
    assert (looks.has_colour, looks_of(photo.convert("L")).has_colour) == (True, False)
    assert looks_of(Image.new("RGB", (7, 900), "white")).is_flat
    assert looks_of(Image.new("RGB", (1, 1))).sharpness == 0
    saved = io.BytesIO()
    photo.save(saved, "JPEG", quality=25)
    others = [Image.open(saved), photo.resize((150, 100)), photo.rotate(180)]
    hashes = np.array([perceptual_hash(each) for each in others], dtype=np.uint64)
    near, small, turned = bits_apart(perceptual_hash(photo), hashes).tolist()
    assert (near <= 4, small <= 4, turned > 20) == (True, True, True)
    one = np.array([0, 1, 2**63 - 1], dtype=np.uint64)
    assert bits_apart(0, one).tolist() == [0, 1, 63]


def test_the_best_copy_is_proposed_with_the_reason() -> None:
    def photo(path: str, width: int, size: int) -> Photo:
        return Photo(1, path, size, 1, path.encode(), PhotoInfo(width, 100))

    plain, blurred = Looks(0, 100.0, 50.0, 0.3), Looks(0, 50.0, 50.0, 0.3)
    looks = {b"a/b.jpg": plain, b"c.jpg": plain, b"blurred.jpg": blurred}
    large, small = photo("a/b.jpg", 200, 10), photo("c.jpg", 100, 90)
    assert best_copy([large, small], looks) == (large, "more pixels")
    same = photo("c.jpg", 200, 10)
    assert best_copy([large, same], looks) == (same, "the shortest path")
    soft = photo("blurred.jpg", 201, 90)
    assert best_copy([soft, large, same], looks) == (same, "sharper")
    assert best_copy([large, photo("x.jpg", 200, 20)], {}) == (
        photo("x.jpg", 200, 20),
        "the larger file",
    )
