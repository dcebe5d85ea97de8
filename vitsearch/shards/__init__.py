"""Shard sets: vectors of many photos as Parquet files in a folder or an object store, as embedding
on many machines writes them.

OUTPUT/vitsearch.json            the manifest: encoder, source of the photos, number of shards
OUTPUT/shards/000000.parquet     one row for each photo; a shard appears when it is complete
OUTPUT/listing/000000.parquet    the files that a shard is made from
"""

import os
from typing import TYPE_CHECKING

from vitsearch.errors import CollectionError, needing
from vitsearch.shards.manifest import LAYOUT, Manifest, ShardRow, photo_id

if TYPE_CHECKING:
    from vitsearch.shards.files import ShardSet, ShardWriter
    from vitsearch.shards.storage import Storage

__all__ = [
    "LAYOUT",
    "Manifest",
    "ShardRow",
    "create_shards",
    "is_shard_set",
    "open_shards",
    "photo_id",
]

_PACKAGES = frozenset(("pyarrow", "fsspec"))


def open_shards(output: str | os.PathLike[str]) -> "ShardSet":
    """Return the shard set in a folder or at a URL (``s3://bucket/prefix``); raises CollectionError
    where there is none.
    """
    storage = storage_of(output)
    from vitsearch.shards.files import ShardSet

    return ShardSet(storage)


def create_shards(output: str | os.PathLike[str], manifest: Manifest) -> "ShardWriter":
    """Write a manifest into a folder or at a URL where there is none, and return the writer of its
    shards; raises CollectionError.
    """
    storage = storage_of(output)
    from vitsearch.shards.files import ShardWriter

    return ShardWriter.create(storage, manifest)


def is_shard_set(output: str | os.PathLike[str]) -> bool:
    """Return whether a folder or URL has the manifest of a shard set; raises CollectionError where
    it cannot be read.
    """
    from vitsearch.shards.manifest import MANIFEST, is_manifest

    storage = storage_of(output)
    return storage.exists(MANIFEST) and is_manifest(storage.read(MANIFEST))


def storage_of(output: str | os.PathLike[str]) -> "Storage":
    """Return the storage of a shard set; raises CollectionError that names the extra where a
    package is missing.
    """
    with needing(_PACKAGES, "shards are Parquet files, which need", "ray", CollectionError):
        # both now, so that a missing package shows before an hour of embedding
        import vitsearch.shards.files  # noqa: F401
        from vitsearch.shards.storage import Storage
    return Storage(os.fspath(output))
