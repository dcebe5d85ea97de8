"""Texts in other languages: which are noticed, that English is left alone, and the note of an
encoder that knows English only, or Spanish too.
"""

import json
import tarfile
import tomllib
import unicodedata
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from helpers.cli import vitsearch
from helpers.paths import DATA
from vitsearch import Collection, Term, index_folder
from vitsearch.encoders.catalogue import list_encoders
from vitsearch.encoders.colour import ColourEncoder
from vitsearch.encoders.language import MULTILINGUAL, is_foreign, language_note, unread_notes
from vitsearch.encoders.mini import load_mini
from vitsearch.errors import EncoderError

QUERIES: dict[str, list[str]] = tomllib.loads(
    (Path(__file__).parent / "foreign_queries.toml").read_text(encoding="utf-8")
)
WORDS = (
    "a dog runs on the beach with an old man in red at night my sister is under some trees and "
    "two kids play by water "
    "kind gift chat pain table train boot hut rock hose art bad barn fast strand most more pole "
    "home son sitter boom glass also"
)
PHRASES = (
    "café; my fiancée; crème brûlée; a naïve painting; jalapeño; São Paulo; Zürich old town; El "
    "Niño; Beyoncé; Citroën 2CV; Pokémon; "
    "Sagrada Familia at night; rio de janeiro; los angeles skyline; Playa del Carmen; Plaza "
    "Mayor; casa blanca; notre dame; moulin rouge; "
    "Château de Versailles; Musée d'Orsay; vincent van gogh; tacos al pastor; sombrero; mariachi "
    "band; dachshund; kindergarten; dirndl; "
    "die hard poster; chili con carne; cafe au lait; ponte vecchio; mona lisa; las vegas; "
    "IMG_1234; 2019; ; !!; a π sign; fine ﬁsh; ＤＯＧ"
)


def share(language: str, held_out: bool) -> float:
    chosen = [
        query for place, query in enumerate(QUERIES[language]) if (place % 3 == 2) == held_out
    ]
    return sum(map(is_foreign, chosen)) / len(chosen)


@pytest.mark.parametrize("language", QUERIES)
def test_queries_in_other_languages_are_noticed(language: str) -> None:
    assert len(QUERIES[language]) >= 6
    assert share(language, held_out=False) >= 0.85
    assert share(language, held_out=True) >= 0.7


def test_the_queries_all_together() -> None:
    latin = [
        language
        for language, queries in QUERIES.items()
        if unicodedata.name(queries[0][0]).startswith("LATIN")
    ]
    assert len(latin) >= 12
    assert np.mean([share(language, held_out=False) for language in latin]) >= 0.94
    assert np.mean([share(language, held_out=True) for language in latin]) >= 0.88


@pytest.mark.parametrize("text", PHRASES.split("; "))
def test_what_english_borrows_is_english(text: str) -> None:
    assert not is_foreign(text)


@pytest.mark.parametrize(
    "text",
    [
        "PERRO EN LA PLAYA",
        "Perro",
        "Hund",
        "Chien sur la plage",
        "l’eau et le soleil",
        "el niño en la playa",
    ],
)
def test_capitals_and_typographic_signs_change_nothing(text: str) -> None:
    assert is_foreign(text)


@given(
    st.lists(st.sampled_from(WORDS.split()), max_size=12).map(" ".join),
    st.sampled_from([str, str.upper, str.title, str.capitalize]),
)
def test_english_words_in_any_order_are_english(text: str, written: Any) -> None:
    assert not is_foreign(written(text))


def other_letters(text: str) -> int:
    return sum(
        char.isalpha() and unicodedata.category(char) != "Lm"
        for char in unicodedata.normalize("NFKC", text)
    )


@given(
    st.text(st.sampled_from("собакαλφαكلبכלבकखा犬猫いぬ개고양이"), min_size=1, max_size=8),
    st.sampled_from(["", "a", "dog", " 1!"]),
)
def test_half_in_another_script_is_noticed(word: str, latin: str) -> None:
    if other_letters(word) >= max(1, other_letters(latin)):
        assert is_foreign(f"{latin} {word}")


@pytest.mark.parametrize("language", QUERIES)
def test_an_encoder_that_reads_spanish_too_says_it_of_other_languages(language: str) -> None:
    chosen = QUERIES[language]
    found = [text for text in chosen if is_foreign(text, ("en", "es"))]
    if language == "es":
        assert found == []
    else:
        assert len(found) >= 0.65 * len(chosen)


@settings(deadline=None)
@given(st.text(st.characters(), max_size=60))
def test_any_text_has_an_answer(text: str) -> None:
    assert is_foreign(text) in (True, False)
    note = language_note([text], "mini")
    assert (note is None) == (not is_foreign(text))
    assert note is None or "\n" not in note


def test_one_text_is_not_its_letters() -> None:
    with pytest.raises(EncoderError, match=r"texts are a list of them, such as \['dog'\]"):
        ColourEncoder().encode_texts("dog")
    with pytest.raises(EncoderError, match=r"texts are a list of them, such as \['dog'\]"):
        load_mini().encode_texts("dog")


def test_long_texts_are_quick_and_shown_short() -> None:
    note = language_note(["a dog", "un perro\nen la playa " * 100_000], "mini")
    assert note is not None
    assert note.startswith("'un perro en la playa un perro")
    assert len(note) < 250


def captions(name: str) -> list[str]:
    with tarfile.open(DATA / name) as tar:
        file = tar.extractfile("captions.tsv")
        assert file is not None
        return [line.split("\t", 1)[1] for line in file.read().decode("utf-8").splitlines()]


@pytest.mark.slow
@pytest.mark.parametrize("name", ["flickr8k-dev.tar", "flickr8k-train.tar"])
def test_english_captions_are_english(name: str) -> None:
    if not (DATA / name).exists():
        pytest.skip(f"{name} is not here")
    texts = captions(name)
    assert sum(map(is_foreign, texts)) <= len(texts) / 5000


def test_imagenet_class_names_are_english() -> None:
    names = pytest.importorskip("open_clip.zero_shot_metadata").IMAGENET_CLASSNAMES
    assert [name for name in names if is_foreign(name)][:10] == []


def test_the_model_of_the_note_is_in_the_catalogue() -> None:
    assert [one.name for one in list_encoders(MULTILINGUAL)] == [MULTILINGUAL]


# -- the note --------------------------------------------------------------------------------------

NOTE = (
    "'rojo y negro' looks like another language than English, and colour knows English only: "
    f"index with a multilingual model, such as --encoder {MULTILINGUAL}"
)


class ManyLanguages(ColourEncoder):
    """`colour` with Spanish words."""

    languages = ()

    def encode_texts(self, texts: Sequence[str]) -> NDArray[np.float32]:
        return super().encode_texts(
            [text.replace("rojo", "red").replace("negro", "black") for text in texts]
        )


def test_a_collection_says_it_once_and_finds_the_same(indexed: Path, remarks: list[str]) -> None:
    with Collection.open(indexed, encoder=ColourEncoder()) as found:
        expected = found.search("no colour at all")
        assert remarks == []
        assert [found.search("rojo y negro"), found.search([Term("perro")])] == [expected, expected]
        assert remarks == [NOTE]
        found.label(["perro", "gato"])
        assert remarks == [NOTE]


def test_a_collection_says_it_of_labels_and_of_none_but_words(
    indexed: Path, remarks: list[str]
) -> None:
    with Collection.open(indexed, encoder=ColourEncoder()) as found:
        found.search(indexed / "red.png")
        found.search(found.vectors()[1][0])
        found.label(["red", "green"])
        assert remarks == []
        found.label(["red", "rojo y negro", "perro"])
        assert remarks == [NOTE]


def test_an_encoder_of_many_languages_has_no_note(photos: Path, remarks: list[str]) -> None:
    index_folder(photos, encoder=ManyLanguages())
    with Collection.open(photos, encoder=ManyLanguages()) as found:
        assert found.search("rojo", 1)[0].path == "red.png"
        found.label(["rojo", "negro", "perro", "красный"])
        assert remarks == []


def test_the_command_line_says_it_on_stderr(indexed: Path) -> None:
    done = vitsearch("search", indexed, "rojo y negro + perro", "-k", "2", "--json")
    assert (done.returncode, done.stderr) == (0, f"vitsearch: {NOTE}\n".encode())
    assert len([json.loads(line) for line in done.stdout.decode("ascii").splitlines()]) == 2
    assert vitsearch("search", indexed, "a red dog - green").stderr == b""
    done = vitsearch("label", indexed, "--labels", "red,rojo y negro,verde")
    assert (done.stdout.count(b"\n"), done.stderr) == (4, f"vitsearch: {NOTE}\n".encode())


def test_mini_reads_spanish_and_says_what_it_does_not_read() -> None:
    assert unread_notes(["un perro en la playa"], load_mini()) == {}
    assert unread_notes(["ein Hund am Strand"], load_mini()) == {
        "language": (
            "'ein Hund am Strand' looks like another language than English and Spanish, and mini "
            "knows English and Spanish only: index with a multilingual model, such as --encoder "
            f"{MULTILINGUAL}"
        )
    }


def test_mini_knows_where_it_cuts() -> None:
    mini = load_mini()
    assert [
        mini.is_cut("dog " * 126),
        mini.is_cut("dog " * 127),
        mini.is_cut(""),
        mini.is_cut("\udc80" * 300),
    ] == [
        False,
        True,
        False,
        True,
    ]


class Brief(ColourEncoder):
    """`colour` that reads five words."""

    def is_cut(self, text: str) -> bool:
        return len(text.split()) > 5


def test_a_text_that_is_cut_is_said_once(indexed: Path, remarks: list[str]) -> None:
    with Collection.open(indexed, encoder=Brief()) as found:
        found.search("a red dog on grass")
        assert remarks == []
        found.search("a red dog on the green grass")
        found.label(["a blue cat in the red house", "red"])
        assert remarks == [
            (
                "colour reads only the beginning of what is too long for it: 'a red dog on the "
                "green "
                "grass'"
            )
        ]
