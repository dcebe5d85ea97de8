"""Photos in an object store, and files in one, through fsspec."""

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import Any, BinaryIO, TypeGuard

import fsspec

from vitsearch.errors import CollectionError, PhotoError
from vitsearch.paths import raw_path
from vitsearch.photos.decode import MAX_BYTES
from vitsearch.photos.sidecars import companions_of
from vitsearch.photos.sources.source import (
    CUT,
    EMPTY,
    Entry,
    checked,
    error_text,
    is_photo,
    protocol_of,
    read_error,
    rejection,
)
from vitsearch.photos.walk import left_out_by_default

_AT_ONCE, _BYTES_AT_ONCE = 16, 64_000_000  # read ahead of the consumer
_GAP, _MAX_REQUEST = 64 * 1024, 8_000_000  # members of a tar that lie together are one request
PAUSES = (1.0, 2.0, 4.0, 8.0, 16.0, 32.0)  # seconds between the tries of a busy store
_NO_RANGE = "not satisfiable"  # S3 says it in other words than HTTP
_BUSY = (408, 429)  # of the answers that blame the request, those that may pass
_PACKAGES = {
    "s3": "pip install 'vitsearch[s3]'",
    "s3a": "pip install 'vitsearch[s3]'",
    "gs": "pip install gcsfs",
    "gcs": "pip install gcsfs",
    "az": "pip install adlfs",
    "abfs": "pip install adlfs",
}
_Request = tuple[
    str, int, int, list[Entry]
]  # an object, first byte, byte after the last, what is in it


@dataclass(frozen=True, slots=True)
class RemoteFolder:
    """The photos below a URL, in the order of the bytes of their paths, without what `walk` leaves
    out; one folder is listed at a time.
    """

    name: str

    def entries(self) -> Iterator[Entry]:
        fs, root = filesystem(self.name)
        with reaching(self.name):
            levels = [_listed(fs, root)]
            while levels:
                if not levels[-1]:
                    levels.pop()
                    continue
                _, path, info = levels[-1].pop()
                if info["type"] != "directory":
                    # not asked for: there are stores that answer such a range with a byte
                    empty = EMPTY if info.get("size") == 0 else None
                    size = int(info.get("size") or 0)
                    yield Entry(path[len(root) + 1 :], size, mtime_ns(info), problem=empty)
                elif path.endswith("/"):
                    yield Entry(
                        path[len(root) + 1 :],
                        0,
                        0,
                        problem="a folder without a name, whose photos cannot be told apart",
                    )
                else:
                    levels.append(_listed(fs, path))

    def read(self, entries: Sequence[Entry]) -> Iterator[bytes | PhotoError]:
        fs, root = filesystem(self.name)
        return read_objects(fs, [f"{root}/{entry.path}" for entry in entries], entries)


def filesystem(url: str) -> tuple[Any, str]:
    """Return the file system of a URL and the path in it; raises CollectionError that names the
    package where one is missing.

    Listings are not kept: another machine may have written since. Keys, region and endpoint are
    those of the environment.
    """
    protocol = protocol_of(url) or ""
    try:
        kind = fsspec.get_filesystem_class(protocol)
        # not url_to_fs: it would take a name with "::" in it for several file systems in each other
        return fsspec.filesystem(
            protocol, use_listings_cache=False, **kind._get_kwargs_from_urls(url)
        ), str(kind._strip_protocol(url))
    except ImportError as error:
        raise CollectionError(
            f"{protocol}:// needs a package: {_PACKAGES.get(protocol, error_text(error))}"
        ) from error
    except ValueError as error:
        raise CollectionError(
            f"cannot read {url} ({error_text(error)}): name a folder, or a URL such as "
            "s3://bucket/photos"
        ) from error


@contextmanager
def reaching(name: str) -> Iterator[None]:
    """Turn the errors of a store in the block into one line."""
    try:
        yield
    except CollectionError:
        raise
    except FileNotFoundError as error:
        raise CollectionError(f"there is nothing at {name}: check the spelling") from error
    except PermissionError as error:
        raise CollectionError(
            f"{name} may not be read ({error_text(error)}): check the keys, and what they allow"
        ) from error
    except Exception as error:  # clients of object stores raise classes of their own
        raise CollectionError(
            f"{name} cannot be reached ({error_text(error)}): check the "
            "address, the region and the keys"
        ) from error


def check_there(url: str) -> None:
    """Raise CollectionError unless there is something at a URL."""
    fs, path = filesystem(url)
    with reaching(url):
        fs.info(path)


def matching(pattern: str) -> list[str]:
    """Return the URLs of the objects that a pattern fits."""
    from vitsearch.photos.sources.source import folder_of

    folder = folder_of(pattern)
    fs, path = filesystem(pattern)
    start = len(str(fs._strip_protocol(folder)))
    with reaching(pattern):
        return [folder + str(match)[start:] for match in fs.glob(path)]


def opened(url: str) -> BinaryIO:
    """Return an object open for reading from front to back, a few megabytes at a time."""
    fs, path = filesystem(url)
    file: BinaryIO = fs.open(path, "rb", block_size=4 * 1024 * 1024, cache_type="readahead")
    return file


def modified_ns(url: str) -> int:
    """Return when an object was last changed, 0 where the store does not say it."""
    fs, path = filesystem(url)
    return mtime_ns(fs.info(path))


def mtime_ns(info: dict[str, Any]) -> int:
    """Return the time of the last change in what a store says of an object, 0 where it does not say
    it.
    """
    for name in ("LastModified", "mtime", "last_modified", "updated", "modified", "created"):
        value = info.get(name)
        if isinstance(value, str):
            value = _parsed(value)
        if isinstance(value, datetime):
            # not through a float, which rounds to 200 ns
            seconds = int(value.replace(microsecond=0).timestamp())
            return seconds * 1_000_000_000 + value.microsecond * 1000
        if isinstance(value, int | float):
            return int(value * 1_000_000_000)
    return 0


def _parsed(text: str) -> datetime | None:
    try:
        return datetime.fromisoformat(text)
    except ValueError:
        return None


def _listed(fs: Any, folder: str) -> list[tuple[bytes, str, dict[str, Any]]]:
    """Return the photos and folders in a folder as (sort key, path, info), the first one last;
    the key orders the bytes of complete paths.
    """
    entries, above = [], folder.rstrip("/").rpartition("/")[2]
    listing = [(str(info["name"])[len(folder) + 1 :], info) for info in fs.ls(folder, detail=True)]
    files = (name for name, info in listing if info["type"] != "directory")
    pairs = companions_of(name for name in files if not left_out_by_default(name, above))
    for name, info in listing:
        is_folder = info["type"] == "directory"
        if (
            not name and info.get("StorageClass") == "DIRECTORY"
        ):  # of "a//b.jpg" in S3; s3fs gives the same listing for it as for "a"
            entries.append((b"/", f"{folder}//", info))
        elif name in pairs and not is_folder:
            continue
        elif name and not left_out_by_default(name, above) and (is_folder or is_photo(name)):
            entries.append((raw_path(name + "/" if is_folder else name), f"{folder}/{name}", info))
    return sorted(entries, key=lambda entry: entry[0], reverse=True)


def read_objects(
    fs: Any, paths: Sequence[str], entries: Sequence[Entry]
) -> Iterator[bytes | PhotoError]:
    """Yield the content of whole objects, several of them requested at once."""
    # the end of the range caps what is read, and spares the question for the size
    requests = [
        (path, 0, MAX_BYTES + 1, [entry]) for path, entry in zip(paths, entries, strict=True)
    ]
    return _fetched(fs, requests)


def read_spans(url: str, entries: Sequence[Entry]) -> Iterator[bytes | PhotoError]:
    """Yield the bytes of entries that lie in one object, which begin at their ``position``."""
    fs, path = filesystem(url)
    return _fetched(fs, _joined(path, entries))


def _joined(path: str, entries: Sequence[Entry]) -> Iterator[_Request]:
    """Yield requests of entries that lie one after the other."""
    waiting: list[Entry] = []
    first = last = 0
    for entry in entries:
        start = entry.position or 0
        end = start + entry.size
        joins = (
            last <= start <= last + _GAP
            and end - first <= _MAX_REQUEST
            and not (rejection(entry) or (waiting and rejection(waiting[-1])))
        )
        if waiting and not joins:
            yield path, first, last, waiting
            waiting = []
        first = first if waiting else start
        last = end
        waiting.append(entry)
    if waiting:
        yield path, first, last, waiting


def _fetched(
    fs: Any, requests: Iterator[_Request] | Sequence[_Request]
) -> Iterator[bytes | PhotoError]:
    waiting: list[_Request] = []
    size = 0
    for request in requests:
        expected = sum(entry.size for entry in request[3])
        if waiting and (len(waiting) == _AT_ONCE or size + expected > _BYTES_AT_ONCE):
            yield from _answers(fs, waiting)
            waiting, size = [], 0
        waiting.append(request)
        size += expected
    yield from _answers(fs, waiting)


def _answers(fs: Any, requests: list[_Request]) -> Iterator[bytes | PhotoError]:
    ranges = [
        request
        for request in requests
        if rejection(request[3][0]) is None and request[2] > request[1]
    ]
    answers = iter(_patient(fs, ranges))
    for _, first, last, entries in requests:
        refused = rejection(entries[0])
        if refused is not None or last <= first:
            yield refused or checked(b"")
            continue
        data = next(answers)
        for entry in entries:
            yield (_part(data, first, entry) if isinstance(data, bytes) else _refused(data, entry))


def _patient(fs: Any, ranges: Sequence[_Request]) -> list[bytes | BaseException]:
    """Return the bytes of each range, or why there are none; what a busy store refuses is asked for
    again after each of `PAUSES`.

    Raises CollectionError where it refuses still: recorded as failures, such photos would be left
    out for ever.
    """
    results = _ranges(fs, ranges)
    for pause in (*PAUSES, None):
        busy = {at: answer for at, answer in enumerate(results) if _may_pass(answer)}
        if not busy:
            break
        if pause is None:
            first, answer = next(iter(busy.items()))
            raise CollectionError(
                f"{ranges[first][0]} cannot be read now ({error_text(answer)}), nor could it for "
                f"{sum(PAUSES):g} s: try again when the store answers, or take that object away "
                "if it answers for others"
            )
        time.sleep(pause)
        for at, retried in zip(busy, _ranges(fs, [ranges[at] for at in busy]), strict=True):
            results[at] = retried
    return results


def _ranges(fs: Any, ranges: Sequence[_Request]) -> list[bytes | BaseException]:
    names, firsts, lasts = ([each[at] for each in ranges] for at in range(3))
    try:
        return list(fs.cat_ranges(names, firsts, lasts, on_error="return"))
    except Exception as error:
        return [error] * len(ranges)


def _may_pass(answer: bytes | BaseException) -> TypeGuard[Exception]:
    """Return whether an answer is an error that may pass, such as 503 or a lost connection."""
    status = getattr(answer, "status", None) or getattr(answer, "code", None)
    refused = isinstance(status, int) and 400 <= status < 500 and status not in _BUSY
    return isinstance(answer, Exception) and not (
        refused
        or isinstance(answer, FileNotFoundError | PermissionError | IsADirectoryError | MemoryError)
        or _NO_RANGE in error_text(answer).lower()
    )


def _refused(error: BaseException, entry: Entry) -> PhotoError:
    if _NO_RANGE in error_text(error).lower():  # it begins behind the object's end
        return PhotoError(CUT) if entry.position is not None else PhotoError(EMPTY)
    return read_error(error)


def _part(data: bytes, first: int, entry: Entry) -> bytes | PhotoError:
    if entry.position is None:
        return checked(data)
    start = entry.position - first
    part = data[start : start + entry.size]
    return checked(part) if len(part) == entry.size else PhotoError(CUT)
