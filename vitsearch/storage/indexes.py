"""Maintains the index: when changes go into a small delta, when the main index is rebuilt,
by which recipe, and how it is tuned.
"""

import logging
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from importlib.resources import files
from pathlib import Path

import numpy as np

from vitsearch.arrays import Halves, Ids, Vectors
from vitsearch.encoders.base import Encoder, ImageEncoder
from vitsearch.encoders.language import texts_in
from vitsearch.errors import IndexDamaged, VitsearchError
from vitsearch.index.backends import faiss_is_installed, gpu_count
from vitsearch.index.manifest import Manifest, Origin
from vitsearch.index.recall import Trial, fastest, keep_tuning, make_sample, try_recipes, tune
from vitsearch.index.recipe import (
    RECALL,
    Recipe,
    RecipeCost,
    choose_recipe,
    load_recipe,
    predict,
)
from vitsearch.index.snapshot import (
    build_snapshot,
    indexed_ids,
    open_snapshot,
    remove_snapshot,
    verify_snapshot,
)
from vitsearch.storage import (
    DELTA_INDEX,
    MAIN_INDEX,
    CollectionConfig,
)
from vitsearch.storage.store import PhotoStore

log = logging.getLogger("vitsearch")
DELTA_FROM = 20_000  # a main index with fewer rows is rebuilt: cheaper than searching two indexes
DELTA_SHARE = 0.1  # of the main index's rows that may have changed before it is rebuilt
EXACT_DELTA = 10_000  # changes, from which comparing each takes longer than the main index
LOG_FROM = 10_000  # photos from which building an exact index takes a second or more
PHOTO_QUERIES = 300
# what auto measures, on a sample of the vectors
TRIED, TRIED_ROWS = ("flat", "pq-fastscan", "rabitq", "ivf-sq8"), 32_768
DEFAULT_MEMORY = 2_000_000_000  # bytes
ROWS = 2048  # read from the database at a time


@dataclass(frozen=True, slots=True)
class IndexMaintainer:
    """Keeps the index of one collection up to date, by the requested recipe.

    ``texts`` returns the vectors ``(t, dim)`` of text-like queries; it is called for tuning only.
    """

    folder: Path
    store: PhotoStore
    dim: int
    fingerprint: str
    requested: Recipe
    texts: Callable[[], Vectors]
    tried: dict[float, list[Trial]] = field(default_factory=dict)  # by the recall

    def update(self) -> None:
        """Make the index, or the index with its delta, contain every stored vector.

        What is up to date already is left alone, after every byte of it was checked.
        """
        generation = self.store.generation()
        main = self._sound(MAIN_INDEX, log_damage=True)
        if main is None or not self._is_as_requested(main):
            self._rebuild(generation, main)
            return
        if main.generation == generation:
            remove_snapshot(self.folder / DELTA_INDEX)
            return
        added = self.store.count_since(main.generation)
        removed = main.count - (self.store.count() - added)
        if main.count >= DELTA_FROM:
            # the delta also serves searches while the main index is rebuilt
            self._write_delta(main, generation)
        if main.count < DELTA_FROM or added + removed > DELTA_SHARE * main.count:
            self._rebuild(generation, main)

    def retune(self, recall: float) -> Manifest:
        """Set the search effort of the main index for a recall, and return its manifest.

        The recall is measured on the collection's photos. Raises IndexDamaged if there is no index.
        """
        folder = self.folder / MAIN_INDEX
        snapshot = open_snapshot(folder)
        sample = make_sample(snapshot, self.texts(), photos=PHOTO_QUERIES)
        params, measured = tune(snapshot, sample, recall)
        keep_tuning(folder, snapshot, params, measured, requested=self.requested)
        return verify_snapshot(folder, check_content=False)

    def trials(self, count: int) -> list[Trial]:
        """Return what the recipes that ``auto`` may choose from do on a sample of the vectors,
        measured once.
        """
        recall = self.requested.recall or RECALL
        if self.tried.get(recall):
            return self.tried[recall]
        recipes = [replace(load_recipe(name), recall=recall) for name in TRIED]
        memory = self.requested.memory or default_memory()
        fitting = [
            each for each in recipes if predict(each, count, self.dim).memory_bytes <= memory
        ]
        ids = self.store.ids()
        size = min(len(ids), TRIED_ROWS)
        drawn = np.sort(np.random.default_rng(0).choice(ids, size, replace=False))
        vectors = np.concatenate([*self._rows_of(drawn)])
        self.tried[recall] = try_recipes(vectors, self.texts(), fitting, count=count)
        return self.tried[recall]

    def _rows_of(self, ids: Ids) -> Iterator[Halves]:
        """Yield the stored rows of ascending ids, some at a time: bytes take more memory."""
        for start in range(0, len(ids), ROWS):
            rows = sorted(self.store.rows(ids[start : start + ROWS].tolist()))
            if rows:  # not all of them damaged
                yield self.store.halves([raw for _, _, raw, _ in rows])

    def measures(self, recipe: Recipe) -> bool:
        """Return whether `trials` decide instead of a recipe that `choose` has given."""
        predicted = recipe.is_exact or recipe.on_disk or recipe.gpu
        return self.requested.kind == "auto" and not predicted

    def _fastest(self, count: int, recall: float) -> RecipeCost:
        trials = self.trials(count)
        best = fastest(trials, recall)
        chosen = replace(load_recipe(best.recipe.name), recall=recall)
        reason = f"the fastest of {len(trials)} measured on a sample of your photos"
        return replace(predict(chosen, count, self.dim, reason), query_ms=best.query_ms)

    def _rebuild(self, generation: int, main: Manifest | None) -> None:
        count = self.store.count()
        if main is None and count >= DELTA_FROM:
            # all vectors can be searched while the index is chosen and built, or if that fails
            self._build(Recipe("exact", "exact"), generation)
        choice = choose(self.requested, count, self.dim)
        if is_tried := self.measures(choice.recipe):
            choice = self._fastest(count, choice.recipe.recall)
        recipe = choice.recipe
        if count >= LOG_FROM or not recipe.is_exact or is_tried:
            log.info(describe_choice(choice, count))
        self._build(recipe, generation, self.requested if self.requested != recipe else None)
        remove_snapshot(self.folder / DELTA_INDEX)
        if recipe.recall and not recipe.is_exact and count:
            measured = self.retune(recipe.recall).measured
            assert measured is not None
            words = "" if measured.texts is None else f", of words {measured.texts:.3f}"
            log.info(
                f"recall@{measured.k} on {measured.queries} queries of your photos: "
                f"{measured.photos:.3f}{words}"
            )

    def _build(self, recipe: Recipe, generation: int, requested: Recipe | None = None) -> None:
        build_snapshot(
            self.folder / MAIN_INDEX,
            self.store.vector_batches(),
            recipe=recipe,
            dim=self.dim,
            generation=generation,
            fingerprint=self.fingerprint,
            requested=requested,
            origin=Origin(self.store.state(), generations=self.store.generations),
        )

    def _write_delta(self, main: Manifest, generation: int) -> None:
        delta = self._sound(DELTA_INDEX)
        if (
            delta
            and (delta.since, delta.generation) == (main.generation, generation)
            and self.store.had_state(generation, delta.state)
        ):
            return
        removed = np.setdiff1d(indexed_ids(self.folder / MAIN_INDEX), self.store.ids())
        few = self.store.count_since(main.generation) < EXACT_DELTA
        exact = few or main.recipe.on_disk or main.recipe.gpu
        build_snapshot(
            self.folder / DELTA_INDEX,
            self.store.vector_batches(since=main.generation),
            recipe=Recipe("exact", "exact") if exact else main.recipe,
            dim=self.dim,
            generation=generation,
            fingerprint=self.fingerprint,
            origin=Origin(self.store.state(), main.generation, removed, self.store.generations),
        )

    def _sound(self, name: str, *, log_damage: bool = False) -> Manifest | None:
        if not (self.folder / name).exists():
            return None
        try:
            return verify_snapshot(self.folder / name)
        except IndexDamaged as error:
            if log_damage:
                log.warning(
                    f"{str(error).partition(';')[0]}; it is built again from the stored vectors"
                )
            return None

    def _is_as_requested(self, main: Manifest) -> bool:
        requested = dict(main.requested) if main.requested else main.recipe.to_dict()
        return (
            self.store.had_state(main.generation, main.state)
            and main.fingerprint == self.fingerprint
            and main.dim == self.dim
            and requested == self.requested.to_dict()
        )


def choose(requested: Recipe, count: int, dim: int) -> RecipeCost:
    """Return the recipe to build for the requested one, with its predicted costs.

    For ``auto`` it depends on the machine.
    """
    if requested.kind != "auto":
        return predict(requested, count, dim)
    memory = requested.memory or default_memory()
    return choose_recipe(
        count,
        dim,
        memory=memory,
        recall=requested.recall,
        gpu=requested.gpu and gpu_count() > 0,
        faiss=faiss_is_installed(),
    )


def describe_choice(choice: RecipeCost, count: int) -> str:
    """Return a choice and its predicted costs in one line."""
    recipe = choice.recipe
    reason = f" ({choice.reason})" if choice.reason else ""
    size = choice.memory_bytes / 1e6
    return (
        f"index of {count:,} photos by recipe {recipe.name}{reason}: about {size:,.0f} MB in "
        f"memory, {choice.build_seconds:,.0f} s to build, "
        f"{max(choice.query_ms, 0.1):.1f} ms a search"
    )


def default_memory() -> int:
    """Return a quarter of the machine's memory in bytes, 2 GB if that is unknown."""
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 4
    except (AttributeError, ValueError, OSError):
        return DEFAULT_MEMORY


def refresh_index(
    folder: Path,
    config: CollectionConfig,
    store: PhotoStore,
    encoder: Callable[[], ImageEncoder],
) -> IndexMaintainer:
    """Bring the index of the collection in ``folder`` up to date, building it where there is none,
    and return what maintains it; under its writer's lock.

    The encoder is used where the index is tuned, for queries of words; where it cannot be loaded
    that is logged, and photos alone are the queries.
    """

    def texts() -> Vectors:
        try:
            return text_like_queries(encoder())
        except VitsearchError as error:
            log.warning(f"the index is tuned for queries by photos alone: {error}")
            return np.empty((0, config.dim), dtype=np.float32)

    recipe = Recipe.from_dict(config.recipe, source=str(folder / "collection.json"))
    maintainer = IndexMaintainer(
        folder, store, config.dim, config.encoder_fingerprint, recipe, texts=texts
    )
    maintainer.update()
    return maintainer


def text_like_queries(encoder: ImageEncoder) -> Vectors:
    """Return the vectors ``(1000, dim)`` of words and of prompts of things that photos show.

    There are none for an encoder that reads no text.
    """
    if not isinstance(encoder, Encoder):
        return np.empty((0, encoder.dim), dtype=np.float32)
    table = files("vitsearch").joinpath("imagenet_classes.tsv").read_text(encoding="utf-8")
    names = [line.split("\t")[1] for line in table.splitlines() if not line.startswith("#")]
    prompts = (f"a photo of a {name}." for name in names[::2])
    with texts_in("en"):
        return encoder.encode_texts([*names[1::2], *prompts])
