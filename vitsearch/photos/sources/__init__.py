"""Where photos come from, by name: a folder, an object store, Parquet files, tars; for embedding
on many machines.
"""

import os

from vitsearch.errors import CollectionError
from vitsearch.photos.sources.names import absolute, is_pattern, protocol_of
from vitsearch.photos.sources.source import FORMATS, Entry, LocalFolder, Source, SourceFormat
from vitsearch.photos.sources.tar import TarFiles

# -- A source by its name --------------------------------------------------------------------------

_ENDINGS: dict[str, SourceFormat] = {".tar": "tar", ".parquet": "parquet"}
_PACKED = (".tar.gz", ".tgz", ".tar.bz2", ".tar.xz", ".tar.zst", ".zip")


def open_source(name: str | os.PathLike[str], source_format: SourceFormat = "auto") -> Source:
    """Return the photos at a name, which is one of these.

    A local folder, walked as indexing does; the URL of a folder (``s3://bucket/prefix``, ``gs://``,
    any of fsspec's); one ``.parquet`` file or ``.tar``, a pattern of them (``s3://bucket/*.tar``),
    or braces (``{000..012}.tar``). The ending says which, or ``source_format``, with which a folder
    is one of Parquet files or tars.

    Parquet has the photos in a column ``image``, ``bytes`` or ``jpg``, or the names of files in
    ``path``: relative to the folder of the Parquet file, absolute, or URLs. Photos in Parquet are
    in the order of their rows, all others in that of the bytes of their paths.

    Raises CollectionError where there is nothing, it cannot be read, or a package is missing.
    """
    if source_format not in FORMATS:
        raise CollectionError(
            f"no source format is called {source_format!r}: give one of {', '.join(FORMATS)}"
        )
    place = absolute(os.fspath(name))
    kind = _format(place) if source_format == "auto" else source_format
    if kind == "folder":
        return _folder(place)
    _check_url(place)
    return TarFiles(place) if kind == "tar" else _parquet(place)


def _format(place: str) -> SourceFormat:
    if os.path.isdir(place):
        return "folder"
    if place.lower().endswith(_PACKED):
        raise CollectionError(
            f"{place} is compressed, and its parts cannot be read one by one: unpack it, or "
            "make "
            "it a .tar"
        )
    return next((kind for ending, kind in _ENDINGS.items() if place.endswith(ending)), "folder")


def _folder(place: str) -> Source:
    if protocol_of(place) is not None:
        _check_url(place)
        from vitsearch.photos.sources.remote import RemoteFolder, check_there

        check_there(place)
        return RemoteFolder(place)
    if not os.path.exists(place):
        what = "file fits" if is_pattern(place) else "folder or file is called"
        raise CollectionError(
            f"no {what} {place}: check the spelling, or whether its disk is mounted"
        )
    if not os.path.isdir(place):
        raise CollectionError(
            f"{place} is no folder, no .parquet and no .tar: name one of these, or say which "
            "with "
            "a source format"
        )
    return LocalFolder(place)


def _check_url(place: str) -> None:
    """Raise CollectionError where the packages for a URL are missing."""
    protocol = protocol_of(place)
    if protocol is None:
        return
    try:
        from vitsearch.photos.sources.remote import filesystem
    except ModuleNotFoundError as error:
        extra = "'vitsearch[s3]'" if protocol in ("s3", "s3a") else "fsspec"
        raise CollectionError(f"{protocol}:// needs a package: pip install {extra}") from error
    filesystem(place)


def _parquet(place: str) -> Source:
    try:
        from vitsearch.photos.sources.parquet import open_parquet
    except ModuleNotFoundError as error:
        raise CollectionError(
            f"{place} is read as Parquet, which needs an extra: pip install 'vitsearch[parquet]'"
        ) from error
    return open_parquet(place)


# -- Where photos come from -----------------------------------------------------------------------

__all__ = ["FORMATS", "Entry", "Source", "SourceFormat", "open_source"]
