"""Tuning reaches the recall for photos and for words, selections are those of an exact search."""

import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from helpers.indexes import build, clustered
from vitsearch.arrays import cosine_scores, unit_rows
from vitsearch.index import recall
from vitsearch.index.backends import rough_scores
from vitsearch.index.candidates import UnindexedVectors, candidates_for
from vitsearch.index.recall import fastest, make_sample, try_recipes, tune
from vitsearch.index.recipe import Recipe, load_recipe
from vitsearch.index.snapshot import open_snapshot

pytest.importorskip("faiss", reason="needs the extra vitsearch[faiss]")
COUNT = 12_000


@given(st.integers(0, 2**32 - 1), st.integers(1, 40), st.integers(1, 70))
def test_rough_scores_are_cosines_to_a_millionth(seed: int, count: int, dim: int) -> None:
    random = np.random.default_rng(seed)
    rows = unit_rows(random.standard_normal((count, dim))).astype(np.float16)
    query = unit_rows(random.standard_normal((1, dim)))[0]
    scores = cosine_scores(rows, query)
    assert rough_scores(rows, query) == pytest.approx(scores, abs=2e-6)


def test_of_many_texts_those_that_fit_the_photos_are_the_queries(tmp_path: Path) -> None:
    vectors, ids = clustered(COUNT)
    snapshot = open_snapshot(build(tmp_path / "index", vectors, ids, Recipe("exact", "exact")))
    random = np.random.default_rng(1)
    near = unit_rows(vectors[:400].astype(np.float32))
    far = unit_rows(random.standard_normal((50, vectors.shape[1])))
    sample = make_sample(snapshot, np.concatenate([far, near]), photos=5)
    assert np.array_equal(sample.queries[5:], near)


@pytest.mark.slow
def test_a_sample_takes_the_same_memory_for_any_number_of_texts(tmp_path: Path) -> None:
    snapshot = open_snapshot(build(tmp_path / "index", *clustered(20_000, 16)))
    texts = unit_rows(np.random.default_rng(0).standard_normal((4_000, 16)).astype(np.float32))
    tracemalloc.start()
    make_sample(snapshot, texts, photos=100)
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert most < 64_000_000  # all scores are 320,000,000 bytes, those of 8,192 rows 131,000,000


def test_tuning_reaches_the_recall_for_each_kind_and_a_filter_keeps_it(tmp_path: Path) -> None:
    vectors, ids = clustered(COUNT)
    snapshot = open_snapshot(build(tmp_path / "index", vectors, ids, load_recipe("pq-fastscan")))
    aside = unit_rows(np.random.default_rng(5).standard_normal((1, vectors.shape[1])))
    words = unit_rows(vectors[:60].astype(np.float32) + aside)
    recipe, measured = tune(snapshot, make_sample(snapshot, words, photos=60), 0.9)
    assert measured.texts is not None
    assert min(measured.photos, measured.texts) >= 0.9
    assert tune(snapshot, make_sample(snapshot, words, photos=60), 0.9) == (recipe, measured)
    for share in (2, 30):  # 6,000 rows, among which the index searches, and few
        allowed, shares = ids[::share], []
        nothing = UnindexedVectors.empty(vectors.shape[1])
        proposed = candidates_for([snapshot], nothing, words, 13, allowed=allowed)
        for query, sources in zip(words, proposed, strict=True):
            best = allowed[np.argsort(-cosine_scores(vectors[::share], query))[:10]]
            [source] = sources
            assert np.isin(source.ids, allowed).all()
            shares.append(np.isin(best, source.ids).mean())
        assert np.mean(shares) >= 0.85


def test_a_trial_adds_what_a_search_reads_of_more_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recall, "_query_ms", lambda *_: 1.0)
    vectors, _ = clustered(3_000)
    recipes = [load_recipe(name) for name in ("flat", "pq-fastscan", "ivf-sq8")]
    for count, names in ((3_000, None), (10_000_000, ["pq-fastscan", "ivf-sq8", "flat"])):
        trials = try_recipes(vectors, vectors[:40].astype(np.float32), recipes, count=count)
        times = {trial.recipe.name: trial.query_ms for trial in trials}
        if names is None:
            assert set(times.values()) == {1.0}
        else:
            assert sorted(times, key=times.__getitem__) == names
            assert fastest(trials, 0.0).recipe.name == "pq-fastscan"
