"""Vectors served from Milvus: the URI of a collection, its rows, and filters in its language; and a
large collection as a whole, numbers counted by the server and samples of its rows.
"""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from operator import itemgetter
from typing import TYPE_CHECKING, Any, NamedTuple

from vitsearch.errors import CollectionError, needing
from vitsearch.milvus.filter import milvus_filter
from vitsearch.milvus.schema import CollectionMetadata, MilvusUri, is_milvus, parse_uri

if TYPE_CHECKING:
    from vitsearch.milvus.client import Connection

__all__ = [
    "CollectionMetadata",
    "MilvusUri",
    "connect",
    "is_milvus",
    "milvus_filter",
    "parse_uri",
]

_PACKAGES = {"pymilvus", "grpc", "milvus_lite", "google"}


def connect(uri: MilvusUri, *, consistency: str = "Strong") -> "Connection":
    """Return an open connection to a server or to a file of Milvus Lite (see `Connection`).

    Raises CollectionError, also if a package is missing.
    """
    with needing(_PACKAGES, "Milvus needs the package", "milvus", CollectionError):
        from vitsearch.milvus.client import Connection
    return Connection(uri, consistency=consistency)


# -- A large collection ----------------------------------------------------------------------------


LARGE = 200_000  # rows; what takes them all is answered from a sample of more
SAMPLE = 8_000  # rows
MAX_ID = 2**63 - 1
LAST_YEAR = 9999
ASKING = 4  # questions that the server is asked at a time
PARTS = 8  # of a sample, each small enough for one answer


class Sample(NamedTuple):
    """Rows of a collection, and the number of all that they are a sample of."""

    rows: list[dict[str, Any]]
    total: int

    @property
    def size(self) -> int | None:
        """The number of its rows, None where they are all that there are."""
        return len(self.rows) if len(self.rows) < self.total else None


def both(first: str, second: str) -> str:
    """Return the conjunction of two conditions, each of which may be empty."""
    return f"({first}) and ({second})" if first and second else first or second


def sample(
    connection: "Connection", columns: Sequence[str], condition: str = "", size: int = SAMPLE
) -> Sample:
    """Return about ``size`` of the rows that match a condition, in order of id; all of fewer."""
    total = connection.count(condition)
    if total <= size:
        return Sample([row for page in connection.pages(columns, condition) for row in page], total)
    bounds = [int(MAX_ID * (size / total) * part / PARTS) for part in range(PARTS + 1)]

    def between(low: int, high: int) -> list[dict[str, Any]]:
        within = both(condition, f"id >= {low} and id < {high}")
        return connection.at_most(2 * size // PARTS, columns, within)  # ids may lie unevenly

    with ThreadPoolExecutor(ASKING) as threads:
        parts = [*threads.map(between, bounds, bounds[1:])]
    return Sample(sorted((row for part in parts for row in part), key=itemgetter("id")), total)


def last_ids(connection: "Connection", count: int, condition: str = "") -> list[int]:
    """Return the ``count`` highest ids of the rows that match a condition, the highest first."""
    total = connection.count(condition)
    expected = 2 * count + 100
    while True:
        share = expected / max(1, total)
        bound = f"id > {int(MAX_ID * (1 - share))}" if share < 1 else ""
        pages = connection.pages(["id"], both(condition, bound))
        ids = sorted((row["id"] for page in pages for row in page), reverse=True)
        if len(ids) >= count or not bound:
            return ids[:count]
        expected *= 4


def count_months(connection: "Connection", condition: str = "") -> list[tuple[str, int]]:
    """Return the months of the rows that match a condition, the newest first, each with its number
    of rows: 2019-07, 2019 for those without a month, "" for those without a date.
    """

    def months_of(year: int, count: int) -> list[tuple[str, int]]:
        within = both(condition, f"year == {year}")
        months = _counts(connection, within, "month", 1, 12)
        counts = [(f"{year:04}-{month:02}", number) for month, number in months.items()]
        rest = count - sum(months.values())
        return [*counts, (f"{year:04}", rest)] if rest > 0 else counts

    total = connection.count(condition)
    years = _counts(connection, condition, "year", 0, LAST_YEAR)
    with ThreadPoolExecutor(ASKING) as threads:
        counts = [each for part in threads.map(months_of, years, years.values()) for each in part]
    undated = total - sum(years.values())
    return sorted([*counts, ("", undated)] if undated > 0 else counts, reverse=True)


def count_years(connection: "Connection") -> list[int]:
    """Return the years in which photos were taken, in order."""
    return [*_counts(connection, "", "year", 0, LAST_YEAR)]


def _counts(
    connection: "Connection", condition: str, column: str, low: int, high: int
) -> dict[int, int]:
    """Return the values of a column of integers from ``low`` to ``high``, each with its number of
    rows.
    """

    def count(low: int, high: int) -> int:
        return connection.count(both(condition, f"{column} >= {low} and {column} <= {high}"))

    def split(low: int, high: int, number: int) -> dict[int, int]:
        if number <= 0 or low == high:
            return {low: number} if number > 0 else {}
        middle = (low + high) // 2
        below = count(low, middle)
        return split(low, middle, below) | split(middle + 1, high, number - below)

    return split(low, high, count(low, high))
