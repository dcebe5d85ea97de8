"""Opening what PHOTOS names: a folder with its collection, or a collection in Milvus."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from vitsearch.collection import SearchableCollection

_ONLY_ON_DISK = {
    "collection": "--collection DIR goes with a folder of photos: the last part of milvus://HOST:PORT/NAME names the collection",
    "store": "--store writes into a collection on disk: label that one, and push it again",
    "sort_into": "--sort-into takes a folder of photos: label that one, or write the labels with --output FILE.csv",
    "xmp": "--xmp writes beside the photos: label their folder, or write the labels with --output FILE.csv",
}


def open_collection(photos: str, options: Mapping[str, Any]) -> Any:
    """Return the collection of a folder, or one in Milvus; raises UsageError for an option that does not go with Milvus."""
    from vitsearch.collection import Collection, MilvusCollection
    from vitsearch.milvus import is_milvus

    check_place(photos, options)
    if not is_milvus(photos):
        read_only = options.get("read_only") or False
        return Collection.open(photos, collection=options.get("collection"), device=options.get("device") or "auto", read_only=read_only)
    return MilvusCollection(photos, device=options.get("device") or "auto")


def check_place(photos: str, options: Mapping[str, Any]) -> None:
    """Raise UsageError for an option that does not go with a collection in Milvus."""
    from vitsearch.milvus import is_milvus

    if options.get("root") and not is_milvus(photos):
        raise click.UsageError("--photos ROOT goes with a collection in Milvus: PHOTOS says where these are", click.get_current_context())
    for name, reason in _ONLY_ON_DISK.items() if is_milvus(photos) else ():
        if options.get(name):
            raise click.UsageError(reason, click.get_current_context())


def sheet_root(photos: str, found: "SearchableCollection") -> Path:
    """Return the folder from which the pictures of a sheet are read."""
    from vitsearch.milvus import is_milvus

    return found.root if is_milvus(photos) else Path(photos)
