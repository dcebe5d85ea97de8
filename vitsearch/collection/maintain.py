"""Tunes the index of a collection on its own photos and on words."""

from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path

from vitsearch.encoders.base import ImageEncoder
from vitsearch.errors import CollectionError
from vitsearch.index import Measured, Trial, verify_snapshot
from vitsearch.index.recipe import Recipe
from vitsearch.storage.config import MAIN_INDEX, CollectionConfig, write_collection_config
from vitsearch.storage.filesystem import disk_errors
from vitsearch.storage.indexes import choose, refresh_index
from vitsearch.storage.lock import writer_lock
from vitsearch.storage.store import PhotoStore

MAX_RECALL = 0.9999  # of a recipe: only an exact one promises all


@dataclass(frozen=True, slots=True)
class TuneReport:
    """The result of tuning: the recipe with its search parameters, and the recall measured.

    ``measured`` is None if the search is exact anyway. ``tried`` is what the recipes that ``auto``
    chooses from did on a sample of the vectors, none where another recipe was requested or there
    are too few photos for an index.
    """

    recipe: Recipe
    measured: Measured | None
    tried: tuple[Trial, ...] = ()


def tune_local(
    folder: Path, config: CollectionConfig, encoder: Callable[[], ImageEncoder], recall: float
) -> TuneReport:
    """Set the search effort of the index in ``folder`` to the least that reaches a recall@10.

    An index that is missing or out of date is built first. The recall is measured on 300 of the
    collection's photos (each left out of its own results) and on the 400 of 1,000 texts
    that fit some of them best, since the vectors of
    words lie elsewhere than those of photos; each kind has to reach it. Raises CollectionError if
    the recall is not from 0 to 1, and CollectionLocked.
    """
    if not 0 < recall <= 1:
        raise CollectionError(f"a recall is above 0 and at most 1, such as 0.95, not {recall}")
    with (
        writer_lock(folder),
        disk_errors(folder),
        closing(PhotoStore(folder / "photos.db", read_only=True)) as store,
    ):
        maintainer = refresh_index(folder, config, store, encoder)
        recipe = replace(maintainer.requested, recall=min(recall, MAX_RECALL))
        maintainer = replace(maintainer, requested=recipe)
        count = store.count()
        choice = choose(recipe, count, config.dim).recipe
        tried = tuple(maintainer.trials(count)) if maintainer.chooses(choice) else ()
        built = verify_snapshot(folder / MAIN_INDEX, check_content=False)
        if built.recipe.is_exact:
            return TuneReport(built.recipe, None, tried)
        tuned = maintainer.retune(recall)
        # an index that is built later is tuned for the same recall
        write_collection_config(folder, replace(config, recipe=recipe.to_dict()))
    return TuneReport(tuned.recipe, tuned.measured, tried)
