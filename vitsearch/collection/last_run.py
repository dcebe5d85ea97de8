"""The settings of the last run of indexing that say which files it takes, kept for a run that only
tries again.
"""

import json
from typing import Any

from vitsearch.options import IndexOptions
from vitsearch.storage.reader import PhotoReader
from vitsearch.storage.store import PhotoStore

WALK_SETTINGS = ("exclude", "include_hidden", "follow_symlinks", "video_every")
_FACT = "walk"


def walk_settings(store: PhotoReader) -> dict[str, Any]:
    """Return the `WALK_SETTINGS` of the last run, as keywords of `index_folder`; nothing where all
    runs had the usual ones.
    """
    text = store.get_meta(_FACT)
    return json.loads(text) if isinstance(text, str) else {}


def record_walk_settings(store: PhotoStore, options: IndexOptions) -> None:
    """Store the `WALK_SETTINGS` of a run where they are new."""
    settings = _of(options)
    if settings != (walk_settings(store) or _of(IndexOptions())):
        with store.writing():
            store.set_meta(_FACT, json.dumps(settings))


def _of(options: IndexOptions) -> dict[str, Any]:
    settings = {name: getattr(options, name) for name in WALK_SETTINGS}
    return settings | {"exclude": [*options.exclude]}
