"""Mends a ``photos.db`` in which something has rotted, as far as that is possible."""

import logging
import time

from vitsearch.storage.store import PhotoStore

log = logging.getLogger("vitsearch")
_CHECKED = "checked_at"  # the fact that says when every row was checked, in seconds since 1970
_SMALL = 10_000  # photos that are checked by each run, in a quarter of a second
_DAY = 86_400
_FEW = 20  # damaged rows that may be more than half of all


def mend(store: PhotoStore) -> None:
    """Check a file that is open for writing, and remove from it what is not what was stored.

    Photos that are removed are new to the run that follows, which embeds them again. More than
    10,000 are checked once a day, and when a reader has met damage since. What cannot be mended
    raises CollectionError: damage to the pages of the file, and of most of its rows.
    """
    if facts := store.damaged_facts():
        log.warning(f"{store.path} was damaged: its facts {', '.join(facts)} are written anew")
        with store.writing():
            store.remove_facts(facts)
    if not _is_due(store):
        return
    if store.page_problems():
        log.warning(f"{store.path} was damaged: its indexes are written anew")
        store.rebuild_indexes()
        if problems := store.page_problems():
            raise store.damage("; ".join(problems[:3]))
    _remove_damaged(store)
    store.mended()
    if store.count() > _SMALL:
        with store.writing():
            store.set_meta(_CHECKED, int(time.time()))


def _is_due(store: PhotoStore) -> bool:
    checked = store.get_meta(_CHECKED)
    return (
        store.count() <= _SMALL
        or store.mending_is_wanted()
        or not isinstance(checked, int)
        or not 0 <= time.time() - checked < _DAY
    )


def _remove_damaged(store: PhotoStore) -> None:
    photos, failures = store.damaged_photos(), store.damaged_failures()
    if len(photos) > max(_FEW, store.count() // 2):
        raise store.damage(f"of {store.count()} rows {len(photos)}")
    if not photos and not failures:
        return
    if photos:
        log.warning(
            f"{store.path} was damaged: {store.named(photos)} removed; what is in the folder is "
            "embedded again, without its stored label"
        )
    with store.writing():
        store.remove_ids(photos)
        store.forget_failures(failures)
        store.raise_generation(bool(photos))
