"""Tuning reaches the recall for photos and for words, selections are those of an exact search."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from helpers.indexes import build, clustered
from vitsearch.arrays import cosine_scores, unit_rows
from vitsearch.index import UnindexedVectors, candidates_for, make_sample, open_snapshot, tune
from vitsearch.index.exact import rough_scores
from vitsearch.index.recipe import load_recipe

pytest.importorskip("faiss", reason="needs the extra vitsearch[faiss]")
COUNT = 12_000


@given(st.integers(0, 2**32 - 1), st.integers(1, 40), st.integers(1, 70))
def test_rough_scores_are_cosines_to_a_millionth(seed: int, count: int, dim: int) -> None:
    random = np.random.default_rng(seed)
    rows = unit_rows(random.standard_normal((count, dim))).astype(np.float16)
    query = unit_rows(random.standard_normal((1, dim)))[0]
    assert rough_scores(rows, query) == pytest.approx(cosine_scores(rows, query), abs=2e-6)


def test_tuning_reaches_the_recall_for_each_kind_and_a_filter_keeps_it(tmp_path: Path) -> None:
    vectors, ids = clustered(COUNT)
    snapshot = open_snapshot(build(tmp_path / "index", vectors, ids, load_recipe("pq-fastscan")))
    aside = unit_rows(np.random.default_rng(5).standard_normal((1, vectors.shape[1])))
    words = unit_rows(vectors[:60].astype(np.float32) + aside)
    recipe, measured = tune(snapshot, make_sample(snapshot, words, photos=60), 0.9)
    assert measured.texts is not None
    assert min(measured.photos, measured.texts) >= 0.9
    assert tune(snapshot, make_sample(snapshot, words, photos=60), 0.9) == (recipe, measured)
    for share in (3, 30):
        allowed, shares = ids[::share], []
        nothing = UnindexedVectors.empty(vectors.shape[1])
        proposed = candidates_for([snapshot], nothing, words, 13, allowed=allowed)
        for query, sources in zip(words, proposed, strict=True):
            best = allowed[np.argsort(-cosine_scores(vectors[::share], query))[:10]]
            [_, (found_ids, _)] = sources
            assert np.isin(found_ids, allowed).all()
            shares.append(np.isin(best, found_ids).mean())
        assert np.mean(shares) >= 0.85
