"""Translates the filter of a search into the language of Milvus.

A text column has a composed and casefolded copy in Milvus, in which no character needs an escape:
``like`` compares with that one.
"""

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from functools import cache

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
    alike,
)
from vitsearch.paths import composed
from vitsearch.photos.columns import COLUMNS
from vitsearch.types import Value

EVERY, NONE = "id > 0", "id < 0"
# text column -> its casefolded copy
CASEFOLDED = {name: f"{name}_folded" for name, column in COLUMNS.items() if column.kind == "text"}
CASED = range(0x20000)  # holds every character that has a case

# wildcards, quotes and line ends are stored as capitals, which no casefolded text contains
_MARKS = [*"%_\\\"'", *map(chr, range(0x20)), *map(chr, range(0x7F, 0xA0)), "\u2028", "\u2029"]
_CAPITALS = "ABCDEFGHIJKLMNOPQRSTUVWXYZÀÁÂÃÄÅÆÇÈÉÊËÌÍÎÏÐÑÒÓÔÕÖØÙÚÛÜÝÞΑΒΓΔΕΖΗΘΙΚΛΜΝΞΟΠΡΣΤΥΦΧΨΩ"

Expression = str | bool  # True or False: the test is the same for every row
_MIN_INT, _MAX_INT = -(2**63), 2**63 - 1
_OPPOSITE = {"=": "!=", "!=": "=", "<": ">=", ">=": "<", ">": "<=", "<=": ">"}
_EQUALITY = ("=", "!=")
_ESCAPES = str.maketrans({"\\": "\\\\", '"': '\\"', "\n": "\\n", "\r": "\\r", "\t": "\\t"})


def casefold(text: str) -> str:
    """Return a text of the same length that is equal for texts that ``re.IGNORECASE`` matches.

    No ``%``, ``_``, backslash, quote or control character is left, so that neither a literal nor a
    pattern needs escapes, which servers and Milvus Lite read in different ways.
    """
    return text.translate(_table())


@cache
def _table() -> Mapping[int, str]:
    marks = {ord(mark): capital for mark, capital in zip(_MARKS, _CAPITALS, strict=False)}
    return _cases() | marks


def _cases() -> dict[int, str]:
    """Return for each cased character the first of the small letters that are equal to it."""
    alike: dict[str, list[str]] = {}
    for char in map(chr, CASED):
        small = char.lower()[0]
        if small == char and char.upper() != char:
            alike.setdefault(char.upper(), []).append(char)
    first = {
        other: letters[0]
        for letters in alike.values()
        for other in letters[1:]
        if re.fullmatch(letters[0], other, re.IGNORECASE)
    }
    table = {ord(other): letter for other, letter in first.items()}
    for char in map(chr, CASED):
        small = char.lower()[0]
        if small != char:
            table[ord(char)] = first.get(small, small)
    return table


def milvus_filter(where: Filter) -> str:
    """Return a filter as a Boolean expression of Milvus that leaves the same rows as its SQL.

    Negations are pushed down to the tests, so that null fails each of them, whatever Milvus makes
    of ``not`` and null. Raises QueryError for what Milvus cannot express: the order of a text that
    is not UTF-8, and unknown columns or operators.
    """
    expression = _expression(where, True)
    if isinstance(expression, str):
        return expression
    return EVERY if expression else NONE


def _expression(where: Filter, truth: bool) -> Expression:
    """Return the expression for a condition that must be true, or that must be false."""
    match where:
        case Not(part):
            return _expression(part, not truth)
        case And(parts):
            return _joined([_expression(part, truth) for part in parts], every=truth)
        case Or(parts):
            return _joined([_expression(part, truth) for part in parts], every=not truth)
        case Between(column, low, high):
            return _expression(
                And((Comparison(column, ">=", low), Comparison(column, "<=", high))), truth
            )
        case IsNull(column):
            return _null(column, truth)
        case Comparison(column, sign, value):
            return _compared(column, sign if truth else _OPPOSITE.get(sign, sign), value)
        case In(column, values):
            return _among(column, values, truth)
        case Like(column, pattern):
            return _like(column, pattern, truth)
        case Says(column, words):
            raise QueryError(
                f"Milvus has no index of words for {where}: write {column} like '%{words}%'"
            )
    raise QueryError(f"Milvus cannot be asked this: {where}")


def _joined(parts: Sequence[Expression], *, every: bool) -> Expression:
    """Return the conjunction of the parts, or their disjunction, without the constant ones."""
    if (not every) in parts:
        return not every
    tests = [part for part in parts if isinstance(part, str)]
    if len(tests) < 2:
        return tests[0] if tests else every
    return f"({(' and ' if every else ' or ').join(tests)})"


def _null(column: str, truth: bool) -> Expression:
    if COLUMNS[_known(column)].always:
        return not truth
    return f"{column} is null" if truth else f"{column} is not null"


def _known(column: str) -> str:
    if column not in COLUMNS:
        raise QueryError(f"a filter has no {column!r}: one of {', '.join(COLUMNS)}")
    return column


def _compared(column: str, sign: str, value: Value) -> Expression:
    kind = COLUMNS[_known(column)].kind
    if sign not in _OPPOSITE:
        raise QueryError(f"a filter has no {sign!r}: one of {', '.join(_OPPOSITE)}")
    if kind == "date":
        return _compared_date(column, sign, str(value))
    if kind == "text":
        return _compared_text(column, sign, str(value))
    if isinstance(value, str) or not math.isfinite(value):
        raise QueryError(f"{column} is a number, not {value!r}")
    compare = _compared_integer if COLUMNS[column].integer else _compared_real
    return compare(column, sign, value)


def _compared_date(column: str, sign: str, date: str) -> Expression:
    """Return a comparison with a period; ``~`` sorts after all that may follow its beginning."""
    start, end = _literal(date), _literal(f"{date}~")
    steps = {
        "<": f"{column} < {start}",
        ">=": f"{column} >= {start}",
        "<=": f"{column} < {end}",
        ">": f"{column} >= {end}",
        "=": f"({column} >= {start} and {column} < {end})",
        "!=": f"({column} < {start} or {column} >= {end})",
    }
    return steps[sign]


def _compared_text(column: str, sign: str, text: str) -> Expression:
    if sign in _EQUALITY and (not _is_utf8(text) or len(alike((text,))) > 1):
        return _among(column, (text,), sign == "=")
    if not _is_utf8(text):
        raise QueryError(
            f"Milvus holds UTF-8 only, so that {column} {sign} {text!r} cannot be asked: leave "
            "out that name"
        )
    if sign == "!=":
        return _present(column, f"{column} != {_literal(text)}")
    return f"{column} {'==' if sign == '=' else sign} {_literal(text)}"


def _compared_integer(column: str, sign: str, value: float) -> Expression:
    """Return a comparison of an integer column with any number."""
    down, up = math.floor(value), math.ceil(value)
    if sign in _EQUALITY and down != up:
        return False if sign == "=" else _null(column, False)
    if sign in ("<", "<="):
        return _at_most(column, up - 1 if sign == "<" else down)
    if sign in (">", ">="):
        return _at_least(column, down + 1 if sign == ">" else up)
    if sign == "=" and _at_edge(down):
        return _joined([_at_least(column, down), _at_most(column, down)], every=True)
    if sign == "=":
        return f"{column} == {down}"
    if _at_edge(down):
        return _joined([_at_most(column, down - 1), _at_least(column, down + 1)], every=False)
    return _present(column, f"{column} != {down}")


def _at_edge(number: int) -> bool:
    return not _MIN_INT < number < _MAX_INT


def _at_most(column: str, number: int) -> Expression:
    if number >= _MAX_INT:
        return _null(column, False)
    if number < _MIN_INT:
        return False
    # parsers read -2**63 as the negative of 2**63, which 64 bits do not hold: avoid writing it
    return f"{column} < {_MIN_INT + 1}" if number == _MIN_INT else f"{column} <= {number}"


def _at_least(column: str, number: int) -> Expression:
    if number <= _MIN_INT:
        return _null(column, False)
    return False if number > _MAX_INT else f"{column} >= {number}"


def _compared_real(column: str, sign: str, value: float) -> Expression:
    """Return a comparison of a float column with any number, also one that no float equals."""
    near = float(value)
    if near == value and sign == "!=":
        return _present(column, f"{column} != {near!r}")
    if near == value:
        return f"{column} {'==' if sign == '=' else sign} {near!r}"
    if sign in _EQUALITY:
        return False if sign == "=" else _null(column, False)
    low = near if near < value else math.nextafter(near, -math.inf)
    if sign in ("<", "<="):
        return f"{column} <= {low!r}"
    return f"{column} >= {math.nextafter(low, math.inf)!r}"


def _among(column: str, values: Sequence[Value], truth: bool) -> Expression:
    kind = COLUMNS[_known(column)].kind
    if kind == "date" or (
        kind == "number" and (not COLUMNS[column].integer or any(map(_is_odd, values)))
    ):
        sign = "=" if truth else "!="
        return _joined([_compared(column, sign, value) for value in values], every=not truth)
    if kind == "text":
        literals = [_literal(text) for text in alike(values) if _is_utf8(text)]
    else:
        literals = _integers(values)
    if not literals:
        return False if truth else _null(column, False)
    listed = f"[{', '.join(dict.fromkeys(literals))}]"
    return f"{column} in {listed}" if truth else _present(column, f"{column} not in {listed}")


def _integers(values: Iterable[Value]) -> list[str]:
    return [
        str(int(value))
        for value in values
        if not isinstance(value, str) and value == math.floor(value)
    ]


def _is_odd(value: Value) -> bool:
    return isinstance(value, str) or not math.isfinite(value) or _at_edge(math.floor(value))


def _like(column: str, pattern: str, truth: bool) -> Expression:
    kind = COLUMNS[_known(column)].kind
    if kind == "number":
        raise QueryError(f"{column} is a number, and like is for texts")
    likeness = _pattern(column, pattern, dated=kind == "date")
    if not isinstance(likeness, str):
        return _null(column, False) if likeness == truth else False
    return likeness if truth else _present(column, f"not ({likeness})")


def _pattern(column: str, pattern: str, *, dated: bool) -> Expression:
    """Return a test of a column's casefolded copy, True if every text matches, False if none."""
    pieces: list[str] = []
    for mark in re.findall(r"\\.|.", composed(pattern), re.DOTALL):
        if mark in ("%", "_"):
            if mark != "%" or pieces[-1:] != ["%"]:
                pieces.append(mark)
            continue
        char = mark[-1].upper() if dated else casefold(mark[-1])
        if not _is_utf8(char) or (dated and char not in "0123456789-:T"):
            return False
        pieces.append(char)
    if pieces == ["%"]:
        return True
    sign = "like" if {"%", "_"} & set(pieces) else "=="
    return f'{column if dated else CASEFOLDED[column]} {sign} "{"".join(pieces)}"'


def _present(column: str, test: str) -> str:
    """Return a test that null fails."""
    return test if COLUMNS[column].always else f"({column} is not null and {test})"


def _is_utf8(text: str) -> bool:
    return not any("\ud800" <= char <= "\udfff" for char in text)


def _literal(text: str) -> str:
    return f'"{text.translate(_ESCAPES)}"'
