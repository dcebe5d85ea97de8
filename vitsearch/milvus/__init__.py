"""Vectors served from Milvus: the URI of a collection, its rows, and filters in its language.

``milvus://HOST:PORT/NAME``, ``milvus+https://HOST:PORT/NAME`` and ``milvus://PATH/FILE.db/NAME``
(Milvus Lite, in this process) name a collection; the token of a server is read from the environment
variable MILVUS_TOKEN. What vitsearch has to know about a collection, above all which encoder made
its vectors, is stored both in its properties and in its description, since not every version of
Milvus keeps both.
"""

from typing import TYPE_CHECKING

from vitsearch.errors import CollectionError, needing
from vitsearch.milvus.filter import milvus_filter
from vitsearch.milvus.schema import CollectionMetadata, MilvusUri, is_milvus, parse_uri

if TYPE_CHECKING:
    from vitsearch.milvus.client import Connection

__all__ = [
    "CollectionMetadata",
    "MilvusUri",
    "connect",
    "is_milvus",
    "milvus_filter",
    "parse_uri",
]

_PACKAGES = {"pymilvus", "grpc", "milvus_lite", "google"}


def connect(uri: MilvusUri, *, consistency: str = "Strong") -> "Connection":
    """Return an open connection to a server or to a file of Milvus Lite (see `Connection`).

    Raises CollectionError, also if a package is missing.
    """
    with needing(_PACKAGES, "Milvus needs the package", "milvus", CollectionError):
        from vitsearch.milvus.client import Connection
    return Connection(uri, consistency=consistency)
