"""Small pictures of photos, kept on disk up to a number of bytes: turned as EXIF says, without
metadata.
"""

import io
import os
import re
import threading
from collections import OrderedDict
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from vitsearch.errors import CollectionError
from vitsearch.photos import PhotoDecoder, read_bytes_and_fingerprint, thumbnail
from vitsearch.records import atomic_write
from vitsearch.storage.config import disk_errors

SIDES = (160, 320, 640, 1280)  # pixels: a grid on a phone, a grid, a large grid, one photo
WHOLE = (
    4096  # the longest side of a photo that is written again for those who may not see its metadata
)
FOLDER = "thumbnails"
_NAME = re.compile(r"[0-9a-f]{32}-\d{1,5}\.webp")
_FULL_BELOW = (
    0.9  # after the cap was met, so much of it is left: not every new picture has to remove one
)


@dataclass(frozen=True, slots=True)
class Thumbnail:
    """A WebP picture: its bytes, the hex fingerprint of the photo that it shows, and its longest
    side at most.
    """

    data: bytes
    fingerprint: str
    side: int

    @property
    def tag(self) -> str:
        """The entity tag: another one for another picture."""
        return f'"{self.fingerprint}-{self.side}"'


class Thumbnails:
    """The thumbnails of one collection in a folder of at most ``most_bytes``; the least recently
    used are removed.

    A disk that takes no more costs time, not the picture. Safe to use from several threads.
    """

    def __init__(self, folder: Path, decoder: PhotoDecoder, most_bytes: int) -> None:
        self._folder, self._decoder, self._most = folder, decoder, most_bytes
        self._lock = threading.Lock()
        self._sizes: OrderedDict[str, int] = _kept(
            folder
        )  # name to bytes, the least recently used first
        self._total = sum(self._sizes.values())
        self.made = self.found = 0

    @property
    def kept_bytes(self) -> int:
        """How many bytes are on the disk."""
        return self._total

    def get(self, file: Path, fingerprint: bytes, side: int) -> Thumbnail:
        """Return the picture of a photo file whose content had this fingerprint; raises PhotoError
        for a file that shows nothing.
        """
        kept = self._read(_name(fingerprint.hex(), side))
        if kept is not None:
            return Thumbnail(kept, fingerprint.hex(), side)
        data, now = read_bytes_and_fingerprint(file)
        image, _ = self._decoder.decode(data, at_least=2 * side)
        made = Thumbnail(webp(image, side), now.hex(), side)
        self._keep(_name(made.fingerprint, side), made.data)
        return made

    def _read(self, name: str) -> bytes | None:
        with self._lock:
            if name not in self._sizes:
                return None
            self._sizes.move_to_end(name)
        try:
            data = (self._folder / name).read_bytes()
            os.utime(self._folder / name)  # the order of use outlives the process
        except OSError:
            with self._lock:
                self._total -= self._sizes.pop(name, 0)
            return None
        self.found += 1
        return data

    def _keep(self, name: str, data: bytes) -> None:
        self.made += 1
        if len(data) > self._most:
            return
        try:
            with disk_errors(self._folder):
                self._folder.mkdir(parents=True, exist_ok=True)
                atomic_write(self._folder / name, data, sync=False)
        except CollectionError:
            return
        with self._lock:
            self._total += len(data) - self._sizes.pop(name, 0)
            self._sizes[name] = len(data)
            surplus = self._surplus()
        for old in surplus:
            (self._folder / old).unlink(missing_ok=True)

    def _surplus(self) -> list[str]:
        """Forget the least recently used pictures where there are too many bytes, and return their
        names.
        """
        names: list[str] = []
        if self._total > self._most:
            while self._total > _FULL_BELOW * self._most and len(self._sizes) > 1:
                name, size = self._sizes.popitem(last=False)
                self._total -= size
                names.append(name)
        return names


def webp(image: Image.Image, side: int, quality: int = 82) -> bytes:
    """Return an RGB picture as WebP, its longest side at most so many pixels, without metadata."""
    out = io.BytesIO()
    thumbnail(image, side).save(out, "WEBP", quality=quality, method=2)
    return out.getvalue()


def _name(fingerprint: str, side: int) -> str:
    return f"{fingerprint}-{side}.webp"


def _kept(folder: Path) -> "OrderedDict[str, int]":
    """Return the names and sizes of the pictures in a folder, the least recently used first;
    leftovers of a killed process are removed.
    """
    found: list[tuple[int, str, int]] = []
    try:
        for entry in os.scandir(folder):
            if _NAME.fullmatch(entry.name):
                status = entry.stat(follow_symlinks=False)
                found.append((status.st_mtime_ns, entry.name, status.st_size))
            elif entry.name.endswith(".new"):
                Path(entry.path).unlink(missing_ok=True)
    except OSError:
        pass
    return OrderedDict((name, size) for _, name, size in sorted(found))
