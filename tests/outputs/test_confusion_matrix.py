"""Confusion matrices as pictures."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageColor

from vitsearch.errors import VitsearchError
from vitsearch.outputs import EMPTY, RIGHT, WRONG, ink_on, shade, write_confusion

COUNTS = np.array([[40, 0, 10], [0, 12, 0], [0, 0, 0]])


def pixels(file: Path) -> np.ndarray:
    with Image.open(file) as page:
        assert page.format == "PNG"
        return np.asarray(page.convert("RGB"))


def area(page: np.ndarray, colour: tuple[int, int, int]) -> int:
    return int((page == colour).all(axis=2).sum())


def test_a_cell_has_the_colour_of_its_share_of_the_row(tmp_path: Path) -> None:
    write_confusion(tmp_path / "c.png", ["cat", "dog", "cow"], {"zero-shot": COUNTS})
    page = pixels(tmp_path / "c.png")
    cell = 83 * 83
    for colour, cells in (
        (shade(0.8, right=True), 1),
        (shade(1.0, right=True), 1),
        (shade(0.2, right=False), 1),
        (EMPTY, 6),
    ):
        assert (
            0.9 * cell * cells < area(page, colour) <= cell * cells + 2 * 14 * 14
        )  # without the number; with the key


def test_matrices_stand_side_by_side(tmp_path: Path) -> None:
    write_confusion(tmp_path / "one.png", ["cat", "dog", "cow"], {"zero-shot": COUNTS})
    write_confusion(
        tmp_path / "two.png", ["cat", "dog", "cow"], {"zero-shot": COUNTS, "supervised": COUNTS.T}
    )
    one, two = pixels(tmp_path / "one.png"), pixels(tmp_path / "two.png")
    assert one.shape[0] == two.shape[0]
    assert two.shape[1] > 1.5 * (one.shape[1] - 72 if one.shape[1] > 460 else 300)
    assert area(two, shade(0.2, right=False)) > 80 * 80


@pytest.mark.parametrize("number", [1, 3, 12, 40, 200])
def test_any_number_of_labels_is_drawn_with_all_its_cells(tmp_path: Path, number: int) -> None:
    labels = [f"label {place} of a very long name, longer than any cell" for place in range(number)]
    write_confusion(
        tmp_path / "c.png", labels, {"日本 zero-shot": np.eye(number, dtype=np.int64) * 1_234_567}
    )
    page = pixels(tmp_path / "c.png")
    rows = (page == RIGHT).all(axis=2).any(axis=1)
    assert (
        np.diff(rows.astype(int)).tolist().count(1) >= number
    )  # a gap between any two cells on the diagonal


@given(st.floats(0, 1), st.booleans())
def test_type_is_always_readable_on_its_ground(share: float, right: bool) -> None:
    ground = shade(share, right=right)

    def luminance(colour: tuple[int, ...]) -> float:
        linear = [
            value / 255 / 12.92 if value <= 10 else ((value / 255 + 0.055) / 1.055) ** 2.4
            for value in colour
        ]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    dark, light = sorted((luminance(ground), luminance(ImageColor.getrgb(ink_on(ground)))))
    assert (light + 0.05) / (dark + 0.05) >= 4.5


def test_shades_run_from_empty_to_full() -> None:
    assert (shade(0, right=True), shade(1, right=True), shade(1, right=False)) == (
        EMPTY,
        RIGHT,
        WRONG,
    )
    assert shade(0.001, right=False) != EMPTY


def test_errors_are_one_line(tmp_path: Path) -> None:
    reasons = []
    for file, labels in (
        (tmp_path / "c.jpg", ["a", "b"]),
        (tmp_path / "no/c.png", ["a", "b"]),
        (tmp_path / "c.png", ["a"] * 201),
    ):
        with pytest.raises(VitsearchError) as caught:
            write_confusion(
                file, labels, {"x": np.zeros((len(labels), len(labels)), dtype=np.int64)}
            )
        reasons.append(str(caught.value))
    assert reasons == [
        "a confusion matrix is a .png file, not 'c.jpg'; name it so",
        (
            f"cannot write {str(tmp_path / 'no/c.png')!r}: there is no folder {tmp_path / 'no'}; "
            "name "
            "another place for the confusion matrix"
        ),
        "a confusion matrix is drawn of at most 200 labels, not 201; give fewer",
    ]
    with pytest.raises(ValueError, match=r"expected \(2, 2\) counts, got \(3, 3\)"):
        write_confusion(tmp_path / "c.png", ["a", "b"], {"x": COUNTS})
    assert list(tmp_path.iterdir()) == []
