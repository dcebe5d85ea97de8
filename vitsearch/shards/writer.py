"""Writes a shard set: the manifest first, then each shard when it is whole."""

import io
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pyarrow
import pyarrow.parquet

from vitsearch.errors import CollectionError
from vitsearch.shards.manifest import MANIFEST, Manifest
from vitsearch.shards.rows import ShardRow
from vitsearch.shards.schema import INFO, Half, schema_of
from vitsearch.shards.shard_set import ShardSet, shard_name
from vitsearch.shards.storage import Storage


class ShardWriter:
    """A shard set, open for writing; shards may be written in any order, and again over themselves."""

    def __init__(self, storage: Storage, manifest: Manifest) -> None:
        self.storage, self.manifest = storage, manifest

    @classmethod
    def create(cls, storage: Storage, manifest: Manifest) -> "ShardWriter":
        """Begin a shard set where there is nothing yet; raises CollectionError where there is something."""
        if not storage.is_empty():
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
            raise CollectionError(
                f"vectors of shape {vectors.shape} do not fit {self.storage.name}: it holds {self.manifest.dim} numbers each"
            )
        self.storage.write(shard_name(number), shard_bytes(rows, vectors))

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


def shard_bytes(rows: Sequence[ShardRow], vectors: Half) -> bytes:
    """Return the Parquet file of rows; ``vectors`` has one row ``(dim,)`` for each row without an error, in their order.

    Raises ValueError where they are not as many.
    """
    table = pyarrow.Table.from_arrays(list(_columns(rows, vectors)), schema=schema_of(vectors.shape[1]))
    file = io.BytesIO()
    # vectors do not get smaller; everything else does
    squeezed = {name: "NONE" if name.startswith("vector") else "ZSTD" for name in ("vector.list.element", *_flat_names(table.schema))}
    pyarrow.parquet.write_table(table, file, compression=squeezed, use_dictionary=["label", "camera", "error"])
    return file.getvalue()


def _flat_names(schema: pyarrow.Schema) -> list[str]:
    return [name for name in schema.names if name != "vector"]


def _columns(rows: Sequence[ShardRow], vectors: Half) -> Iterator[pyarrow.Array]:
    schema = schema_of(vectors.shape[1])
    for field in schema:
        if field.name == "vector":
            yield _vector_column(rows, vectors)
        else:
            yield pyarrow.array([_value(row, field.name) for row in rows], field.type)


def _vector_column(rows: Sequence[ShardRow], vectors: Half) -> pyarrow.Array:
    lacks = np.array([row.error is not None for row in rows], dtype=bool)
    if len(rows) - int(lacks.sum()) != len(vectors):
        raise ValueError(f"{len(rows) - int(lacks.sum())} photos have {len(vectors)} vectors")
    whole = np.zeros((len(rows), vectors.shape[1]), dtype=np.float16)
    whole[~lacks] = vectors
    return pyarrow.FixedSizeListArray.from_arrays(pyarrow.array(whole.reshape(-1)), vectors.shape[1], mask=pyarrow.array(lacks))


def _value(row: ShardRow, name: str) -> Any:
    if name in INFO:
        return getattr(row.info, name) if row.info else None
    if name == "id":
        return row.photo_id
    if name == "path_bytes":
        return None if _text(row.path) == row.path else row.path.encode("utf-8", "surrogateescape")
    value = getattr(row, name)
    return _text(value) if isinstance(value, str) else value


def _text(name: str) -> str:
    """Return a name as text that Parquet holds: bytes that are not UTF-8 are written out, as in ``\\xff``."""
    return name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
