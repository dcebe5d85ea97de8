"""A filter as a frozen syntax tree: its SQL, its columns, and its text."""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from vitsearch.errors import QueryError
from vitsearch.filters.columns import LIKE, raw
from vitsearch.photos.columns import COLUMNS
from vitsearch.types import Value

Parameter = bytes | int | float
SQL = tuple[str, tuple[Parameter, ...]]

_OPERATORS = ("=", "<", "<=", ">", ">=")
_AFTER_ALL = "~"  # sorts after whatever may follow the beginning of an ISO date


class Filter(ABC):
    """A condition on photos, made by `parse_filter` and `filter_all`; ``str`` of it is a text that
    is parsed to an equal tree.
    """

    __slots__ = ()

    @abstractmethod
    def sql(self) -> SQL:
        """Return an SQL condition over the view ``photo_facts`` and its parameters; `prepare` makes
        a connection ready for it.
        """

    @abstractmethod
    def __str__(self) -> str: ...

    @abstractmethod
    def columns(self) -> frozenset[str]:
        """Return the names of the columns that the condition is about."""


class ColumnTest(Filter):
    """A condition on one column."""

    __slots__ = ()
    column: str

    def columns(self) -> frozenset[str]:
        return frozenset({self.column})

    @abstractmethod
    def text(self, no: str = "") -> str:
        """Return the test as text; with ``"not "`` as the text of its opposite."""

    def __str__(self) -> str:
        return self.text()


@dataclass(frozen=True, slots=True)
class Comparison(ColumnTest):
    """A column and a value; ``operator`` is one of ``= != < <= > >=``, and a date stands for its
    whole period.
    """

    column: str
    operator: str
    value: Value

    def _steps(self) -> tuple[tuple[str, Value], ...]:
        """The comparisons that must all hold (of ``!=``: not all of them), as ranges that an index
        over the column could serve.
        """
        sign = _own("=" if self.operator == "!=" else self.operator, _OPERATORS)
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
        column, steps = _own(self.column, COLUMNS), self._steps()
        tests = [f"{column} {sign} {_mark(value)}" for sign, value in steps]
        condition = f"({' AND '.join(tests)})"
        return f"NOT {condition}" if self.operator == "!=" else condition, tuple(
            _plain(value) for _, value in steps
        )

    def text(self, no: str = "") -> str:
        return f"{no}{self.column} {self.operator} {_literal(self.value)}"


@dataclass(frozen=True, slots=True)
class Between(ColumnTest):
    """A column from ``low`` to ``high``, both included."""

    column: str
    low: Value
    high: Value

    def _both(self) -> "And":
        return And(
            (Comparison(self.column, ">=", self.low), Comparison(self.column, "<=", self.high))
        )

    def sql(self) -> SQL:
        return self._both().sql()

    def text(self, no: str = "") -> str:
        return f"{self.column} {no}between {_literal(self.low)} and {_literal(self.high)}"


@dataclass(frozen=True, slots=True)
class In(ColumnTest):
    """A column equal to one of the values, of which there is at least one."""

    column: str
    values: tuple[Value, ...]

    def _any(self) -> "Or":
        return Or(tuple(Comparison(self.column, "=", value) for value in self.values))

    def sql(self) -> SQL:
        if COLUMNS[self.column].kind == "date":
            return self._any().sql()
        return f"{_own(self.column, COLUMNS)} IN ({', '.join(map(_mark, self.values))})", tuple(
            map(_plain, self.values)
        )

    def text(self, no: str = "") -> str:
        return f"{self.column} {no}in ({', '.join(map(_literal, self.values))})"


@dataclass(frozen=True, slots=True)
class Like(ColumnTest):
    """A text or a date that looks like a pattern of ``%`` and ``_``, in any case."""

    column: str
    pattern: str

    def sql(self) -> SQL:
        return f"{LIKE}(CAST({_own(self.column, COLUMNS)} AS BLOB), ?)", (raw(self.pattern),)

    def text(self, no: str = "") -> str:
        return f"{self.column} {no}like {_literal(self.pattern)}"


@dataclass(frozen=True, slots=True)
class IsNull(ColumnTest):
    """A column that the photo says nothing about; the only test that null passes."""

    column: str

    def sql(self) -> SQL:
        return f"{_own(self.column, COLUMNS)} IS NULL", ()

    def text(self, no: str = "") -> str:
        return f"{self.column} is {no}null"


@dataclass(frozen=True, slots=True)
class Not(Filter):
    """The opposite of a condition; of neither true nor false it is neither."""

    part: Filter

    def sql(self) -> SQL:
        condition, values = self.part.sql()
        return f"NOT {condition}", values

    def columns(self) -> frozenset[str]:
        return self.part.columns()

    def __str__(self) -> str:
        return (
            self.part.text("not ")
            if isinstance(self.part, ColumnTest)
            else f"not {_inner(self.part)}"
        )


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


def _joined(word: str, parts: Sequence[Filter]) -> SQL:
    # SQLite's parser holds 100 open words: with the deepest part first, a level of nesting holds
    # one
    made = [part.sql() for part in sorted(parts, key=_depth, reverse=True)]
    return f"({word.join(condition for condition, _ in made)})", tuple(
        value for _, values in made for value in values
    )


def _depth(part: Filter) -> int:
    below: Iterable[Filter] = (
        part.parts if isinstance(part, And | Or) else (part.part,) if isinstance(part, Not) else ()
    )
    return max((1 + _depth(inner) for inner in below), default=0)


def _inner(part: Filter) -> str:
    return f"({part})" if isinstance(part, And | Or) else str(part)


def _own(name: str, names: Iterable[str]) -> str:
    """Return the table's own spelling of a column or operator: the SQL of a filter holds no other
    text.
    """
    for known in names:
        if known == name:
            return known
    raise QueryError(f"a filter has no {name!r}: one of {', '.join(names)}")


def _mark(value: Value) -> str:
    return (
        "CAST(? AS TEXT)" if isinstance(value, str) else "?"
    )  # the bytes of a text that is not UTF-8 pass as a blob only


def _plain(value: Value) -> Parameter:
    return raw(value) if isinstance(value, str) else value


def _literal(value: Value) -> str:
    return "'" + value.replace("'", "''") + "'" if isinstance(value, str) else repr(value)
