"""Keeping the index: when changes go into a small exact delta, when the main index is built again,
and by which recipe.
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
    build_snapshot,
    faiss_is_installed,
    gpu_count,
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
    writer_lock,
)
from vitsearch.storage.store import PhotoStore

log = logging.getLogger("vitsearch")
DELTA_FROM = (
    20_000  # rows of the main index below which building it again costs less than searching two
)
DELTA_SHARE = 0.1  # of the main index's rows that may have changed before it is built again
WORTH_TELLING = 10_000  # photos from which an exact index takes a second or more
PHOTO_QUERIES = 200
TEXT_QUERIES = 100
UNKNOWN_MEMORY = 2_000_000_000


@dataclass(frozen=True, slots=True)
class IndexMaintainer:
    """The index of one collection: where it is, what it is of, and the recipe that is wanted for
    it.

    ``texts`` gives the vectors of text-like queries ``(t, dim)`` when they are needed: tuning asks
    for them.
    """

    folder: Path
    store: PhotoStore
    dim: int
    fingerprint: str
    asked: Recipe
    texts: Callable[[], Vectors]

    def update(self) -> None:
        """Let the index, or the index and its delta, hold every stored vector; what is so already
        is left alone.
        """
        generation = self.store.generation()
        main = self._sound(MAIN_INDEX, log_damage=True)
        if main is None or not self._is_as_asked(main):
            self._rebuild(generation)
            return
        if main.generation == generation:
            remove_snapshot(self.folder / DELTA_INDEX)
            return
        fresh = self.store.count_since(main.generation)
        gone = main.count - (self.store.count() - fresh)
        if (
            main.count >= DELTA_FROM
        ):  # found at once by way of the delta, also while the main index is built again
            self._write_delta(main, generation)
        if main.count < DELTA_FROM or fresh + gone > DELTA_SHARE * main.count:
            self._rebuild(generation)

    def retune(self, recall: float) -> Manifest:
        """Set the search effort of the main index by the recall wanted, measured on the
        collection's photos, and return its manifest.

        Raises IndexDamaged where there is no index.
        """
        folder = self.folder / MAIN_INDEX
        snapshot = open_snapshot(folder)
        found, measured = tune(
            snapshot, make_sample(snapshot, self.texts(), photos=PHOTO_QUERIES), recall
        )
        keep_tuning(folder, snapshot, found, measured, requested=self.asked)
        return verify_snapshot(folder, check_content=False)

    def _rebuild(self, generation: int) -> None:
        count = self.store.count()
        choice = choose(self.asked, count, self.dim)
        if count >= WORTH_TELLING or not choice.recipe.is_exact:
            log.info(describe_choice(choice, count))
        build_snapshot(
            self.folder / MAIN_INDEX,
            self.store.vector_batches(),
            recipe=choice.recipe,
            dim=self.dim,
            generation=generation,
            fingerprint=self.fingerprint,
            requested=self.asked if self.asked != choice.recipe else None,
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
        if delta and (delta.since, delta.generation) == (main.generation, generation):
            return
        build_snapshot(
            self.folder / DELTA_INDEX,
            self.store.vector_batches(since=main.generation),
            recipe=Recipe("exact", "exact"),
            dim=self.dim,
            generation=generation,
            fingerprint=self.fingerprint,
            since=main.generation,
        )

    def _sound(self, name: str, *, log_damage: bool = False) -> Manifest | None:
        if not (self.folder / name).exists():
            return None
        try:
            return verify_snapshot(self.folder / name, check_content=False)
        except IndexDamaged as error:
            if log_damage:
                log.warning(
                    f"{str(error).partition(';')[0]}; it is built again from the stored vectors"
                )
            return None

    def _is_as_asked(self, main: Manifest) -> bool:
        asked = dict(main.requested) if main.requested else main.recipe.to_dict()
        return (
            main.fingerprint == self.fingerprint
            and main.dim == self.dim
            and asked == self.asked.to_dict()
        )


def choose(asked: Recipe, count: int, dim: int) -> RecipeCost:
    """Return the recipe to build for what was asked, with its predicted costs; ``auto`` looks at
    the machine.
    """
    if asked.kind != "auto":
        return predict(asked, count, dim)
    memory = asked.memory or default_memory()
    return choose_recipe(
        count,
        dim,
        memory=memory,
        recall=asked.recall,
        gpu=asked.gpu and gpu_count() > 0,
        faiss=faiss_is_installed(),
    )


def describe_choice(choice: RecipeCost, count: int) -> str:
    """Return a choice and what it is predicted to cost in one line."""
    recipe = choice.recipe
    reason = f" ({choice.reason})" if choice.reason else ""
    size = choice.memory_bytes / 1e6
    return (
        f"index of {count:,} photos by recipe {recipe.name}{reason}: about {size:,.0f} MB in "
        f"memory, {choice.build_seconds:,.0f} s to build, "
        f"{max(choice.query_ms, 0.1):.1f} ms a search"
    )


def default_memory() -> int:
    """Return a quarter of the machine's memory in bytes, 2 GB where the system does not say."""
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 4
    except (AttributeError, ValueError, OSError):
        return UNKNOWN_MEMORY


def text_like_queries(encoder: ImageEncoder) -> Vectors:
    """Return the vectors of prompts of things that photos show, ``(100, dim)``; none for an encoder
    that reads no text.
    """
    if not isinstance(encoder, Encoder):
        return np.empty((0, encoder.dim), dtype=np.float32)
    lines = (
        files("vitsearch").joinpath("imagenet_classes.tsv").read_text(encoding="utf-8").splitlines()
    )
    names = [line.split("\t")[1] for line in lines if not line.startswith("#")]
    return encoder.encode_texts(
        [f"a photo of a {name}." for name in names[: 10 * TEXT_QUERIES : 10]]
    )


# -- Tuning ----------------------------------------------------------------------------------------

MAX_RECALL = 0.9999  # of a recipe: only an exact one promises all


@dataclass(frozen=True, slots=True)
class TuneReport:
    """What tuning set: the recipe with its search parameters, and the recall measured with them;
    None where the search is exact anyway.
    """

    recipe: Recipe
    measured: Measured | None


def tune_local(
    folder: Path, config: CollectionConfig, encoder: Callable[[], ImageEncoder], recall: float
) -> TuneReport:
    """Set the search effort of the index in ``folder`` to the least that reaches a recall@10, and
    return what it was measured to be.

    Measured on 200 of the collection's photos (each left out of its own results) and 100 prompts,
    since words lie elsewhere than photos; the smaller of the two counts. Raises CollectionError
    where there is no index or the recall is not from 0 to 1, CollectionLocked.
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
        # what is built later is tuned so too
        write_collection_config(folder, replace(config, recipe=recipe.to_dict()))
    return TuneReport(tuned.recipe, tuned.measured)
