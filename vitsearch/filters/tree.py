"""A filter as a frozen syntax tree: its SQL, its columns, and its text."""

import re
import sqlite3
from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache

from vitsearch.errors import QueryError
from vitsearch.paths import composed, normal_forms
from vitsearch.photos.columns import COLUMNS, METADATA, Column
from vitsearch.types import Value

LIKE = "photo_like"
TEXT_INDEX = "photo_text"  # the table of FTS5 over the column `text`
Parameter = bytes | int | float
SQL = tuple[str, tuple[Parameter, ...]]

_OPERATORS = ("=", "<", "<=", ">", ">=")
_AFTER_ALL = "~"  # sorts after whatever may follow the beginning of an ISO date


# -- SQLite ----------------------------------------------------------------------------------------


def prepare(db: sqlite3.Connection) -> None:
    """Give a connection the temporary view ``photo_facts``, with all `COLUMNS`, and ``like``.

    Nothing is written to the file, so that a read-only connection will do; one that has them is
    left alone. Raises sqlite3.Error.
    """
    # a function cannot be given again while rows of the connection are still being read
    if db.execute("SELECT 1 FROM sqlite_temp_schema WHERE name = 'photo_facts'").fetchone():
        return
    if not db.execute("SELECT 1 FROM sqlite_schema WHERE name = ?", (TEXT_INDEX,)).fetchone():
        with suppress(sqlite3.OperationalError):  # no FTS5: only who asks for text is refused
            db.execute(f"CREATE VIRTUAL TABLE temp.{TEXT_INDEX} USING fts5(text)")
    db.create_function(LIKE, 2, like, deterministic=True)
    columns = ", ".join(f"{column.sql or name} AS {name}" for name, column in COLUMNS.items())
    missing = "".join(f", NULL AS {column.name}" for column in missing_columns(db))
    photos = f"(SELECT *{missing} FROM photos)" if missing else "photos"
    db.execute(f"CREATE TEMP VIEW photo_facts AS SELECT id, {columns} FROM {photos}")


def distinct(db: sqlite3.Connection, column: str) -> list[str]:
    """Return the different values of a column of texts, in order, of ``path`` the folders; those
    that are not UTF-8 are left out. Raises sqlite3.Error.
    """
    prepare(db)
    value = COLUMNS[column].name
    if column == "path":  # what is left of the last slash
        value = "rtrim(rtrim(path, replace(path, '/', '')), '/')"
    rows = db.execute(f"SELECT DISTINCT CAST({value} AS TEXT) FROM photo_facts")
    return sorted(row[0] for row in rows if row[0] and row[0].isprintable())


def months(db: sqlite3.Connection, where: "Filter") -> list[tuple[str, int]]:
    """Return the months in which the photos of a filter were taken, as `PhotoStore.months_where`.
    Raises sqlite3.Error.
    """
    prepare(db)
    condition, values = where.sql()
    sql = (
        f"SELECT COALESCE(substr(taken_at, 1, 7), ''), count(*) FROM photo_facts WHERE {condition}"
    )
    return db.execute(f"{sql} GROUP BY 1 ORDER BY 1 DESC", values).fetchall()


def missing_columns(db: sqlite3.Connection, table: str = "photos") -> list[Column]:
    """Return the metadata columns that a table of an older database does not have."""
    stored = {row[1] for row in db.execute(f"PRAGMA table_info({table})")}
    return [column for name, column in METADATA.items() if name not in stored]


def raw(text: str) -> bytes:
    """Return the stored bytes of a text; raises UnicodeEncodeError for half a character."""
    return text.encode("utf-8", "surrogateescape")


def like(text: bytes | None, pattern: bytes) -> bool | None:
    r"""Return whether a text matches a pattern of ``%``, ``_`` and ``\``, in any case, composed or
    decomposed.

    None if there is no text.
    """
    if text is None:
        return None
    name = composed(text.decode("utf-8", "surrogateescape"))
    return _expression(pattern).fullmatch(name) is not None


@lru_cache(maxsize=64)
def _expression(pattern: bytes) -> re.Pattern[str]:
    pieces = [""]
    text = composed(pattern.decode("utf-8", "surrogateescape"))
    for mark in re.findall(r"\\.|.", text, re.DOTALL):
        if mark == "%":
            pieces.append("")
        else:
            pieces[-1] += "." if mark == "_" else re.escape(mark[-1])
    first, *middle = pieces
    last = ".*" + middle.pop() if middle else ""
    # a piece has a fixed length, so its first match is as good as any: atomic groups keep a long
    # pattern from backtracking through them all
    between = "".join(f"(?>.*?{piece})" for piece in middle if piece)
    return re.compile(first + between + last, re.DOTALL | re.IGNORECASE)


# -- The tree --------------------------------------------------------------------------------------


class Filter(ABC):
    """A condition on photos, made by `parse_filter` and `filter_all`.

    Its ``str`` is a text that is parsed to an equal tree.
    """

    __slots__ = ()

    @abstractmethod
    def sql(self) -> SQL:
        """Return an SQL condition over the view ``photo_facts``, and its parameters.

        `prepare` gives a connection that view.
        """

    @abstractmethod
    def __str__(self) -> str: ...

    @abstractmethod
    def columns(self) -> frozenset[str]:
        """Return the names of the columns in the condition."""


class ColumnTest(Filter):
    """A condition on one column."""

    __slots__ = ()
    column: str

    def columns(self) -> frozenset[str]:
        return frozenset({self.column})

    @abstractmethod
    def text(self, no: str = "") -> str:
        """Return the test as text; with ``no="not "`` the text of its opposite."""

    def __str__(self) -> str:
        return self.text()


@dataclass(frozen=True, slots=True)
class Comparison(ColumnTest):
    """A comparison with a value; ``operator`` is one of ``= != < <= > >=``.

    A date means the period that it names, such as a month.
    """

    column: str
    operator: str
    value: Value

    def _steps(self) -> tuple[tuple[str, Value], ...]:
        """Return the comparisons that must all hold (for ``!=``: not all of them).

        They are ranges, which an index over the column could serve.
        """
        sign = _checked("=" if self.operator == "!=" else self.operator, _OPERATORS)
        if COLUMNS[self.column].kind != "date":
            return ((sign, self.value),)
        start, end = str(self.value), f"{self.value}{_AFTER_ALL}"
        steps = {
            "<": (("<", start),),
            ">=": ((">=", start),),
            "<=": (("<", end),),
            ">": ((">=", end),),
            "=": ((">=", start), ("<", end)),
        }
        return steps[sign]

    def sql(self) -> SQL:
        column, steps = _checked(self.column, COLUMNS), self._steps()
        if self.operator in ("=", "!=") and COLUMNS[column].kind == "text":
            condition, parameters = In(column, (self.value,)).sql()
            return ("NOT " if self.operator == "!=" else "") + condition, parameters
        tests = [f"{column} {sign} {_mark(value)}" for sign, value in steps]
        condition = f"({' AND '.join(tests)})"
        if self.operator == "!=":
            condition = f"NOT {condition}"
        return condition, tuple(_parameter(value) for _, value in steps)

    def text(self, no: str = "") -> str:
        return f"{no}{self.column} {self.operator} {_literal(self.value)}"


@dataclass(frozen=True, slots=True)
class Between(ColumnTest):
    """A column from ``low`` to ``high``, both included."""

    column: str
    low: Value
    high: Value

    def _both(self) -> "And":
        low = Comparison(self.column, ">=", self.low)
        return And((low, Comparison(self.column, "<=", self.high)))

    def sql(self) -> SQL:
        return self._both().sql()

    def text(self, no: str = "") -> str:
        return f"{self.column} {no}between {_literal(self.low)} and {_literal(self.high)}"


@dataclass(frozen=True, slots=True)
class In(ColumnTest):
    """A column equal to one of one or more values."""

    column: str
    values: tuple[Value, ...]

    def _any(self) -> "Or":
        return Or(tuple(Comparison(self.column, "=", value) for value in self.values))

    def sql(self) -> SQL:
        kind = COLUMNS[self.column].kind
        if kind == "date":
            return self._any().sql()
        values = alike(self.values) if kind == "text" else self.values
        marks = ", ".join(map(_mark, values))
        return f"{_checked(self.column, COLUMNS)} IN ({marks})", tuple(map(_parameter, values))

    def text(self, no: str = "") -> str:
        return f"{self.column} {no}in ({', '.join(map(_literal, self.values))})"


@dataclass(frozen=True, slots=True)
class Like(ColumnTest):
    """A text or a date that matches a pattern of ``%`` and ``_``, in any case."""

    column: str
    pattern: str

    def sql(self) -> SQL:
        return f"{LIKE}(CAST({_checked(self.column, COLUMNS)} AS BLOB), ?)", (raw(self.pattern),)

    def text(self, no: str = "") -> str:
        return f"{self.column} {no}like {_literal(self.pattern)}"


@dataclass(frozen=True, slots=True)
class Says(ColumnTest):
    """The text in a photo with words one after the other, whatever their case and accents; the
    last may go on, unless they are ``exact``.
    """

    column: str
    words: str
    exact: bool = False

    def sql(self) -> SQL:
        column = _checked(self.column, [name for name in COLUMNS if COLUMNS[name].apart])
        says = f"id IN (SELECT rowid FROM {TEXT_INDEX} WHERE {TEXT_INDEX} MATCH ?)"
        phrase = '"' + self.words.replace('"', '""') + '"'
        return (
            f"CASE WHEN {column} IS NULL THEN NULL ELSE {says} END",
            (raw(phrase if self.exact else f"{phrase} *"),),
        )

    def text(self, no: str = "") -> str:
        word = "word " if self.exact else ""
        return f"{self.column} {no}contains {word}{_literal(self.words)}"


@dataclass(frozen=True, slots=True)
class IsNull(ColumnTest):
    """A column without a value; the only test that null passes."""

    column: str

    def sql(self) -> SQL:
        return f"{_checked(self.column, COLUMNS)} IS NULL", ()

    def text(self, no: str = "") -> str:
        return f"{self.column} is {no}null"


@dataclass(frozen=True, slots=True)
class Not(Filter):
    """The opposite of a condition; null if the condition is null."""

    part: Filter

    def sql(self) -> SQL:
        condition, values = self.part.sql()
        return f"NOT {condition}", values

    def columns(self) -> frozenset[str]:
        return self.part.columns()

    def __str__(self) -> str:
        if isinstance(self.part, ColumnTest):
            return self.part.text("not ")
        return f"not {_inner(self.part)}"


@dataclass(frozen=True, slots=True)
class And(Filter):
    """All of two or more conditions."""

    parts: tuple[Filter, ...]

    def sql(self) -> SQL:
        return _joined(" AND ", self.parts)

    def columns(self) -> frozenset[str]:
        return frozenset[str]().union(*(part.columns() for part in self.parts))

    def __str__(self) -> str:
        return " and ".join(map(_inner, self.parts))


@dataclass(frozen=True, slots=True)
class Or(Filter):
    """At least one of two or more conditions."""

    parts: tuple[Filter, ...]

    def sql(self) -> SQL:
        return _joined(" OR ", self.parts)

    def columns(self) -> frozenset[str]:
        return frozenset[str]().union(*(part.columns() for part in self.parts))

    def __str__(self) -> str:
        return " or ".join(map(_inner, self.parts))


def says_in(where: Filter) -> list[Says]:
    """Return what a filter asks to stand in photos as text."""
    if isinstance(where, And | Or):
        return [each for part in where.parts for each in says_in(part)]
    return [where] if isinstance(where, Says) else []


def alike(values: Iterable[Value]) -> tuple[str, ...]:
    """Return the texts that are equal to one of these for a filter: composed or decomposed."""
    return tuple(dict.fromkeys(form for value in values for form in normal_forms(str(value))))


def _joined(word: str, parts: Sequence[Filter]) -> SQL:
    # SQLite's parser has a stack of 100: with the deepest part first, a level of nesting takes one
    tests = [part.sql() for part in sorted(parts, key=_depth, reverse=True)]
    parameters = tuple(value for _, values in tests for value in values)
    return f"({word.join(condition for condition, _ in tests)})", parameters


def _depth(part: Filter) -> int:
    if isinstance(part, Not):
        return 1 + _depth(part.part)
    return 1 + max(map(_depth, part.parts)) if isinstance(part, And | Or) else 0


def _inner(part: Filter) -> str:
    return f"({part})" if isinstance(part, And | Or) else str(part)


def _checked(name: str, names: Iterable[str]) -> str:
    """Return a column or operator as the table has it, so that the SQL holds no other text."""
    for known in names:
        if known == name:
            return known
    raise QueryError(f"a filter has no {name!r}: one of {', '.join(names)}")


def _mark(value: Value) -> str:
    # only as a blob can the bytes of a text that is not UTF-8 be passed
    return "CAST(? AS TEXT)" if isinstance(value, str) else "?"


def _parameter(value: Value) -> Parameter:
    return raw(value) if isinstance(value, str) else value


def _literal(value: Value) -> str:
    return "'" + value.replace("'", "''") + "'" if isinstance(value, str) else repr(value)
