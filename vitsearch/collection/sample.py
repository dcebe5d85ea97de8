"""Photos that stand for all: every photo of a collection, and a sample of a large one in Milvus."""

from collections import Counter
from collections.abc import Sequence
from typing import Any, TypeGuard

import numpy as np

from vitsearch.arrays import unit_rows
from vitsearch.filters.tree import And, Comparison, Filter
from vitsearch.labels import Decision, LabelClassifier, predict
from vitsearch.milvus.overview import Sample
from vitsearch.milvus.store import MilvusStore
from vitsearch.paths import raw_path
from vitsearch.storage import reader as stored
from vitsearch.storage.reader import PhotoReader, Positions, Towns, values_of
from vitsearch.types import Prediction


def is_large(store: PhotoReader) -> TypeGuard[MilvusStore]:
    """Return whether it is that of a collection in Milvus that answers from a sample."""
    return isinstance(store, MilvusStore) and store.is_large


def sampled_values(store: PhotoReader, columns: Sequence[str]) -> list[tuple[Any, ...]]:
    """Return the values of some columns (`values_of`), of a large collection in Milvus those of a
    sample.
    """
    return values_of(store, columns, store.sampled_photos() if is_large(store) else None)


def sampled_ids(store: PhotoReader, where: Filter) -> set[int]:
    """Return the ids of the photos that match a filter, of a large collection in Milvus those of
    the sample.
    """
    return store.sampled_ids(where) if is_large(store) else {*store.ids_where(where).tolist()}


def label_sample(
    store: PhotoReader, classifier: LabelClassifier, decision: Decision
) -> list[Prediction]:
    """Return the labels of the photos of a sample, in order of path, the best label first."""
    assert isinstance(store, MilvusStore)
    rows = sorted(store.sampled_rows(), key=lambda row: raw_path(row[1]))
    vectors = unit_rows(store.halves([row[2] for row in rows]))
    scores = predict(classifier, vectors, decision)
    return [
        Prediction(path, name, score, photo_id)
        for (photo_id, path, _, _), labels in zip(rows, scores, strict=True)
        for name, score in labels
    ]


def positions(store: PhotoReader, where: Filter) -> Positions:
    """Return the positions of the photos that match a filter, in order of id (see `Positions`)."""
    if not is_large(store):
        return stored.positions(store, where)
    sample = _located(store, where, ["latitude", "longitude"])
    rows = np.array([(row["latitude"], row["longitude"]) for row in sample.rows], dtype=np.float64)
    latitudes, longitudes = rows.reshape(-1, 2).T
    ids = np.array([row["id"] for row in sample.rows], dtype=np.int64)
    return Positions(ids, latitudes, longitudes, sample.total if sample.size else None)


def towns(store: PhotoReader, where: Filter) -> Towns:
    """Return the towns of the photos that match a filter and have a position (see `Towns`)."""
    if not is_large(store):
        return stored.towns(store, where)
    sample = _located(store, where, ["country", "city"])
    counts = Counter((row["country"] or "", row["city"] or "") for row in sample.rows)
    return Towns(sorted(counts.items()), sample.size)


def _located(store: MilvusStore, where: Filter, columns: list[str]) -> Sample:
    on_earth = Comparison("latitude", ">=", -90), Comparison("longitude", ">=", -180)
    return store.sampled(["id", *columns], store.first_moments(And((where, *on_earth))))
