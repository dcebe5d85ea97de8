"""The text in photos: words with their places, and how words are looked up in it."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vitsearch.photos.text import MAX_LENGTH, SCALE, PhotoText, places_of, plain_words

BOXES = st.tuples(*[st.integers(0, SCALE)] * 4)
INVOICE = PhotoText.of_lines(
    [
        [("Total", (0, 0, 10, 5)), ("amount:", (11, 0, 20, 5)), ("INV-2034", (21, 0, 30, 5))],
        [("Café", (0, 6, 10, 9)), ("totals", (11, 6, 20, 9))],
    ]
)


def test_lines_become_a_text_with_a_place_for_each_word() -> None:
    assert INVOICE.text == "Total amount: INV-2034\nCafé totals"
    assert INVOICE.places[1] == (11, 0, 20, 5)


@given(st.lists(st.lists(st.tuples(st.text(max_size=9), BOXES), max_size=5), max_size=5))
def test_whatever_is_read_is_packed_and_unpacked(lines: list) -> None:
    text = PhotoText.of_lines(lines)
    assert PhotoText.unpacked(text.text, text.packed()) == text
    assert "".join(text.text.split()).isprintable()


def test_a_text_has_an_end() -> None:
    lines = [[("a" * 99, (0, 0, 1, 1))]] * 1000
    assert len(PhotoText.of_lines(lines).text) <= MAX_LENGTH


@pytest.mark.parametrize("places", [b"", b"1234567", b"12345678" * 2])
def test_places_that_do_not_fit_the_words_are_refused(places: bytes) -> None:
    with pytest.raises(ValueError, match="places|buffer|unpack"):
        PhotoText.unpacked("one", places)


@pytest.mark.parametrize(
    ("words", "exact", "numbers"),
    [
        ("total", False, [0, 4]),
        ("total", True, [0]),
        ("TOTAL Amount", True, [0, 1]),
        ("amount inv", False, [1, 2]),
        ("amount inv", True, [1, 2]),  # a word of the text may be several
        ("2034 cafe", True, [2, 3]),
        ("amount total", False, []),
        ("€", False, []),
        ("", False, []),
    ],
)
def test_words_are_placed_in_a_row(words: str, exact: bool, numbers: list[int]) -> None:
    assert places_of(INVOICE, words, exact=exact) == [INVOICE.places[n] for n in numbers]


def test_words_are_compared_without_case_and_accents() -> None:
    assert plain_words("Größe, ÉTÉ 12.50€") == ["grosse", "ete", "12", "50"]
