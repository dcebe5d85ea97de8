"""Where a shard set lies: a folder, or a prefix in an object store, through fsspec."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import fsspec
from fsspec.core import url_to_fs
from fsspec.implementations.local import LocalFileSystem

from vitsearch.errors import CollectionError
from vitsearch.records import atomic_write

_PACKAGES = {
    "s3": "pip install 'vitsearch[s3]'",
    "s3a": "pip install 'vitsearch[s3]'",
    "gs": "pip install gcsfs",
    "gcs": "pip install gcsfs",
}
_CLIENTS = ("botocore", "aiobotocore", "s3fs", "gcsfs", "google", "aiohttp")


class Storage:
    """Files below one folder or URL, named relative to it with ``/``.

    A file appears complete or not at all. Every method raises CollectionError where the folder or
    URL cannot be reached, read or written.
    """

    def __init__(self, url: str) -> None:
        if not url:
            raise CollectionError(
                "the name of the output is empty: name a folder, or a URL such as "
                "s3://bucket/vectors"
            )
        self._fs, self._root = _opened(url)
        self.is_local = isinstance(self._fs, LocalFileSystem)
        self.name = self._root if self.is_local else url.rstrip("/")

    def exists(self, name: str) -> bool:
        """Return whether there is a file of that name."""
        with self._errors(name):
            self._fs.invalidate_cache()
            return bool(self._fs.isfile(self._at(name)))

    def read(self, name: str) -> bytes:
        """Return the content of a file."""
        with self._errors(name):
            return bytes(self._fs.cat_file(self._at(name)))

    @contextmanager
    def opened(self, name: str) -> Iterator[BinaryIO]:
        """Open a file for random access, as to read the footer of a Parquet file."""
        with self._errors(name), self._fs.open(self._at(name), "rb") as file:
            yield file

    def names(self, folder: str) -> list[str]:
        """Return the names of the files in a folder, in order; none where it does not exist."""
        with self._errors(folder):
            self._fs.invalidate_cache()
            try:
                return sorted(
                    path.rstrip("/").rpartition("/")[2]
                    for path in self._fs.ls(self._at(folder), detail=False)
                )
            except FileNotFoundError:
                return []

    def write(self, name: str, data: bytes) -> None:
        """Write a file, replacing one of the same name."""
        with self._errors(name):
            if self.is_local:
                path = Path(self._at(name))
                path.parent.mkdir(parents=True, exist_ok=True)
                atomic_write(path, data)
            else:
                # an object store shows an object when it is complete
                self._fs.pipe_file(self._at(name), data)

    def _at(self, name: str) -> str:
        return f"{self._root}/{name}" if name else self._root

    @contextmanager
    def _errors(self, name: str) -> Iterator[None]:
        full_name = f"{self.name}/{name}".rstrip("/")
        try:
            yield
        except FileNotFoundError as error:
            raise CollectionError(f"{full_name} is not there: check the name") from error
        except PermissionError as error:
            raise CollectionError(
                f"{full_name} may not be read or written ({_words(error)}): check "
                "its permissions, or the keys"
            ) from error
        except OSError as error:
            raise CollectionError(
                f"{full_name} cannot be reached ({_words(error)}): check the "
                "address and the disk; try again"
            ) from error
        except Exception as error:  # the clients of object stores raise their own classes
            if not type(error).__module__.startswith(_CLIENTS):
                raise
            raise CollectionError(
                f"{full_name} cannot be reached ({_words(error)}): check the address and the keys"
            ) from error


def _opened(url: str) -> tuple[Any, str]:
    protocol = url.partition("://")[0] if "://" in url else ""
    try:
        fs, root = url_to_fs(os.path.expanduser(url) if not protocol else url)
    except ImportError as error:
        raise CollectionError(
            f"{protocol}:// needs a package: {_PACKAGES.get(protocol, _words(error))}"
        ) from error
    except ValueError as error:
        available = fsspec.available_protocols()
        known = ", ".join(f"{name}://" for name in ("file", "s3", "gs") if name in available)
        raise CollectionError(
            f"{protocol}:// is not known ({_words(error)}): give a folder, or one of {known}"
        ) from error
    return fs, str(root).rstrip("/")


def _words(error: BaseException) -> str:
    text = str(getattr(error, "strerror", None) or error)
    return " ".join(text.split())[:160] or type(error).__name__
