"""The URI of a collection in Milvus, written where a photo folder could be named."""

import os
import re
from dataclasses import dataclass
from pathlib import Path

from vitsearch.errors import CollectionError

PORT = 19530
_SCHEMES = {"milvus://": "http://", "milvus+https://": "https://"}
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,254}", re.ASCII)
_HOST = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+)(?::(\d{1,5}))?", re.ASCII)
_FORMS = "milvus://HOST:PORT/NAME, milvus+https://HOST:PORT/NAME or milvus://PATH/FILE.db/NAME"


@dataclass(frozen=True, slots=True)
class MilvusUri:
    """Where a collection of Milvus is: the address for the client, and the collection's name.

    ``file`` is the database file of Milvus Lite, None for a server.
    """

    address: str
    name: str
    file: Path | None = None

    def __str__(self) -> str:
        scheme = "milvus+https://" if self.address.startswith("https://") else "milvus://"
        return f"{scheme}{self.file or self.address.partition('://')[2]}/{self.name}"


def is_milvus(photos: str | os.PathLike[str]) -> bool:
    """Return whether a name is the URI of a collection in Milvus."""
    return os.fspath(photos).startswith(tuple(_SCHEMES))


def parse_uri(uri: str, name: str | None = None) -> MilvusUri:
    """Return the parts of a URI such as ``milvus://localhost:19530/photos``.

    With ``name`` the last part may be left out: ``milvus://localhost:19530``. Raises
    CollectionError.
    """
    scheme = next((scheme for scheme in _SCHEMES if uri.startswith(scheme)), None)
    if scheme is None:
        raise CollectionError(f"{uri} names nothing in Milvus: write {_FORMS}")
    where = uri.removeprefix(scheme).rstrip("/")
    if name is None or not (where.endswith(".db") or _HOST.fullmatch(where)):
        where, _, last = where.rpartition("/")
        if name is not None and last != name:
            raise CollectionError(
                f"{uri} names the collection {last!r}, and not {name!r}: give one of the two"
            )
        name = last
    if not _NAME.fullmatch(name):
        raise CollectionError(
            f"{uri}: {name!r} is not a name of a collection (letters, digits and _, no digit "
            f"first): write {_FORMS}"
        )
    if where.endswith(".db") and scheme == "milvus://":
        file = Path(where).expanduser()
        return MilvusUri(str(file), name, file)
    host = _HOST.fullmatch(where)
    if host is None or int(host[2] or PORT) > 65535:
        raise CollectionError(f"{uri}: {where!r} is neither HOST:PORT nor FILE.db: write {_FORMS}")
    return MilvusUri(f"{_SCHEMES[scheme]}{host[1]}:{host[2] or PORT}", name)
