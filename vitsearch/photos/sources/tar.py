"""Photos in tars, as webdataset packs them; each is read from the byte where it lies."""

import os
import stat
import tarfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from typing import BinaryIO

from vitsearch.errors import CollectionError, PhotoError
from vitsearch.paths import raw_path
from vitsearch.photos.sidecars import companions_of
from vitsearch.photos.sources.captions import MAX_BYTES, SUFFIXES, SampleTexts
from vitsearch.photos.sources.files import named_files
from vitsearch.photos.sources.names import identity, is_photo, protocol_of, relative
from vitsearch.photos.sources.source import CUT, Entry, checked, error_text, read_error, rejection
from vitsearch.photos.walk import left_out_by_default

_NO_FILE = "a link or a device, not a file"


@dataclass(frozen=True, slots=True)
class TarFiles:
    """The photos in tars that are not compressed, in the order of the bytes of ``TAR/MEMBER``; one
    tar's members are held at a time.

    Other members, hidden ones and those of hidden folders are passed over. A tar that is cut or
    damaged is an entry with a problem, beside those of its photos that can be found.
    """

    name: str

    def entries(self) -> Iterator[Entry]:
        folder, files = named_files(self.name, "tar")
        for file in files:
            texts = SampleTexts()
            members = sorted(
                _members(file, relative(folder, file), texts),
                key=lambda entry: raw_path(entry.path),
            )
            for before, entry in zip([None, *members], members, strict=False):
                if before is not None and before.path == entry.path:
                    raise CollectionError(
                        f"{file} has {entry.path!r} twice, and a photo is known by its path: pack "
                        "it again without"
                    )
            pairs = companions_of(entry.path for entry in members if entry.problem is None)
            captions = texts.captions([entry.path for entry in members])
            for entry, caption in zip(members, captions, strict=True):
                if entry.path not in pairs:
                    yield replace(entry, caption=caption)

    def read(self, entries: Sequence[Entry]) -> Iterator[bytes | PhotoError]:
        for file, run in groupby(entries, key=lambda entry: entry.container):
            if file is None:
                yield from (rejection(entry) or PhotoError("not in a tar") for entry in run)
            elif protocol_of(file) is None:
                yield from _read_local(file, run)
            else:
                from vitsearch.photos.sources.remote import read_spans

                yield from read_spans(file, list(run))


def _members(file: str, tar: str, texts: SampleTexts) -> Iterator[Entry]:
    """Yield the photos of a tar in the order in which they lie there; ``texts`` gets the small
    texts by the key of their sample.
    """
    count, last = 0, -1
    member: tarfile.TarInfo | None = None
    try:
        with (
            _opened(file) as opened,
            tarfile.open(
                fileobj=opened, mode="r:", encoding="utf-8", errors="surrogateescape"
            ) as archive,
        ):
            while (member := archive.next()) is not None:
                if archive.offset <= last:  # it would be listed for ever
                    raise tarfile.ReadError("a member of less than no bytes")
                last = archive.offset
                archive.members.clear()  # type: ignore[attr-defined]  # it would keep every header
                count += 1
                suffix = os.path.splitext(member.name)[1]
                if (entry := _entry(member, file, tar)) is not None:
                    yield entry
                elif suffix in SUFFIXES and member.isreg() and member.size <= MAX_BYTES:
                    content = archive.extractfile(member)
                    name = f"{tar}/{identity(member.name)}"
                    texts.add(name, content.read() if content else b"")
    except tarfile.TarError as error:
        yield Entry(tar, 0, 0, problem=_damage(file, count, error, is_tar=member is not None))
    except FileNotFoundError as error:
        raise CollectionError(f"there is no {file}: check the spelling and the numbers") from error
    except CollectionError:
        raise
    except Exception as error:  # clients of object stores raise classes of their own
        yield Entry(
            tar, 0, 0, problem=f"the tar cannot be read behind {count} members: {error_text(error)}"
        )


def _damage(file: str, count: int, error: tarfile.TarError, *, is_tar: bool) -> str:
    if is_tar:
        return f"the tar is cut or damaged behind {count} members: {error_text(error)}"
    return (
        "not a tar, or a compressed one, of which parts cannot be read (unpack "
        f"{os.path.basename(file)}): {error_text(error)}"
    )


def _entry(member: tarfile.TarInfo, file: str, tar: str) -> Entry | None:
    path = identity(member.name)
    parts = [part for part in (path or member.name).split("/") if part not in ("", "..")]
    if (
        member.isdir()
        or not is_photo(parts[-1] if parts else "")
        or any(map(left_out_by_default, parts, ["", *parts]))
    ):
        return None
    problem = (
        "its name leads out of the tar"
        if path is None
        else None
        if member.isreg() and not member.issparse()
        else _NO_FILE
    )
    mtime_ns = max(0, min(int(member.mtime * 1_000_000_000), 2**63 - 1))
    return Entry(
        f"{tar}/{path or member.name}", member.size, mtime_ns, file, member.offset_data, problem
    )


def _opened(file: str) -> BinaryIO:
    if protocol_of(file) is not None:
        from vitsearch.photos.sources.remote import opened

        return opened(file)
    descriptor = os.open(
        file, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
    )
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise tarfile.ReadError("not a regular file")
    return os.fdopen(descriptor, "rb")


def _read_local(file: str, entries: Iterator[Entry]) -> Iterator[bytes | PhotoError]:
    try:
        opened = _opened(file)
    except (OSError, tarfile.ReadError) as error:
        reason = read_error(error)
        yield from (rejection(entry) or reason for entry in entries)
        return
    with opened:
        for entry in entries:
            yield rejection(entry) or _read_at(opened, entry)


def _read_at(opened: BinaryIO, entry: Entry) -> bytes | PhotoError:
    try:
        opened.seek(entry.position or 0)
        data = opened.read(entry.size)
    except (OSError, MemoryError, ValueError) as error:
        return read_error(error)
    return checked(data) if len(data) == entry.size else PhotoError(CUT)
