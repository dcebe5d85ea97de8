import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from vitsearch.arrays import cosine_scores, drop_pages, mapped, products, top_k, unit_rows

ROWS = hnp.arrays(
    np.float32,
    st.tuples(st.integers(0, 8), st.integers(1, 5)),
    elements=st.floats(-100, 100, width=32),
)


@given(ROWS)
def test_unit_rows_have_length_one_or_zero_and_keep_their_direction(rows):
    units = unit_rows(rows)
    norms = np.linalg.norm(units.astype(np.float64), axis=1)
    zero = ~rows.any(axis=1)
    assert units.dtype == np.float32
    assert units.shape == rows.shape
    assert (norms[zero] == 0).all()
    np.testing.assert_allclose(norms[~zero], 1, atol=1e-6)
    lengths = np.linalg.norm(rows.astype(np.float64), axis=1, keepdims=True)
    np.testing.assert_allclose(units * lengths, rows, rtol=1e-5, atol=1e-6)


def test_unit_rows_of_known_rows_and_of_tiny_numbers():
    assert unit_rows(np.array([[3.0, 4.0], [0.0, 0.0], [1e-30, 0.0]])).tolist() == [
        [np.float32(0.6), np.float32(0.8)],
        [0.0, 0.0],
        [1.0, 0.0],
    ]


@pytest.mark.parametrize(
    "rows", [np.zeros(3), np.zeros((1, 2, 3)), np.array([[np.nan]]), np.array([[np.inf]])]
)
def test_unit_rows_refuses_other_shapes_and_numbers_that_are_not_finite(rows):
    with pytest.raises(ValueError, match="vector"):
        unit_rows(rows)


def test_cosine_of_known_rows():
    rows = np.array([[1, 0], [0, 2], [-3, 0], [0, 0], [1, 1]], dtype=np.float16)
    np.testing.assert_allclose(
        cosine_scores(rows, np.array([5.0, 0.0])), [1, 0, -1, 0, 0.5**0.5], atol=1e-15
    )


@given(ROWS, st.data())
def test_a_score_does_not_depend_on_the_neighbours_of_its_row(rows, data):
    query = data.draw(hnp.arrays(np.float32, rows.shape[1], elements=st.floats(-1, 1, width=32)))
    together = cosine_scores(rows, query)
    assert together.tolist() == [cosine_scores(rows[i : i + 1], query)[0] for i in range(len(rows))]
    assert (np.abs(together) <= 1).all()
    assert cosine_scores(rows, np.repeat([query], len(rows), axis=0)).tolist() == together.tolist()


@pytest.mark.parametrize("offset", [0, 2], ids=["aligned", "not aligned"])
@pytest.mark.parametrize(("count", "dim", "queries"), [(0, 4, 3), (7, 4, 1), (1000, 640, 12)])
def test_products_are_those_of_a_matrix_product(offset, count, dim, queries):
    random = np.random.default_rng(0)
    held = np.zeros(4 * count * dim + offset, np.uint8)
    rows = held[offset:].view(np.float32).reshape(count, dim)
    rows[...] = random.standard_normal((count, dim))
    asked = random.standard_normal((queries, dim)).astype(np.float32)
    np.testing.assert_allclose(products(rows, asked), asked @ rows.T, rtol=1e-5, atol=1e-4)


@given(st.lists(st.integers(-3, 3), max_size=20), st.integers(-1, 25))
def test_top_k_is_a_stable_sort_cut_off(scores, k):
    expected = sorted(range(len(scores)), key=lambda i: (-scores[i], i))[: max(k, 0)]
    assert top_k(np.array(scores, dtype=np.float32), k).tolist() == expected


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_pages_of_a_mapped_file_are_dropped_by_a_view_of_it_too(tmp_path: Path) -> None:
    file = tmp_path / "rows.f16"
    np.zeros((1000, 512), dtype=np.float16).tofile(file)
    rows = mapped(file, "<f2", (1000, 512))

    def resident() -> int:
        """Return the kilobytes of the file that count as memory of this process."""
        maps = Path("/proc/self/smaps").read_text(encoding="utf-8").split(str(file))[1]
        return int(maps.split("Rss:")[1].split()[0])

    for each in (rows, rows.view(np.ndarray), rows.view(np.ndarray)[10:]):
        assert rows.sum() == 0
        assert resident() == 1000
        drop_pages(each)
        assert resident() == 0
