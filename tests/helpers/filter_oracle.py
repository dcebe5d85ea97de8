"""What a filter says of a photo in plain Python: the naive oracle beside SQLite and Milvus."""

import operator
from collections.abc import Mapping
from unicodedata import normalize

from vitsearch.filters import Filter
from vitsearch.filters.tree import And, Between, Comparison, In, IsNull, Like, Not, Or, like, raw
from vitsearch.photos.columns import COLUMNS
from vitsearch.types import Photo, Value

Row = Mapping[str, Value | None]

_OPERATORS = {
    "=": operator.eq,
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}
_AFTER_ALL = "~"  # sorts after whatever may follow the beginning of an ISO date


def row_of(photo: Photo) -> dict[str, Value | None]:
    """Return all columns of a photo."""
    return {name: column.of(photo) for name, column in COLUMNS.items()}


def matches(tree: Filter, row: Row) -> bool:
    """Return True where a condition holds for a row, as ``WHERE`` does."""
    return truth_of(tree, row) is True


def truth_of(tree: Filter, row: Row) -> bool | None:
    """Return whether a condition holds for a row of all columns, None for neither."""
    match tree:
        case Not(part):
            answer = truth_of(part, row)
            return None if answer is None else not answer
        case And(parts):
            answers = [truth_of(part, row) for part in parts]
            return False if False in answers else None if None in answers else True
        case Or(parts):
            answers = [truth_of(part, row) for part in parts]
            return True if True in answers else None if None in answers else False
        case IsNull(column):
            return row[column] is None
        case Between(column, low, high):
            both = (Comparison(column, ">=", low), Comparison(column, "<=", high))
            return truth_of(And(both), row)
        case In(column, values):
            return truth_of(Or(tuple(Comparison(column, "=", value) for value in values)), row)
        case Like(column, pattern):
            text = row[column]
            return None if text is None else like(raw(str(text)), raw(pattern))
        case Comparison(column, sign, value):
            stored = row[column]
            return None if stored is None else _compares(column, stored, sign, value)
    raise TypeError(tree)


def _compares(column: str, stored: Value, sign: str, value: Value) -> bool:
    if sign == "!=":
        return not _compares(column, stored, "=", value)
    if COLUMNS[column].kind == "text" and sign == "=":
        return _is_alike(str(stored), str(value))
    if COLUMNS[column].kind != "date":
        return bool(_OPERATORS[sign](_plain(stored), _plain(value)))
    start, end, moment = str(value), f"{value}{_AFTER_ALL}", str(stored)
    return {
        "<": moment < start,
        ">=": moment >= start,
        "<=": moment < end,
        ">": moment >= end,
        "=": start <= moment < end,
    }[sign]


def _is_alike(text: str, value: str) -> bool:
    """Return whether a text is a value, each of whose names may be composed or decomposed."""
    forms = [normalize(form, value).split("/") for form in ("NFC", "NFD")]
    names = text.split("/")
    return text == value or (
        len(names) == len(forms[0])
        and all(name in both for name, both in zip(names, zip(*forms, strict=True), strict=True))
    )


def _plain(value: Value) -> bytes | int | float:
    return raw(value) if isinstance(value, str) else value
