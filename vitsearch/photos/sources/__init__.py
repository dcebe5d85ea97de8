"""Where photos come from, by name: a folder, an object store, Parquet files, tars; for embedding
on many machines. Photos in tars, as webdataset packs them, are each read from the byte where they
lie.
"""

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
from vitsearch.photos.sources.files import named_files
from vitsearch.photos.sources.source import (
    CAPTION_SUFFIXES,
    CUT,
    FORMATS,
    MAX_CAPTION_BYTES,
    Entry,
    LocalFolder,
    SampleTexts,
    Source,
    SourceFormat,
    Urls,
    absolute,
    checked,
    error_text,
    identity,
    is_pattern,
    is_photo,
    protocol_of,
    read_error,
    rejection,
    relative,
)
from vitsearch.photos.walk import left_out_by_default

__all__ = ["FORMATS", "Entry", "Source", "SourceFormat", "Urls", "open_source"]

_ENDINGS: dict[str, SourceFormat] = {".tar": "tar", ".parquet": "parquet"}
_PACKED = (".tar.gz", ".tgz", ".tar.bz2", ".tar.xz", ".tar.zst", ".zip")


def open_source(
    name: str | os.PathLike[str], source_format: SourceFormat = "auto", urls: Urls = "none"
) -> Source:
    """Return the photos at a name, which is one of these.

    A local folder, walked as indexing does; the URL of a folder (``s3://bucket/prefix``, ``gs://``,
    any of fsspec's); one ``.parquet`` file or ``.tar``, a pattern of them (``s3://bucket/*.tar``),
    or braces (``{000..012}.tar``). The ending says which, or ``source_format``, with which a folder
    is one of Parquet files or tars.

    Parquet has the photos in a column ``image``, ``bytes`` or ``jpg``, or the names of files in
    ``path``: relative to the folder of the Parquet file, absolute, or URLs. Photos in Parquet are
    in the order of their rows, all others in that of the bytes of their paths. With ``urls`` that
    are "public", or "private" too, photos in a column ``url`` are fetched from these addresses.

    Raises CollectionError where there is nothing, it cannot be read, or a package is missing.
    """
    if source_format not in FORMATS:
        raise CollectionError(
            f"no source format is called {source_format!r}: give one of {', '.join(FORMATS)}"
        )
    location = absolute(os.fspath(name))
    kind = _format(location) if source_format == "auto" else source_format
    if kind == "folder":
        return _folder(location)
    _check_url(location)
    return TarFiles(location) if kind == "tar" else _parquet(location, urls)


def _format(location: str) -> SourceFormat:
    if os.path.isdir(location):
        return "folder"
    if location.lower().endswith(_PACKED):
        raise CollectionError(
            f"{location} is compressed, and its parts cannot be read one by one: unpack it, or "
            "make it a .tar"
        )
    return next((kind for ending, kind in _ENDINGS.items() if location.endswith(ending)), "folder")


def _folder(location: str) -> Source:
    if protocol_of(location) is not None:
        _check_url(location)
        from vitsearch.photos.sources.remote import RemoteFolder, check_there

        check_there(location)
        return RemoteFolder(location)
    if not os.path.exists(location):
        what = "file fits" if is_pattern(location) else "folder or file is called"
        raise CollectionError(
            f"no {what} {location}: check the spelling, or whether its disk is mounted"
        )
    if not os.path.isdir(location):
        raise CollectionError(
            f"{location} is no folder, no .parquet and no .tar: name one of these, or say which "
            "with a source format"
        )
    return LocalFolder(location)


def _check_url(location: str) -> None:
    """Raise CollectionError where the packages for a URL are missing."""
    protocol = protocol_of(location)
    if protocol is None:
        return
    try:
        from vitsearch.photos.sources.remote import filesystem
    except ModuleNotFoundError as error:
        extra = "'vitsearch[s3]'" if protocol in ("s3", "s3a") else "fsspec"
        raise CollectionError(f"{protocol}:// needs a package: pip install {extra}") from error
    filesystem(location)


def _parquet(location: str, urls: Urls) -> Source:
    try:
        from vitsearch.photos.sources.parquet import open_parquet
    except ModuleNotFoundError as error:
        raise CollectionError(
            f"{location} is read as Parquet, which needs an extra: pip install 'vitsearch[parquet]'"
        ) from error
    return open_parquet(location, urls)


# -- Tars ------------------------------------------------------------------------------------------


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
                elif (
                    suffix in CAPTION_SUFFIXES
                    and member.isreg()
                    and member.size <= MAX_CAPTION_BYTES
                ):
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
