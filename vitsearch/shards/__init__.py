"""Shard sets: vectors of many photos as Parquet files in a folder or an object store, as embedding
on many machines writes them.

OUTPUT/vitsearch.json            the manifest: encoder, place of the photos, number of shards
OUTPUT/shards/000000.parquet     one row a photo; a shard is there when it is whole, and not before
OUTPUT/listing/000000.parquet    what a shard is to be made of
"""

import os
from typing import TYPE_CHECKING

from vitsearch.errors import CollectionError
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

_PACKAGES = {"pyarrow", "fsspec"}


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
    """Return whether a folder or URL says that it holds shards; raises CollectionError where it
    cannot be read.
    """
    from vitsearch.shards.manifest import MANIFEST, is_manifest

    storage = storage_of(output)
    return storage.exists(MANIFEST) and is_manifest(storage.read(MANIFEST))


def storage_of(output: str | os.PathLike[str]) -> "Storage":
    """Return the place of a shard set; raises CollectionError that names the extra where a package
    is missing.
    """
    try:
        import vitsearch.shards.files  # noqa: F401  said now, not after an hour of embedding
        from vitsearch.shards.storage import Storage
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] not in _PACKAGES:
            raise
        raise CollectionError(
            f"shards are Parquet files, which need {error.name}: pip install 'vitsearch[ray]'"
        ) from error
    return Storage(os.fspath(output))
