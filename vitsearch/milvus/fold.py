"""A text without its case and without any character that a filter would have to escape, for ``like`` in Milvus."""

import re
from collections.abc import Mapping
from functools import cache

CASED = range(0x20000)  # every character that has a case lies below
# a pattern's marks, quotes, and what ends a line: they take the places of capitals, which no folded text holds
_MARKS = [*"%_\\\"'", *map(chr, range(0x20)), *map(chr, range(0x7F, 0xA0)), "\u2028", "\u2029"]
_CAPITALS = "ABCDEFGHIJKLMNOPQRSTUVWXYZÀÁÂÃÄÅÆÇÈÉÊËÌÍÎÏÐÑÒÓÔÕÖØÙÚÛÜÝÞΑΒΓΔΕΖΗΘΙΚΛΜΝΞΟΠΡΣΤΥΦΧΨΩ"


def folded(text: str) -> str:
    """Return a text with one character for each of its own, the same for two texts where ``re.IGNORECASE`` takes them for equal.

    No ``%``, ``_``, backslash, quote or control character is left, so that neither a literal nor a pattern of it needs an escape, which
    servers and Milvus Lite read in different ways.
    """
    return text.translate(_table())


@cache
def _table() -> Mapping[int, str]:
    marks = {ord(mark): capital for mark, capital in zip(_MARKS, _CAPITALS, strict=False)}
    return _cases() | marks


def _cases() -> dict[int, str]:
    """Return the character that stands for each one that has other cases, the first of the small letters that are alike."""
    alike: dict[str, list[str]] = {}
    for char in map(chr, CASED):
        small = char.lower()[0]
        if small == char and char.upper() != char:
            alike.setdefault(char.upper(), []).append(char)
    first = {other: letters[0] for letters in alike.values() for other in letters[1:] if re.fullmatch(letters[0], other, re.IGNORECASE)}
    found = {ord(other): letter for other, letter in first.items()}
    for char in map(chr, CASED):
        small = char.lower()[0]
        if small != char:
            found[ord(char)] = first.get(small, small)
    return found
