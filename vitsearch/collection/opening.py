"""Chooses the backend for a name: that of a photo folder, or of a collection in Milvus."""

import os
from pathlib import Path

from vitsearch.collection.backend import Backend
from vitsearch.collection.local import open_local
from vitsearch.errors import CollectionError
from vitsearch.milvus import is_milvus


def open_backend(
    photos: str | os.PathLike[str],
    collection: str | os.PathLike[str] | None,
    root: str | os.PathLike[str] | None,
    device: str,
    read_only: bool,
) -> Backend:
    """Return the collection with this name, open for reading (see `Collection.open`)."""
    if not is_milvus(photos):
        if root is not None:
            raise CollectionError(f"root goes with a collection in Milvus, not with {photos}")
        return open_local(photos, collection=collection, device=device, read_only=read_only)
    if collection is not None:
        raise CollectionError(
            "collection goes with a folder of photos: the last part of milvus://HOST:PORT/NAME "
            "names the collection"
        )
    from vitsearch.collection.milvus import MilvusBackend

    return MilvusBackend(os.fspath(photos), root=None if root is None else Path(root))
