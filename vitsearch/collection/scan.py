"""Scans a photo folder for what has changed, and guards a collection against being emptied."""

import os
from collections.abc import Iterator
from contextlib import closing
from itertools import chain
from pathlib import Path

from vitsearch.collection.diff import FolderDiff, diff_folder
from vitsearch.errors import CollectionError
from vitsearch.photos import WalkOptions
from vitsearch.photos.formats import named_suffixes
from vitsearch.photos.walk import walk
from vitsearch.storage.store import PhotoStore
from vitsearch.types import Found


class FolderScan:
    """One walk of a photo folder, which lists files lazily and forgets those that are unchanged."""

    def __init__(self, root: Path, options: WalkOptions) -> None:
        self.root = root
        self._unreadable: list[str] = []
        self._files: Iterator[Found] = walk(
            root, options, on_unreadable=lambda path, reason: self._unreadable.append(path)
        )

    def ensure_not_empty(self) -> None:
        """Raise CollectionError if the folder holds no photo file."""
        first = next(self._files, None)
        if first is None:
            count = len(self._unreadable)
            note = f" ({count} folders could not be read)" if count else ""
            raise CollectionError(
                f"no photos found in {self.root}{note}: looked for {named_suffixes()}"
            )
        self._files = chain([first], self._files)

    def plan(self, store: PhotoStore, *, retry: bool, folder: str | os.PathLike[str]) -> FolderDiff:
        """Return what has to be done for the collection in ``store``.

        ``folder`` is for temporary files.
        """
        with closing(store.stats()) as photos, closing(store.failure_stats()) as failures:
            return diff_folder(
                self._files,
                photos,
                failures,
                unreadable=self._unreadable,
                retry=retry,
                folder=folder,
            )


def guard_against_emptying(
    diff: FolderDiff, photos: Path, folder: Path, *, last_root: str, root: str
) -> None:
    """Raise CollectionError rather than empty a collection by mistake.

    All photos are missing if a disk is not mounted or another folder was named.

    ``root`` is the text of the photo folder's path, ``last_root`` the one that the collection in
    ``folder`` was last indexed from.
    """
    if not diff.loses_all:
        return
    if diff.seen == 0:
        raise CollectionError(
            f"{photos} holds no photos now, its collection holds {diff.known}: is the disk "
            "mounted? nothing was removed; "
            f"to start over delete {folder}"
        )
    if last_root != root and folder.resolve().parent != photos.resolve():
        raise CollectionError(
            f"{folder} is the collection of {last_root}, and none of its {diff.known} photos is "
            f"in {photos}: "
            "name that folder, or another --collection DIR; nothing was removed"
        )
