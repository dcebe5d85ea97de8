"""Collections in and out: clip-retrieval's folder, a FAISS index with ids and paths, shard sets,
and one collection into another of the same encoder, without reading or embedding a photo.
"""

import os
from collections import Counter
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass, replace
from importlib import import_module
from typing import TYPE_CHECKING, Any, Literal, get_args

from vitsearch.encoders import load_named_encoder
from vitsearch.errors import CollectionError
from vitsearch.interop.base import photo_blocks
from vitsearch.interop.importer import ImportOptions, ImportReport
from vitsearch.interop.shards import export_shards, holds_shards, import_shards
from vitsearch.storage import StoredCollection
from vitsearch.storage.filesystem import disk_errors, writer_lock
from vitsearch.storage.indexes import refresh_index
from vitsearch.storage.metadata import put_places_of
from vitsearch.storage.rows import Outcome
from vitsearch.storage.store import PhotoStore
from vitsearch.types import OnProgress, Progress, no_progress

if TYPE_CHECKING:
    from vitsearch.interop.clip_retrieval import export_clip_retrieval, import_clip_retrieval
    from vitsearch.interop.faiss_folder import export_faiss, import_faiss


@dataclass(frozen=True, slots=True)
class MergeReport:
    """What became of the photos of the source: ``added``, ``unchanged`` (the target has the same
    content), ``replaced`` (the target had an older file at that path), ``kept`` (the target has a
    newer one); ``total`` photos are now in the target.
    """

    added: int
    unchanged: int
    replaced: int
    kept: int
    total: int


def merge(
    source: StoredCollection,
    target: StoredCollection,
    *,
    progress: OnProgress = no_progress,
) -> MergeReport:
    """Copy the photos of one collection, with vectors and labels, into another whose photo folder
    is the same or holds the source's.

    Paths become relative to the target's folder. Where both have a path with different content,
    the file that was changed last wins. All is stored in one transaction; then the index of
    the target is brought up to date, as by indexing. Raises
    EncoderMismatch for another encoder, CollectionLocked, and CollectionError for folders that do
    not lie in each other.
    """
    prefix = _prefix(source, target)
    source.config.identity.check(
        target.config.identity,
        source.folder,
        "index one of them again with the encoder of the other",
        of=target.folder,
    )
    with (
        writer_lock(target.folder),
        disk_errors(target.folder),
        closing(PhotoStore(target.folder / "photos.db")) as store,
    ):
        with store.writing(), source.store.reading():
            done, count = 0, source.store.count()
            counts: Counter[Outcome] = Counter()
            for photos, halves in photo_blocks(
                source.store, source.store.photos(moments=True), count
            ):
                for photo, half in zip(photos, halves, strict=True):
                    moved = replace(photo, path=prefix + photo.path)
                    outcome = store.keep(moved, half, newest=True)
                    counts[outcome] += 1
                    if outcome is not Outcome.OLDER:
                        put_places_of(store, source.store, photo)
                done += len(photos)
                progress(Progress("merging", done, count))
            store.raise_generation(any(outcome.is_stored for outcome in counts))
        total = store.count()
        config = target.config
        refresh_index(
            target.folder,
            config,
            store,
            lambda: load_named_encoder(config.encoder, target.folder, "auto", config.dtype),
        )
        store.checkpoint()
    return MergeReport(
        added=counts[Outcome.NEW],
        unchanged=counts[Outcome.UNCHANGED],
        replaced=counts[Outcome.REPLACED],
        kept=counts[Outcome.OLDER],
        total=total,
    )


def _prefix(source: StoredCollection, target: StoredCollection) -> str:
    """Return what the source's paths begin with below the target's folder, "" where the folders are
    the same.
    """
    if os.path.realpath(source.folder) == os.path.realpath(target.folder):
        raise CollectionError(f"{source.folder} is both collections: name two")
    inner, outer = os.path.realpath(source.root), os.path.realpath(target.root)
    if inner == outer:
        return ""
    if os.path.commonpath([inner, outer]) != outer:
        raise CollectionError(
            f"{source.root} does not lie in {target.root}: merge into the collection "
            "of a folder that holds both"
        )
    return os.path.relpath(inner, outer).replace(os.sep, "/") + "/"


# -- Layouts ---------------------------------------------------------------------------------------


Layout = Literal["clip-retrieval", "faiss", "shards"]
_MODULES: dict[str, str] = {
    "clip_retrieval": "clip_retrieval",
    "faiss": "faiss_folder",
    "shards": "shards",
}
_ADVICE = {  # where the library of a module is not installed
    "clip_retrieval": "clip-retrieval's metadata is Parquet, which needs an extra: pip install "
    "'vitsearch[parquet]'",
    "faiss": "this needs FAISS, which is not installed: pip install 'vitsearch[faiss]'",
}


def exporter(layout: Layout) -> Callable[..., int]:
    """Return the function that exports a collection, loading its library; raises CollectionError
    where that is not installed, or for a layout that is not known.
    """
    export: Callable[..., int] = _function("export", layout)
    return export


def importer_of(layout: Layout) -> Callable[..., ImportReport]:
    """Return the function that imports into a collection, loading its library; raises
    CollectionError where that is not installed, or for a layout that is not known.
    """
    load: Callable[..., ImportReport] = _function("import", layout)
    return load


def _function(verb: str, layout: str) -> Any:
    if layout not in get_args(Layout):
        raise CollectionError(
            f"there is no layout {layout!r}: choose one of {', '.join(get_args(Layout))}"
        )
    return __getattr__(f"{verb}_{layout.replace('-', '_')}")


def __getattr__(name: str) -> Any:
    """Return a function of a layout, whose module is imported when it is first used (PEP 562)."""
    verb, _, layout = name.partition("_")
    if verb not in ("export", "import") or layout not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    try:
        return getattr(import_module(f"{__name__}.{_MODULES[layout]}"), name)
    except ImportError as error:
        raise CollectionError(_ADVICE[layout]) from error


__all__ = [
    "ImportOptions",
    "ImportReport",
    "Layout",
    "MergeReport",
    "export_clip_retrieval",
    "export_faiss",
    "export_shards",
    "exporter",
    "holds_shards",
    "import_clip_retrieval",
    "import_faiss",
    "import_shards",
    "importer_of",
    "merge",
]
