"""Everything a person can wish of a search is held against a plain sort of all stored vectors, on
any collection and any index.
"""

import shutil
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image

from helpers.filter_oracle import matches, row_of
from vitsearch import Collection, Photo, QueryError, Recipe, SearchResult, index_folder
from vitsearch.arrays import cosine_scores, unit_rows
from vitsearch.collection import search as ranking
from vitsearch.collection.duplicates import WINDOW, marginal_order
from vitsearch.collection.query import Term, check_vector, combine
from vitsearch.encoders.colour import ColourEncoder
from vitsearch.filters import parse_filter
from vitsearch.index.candidates import candidates_for
from vitsearch.index.manifest import Origin
from vitsearch.index.recipe import load_recipe
from vitsearch.index.snapshot import build_snapshot
from vitsearch.storage import (
    DELTA_INDEX,
    MAIN_INDEX,
    CollectionConfig,
    write_collection_config,
)
from vitsearch.storage.store import PhotoStore
from vitsearch.types import Found, PhotoInfo

DIM, MARK = 6, "a fingerprint"
EXACT = ("exact", "flat")
RECIPES = {
    "exact": Recipe("exact", "exact"),
    "flat": load_recipe("flat"),
    "hnsw": load_recipe("hnsw"),
    "ivf": Recipe("ivf", factory="IVF{lists},Flat", lists=8, search={"nprobe": 2}),
    "sq8": load_recipe("sq8"),
}
PROPOSING = sys.modules["vitsearch.index.candidates"]  # the package has a function of this name
FOLDERS = ("", "italy/", "italy/rome/", "spain/")
SLOW = settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))


@dataclass
class Shelf:
    """A collection on disk made directly through the store, and the same rows in memory."""

    root: Path
    rng: np.random.Generator
    serial: int = 0
    rows: dict[str, NDArray[np.float16]] = field(default_factory=dict)

    @property
    def folder(self) -> Path:
        return self.root / ".vitsearch"

    @contextmanager
    def changing(self, changed: bool = True) -> Iterator[tuple[PhotoStore, int]]:
        store = PhotoStore(self.folder / "photos.db")
        try:
            with store.writing():
                yield store, store.generation() + 1
                store.raise_generation(changed)
        finally:
            store.close()

    def vector(self) -> NDArray[np.float16]:
        """A random vector: sometimes zeros, sometimes that of another photo or a
        little beside it.
        """
        kind, known = self.rng.integers(10), list(self.rows.values())
        if kind == 0:
            return np.zeros(DIM, np.float16)
        near = (
            known[self.rng.integers(len(known))]
            if known and kind < 5
            else self.rng.normal(size=DIM)
        )
        noise = 0.05 * self.rng.normal(size=DIM) if kind == 4 else 0
        return unit_rows((near + noise)[None])[0].astype(np.float16)

    def put(self, path: str, store: PhotoStore, generation: int) -> None:
        vector, copied = self.vector(), [name for name in self.rows if name != path]
        self.rows[path] = vector
        number = self.serial = self.serial + 1
        fingerprint = f"file {number}".encode()
        if copied and self.rng.random() < 0.1:  # an equal file has an equal vector
            other = copied[self.rng.integers(len(copied))]
            found = store.photo_at(other)
            assert found is not None
            fingerprint, self.rows[path] = found.fingerprint, self.rows[other]
        taken_at = (
            None if number % 5 == 0 else f"{2015 + number % 8}-{1 + number % 12:02}-10T12:00:00"
        )
        camera = "Nikon" if number % 3 else None
        info = PhotoInfo(100 + number % 300, 80, {"taken_at": taken_at, "camera": camera})
        store.put_photo(
            Found(path, 10, number * 10**9),
            fingerprint,
            info,
            vector=self.rows[path],
            generation=generation,
        )

    def add(self, count: int) -> None:
        with self.changing() as (store, generation):
            for _ in range(count):
                self.put(
                    f"{FOLDERS[self.rng.integers(len(FOLDERS))]}{self.rng.integers(10**9):09}.jpg",
                    store,
                    generation,
                )

    def change(self, count: int) -> None:
        with self.changing() as (store, generation):
            for path in self.some(count):
                self.put(path, store, generation)

    def remove(self, count: int) -> None:
        chosen = self.some(count)
        with self.changing() as (store, _):
            assert store.remove_photos(chosen) == len(chosen)
        for path in chosen:
            del self.rows[path]

    def label(self, count: int) -> None:
        with Collection.open(self.root) as found:
            ids = [
                photo.photo_id for photo in found.photos() if photo.path in set(self.some(count))
            ]
        with self.changing(False) as (store, _):
            store.put_labels(
                [(photo_id, ("cat", "dog")[photo_id % 2], photo_id % 10 / 10) for photo_id in ids]
            )

    def some(self, count: int) -> list[str]:
        paths = sorted(self.rows)
        return (
            [str(path) for path in self.rng.choice(paths, min(count, len(paths)), replace=False)]
            if paths
            else []
        )

    def index(self, recipe: str, *, delta: bool = False) -> None:
        store = PhotoStore(self.folder / "photos.db")
        try:
            since = -1
            if delta:
                with Collection.open(self.root) as found:
                    main = found.backend._search._current(MAIN_INDEX)
                since = main.generation if main else -1
            now = store.generation()
            build_snapshot(
                self.folder / (DELTA_INDEX if delta else MAIN_INDEX),
                store.vector_batches(since=since),
                recipe=RECIPES[recipe],
                dim=DIM,
                generation=now,
                fingerprint=MARK,
                origin=Origin(store.state(), since),
            )
        finally:
            store.close()


def shelf_in(root: Path, seed: int = 0) -> Shelf:
    shutil.rmtree(root, ignore_errors=True)
    made = Shelf(root, np.random.default_rng(seed))
    made.folder.mkdir(parents=True)
    PhotoStore(made.folder / "photos.db").close()
    write_collection_config(
        made.folder,
        CollectionConfig(
            "colour", MARK, "float32", DIM, load_recipe("flat").to_dict(), "2020", str(root)
        ),
    )
    return made


def brute(
    root: Path, query: NDArray[Any], where: str | None = None, least: float = -2
) -> list[SearchResult]:
    """Return every photo that the filter's plain test leaves, sorted by (score, path)."""
    with Collection.open(root) as found:
        photos, vectors = (
            list(found.photos()),
            [found.store.vector(photo.photo_id) for photo in found.photos()],
        )
    tree = parse_filter(where) if where else None
    scores = cosine_scores(np.array(vectors).reshape(len(photos), DIM), check_vector(query, DIM))
    hits = [
        SearchResult(photo.path, float(score), photo.photo_id)
        for photo, score in zip(photos, scores, strict=True)
        if (tree is None or matches(tree, row_of(photo))) and np.float32(score) >= np.float32(least)
    ]
    return sorted(hits, key=lambda hit: (-hit.score, hit.path))


def query_of(seed: int) -> NDArray[np.float32]:
    return unit_rows(np.random.default_rng(seed).normal(size=(1, DIM)))[0]


def check(
    found: Sequence[SearchResult],
    wanted: Sequence[SearchResult],
    truth: Sequence[SearchResult],
    recipe: str,
) -> None:
    """Exact recipes are exact; of the others the scores are, the order is, and few results are
    missing.
    """
    if recipe in EXACT:
        assert list(found) == list(wanted)
        return
    assert len(found) == len(wanted)
    assert set(found) <= set(truth)
    assert list(found) == sorted(found, key=lambda hit: (-hit.score, hit.path))
    assert len(set(found)) == len(found)
    # what is found is as good as what is wanted: equal scores may stand for each other
    bar = wanted[-1].score if wanted else 0.0
    assert sum(hit.score >= bar - 1e-6 for hit in found) >= 0.8 * len(wanted)


STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("add"), st.integers(1, 150)),
        st.tuples(st.just("change"), st.integers(1, 40)),
        st.tuples(st.just("remove"), st.integers(1, 150)),
        st.tuples(st.just("label"), st.integers(1, 60)),
        st.tuples(st.just("index"), st.sampled_from(sorted(RECIPES))),
        st.tuples(st.just("delta"), st.sampled_from(["flat", "hnsw"])),
    ),
    max_size=9,
)
FILTERS = st.sampled_from(
    [
        None,
        "path is not null",
        "path is null",
        "path like 'italy/%'",
        "path like 'italy/rome/%' and year >= 2018",
        "year = 2016",
        "not year = 2016",
        "taken_at is null",
        "label = 'cat'",
        "score >= 0.5 or width between 100 and 120",
        "camera like 'nikon' and month in (1, 2, 3, 4)",
        "width = 100",
    ]
)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("shelf") / "photos"


def follow(place: Path, seed: int, steps: Sequence[tuple[str, Any]]) -> tuple[Shelf, str]:
    """Return the collection after some steps, and the least exact recipe among its indexes."""
    shelf, used = shelf_in(place, seed), "exact"
    for name, value in steps:
        if name == "index":
            shelf.index(value)
            used = value
        elif name == "delta":
            if (shelf.folder / MAIN_INDEX).exists():
                shelf.index(value, delta=True)
                used = used if used not in EXACT else value
        else:
            getattr(shelf, name)(value)
    return shelf, used


@given(
    seed=st.integers(0, 10**6),
    steps=STEPS,
    where=FILTERS,
    k=st.sampled_from([1, 3, 10, 77, 2000]),
    small=st.booleans(),
)
@example(
    seed=1,
    steps=[("add", 150), ("add", 150), ("index", "flat"), ("add", 1)],
    where=None,
    k=10,
    small=False,
)
@example(
    seed=2,
    steps=[("add", 150), ("add", 150), ("index", "flat"), ("remove", 290), ("change", 5)],
    where=None,
    k=3,
    small=False,
)
@example(
    seed=3,
    steps=[("add", 150), ("index", "ivf"), ("change", 40), ("delta", "hnsw"), ("change", 40)],
    where=None,
    k=10,
    small=False,
)
@example(seed=4, steps=[], where=None, k=10, small=False)
@example(
    seed=5,
    steps=[("add", 150), ("add", 150), ("index", "hnsw"), ("label", 60)],
    where="not year = 2016",
    k=3,
    small=True,
)
@SLOW
@pytest.mark.slow
def test_a_search_is_a_sort_of_what_is_stored(
    place: Path, seed: int, steps: list[tuple[str, Any]], where: str | None, k: int, small: bool
) -> None:
    _, recipe = follow(place, seed, steps)
    query = query_of(seed)
    with pytest.MonkeyPatch.context() as patch:
        if small:  # the index is asked where there are many; of few rows each is compared
            patch.setattr(PROPOSING, "FEW", 10)
            patch.setattr(PROPOSING, "SELECTIVE", 0.01)
        recipe = recipe if small else "exact"
        with Collection.open(place) as found:
            truth = brute(place, query, where)
            check(found.search(query, k, where=where), truth[:k], truth, recipe)
            check(found.search(query, k, where=where, offset=5), truth[5 : 5 + k], truth, recipe)
            assert found.search(query, k, where=where, offset=len(truth)) == []
            assert found.search(query, k, where=where, offset=10**6) == []


@given(
    seed=st.integers(0, 10**6),
    steps=STEPS,
    where=FILTERS,
    least=st.sampled_from([-1.0, -0.5, 0.0, 0.3, 0.7, 0.95, 1.0]),
)
@example(seed=1, steps=[("add", 150)] * 4 + [("index", "flat"), ("add", 1)], where=None, least=0.0)
@example(seed=1, steps=[("add", 150)] * 4 + [("index", "flat")], where=None, least=-1.0)
@SLOW
@pytest.mark.slow
def test_all_that_reach_a_score(
    place: Path, seed: int, steps: list[tuple[str, Any]], where: str | None, least: float
) -> None:
    follow(place, seed, steps)
    query = query_of(seed + 1)
    with Collection.open(place) as found:
        wanted = brute(place, query, where, least)
        hits = found.search(query, None, where=where, min_score=least)
        assert all(np.float32(hit.score) >= np.float32(least) for hit in hits)
        assert hits == wanted  # whatever the recipe: each of so few rows is compared
        assert found.search(query, None, where=where, min_score=least, offset=3) == hits[3:]
        assert found.search(query, 4, where=where, min_score=least) == wanted[:4]


def test_a_photo_of_the_query_itself_reaches_one(place: Path) -> None:
    """Rounding must not put a cosine of 1 below 1."""
    shelf = shelf_in(place)
    shelf.add(200)
    with Collection.open(place) as found:
        for photo in found.photos():
            row = found.store.vector(photo.photo_id)
            if row.any():
                assert photo.path in [hit.path for hit in found.search(row, None, min_score=1.0)]


# -- pages -----------------------------------------------------------------------------------------


@given(
    seed=st.integers(0, 10**6),
    count=st.sampled_from([0, 1, 60, 190, WINDOW, WINDOW + 1, 450]),
    size=st.sampled_from([1, 7, 50, 199, 200, 201, 500]),
    options=st.fixed_dictionaries(
        {
            "diverse": st.sampled_from([0.0, 0.3, 1.0]),
            "collapse": st.sampled_from([False, True, 0.8, 0.999]),
        }
    ),
    where=FILTERS,
)
@settings(max_examples=30, deadline=None, suppress_health_check=list(HealthCheck))
@pytest.mark.slow
def test_pages_joined_are_the_whole(
    place: Path, seed: int, count: int, size: int, options: dict[str, Any], where: str | None
) -> None:
    shelf = shelf_in(place, seed)
    shelf.add(count)
    shelf.index("flat")
    query = query_of(seed)
    with Collection.open(place) as found:
        whole = found.search(query, 1000, where=where, **options)
        pages: list[SearchResult] = []
        while page := found.search(query, size, offset=len(pages), where=where, **options):
            pages += page
            if size == 1 and len(pages) >= 30:
                whole = whole[:30]
                break
    assert pages == whole


# -- a minus ---------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def coloured(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Pictures of two colours each, in all shares of eighths."""
    folder = tmp_path_factory.mktemp("coloured")
    for one, other in (("red", "green"), ("red", "blue"), ("blue", "green")):
        for eighths in range(9):
            picture = Image.new("RGB", (32, 32), one)
            picture.paste(other, (0, 0, 4 * eighths, 32))
            picture.save(folder / f"{one}-{other}-{eighths}.png")
    index_folder(folder, encoder="colour")
    return folder


@pytest.mark.parametrize("weight", [0.5, 1.0, 3.0])
def test_a_minus_lowers_what_shows_its_words(coloured: Path, weight: float) -> None:
    red, green = ColourEncoder().encode_texts(["red", "green"]).astype(np.float64)
    beside = unit_rows((green - green @ red * red)[None])[0]
    with Collection.open(coloured) as found:
        photos, vectors = found.vectors()
        shown = np.maximum(0, cosine_scores(vectors, beside) - ranking.UNLIKE)
        scores = cosine_scores(vectors, red) - weight * shown
        wanted = sorted(
            ((photo.path, score) for photo, score in zip(photos, scores, strict=True)),
            key=lambda row: (-row[1], row[0]),
        )
        for count in (1, 4, 27):  # the first candidates are those without the minus
            hits = found.search([Term("red", 2), Term("green", -2 * weight)], count)
            assert [hit.path for hit in hits] == [path for path, _ in wanted[:count]]
            np.testing.assert_allclose(
                [hit.score for hit in hits], [score for _, score in wanted[:count]], atol=1e-3
            )
        assert found.search(f"red - {weight}:green", 4) == hits[:4]


def test_a_minus_without_words_to_lower_is_subtraction(coloured: Path) -> None:
    red, green = ColourEncoder().encode_texts(["red", "green"])
    with Collection.open(coloured) as found:
        assert found.search("- green", 5) == found.search(-green, 5)
        photo = next(found.photos())
        row = unit_rows(found.store.vector(photo.photo_id)[None])[0]
        summed = combine([Term(red), Term(row, -0.5)], lambda term: term.what)
        less = found.search([Term("red"), Term(photo.photo_id, -0.5)], 5)
        others = [hit for hit in found.search(summed, 6) if hit.photo_id != photo.photo_id]
        assert less == others[:5]
        with pytest.raises(QueryError, match="cancel each other out"):
            found.search("red - red")


# -- unlike each other -----------------------------------------------------------------------------


def cosines(rows: dict[str, NDArray[np.float16]]) -> dict[str, dict[str, np.float32]]:
    """The cosine of every two photos by their paths."""
    unit = unit_rows(np.array([*rows.values()]).reshape(-1, DIM))
    scores = (cosine_scores(unit, row).astype(np.float32) for row in unit)
    return {
        path: dict(zip(rows, each, strict=True)) for path, each in zip(rows, scores, strict=True)
    }


def restated(
    hits: Sequence[SearchResult], cosine: dict[str, dict[str, np.float32]], diverse: float
) -> list[SearchResult]:
    """Maximal marginal relevance as its paper says it, within one window, by the scores' range."""
    left, chosen = list(hits), []
    scores = [hit.score for hit in hits] or [0.0]
    lowest, spread = min(scores), (max(scores) - min(scores)) or 1.0
    while left:
        values = [
            (1 - diverse) * ((hit.score - lowest) / spread)
            - diverse * (float(max(cosine[hit.path][one.path] for one in chosen)) if chosen else 0)
            for hit in left
        ]
        chosen.append(left.pop(values.index(max(values))))
    return chosen


def test_what_fits_nothing_does_not_come_second() -> None:
    """The scores of words lie close together, and the likenesses of photos far apart."""
    query = np.eye(DIM, dtype=np.float32)[0]
    rows = {
        "car.jpg": [0.30, 0.95, 0.0],
        "another car.jpg": [0.29, 0.90, 0.3],
        "stars.jpg": [0.02, 0.0, 1.0],
        "field.jpg": [0.05, -0.5, 0.8],
    }
    vectors = unit_rows(np.array([[*row, 0, 0, 0] for row in rows.values()]))
    scores = cosine_scores(vectors, query)
    order = marginal_order(vectors, scores, 0.3)
    assert [list(rows)[place] for place in order[:2]] == ["car.jpg", "another car.jpg"]


@pytest.mark.slow
@given(
    seed=st.integers(0, 10**6),
    count=st.integers(0, 60),
    diverse=st.sampled_from([0.0, 0.2, 0.5, 0.9, 1.0]),
    where=FILTERS,
)
@settings(max_examples=30, deadline=None, suppress_health_check=list(HealthCheck))
def test_diverse_is_maximal_marginal_relevance(
    place: Path, seed: int, count: int, diverse: float, where: str | None
) -> None:
    shelf = shelf_in(place, seed)
    if count:
        shelf.add(count)
    query = query_of(seed)
    plain = brute(place, query, where)
    wanted = restated(plain, cosines(shelf.rows), diverse) if diverse else plain
    with Collection.open(place) as found:
        assert found.search(query, 100, where=where, diverse=diverse) == wanted
        assert found.search(query, 4, where=where, diverse=diverse) == wanted[:4]
        assert found.search(query, None, min_score=-1, where=where, diverse=diverse) == wanted


def test_a_window_comes_after_the_one_before(place: Path) -> None:
    shelf = shelf_in(place, 3)
    shelf.add(450)
    query = query_of(0)
    plain = brute(place, query)
    with Collection.open(place) as found:
        diverse = found.search(query, 1000, diverse=0.5)
        assert [set(diverse[at : at + WINDOW]) for at in (0, 200, 400)] == [
            set(plain[at : at + WINDOW]) for at in (0, 200, 400)
        ]
        assert diverse != plain


@given(
    seed=st.integers(0, 10**6),
    count=st.integers(1, 150),
    threshold=st.sampled_from([0.5, 0.9, 0.99, 1.0]),
    recipe=st.sampled_from(EXACT),
)
@settings(max_examples=30, deadline=None, suppress_health_check=list(HealthCheck))
@pytest.mark.slow
def test_collapse_shows_one_of_those_that_are_alike(
    place: Path, seed: int, count: int, threshold: float, recipe: str
) -> None:
    shelf = shelf_in(place, seed)
    shelf.add(count)
    shelf.index(recipe)
    query = query_of(seed)
    plain = brute(place, query)
    with Collection.open(place) as found:
        prints = {photo.path: photo.fingerprint for photo in found.photos()}
        kept = found.search(query, 1000, collapse=threshold)
        some = found.search(query, 3, collapse=threshold)

    cosine, rank = cosines(shelf.rows), {hit: number for number, hit in enumerate(plain)}

    def alike(one: SearchResult, other: SearchResult) -> bool:
        same = prints[one.path] == prints[other.path]
        return same or cosine[one.path][other.path] >= np.float32(threshold)

    assert kept == [hit for hit in plain if hit in set(kept)]  # in the plain order
    assert kept[:3] == some
    assert [
        pair
        for place, one in enumerate(kept)
        for other in kept[:place]
        if alike(*(pair := (one, other)))
    ] == []
    for dropped in rank.keys() - set(kept):
        assert any(alike(dropped, other) for other in kept if rank[other] < rank[dropped])


# -- several queries -------------------------------------------------------------------------------


@given(
    seed=st.integers(0, 10**6),
    recipe=st.sampled_from(sorted(RECIPES)),
    where=FILTERS,
    least=st.sampled_from([None, 0.4]),
)
@settings(max_examples=20, deadline=None, suppress_health_check=list(HealthCheck))
@pytest.mark.slow
def test_a_batch_is_its_queries_one_by_one(
    place: Path, seed: int, recipe: str, where: str | None, least: float | None
) -> None:
    shelf = shelf_in(place, seed)
    shelf.add(300)
    shelf.index(recipe)
    shelf.change(20)
    options: dict[str, Any] = {"where": where, "min_score": least}
    queries = [query_of(number) for number in range(30)]
    with Collection.open(place) as found, pytest.MonkeyPatch.context() as patch:
        alone = [found.search(query, 7, **options) for query in queries]
        assert found.search_batch(queries, 7, **options) == alone
        patch.setattr(ranking, "TOGETHER", 7)
        assert found.search_batch(queries, 7, **options) == alone
        assert found.search_batch([], 7, **options) == []


def test_a_batch_of_words_and_photos_leaves_out_each_ones_own(indexed: Path) -> None:
    queries: list[Any] = [
        "red",
        indexed / "red.png",
        "2:blue + red",
        indexed / "sub" / "blue.png",
        ColourEncoder().encode_texts(["green"])[0],
    ]
    with Collection.open(indexed) as found:
        batch = found.search_batch(queries)
        assert batch == [found.search(query) for query in queries]
    assert [len(hits) for hits in batch] == [4, 3, 4, 3, 4]


def test_the_index_is_asked_for_all_queries_at_once(place: Path) -> None:
    """The first proposals of a batch are those of the single queries, from every source."""
    shelf = shelf_in(place, 1)
    shelf.add(300)
    shelf.index("sq8")
    shelf.change(30)
    queries = np.stack([query_of(number) for number in range(5)])
    with Collection.open(place) as found:
        version = found.store.version()
        (main,) = found.backend._search._indexes(version)
        fresh = found.backend._search._newer(main.generation, version)
        together = candidates_for([main], fresh, queries, 10)
        alone = [candidates_for([main], fresh, query[None], 10)[0] for query in queries]
    assert len(fresh) == 30
    assert [[(each.ids.tolist(), each.more) for each in one] for one in together] == [
        [(each.ids.tolist(), each.more) for each in one] for one in alone
    ]
    for proposed in together:
        assert not set(proposed[1].ids.tolist()) & set(fresh.ids.tolist())


# -- indexes that are not what they were -----------------------------------------------------------


@pytest.mark.parametrize("recipe", sorted(RECIPES))
@pytest.mark.parametrize(
    "how",
    [
        "missing",
        "manifest",
        "vectors.f16",
        "ids.i64",
        "index.faiss",
        "older",
        "foreign encoder",
        "from the future",
        "only a delta",
        "a delta of another",
    ],
)
def test_any_index_folder_gives_exact_results(
    place: Path, recipe: str, how: str, tmp_path: Path
) -> None:
    shelf = shelf_in(place, 7)
    shelf.add(150)
    shelf.index(recipe)
    shutil.copytree(shelf.folder / MAIN_INDEX, tmp_path / "older")
    shelf.add(50)
    shelf.change(20)
    shelf.remove(30)
    main = shelf.folder / MAIN_INDEX
    if how in ("only a delta", "a delta of another"):
        shelf.index("flat", delta=True)
        shelf.add(60)
        shelf.index(recipe)
        if how == "only a delta":
            shutil.rmtree(main)
        else:  # the older index came back, from a backup perhaps
            shelf.index("flat", delta=True)
            shutil.rmtree(main)
            shutil.copytree(tmp_path / "older", main)
    elif how == "missing":
        shutil.rmtree(main)
    elif how in ("foreign encoder", "from the future"):
        store = PhotoStore(shelf.folder / "photos.db")
        rows, now = (
            [(np.arange(1, 11, dtype=np.int64), np.ones((10, DIM), np.float16))],
            store.generation(),
        )
        mark, generation = (MARK, now + 1) if how == "from the future" else ("other", now)
        build_snapshot(
            main, rows, recipe=RECIPES[recipe], dim=DIM, generation=generation, fingerprint=mark
        )
        store.close()
    elif how != "older":
        shelf.index(recipe)
        file = main / {"manifest": "manifest.json"}.get(how, how)
        if file.exists():
            file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    query = query_of(1)
    truth = brute(place, query)
    with Collection.open(place) as found:
        for k in (1, 10, 500):
            check(
                found.search(query, k),
                truth[:k],
                truth,
                recipe if how in ("older", "a delta of another") else "exact",
            )
            assert {hit.path for hit in found.search(query, 500)} == set(shelf.rows)


def test_an_index_that_was_ahead_is_used_once_it_is_not(place: Path) -> None:
    """A reader that began before a writer ended meets an index newer than what it sees; it must not
    be given up for good.
    """
    shelf = shelf_in(place)
    shelf.add(50)
    store = PhotoStore(shelf.folder / "photos.db")
    with Collection.open(place) as found:
        with store.writing():
            store.raise_generation(True)
            build_snapshot(
                shelf.folder / MAIN_INDEX,
                store.vector_batches(),
                recipe=RECIPES["flat"],
                dim=DIM,
                generation=store.generation(),
                fingerprint=MARK,
                origin=Origin(store.state()),
            )
            found.search(query_of(0))
            assert found.backend._search._indexes(found.store.version()) == []
        store.close()
        found.search(query_of(0))
        current = found.backend._search._indexes(found.store.version())
        assert [len(snapshot) for snapshot in current] == [50]


# -- what is refused -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"top_k": None}, "at least 1.*min_score"),
        ({"offset": -1}, "offset"),
        ({"offset": 1.5}, "offset"),
        ({"offset": True}, "offset"),
        ({"min_score": 1.5}, "from -1 to 1"),
        ({"min_score": float("nan")}, "from -1 to 1"),
        ({"diverse": -0.1}, "diverse"),
        ({"diverse": float("nan")}, "diverse"),
        ({"collapse": 1.5}, "collapse"),
        ({"collapse": -1.0}, "collapse"),
        ({"where": "yeer = 2019"}, "year"),
        ({"where": ""}, "empty"),
    ],
)
def test_wishes_that_mean_nothing(indexed: Path, options: dict[str, Any], words: str) -> None:
    with Collection.open(indexed) as found, pytest.raises(QueryError, match=words):
        found.search("red", **options)


def test_a_misspelt_wish_is_not_passed_over(indexed: Path) -> None:
    with Collection.open(indexed) as found, pytest.raises(TypeError, match="'wher'"):
        found.search("red", wher="year = 2019")  # type: ignore[call-arg]


@pytest.mark.parametrize("removed", [False, True])
def test_a_collection_without_photos_has_no_results(place: Path, removed: bool) -> None:
    shelf = shelf_in(place)
    if removed:
        shelf.add(20)
        shelf.index("hnsw")
        shelf.remove(20)
    with Collection.open(place) as found:
        for options in (
            {},
            {"where": "year = 2019"},
            {"diverse": 0.5},
            {"collapse": True},
            {"min_score": 0.1},
        ):
            assert found.search(query_of(0), **options) == []
        assert found.search_batch([query_of(0)] * 2) == [[], []]
        assert (found.duplicates(), found.lookalikes(0.5)) == ([], [])


def test_similar_takes_the_same_wishes(indexed: Path) -> None:
    with Collection.open(indexed) as found:
        assert [hit.path for hit in found.similar("red.png", where="path like 'sub/%'")] == [
            "sub/blue.png"
        ]
        assert found.similar("red.png", 2, offset=1) == found.similar("red.png", 3)[1:]
        assert found.similar("red.png", None, min_score=0.5) == []


def test_photos_that_a_filter_leaves_by_their_stored_label(indexed: Path) -> None:
    with Collection.open(indexed) as found:
        found.store_labels(found.label(["red", "blue"]))
        labels: dict[str, Photo] = {photo.path: photo for photo in found.photos()}
        wanted = sorted(path for path, photo in labels.items() if photo.label == "blue")
        assert sorted(hit.path for hit in found.search("red", where="label = 'blue'")) == wanted
        assert wanted
    index_folder(indexed)
