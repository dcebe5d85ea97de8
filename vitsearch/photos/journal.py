"""Which photos are being decoded: what is left there when a decoder takes the process down.

A file of records of `RECORD` bytes. Each begins with what is known of a photo (``h``: in hand,
``b``: its decoder crashed or hung, 0: none), the fingerprint of its content, and its name as the
length and the bytes; zeros fill the rest. A photo is one ``pwrite`` at each end, without fsync: it
has to outlive the process, not the machine.
"""

import os
import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

from vitsearch.records import atomic_write

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
