"""`ImageEncoder.embed`: files and pictures to rows, as indexing makes them."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from helpers.photos import paint, shade
from vitsearch import Collection, PhotoError, Progress, index_folder
from vitsearch.encoders.colour import ColourEncoder
from vitsearch.photos import upright_rgb

ENCODER = ColourEncoder()
ORIENTATION = 0x112


class CornerEncoder(ColourEncoder):
    """`colour` of the upper left quarter, so that it matters which side is up."""

    only_resizes = False

    def prepare(self, image: Image.Image) -> np.ndarray:
        return super().prepare(image.crop((0, 0, image.width // 2, image.height // 2)))


@pytest.fixture
def files(tmp_path: Path) -> list[Path]:
    """70 files of different colours, more than two batches."""
    return [paint(tmp_path / f"{number}.png", shade(number)) for number in range(70)]


@pytest.fixture
def turned(tmp_path: Path) -> Path:
    """A JPEG of four colours that lies on its side."""
    picture = Image.new("RGB", (64, 64), "red")
    for corner, colour in (((32, 0), "lime"), ((0, 32), "blue"), ((32, 32), "yellow")):
        picture.paste(Image.new("RGB", (32, 32), colour), corner)
    exif = picture.getexif()
    exif[ORIENTATION] = 6
    picture.save(tmp_path / "turned.jpg", exif=exif, quality=95)
    return tmp_path / "turned.jpg"


def test_files_and_pictures_become_rows_in_their_order(files: list[Path]) -> None:
    pictures: list[str | Path | Image.Image] = [*files[:30], *map(str, files[30:50])]
    pictures += [Image.open(file) for file in files[50:]]
    expected = ENCODER.encode_images([Image.open(file) for file in files])
    steps: list[Progress] = []
    rows = ENCODER.embed(pictures, progress=steps.append)
    assert (rows.dtype, rows.shape) == (np.float32, (70, ENCODER.dim))
    np.testing.assert_array_equal(rows, expected)
    assert [(step.done, step.total) for step in steps] == [(32, 70), (64, 70), (70, 70)]
    np.testing.assert_array_equal(ENCODER.embed(file for file in files), expected)
    np.testing.assert_array_equal(ENCODER.embed(pictures, batch_size=7), expected)
    assert ENCODER.embed([]).shape == (0, ENCODER.dim)
    np.testing.assert_array_equal(ENCODER.embed(str(files[3])), expected[3:4])


def test_rows_are_those_of_the_index(files: list[Path], turned: Path) -> None:
    index_folder(turned.parent, encoder=CornerEncoder())
    with Collection.open(turned.parent, encoder=CornerEncoder()) as collection:
        photos, stored = collection.vectors()
        rows = collection.encoder.embed(collection.root / photo.path for photo in photos)
    assert len(photos) == 71
    np.testing.assert_allclose(rows, stored, atol=5e-4)  # stored as float16


def test_pictures_are_turned_upright_once(turned: Path) -> None:
    encoder = CornerEncoder()
    (blue,) = encoder.encode_images([Image.new("RGB", (8, 8), "blue")])
    for rows in (
        encoder.embed([turned]),
        encoder.embed([Image.open(turned)]),
        encoder.encode_images([Image.open(turned)]),
        encoder.encode_images([upright_rgb(Image.open(turned))]),
        encoder.embed([upright_rgb(upright_rgb(Image.open(turned)))]),
    ):
        assert float(rows[0] @ blue) > 0.95


def test_the_first_file_that_cannot_be_read_is_named(files: list[Path], tmp_path: Path) -> None:
    (tmp_path / "text.jpg").write_text("no photo")
    for broken in (tmp_path / "text.jpg", tmp_path / "none.png", tmp_path):
        with pytest.raises(PhotoError, match=str(broken)):
            ENCODER.embed([*files[:40], broken, tmp_path / "later.png"])
    cut = tmp_path / "cut.png"
    cut.write_bytes(files[0].read_bytes()[:60])
    with Image.open(cut) as picture, pytest.raises(PhotoError, match="^picture 2: "):
        ENCODER.embed([files[0], picture])


def test_broken_files_can_be_rows_of_nan(files: list[Path], tmp_path: Path) -> None:
    steps: list[Progress] = []
    rows = ENCODER.embed(
        [files[0], tmp_path / "none.png", files[1]], broken="nan", progress=steps.append
    )
    np.testing.assert_array_equal(rows[[0, 2]], ENCODER.embed(files[:2]))
    assert np.isnan(rows[1]).all()
    assert steps == [Progress("embedding", 3, 3, 1)]
    with pytest.raises(ValueError, match="batch_size is at least 1"):
        ENCODER.embed(files, batch_size=0)


def test_a_generator_that_fails_is_heard(files: list[Path]) -> None:
    def paths() -> Iterator[Path]:
        yield from files[:3]
        raise RuntimeError("no more")

    with pytest.raises(RuntimeError, match="no more"):
        ENCODER.embed(paths())
