"""The collection, a folder of photos that can be searched and labelled: search, labels, duplicates
and maintenance of a set of photos.
"""

import logging
import os
from collections.abc import Sequence
from dataclasses import replace
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Any, Unpack

import numpy as np
from PIL import Image

from vitsearch.arrays import unit_rows
from vitsearch.collection.backend import label_sample
from vitsearch.collection.base import OpenCollection
from vitsearch.collection.duplicates import LookAlikes, look_alikes, same_files
from vitsearch.collection.maintain import Check, TuneReport, tune_local, verify_local
from vitsearch.collection.query import Query, Term, photo_path
from vitsearch.collection.results import SearchResults, collection_page, results_of
from vitsearch.collection.understanding import Understood, understand
from vitsearch.encoders.base import Encoder
from vitsearch.encoders.language import unread_notes
from vitsearch.errors import QueryError
from vitsearch.filters import as_filter
from vitsearch.filters.tree import Filter
from vitsearch.index.recipe import RECALL
from vitsearch.labels import (
    Decision,
    Label,
    LabelClassifier,
    LabelScore,
    LinearClassifier,
    parse_labels,
    predict,
    zero_shot_classifier,
)
from vitsearch.options import (
    TOP_K,
    IndexKeywords,
    SearchKeywords,
    SearchOptions,
    check_names,
    check_top_k,
)
from vitsearch.photos import PhotoDecoder, read_photo
from vitsearch.photos.decode import open_photo
from vitsearch.storage import stored_lookalike_threshold
from vitsearch.storage.user_data import albums, saved_searches
from vitsearch.types import IndexReport, OnProgress, Photo, Prediction, no_progress

if TYPE_CHECKING:
    from vitsearch.explain import Explanation
    from vitsearch.interop import Layout

log = logging.getLogger("vitsearch")


class Collection(OpenCollection):
    """Photos that can be searched, labelled and explained, open for reading.

    Paths in results are relative to ``root``, with ``/``. Scores are cosine similarities, computed
    exactly from the stored vectors whatever the index.
    """

    def _repr_html_(self) -> str:
        """Return what it holds as HTML, with the small pictures of its first 20 photos inside."""
        return collection_page(self)

    # -- search ------------------------------------------------------------------------------------

    def search(
        self, query: Query, top_k: int | None = TOP_K, **keywords: Unpack[SearchKeywords]
    ) -> SearchResults:
        """Return the ``top_k`` photos most like the query, best first, then in order of path.

        The query is words, or terms in a string (``"2:beach + ./dog.jpg - people"``, see
        `parse_query`), a path, a PIL picture, a vector ``(dim,)``, or a list of `Term`. Photos
        named in the query are left out. Keywords: ``where``, a filter as text or as `Filter`
        (`parse_filter`); ``offset``, results to skip; ``min_score``, the least cosine, with which
        ``top_k`` may be None for all; ``min_relevance``, how likely a photo shows the words at
        least (0 for the nearest, whatever they show); ``diverse``, from 0 to 1, for results unlike
        each other; ``collapse=True`` to show one photo of those that are the same or look alike (a
        number: from this cosine on). Dates, places, cameras and the like in a query string filter
        the photos (`understand`), and one of nothing else lists them, the newest first, with scores
        of 0; with ``literal`` they are words of the picture. The result is a list, shown with
        pictures in a notebook. Raises QueryError, PhotoError or EncoderError.
        """
        return self.search_batch([query], top_k, **keywords)[0]

    def search_batch(
        self,
        queries: Sequence[Query],
        top_k: int | None = TOP_K,
        **keywords: Unpack[SearchKeywords],
    ) -> list[SearchResults]:
        """Return for each query what `search` returns, all on one state of the collection.

        The texts are encoded together.
        """
        if isinstance(queries, str):
            raise QueryError("queries are a list, not one string: [query, ...]")
        options = self._options(top_k, keywords)
        filters = [options.where] * len(queries)
        pictures: dict[int, Query] = {}
        for index, query in enumerate(queries):
            if not isinstance(query, str) or options.literal:
                pictures[index] = query
                continue
            understood = self.understand(query)
            filters[index] = understood.narrowed(options.where)
            if understood.terms:
                pictures[index] = understood.terms
        meanings = dict(zip(pictures, self.queries.read_all([*pictures.values()]), strict=True))
        self._note_unread([word for meaning in meanings.values() for word in meaning.words])
        results: dict[int, SearchResults] = {}
        for where in dict.fromkeys(filters):
            narrowed = options if where == options.where else replace(options, where=where)
            group = [index for index, each in enumerate(filters) if each == where]
            pictured = [meanings[index] for index in group if index in meanings]
            hits = iter(self.find(pictured, narrowed) if pictured else ())
            for index in group:
                each = next(hits) if index in meanings else self.newest(narrowed)
                results[index] = results_of(self.backend, each)
        return [results[index] for index in range(len(queries))]

    def understand(self, query: str, *, today: date | None = None) -> Understood:
        """Return what a query string says besides the picture: its filter and what is left.

        ``today`` is the day that ``last summer`` goes back from. Raises QueryError.
        """
        return understand(query, self.vocabulary(), today)

    def similar(
        self,
        photo: str | os.PathLike[str] | Image.Image,
        top_k: int | None = TOP_K,
        **keywords: Unpack[SearchKeywords],
    ) -> SearchResults:
        """Return the ``top_k`` photos that look most like a photo, which is itself left out.

        ``photo`` is a file (relative to the working folder, or else to the collection's root) or a
        PIL picture; keywords as in `search`.
        """
        if isinstance(photo, Image.Image):
            return self.search(photo, top_k, **keywords)
        return self.search([Term(self.file_of(photo))], top_k, **keywords)

    def file_of(self, photo: str | os.PathLike[str]) -> Path:
        """Return the path of a photo named from the working folder, or else from the root."""
        path = photo_path(photo)
        return self.root / path if not path.exists() and self.backend.has(path) else path

    def duplicates(self, *, where: str | Filter | None = None) -> list[list[Photo]]:
        """Return the groups of photos whose files are the same byte for byte.

        Each group is in order of path, and the groups are in order of their first path.
        """
        condition = as_filter(where)
        with self.store.reading():
            ids = None if condition is None else set(self.store.ids_where(condition).tolist())
            return same_files(
                photo for photo in self.photos() if ids is None or photo.photo_id in ids
            )

    def lookalikes(
        self,
        threshold: float | None = None,
        *,
        where: str | Filter | None = None,
        progress: OnProgress = no_progress,
    ) -> list[LookAlikes]:
        """Return the groups of photos that look alike though their files differ (`look_alikes`).

        ``threshold`` is the least cosine with the group's first photo (None: that of the
        collection's encoder). All vectors are compared; ``progress`` is called as it goes on.
        Raises QueryError for a threshold that is not a cosine above 0.
        """
        least = self.lookalike_threshold if threshold is None else threshold
        SearchOptions(collapse=least)  # raises for a threshold outside its range
        photos, vectors = self.vectors_where(as_filter(where))
        return look_alikes(photos, vectors, least, progress=progress)

    @property
    def lookalike_threshold(self) -> float:
        """The cosine from which, for this collection's encoder, two photos show the same view."""
        return stored_lookalike_threshold(self.store, self.config.encoder)

    def _options(self, top_k: int | None, keywords: SearchKeywords) -> SearchOptions:
        check_names(SearchOptions, keywords, "a search")
        where = as_filter(keywords.get("where"))
        options = SearchOptions(top_k=top_k, **{**keywords, "where": where})  # type: ignore[arg-type]
        if options.collapse is True:
            return replace(options, collapse=self.lookalike_threshold)
        return options

    def _note_unread(self, texts: Sequence[str]) -> None:
        """Log, once each, that a text is longer than the encoder reads, or in a language that it
        does not know.
        """
        notes = unread_notes(texts, self.encoder) if texts else {}
        for kind, note in notes.items():
            if kind not in self._logged:
                log.warning(note)
        self._logged |= set(notes)

    # -- labels ------------------------------------------------------------------------------------

    def label(
        self,
        labels: Sequence[str | Label] | LabelClassifier,
        *,
        templates: str | Sequence[str] = "plain",
        top: int | None = None,
        threshold: float | None = None,
        background: bool = False,
        multi: bool = False,
        sampled: bool = False,
    ) -> list[Prediction]:
        """Return the labels of every photo, photos in order of path, the best label first.

        The stored vectors are labelled, that of a video is the mean of its moments: no photo is
        read. ``labels`` are strings (zero-shot;
        `zero_shot_classifier` explains them, ``templates``, ``background`` and ``multi``) or a
        classifier of this encoder's vectors. ``top`` is how many labels a photo gets (1; with
        ``multi`` all of at least 0.5), ``threshold`` the least probability (`Decision`); a photo
        that reaches none has no prediction. With ``sampled`` a large collection in Milvus answers
        for a sample of its photos (`sample_size`).
        """
        check_top_k(1 if top is None else top)
        decision = Decision(top if top or multi else 1, threshold)
        classifier = (
            labels
            if isinstance(labels, LabelClassifier)
            else self.zero_shot(labels, templates, background, multi)
        )
        self.check_classifier(classifier)
        if sampled and self.sample_size() is not None:
            return label_sample(self.store, classifier, decision)
        scores: dict[int, list[LabelScore]] = {}
        with self.store.reading():
            photos = list(self.store.photos())
            for ids, halves in self.store.vector_batches():
                batch = predict(classifier, unit_rows(halves), decision)
                scores |= zip(ids.tolist(), batch, strict=True)
            if videos := self.video_vectors():
                batch = predict(classifier, np.stack([*videos.values()]), decision)
                scores |= zip(videos, batch, strict=True)
        return [
            Prediction(photo.path, name, score, photo.photo_id)
            for photo in photos
            for name, score in scores.get(photo.photo_id, ())  # none where its vector is damaged
        ]

    def zero_shot(
        self,
        labels: Sequence[str | Label],
        templates: str | Sequence[str] = "plain",
        background: bool = False,
        multi: bool = False,
    ) -> LinearClassifier:
        """Return the encoder's classifier of these labels (see `zero_shot_classifier`)."""
        classifier = zero_shot_classifier(
            self._text_encoder(),
            labels,
            templates=templates,
            background=background,
            multi=multi,
            photos=self._sample() if background or multi else None,
        )
        self._note_unread([word for label in parse_labels(labels) for word in label.words])
        return classifier

    def check_classifier(self, classifier: LabelClassifier) -> None:
        """Raise EncoderMismatch for a classifier of another encoder's vectors."""
        self.config.identity.check_classifier(classifier.fingerprint)

    def _text_encoder(self) -> Encoder:
        if not isinstance(self.encoder, Encoder):
            raise QueryError(
                f"encoder {self.encoder.name} reads no text, so it cannot label by "
                "words: give a LinearClassifier"
            )
        return self.encoder

    def store_labels(self, predictions: Sequence[Prediction]) -> None:
        """Store the first label of each photo and its score in the database.

        Raises CollectionLocked while another process writes, CollectionError for a collection in
        Milvus.
        """
        self._on_disk("store labels").store_labels(predictions)

    def explain(
        self, photo: str | os.PathLike[str] | Image.Image, text: str | None = None
    ) -> "Explanation":
        """Return which patches of a photo the encoder looks at, or which ones speak for a text.

        ``photo`` is as in `similar`. Raises PhotoError, QueryError, or EncoderError for an encoder
        without attention and where PyTorch is missing (see `vitsearch.explain.explain`).
        """
        from vitsearch.explain import explain

        if not isinstance(photo, Image.Image):
            photo = self.read_photo(photo)
        return explain(self.encoder, photo, text)

    def read_photo(self, photo: str | os.PathLike[str]) -> Image.Image:
        """Return the upright RGB picture of a file, which is named as in `similar`.

        One of the collection is opened as it was indexed: raises PhotoError where something else
        has taken its place, and for what cannot be decoded.
        """
        path = self.file_of(photo)
        indexed = self.queries.photo_of(path)
        if indexed is None:
            return read_photo(path).image
        with open_photo(self.root, indexed.file, indexed) as file, PhotoDecoder() as decoder:
            return decoder.decode_file(file, at=indexed.time, name=indexed.path)

    # -- maintenance -------------------------------------------------------------------------------

    def info(self) -> dict[str, Any]:
        """Return counts, encoder, index, sizes in bytes (``*_bytes``) and dates (ISO 8601, UTC)."""
        return self.backend.info()

    def verify(self, *, content: bool = False) -> list[Check]:
        """Return the checks of the database, the golden vectors, the index and the files on disk.

        With ``content`` every photo is read and compared with its fingerprint. Raises
        CollectionError for a collection in Milvus.
        """
        local = self._on_disk("verify")
        return verify_local(
            local.root,
            local.folder,
            local.config,
            local.store,
            lambda: self.encoder,
            content=content,
        )

    def forget(self) -> int:
        """Delete the photos that were put aside because their files are gone, with their vectors,
        and return how many there were.

        Raises CollectionLocked while another process writes, CollectionError for a collection in
        Milvus.
        """
        return self._on_disk("forget photos").forget()

    def tune(self, recall: float = RECALL) -> TuneReport:
        """Set the search effort of the index to the least that reaches a recall@10.

        Returns the measured recall. Raises the errors of `tune_local`, and CollectionError for a
        collection in Milvus.
        """
        local = self._on_disk("tune")
        return tune_local(local.folder, local.config, lambda: self.encoder, recall)

    def update(
        self, *, progress: OnProgress = no_progress, **options: Unpack[IndexKeywords]
    ) -> IndexReport:
        """Index what has changed in the folder since the last run, and return what was done.

        Raises the errors of `index_folder`, and CollectionError for a collection in Milvus.
        """
        local = self._on_disk("update")
        options.setdefault("encoder", self._encoder)
        # the modules that decode and store take as long to import as a small search
        from vitsearch.collection.update import index_folder

        report = index_folder(local.root, collection=local.folder, progress=progress, **options)
        local.reload()
        return report

    def albums(self) -> dict[str, Any]:
        """Return the albums, each with its name and the paths of its photos in their order, and the
        saved searches, each with its name and its address on the page; raises CollectionError for
        a collection in Milvus.
        """
        store = self._on_disk("albums").store
        return {
            "albums": [
                {"name": album.name, "photos": [paths[each] for each in album.ids if each in paths]}
                for album in albums(store)
                for paths in [{photo.photo_id: photo.path for photo in store.photos_of(album.ids)}]
            ],
            "searches": [
                {"name": name, "address": address} for name, address in saved_searches(store)
            ],
        }

    def export(
        self, output: str | os.PathLike[str], layout: "Layout" = "clip-retrieval", **options: Any
    ) -> int:
        """Write photos and vectors for other tools into the folder ``output``, and return how many.

        ``layout`` is ``clip-retrieval``, ``faiss`` (keyword ``recipe``) or ``shards`` (keyword
        ``shard_size``); ``progress`` is called with (done, total). Raises CollectionError, also for
        a collection in Milvus.
        """
        from vitsearch.interop import exporter

        return exporter(layout)(self._on_disk("export"), output, **options)


__all__ = ["Collection", "LookAlikes"]
