"""The client of Milvus: every call within a time limit, every failure as one line."""

import json
import logging
import os
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pymilvus import DataType, MilvusClient
from pymilvus.exceptions import MilvusException

from vitsearch.arrays import Vectors
from vitsearch.errors import CollectionError, CollectionNotFound
from vitsearch.milvus.metadata import BUILT, FACTS, GENERATION, CollectionMetadata, read_facts
from vitsearch.milvus.rows import FIELDS, MAX_TEXT_BYTES
from vitsearch.milvus.uri import MilvusUri

TOKEN = "MILVUS_TOKEN"
CONNECTING, ANSWERING, BUILDING = 5.0, 60.0, 3600.0  # seconds
ASKED = 1000  # rows asked for by their ids at a time
VECTORS, FACTS_ONLY = (
    4096,
    16_000,
)  # rows of a page, with vectors and without: Milvus Lite looks at all rows for each page

for _name in (
    "pymilvus",
    "milvus_lite",
    "grpc._server",
):  # they write a traceback to stderr for what is raised anyway
    logging.getLogger(_name).setLevel(logging.CRITICAL + 1)

_users: dict[str, int] = {}  # how many connections each open file of Milvus Lite has
_opening = threading.RLock()


class Connection:
    """An open connection to one collection of Milvus, which need not exist yet.

    Every method raises CollectionError, in one line, where Milvus does not answer or refuses, and
    CollectionNotFound where there is no such collection.
    """

    def __init__(self, place: MilvusUri) -> None:
        self.place = place
        self._open = False
        self._index: dict[str, Any] | None = None
        self._fields: frozenset[str] | None = None
        with self._errors(), _opening:
            self._client = MilvusClient(
                place.address, token=os.environ.get(TOKEN, ""), timeout=CONNECTING
            )
            self._open = True
            if place.file:
                _users[_key(place)] = _users.get(_key(place), 0) + 1

    def close(self) -> None:
        """Close the connection, and a file of Milvus Lite with the last one to it; a second call
        does nothing.
        """
        with _opening:
            if not self._open:
                return
            self._open = False
            self._client.close()
            if self.place.file:
                _users[_key(self.place)] -= 1
                if not _users[_key(self.place)]:
                    _let_go(self.place)

    @contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except MilvusException as error:
            raise _explained(self.place, error) from error

    # -- the collection ----------------------------------------------------------------------------

    def exists(self) -> bool:
        """Return whether there is a collection of this name."""
        with self._errors():
            return bool(self._client.has_collection(self.place.name, timeout=ANSWERING))

    def facts(self) -> CollectionMetadata:
        """Return what the collection says of itself."""
        described = self._described()
        return read_facts(
            described.get("properties") or {}, described.get("description"), self.place
        )

    def generation(self) -> int:
        """Return the number of the last change."""
        stored = str((self._described().get("properties") or {}).get(GENERATION, "0"))
        return int(stored) if stored.isdigit() else 0

    def raise_generation(self) -> None:
        """Say that rows have changed."""
        wanted = {GENERATION: str(self.generation() + 1)}
        with self._errors():
            self._client.alter_collection_properties(self.place.name, wanted, timeout=ANSWERING)

    def _described(self) -> dict[str, Any]:
        with self._errors():
            return dict(self._client.describe_collection(self.place.name, timeout=ANSWERING))

    def create(self, facts: CollectionMetadata, index_type: str, params: Mapping[str, int]) -> None:
        """Create the collection, empty, with an index of a type over its vectors."""
        schema = MilvusClient.create_schema(
            auto_id=False, enable_dynamic_field=False, description=facts.to_json()
        )
        schema.add_field("id", DataType.INT64, is_primary=True)
        for name, (kind, nullable) in FIELDS.items():
            sized = {"max_length": MAX_TEXT_BYTES} if kind == "VARCHAR" else {}
            schema.add_field(name, DataType[kind], nullable=nullable, **sized)
        schema.add_field("vector", DataType.FLOAT_VECTOR, dim=facts.dim)
        index = MilvusClient.prepare_index_params()
        index.add_index("vector", index_type=index_type, metric_type="COSINE", params=dict(params))
        kept = {FACTS: facts.to_json(), GENERATION: "0", BUILT: json.dumps(dict(params))}
        try:
            with self._errors():
                self._client.create_collection(
                    self.place.name,
                    schema=schema,
                    index_params=index,
                    properties=kept,
                    consistency_level="Bounded",
                    timeout=ANSWERING,
                )
        except (
            CollectionError
        ):  # such as of an index that this Milvus does not have: nothing half-made is left
            if self.exists():
                self.drop()
            raise

    def fields(self) -> frozenset[str]:
        """Return the names of the collection's fields; those of columns that vitsearch did not have
        when it was made are missing.
        """
        if self._fields is None:
            self._fields = frozenset(field["name"] for field in self._described()["fields"])
        return self._fields

    def load(self) -> None:
        """Have Milvus read the collection into memory, as it must be before it is searched."""
        with self._errors():
            self._client.load_collection(self.place.name, timeout=BUILDING)

    def flush(self) -> None:
        """Have what was written made durable and indexed."""
        with self._errors():
            self._client.flush(self.place.name, timeout=BUILDING)

    def drop(self) -> None:
        """Remove the collection."""
        with self._errors():
            self._client.drop_collection(self.place.name, timeout=ANSWERING)

    def index(self) -> dict[str, Any]:
        """Return the type of the vectors' index (``index_type``) and its parameters, as they were
        when this was first asked.
        """
        if self._index is None:
            built = (self._described().get("properties") or {}).get(BUILT)
            with self._errors():
                said = (
                    self._client.describe_index(self.place.name, "vector", timeout=ANSWERING) or {}
                )
            self._index = (json.loads(built) if built else {}) | dict(
                said
            )  # not every version says the parameters
        return self._index

    # -- rows --------------------------------------------------------------------------------------

    def upsert(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """Write rows, in place of those of the same ids."""
        with self._errors():
            self._client.upsert(self.place.name, [dict(row) for row in rows], timeout=BUILDING)

    def count(self, condition: str = "") -> int:
        """Return how many rows there are, or how many a condition leaves; what was just written is
        counted.
        """
        with self._errors():
            answer = self._client.query(
                self.place.name,
                filter=condition,
                output_fields=["count(*)"],
                timeout=ANSWERING,
                consistency_level="Strong",
            )
        return int(answer[0]["count(*)"])

    def among(self, ids: Sequence[int], columns: Sequence[str]) -> list[dict[str, Any]]:
        """Return the rows of those ids that are there, in no promised order; what was just written
        is seen.
        """
        found: list[dict[str, Any]] = []
        with self._errors():
            for start in range(0, len(ids), ASKED):
                some = ", ".join(str(int(one)) for one in ids[start : start + ASKED])
                found += map(
                    dict,
                    self._client.query(
                        self.place.name,
                        filter=f"id in [{some}]",
                        output_fields=list(columns),
                        timeout=ANSWERING,
                        consistency_level="Strong",
                    ),
                )
        return found

    def pages(self, columns: Sequence[str], condition: str = "") -> Iterator[list[dict[str, Any]]]:
        """Yield the rows that a condition leaves, page by page, in order of id."""
        size = VECTORS if "vector" in columns else FACTS_ONLY
        with self._errors():
            pages = self._client.query_iterator(
                self.place.name,
                batch_size=size,
                filter=condition,
                output_fields=list(columns),
                timeout=ANSWERING,
            )
            try:
                while page := pages.next():
                    yield [dict(row) for row in page]
            finally:
                pages.close()

    def search(
        self, vectors: Vectors, limit: int, *, condition: str, params: Mapping[str, int]
    ) -> list[NDArray[np.int64]]:
        """Return for each of the ``(m, dim)`` vectors the ids of its nearest rows, best first."""
        with self._errors():
            found = self._client.search(
                self.place.name,
                data=list(vectors),
                anns_field="vector",
                filter=condition,
                limit=limit,
                output_fields=["id"],
                search_params={"metric_type": "COSINE", "params": dict(params)},
                timeout=ANSWERING,
            )
        return [np.array([hit["id"] for hit in hits], dtype=np.int64) for hits in found]


def _key(place: MilvusUri) -> str:
    return os.path.abspath(place.address)


def _let_go(place: MilvusUri) -> None:
    """Close a file of Milvus Lite: its lock would keep every other process out."""
    from milvus_lite.server_manager import server_manager_instance  # type: ignore[import-untyped]

    server_manager_instance.release_server(place.address)


def _explained(place: MilvusUri, error: MilvusException) -> CollectionError:
    said = " ".join(str(error.message or error).split())
    low = said.lower()
    if "milvus-lite is required" in low:
        return CollectionError("a .db file is one of Milvus Lite: pip install 'vitsearch[milvus]'")
    if "open local milvus failed" in low:
        if place.file and not place.file.absolute().parent.is_dir():
            return CollectionError(
                f"cannot open {place.file}: there is no folder {place.file.parent}"
            )
        return CollectionError(
            f"Milvus Lite cannot open {place.file}: another process may have it open, or "
            "it may not be written here"
        )
    if (
        "fail connecting" in low
        or "unavailable" in low
        or "deadline" in low
        or "timeout" in low
        or "timed out" in low
    ):
        return CollectionError(
            f"no Milvus answers at {place.address}: start it, or check "
            "host and port after milvus://"
        )
    if "auth" in low or "permission" in low or "privilege" in low:
        return CollectionError(
            f"Milvus at {place.address} refuses this user ({said[:120]}): put a token into {TOKEN}"
        )
    if error.code == 100 or "can't find collection" in low or "collection not found" in low:
        return CollectionNotFound(
            f"there is no collection {place.name} at {place.address}: push a shard set "
            "there with `vitsearch push`"
        )
    return CollectionError(f"{place}: Milvus says: {said[:300]}")
