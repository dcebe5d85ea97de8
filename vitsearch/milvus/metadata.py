"""What a collection of Milvus says of itself, beside its rows."""

import base64
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from vitsearch.arrays import Vectors
from vitsearch.encoders.identity import EncoderIdentity, golden_from_bytes
from vitsearch.errors import CollectionError
from vitsearch.records import parse_record, to_json

FORMAT = 1
FACTS, GENERATION, BUILT = (
    "vitsearch",
    "vitsearch_generation",
    "vitsearch_index",
)  # properties of the collection


@dataclass(frozen=True, slots=True)
class CollectionMetadata:
    """Which encoder made the vectors, and where the photos are.

    ``golden`` holds the encoder's vectors of the golden picture and sentence, float32 in base64;
    ``source`` is the folder or URL that paths are relative to; ``decoding`` says whether JPEGs were
    decoded "scaled" or "exact".
    """

    encoder: str
    encoder_fingerprint: str
    dtype: str
    dim: int
    golden: str
    source: str
    decoding: str
    format: int = FORMAT

    @property
    def identity(self) -> EncoderIdentity:
        """Which encoder made the vectors."""
        golden = golden_from_bytes(base64.b64decode(self.golden), self.dim)
        return EncoderIdentity.from_record(self, golden)

    def to_json(self) -> str:
        """Return the facts as one line of text."""
        return to_json(self).strip()


def packed(golden: Vectors) -> str:
    """Return golden vectors as they are kept."""
    return base64.b64encode(np.ascontiguousarray(golden, dtype="<f4").tobytes()).decode("ascii")


def read_facts(
    properties: Mapping[str, object], description: object, place: object
) -> CollectionMetadata:
    """Return the facts of a collection, from its properties or its description; raises
    CollectionError where it has none.
    """
    text = str(properties.get(FACTS) or description)
    if not text.startswith("{"):
        raise CollectionError(
            f"{place} was not made by vitsearch: push a shard set into another --collection NAME"
        )
    return parse_record(
        CollectionMetadata,
        text,
        str(place),
        error=CollectionError,
        repair="push into another --collection NAME",
    )
