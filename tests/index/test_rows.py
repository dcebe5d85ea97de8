"""Candidates that FAISS itself puts in order by the rows where they lie."""

from pathlib import Path

import faiss
import numpy as np
import pytest

from helpers.indexes import build, clustered
from vitsearch.arrays import unit_rows
from vitsearch.index import faiss_rows
from vitsearch.index.candidates import UnindexedVectors, candidates_for
from vitsearch.index.faiss_index import FaissIndex, build_faiss_index
from vitsearch.index.faiss_rows import ordered_by
from vitsearch.index.recipe import Recipe
from vitsearch.index.snapshot import open_snapshot

COUNT, FIRST = 12_000, 7
FACTORIES = ["IVF16,PQ16x4fs", "PCA24,IVF16,PQ12x4fs", "IVF16,RaBitQ"]


def recipe_of(factory: str) -> Recipe:
    return Recipe("tried", factory=factory, search={"nprobe": 8}, overfetch=6)


def test_candidates_are_in_the_order_of_the_rows() -> None:
    vectors, _ = clustered(COUNT, dim=48)
    ids = np.arange(FIRST, FIRST + COUNT)
    queries = unit_rows(np.random.default_rng(1).standard_normal((9, 48)))
    for factory in FACTORIES:
        index = build_faiss_index(recipe_of(factory), vectors, ids)
        ordered = ordered_by(index, vectors, ids)
        assert ordered is not None
        for query, plain, found in zip(
            queries, index.search_batch(queries, 60), ordered.search_batch(queries, 60), strict=True
        ):
            assert sorted(found.ids) == sorted(plain.ids)
            products = vectors[found.ids - FIRST].astype(np.float32) @ query
            assert found.scores == pytest.approx(products, abs=1e-5)
            assert (np.diff(found.scores) <= 0).all()
            assert ordered.search(query, 60).ids.tolist() == found.ids.tolist()


def test_an_altered_id_is_not_where_memory_is_read() -> None:
    vectors, _ = clustered(COUNT, dim=48)
    ids = np.arange(1, COUNT + 1)
    index = build_faiss_index(recipe_of(FACTORIES[0]), vectors, ids)
    others = ids + COUNT // 2  # of which the index knows the first half, and others before them
    ordered = ordered_by(index, vectors, others)
    assert ordered is not None
    for found in ordered.search_batch(unit_rows(vectors[:50]), 500):
        assert len(found.ids)
        assert set(found.ids.tolist()) <= set(others.tolist())


@pytest.mark.parametrize("factory", FACTORIES)
def test_results_are_those_of_a_faiss_that_cannot(
    tmp_path: Path, factory: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    vectors, _ = clustered(COUNT, dim=48)
    ids = np.arange(FIRST, FIRST + COUNT)
    folder = build(tmp_path / "index", vectors, ids, recipe_of(factory))
    snapshot = open_snapshot(folder)
    monkeypatch.setattr(faiss_rows, "HAS_VIEWS", False)
    plain = open_snapshot(folder)
    assert snapshot.ordered is not None
    assert plain.ordered is None
    queries = unit_rows(np.random.default_rng(1).standard_normal((9, 48)))
    nothing = UnindexedVectors.empty(48)
    for allowed in (None, ids[::2], ids[:9000]):
        for removed in (None, ids[5:100], ids[::3]):
            ours, theirs = (
                candidates_for([each], nothing, queries, 10, allowed=allowed, removed=removed)
                for each in (snapshot, plain)
            )
            for (one,), (other,) in zip(ours, theirs, strict=True):
                assert one.ids.tolist() == other.ids.tolist()
                assert one.more is other.more


def test_what_faiss_cannot_put_in_order() -> None:
    vectors, ids = clustered(COUNT, dim=48)
    gaps = np.where(ids == ids[-1], ids[-1] + 1, ids)
    for factory, numbers in (
        ("HNSW8", ids),
        ("IVF16,SQ8", ids),  # searched by several threads
        (FACTORIES[0], gaps),
    ):
        index = build_faiss_index(Recipe("tried", factory=factory), vectors, numbers)
        assert ordered_by(index, vectors, numbers) is None
    flat = FaissIndex(faiss.IndexFlatIP(48))
    assert ordered_by(flat, vectors[:0], ids[:0]) is None


def test_the_rows_are_not_copied() -> None:
    vectors, _ = clustered(COUNT, dim=48)
    ids = np.arange(FIRST, FIRST + COUNT)
    index = build_faiss_index(recipe_of(FACTORIES[0]), vectors, ids)
    ordered = ordered_by(index, vectors, ids)
    assert ordered is not None
    (before,) = ordered.search_batch(unit_rows(vectors[:1]), 1)
    assert before.ids.tolist() == [FIRST]
    vectors[0] *= np.float16(-1)
    (after,) = ordered.search_batch(unit_rows(-vectors[:1]), 60)
    assert after.ids[-1] == FIRST
    assert after.scores[-1] == pytest.approx(-1, abs=1e-3)
