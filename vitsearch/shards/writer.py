"""Writes a shard set: the manifest first, then each shard when it is whole."""

import io
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pyarrow
import pyarrow.compute
import pyarrow.parquet

from vitsearch.errors import CollectionError
from vitsearch.shards.manifest import MANIFEST, Manifest
from vitsearch.shards.rows import ShardRow
from vitsearch.shards.schema import INFO, Half, schema_of
from vitsearch.shards.shard_set import LISTING, ShardSet, shard_name
from vitsearch.shards.storage import Storage


class ShardWriter:
    """A shard set, open for writing; shards may be written in any order, and again over themselves."""

    def __init__(self, storage: Storage, manifest: Manifest) -> None:
        self.storage, self.manifest = storage, manifest

    @classmethod
    def create(cls, storage: Storage, manifest: Manifest) -> "ShardWriter":
        """Begin a shard set where there is nothing yet but perhaps a listing; raises CollectionError where there is something."""
        if set(storage.names("")) - {LISTING}:
            raise CollectionError(f"{storage.name} holds files already: name a new place for the shards, or remove them")
        storage.write(MANIFEST, manifest.to_bytes())
        return cls(storage, manifest)

    @classmethod
    def resume(cls, shards: ShardSet) -> "ShardWriter":
        """Go on with a shard set that was begun."""
        return cls(shards.storage, shards.manifest)

    def write(self, number: int, rows: Sequence[ShardRow], vectors: Half) -> None:
        """Write one shard; ``vectors`` has a row for each row without an error, in their order."""
        if vectors.ndim != 2 or vectors.shape[1] != self.manifest.dim:
            place, dim = self.storage.name, self.manifest.dim
            raise CollectionError(f"vectors of shape {vectors.shape} do not fit {place}: it holds {dim} numbers each")
        self.write_table(number, shard_table(rows, vectors))

    def write_table(self, number: int, table: pyarrow.Table) -> None:
        """Write one shard, given as `shard_table` makes it."""
        self.storage.write(shard_name(number), table_bytes(table))

    def finish(self) -> None:
        """Say in the manifest that every shard is there; raises CollectionError where one is not."""
        missing = ShardSet(self.storage).missing()
        if missing:
            raise CollectionError(
                f"{self.storage.name} lacks {len(missing)} shards (the first is {missing[0]}): run `vitsearch embed` again"
            )
        if not self.manifest.complete:
            self.manifest = replace(self.manifest, complete=True)
            self.storage.write(MANIFEST, self.manifest.to_bytes())


def shard_table(rows: Sequence[ShardRow], vectors: Half) -> pyarrow.Table:
    """Return rows as a table; ``vectors`` has one row ``(dim,)`` for each row without an error, in their order.

    Raises ValueError where they are not as many.
    """
    return with_vectors(facts_table(rows), vectors)


def facts_table(rows: Sequence[ShardRow]) -> pyarrow.Table:
    """Return rows as a table of every column but the vector."""
    schema = schema_of(1)
    schema = schema.remove(schema.get_field_index("vector"))
    return pyarrow.Table.from_arrays(
        [pyarrow.array([_value(row, field.name) for row in rows], field.type) for field in schema], schema=schema
    )


def with_vectors(facts: pyarrow.Table, vectors: Half) -> pyarrow.Table:
    """Return a table of facts with the vectors of its rows without an error, in their order; raises ValueError for another number."""
    lacks = np.asarray(pyarrow.compute.is_valid(facts.column("error")).to_numpy(zero_copy_only=False), dtype=bool)
    if len(lacks) - int(lacks.sum()) != len(vectors):
        raise ValueError(f"{len(lacks) - int(lacks.sum())} photos have {len(vectors)} vectors")
    dim = vectors.shape[1]
    whole = np.zeros((len(lacks), dim), dtype=np.float16)
    whole[~lacks] = vectors
    column = pyarrow.FixedSizeListArray.from_arrays(pyarrow.array(whole.reshape(-1)), dim, mask=pyarrow.array(lacks))
    schema = schema_of(dim)
    columns = {name: facts.column(name) for name in facts.schema.names} | {"vector": column}
    return pyarrow.Table.from_arrays([columns[name] for name in schema.names], schema=schema)


def table_bytes(table: pyarrow.Table) -> bytes:
    """Return the Parquet file of a table of rows with their vectors."""
    file = io.BytesIO()
    # vectors do not get smaller; everything else does
    squeezed = {name: "ZSTD" for name in table.schema.names if name != "vector"} | {"vector.list.element": "NONE"}
    pyarrow.parquet.write_table(table, file, compression=squeezed, use_dictionary=["label", "camera", "error"])
    return file.getvalue()


def _value(row: ShardRow, name: str) -> Any:
    if name in INFO:
        return getattr(row.info, name) if row.info else None
    if name == "id":
        return row.photo_id
    if name == "path_bytes":
        return None if as_text(row.path) == row.path else row.path.encode("utf-8", "surrogateescape")
    value = getattr(row, name)
    return as_text(value) if isinstance(value, str) else value


def as_text(name: str) -> str:
    """Return a name as text that Parquet holds: bytes that are not UTF-8 are written out, as in ``\\xff``."""
    return name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
