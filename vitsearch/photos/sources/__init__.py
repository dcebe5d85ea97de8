"""Where photos come from, by name: a folder, an object store, Parquet files, tars; for embedding
on many machines.
"""

import os

from vitsearch.errors import CollectionError
from vitsearch.photos.sources.names import absolute, is_pattern, protocol_of
from vitsearch.photos.sources.source import (
    FORMATS,
    Entry,
    LocalFolder,
    Source,
    SourceFormat,
    Urls,
)
from vitsearch.photos.sources.tar import TarFiles

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
