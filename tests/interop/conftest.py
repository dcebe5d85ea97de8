from pathlib import Path

import pytest

from helpers.interop import opened
from helpers.photos import paint
from vitsearch import Prediction, index_folder
from vitsearch.encoders.colour import ColourEncoder


@pytest.fixture
def labelled(indexed: Path) -> Path:
    """The indexed folder, one more photo, and two stored labels."""
    paint(indexed / "blue.png", "blue", "red")
    index_folder(indexed, encoder=ColourEncoder())
    with opened(indexed) as found:
        ids = {one.path: one.photo_id for one in found.photos()}
        found.store_labels(
            [
                Prediction("red.png", "warm, \u00e9", 0.75, ids["red.png"]),
                Prediction("sub/blue.png", "cold", 0.5, ids["sub/blue.png"]),
            ]
        )
    return indexed
