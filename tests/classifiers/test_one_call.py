"""One call for all classifiers: paths, pictures, folders or vectors in, the same rows out."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from helpers.photos import paint
from vitsearch import EncoderError, load_classifier, load_encoder
from vitsearch.encoders.colour import ColourEncoder
from vitsearch.errors import EncoderMismatch, PhotoError, QueryError
from vitsearch.labels import LinearClassifier, tip_classifier, zero_shot_classifier
from vitsearch.types import Prediction

COLOURS = ("red", "green", "blue")


@pytest.fixture
def photos(tmp_path: Path) -> list[Path]:
    return [paint(tmp_path / f"{name}.png", name) for name in COLOURS]


def classifiers() -> list[object]:
    encoder = ColourEncoder()
    zero_shot = zero_shot_classifier(encoder, COLOURS)
    vectors = encoder.encode_texts(list(COLOURS))
    return [zero_shot, zero_shot.scaled(2.0), tip_classifier(zero_shot, vectors, COLOURS)]


@pytest.mark.parametrize("classifier", classifiers(), ids=["zero-shot", "scaled", "tip"])
def test_paths_pictures_folders_and_vectors_have_the_same_labels(
    photos: list[Path], classifier: LinearClassifier
) -> None:
    rows = classifier(photos, 2)
    assert [[best.label, best.path] for best, _ in rows] == [
        [name, str(path)] for name, path in zip(COLOURS, photos, strict=True)
    ]
    assert all(isinstance(each, Prediction) for row in rows for each in row)
    assert all(first.score >= second.score for first, second in rows)
    pictures = [Image.open(path) for path in photos]
    vectors = ColourEncoder().embed(photos)
    for inputs in (pictures, vectors):
        others = classifier(inputs, 2)
        assert [[each.label for each in row] for row in others] == [
            [each.label for each in row] for row in rows
        ]
        assert {each.path for row in others for each in row} == {""}
    assert sorted(each.path for [each] in classifier(photos[0].parent, 1)) == sorted(
        map(str, photos)
    )
    assert classifier(photos[0], 1) == [rows[0][:1]]
    assert classifier(vectors[0], 1)[0][0].label == "red"
    assert classifier([]) == []


def test_a_classifier_that_was_saved_is_given_its_encoder(
    photos: list[Path], tmp_path: Path
) -> None:
    zero_shot_classifier(ColourEncoder(), COLOURS).save(tmp_path / "saved")
    classifier = LinearClassifier.load(tmp_path / "saved")
    with pytest.raises(QueryError, match="reads vectors: give photos together with encoder="):
        classifier(photos)
    assert classifier(photos, 1, encoder=ColourEncoder())[2][0].label == "blue"
    assert classifier(photos, 1, encoder="colour")[2][0].label == "blue"
    with pytest.raises(EncoderMismatch, match="another encoder than mini"):
        classifier(photos, encoder=load_encoder("mini"))
    with pytest.raises(EncoderError):
        classifier(photos, encoder="no such")


def test_what_cannot_be_classified_is_refused(photos: list[Path], tmp_path: Path) -> None:
    classifier = zero_shot_classifier(ColourEncoder(), COLOURS)
    (tmp_path / "bad.jpg").write_bytes(b"no photo")
    with pytest.raises(PhotoError, match="bad.jpg"):
        classifier([photos[0], tmp_path / "bad.jpg"])
    with pytest.raises(QueryError, match="at least 1, not 0"):
        classifier(photos, 0)
    with pytest.raises(QueryError, match="vectors, got shape"):
        classifier(np.ones((2, 3), dtype=np.float32))


@pytest.mark.slow
def test_a_supervised_model_takes_the_same_and_no_vectors(photos: list[Path]) -> None:
    classifier = load_classifier("mini")
    rows = classifier(photos, 2)
    assert [row[0].path for row in rows] == [str(path) for path in photos]
    with pytest.raises(QueryError, match="mini reads pictures, not vectors"):
        classifier(np.ones((1, 512), dtype=np.float32))
