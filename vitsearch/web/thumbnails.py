"""Thumbnails of photos in a folder of limited size: upright, and without metadata."""

import hashlib
import io
import os
import re
import threading
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from vitsearch.errors import CollectionError
from vitsearch.photos.decode import fingerprint_of, webp
from vitsearch.photos.decoder import PhotoDecoder
from vitsearch.records import atomic_write
from vitsearch.storage.filesystem import disk_errors
from vitsearch.types import Photo

SIDES = (160, 320, 640, 1280)  # pixels: a grid on a phone, a grid, a large grid, one photo
WHOLE = 4096  # the longest side of a photo written anew for those who may not see its metadata
FOLDER = "thumbnails"
_VERSION = 2  # of how pictures are decoded: those of another are not shown
_NAME = re.compile(rf"[0-9a-f]{{32}}-\d{{1,5}}-{_VERSION}\.webp")
_FORMER = re.compile(r"[0-9a-f]{32}-\d{1,5}\.webp")
_TRIMMED = 0.9  # of the limit: trimming to less means that not every new picture removes one


@dataclass(frozen=True, slots=True)
class Thumbnail:
    """A WebP picture: its bytes, the photo's fingerprint as hex, and the longest side that it may
    have.
    """

    data: bytes
    fingerprint: str
    side: int

    @property
    def tag(self) -> str:
        """The entity tag, different for every picture."""
        return f'"{self.fingerprint}-{self.side}-{_VERSION}"'


class Thumbnails:
    """The thumbnails of one collection in a folder of at most ``max_bytes``; the least recently
    used are removed.

    Where the disk is full they are made again each time. Safe to use from several threads.
    """

    def __init__(self, folder: Path, decoder: PhotoDecoder, max_bytes: int) -> None:
        self._folder, self._decoder, self._max_bytes = folder, decoder, max_bytes
        self._lock = threading.Lock()
        self._sizes = _stored_sizes(folder)
        self._total = sum(self._sizes.values())
        self.made = self.reused = 0

    @property
    def stored_bytes(self) -> int:
        """How many bytes are on disk."""
        return self._total

    def get(self, opened: Callable[[], io.FileIO], photo: Photo, side: int) -> Thumbnail:
        """Return the thumbnail of a photo, whose file is opened where it is not yet made; raises
        PhotoError for a file that cannot be decoded.
        """
        key = picture_key(photo).hex()
        stored = self._read(_name(key, side))
        if stored is not None:
            return Thumbnail(stored, key, side)
        with opened() as file:
            if photo.time is None:
                data = file.readall()
                made = Thumbnail(self._decoder.webp(data, side), fingerprint_of(data).hex(), side)
            else:
                image = self._decoder.decode_file(file, at=photo.time, at_least=side)
                made = Thumbnail(webp(image, side), key, side)
        self._write(_name(made.fingerprint, side), made.data)
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
        self.reused += 1
        return data

    def _write(self, name: str, data: bytes) -> None:
        self.made += 1
        if len(data) > self._max_bytes:
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
        """Drop the least recently used pictures where there are too many bytes, and return their
        names.
        """
        names: list[str] = []
        if self._total > self._max_bytes:
            while self._total > _TRIMMED * self._max_bytes and len(self._sizes) > 1:
                name, size = self._sizes.popitem(last=False)
                self._total -= size
                names.append(name)
        return names


def picture_key(photo: Photo) -> bytes:
    """Return 16 bytes that stand for what a photo, or the moment of a video, shows."""
    if photo.time is None:
        return photo.fingerprint
    moment = b"%b %.3f" % (photo.fingerprint, photo.time)
    return hashlib.blake2b(moment, digest_size=16).digest()


def _name(fingerprint: str, side: int) -> str:
    return f"{fingerprint}-{side}-{_VERSION}.webp"


def _stored_sizes(folder: Path) -> "OrderedDict[str, int]":
    """Return the names of the pictures in a folder with their bytes, the least recently used first;
    leftovers of a killed process are removed.
    """
    stored: list[tuple[int, str, int]] = []
    try:
        for entry in os.scandir(folder):
            if _NAME.fullmatch(entry.name):
                status = entry.stat(follow_symlinks=False)
                stored.append((status.st_mtime_ns, entry.name, status.st_size))
            elif entry.name.endswith(".new") or _FORMER.fullmatch(entry.name):
                Path(entry.path).unlink(missing_ok=True)
    except OSError:
        pass
    return OrderedDict((name, size) for _, name, size in sorted(stored))
