"""A FAISS index from shards within a budget of memory: train on a sample, add shard by shard, merge
in files, measure and tune.
"""

import json
import os
import shutil
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from itertools import accumulate
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from vitsearch.arrays import Halves, cosine_scores, drop_pages
from vitsearch.cluster.parts import BLOCK, PARTS, TRAINED, Part, join_parts, make_part, row_numbers
from vitsearch.cluster.shard_index import FACTS, FILES
from vitsearch.errors import CollectionError, RecipeError
from vitsearch.index import ExactIndex, IndexSnapshot, Manifest, Measured, Sample, tune
from vitsearch.index.base import FAISS, IDS, VECTORS
from vitsearch.index.manifest import MANIFEST, facts_of, write_manifest
from vitsearch.index.recall import K
from vitsearch.index.recipe import RECALL, Recipe, choose_recipe, load_recipe
from vitsearch.shards import open_shards
from vitsearch.storage.config import writer_lock

# -- Samples of vectors larger than the memory -----------------------------------------------------

if TYPE_CHECKING:
    from vitsearch.shards.files import ShardSet

SAMPLED_SHARDS = 512
QUERIES = 200
CHUNK = 33_554_432  # bytes of mapped rows that are compared before their pages are let go


def draw_sample(shards: "ShardSet", counts: dict[int, int], size: int, *, seed: int = 0) -> Halves:
    """Return ``(m, dim)`` rows drawn with a seed from all shards alike, or from 512 of them in even
    steps; ``m`` is ``size`` at most.
    """
    numbers = [number for number, count in counts.items() if count]
    chosen = (
        numbers
        if len(numbers) <= SAMPLED_SHARDS
        else [numbers[place * len(numbers) // SAMPLED_SHARDS] for place in range(SAMPLED_SHARDS)]
    )
    total, rng = sum(counts[number] for number in chosen), np.random.default_rng(seed)
    places = np.sort(rng.choice(total, min(size, total), replace=False))
    sample = np.empty((len(places), shards.manifest.dim), dtype=np.float16)
    start = taken = 0
    for rows, halves in shards.blocks(chosen, BLOCK):
        end = int(np.searchsorted(places, start + len(rows)))
        sample[taken:end] = halves[places[taken:end] - start]
        start, taken = start + len(rows), end
    return sample[:taken]


def make_truth(vectors: Halves, *, seed: int = 0) -> Sample:
    """Return 200 of the rows of ``(n, dim)``, drawn with a seed, as queries, with their exact
    answers among the other rows.
    """
    count, dim = vectors.shape
    own = np.sort(
        np.random.default_rng(seed).choice(count, min(QUERIES, count), replace=False)
    ).astype(np.int64)
    queries = np.asarray(vectors[own], dtype=np.float32)
    best = [np.empty(0) for _ in own]
    step = max(1, CHUNK // (2 * dim))
    for start in range(0, count, step):
        rows = vectors[start : start + step]
        found = ExactIndex(rows, np.arange(start, start + len(rows), dtype=np.int64)).search_batch(
            queries, K + 1
        )
        for place, one in enumerate(found):
            others = one.ids[one.ids != own[place]]
            scores = cosine_scores(vectors[others], queries[place])
            best[place] = -np.sort(-np.concatenate([best[place], scores]))[:K]
        drop_pages(vectors)
    bars = np.array([scores[-1] if len(scores) else np.inf for scores in best])
    return Sample(queries, own, bars, np.array([len(scores) for scores in best], dtype=np.int64))


# -- A FAISS index from shards within a budget of memory -------------------------------------------

if TYPE_CHECKING:
    from vitsearch.shards.files import ShardSet

LIBRARIES = 250_000_000  # bytes of memory that Python, FAISS and Arrow take before there is a row
MIN_MEMORY = 400_000_000
SEED = 0
BEGUN = "begun.json"
PIECES = 32  # parts, or more: so many machines can work, and so little is done again after a stop
TRAINING_COPIES = 4  # the sample as float16 and float32, and what FAISS makes of it
READING_COPIES = 4  # a shard's file, and its columns
Tell = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class BuildReport:
    """What was built: ``rows`` photos of ``shards`` shards in ``parts`` parts (``kept`` of them by
    an earlier run), and its recall.

    ``recipe`` has the search parameters that were found; ``measured`` is None where every vector is
    compared. ``seconds`` are by stage.
    """

    rows: int
    shards: int
    parts: int
    kept: int
    recipe: Recipe
    measured: Measured | None
    seconds: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class _Ground:
    """What is built: the shards with the rows of each, the recipe, the bytes of memory for rows,
    and the folder that is worked in.
    """

    shards: "ShardSet"
    counts: dict[int, int]
    recipe: Recipe
    trained_on: int
    room: int
    aside: Path

    @property
    def rows(self) -> int:
        return sum(self.counts.values())

    @property
    def dim(self) -> int:
        return self.shards.manifest.dim

    @property
    def exact(self) -> bool:
        return not self.trained_on


def build_index(
    output: str | os.PathLike[str],
    index: str | os.PathLike[str],
    *,
    recipe: str | Path | Recipe = "ivf-sq8",
    memory: int = 2_000_000_000,
    recall: float = RECALL,
    address: str | None = None,
    tell: Tell = lambda _: None,
) -> BuildReport:
    """Build the index of a whole shard set into the folder ``index``, and return what it is.

    ``memory`` is what a process may take, in bytes; mapped files are not held beyond the pages in
    use. ``address`` is that of a Ray cluster whose machines all see both places ("local": one on
    this machine, for as long as it takes); None builds the parts here, one after the other. The
    search effort is the least with ``recall`` of the ten nearest on 200 of the photos, each left
    out of its own results. The folder is written beside its place and renamed; a run that was
    stopped goes on with the parts that are there. Fewer than about 10,000 photos are searched
    exactly. Raises CollectionError (no whole shard set, another thing in the folder's place, a full
    disk), CollectionLocked, RecipeError, and VitsearchError where the cluster fails.
    """
    if not 0 < recall <= 1:
        raise CollectionError(f"a recall is above 0 and at most 1, such as 0.95, not {recall}")
    place = Path(os.path.abspath(index))
    ground = _prepared(output, place, recipe, memory)
    work = ground.aside.parent
    try:
        with writer_lock(work):
            report = _built(ground, place, recall, address=address, tell=tell)
            shutil.rmtree(work, ignore_errors=True)
    except OSError as error:
        raise CollectionError(
            f"cannot write to {work} ({error.strerror}): free some space, and run the same "
            "command to go on"
        ) from error
    return report


def _built(
    ground: _Ground, place: Path, recall: float, *, address: str | None, tell: Tell
) -> BuildReport:
    parts, took = _begun(ground), _Clock()
    kept = sum(part.is_done() for part in parts)
    tell(
        f"{ground.rows:,} photos of {len(ground.counts):,} shards in {len(parts):,} parts"
        + (f", {kept:,} done before" if kept else "")
    )
    if not ground.exact and not (ground.aside / TRAINED).exists():
        _train(ground)
        tell(f"trained on {ground.trained_on:,} photos")
    took.stage("train")
    _add(parts, address, tell)
    took.stage("add")
    join_parts(ground.aside, parts, most=max(1, ground.room // 64))
    took.stage("merge")
    found, measured = _tuned(ground, recall)
    took.stage("measure")
    if measured:
        tell(f"recall@{measured.k} on {measured.queries} photos: {measured.recall:.3f}")
    _finish(ground, place, found, measured)
    took.stage("finish")
    return BuildReport(
        ground.rows, len(ground.counts), len(parts), kept, found, measured, took.seconds
    )


def _prepared(
    output: str | os.PathLike[str], place: Path, recipe: str | Path | Recipe, memory: int
) -> _Ground:
    if memory < MIN_MEMORY:
        raise CollectionError(
            f"{memory / 1e6:.0f} MB of memory are too few to build in: allow "
            f"{MIN_MEMORY / 1e6:.0f} MB "
            "or more"
        )
    if place.exists() and not ((place / MANIFEST).exists() and (place / FACTS).exists()):
        raise CollectionError(f"{place} is no index that could be replaced: name a new folder")
    shards = open_shards(output)
    missing = shards.missing()
    if missing:
        raise CollectionError(
            f"{shards.name} lacks {len(missing):,} shards: run the same `vitsearch embed` "
            "again "
            "to finish it first"
        )
    counts = {number: shards.counts([number])[0] for number in shards.finished()}
    rows, dim, room = sum(counts.values()), shards.manifest.dim, memory - LIBRARIES
    if not rows:
        raise CollectionError(
            f"no shard of {shards.name} holds a photo: see `vitsearch failures`, and embed "
            "another source"
        )
    if max(counts.values()) * 2 * dim * READING_COPIES > room:
        least = LIBRARIES + max(counts.values()) * 2 * dim * READING_COPIES
        raise CollectionError(
            f"a shard of {max(counts.values()):,} photos does not fit: allow "
            f"{least / 1e6:,.0f} "
            "MB of memory or more"
        )
    chosen = recipe if isinstance(recipe, Recipe) else load_recipe(recipe)
    if chosen.kind == "auto":
        chosen = choose_recipe(rows, dim, memory=chosen.memory or memory, recall=RECALL).recipe
    trained_on = min(_trains_on(chosen, rows, dim), room // (4 * dim * TRAINING_COPIES))
    return _Ground(
        shards, counts, chosen, trained_on, room, place.with_name(f"{place.name}.new") / place.name
    )


def _trains_on(recipe: Recipe, rows: int, dim: int) -> int:
    if recipe.is_exact:
        return 0
    try:
        from vitsearch.index.sharded import trains_on
    except ImportError as error:
        raise RecipeError(
            "an index is built from shards by FAISS, which is not installed: pip install "
            "'vitsearch[faiss]'"
        ) from error
    return trains_on(recipe, rows, dim)


def _begun(ground: _Ground) -> list[Part]:
    """Return the parts to build, in a folder beside the place: that of a run before where it was of
    the same, else a new one.
    """
    parts = _parts(ground)
    facts = {
        "shards": ground.shards.name,
        "fingerprint": ground.shards.manifest.encoder_fingerprint,
        "counts": list(ground.counts.items()),
        "recipe": ground.recipe.to_dict(),
        "trained_on": ground.trained_on,
        "parts": [part.shards for part in parts],
    }
    text, aside = json.dumps(facts), ground.aside
    if not (aside / BEGUN).exists() or (aside / BEGUN).read_text(encoding="ascii") != text:
        shutil.rmtree(aside, ignore_errors=True)
        (aside / PARTS).mkdir(parents=True)
        for name, size in ((VECTORS, 2 * ground.dim), (IDS, 8)):
            with open(aside / name, "wb") as file:
                file.truncate(size * ground.rows)
        (aside / BEGUN).write_text(text, encoding="ascii")
    return parts


def _parts(ground: _Ground) -> list[Part]:
    """Return consecutive shards in as many parts as each fits into memory."""
    most = -(-ground.rows // PIECES)
    if not ground.exact:
        from vitsearch.index.sharded import part_bytes

        most = min(most, ground.room // 2 // part_bytes(ground.recipe, ground.rows, ground.dim))
    groups: list[list[int]] = []
    held = 0
    for number, count in ground.counts.items():
        if not groups or held + count > most:
            groups.append([])
            held = 0
        groups[-1].append(number)
        held += count
    sizes = [sum(ground.counts[number] for number in group) for group in groups]
    starts = [0, *accumulate(sizes)]
    name = ground.shards.name
    return [
        Part(place, name, ground.aside, tuple(group), start, size, ground.dim, ground.exact)
        for place, (group, start, size) in enumerate(zip(groups, starts, sizes, strict=False))
    ]


def _train(ground: _Ground) -> None:
    from vitsearch.index.sharded import train_index

    train_index(
        ground.aside / TRAINED,
        ground.recipe,
        ground.rows,
        draw_sample(ground.shards, ground.counts, ground.trained_on, seed=SEED),
    )


def _add(parts: Sequence[Part], address: str | None, tell: Tell) -> None:
    waiting = [part for part in parts if not part.is_done()]
    ready = len(parts) - len(waiting)

    def done(_: int) -> None:
        nonlocal ready
        ready += 1
        tell(f"{ready:,} of {len(parts):,} parts")

    if address is not None and waiting:
        try:
            from vitsearch.cluster.ray_parts import make_parts_on_cluster
        except ImportError as error:
            raise CollectionError(
                "building on a cluster needs Ray: pip install 'vitsearch[ray]'"
            ) from error
        make_parts_on_cluster(waiting, address, done)
        return
    for part in waiting:
        done(make_part(part))


def _tuned(ground: _Ground, recall: float) -> tuple[Recipe, Measured | None]:
    """Return the recipe with the least search effort that reaches the recall, and the recall that
    was measured.
    """
    if ground.exact:
        return Recipe("exact", "exact"), None
    from vitsearch.index.faiss_index import read_faiss_index

    vectors: Halves = np.memmap(
        ground.aside / VECTORS, dtype="<f2", mode="r", shape=(ground.rows, ground.dim)
    )
    index = read_faiss_index(ground.aside / FAISS, search=ground.recipe.search)
    manifest = Manifest(ground.recipe, 0, ground.rows, ground.dim, "", {})
    snapshot = IndexSnapshot(
        manifest, row_numbers(ground.aside / PARTS / "rows.i64", ground.rows), vectors, index
    )
    return tune(snapshot, make_truth(vectors, seed=SEED), recall)


def _finish(ground: _Ground, place: Path, recipe: Recipe, measured: Measured | None) -> None:
    """Write what the index says of itself, and put the folder in its place."""
    facts: dict[str, Any] = {"shards": ground.shards.name, **asdict(ground.shards.manifest)}
    (ground.aside / FACTS).write_text(json.dumps(facts), encoding="ascii")
    files = {
        name: facts_of(ground.aside / name) for name in FILES if (ground.aside / name).exists()
    }
    asked = ground.recipe.to_dict() if recipe != ground.recipe else {}
    fingerprint = ground.shards.manifest.encoder_fingerprint
    write_manifest(
        ground.aside,
        Manifest(recipe, 0, ground.rows, ground.dim, fingerprint, files, asked, measured),
    )
    (ground.aside / BEGUN).unlink()
    shutil.rmtree(ground.aside / PARTS)
    old = place.with_name(f"{place.name}.old")
    shutil.rmtree(old, ignore_errors=True)
    with suppress(FileNotFoundError):
        os.rename(place, old)
    os.rename(ground.aside, place)
    shutil.rmtree(old, ignore_errors=True)


class _Clock:
    """Seconds by stage."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._last = time.perf_counter()

    def stage(self, name: str) -> None:
        """End a stage."""
        now = time.perf_counter()
        self.seconds[name], self._last = now - self._last, now
