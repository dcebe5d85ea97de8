"""The filter of a search in Milvus' own language, over the same tree as its SQL:
fully, or refused.
"""

import math
import operator
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cache

from vitsearch.errors import QueryError
from vitsearch.filters import Filter
from vitsearch.filters.tree import And, Between, Comparison, In, IsNull, Like, Not, Or
from vitsearch.photos.columns import COLUMNS
from vitsearch.types import Value

# -- A text without its case and without any character that a filter would have to escape ----------

CASED = range(0x20000)  # every character that has a case lies below
# a pattern's marks, quotes, and what ends a line: they take the places of capitals, which no folded
# text holds
_MARKS = [*"%_\\\"'", *map(chr, range(0x20)), *map(chr, range(0x7F, 0xA0)), "\u2028", "\u2029"]
_CAPITALS = "ABCDEFGHIJKLMNOPQRSTUVWXYZÀÁÂÃÄÅÆÇÈÉÊËÌÍÎÏÐÑÒÓÔÕÖØÙÚÛÜÝÞΑΒΓΔΕΖΗΘΙΚΛΜΝΞΟΠΡΣΤΥΦΧΨΩ"


def casefold(text: str) -> str:
    """Return a text with one character for each of its own, the same for two texts where
    ``re.IGNORECASE`` takes them for equal.

    No ``%``, ``_``, backslash, quote or control character is left, so that neither a literal nor a
    pattern of it needs an escape, which servers and Milvus Lite read in different ways.
    """
    return text.translate(_table())


@cache
def _table() -> Mapping[int, str]:
    marks = {ord(mark): capital for mark, capital in zip(_MARKS, _CAPITALS, strict=False)}
    return _cases() | marks


def _cases() -> dict[int, str]:
    """Return the character that stands for each one that has other cases, the first of the small
    letters that are alike.
    """
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
    found = {ord(other): letter for other, letter in first.items()}
    for char in map(chr, CASED):
        small = char.lower()[0]
        if small != char:
            found[ord(char)] = first.get(small, small)
    return found


# -- The filter of a search in Milvus' own language ------------------------------------------------

EVERY, NONE = "id > 0", "id < 0"
# the copy of each text column without its case
FOLDED = {name: f"{name}_folded" for name, column in COLUMNS.items() if column.kind == "text"}

_LEAST, _MOST = -(2**63), 2**63 - 1
_OPPOSITE = {"=": "!=", "!=": "=", "<": ">=", ">=": "<", ">": "<=", "<=": ">"}
_COMPARE: dict[str, Callable[[object, object], bool]] = {"=": operator.eq, "!=": operator.ne}
_ESCAPES = str.maketrans({"\\": "\\\\", '"': '\\"', "\n": "\\n", "\r": "\\r", "\t": "\\t"})

Told = str | bool  # an expression, or what holds for every row or for none


def milvus_filter(where: Filter) -> str:
    """Return a filter as a Boolean expression of Milvus that leaves the same rows as its SQL.

    Negations are pushed down to the tests, so that each is one that null fails, whatever Milvus
    makes of ``not`` and null. Raises QueryError for what it cannot say: the order of a text that is
    no UTF-8, and a tree with columns or operators of its own.
    """
    found = _told(where, True)
    return found if isinstance(found, str) else EVERY if found else NONE


def _told(where: Filter, wanted: bool) -> Told:
    """Return the expression for a condition that is to be true, or to be false."""
    match where:
        case Not(part):
            return _told(part, not wanted)
        case And(parts):
            return _joined([_told(part, wanted) for part in parts], every=wanted)
        case Or(parts):
            return _joined([_told(part, wanted) for part in parts], every=not wanted)
        case Between(column, low, high):
            return _told(
                And((Comparison(column, ">=", low), Comparison(column, "<=", high))), wanted
            )
        case IsNull(column):
            return _null(column, wanted)
        case Comparison(column, sign, value):
            return _compared(column, sign if wanted else _OPPOSITE.get(sign, sign), value)
        case In(column, values):
            return _among(column, values, wanted)
        case Like(column, pattern):
            return _alike(column, pattern, wanted)
    raise QueryError(f"Milvus cannot be asked this: {where}")


def _joined(parts: Sequence[Told], *, every: bool) -> Told:
    """Return all of the parts, or any: those that say the same of each row are left out."""
    if (not every) in parts:
        return not every
    told = [part for part in parts if isinstance(part, str)]
    if len(told) < 2:
        return told[0] if told else every
    return f"({(' and ' if every else ' or ').join(told)})"


def _null(column: str, wanted: bool) -> Told:
    if COLUMNS[_known(column)].always:
        return not wanted
    return f"{column} is null" if wanted else f"{column} is not null"


def _known(column: str) -> str:
    if column not in COLUMNS:
        raise QueryError(f"a filter has no {column!r}: one of {', '.join(COLUMNS)}")
    return column


def _compared(column: str, sign: str, value: Value) -> Told:
    kind = COLUMNS[_known(column)].kind
    if sign not in _OPPOSITE:
        raise QueryError(f"a filter has no {sign!r}: one of {', '.join(_OPPOSITE)}")
    if kind == "date":
        return _dated(column, sign, str(value))
    if kind == "text":
        return _worded(column, sign, str(value))
    if isinstance(value, str) or not math.isfinite(value):
        raise QueryError(f"{column} is a number, not {value!r}")
    return (
        _counted(column, sign, value) if COLUMNS[column].integer else _measured(column, sign, value)
    )


def _dated(column: str, sign: str, date: str) -> Told:
    """Return a comparison with a whole period; ``~`` comes after all that may follow the beginning
    of an ISO date.
    """
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


def _worded(column: str, sign: str, text: str) -> Told:
    if not _is_utf8(text):
        if sign in _COMPARE:  # such a name is in no collection of Milvus
            return False if sign == "=" else _null(column, False)
        raise QueryError(
            f"Milvus holds UTF-8 only, so that {column} {sign} {text!r} cannot be asked: leave "
            "out that name"
        )
    if sign == "!=":
        return _present(column, f"{column} != {_literal(text)}")
    return f"{column} {'==' if sign == '=' else sign} {_literal(text)}"


def _counted(column: str, sign: str, value: float) -> Told:
    """Return a comparison of whole numbers with any number."""
    down, up = math.floor(value), math.ceil(value)
    if sign in _COMPARE and down != up:
        return False if sign == "=" else _null(column, False)
    if sign in ("<", "<="):
        return _at_most(column, up - 1 if sign == "<" else down)
    if sign in (">", ">="):
        return _at_least(column, down + 1 if sign == ">" else up)
    if sign == "=":
        return (
            _joined([_at_least(column, down), _at_most(column, down)], every=True)
            if _at_edge(down)
            else f"{column} == {down}"
        )
    if _at_edge(down):
        return _joined([_at_most(column, down - 1), _at_least(column, down + 1)], every=False)
    return _present(column, f"{column} != {down}")


def _at_edge(number: int) -> bool:
    return not _LEAST < number < _MOST


def _at_most(column: str, number: int) -> Told:
    if number >= _MOST:
        return _null(column, False)
    # the least of 64 bits is written as the negative of a number that 64 bits do not hold: no
    # parser has to read it
    return (
        False
        if number < _LEAST
        else f"{column} < {_LEAST + 1}"
        if number == _LEAST
        else f"{column} <= {number}"
    )


def _at_least(column: str, number: int) -> Told:
    if number <= _LEAST:
        return _null(column, False)
    return False if number > _MOST else f"{column} >= {number}"


def _measured(column: str, sign: str, value: float) -> Told:
    """Return a comparison of real numbers with any number: one between two real ones is neither."""
    near = float(value)
    if near == value:
        return (
            _present(column, f"{column} != {near!r}")
            if sign == "!="
            else f"{column} {'==' if sign == '=' else sign} {near!r}"
        )
    if sign in _COMPARE:
        return False if sign == "=" else _null(column, False)
    low = near if near < value else math.nextafter(near, -math.inf)
    return (
        f"{column} <= {low!r}"
        if sign in ("<", "<=")
        else f"{column} >= {math.nextafter(low, math.inf)!r}"
    )


def _among(column: str, values: Sequence[Value], wanted: bool) -> Told:
    kind = COLUMNS[_known(column)].kind
    if kind == "date" or (
        kind == "number" and (not COLUMNS[column].integer or any(map(_is_odd, values)))
    ):
        return _joined(
            [_compared(column, "=" if wanted else "!=", value) for value in values],
            every=not wanted,
        )
    literals = (
        [_literal(str(value)) for value in values if _is_utf8(str(value))]
        if kind == "text"
        else _numbers(values)
    )
    if not literals:
        return False if wanted else _null(column, False)
    listed = f"[{', '.join(dict.fromkeys(literals))}]"
    return f"{column} in {listed}" if wanted else _present(column, f"{column} not in {listed}")


def _numbers(values: Iterable[Value]) -> list[str]:
    return [
        str(int(value))
        for value in values
        if not isinstance(value, str) and value == math.floor(value)
    ]


def _is_odd(value: Value) -> bool:
    return isinstance(value, str) or not math.isfinite(value) or _at_edge(math.floor(value))


def _alike(column: str, pattern: str, wanted: bool) -> Told:
    kind = COLUMNS[_known(column)].kind
    if kind == "number":
        raise QueryError(f"{column} is a number, and like is for texts")
    likeness = _pattern(column, pattern, dated=kind == "date")
    if not isinstance(likeness, str):
        return _null(column, False) if likeness == wanted else False
    return likeness if wanted else _present(column, f"not ({likeness})")


def _pattern(column: str, pattern: str, *, dated: bool) -> Told:
    """Return a pattern as one for the folded copy of a column, True for one that each text is like,
    False for none.
    """
    pieces: list[str] = []
    for mark in re.findall(r"\\.|.", pattern, re.DOTALL):
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
    return f'{column if dated else FOLDED[column]} {sign} "{"".join(pieces)}"'


def _present(column: str, test: str) -> str:
    """Return a test that null is to fail."""
    return test if COLUMNS[column].always else f"({column} is not null and {test})"


def _is_utf8(text: str) -> bool:
    return not any("\ud800" <= char <= "\udfff" for char in text)


def _literal(text: str) -> str:
    return f'"{text.translate(_ESCAPES)}"'
