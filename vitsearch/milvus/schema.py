"""What is stored in Milvus and where: the URI of a collection, written where a photo folder could
be named, the metadata that is stored beside its rows, and a photo as a row and back.
"""

import base64
import hashlib
import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vitsearch.arrays import Vectors
from vitsearch.encoders.base import EncoderIdentity, golden_from_bytes
from vitsearch.errors import CollectionError
from vitsearch.milvus.filter import CASEFOLDED, casefold
from vitsearch.paths import composed
from vitsearch.photos.columns import COLUMNS, METADATA, Column
from vitsearch.records import parse_record, to_json
from vitsearch.types import Photo, PhotoInfo

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


# -- Metadata --------------------------------------------------------------------------------------


FORMAT = 1
# names of the collection's properties
METADATA_KEY, GENERATION, INDEX_PARAMS = "vitsearch", "vitsearch_generation", "vitsearch_index"


@dataclass(frozen=True, slots=True)
class CollectionMetadata:
    """Which encoder made the vectors, and where the photos are.

    ``golden`` holds the encoder's vectors of the golden picture and sentence, float32 in base64;
    ``source`` is the folder or URL that paths are relative to; ``decoding`` says whether JPEGs were
    decoded "scaled" or "exact", ``colours`` whether ICC profiles were applied ("srgb") or ignored.
    """

    encoder: str
    encoder_fingerprint: str
    dtype: str
    dim: int
    golden: str
    source: str
    decoding: str
    colours: str = "raw"
    format: int = FORMAT

    @property
    def identity(self) -> EncoderIdentity:
        """Which encoder made the vectors."""
        golden = golden_from_bytes(base64.b64decode(self.golden), self.dim)
        return EncoderIdentity.from_record(self, golden)

    def to_json(self) -> str:
        """Return the metadata as one line of JSON."""
        return to_json(self).strip()


def encode_golden(golden: Vectors) -> str:
    """Return golden vectors as they are stored, float32 in base64."""
    return base64.b64encode(np.ascontiguousarray(golden, dtype="<f4").tobytes()).decode("ascii")


def read_metadata(
    properties: Mapping[str, object], description: object, uri: object
) -> CollectionMetadata:
    """Return the metadata of a collection, from its properties or else its description.

    Raises CollectionError if there is none.
    """
    text = str(properties.get(METADATA_KEY) or description)
    if not text.startswith("{"):
        raise CollectionError(
            f"{uri} was not made by vitsearch: push a shard set into another --collection NAME"
        )
    return parse_record(
        CollectionMetadata,
        text,
        str(uri),
        error=CollectionError,
        repair="push into another --collection NAME",
    )


# -- Rows ------------------------------------------------------------------------------------------


MAX_TEXT_BYTES = 65_535
TEXT, INTEGER, REAL = "VARCHAR", "INT64", "DOUBLE"
DIGEST = "digest"  # of all that a row holds: tells without reading them whether two rows are equal


def _type_of(column: Column) -> str:
    if column.kind != "number":
        return TEXT
    return INTEGER if column.integer else REAL


# name: (type, whether it may be null)
FIELDS: Mapping[str, tuple[str, bool]] = {
    "fingerprint": (TEXT, False),
    "mtime_ns": (INTEGER, False),
    DIGEST: (INTEGER, False),
    **{name: (_type_of(column), not column.always) for name, column in COLUMNS.items()},
    **{copy: (TEXT, not COLUMNS[name].always) for name, copy in CASEFOLDED.items()},
}
PHOTO_FIELDS = (
    "path", "size", "mtime_ns", "fingerprint", "width", "height", *METADATA, "label", "score",
)  # fmt: skip


@lru_cache(maxsize=10_000)  # cameras, lenses and towns repeat
def _copied(text: str) -> str:
    """Return a text as the copy of its column has it."""
    return casefold(composed(text))


def row_of(
    photo: Photo, vector: NDArray[Any], names: Iterable[str] = FIELDS.keys()
) -> dict[str, Any]:
    """Return the row of a photo with its vector ``(dim,)``, of the fields with these names."""
    values = {name: column.of(photo) for name, column in COLUMNS.items()}
    copies = {
        copy: None if values[name] is None else _copied(str(values[name]))
        for name, copy in CASEFOLDED.items()
    }
    stat = {"fingerprint": photo.fingerprint.hex(), "mtime_ns": photo.mtime_ns}
    every = {**stat, **values, **copies}
    row = {name: every[name] for name in FIELDS if name in every and name in names}
    if DIGEST in names:
        row[DIGEST] = _digest(row, vector)
    return {"id": photo.photo_id, **row, "vector": vector}


def _digest(row: Mapping[str, Any], vector: NDArray[Any]) -> int:
    """Return a 64-bit number of the values and of the vector in half precision."""
    digest = hashlib.blake2b(repr(sorted(row.items())).encode(), digest_size=8)
    digest.update(vector.astype("<f2").tobytes())
    return int.from_bytes(digest.digest(), "little", signed=True)


def photo_of(row: Mapping[str, Any]) -> Photo:
    """Return the photo of a row with the columns `PHOTO_FIELDS`; metadata may be missing."""
    metadata = {name: row.get(name) for name in METADATA}
    return Photo(
        row["id"],
        row["path"],
        row["size"],
        row["mtime_ns"],
        bytes.fromhex(row["fingerprint"]),
        PhotoInfo(row["width"], row["height"], metadata),
        row["label"],
        row["score"],
    )


def rejection(photo: Photo) -> str | None:
    """Return why Milvus cannot hold a photo's row, or None if it can.

    The texts of Milvus are UTF-8 of a limited length.
    """
    for name in CASEFOLDED:
        text = str(COLUMNS[name].of(photo) or "")
        if text.isascii() and 2 * len(text) <= MAX_TEXT_BYTES:  # no copy is longer
            continue
        label = "name" if name == "path" else name
        if any("\ud800" <= char <= "\udfff" for char in text):
            return f"the {label} is not UTF-8"
        if max(len(text.encode()), len(_copied(text).encode())) > MAX_TEXT_BYTES:
            return f"the {label} is longer than {MAX_TEXT_BYTES:,} bytes"
    return None
