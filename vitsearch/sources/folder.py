"""Photos in a local folder, found and read as indexing does."""

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from vitsearch.errors import CollectionError, PhotoError, VitsearchError
from vitsearch.photos import walk
from vitsearch.photos.decode import read_bytes
from vitsearch.sources.source import Entry, refusal


@dataclass(frozen=True, slots=True)
class LocalFolder:
    """The photos below a folder of this machine, in the order of the bytes of their paths; a folder that cannot be read is an entry."""

    name: str

    def entries(self) -> Iterator[Entry]:
        unreadable: list[Entry] = []

        def on_unreadable(path: str, reason: str) -> None:
            unreadable.append(Entry(path, 0, 0, problem=f"cannot be read: {reason}"))

        try:
            for found in walk(Path(self.name), on_unreadable=on_unreadable):
                yield from unreadable
                unreadable.clear()
                yield Entry(found.path, found.size, found.mtime_ns, problem=found.problem)
        except CollectionError:
            raise
        except VitsearchError as error:
            raise CollectionError(str(error)) from error
        yield from unreadable

    def read(self, entries: Sequence[Entry]) -> Iterator[bytes | PhotoError]:
        return (read_local(entry, os.path.join(self.name, entry.path)) for entry in entries)


def read_local(entry: Entry, file: str) -> bytes | PhotoError:
    """Return the bytes of an entry that is a file of its own, or why it has none."""
    try:
        return refusal(entry) or read_bytes(file)
    except PhotoError as error:
        return error
