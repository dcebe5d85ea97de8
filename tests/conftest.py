"""Shared by the tests: small pictures of plain colours, an encoder that counts, and the command
line in a process of its own.
"""

import colorsys
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from vitsearch import Collection, IndexReport, index_folder
from vitsearch.encoders.colour import WORDS, ColourEncoder

COLOURS = ("red", "green", "blue", "yellow")
CHECKOUT = Path(__file__).parents[1]


class CountingEncoder(ColourEncoder):
    """`colour`, counting the pictures that indexing embeds (the golden picture is not
    one of them).
    """

    def __init__(self) -> None:
        self.embedded = 0

    def encode_prepared(self, batch: Sequence[NDArray[Any]]) -> NDArray[np.float32]:
        self.embedded += len(batch)
        return super().encode_prepared(batch)

    def encode_images(self, images: Sequence[Image.Image]) -> NDArray[np.float32]:
        return super().encode_prepared([self.prepare(image) for image in images])


def paint(
    path: Path, *colours: str | tuple[int, int, int], size: tuple[int, int] = (24, 16)
) -> Path:
    """Write a lossless picture of vertical stripes of these colours (words of the encoder, or RGB)
    and return its path.
    """
    stripes = [WORDS[colour] if isinstance(colour, str) else colour for colour in colours]
    columns = np.array(
        [stripes[x * len(stripes) // size[0]] for x in range(size[0])], dtype=np.uint8
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.broadcast_to(columns, (size[1], size[0], 3)).copy()).save(path, "PNG")
    return path


def shade(number: int) -> tuple[int, int, int]:
    """Return one of many colours that all look different to the encoder."""
    red, green, blue = colorsys.hsv_to_rgb(
        number * 0.618034 % 1, 0.6 + 0.4 * (number * 0.37 % 1), 0.5 + 0.5 * (number * 0.71 % 1)
    )
    return round(red * 255), round(green * 255), round(blue * 255)


def counts(report: IndexReport) -> dict[str, int]:
    """Return the counts of a report that are not zero, without the times."""
    names = ("indexed", "unchanged", "moved", "removed", "skipped", "failed")
    return {name: getattr(report, name) for name in names if getattr(report, name)}


def content(folder: Path, **options: Any) -> dict[str, bytes]:
    """Return the vector of every photo of a collection by path, as bytes."""
    with Collection.open(folder, encoder=ColourEncoder(), **options) as found:
        photos, vectors = found.vectors()
        return {photo.path: vector.tobytes() for photo, vector in zip(photos, vectors, strict=True)}


def found_paths(folder: Path, query: Any, top_k: int = 10, **options: Any) -> list[str]:
    """Return the paths of a search in a collection opened for it."""
    with Collection.open(folder, encoder=ColourEncoder(), **options) as found:
        return [hit.path for hit in found.search(query, top_k)]


def vitsearch(
    *arguments: str | bytes | Path, cwd: Path | None = None, **options: Any
) -> subprocess.CompletedProcess[bytes]:
    """Run the command line in a process of its own and return its exit code and the bytes of its
    output.
    """
    command = [sys.executable, "-c", "from vitsearch.cli import main; main()", *arguments]
    return subprocess.run(
        command, cwd=cwd, capture_output=True, env=environment(), timeout=60, **options
    )


def environment() -> dict[str, str]:
    """Return an environment in which a child process finds this checkout and uses one thread."""
    return os.environ | {
        "PYTHONPATH": f"{CHECKOUT}{os.pathsep}{CHECKOUT / 'tests'}",
        "OMP_NUM_THREADS": "1",
    }


@pytest.fixture(autouse=True, scope="session")
def _own_home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Keep hashes and exports of throw-away models out of the user's cache folder, in this process
    and in those that it starts.
    """
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("VITSEARCH_HOME", str(tmp_path_factory.mktemp("home")))
        yield


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """A folder of four photos, one of each colour, one of them in a folder below; not indexed."""
    folder = tmp_path / "photos"
    for colour in COLOURS:
        paint(folder / ("sub" if colour == "blue" else "") / f"{colour}.png", colour)
    return folder


@pytest.fixture
def indexed(photos: Path) -> Path:
    """The folder of four photos, indexed with `colour`."""
    index_folder(photos, encoder=ColourEncoder())
    return photos
