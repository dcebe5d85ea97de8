"""The text that stands in a photo: its words with their places, and how words are looked up."""

import re
import struct
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

MAX_LENGTH = 20_000  # characters of a photo's text
SCALE = 65_535  # of a place: the right or the lower edge of the picture
_BOX = struct.Struct("<4H")
_WORDS = re.compile(r"\w+")

Box = tuple[int, int, int, int]  # left, top, right, bottom of an upright picture, 0 to SCALE


@dataclass(frozen=True, slots=True)
class PhotoText:
    """The text in a photo: lines of words, and for each word (`str.split`) its place.

    Raises ValueError where there are not as many places as words.
    """

    text: str = ""
    places: tuple[Box, ...] = ()

    def __post_init__(self) -> None:
        if len(self.text.split()) != len(self.places):
            raise ValueError("a text with another number of places than words")

    def packed(self) -> bytes:
        """Return the places as bytes, 8 for each word."""
        return b"".join(_BOX.pack(*box) for box in self.places)

    @classmethod
    def unpacked(cls, text: str, places: bytes) -> "PhotoText":
        """Return a text with the places that `packed` wrote; raises ValueError."""
        try:
            return cls(text, tuple(_BOX.iter_unpack(places)))
        except struct.error as error:
            raise ValueError(str(error)) from error

    @classmethod
    def of_lines(cls, lines: Sequence[Sequence[tuple[str, Box]]]) -> "PhotoText":
        """Return the text of lines of words; what is beyond `MAX_LENGTH` is left out."""
        texts: list[str] = []
        places: list[Box] = []
        length = 0
        for line in lines:
            words = [(clean, box) for word, box in line if (clean := _clean(word))]
            length += sum(len(word) + 1 for word, _ in words)
            if length > MAX_LENGTH:
                break
            if words:
                texts.append(" ".join(word for word, _ in words))
                places += (box for _, box in words)
        return cls("\n".join(texts), tuple(places))


def _clean(word: str) -> str:
    """Return a word without what is no visible character."""
    composed = unicodedata.normalize("NFC", word)
    return "".join(each for each in composed if unicodedata.category(each)[0] not in "CZ")


def plain_words(text: str) -> list[str]:
    """Return the words of a text as they are compared: letters and digits, without case and
    accents.
    """
    bare = unicodedata.normalize("NFKD", text).casefold()
    return _WORDS.findall("".join(each for each in bare if not unicodedata.combining(each)))


def places_of(text: PhotoText, words: str, *, exact: bool = False) -> list[Box]:
    """Return the places of words that stand one after the other in a text, in its order; the last
    may go on there unless they are ``exact``.
    """
    sought = plain_words(words)
    parts = [(part, n) for n, word in enumerate(text.text.split()) for part in plain_words(word)]
    numbers = {
        n
        for start in _starts([part for part, _ in parts], sought, exact)
        for _, n in parts[start : start + len(sought)]
    }
    return [text.places[n] for n in sorted(numbers)]


def _starts(parts: Sequence[str], sought: Sequence[str], exact: bool) -> Iterator[int]:
    if not sought:
        return
    *first, last = sought
    for start in range(len(parts) - len(first)):
        end = parts[start + len(first)]
        if parts[start : start + len(first)] == first and (
            end == last if exact else end.startswith(last)
        ):
            yield start
