from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from PIL import Image

from vitsearch import Collection
from vitsearch.arrays import Vectors, unit_rows
from vitsearch.collection import query
from vitsearch.collection.query import Term, check_vector, combine, parse_query
from vitsearch.encoders.colour import ColourEncoder
from vitsearch.encoders.language import set_language, texts_in
from vitsearch.errors import QueryError

ENCODER = ColourEncoder()


def vector_of(term: Term) -> Vectors:
    return (ENCODER.encode_texts if isinstance(term.what, str) else ENCODER.encode_images)(
        [term.what]
    )[0]


@pytest.mark.parametrize(
    ("text", "terms"),
    [
        ("a dog on a beach", [Term("a dog on a beach")]),
        ("  dog\t", [Term("dog")]),
        (
            "2:beach + ./dog.jpg - people",
            [Term("beach", 2), Term(Path("dog.jpg")), Term("people", -1)],
        ),
        ("- people", [Term("people", -1)]),
        ("+ dog - .5:cat", [Term("dog"), Term("cat", -0.5)]),
        ("1.:dog + 0.25:cat", [Term("dog"), Term("cat", 0.25)]),
        ("dog \n +\t cat", [Term("dog"), Term("cat")]),
        ("well-known c++ a+b", [Term("well-known c++ a+b")]),
        # a sign at a word, which goes with that word alone
        ("-dog", [Term("dog", -1)]),
        ("beach -people", [Term("beach"), Term("people", -1)]),
        ("-people beach +sunset", [Term("beach"), Term("people", -1), Term("sunset")]),
        ("beach -2:people at night", [Term("beach at night"), Term("people", -2)]),
        (
            'beach -"a crowd" -./x.jpg',
            [Term("beach"), Term("a crowd", -1), Term(Path("x.jpg"), -1)],
        ),
        ("./a.jpg -people", [Term(Path("a.jpg")), Term("people", -1)]),
        ("./IMG -final.jpg", [Term(Path("IMG -final.jpg"))]),
        ("beach − people", [Term("beach"), Term("people", -1)]),  # U+2212
        ("-5 degrees -> cold +1", [Term("-5 degrees -> cold +1")]),
        # times and ratios
        ("16:9 photo", [Term("16:9 photo")]),
        ("4:30 pm sunset", [Term("4:30 pm sunset")]),
        ("4:30pm - 1.85:1", [Term("4:30pm"), Term("1.85:1", -1)]),
        ("2024:07 holiday", [Term("2024:07 holiday")]),
        # typographic quotes
        ("“black + white”", [Term("black + white")]),
        ("„schwarz + weiß“ - «a - b»", [Term("schwarz + weiß"), Term("a - b", -1)]),
        ("‘it - is’ + 2:“16:9”", [Term("it - is"), Term("16:9", 2)]),
        ('a poster of "rock + roll" - x', [Term('a poster of "rock + roll"'), Term("x", -1)]),
        ('"rock + roll" + x', [Term("rock + roll"), Term("x")]),
        ("'rock - roll'", [Term("rock - roll")]),
        ("'+' + '- x'", [Term("+"), Term("- x")]),
        ('3:"12:30 clock"', [Term("12:30 clock", 3)]),
        ('"it\'s" - \'say "hi"\'', [Term("it's"), Term('say "hi"', -1)]),
        ("'tis a dog's life + cat", [Term("'tis a dog's life"), Term("cat")]),
        ("'a'b + c", [Term("'a'b"), Term("c")]),
        ("at 12:30 + 2: dog", [Term("at 12:30"), Term("2: dog")]),
        ("2:3:dog", [Term("2:3:dog")]),
        ('2:"3:dog"', [Term("3:dog", 2)]),
        (
            "./a b.jpg - ../c.jpg + /d.jpg",
            [Term(Path("a b.jpg")), Term(Path("../c.jpg"), -1), Term(Path("/d.jpg"))],
        ),
        ('2:"./rock + roll.jpg" + cat', [Term(Path("rock + roll.jpg"), 2), Term("cat")]),
        ("dog.jpg", [Term("dog.jpg")]),
        ("~50 people + ~ waves", [Term("~50 people"), Term("~ waves")]),
        ("dog / cat - / tree", [Term("dog / cat"), Term("/ tree", -1)]),
        ("a/b.jpg + .hidden", [Term("a/b.jpg"), Term(".hidden")]),
    ],
)
def test_parse_query(text: str, terms: list[Term]) -> None:
    assert without_verbatim(parse_query(text)) == terms


def without_verbatim(terms: list[Term]) -> list[Term]:
    return [replace(term, verbatim=()) for term in terms]


def test_words_in_quotes_are_looked_for_as_text() -> None:
    assert [term.verbatim for term in parse_query('a bill "total amount" - "tax" + cat')] == [
        ("total amount",),
        (),
        (),
    ]


def test_a_photo_may_lie_in_the_home_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/ada")
    assert parse_query("~/a.jpg - ~") == [
        Term(Path("/home/ada/a.jpg")),
        Term(Path("/home/ada"), -1),
    ]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "the query is empty"),
        (" \t\n", "the query is empty"),
        ("+", "a term of the query '\\+' is empty"),
        ("dog + ''", "is empty"),
        ('"" + dog', "is empty"),
        ('2:" "', "is empty"),
        ("beach + - people", "is empty"),
        ("dog + + cat", "is empty"),
        ("- + dog", "is empty"),
        ("dog - ", "is empty"),
        ("0:dog", "a weight of 0"),
        ("dog - 0.0:cat", "a weight of 0"),
        ("~no-such-user-1/a.jpg", "no home folder for '~no-such-user-1/a.jpg'"),
    ],
)
def test_a_query_that_says_nothing_is_refused(text: str, words: str) -> None:
    with pytest.raises(QueryError, match=words) as caught:
        parse_query(text)
    assert "\n" not in str(caught.value)


WORD = st.text(
    st.characters(codec="utf-8", exclude_categories=["Z", "C"], exclude_characters="\"'“”„‘’«»"),
    min_size=1,
    max_size=6,
)
QUIET = WORD.filter(
    lambda word: (
        word[0] not in "+-−"
        and not word.startswith(("/", "~", "./", "../", ".\\", "..\\"))
        and ":" not in word
    )
)
PLAIN_BODY = st.lists(QUIET, min_size=1, max_size=3).map(" ".join)
LOUD_BODY = st.tuples(QUIET, st.sampled_from([" + ", " - ", "  +\t", " 2:x - "]), QUIET).map(
    "".join
)
PHOTO_BODY = st.tuples(st.sampled_from(["./", "../", "/p/"]), QUIET).map("".join)
WEIGHT = st.one_of(
    st.none(), st.integers(1, 99), st.floats(0.001, 999).map(lambda weight: round(weight, 3))
)


@st.composite
def written_terms(draw: st.DrawFn) -> tuple[str, Term]:
    """A term as a person writes it, without its sign, and what it means."""
    body = draw(st.one_of(PLAIN_BODY, LOUD_BODY, PHOTO_BODY))
    must_quote = body not in (body.strip(),) or " + " in body or " - " in body or "+\t" in body
    weight = draw(WEIGHT)
    must_quote |= weight is not None and body[0].isdecimal()  # 16:9
    quote = draw(st.sampled_from(['"', "'"] if must_quote else ["", '"', "'"]))
    what = Path(body) if body.startswith(("./", "../", "/p/")) else body
    return ("" if weight is None else f"{weight}:") + quote + body + quote, Term(
        what, float(weight or 1)
    )


@pytest.mark.slow
@settings(max_examples=150, deadline=None)
@given(
    st.lists(
        st.tuples(st.sampled_from("+-"), st.sampled_from([" ", "  ", "\t"]), written_terms()),
        min_size=1,
        max_size=4,
    ),
    st.booleans(),
)
def test_what_is_written_is_read(
    parts: Sequence[tuple[str, str, tuple[str, Term]]], bare_first: bool
) -> None:
    text, terms = "", []
    for place, (sign, space, (written, term)) in enumerate(parts):
        bare = place == 0 and bare_first
        text += written if bare else f"{space if place else ''}{sign}{space}{written}"
        terms.append(Term(term.what, -term.weight if sign == "-" and not bare else term.weight))
    assert without_verbatim(parse_query(text)) == terms


@settings(max_examples=200, deadline=None)
@given(
    st.one_of(
        st.text(),
        st.text("+-\"' 2.:/~a\0\n"),
        st.lists(st.sampled_from([" ", "+", "-", "2:", '"', "'", "~", "./", "dog"])).map("".join),
    )
)
@example("~\0")
@example("~\ud800")
@example("٣:cat")
@pytest.mark.slow
def test_any_text_is_terms_or_a_query_error(text: str) -> None:
    terms, told = None, ""
    try:
        terms = parse_query(text)
    except QueryError as error:
        told = str(error)
    assert bool(terms) != bool(told)
    assert "\n" not in told
    for term in terms or ():
        assert term.weight != 0
        assert isinstance(term.what, Path) or term.what.strip()


def test_combine_is_the_unit_vector_of_the_weighted_sum() -> None:
    red, blue = ENCODER.encode_texts(["red", "blue"])
    np.testing.assert_allclose(combine([Term("red")], vector_of), red, atol=1e-7)
    np.testing.assert_allclose(
        combine([Term("red", 2), Term("blue", -1)], vector_of),
        unit_rows((2 * red - blue)[None])[0],
        atol=1e-6,
    )


@pytest.mark.slow
@settings(max_examples=100, deadline=None)
@given(
    st.lists(
        st.tuples(st.sampled_from(["red", "green", "white"]), st.floats(0.01, 100)),
        min_size=1,
        max_size=5,
    ),
    st.floats(0.01, 100),
)
def test_only_the_ratio_and_not_the_order_of_weights_counts(
    parts: list[tuple[str, float]], factor: float
) -> None:
    vector = combine([Term(word, weight) for word, weight in parts], vector_of)
    assert vector.dtype == np.float32
    assert float(np.linalg.norm(vector)) == pytest.approx(1, abs=1e-6)
    np.testing.assert_allclose(
        combine([Term(word, weight * factor) for word, weight in parts], vector_of),
        vector,
        atol=1e-6,
    )
    np.testing.assert_allclose(
        combine([Term(word, weight) for word, weight in reversed(parts)], vector_of),
        vector,
        atol=1e-6,
    )


def test_a_picture_is_a_term() -> None:
    picture = Image.new("RGB", (8, 8), "red")
    terms = [Term(picture), Term("blue")]
    expected = unit_rows(ENCODER.encode_images([picture]) + ENCODER.encode_texts(["blue"]))[0]
    np.testing.assert_allclose(combine(terms, vector_of), expected, atol=1e-6)


@pytest.mark.parametrize(
    ("terms", "words"),
    [
        ([], "no term"),
        ([Term("red"), Term("red", -1)], "cancel each other out"),
        ([Term("red", 1e9), Term("red", -1e9)], "cancel"),
    ],
)
def test_terms_that_say_nothing_are_refused(terms: list[Term], words: str) -> None:
    with pytest.raises(QueryError, match=words):
        combine(terms, vector_of)


@pytest.mark.parametrize(
    "vector",
    [
        [3, 4, 0],
        (3.0, 4.0, 0.0),
        np.array([3, 4, 0], dtype=np.int64),
        np.array([30, 40, 0], np.float16),
    ],
)
def test_check_vector_gives_a_unit_row(vector: object) -> None:
    row = check_vector(vector, 3)
    assert (row.dtype, row.shape) == (np.float32, (3,))
    np.testing.assert_allclose(row, [0.6, 0.8, 0], atol=1e-7)


@pytest.mark.parametrize(
    ("vector", "words"),
    [
        ([1, 2], r"has shape \(2,\), the collection's vectors have \(3,\)"),
        ([[1, 2, 3]], r"has shape \(1, 3\)"),
        ([], r"has shape \(0,\)"),
        (None, "has shape"),
        ([0, 0, 0], "all zeros"),
        ([1, float("nan"), 0], "not finite"),
        ([1, float("inf"), 0], "not finite"),
        ({"a": 1}, "not dict"),
        (["a", "b", "c"], "not list"),
        ([Term("dog"), "cat", 1], "not list"),
        ([[1], [2, 3]], "not list"),
    ],
)
def test_another_thing_than_a_vector_is_refused(vector: object, words: str) -> None:
    with pytest.raises(QueryError, match=words):
        check_vector(vector, 3)


class Counted(ColourEncoder):
    """An encoder that notes the texts that it reads, each with the language that is set."""

    def __init__(self) -> None:
        super().__init__()
        self.texts: list[tuple[str | None, str]] = []

    def encode_texts(self, texts: Sequence[str]) -> Vectors:
        self.texts += [(set_language(), text) for text in texts]
        return super().encode_texts(texts)


def test_the_texts_that_were_read_last_are_remembered(
    indexed: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(query, "REMEMBERED", 3)
    encoder = Counted()
    with Collection.open(indexed, encoder=encoder) as collection:
        page = collection.search("red", 2)  # reads what relevance is measured by too
        encoder.texts.clear()
        texts = collection.queries.encode_texts(["red", "blue", "blue"])
        assert np.array_equal(texts, ENCODER.encode_texts(["red", "blue", "blue"]))
        assert collection.search("red", 1, offset=1) == page[1:]
        assert encoder.texts == [(None, "blue")]
        collection.queries.encode_texts(["green", "yellow"])  # blue is the oldest now
        collection.queries.encode_texts(["red", "blue"])
        with texts_in("de"):
            collection.queries.encode_texts(["red"])
        assert encoder.texts[1:] == [
            (None, "green"),
            (None, "yellow"),
            (None, "blue"),
            ("de", "red"),
        ]
