"""The client of Milvus: every call within a time limit, every failure as one line."""

import json
import logging
import os
import re
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pymilvus import DataType, MilvusClient
from pymilvus.exceptions import MilvusException

from vitsearch.arrays import Vectors
from vitsearch.errors import CollectionError, CollectionNotFound
from vitsearch.milvus.schema import (
    FIELDS,
    GENERATION,
    INDEX_PARAMS,
    MAX_TEXT_BYTES,
    METADATA_KEY,
    CollectionMetadata,
    MilvusUri,
    read_metadata,
)

TOKEN = "MILVUS_TOKEN"
CONNECTING, ANSWERING, BUILDING = 5.0, 60.0, 3600.0  # seconds
# rows that are read by their ids at a time, with and without vectors
IDS_WITH_VECTORS, IDS = 1000, 10_000
# rows of a page, with and without vectors; Milvus Lite scans all rows for each page
PAGE_WITH_VECTORS, PAGE = 4096, 16_000
HALF_PRECISION = 2, 4  # the first version of Milvus that has it
FAILURES = ("fail connecting", "unavailable", "deadline", "timeout", "timed out")

# these loggers write a traceback to stderr for errors that are raised anyway
# (and advice, as to upgrade a server that has iterators of the first kind)
for _name in ("pymilvus", "pymilvus.milvus_client.milvus_client", "milvus_lite", "grpc._server"):
    logging.getLogger(_name).setLevel(logging.CRITICAL + 1)

_users: dict[str, int] = {}  # how many connections each open file of Milvus Lite has
_opening = threading.RLock()


class Connection:
    """An open connection to one collection of Milvus, which need not exist yet.

    Vectors of rows that are read are float16 ``(dim,)``, whatever they are in Milvus.
    ``consistency`` is Milvus' word for how new the rows are that are read by id or counted: with
    "Strong" those just written are seen, for which a server waits 0.2 s; with "Bounded" they may be
    a few seconds old, as those that a search proposes are. Every method raises CollectionError, in
    one line, if Milvus does not answer or refuses, and CollectionNotFound if there is no such
    collection.
    """

    def __init__(self, uri: MilvusUri, *, consistency: str = "Strong") -> None:
        self.uri = uri
        self._consistency = consistency
        self._open = False
        self._index: dict[str, Any] | None = None
        self._fields: Mapping[str, DataType] | None = None
        with self._errors(), _opening:
            self._client = MilvusClient(
                uri.address, token=os.environ.get(TOKEN, ""), timeout=CONNECTING
            )
            self._open = True
            if uri.file:
                _users[_key(uri)] = _users.get(_key(uri), 0) + 1

    def close(self) -> None:
        """Close the connection, and a file of Milvus Lite with the last connection to it.

        A second call does nothing.
        """
        with _opening:
            if not self._open:
                return
            self._open = False
            self._client.close()
            if self.uri.file:
                _users[_key(self.uri)] -= 1
                if not _users[_key(self.uri)]:
                    _release(self.uri)

    @contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except MilvusException as error:
            raise _explained(self.uri, error) from error

    # -- the collection ----------------------------------------------------------------------------

    def exists(self) -> bool:
        """Return whether there is a collection of this name."""
        with self._errors():
            return bool(self._client.has_collection(self.uri.name, timeout=ANSWERING))

    def metadata(self) -> CollectionMetadata:
        """Return the metadata that is stored with the collection."""
        described = self._described()
        properties = described.get("properties") or {}
        return read_metadata(properties, described.get("description"), self.uri)

    def generation(self) -> int:
        """Return the number of the last change."""
        stored = str((self._described().get("properties") or {}).get(GENERATION, "0"))
        return int(stored) if stored.isdigit() else 0

    def raise_generation(self) -> None:
        """Record that rows have changed."""
        properties = {GENERATION: str(self.generation() + 1)}
        with self._errors():
            self._client.alter_collection_properties(self.uri.name, properties, timeout=ANSWERING)

    def _described(self) -> dict[str, Any]:
        with self._errors():
            return dict(self._client.describe_collection(self.uri.name, timeout=ANSWERING))

    def create(
        self, metadata: CollectionMetadata, index_type: str, params: Mapping[str, int]
    ) -> None:
        """Create the empty collection, with an index of this type over its vectors: in half
        precision, as they are in shards, where this Milvus has that for it.
        """
        if self._has_half_precision():
            with suppress(CollectionError):  # an index type that has it not, as those of GPUs
                return self._create(metadata, index_type, params, DataType.FLOAT16_VECTOR)
        self._create(metadata, index_type, params, DataType.FLOAT_VECTOR)

    def _has_half_precision(self) -> bool:
        # an older server does not refuse it: it dies (2.3.5)
        with self._errors():
            version = str(self._client.get_server_version(timeout=ANSWERING))
        numbers = re.match(r"v?(\d+)\.(\d+)", version)  # that of Milvus Lite begins with its name
        return numbers is not None and (int(numbers[1]), int(numbers[2])) >= HALF_PRECISION

    def _create(
        self,
        metadata: CollectionMetadata,
        index_type: str,
        params: Mapping[str, int],
        precision: DataType,
    ) -> None:
        schema = MilvusClient.create_schema(
            auto_id=False, enable_dynamic_field=False, description=metadata.to_json()
        )
        schema.add_field("id", DataType.INT64, is_primary=True)
        for name, (kind, nullable) in FIELDS.items():
            sized = {"max_length": MAX_TEXT_BYTES} if kind == "VARCHAR" else {}
            schema.add_field(name, DataType[kind], nullable=nullable, **sized)
        schema.add_field("vector", precision, dim=metadata.dim)
        index = MilvusClient.prepare_index_params()
        index.add_index("vector", index_type=index_type, metric_type="COSINE", params=dict(params))
        properties = {
            METADATA_KEY: metadata.to_json(),
            GENERATION: "0",
            INDEX_PARAMS: json.dumps(dict(params)),
        }
        try:
            with self._errors():
                self._client.create_collection(
                    self.uri.name,
                    schema=schema,
                    index_params=index,
                    properties=properties,
                    consistency_level="Bounded",
                    timeout=ANSWERING,
                )
        except CollectionError:
            # for example an index type that this Milvus lacks: no half-made collection stays behind
            if self.exists():
                self.drop()
            raise

    def fields(self) -> frozenset[str]:
        """Return the names of the collection's fields.

        Columns that vitsearch did not have when the collection was made are missing.
        """
        return frozenset(self._types())

    def _types(self) -> Mapping[str, DataType]:
        if self._fields is None:
            fields = self._described()["fields"]
            self._fields = {field["name"]: DataType(field["type"]) for field in fields}
        return self._fields

    def load(self) -> None:
        """Have Milvus read the collection into memory, as it must be before it is searched."""
        with self._errors():
            self._client.load_collection(self.uri.name, timeout=BUILDING)

    def flush(self) -> None:
        """Have what was written made durable and indexed."""
        with self._errors():
            self._client.flush(self.uri.name, timeout=BUILDING)

    def drop(self) -> None:
        """Remove the collection."""
        with self._errors():
            self._client.drop_collection(self.uri.name, timeout=ANSWERING)

    def index(self) -> dict[str, Any]:
        """Return the type of the vectors' index (``index_type``) and its parameters.

        They are read once and then remembered.
        """
        if self._index is None:
            params = (self._described().get("properties") or {}).get(INDEX_PARAMS)
            with self._errors():
                described = self._client.describe_index(self.uri.name, "vector", timeout=ANSWERING)
            # not every version of Milvus describes the parameters, hence the stored ones
            self._index = (json.loads(params) if params else {}) | dict(described or {})
        return self._index

    # -- rows --------------------------------------------------------------------------------------

    def upsert(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """Insert rows with the same fields, replacing those with the same ids.

        A row's vector is a ``(dim,)`` array. Several threads may call this.
        """
        columns = {name: [row[name] for row in rows] for name in rows[0]}
        vectors = self._stored_as(columns["vector"])
        columns["vector"] = [*vectors] if vectors.dtype == np.float16 else vectors.tolist()
        with self._errors():
            # the client's public method takes rows, which cost 2.5 times the time of columns
            self._client._get_connection().upsert(
                self.uri.name,
                [
                    {"name": name, "type": self._types()[name], "values": values}
                    for name, values in columns.items()
                ],
                timeout=BUILDING,
            )

    def _stored_as(self, vectors: Sequence[NDArray[Any]] | NDArray[Any]) -> NDArray[Any]:
        """Return ``(m, dim)`` vectors in the precision of this collection."""
        is_half = self._types()["vector"] == DataType.FLOAT16_VECTOR
        return np.asarray(vectors, dtype=np.float16 if is_half else np.float32)

    def count(self, condition: str = "") -> int:
        """Return the number of rows that match a condition."""
        return int(self._query(condition, ["count(*)"])[0]["count(*)"])

    def among(self, ids: Sequence[int], columns: Sequence[str]) -> list[dict[str, Any]]:
        """Return the rows with these ids, in no particular order; missing ids are left out."""
        rows: list[dict[str, Any]] = []
        size = IDS_WITH_VECTORS if "vector" in columns else IDS
        for start in range(0, len(ids), size):
            batch = [int(row_id) for row_id in ids[start : start + size]]
            rows += self._query(f"id in {batch}", columns)
        return rows

    def at_most(self, limit: int, columns: Sequence[str], condition: str) -> list[dict[str, Any]]:
        """Return at most ``limit`` rows that match a condition, in no particular order: in one
        answer, in a fraction of the time of `pages`. Several threads may call this.
        """
        return self._query(condition, columns, limit=limit)

    def _query(
        self, condition: str, columns: Sequence[str], **options: int
    ) -> list[dict[str, Any]]:
        with self._errors():
            rows = self._client.query(
                self.uri.name,
                filter=condition,
                output_fields=list(columns),
                timeout=ANSWERING,
                consistency_level=self._consistency,
                **options,
            )
        return [_received(row) for row in rows]

    def pages(self, columns: Sequence[str], condition: str = "") -> Iterator[list[dict[str, Any]]]:
        """Yield the rows that match a condition, page by page, in order of id."""
        size = PAGE_WITH_VECTORS if "vector" in columns else PAGE
        with self._errors():
            pages = self._client.query_iterator(
                self.uri.name,
                batch_size=size,
                filter=condition,
                output_fields=list(columns),
                timeout=ANSWERING,
            )
            try:
                while page := pages.next():
                    yield [_received(row) for row in page]
            finally:
                pages.close()

    def search(
        self, vectors: Vectors, limit: int, *, condition: str, params: Mapping[str, int]
    ) -> list[NDArray[np.int64]]:
        """Return for each of the ``(m, dim)`` vectors the ids of its nearest rows, best first."""
        with self._errors():
            results = self._client.search(
                self.uri.name,
                data=[*self._stored_as(vectors)],
                anns_field="vector",
                filter=condition,
                limit=limit,
                output_fields=["id"],
                search_params={"metric_type": "COSINE", "params": dict(params)},
                timeout=ANSWERING,
            )
        return [np.array([hit["id"] for hit in hits], dtype=np.int64) for hits in results]

    def nearest(
        self, vector: Vectors, limit: int, *, condition: str, params: Mapping[str, int]
    ) -> NDArray[np.int64]:
        """Return the ids of the ``limit`` rows nearest to a vector ``(dim,)``, best first: by an
        iterator of the server, which gives more than one search does.
        """
        ids: list[int] = []
        with self._errors():
            hits = self._client.search_iterator(
                self.uri.name,
                data=self._stored_as(vector[None]),
                batch_size=PAGE,
                limit=limit,
                anns_field="vector",
                filter=condition,
                output_fields=["id"],
                search_params={"metric_type": "COSINE", "params": dict(params)},
                timeout=ANSWERING,
            )
            try:
                while batch := hits.next():
                    ids += [hit["id"] for hit in batch]
            finally:
                hits.close()
        return np.array(ids[:limit], dtype=np.int64)


def _key(uri: MilvusUri) -> str:
    return os.path.abspath(uri.address)


def _release(uri: MilvusUri) -> None:
    """Close a file of Milvus Lite: its lock would keep every other process out."""
    from milvus_lite.server_manager import server_manager_instance  # type: ignore[import-untyped]

    server_manager_instance.release_server(uri.address)


def _received(row: Mapping[str, Any]) -> dict[str, Any]:
    """Return a row with its vector, if it has one, as float16."""
    if "vector" not in row:
        return dict(row)
    stored = row["vector"]
    if isinstance(stored[0], bytes):
        vector = np.frombuffer(stored[0], dtype="<f2")
    else:  # half the time of a list that becomes float16 at once
        vector = np.asarray(stored, dtype=np.float32).astype(np.float16)
    return {**row, "vector": vector}


def _explained(uri: MilvusUri, error: MilvusException) -> CollectionError:
    message = " ".join(str(error.message or error).split())
    low = message.lower()
    if "milvus-lite is required" in low:
        return CollectionError("a .db file is one of Milvus Lite: pip install 'vitsearch[milvus]'")
    if "open local milvus failed" in low:
        if uri.file and not uri.file.absolute().parent.is_dir():
            return CollectionError(f"cannot open {uri.file}: there is no folder {uri.file.parent}")
        return CollectionError(
            f"Milvus Lite cannot open {uri.file}: another process may have it open, or it may "
            "not be written here"
        )
    if "nonetype" in low:
        return CollectionError(
            f"the Milvus at {uri.address} holds no empty values, and photos lack some ({message}): "
            "Milvus 2.5 or later is needed"
        )
    if any(words in low for words in FAILURES):
        return CollectionError(
            f"no Milvus answers at {uri.address}: start it, or check host and port after milvus://"
        )
    if "auth" in low or "permission" in low or "privilege" in low:
        return CollectionError(
            f"Milvus at {uri.address} refuses this user ({message[:120]}): put a token into {TOKEN}"
        )
    if error.code == 100 or "can't find collection" in low or "collection not found" in low:
        return CollectionNotFound(
            f"there is no collection {uri.name} at {uri.address}: push a shard set there "
            "with `vitsearch push`"
        )
    return CollectionError(f"{uri}: Milvus says: {message[:300]}")
