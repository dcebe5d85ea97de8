"""What the code before the redesign wrote opens as before: the same results, to the bit."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from helpers.paths import TESTS
from vitsearch import Collection, index_folder
from vitsearch.collection.query import Term, parse_query
from vitsearch.encoders.colour import ColourEncoder
from vitsearch.interop import import_clip_retrieval, import_faiss, import_shards, merge
from vitsearch.labels import LinearClassifier, TipClassifier
from vitsearch.outputs.sorting import read_manifest
from vitsearch.shards import open_shards

OLD = TESTS / "fixtures" / "old"
EXPECTED = json.loads((OLD / "expected.json").read_text())
LABELS = ["red", "green", "blue", "yellow"]


@pytest.fixture
def old(tmp_path: Path) -> Path:
    """A copy of the fixtures; to open a collection writes into its folder."""
    return Path(shutil.copytree(OLD, tmp_path / "old"))


def open_old(old: Path, name: str) -> Collection:
    return Collection.open(old / "photos", collection=old / name, encoder=ColourEncoder())


def photo_rows(collection: Collection) -> list[list[Any]]:
    return [
        [
            photo.path,
            photo.size,
            photo.mtime_ns,
            photo.fingerprint.hex(),
            [photo.info.width, photo.info.height, photo.info["taken_at"], photo.info["camera"]],
            photo.label,
            None if photo.label_score is None else photo.label_score.hex(),
        ]
        for photo in collection.photos()
    ]


def vector_rows(collection: Collection) -> list[str]:
    return [row.astype("<f4").tobytes().hex() for row in collection.vectors()[1]]


def hits(collection: Collection, query: Any, **options: Any) -> list[list[str]]:
    """Return the results; words with a minus were subtracted then, which terms of vectors still
    are.
    """
    if isinstance(query, str) and " - " in query:
        encode = ColourEncoder().encode_texts
        query = [Term(encode([term.what])[0], term.weight) for term in parse_query(query)]
    results = collection.search(query, 10, **options)
    return [[hit.path, float(hit.score).hex()] for hit in results]


@pytest.mark.parametrize("name", ["exact", "ivf"])
def test_a_collection_gives_the_same_results(old: Path, name: str, remarks: list[str]) -> None:
    expected = EXPECTED[name]
    with open_old(old, name) as collection:
        info = collection.info()
        assert {key: info[key] for key in expected["info"]} == expected["info"]
        assert photo_rows(collection) == expected["photos"]
        assert vector_rows(collection) == expected["vectors"]
        failures = [[file.path, file.state, file.reason] for file in collection.failures()]
        assert failures == expected["failures"]
        assert {query: hits(collection, query) for query in expected["search"]} == (
            expected["search"]
        )
        assert hits(collection, old / "photos" / "pink.png") == expected["similar"]
        filtered = hits(collection, "red", where="camera = 'Old Camera 1'")
        assert [path for path, _ in filtered] == expected["where"]
        predictions = collection.label(LABELS)
        assert [[each.path, each.label, each.score.hex()] for each in predictions] == (
            expected["labels"]
        )
        assert remarks == []
        checks = {check.name: check.ok for check in collection.verify()}
    del checks["files"]  # a checkout gives the photos other times
    assert checks == {"database": True, "encoder": True, "index": True}


@pytest.mark.parametrize("name", ["exact", "ivf"])
def test_a_collection_is_indexed_again_without_embedding(old: Path, name: str) -> None:
    report = index_folder(old / "photos", collection=old / name, encoder=ColourEncoder())
    assert (report.unchanged, report.indexed, report.removed, report.total) == (6, 0, 0, 6)
    with open_old(old, name) as collection:
        assert vector_rows(collection) == EXPECTED[name]["vectors"]
        assert {query: hits(collection, query) for query in EXPECTED[name]["search"]} == (
            EXPECTED[name]["search"]
        )


def test_a_shard_set_holds_the_same_rows(old: Path) -> None:
    shards = open_shards(str(old / "shards"))
    assert [
        [row.path, row.size, row.fingerprint.hex(), row.label, vector.astype("<f2").tobytes().hex()]
        for rows, block in shards.blocks()
        for row, vector in zip(rows, block, strict=True)
    ] == EXPECTED["shards"]


@pytest.mark.parametrize(
    ("name", "importer"),
    [
        ("shards", import_shards),
        ("clip-retrieval", import_clip_retrieval),
        ("faiss", import_faiss),
    ],
)
def test_an_export_is_imported_with_the_same_vectors(old: Path, name: str, importer: Any) -> None:
    report = importer(
        old / name, old / "photos", collection=old / "imported", encoder=ColourEncoder()
    )
    assert (report.imported, report.total) == (6, 6)
    with open_old(old, "imported") as collection:
        assert vector_rows(collection) == EXPECTED["exact"]["vectors"]
        rows = [[row[0], *row[3:]] for row in photo_rows(collection)]
        assert rows == [[row[0], *row[3:]] for row in EXPECTED["exact"]["photos"]]


def test_a_shard_set_is_imported_without_its_photos(old: Path) -> None:
    report = import_shards(old / "shards", collection=old / "alone", encoder=ColourEncoder())
    assert (report.imported, report.total) == (6, 6)
    with open_old(old, "alone") as collection:
        assert photo_rows(collection) == EXPECTED["exact"]["photos"]
        assert vector_rows(collection) == EXPECTED["exact"]["vectors"]


def test_a_collection_is_merged_into_another(old: Path) -> None:
    with open_old(old, "exact") as source, open_old(old, "ivf") as target:
        report = merge(source, target)
    assert (report.added, report.unchanged, report.replaced, report.kept) == (0, 6, 0, 0)
    with open_old(old, "ivf") as collection:
        assert photo_rows(collection) == EXPECTED["exact"]["photos"]


@pytest.mark.parametrize("name", sorted(EXPECTED["classifiers"]))
def test_a_classifier_gives_the_same_logits(old: Path, name: str) -> None:
    kind = TipClassifier if name == "tip" else LinearClassifier
    classifier = kind.load(old / "classifiers" / name)
    expected = dict(EXPECTED["classifiers"][name])
    expected.pop("scale", None)
    with open_old(old, "exact") as collection:
        assert {
            "classes": list(classifier.classes),
            "activation": classifier.activation,
            "fingerprint": classifier.fingerprint,
            "logits": classifier.logits(collection.vectors()[1]).astype("<f4").tobytes().hex(),
        } == expected
        collection.check_classifier(classifier)


def test_a_manifest_of_sorted_photos_says_the_same(old: Path) -> None:
    entries = read_manifest(str(old / "sorted"))
    assert {
        name: [entry.photo, entry.link, entry.size, entry.mtime_ns, entry.photo_mtime_ns]
        for name, entry in entries.items()
    } == EXPECTED["sorted"]
