"""The metadata that is stored with a collection of Milvus, beside its rows."""

import base64
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from vitsearch.arrays import Vectors
from vitsearch.encoders.base import EncoderIdentity, golden_from_bytes
from vitsearch.errors import CollectionError
from vitsearch.records import parse_record, to_json

FORMAT = 1
# names of the collection's properties
METADATA, GENERATION, INDEX_PARAMS = "vitsearch", "vitsearch_generation", "vitsearch_index"


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
    text = str(properties.get(METADATA) or description)
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
