"""Which encoder made vectors: one record of it, one check, one text."""

from dataclasses import dataclass

import numpy as np
import pytest

from vitsearch.encoders.base import (
    EncoderIdentity,
    check_samples,
    golden_from_bytes,
    golden_from_lists,
    golden_vectors,
)
from vitsearch.encoders.colour import ColourEncoder
from vitsearch.errors import EncoderMismatch

NONE = np.empty((0, 27), np.float32)
OTHER = EncoderIdentity("mini", "0" * 32, "float32", 27, NONE)


@dataclass(frozen=True)
class Record:
    encoder: str
    encoder_fingerprint: str
    dtype: str
    dim: int


def test_the_identity_of_an_encoder_and_of_a_record() -> None:
    encoder = ColourEncoder()
    identity = EncoderIdentity.of(encoder)
    assert (identity.name, identity.dtype, identity.dim) == ("colour", "float32", 27)
    np.testing.assert_array_equal(identity.golden, golden_vectors(encoder))
    stored = EncoderIdentity.from_record(Record("colour", encoder.fingerprint, "float32", 27))
    assert stored.golden.shape == (0, 27)
    for other in (encoder, identity, stored):
        identity.check(other, "photos", "go elsewhere")
    stored.check_golden(encoder)  # golden vectors that are not known are not compared


def test_one_text_for_another_encoder() -> None:
    for other, of, source in (
        (ColourEncoder(), None, "colour"),
        (EncoderIdentity.of(ColourEncoder()), "here", "colour of here"),
    ):
        with pytest.raises(EncoderMismatch) as caught:
            OTHER.check(other, "photos", "go elsewhere", of=of)
        assert str(caught.value) == (
            f"photos was made with mini (fingerprint 00000000), not with this {source} "
            f"({ColourEncoder.fingerprint[:8]}): use that encoder and version, or go elsewhere"
        )


def test_another_name_and_another_classifier_are_refused() -> None:
    OTHER.check_name("mini", "photos")
    for fingerprint in ("", "0" * 32):
        OTHER.check_classifier(fingerprint)
    with pytest.raises(EncoderMismatch, match="^photos was made with mini, not with colour"):
        OTHER.check_name("colour", "photos")
    with pytest.raises(EncoderMismatch, match="another encoder than mini: train it again here"):
        OTHER.check_classifier("1" * 32)


def test_golden_vectors_come_back_from_bytes_and_lists() -> None:
    golden = golden_vectors(ColourEncoder())
    stored = golden_from_bytes(golden.astype("<f4").tobytes(), 27)
    np.testing.assert_array_equal(stored, golden)
    np.testing.assert_array_equal(golden_from_lists(golden.tolist(), 27), golden)
    assert golden_from_bytes(None, 27).shape == golden_from_lists([], 27).shape == (0, 27)
    with pytest.raises(ValueError, match="^'golden' holds no rows of 27 numbers$"):
        golden_from_lists([[1.0]], 27)


def test_some_of_the_samples_may_differ() -> None:
    encoder = ColourEncoder()
    assert check_samples(encoder, {"a": 1.0, "b": 0.98, "c": 0.99, "d": 1.0}, 4) == {"b"}
    with pytest.raises(EncoderMismatch, match="of 2 photos embedded to compare, 1 have a cosine"):
        check_samples(encoder, {"a": 1.0, "b": float("nan")}, 2)
    with pytest.raises(EncoderMismatch, match="none of 3 photos could be compared"):
        check_samples(encoder, {}, 3)
