"""Tuning: the least search effort with which a collection's index finds enough of what an exact search finds."""

import os
from dataclasses import dataclass, replace

from vitsearch.collection import Collection
from vitsearch.errors import CollectionError, IndexDamaged
from vitsearch.index import Measured, verify_shadow
from vitsearch.layout import MAIN, write_settings, writer_lock
from vitsearch.recipes import RECALL, Recipe
from vitsearch.store import PhotoStore
from vitsearch.upkeep import Upkeep, text_like_queries

MOST_RECALL = 0.9999  # of a recipe: only an exact one promises all


@dataclass(frozen=True, slots=True)
class TuneReport:
    """What tuning set: the recipe with its search parameters, and the recall measured with them; None where the search is exact anyway."""

    recipe: Recipe
    measured: Measured | None


def tune_collection(
    photos: str | os.PathLike[str], *, collection: str | os.PathLike[str] | None = None, recall: float = RECALL, device: str = "auto"
) -> TuneReport:
    """Set the search effort of a collection's index to the least that reaches a recall@10, and return what it was measured to be.

    Measured on 200 of the collection's photos (each left out of its own results) and 100 prompts, since words lie elsewhere than photos;
    the smaller of the two counts. Raises CollectionError where there is no index or the recall is not from 0 to 1, CollectionLocked.
    """
    if not 0 < recall <= 1:
        raise CollectionError(f"a recall is above 0 and at most 1, such as 0.95, not {recall}")
    with Collection.open(photos, collection=collection, device=device) as found:
        folder, settings = found.folder, found.settings
        try:
            built = verify_shadow(folder / MAIN, whole=False)
        except IndexDamaged as error:
            raise CollectionError(f"there is no sound index to tune: run `vitsearch index {photos}` first ({error})") from error
        if built.recipe.is_exact:
            return TuneReport(built.recipe, None)
        with writer_lock(folder):
            store = PhotoStore(folder / "photos.db", read_only=True)
            try:
                asked = replace(Recipe.from_dict(settings.recipe, source=str(folder / "collection.json")), recall=min(recall, MOST_RECALL))
                upkeep = Upkeep(
                    folder,
                    store,
                    settings.dim,
                    settings.encoder_fingerprint,
                    asked,
                    texts=lambda: text_like_queries(found.encoder),
                    tell=lambda _: None,
                )
                tuned = upkeep.retune(recall)
                write_settings(folder, replace(settings, recipe=asked.to_dict()))  # what is built later is tuned so too
            finally:
                store.close()
    return TuneReport(tuned.recipe, tuned.measured)
