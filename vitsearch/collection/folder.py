"""The noun that the user holds: a folder of photos that can be searched and labelled."""

import os
from collections.abc import Sequence
from pathlib import Path

from vitsearch.collection.collection import SearchableCollection
from vitsearch.collection.ranking import Asked
from vitsearch.collection.searcher import Searcher
from vitsearch.collection.wish import Wish
from vitsearch.encoders.protocol import ImageEncoder
from vitsearch.layout import Settings, check_fingerprint, collection_folder, photo_root, read_settings, writer_lock
from vitsearch.pipeline import Decoding, choose_decoding
from vitsearch.store import PhotoStore
from vitsearch.types import Prediction, SearchResult, SkippedPhoto


class Collection(SearchableCollection):
    """An indexed folder of photos, open for reading.

    Paths in results are relative to ``root``, with ``/``. Scores are cosine similarities, computed exactly from the stored
    vectors whatever the index. A collection may be read while another process indexes into it.
    """

    def __init__(
        self,
        root: Path,
        folder: Path,
        settings: Settings,
        *,
        encoder: ImageEncoder | None = None,
        device: str = "auto",
        read_only: bool = False,
    ) -> None:
        self.folder = folder
        self._photo_store = PhotoStore(folder / "photos.db", read_only=True)
        try:
            super().__init__(root, settings, self._photo_store, encoder=encoder, device=device)
        except BaseException:
            self._photo_store.close()
            raise
        self._searcher = Searcher(folder, settings, self._photo_store, self.notes, strict=read_only, device=device)

    @classmethod
    def open(
        cls,
        photos: str | os.PathLike[str],
        *,
        collection: str | os.PathLike[str] | None = None,
        encoder: ImageEncoder | None = None,
        device: str = "auto",
        read_only: bool = False,
    ) -> "Collection":
        """Return the collection of a photo folder.

        ``collection`` is its folder when it is not ``<photos>/.vitsearch``; ``encoder`` an encoder object to use instead of loading the
        collection's by name; ``device`` is where the encoder runs and, on "cuda", the search (on "auto" of the recipes for GPUs). A damaged
        index is noted, and every stored vector is searched until it is built again; with ``read_only``, for collections that nobody here
        can repair, IndexDamaged is raised then. Raises CollectionNotFound, CollectionError, or EncoderMismatch for an encoder with another
        fingerprint.
        """
        root = photo_root(photos)
        folder = collection_folder(root, collection)
        return cls(root, folder, read_settings(folder, root), encoder=encoder, device=device, read_only=read_only)

    def __repr__(self) -> str:
        return f"Collection({str(self.root)!r}, photos={len(self)}, encoder={self.settings.encoder!r})"

    def close(self) -> None:
        """Close the database; a second call does nothing."""
        super().close()
        self._searcher.close()

    def find(self, queries: Sequence[Asked], wish: Wish) -> list[list[SearchResult]]:
        """Return the results for each (unit vector, ids to leave out), best first, all on one state of the collection."""
        return self._searcher.find(queries, wish)

    def decoding(self) -> Decoding:
        """Return how the photos were decoded, and a query's photo is to be."""
        return choose_decoding(self._photo_store)

    @property
    def store(self) -> PhotoStore:
        """The database, open for reading."""
        return self._photo_store

    def failures(self) -> list[SkippedPhoto]:
        """Return the files that are not in the collection, with state and reason, in order of path."""
        return self._store.failures()

    def _checked(self, encoder: ImageEncoder) -> ImageEncoder:
        check_fingerprint(self.folder, self.settings, encoder)
        return encoder

    def store_labels(self, predictions: Sequence[Prediction]) -> None:
        """Keep the first label of each photo and its score in the database; raises CollectionLocked while another process writes."""
        first: dict[int, tuple[int, str, float]] = {}
        for prediction in predictions:
            first.setdefault(prediction.photo_id, (prediction.photo_id, prediction.label, prediction.score))
        with writer_lock(self.folder):
            store = PhotoStore(self.folder / "photos.db")
            try:
                with store.writing():
                    store.put_labels(list(first.values()))
            finally:
                store.close()
