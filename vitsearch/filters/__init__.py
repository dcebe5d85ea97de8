r"""Filters such as ``year >= 2019 and path like 'italy/%'``, as a syntax tree and as SQL.

The columns are those of `vitsearch.photos.columns`: texts, numbers, and dates (ISO 8601 to the
second, or as far as it is known).

Tests: ``= == != <> < <= > >=``, ``like``, ``contains``, ``in (a, b)``, ``between a and b`` (both
included), ``is null``, and ``not like``, ``not contains``, ``not in``, ``not between``, ``is not
null``; ``not``, ``and``, ``or`` (binding in this order) and parentheses join them. Keywords and
columns may be in any case. A text is in ``'...'`` or ``"..."``, with that quote doubled inside; a
number may be quoted too.

- A date is a quoted text of any precision, ``'2019'`` to ``'2019-07-14T18:30:00'``, and means
  that period: ``taken_at = '2019-07'`` is in July, ``> '2019-07'`` after it, ``<=
  '2019-07'`` up to its end.
- ``keywords contains 'wedding'`` is ``keywords like '%wedding%'``, and takes ``%``, ``_`` and ``\``
  as they are.
- ``text contains 'total amount'`` is for the text in photos (`vitsearch index --ocr`): words that
  stand one after the other, whatever their case and accents, of which the last may go on
  (``amounts``); with ``contains word 'total'`` it may not. Chinese, Japanese and Korean texts, and
  signs, are found anywhere, as in other columns.
- Texts are equal by their characters, each name of a path composed or decomposed (NFC, NFD), as
  Macs write them; they are in order by their UTF-8 bytes.
- In ``like``, ``%`` stands for any characters, ``_`` for any single one, and ``\`` goes before one
  that stands for itself. It takes composed and decomposed letters for the same, and ignores case
  in every alphabet: whoever writes ``camera like
  '%nikon%'`` need not know the maker's spelling. SQLite's own LIKE ignores it in ASCII only, hence
  `prepare`.
- What a photo's file does not contain is null. As in SQL a test of null is neither true nor
  false, and so is its ``not``: photos without a date match neither ``year = 2019`` nor ``not year =
  2019``, but ``year is null``.
"""

import difflib
import math
import re
import unicodedata
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import TypeVar

from vitsearch.errors import QueryError
from vitsearch.filters.tree import (
    And,
    Between,
    Comparison,
    Filter,
    In,
    IsNull,
    Like,
    Not,
    Or,
    Says,
    prepare,
    raw,
)
from vitsearch.paths import normal_forms
from vitsearch.photos.columns import COLUMNS
from vitsearch.photos.text import plain_words
from vitsearch.types import Value

__all__ = ["Filter", "filter_all", "parse_filter", "prepare"]


# -- The parser ------------------------------------------------------------------------------------


Read = TypeVar("Read", str, Value)
MAX_LENGTH, MAX_DEPTH, MAX_VALUES = 10_000, 50, 500

_KEYWORDS = ("and", "or", "not", "like", "contains", "in", "between", "is", "null")
_SIGNS = {"=": "=", "==": "=", "!=": "!=", "<>": "!=", "<": "<", "<=": "<=", ">": ">", ">=": ">="}
_NUMBER = re.compile(r"[+-]?(?:\d+\.?\d*|\.\d+)(?:e[+-]?\d+)?", re.ASCII | re.IGNORECASE)
_DATE = re.compile(
    r"(\d{4})(?:-(\d\d)(?:-(\d\d)(?:[T ](\d\d)(?::(\d\d)(?::(\d\d))?)?)?)?)?", re.ASCII
)
_TOKEN = re.compile(
    rf"(?P<space>\s+)|(?P<number>{_NUMBER.pattern}(?![\w.]))|(?P<word>[a-z_]\w*)"
    r"|(?P<sign><=|>=|<>|!=|==|[=<>(),])"
    r"""|(?P<text>'(?:[^']|'')*+'|"(?:[^"]|"")*+")""",
    re.ASCII | re.IGNORECASE,
)


def parse_filter(text: str) -> Filter:
    """Return the tree of a filter such as ``year >= 2019 and path like 'italy/%'``.

    `vitsearch.filters` describes the grammar. Raises QueryError with the position of the error, and
    for more than 10,000 characters, 50 levels of ``not`` and parentheses, or 500 values.
    """
    if len(text) > MAX_LENGTH:
        raise QueryError(
            f"the filter has {len(text):,} characters, more than {MAX_LENGTH:,}: make it shorter"
        )
    if not text.strip():
        raise QueryError("the filter is empty: write it as year >= 2019 and path like 'italy/%'")
    return _Parser(_tokens(text)).parse()


def as_filter(where: str | Filter | None) -> Filter | None:
    """Return a filter that may be written as text; raises QueryError."""
    if isinstance(where, str):
        return parse_filter(where)
    if where is None or isinstance(where, Filter):
        return where
    raise QueryError(f"a filter is a text or what parse_filter returns, not {where!r}")


def filter_all(
    where: str | None,
    *,
    after: str | None = None,
    before: str | None = None,
    under: str | None = None,
) -> Filter | None:
    """Return the conjunction of a filter and the shorthands, None if there are none.

    ``after`` and ``before`` are dates of any precision (``'2019'``, ``'2019-07-14T18:30'``) for
    ``taken_at``: from the beginning of ``after`` up to, but without, the beginning of ``before``;
    photos without a date match neither. ``under`` is a folder relative to the root, with ``/``, for
    all photos in it and below, its name composed or decomposed; ``.`` is the root. Raises
    QueryError.
    """
    parts: list[Filter] = [] if where is None else [parse_filter(where)]
    if after is not None:
        parts.append(Comparison("taken_at", ">=", _date("after", after)))
    if before is not None:
        parts.append(Comparison("taken_at", "<", _date("before", before)))
    if under is not None and (folder := _folder(under)):
        # "0" is the character after "/": all between them begins with the folder and its slash
        folders = [
            And((Comparison("path", ">=", f"{form}/"), Comparison("path", "<", f"{form}0")))
            for form in normal_forms(folder)
        ]
        parts.append(Or(tuple(folders)) if len(folders) > 1 else folders[0])
    if not parts:
        return None
    return And(tuple(parts)) if len(parts) > 1 else parts[0]


def _folder(under: str) -> str:
    parts = [part for part in under.split("/") if part not in ("", ".")]
    if under.startswith("/") or ".." in parts or not under:
        raise QueryError(
            f"under is a folder in the photo folder, such as italy/rome, not {_shown(under)}"
        )
    return _text("under", "/".join(parts))


@dataclass(frozen=True, slots=True)
class _Token:
    kind: str
    text: str
    position: int

    def is_(self, *words: str) -> bool:
        return self.kind in ("word", "sign") and self.text.lower() in words


def _tokens(text: str) -> list[_Token]:
    tokens: list[_Token] = []
    position = 0
    while position < len(text):
        match = _TOKEN.match(text, position)
        if match is None:
            raise _error(position, _unexpected(text[position]))
        if match.lastgroup != "space":
            tokens.append(_Token(str(match.lastgroup), match[0], position))
        position = match.end()
    return [*tokens, _Token("end", "", len(text))]


def _unexpected(character: str) -> str:
    if character in "'\"":
        return (
            f"the text that begins here has no {character} at its end (a {character} inside is "
            "written twice)"
        )
    if character in "‘’“”„«»`":
        return f"{character} is not a quote here: write a text as '...' or \"...\""
    return f"{character!r} means nothing here: a text goes in quotes, as in path like 'italy/%'"


class _Parser:
    """Reads tokens from left to right."""

    def __init__(self, tokens: list[_Token]) -> None:
        self._tokens = tokens
        self._next = 0
        self._depth = 0
        self._values = 0

    @property
    def _token(self) -> _Token:
        return self._tokens[self._next]

    def parse(self) -> Filter:
        condition = self._or()
        if self._token.kind != "end":
            raise self._expected("and, or, or the end")
        return condition

    def _or(self) -> Filter:
        return self._chain("or", self._and, Or)

    def _and(self) -> Filter:
        return self._chain("and", self._not, And)

    def _chain(self, word: str, read: Callable[[], Filter], kind: type[And] | type[Or]) -> Filter:
        parts = [read()]
        while self._accept(word):
            parts.append(read())
        return kind(tuple(parts)) if len(parts) > 1 else parts[0]

    def _not(self) -> Filter:
        if self._accept("not"):
            return Not(self._nested(self._not))
        if self._accept("("):
            condition = self._nested(self._or)
            self._expect(")", "and, or, or )")
            return condition
        return self._test()

    def _nested(self, read: Callable[[], Filter]) -> Filter:
        self._depth += 1
        if self._depth > MAX_DEPTH:
            raise _error(
                self._tokens[self._next - 1].position,
                f"parentheses and not are nested more than {MAX_DEPTH} deep: write it flatter",
            )
        condition = read()
        self._depth -= 1
        return condition

    def _test(self) -> Filter:
        column = self._column()
        if sign := next((sign for sign in _SIGNS if self._accept(sign)), None):
            return Comparison(column, _SIGNS[sign], self._value(column))
        if self._accept("is"):
            return self._null(column)
        negated = self._accept("not")
        if self._accept("like"):
            test = self._like(column)
        elif self._accept("contains"):
            test = self._contains(column)
        elif self._accept("in"):
            test = self._in(column)
        elif self._accept("between"):
            test = self._between(column)
        elif negated:
            raise self._expected("like, contains, in or between")
        else:
            comparisons = "such as =, <, like, contains, in, between or is"
            raise self._expected(f"a comparison after {column}, {comparisons}")
        return Not(test) if negated else test

    def _column(self) -> str:
        token = self._token
        name = token.text.lower()
        if token.kind != "word" or name in _KEYWORDS:
            raise self._expected(f"a column ({', '.join(COLUMNS)})")
        if name not in COLUMNS:
            near = difflib.get_close_matches(name[:40], COLUMNS)
            hint = f" (did you mean {' or '.join(near)}?)" if near else ""
            raise _error(
                token.position,
                f"there is no column {_shown(token.text)}{hint}; the columns are "
                f"{', '.join(COLUMNS)}",
            )
        self._next += 1
        return name

    def _null(self, column: str) -> Filter:
        negated = self._accept("not")
        self._expect("null", "null" if negated else "null or not null")
        self._count()
        return Not(IsNull(column)) if negated else IsNull(column)

    def _like(self, column: str) -> Filter:
        token = self._token
        if token.kind != "text":
            raise self._expected("a pattern in quotes, such as 'italy/%'")
        if COLUMNS[column].kind == "number":
            raise _error(
                token.position,
                f"{column} is a number, and like is for texts: write such "
                f"as {column} between 1 and 9",
            )
        pattern = self._read(lambda: _text(column, _unquoted(token.text)))
        if len(pattern) - len(pattern.rstrip("\\")) & 1:
            raise _error(
                token.position,
                r"the pattern ends with a lone \: write \\ for a backslash, \% for a percent sign",
            )
        return Like(column, pattern)

    def _contains(self, column: str) -> Filter:
        """Read ``contains 'red'``, which means ``like '%red%'`` without its wildcards; of the text
        in photos words.
        """
        exact = COLUMNS[column].apart and self._accept("word")
        token = self._token
        if token.kind != "text" or COLUMNS[column].kind != "text":
            raise self._expected(f"a text in quotes, of a column of texts, after {column} contains")
        part = self._read(lambda: _text(column, _unquoted(token.text)))
        if COLUMNS[column].apart and (exact or _are_words(part)):
            return Says(column, part, exact)
        return Like(column, "%" + re.sub(r"([%_\\])", r"\\\1", part) + "%")

    def _in(self, column: str) -> Filter:
        self._expect("(", "( and the values")
        values = [self._value(column)]
        while self._accept(","):
            values.append(self._value(column))
        self._expect(")", ", or )")
        return In(column, tuple(values))

    def _between(self, column: str) -> Filter:
        low = self._value(column)
        self._expect("and", "and with the upper end")
        return Between(column, low, self._value(column))

    def _value(self, column: str) -> Value:
        token = self._token
        if token.is_("null"):
            raise _error(token.position, f"nothing compares with null: write {column} is null")
        if token.kind not in ("number", "text"):
            kind = {
                "number": "a number",
                "text": "a text in quotes",
                "date": "a date in quotes, such as '2019-07',",
            }[COLUMNS[column].kind]
            raise self._expected(f"{kind} for {column}")
        return self._read(lambda: _typed(column, token))

    def _read(self, read: Callable[[], Read]) -> Read:
        token = self._token
        self._count()
        try:
            value = read()
        except QueryError as error:
            raise _error(token.position, str(error)) from None
        self._next += 1
        return value

    def _count(self) -> None:
        self._values += 1
        if self._values > MAX_VALUES:
            raise _error(
                self._token.position,
                f"the filter has more than {MAX_VALUES} values: ask for less at once",
            )

    def _accept(self, word: str) -> bool:
        accepted = self._token.is_(word)
        self._next += accepted
        return accepted

    def _expect(self, word: str, expected: str) -> None:
        if not self._accept(word):
            raise self._expected(expected)

    def _expected(self, expected: str) -> QueryError:
        token = self._token
        actual = "the end" if token.kind == "end" else _shown(token.text)
        return _error(token.position, f"expected {expected}, not {actual}")


def _are_words(text: str) -> bool:
    """Return whether an index of words finds a text: letters or digits of a script that has spaces
    between its words.
    """
    return bool(plain_words(text)) and all(
        unicodedata.east_asian_width(char) not in "WF" for char in text
    )


def _typed(column: str, token: _Token) -> Value:
    """Return the value of a token for a column; raises QueryError if it is of another kind."""
    kind = COLUMNS[column].kind
    body = _unquoted(token.text) if token.kind == "text" else token.text
    if kind == "number":
        return _number(column, body)
    if token.kind == "number":
        raise QueryError(f"{column} is a {kind}, not a number: write {_shown(body, 20)} in quotes")
    return _date(column, body) if kind == "date" else _text(column, body)


def _number(name: str, text: str) -> int | float:
    if not _NUMBER.fullmatch(text):
        raise QueryError(f"{name} is a number, not {_shown(text)}")
    number = float(text)
    if not math.isfinite(number):
        raise QueryError(f"the number {_shown(text)} is too large")
    short = len(text) <= 20 and text.lstrip("+-").isdigit()
    # SQLite's integers have 64 bits
    return int(text) if short and -(2**63) <= int(text) < 2**63 else number


def _date(name: str, text: str) -> str:
    match = _DATE.fullmatch(text)
    try:
        if match is None:
            raise ValueError
        year, month, day = (int(part or 1) for part in match.groups()[:3])
        hour, minute, second = (int(part or 0) for part in match.groups()[3:])
        datetime(year, month, day, hour, minute, second)
    except ValueError:
        raise QueryError(
            f"{name} is a date, such as '2019', '2019-07' or '2019-07-14T18:30', not {_shown(text)}"
        ) from None
    return text.replace(" ", "T")


def _text(name: str, text: str) -> str:
    try:
        raw(text)
    except UnicodeEncodeError:
        raise QueryError(f"{name} is a text, and {_shown(text)} holds half a character") from None
    return text


def _unquoted(text: str) -> str:
    return text[1:-1].replace(text[0] * 2, text[0])


def _shown(text: str, limit: int = 40) -> str:
    return repr(text if len(text) <= limit else f"{text[:limit]}...")


def _error(position: int, problem: str) -> QueryError:
    return QueryError(f"cannot read the filter at character {position + 1}: {problem}")


EVERY = parse_filter("path is not null")  # every photo passes it
