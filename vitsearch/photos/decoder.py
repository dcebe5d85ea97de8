"""The one way to a picture from a file that a stranger may have made.

A decoder that browsers trust too (`vitsearch.photos.formats`) runs in a thread of this process; a
photo that it does not finish within `PATIENCE` is tried once more in a child process. Any other
format is decoded in a child process at once, and so is a photo that was in hand when an earlier
process died. In a child a decoder may hang or crash, which fails the photo alone.

Which photos are in hand stands in a journal, a file of records of `RECORD` bytes. Each begins with
what is known of a photo (``h``: in hand, ``b``: its decoder crashed or hung, 0: none), the
fingerprint of its content, and its name as the length and the bytes; zeros fill the rest. A photo
is one ``pwrite`` at each end, without fsync: it has to outlive the process, not the machine.
"""

import io
import logging
import os
import struct
import threading
from collections.abc import Generator, Iterable, Iterator, Mapping
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path
from typing import IO, Any

from PIL import Image

from vitsearch.errors import PhotoError
from vitsearch.photos.decode import (
    Colours,
    LoadedPhoto,
    read_bytes_and_fingerprint,
    read_open,
    webp,
)
from vitsearch.photos.formats import (
    HEAD,
    SUFFIXES,
    container_of,
    format_of,
    is_video,
    suffix_of,
)
from vitsearch.photos.isolated import (
    PATIENCE,
    ChildDecoder,
    Decoded,
    DecoderDied,
    DecoderNotStarted,
    DecoderPool,
    DecoderThread,
)
from vitsearch.photos.text import PhotoText
from vitsearch.records import atomic_write
from vitsearch.types import MAX_PIXELS, PhotoInfo

NAME = "decoding"  # of the file, in the folder of a collection
RECORD = 512
_HEAD = struct.Struct(">c16sH")
_NAME_BYTES = RECORD - _HEAD.size
_NONE, _IN_HAND, _BAD = b"\0", b"h", b"b"


class DecodeJournal:
    """The journal of a collection's folder, for the one process that writes there.

    ``left_in_hand`` names the photos that the last run was decoding when its process died. Where
    the file cannot be written, nothing is journalled. As a context manager it closes the file, and
    leaves the photos that are to be remembered, or no file; a block that ends without an error has
    met every photo.
    """

    def __init__(self, folder: Path) -> None:
        self._file = folder / NAME
        self._lock = threading.Lock()
        self._stream: IO[bytes] | None = None
        records = _read(self._file)
        self.left_in_hand = sorted({name for kind, _, name in records if kind == _IN_HAND})
        self._suspects = {content: (kind, name) for kind, content, name in records}
        self._free: list[int] = []
        self._slots = 0

    def __enter__(self) -> "DecodeJournal":
        return self

    def __exit__(self, error: object, *_: object) -> None:
        with self._lock, suppress(OSError):
            if self._stream is not None:
                self._stream.close()
            if error is None:
                self._suspects = {
                    content: entry for content, entry in self._suspects.items() if entry[0] == _BAD
                }
            if self._suspects:
                self._store()
            else:
                self._file.unlink(missing_ok=True)

    def __contains__(self, fingerprint: object) -> bool:
        """Whether a photo of this content was in hand when a process died, or its decoder crashed
        or hung.
        """
        return fingerprint in self._suspects

    @contextmanager
    def entry(self, fingerprint: bytes, name: str) -> Iterator[None]:
        """Have the photo in the journal during the block, from any thread."""
        slot = self._add(_record(_IN_HAND, fingerprint, name))
        try:
            yield
        finally:
            with self._lock:
                self._write(slot, _HEAD.pack(_NONE, b"", 0))
                self._free.append(slot)

    def keep(self, fingerprint: bytes, name: str) -> None:
        """Remember a photo whose decoder crashed or hung, until `forget`."""
        self._suspects[fingerprint] = (_BAD, name)
        self._add(_record(_BAD, fingerprint, name))

    def forget(self, fingerprint: bytes) -> None:
        """Forget a photo that could be decoded after all."""
        self._suspects.pop(fingerprint, None)

    def _add(self, record: bytes) -> int:
        with self._lock:
            if not self._free:
                if self._slots == 0:
                    self._open()
                self._free.append(self._slots)
                self._slots += 1
            slot = self._free.pop()
            self._write(slot, record)
            return slot

    def _open(self) -> None:
        self._slots = len(self._suspects)
        with suppress(OSError):
            self._store()
            self._stream = open(self._file, "r+b", buffering=0)  # noqa: SIM115  closed at exit

    def _write(self, slot: int, record: bytes) -> None:
        if self._stream is not None and not self._stream.closed:
            with suppress(OSError):
                os.pwrite(self._stream.fileno(), record, slot * RECORD)

    def _store(self) -> None:
        """Write the file anew with what is to be remembered alone."""
        records = [_record(kind, content, name) for content, (kind, name) in self._suspects.items()]
        atomic_write(self._file, b"".join(records), sync=False)


def _record(kind: bytes, fingerprint: bytes, name: str) -> bytes:
    # the end of a long path tells more than its beginning
    raw = name.encode("utf-8", "surrogateescape")[-_NAME_BYTES:]
    return (_HEAD.pack(kind, fingerprint, len(raw)) + raw).ljust(RECORD, b"\0")


def _read(file: Path) -> list[tuple[bytes, bytes, str]]:
    """Return kind, fingerprint and name of a file's records; what is not one is passed over."""
    try:
        data = file.read_bytes()
    except OSError:
        return []
    records = []
    for start in range(0, len(data) - _HEAD.size + 1, RECORD):
        kind, fingerprint, length = _HEAD.unpack_from(data, start)
        if kind in (_IN_HAND, _BAD) and length <= _NAME_BYTES:
            raw = data[start + _HEAD.size : start + _HEAD.size + length]
            records.append((kind, fingerprint, raw.decode("utf-8", "surrogateescape")))
    return records


log = logging.getLogger("vitsearch")
# -- The decoder -----------------------------------------------------------------------------------


LIMIT = 180.0  # seconds for a photo in a child before it fails
_SLOW = (
    "%s takes longer than %g s to decode: unless it is done within %g s more, in a process of its "
    "own, it fails alone (--decode-timeout SECONDS sets another limit)"
)


def read_photo(
    path: Path | str,
    *,
    max_pixels: int = MAX_PIXELS,
    at_least: int | None = None,
    colours: Colours = "srgb",
    decoder: "PhotoDecoder | None" = None,
) -> LoadedPhoto:
    """Return the photo at a path; parameters as for `vitsearch.photos.decode.decode`.

    Who reads many photos passes a ``decoder``, so that not every one starts a process of its own.
    Raises only PhotoError, with a short reason.
    """
    data, fingerprint = read_bytes_and_fingerprint(path)
    with nullcontext(decoder) if decoder else PhotoDecoder() as chosen:
        image, info = chosen.decode(
            data, name=str(path), max_pixels=max_pixels, at_least=at_least, colours=colours
        )
    return LoadedPhoto(image, info, fingerprint)


@contextmanager
def journalled_decoder(folder: Path, seconds: float | None = None) -> Iterator["PhotoDecoder"]:
    """Yield the decoder for a run that writes into a collection's folder; ``seconds`` as for
    `PhotoDecoder`.

    What was in hand when an earlier run died is decoded in a process of its own.
    """
    with DecodeJournal(folder) as journal, PhotoDecoder(seconds, journal=journal) as decoder:
        if journal.left_in_hand:
            log.warning(
                "the last run ended while it decoded %s: tried in a process of its own now",
                ", ".join(journal.left_in_hand),
            )
        yield decoder


def need_children(names: Iterable[str]) -> bool:
    """Return whether one of the files is, by its name, of a format that child processes decode."""
    return any(
        is_video(name) or ((entry := SUFFIXES.get(suffix_of(name))) and not entry.trusted)
        for name in names
    )


class PhotoDecoder:
    """Decodes photos, from any thread, until it is closed, which also stops what is being decoded.

    With ``seconds``, a finite number above 0, every photo is decoded in a child process, within
    that limit. ``journal`` notes what is decoded in this process.
    """

    def __init__(
        self, seconds: float | None = None, *, journal: DecodeJournal | None = None
    ) -> None:
        self._seconds, self._journal = seconds, journal
        self._closed = self._childless = False
        self._children = DecoderPool(ChildDecoder)
        self._threads = DecoderPool(DecoderThread)

    def __enter__(self) -> "PhotoDecoder":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __reduce__(self) -> tuple[type["PhotoDecoder"], tuple[float | None]]:
        return PhotoDecoder, (self._seconds,)  # another process has threads and children of its own

    def start(self, count: int) -> None:
        """Start so many child processes ahead; raises DecoderNotStarted as `decode` does."""
        try:
            self._children.fill(count)
        except DecoderNotStarted:
            if self._seconds is not None:
                raise

    def decode(
        self,
        data: bytes,
        /,
        *,
        name: str = "a picture",
        fingerprint: bytes = b"",
        max_pixels: int = MAX_PIXELS,
        at_least: int | None = None,
        colours: Colours = "srgb",
    ) -> tuple[Image.Image, PhotoInfo]:
        """Return what `vitsearch.photos.decode.decode` returns for the content of a photo file.

        ``name`` is for messages and the journal, ``fingerprint`` for the journal. Raises PhotoError
        also where it takes too long or the decoder crashes, VitsearchError where no process can be
        started.
        """
        limits = {"max_pixels": max_pixels, "at_least": at_least, "colours": colours}
        suspected = self._journal is not None and fingerprint in self._journal
        if self._seconds is None and not suspected and (self._childless or is_trusted(data)):
            with suppress(TimeoutError):
                return self._in_thread(data, fingerprint, name, limits)
            suspected = True
        try:
            return self._in_child(data, fingerprint, name, limits, suspected)
        except DecoderNotStarted as error:
            if self._seconds is not None:
                raise
            if suspected:
                raise PhotoError(str(error)) from error
        self._childless = True
        return self._in_thread(data, fingerprint, name, limits)

    def webp(self, data: bytes, side: int, *, max_pixels: int = MAX_PIXELS) -> bytes:
        """Return the content of a photo file as WebP without metadata, upright, its longest side at
        most ``side``: decoded, resized and written in a child process. Raises as `decode` does.
        """
        try:
            child = self._children.take()
        except DecoderNotStarted:
            if self._seconds is not None:
                raise
            return webp(self.decode(data, max_pixels=max_pixels, at_least=side)[0], side)
        try:
            return child.webp(
                data, seconds=self._seconds or LIMIT, max_pixels=max_pixels, side=side
            )
        finally:
            self._children.give_back(child)

    def text(
        self,
        data: bytes,
        *,
        max_pixels: int = MAX_PIXELS,
        threads: int = 1,
    ) -> PhotoText:
        """Return the text in the content of a photo file, read in a child process; raises as
        `decode` does, and VitsearchError where the library that reads it is missing.
        """
        child = self._children.take()
        try:
            return child.text(
                data, seconds=self._seconds or LIMIT, max_pixels=max_pixels, threads=threads
            )
        finally:
            self._children.give_back(child)

    def moments(
        self,
        path: str,
        /,
        *,
        every: float,
        fingerprint: bytes = b"",
        max_pixels: int = MAX_PIXELS,
        at_least: int | None = None,
    ) -> Generator[Decoded, None, str]:
        """Yield the moments of a video and return a note, as `vitsearch.photos.video.read_moments`
        does; in a child process, within the limit or, where none was given, that for photos and the
        length of the video.
        """
        limits = {"max_pixels": max_pixels, "at_least": at_least}
        return self._of_video({"video": path, "every": every, **limits}, path, fingerprint)

    def moment(self, path: str, /, *, at: float, at_least: int | None = None) -> Decoded:
        """Return the moment of a video at a time, as `vitsearch.photos.video.read_moment` does."""
        request = {"video": path, "at": at, "max_pixels": MAX_PIXELS, "at_least": at_least}
        (moment,) = self._of_video(request, path, b"")
        return moment

    def decode_file(
        self,
        file: io.FileIO,
        /,
        *,
        at: float | None,
        name: str = "a picture",
        at_least: int | None = None,
    ) -> Image.Image:
        """Return the picture of an open file (see `vitsearch.photos.decode`), of a video the
        moment ``at`` a time.
        """
        head = file.read(HEAD)
        file.seek(0)
        if container_of(head) is None:
            return self.decode(read_open(file), name=name, at_least=at_least)[0]
        # the very file that is open, where the system gives it a name
        opened = f"/proc/{os.getpid()}/fd/{file.fileno()}"
        path = opened if os.path.exists(opened) else str(file.name)
        return self.moment(path, at=at or 0.0, at_least=at_least)[0]

    def _of_video(
        self, request: Mapping[str, Any], path: str, fingerprint: bytes
    ) -> Generator[Decoded, None, str]:
        try:
            child = self._children.take()
        except DecoderNotStarted as error:
            raise PhotoError(str(error)) from error
        try:
            return (
                yield from child.moments(
                    request, seconds=self._seconds or LIMIT, grows=self._seconds is None
                )
            )
        except DecoderNotStarted as error:
            raise PhotoError(str(error)) from error
        except DecoderDied:
            if self._journal and not self._closed:
                self._journal.keep(fingerprint, path)
            raise
        finally:
            self._children.give_back(child)

    def close(self) -> None:
        """End every process and thread; callers that still wait fail their photo, and so does who
        asks for another one.
        """
        self._closed = True
        self._children.close()
        self._threads.close()

    def _in_thread(
        self, data: bytes, fingerprint: bytes, name: str, limits: Mapping[str, Any]
    ) -> Decoded:
        """Decode in a thread; raises TimeoutError where the photo is to be moved to a child."""
        thread = self._threads.take()
        journal = self._journal
        try:
            with journal.entry(fingerprint, name) if journal else nullcontext():
                return thread.decode(data, seconds=PATIENCE, **limits)
        except TimeoutError:
            if journal:
                journal.keep(fingerprint, name)
            log.warning(_SLOW, name, PATIENCE, LIMIT)
            raise
        finally:
            self._threads.give_back(thread)

    def _in_child(
        self, data: bytes, fingerprint: bytes, name: str, limits: Mapping[str, Any], suspected: bool
    ) -> Decoded:
        seconds = self._seconds or LIMIT
        child = self._children.take()
        try:
            decoded = child.decode(
                data,
                seconds=seconds,
                on_slow=None
                if suspected
                else lambda: log.warning(_SLOW, name, PATIENCE, seconds - PATIENCE),
                **limits,
            )
        except DecoderDied:
            if self._journal and not self._closed:
                self._journal.keep(fingerprint, name)
            raise
        finally:
            self._children.give_back(child)
        if self._journal and suspected:
            self._journal.forget(fingerprint)
        return decoded


def is_trusted(data: bytes) -> bool:
    """Return whether the content of a photo file may be decoded in this process."""
    entry = format_of(data)
    return entry is None or entry.trusted
