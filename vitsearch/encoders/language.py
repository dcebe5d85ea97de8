"""The language of a text: whether it is another than an encoder reads (the words are in
``language.toml``), and tokenizers that are told it, as NLLB's (Costa-jussà et al. 2022).

There each text bears a mark of its language, the one that is set, or the one that it is probably
in.
"""

import re
import tomllib
import unicodedata
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vitsearch.encoders.base import Encoder, ImageEncoder
from vitsearch.errors import EncoderError

MULTILINGUAL = "open_clip:ViT-B-16-SigLIP2/webli"  # small, and made for many languages
NAMES = {  # in English, of languages that messages name
    "ar": "Arabic",
    "cs": "Czech",
    "da": "Danish",
    "de": "German",
    "el": "Greek",
    "en": "English",
    "es": "Spanish",
    "fi": "Finnish",
    "fr": "French",
    "he": "Hebrew",
    "hi": "Hindi",
    "hu": "Hungarian",
    "id": "Indonesian",
    "it": "Italian",
    "ja": "Japanese",
    "ko": "Korean",
    "nl": "Dutch",
    "no": "Norwegian",
    "pl": "Polish",
    "pt": "Portuguese",
    "ro": "Romanian",
    "ru": "Russian",
    "sv": "Swedish",
    "th": "Thai",
    "tr": "Turkish",
    "uk": "Ukrainian",
    "vi": "Vietnamese",
    "zh": "Chinese",
}
LETTERS = {"en": "abcdefghijklmnopqrstuvwxyz'", "es": "abcdefghijklmnopqrstuvwxyzáéíóúüñ'"}
ENOUGH = 2  # points: one sure word, or two small ones
_READ = 1000  # characters that are looked at: a language shows early
_SHOWN = 60
_WORD = re.compile(r"[^\W\d_]+(?:'[^\W\d_]+)*")
# names have them too, so together they are worth one
_JOINTS = frozenset(
    [
        "de",
        "del",
        "della",
        "di",
        "da",
        "dos",
        "das",
        "du",
        "la",
        "las",
        "le",
        "les",
        "el",
        "los",
        "van",
        "von",
        "der",
    ]
)
_ELIDED = re.compile(r"\b(?:l|d|qu|dell|all|nell|sull|dall|un)'(?=\w{3})", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Words:
    """What is known about words: the languages of the sure and of the small ones, and what English
    borrows and has.
    """

    sure: Mapping[str, list[str]]
    small: Mapping[str, list[str]]
    phrases: re.Pattern[str]
    accented: frozenset[str]
    english: frozenset[str]


def readable(text: str) -> str:
    """Return a text whose bytes that were not UTF-8 (surrogates, from a terminal of another
    encoding) are question marks.
    """
    return text.encode("utf-8", "replace").decode("utf-8")


def readable_texts(texts: Sequence[str]) -> list[str]:
    """Return each text `readable`; raises EncoderError for one text, which is not its letters."""
    if isinstance(texts, str):
        raise EncoderError(f"texts are a list of them, such as [{texts[:50]!r}]")
    return [readable(text) for text in texts]


def unread_notes(texts: Sequence[str], encoder: ImageEncoder) -> dict[str, str]:
    """Return what the user of an encoder should know about these texts: notes under "language" and
    "length"; none where all is well.

    They come from the encoder's ``languages`` and ``is_cut``.
    """
    if not isinstance(encoder, Encoder):
        return {}
    notes = {}
    if note := language_note(texts, encoder.name, encoder.languages):
        notes["language"] = note
    cut = [_shortened(text) for text in texts if encoder.is_cut(text)]
    if cut:
        more = f" and {len(cut) - 3} more" if len(cut) > 3 else ""
        notes["length"] = (
            f"{encoder.name} reads only the beginning of what is too long for it: "
            f"{', '.join(map(repr, cut[:3]))}{more}"
        )
    return notes


def language_note(
    texts: Iterable[str], encoder: str, languages: tuple[str, ...] = ("en",)
) -> str | None:
    """Return one line about the first text in another language than those, for the user of an
    encoder that knows only these, or None; none are all.
    """
    foreign = next((text for text in texts if languages and is_foreign(text, languages)), None)
    if foreign is None:
        return None
    known = " and ".join(NAMES[code] for code in languages)
    return (
        f"{_shortened(foreign)!r} looks like another language than {known}, and {encoder} knows "
        f"{known} only: index with a multilingual model, such as --encoder {MULTILINGUAL}"
    )


def _shortened(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= _SHOWN else f"{line[:_SHOWN].rstrip()}..."


def is_foreign(text: str, languages: tuple[str, ...] = ("en",)) -> bool:
    """Return whether a text is very probably in another language than these, English among them.

    Letters of another script than Latin decide it. In Latin script words do: one that none of them
    has, two small ones of one language, or accents that they do not write. Names and what English
    borrows do not count, and in doubt a text is none of another language.
    """
    text = unicodedata.normalize("NFC", text[:_READ])
    if not text.isascii() and _other_script(text):
        return True
    points = _points(text, languages)
    return points >= ENOUGH and _points(_without_borrowed(text), languages) >= ENOUGH


# the first that a text has letters of: Japanese mixes its letters with Chinese ones
_SCRIPTS = {
    "HIRAGANA": "ja",
    "KATAKANA": "ja",
    "HANGUL": "ko",
    "CJK": "zh",
    "CYRILLIC": "ru",
    "GREEK": "el",
    "ARABIC": "ar",
    "HEBREW": "he",
    "DEVANAGARI": "hi",
    "BENGALI": "bn",
    "TAMIL": "ta",
    "TELUGU": "te",
    "THAI": "th",
    "GEORGIAN": "ka",
    "ARMENIAN": "hy",
}
_LETTERS_OF = {"uk": "іїєґ", "fa": "پچژگ"}  # among languages of one script


def likeliest_language(text: str) -> str | None:
    """Return the ISO 639 code of the language that a text is probably in, by its letters and by the
    words of ``language.toml``; None where nothing tells, as in English.
    """
    text = unicodedata.normalize("NFC", text[:_READ]).lower()
    scripts = {unicodedata.name(char, "").partition(" ")[0] for char in text if char.isalpha()}
    for script, language in _SCRIPTS.items():
        if script in scripts:
            others = (other for other, letters in _LETTERS_OF.items() if set(letters) & set(text))
            alike = {"CYRILLIC": "uk", "ARABIC": "fa"}.get(script)
            return next((other for other in others if other == alike), language)
    known, points = _words(), dict[str, int]()
    words = dict.fromkeys(_split(_without_borrowed(text)))
    for word in words:
        worth, languages = (2, known.sure[word]) if word in known.sure else (1, [])
        for language in languages or known.small.get(word, []):
            points[language] = points.get(language, 0) + worth
    best = max(points, key=lambda language: points[language], default=None)
    english = sum(word in known.english for word in words)
    return best if best and points[best] >= ENOUGH and points[best] > english else None


def _other_script(text: str) -> bool:
    """Return whether there are letters of another script: any but Greek ones, which formulas use,
    or half of all.
    """
    letters = [
        char
        for char in unicodedata.normalize("NFKC", text)
        if char.isalpha() and unicodedata.category(char) != "Lm"
    ]
    other = [
        name
        for name in (unicodedata.name(char, "") for char in letters)
        if not name.startswith("LATIN ")
    ]
    return any(not name.startswith(("GREEK ", "MICRO ")) for name in other) or (
        bool(other) and 2 * len(other) >= len(letters)
    )


def _points(text: str, read: tuple[str, ...]) -> int:
    """Return how much speaks for the likeliest other language, less what speaks for those read."""
    known = _words()
    words = list(dict.fromkeys(_split(text)))  # a word counts once
    later = [word for word in words[1:] if len(word) > 3]
    title = bool(later) and all(
        word != word.lower() for word in later
    )  # then the first word is a name too
    points, anywhere = dict[str, int](), 0
    for position, word in enumerate(words):
        low = word.lower()
        name = word != low and (title or position > 0)
        if low in known.accented:
            continue
        worth, languages = (
            (2, known.sure[low]) if low in known.sure else (1, known.small.get(low, []))
        )
        if shared := set(read).intersection(languages):
            points[min(shared)] = points.get(min(shared), 0) + worth
            continue
        if not languages and _is_accented(low) and not set(low) <= _letters(read):
            anywhere += 1 if word != low else 2
        if low in _JOINTS and (
            _before_name(words, position) or _JOINTS.intersection(words[:position])
        ):
            continue
        for language in languages:
            if (
                not name or language == "de"
            ):  # a name tells nothing, but German writes its nouns like names
                points[language] = points.get(language, 0) + worth
    for_read = sum(points.pop(language, 0) for language in read)
    english = sum(word in known.english for word in words)
    return anywhere + max(points.values(), default=0) - for_read - english


@cache
def _letters(read: tuple[str, ...]) -> frozenset[str]:
    """Return the letters with which these languages write."""
    return frozenset("".join(LETTERS[language] for language in read))


def _split(text: str) -> list[str]:
    """Return the words of a text as they are written, without what is elided."""
    text = text.replace("’", "'")
    return _WORD.findall(
        _ELIDED.sub(" ", text.lower() if text.isupper() else text)
    )  # where all are capitals they say nothing


def _without_borrowed(text: str) -> str:
    """Return a text without the phrases that English takes from elsewhere."""
    casefold = _without_accents(text).replace("’", "'").lower()
    if len(casefold) == len(text):
        for match in _words().phrases.finditer(casefold):
            text = text[: match.start()] + " " * len(match[0]) + text[match.end() :]
    return text


def _before_name(words: list[str], position: int) -> bool:
    return position + 1 < len(words) and words[position + 1][0].isupper()


def _is_accented(word: str) -> bool:
    """Return whether a word has Latin letters that plain English does not write; ligatures and wide
    forms are plain letters.
    """
    if word.isascii():
        return False
    odd = [char for char in unicodedata.normalize("NFKC", word) if not char.isascii()]
    return any(unicodedata.name(char, "").startswith("LATIN ") for char in odd)


def _without_accents(text: str) -> str:
    return "".join(
        char for char in unicodedata.normalize("NFD", text) if not unicodedata.combining(char)
    )


@cache
def _words() -> Words:
    data = tomllib.loads(files("vitsearch").joinpath("language.toml").read_text(encoding="utf-8"))
    english = data["english"]
    phrases = "|".join(
        re.escape(" ".join(phrase.split())) for phrase in english["phrases"].split(";")
    )
    return Words(
        sure=_by_word(data["sure"]),
        small=_by_word(data["small"]),
        phrases=re.compile(rf"\b(?:{phrases})\b"),
        accented=frozenset(english["accented"].split()),
        english=frozenset(english["words"].split()),
    )


def _by_word(table: Mapping[str, str]) -> dict[str, list[str]]:
    """Return the languages of each word."""
    turned: dict[str, list[str]] = {}
    for language, words in table.items():
        for word in set(words.split()):
            turned.setdefault(word, []).append(language)
    return turned


# -- Tokenizers that are told the language ---------------------------------------------------------


DEFAULT = ""  # among marks: the one that the tokenizer sets by itself
_FLORES = re.compile(r"[a-z]{3}_[A-Z][a-z]{3}")
_language: ContextVar[str | None] = ContextVar("language", default=None)


@contextmanager
def texts_in(language: str) -> Iterator[None]:
    """Say in which language texts are (ISO 639-1, as "de", or FLORES-200, as "deu_Latn"), for
    models that are told it; without, it is guessed for each text.
    """
    before = _language.set(language)
    try:
        yield
    finally:
        _language.reset(before)


def set_language() -> str | None:
    """Return the language that `texts_in` says, None where it does not."""
    return _language.get()


def language_marks(tokenizer: Any) -> dict[str, int] | None:
    """Return the tokens that mark a language to a tokenizer of transformers, by ISO 639-1 and
    FLORES-200 codes and `DEFAULT`; None for a tokenizer that is not told one.
    """
    if not callable(getattr(tokenizer, "set_src_lang_special_tokens", None)):
        return None
    vocabulary: Mapping[str, int] = tokenizer.get_vocab()
    marks = {name: number for name, number in vocabulary.items() if _FLORES.fullmatch(name)}
    marks |= {code: marks[name] for code, name in _flores().items() if name in marks}
    return {**marks, DEFAULT: int(tokenizer.cur_lang_code)}


def mark_languages(ids: NDArray[np.int64], texts: Sequence[str], marks: Mapping[str, int]) -> None:
    """Put the mark of each text's language into its row of tokens ``(n, t)``, in place of the
    default; raises EncoderError for a language that was set and has none.
    """
    for row, text in zip(ids, texts, strict=True):
        language = set_language()
        if language is not None and language not in marks:
            known = ", ".join(sorted(code for code in marks if len(code) == 2))
            raise EncoderError(
                f"the model knows no language {language!r}: it knows {known}, and others by the "
                "codes of FLORES-200, such as yue_Hant"
            )
        language = language or likeliest_language(text) or DEFAULT
        row[row == marks[DEFAULT]] = marks.get(language, marks[DEFAULT])


@cache
def _flores() -> dict[str, str]:
    text = files("vitsearch").joinpath("language.toml").read_text(encoding="utf-8")
    pairs = tomllib.loads(text)["flores"]["codes"].replace("\n", " ").split(",")
    return dict(pair.split() for pair in pairs)
