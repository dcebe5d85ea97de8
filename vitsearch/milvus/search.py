"""What Milvus proposes for a search: candidates, which the vectors fetched from it then decide on."""

from collections.abc import Mapping
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from vitsearch.errors import CollectionError
from vitsearch.vectors import Vectors

if TYPE_CHECKING:
    from vitsearch.milvus.connection import Connection

MOST = 16_384  # results that Milvus gives for one query
TYPES = ("AUTOINDEX", "FLAT", "IVF_FLAT", "IVF_SQ8", "IVF_PQ", "HNSW", "HNSW_SQ", "SCANN", "DISKANN")
LEAST_EF = 128  # candidates that a graph keeps in hand
PROBED = 8  # one list in so many is read
LISTS = 128  # of an index that does not say how many it has

Ids = NDArray[np.int64]


def build_params(index_type: str, rows: int) -> dict[str, int]:
    """Return the parameters of an index over so many rows; raises CollectionError for a type that is not known."""
    if index_type not in TYPES:
        raise CollectionError(f"there is no index {index_type!r}: one of {', '.join(TYPES)}")
    lists = int(min(65_536, max(16, 4 * rows**0.5)))
    if index_type.startswith("HNSW"):
        return {"M": 16, "efConstruction": 200}
    return {"nlist": lists} if index_type.startswith("IVF") or index_type == "SCANN" else {}


def search_params(index: Mapping[str, Any], wanted: int, *, whole: bool = False) -> dict[str, int]:
    """Return how hard an index is to look for so many results; with ``whole`` as hard as it can."""
    kind = str(index.get("index_type", ""))
    if kind.startswith("HNSW") or kind == "AUTOINDEX":
        return {"ef": min(32_768, max(LEAST_EF, 2 * wanted))}
    if kind.startswith("IVF") or kind == "SCANN":
        lists = int(index.get("nlist") or LISTS)
        return {"nprobe": lists if whole else max(1, -(-lists // PROBED))}
    return {"search_list": min(65_535, max(LEAST_EF, 2 * wanted))} if kind == "DISKANN" else {}


class Candidates:
    """The rows of one collection that a condition leaves, as Milvus proposes them, ``most`` for a query."""

    most = MOST

    def __init__(self, connection: "Connection", condition: str = "") -> None:
        self._connection, self._condition = connection, condition

    @cached_property
    def count(self) -> int:
        """How many rows there are."""
        return self._connection.count(self._condition)

    def propose(self, queries: Vectors, wanted: int) -> list[tuple[Ids, bool]]:
        """Return for each of the ``(m, dim)`` queries up to ``wanted`` ids, best first, and whether there are other rows."""
        limit = min(wanted, self.most)
        found = self._search(queries, limit)
        return [self._completed(ids, query, limit) for ids, query in zip(found, queries, strict=True)]

    def _completed(self, ids: Ids, query: Vectors, limit: int) -> tuple[Ids, bool]:
        """Return the candidates, and more of them where an approximate index has given fewer than there are."""
        if len(ids) < limit and len(ids) < self.count:
            ids = self._search(query[None], limit, whole=True)[0]
        if len(ids) < limit and len(ids) < self.count <= self.most:
            pages = self._connection.pages(["id"], self._condition)
            ids = np.array([row["id"] for page in pages for row in page], dtype=np.int64)
        # counting the rows of a condition takes as long as searching them: where there are as many as asked for, there may be more
        return ids, (len(ids) == limit < self.most) or len(ids) < self.count

    def _search(self, queries: Vectors, limit: int, *, whole: bool = False) -> list[Ids]:
        params = search_params(self._connection.index(), limit, whole=whole)
        return self._connection.search(queries, limit, condition=self._condition, params=params)
