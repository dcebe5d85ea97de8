"""Looking for the photo files of a folder, and what is to be done with them."""

import os
from collections.abc import Iterator
from contextlib import closing
from itertools import chain
from pathlib import Path

from vitsearch.errors import CollectionError
from vitsearch.photos import WalkOptions, walk
from vitsearch.plan import Plan, make_plan
from vitsearch.store import PhotoStore
from vitsearch.types import Found


class Looking:
    """One walk of a photo folder; nothing is listed before it is asked for, and nothing is kept of what is unchanged."""

    def __init__(self, root: Path, options: WalkOptions) -> None:
        self.root = root
        self._unreadable: list[str] = []
        self._files: Iterator[Found] = walk(root, options, on_unreadable=lambda path, reason: self._unreadable.append(path))

    def check_some(self) -> None:
        """Raise CollectionError where the folder holds no photo file."""
        first = next(self._files, None)
        if first is None:
            note = f" ({len(self._unreadable)} folders could not be read)" if self._unreadable else ""
            raise CollectionError(f"no photos found in {self.root}{note}: looked for jpg, png, webp, tiff, bmp, gif, ppm, jp2 and heic")
        self._files = chain([first], self._files)

    def plan(self, store: PhotoStore, *, retry: bool, folder: str | os.PathLike[str]) -> Plan:
        """Return what is to be done for the collection in ``store``; ``folder`` is for temporary files."""
        with closing(store.stats()) as photos, closing(store.failure_stats()) as failures:
            return make_plan(self._files, photos, failures, unreadable=self._unreadable, retry=retry, folder=folder)
