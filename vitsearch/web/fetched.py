"""Photos of an object store, fetched when somebody looks at them."""

import os
import threading
from contextlib import suppress
from pathlib import Path

from vitsearch.errors import CollectionError, PhotoError
from vitsearch.layout import disk_errors
from vitsearch.sources import Entry, Source
from vitsearch.types import Photo
from vitsearch.web.errors import UnknownPhoto
from vitsearch.web.settings import MEGABYTE

MOST = 500 * MEGABYTE


class Fetched:
    """Copies of the photos below a URL in a folder, at most about ``most`` bytes of them: those looked at last."""

    def __init__(self, source: Source, folder: Path, most: int = MOST) -> None:
        self._source, self._folder, self._most = source, folder, most
        self._lock = threading.Lock()

    def file_of(self, photo: Photo) -> Path:
        """Return the file of a photo; raises UnknownPhoto where the store does not give it, or the disk takes no copy."""
        kept = self._folder / photo.fingerprint.hex()
        with suppress(OSError):
            os.utime(kept)  # the order of use outlives the process
            return kept
        data = next(self._source.read([Entry(photo.path, photo.size, photo.mtime_ns)]))
        if isinstance(data, PhotoError):
            raise UnknownPhoto(f"photo {photo.photo_id} cannot be fetched from {self._source.name}: {data}")
        self._keep(kept, data)
        return kept

    def _keep(self, kept: Path, data: bytes) -> None:
        try:
            with disk_errors(self._folder):
                self._folder.mkdir(parents=True, exist_ok=True)
                aside = kept.with_name(f"{kept.name}.{os.getpid()}-{threading.get_ident()}.new")
                aside.write_bytes(data)
                os.replace(aside, kept)
        except CollectionError as error:
            raise UnknownPhoto(str(error)) from error
        with self._lock:
            self._trim(kept)

    def _trim(self, newest: Path) -> None:
        """Remove the copies looked at longest ago until the rest fits; the newest stays, however large it is."""
        known = sorted((file.stat().st_mtime_ns, file.stat().st_size, file) for file in self._folder.iterdir() if file.is_file())
        total = sum(size for _, size, _ in known)
        for _, size, file in known:
            if total <= self._most:
                return
            if file != newest:
                file.unlink(missing_ok=True)
                total -= size
