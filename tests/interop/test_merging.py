"""One collection into another."""

import json
import os
from pathlib import Path
from typing import Any

import pytest

from helpers.collections import CountingEncoder, counts, found_paths
from helpers.interop import facts, opened
from helpers.photos import paint
from vitsearch import Collection, CollectionError, Prediction, Progress, index_folder
from vitsearch.encoders.colour import ColourEncoder
from vitsearch.errors import EncoderMismatch
from vitsearch.interop import (
    MergeReport,
    merge,
)


def merged(source: Path, target: Path, **options: Any) -> MergeReport:
    with opened(source) as first, opened(target, **options) as second:
        return merge(first, second)


def test_a_collection_of_a_folder_inside_is_merged(tmp_path: Path) -> None:
    outer, inner = tmp_path / "all", tmp_path / "all" / "trips" / "north"
    paint(outer / "red.png", "red")
    index_folder(outer, encoder=ColourEncoder())
    paint(inner / "blue.png", "blue")
    paint(inner / "deep" / "green.png", "green")
    index_folder(inner, encoder=ColourEncoder())
    with opened(inner) as found:
        found.store_labels(
            [Prediction("blue.png", "cold", 0.5, next(one.photo_id for one in found.photos()))]
        )
    inside = {f"trips/north/{row[0]}": row[1:] for row in facts(inner)}
    assert merged(inner, outer) == MergeReport(added=2, unchanged=0, replaced=0, kept=0, total=3)
    now = {row[0]: row[1:] for row in facts(outer)}
    assert {path: row for path, row in now.items() if path != "red.png"} == inside
    assert found_paths(outer, "green", 1) == ["trips/north/deep/green.png"]  # before any indexing
    assert merged(inner, outer) == MergeReport(added=0, unchanged=2, replaced=0, kept=0, total=3)
    encoder = CountingEncoder()
    assert counts(index_folder(outer, encoder=encoder)) == {"unchanged": 3}
    assert encoder.embedded == 0


def test_the_newer_file_wins_where_both_have_a_path(indexed: Path, tmp_path: Path) -> None:
    index_folder(indexed, encoder=ColourEncoder(), collection=tmp_path / "old")
    old = facts(indexed)
    paint(indexed / "red.png", "blue", "red", "green")
    os.utime(indexed / "red.png", ns=(0, next(row[2] for row in old if row[0] == "red.png") + 10))
    index_folder(indexed, encoder=ColourEncoder())
    new = facts(indexed)
    with opened(indexed, collection=tmp_path / "old") as found:
        ids = {one.path: one.photo_id for one in found.photos()}
        found.store_labels(
            [
                Prediction("red.png", "old", 1.0, ids["red.png"]),
                Prediction("green.png", "go", 0.5, ids["green.png"]),
            ]
        )
    with opened(indexed, collection=tmp_path / "old") as source, opened(indexed) as target:
        assert merge(source, target) == MergeReport(
            added=0, unchanged=3, replaced=0, kept=1, total=4
        )
    now = {row[0]: row for row in facts(indexed)}
    assert now["green.png"][5:7] == ("go", 0.5)  # a label that the target lacked
    assert now["red.png"] == next(row for row in new if row[0] == "red.png")
    with opened(indexed) as source, opened(indexed, collection=tmp_path / "old") as target:
        assert merge(source, target) == MergeReport(
            added=0, unchanged=3, replaced=1, kept=0, total=4
        )
    assert {row[0]: row for row in facts(indexed, collection=tmp_path / "old")} == now


def test_what_does_not_belong_together_is_not_merged(indexed: Path, tmp_path: Path) -> None:
    paint(tmp_path / "other" / "a.png", "red")
    index_folder(tmp_path / "other", encoder=ColourEncoder())
    before = facts(indexed)
    with pytest.raises(CollectionError, match=r"other does not lie in .*photos: merge into"):
        merged(tmp_path / "other", indexed)
    with pytest.raises(CollectionError, match="is both collections"):
        merged(indexed, indexed)
    index_folder(indexed, encoder=ColourEncoder(), collection=tmp_path / "changed")
    settings_file = tmp_path / "changed" / "collection.json"
    settings_file.write_text(
        json.dumps(json.loads(settings_file.read_text()) | {"encoder_fingerprint": "1" * 32})
    )
    with (
        Collection.open(indexed, collection=tmp_path / "changed") as source,
        opened(indexed) as target,
    ):
        with pytest.raises(EncoderMismatch, match=r"made with colour \(fingerprint 11111111\)"):
            merge(source, target)

    def stop(_: Progress) -> None:
        raise KeyboardInterrupt

    inner = paint(indexed / "more" / "a.png", "red").parent
    index_folder(inner, encoder=ColourEncoder())
    with opened(inner) as source, opened(indexed) as target, pytest.raises(KeyboardInterrupt):
        merge(source, target, progress=stop)
    assert facts(indexed) == before
