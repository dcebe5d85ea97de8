"""Vectors served from Milvus: where a collection is, how a photo is kept there, and what a filter
is in its language.

``milvus://HOST:PORT/NAME``, ``milvus+https://HOST:PORT/NAME`` and ``milvus://PATH/FILE.db/NAME``
(Milvus Lite, in this process) name a collection; the token of a server is read from the environment
variable MILVUS_TOKEN. What vitsearch has to know of it, which encoder made the vectors above all,
is kept in its properties and, since not every version keeps both, in its description.
"""

from typing import TYPE_CHECKING

from vitsearch.errors import CollectionError
from vitsearch.milvus.filter import milvus_filter
from vitsearch.milvus.metadata import CollectionMetadata
from vitsearch.milvus.uri import MilvusUri, is_milvus, parse_place

if TYPE_CHECKING:
    from vitsearch.milvus.client import Connection

__all__ = [
    "CollectionMetadata",
    "MilvusUri",
    "connect",
    "is_milvus",
    "milvus_filter",
    "parse_place",
]

_PACKAGES = {"pymilvus", "grpc", "milvus_lite", "google"}


def connect(place: MilvusUri) -> "Connection":
    """Return an open connection to a server or a file of Milvus Lite; raises CollectionError, also
    where a package is missing.
    """
    try:
        from vitsearch.milvus.client import Connection
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] not in _PACKAGES:
            raise
        raise CollectionError(
            f"Milvus needs the package {error.name}: pip install 'vitsearch[milvus]'"
        ) from error
    return Connection(place)
