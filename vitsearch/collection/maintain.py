"""Maintains the index: when changes go into a small exact delta, when the main index is rebuilt,
by which recipe, and how it is tuned.
"""

import logging
import os
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass, replace
from importlib.resources import files
from pathlib import Path

import numpy as np

from vitsearch.arrays import Vectors
from vitsearch.encoders.base import Encoder, ImageEncoder
from vitsearch.errors import CollectionError, IndexDamaged
from vitsearch.index import (
    Manifest,
    Measured,
    Origin,
    build_snapshot,
    faiss_is_installed,
    gpu_count,
    indexed_ids,
    keep_tuning,
    make_sample,
    open_snapshot,
    remove_snapshot,
    tune,
    verify_snapshot,
)
from vitsearch.index.recipe import Recipe, RecipeCost, choose_recipe, predict
from vitsearch.storage.config import (
    DELTA_INDEX,
    MAIN_INDEX,
    CollectionConfig,
    write_collection_config,
)
from vitsearch.storage.filesystem import disk_errors
from vitsearch.storage.lock import writer_lock
from vitsearch.storage.store import PhotoStore

log = logging.getLogger("vitsearch")
DELTA_FROM = 20_000  # a main index with fewer rows is rebuilt: cheaper than searching two indexes
DELTA_SHARE = 0.1  # of the main index's rows that may have changed before it is rebuilt
LOG_FROM = 10_000  # photos from which building an exact index takes a second or more
PHOTO_QUERIES, TEXT_QUERIES = 200, 100
DEFAULT_MEMORY = 2_000_000_000  # bytes
MAX_RECALL = 0.9999  # of a recipe: only an exact one promises all


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

    def update(self) -> None:
        """Make the index, or the index with its delta, contain every stored vector.

        What is up to date already is left alone, after every byte of it was checked.
        """
        generation = self.store.generation()
        main = self._sound(MAIN_INDEX, log_damage=True)
        if main is None or not self._is_as_requested(main):
            self._rebuild(generation)
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
            self._rebuild(generation)

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

    def _rebuild(self, generation: int) -> None:
        count = self.store.count()
        choice = choose(self.requested, count, self.dim)
        if count >= LOG_FROM or not choice.recipe.is_exact:
            log.info(describe_choice(choice, count))
        build_snapshot(
            self.folder / MAIN_INDEX,
            self.store.vector_batches(),
            recipe=choice.recipe,
            dim=self.dim,
            generation=generation,
            fingerprint=self.fingerprint,
            requested=self.requested if self.requested != choice.recipe else None,
            origin=Origin(self.store.state()),
        )
        remove_snapshot(self.folder / DELTA_INDEX)
        if choice.recipe.recall and not choice.recipe.is_exact and count:
            measured = self.retune(choice.recipe.recall).measured
            assert measured is not None
            log.info(
                f"recall@{measured.k} on {measured.queries} queries of your photos: "
                f"{measured.recall:.3f}"
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
        build_snapshot(
            self.folder / DELTA_INDEX,
            self.store.vector_batches(since=main.generation),
            recipe=Recipe("exact", "exact"),
            dim=self.dim,
            generation=generation,
            fingerprint=self.fingerprint,
            origin=Origin(self.store.state(), main.generation, removed),
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


def text_like_queries(encoder: ImageEncoder) -> Vectors:
    """Return the vectors ``(100, dim)`` of prompts of things that photos show.

    There are none for an encoder that reads no text.
    """
    if not isinstance(encoder, Encoder):
        return np.empty((0, encoder.dim), dtype=np.float32)
    table = files("vitsearch").joinpath("imagenet_classes.tsv").read_text(encoding="utf-8")
    names = [line.split("\t")[1] for line in table.splitlines() if not line.startswith("#")]
    every_tenth = names[: 10 * TEXT_QUERIES : 10]
    return encoder.encode_texts([f"a photo of a {name}." for name in every_tenth])


@dataclass(frozen=True, slots=True)
class TuneReport:
    """The result of tuning: the recipe with its search parameters, and the recall measured.

    ``measured`` is None if the search is exact anyway.
    """

    recipe: Recipe
    measured: Measured | None


def tune_local(
    folder: Path, config: CollectionConfig, encoder: Callable[[], ImageEncoder], recall: float
) -> TuneReport:
    """Set the search effort of the index in ``folder`` to the least that reaches a recall@10.

    The recall is measured on 200 of the collection's photos (each left out of its own results) and
    on 100 prompts, since the vectors of words lie elsewhere than those of photos; the smaller of
    the two counts. Raises CollectionError if there is no index or the recall is not from 0 to 1,
    and CollectionLocked.
    """
    if not 0 < recall <= 1:
        raise CollectionError(f"a recall is above 0 and at most 1, such as 0.95, not {recall}")
    try:
        built = verify_snapshot(folder / MAIN_INDEX, check_content=False)
    except IndexDamaged as error:
        raise CollectionError(
            f"there is no sound index to tune: run `vitsearch index {config.root}` first ({error})"
        ) from error
    if built.recipe.is_exact:
        return TuneReport(built.recipe, None)
    stored = Recipe.from_dict(config.recipe, source=str(folder / "collection.json"))
    recipe = replace(stored, recall=min(recall, MAX_RECALL))
    with (
        writer_lock(folder),
        disk_errors(folder),
        closing(PhotoStore(folder / "photos.db", read_only=True)) as store,
    ):
        maintainer = IndexMaintainer(
            folder,
            store,
            config.dim,
            config.encoder_fingerprint,
            recipe,
            texts=lambda: text_like_queries(encoder()),
        )
        tuned = maintainer.retune(recall)
        # an index that is built later is tuned for the same recall
        write_collection_config(folder, replace(config, recipe=recipe.to_dict()))
    return TuneReport(tuned.recipe, tuned.measured)
