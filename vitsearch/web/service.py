"""What the page and the HTTP interface ask of a collection, from many threads at once."""

import asyncio
import io
import os
import threading
from collections import defaultdict
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Any

from PIL import Image

from vitsearch.collection import Collection, LookAlikes
from vitsearch.collection.backend import is_large, sampled_ids, sampled_values
from vitsearch.collection.duplicates import first_indices
from vitsearch.collection.query import Term
from vitsearch.collection.understanding import KnownWords, Understood
from vitsearch.encoders.base import Encoder, ImageEncoder
from vitsearch.encoders.language import unread_notes
from vitsearch.errors import QueryError, UnknownPhoto
from vitsearch.filters import EVERY, as_filter
from vitsearch.filters.tree import Filter
from vitsearch.milvus import is_milvus
from vitsearch.photos.decoder import PhotoDecoder
from vitsearch.photos.isolated import can_start
from vitsearch.storage.filesystem import AnsweringNote
from vitsearch.types import LeftOut, Photo, Prediction, SearchResult, SkippedPhoto
from vitsearch.web import MemoryKeeper, ServeSettings
from vitsearch.web.search import (
    MAX_BATCH,
    Batcher,
    Engine,
    Found,
    Search,
    SearchInput,
    Words,
    read_words,
    search_options,
    terms_of,
)
from vitsearch.web.source import CollectionSource, MilvusSource
from vitsearch.web.thumbnails import FOLDER, Thumbnail, Thumbnails

MAX_WORKERS = 8  # threads that search
REMEMBERED = 2  # classifications of the whole collection that are held in memory


class PhotoService:
    """One collection for many clients: its model and index are loaded once, and each method may be
    called from any thread.

    Photos are named by their ids. What a run of indexing adds is seen at the next call. Methods
    raise QueryError for what cannot be asked, UnknownPhoto for an id that is not there, PhotoError
    for a file that shows nothing, and ServiceBusy where the collection cannot be read just now.
    """

    def __init__(self, source: CollectionSource, settings: ServeSettings) -> None:
        self.source, self.settings = source, settings
        self.engine = Engine(source)
        self.batch_sizes: dict[int, int] = {}
        self._counting = threading.Lock()
        self._batcher: Batcher[Search, Found] = Batcher(
            self.engine.answer,
            workers=min(MAX_WORKERS, self.encoder.parallel_calls),
            on_batch=self._count_batch,
        )
        self._decoder = PhotoDecoder(settings.decode_seconds if can_start() else None)
        self.thumbnails = Thumbnails(
            source.folder / FOLDER, self._decoder, settings.thumbnail_bytes
        )
        # pictures are made by as many threads as there are cores, so that a page full of them keeps
        # no other request waiting
        self._picture_thread_count = max(2, os.cpu_count() or 1)
        self.picture_threads = ThreadPoolExecutor(
            self._picture_thread_count, thread_name_prefix="vitsearch-pictures"
        )
        self.memory = MemoryKeeper()
        self._answering = AnsweringNote(source.folder)
        # uploads whose pictures are in memory at a time, until their search is done
        self.uploads = asyncio.Semaphore(self._picture_thread_count)
        self._words = KnownWords(source.folder)
        self._labelled: dict[object, list[Prediction]] = {}
        self._labelling = threading.Lock()

    @classmethod
    def open(
        cls,
        photos: str | os.PathLike[str],
        *,
        collection: str | os.PathLike[str] | None = None,
        encoder: ImageEncoder | None = None,
        device: str = "auto",
        settings: ServeSettings | None = None,
        root: str | os.PathLike[str] | None = None,
    ) -> "PhotoService":
        """Return the service of a collection, its model loaded; parameters and errors as of
        `Collection.open`.

        ``photos`` may name a collection in Milvus (``milvus://HOST:PORT/NAME``), whose photos are
        then in ``root``.
        """
        if is_milvus(photos):
            source: CollectionSource = MilvusSource(
                os.fspath(photos), root, device=device, encoder=encoder
            )
        else:
            source = CollectionSource.of(photos, collection, device, encoder)
        return cls(source, settings or ServeSettings())

    def start_decoders(self) -> None:
        """Have a process that decodes ready for each thread that makes pictures, so that the first
        thumbnails do not wait for them; returns at once.
        """
        self._decoder.start(self._picture_thread_count)

    def warm_up(self) -> None:
        """Load what searches by words need, as many as are computed at a time, where the model
        reads words.
        """
        if self.reads_text:
            callers = self.encoder.parallel_calls
            # one text alone where the model takes long, since nobody may ask while it is warmed up
            count = MAX_BATCH * min(MAX_WORKERS, callers) if callers > 1 else 1
            words = [f"photo number {number}" for number in range(count)]
            for future in [self.ask(text, k=1) for text in words]:
                future.exception()  # a request says what is wrong
            self.batch_sizes.clear()

    def note_request(self, open_requests: int) -> None:
        """Note that a request has come: memory is given back when no more come, and where more
        are being answered than there are cores, a run of indexing beside the server makes room.
        """
        self.memory.note_request()
        if open_requests > self._picture_thread_count:
            self._answering.touch()

    def close(self) -> None:
        """Answer what was asked, then let everything go."""
        self._batcher.close()
        self.picture_threads.shutdown(wait=True, cancel_futures=True)
        self._decoder.close()
        self.engine.close()
        self.source.close()

    # -- search ------------------------------------------------------------------------------------

    def search(
        self, query: SearchInput, *, k: int = 50, offset: int = 0, **keywords: Any
    ) -> list[SearchResult]:
        """Return ``k`` photos from ``offset`` on, best first, equal scores in order of path.

        The query is a string of the query language (without files), a picture, a vector ``(dim,)``,
        or a list of `Term`; photos that it names by id are left out. Keywords: ``where``,
        ``min_score``, ``diverse``, ``collapse`` (a cosine), see `search_options`.
        """
        return self.ask(query, k, offset=offset, **keywords).result().results

    def ask(
        self, query: SearchInput, k: int = 50, *, words: Words | None = None, **keywords: Any
    ) -> "Future[Found]":
        """Return the future results of `search` with notes, of ``words`` before the query where
        they are given; what is wrong with the request itself is raised at once.
        """
        terms = terms_of(query) if words is None or query else ()
        return self._batcher.submit(Search(terms, search_options(k, **keywords), words))

    async def answer(self, search: Search) -> Found:
        """Return the results of a search with notes."""
        return await self._batcher.result(search)

    def similar(
        self, photo_id: int, *, k: int = 50, offset: int = 0, **keywords: Any
    ) -> list[SearchResult]:
        """Return the photos that look most like one photo of the collection, which is left out."""
        return self.search([Term(photo_id)], k=k, offset=offset, **keywords)

    def understand(self, words: Words) -> Understood:
        """Return what words say besides the picture; raises QueryError."""
        with self.source.facts() as store:
            return read_words(words, partial(self._words.of, store))

    def newest(self, *, k: int, offset: int, where: Filter, by_date: bool) -> list[SearchResult]:
        """Return ``k`` photos from ``offset`` on that a filter leaves, the newest first, with
        scores of 0; without ``by_date`` in order of path.
        """
        with self.source.reading() as collection:
            return collection.newest(search_options(k, offset, where=where), by_date=by_date)

    def notes(self, texts: Sequence[str]) -> list[str]:
        """Return what a person should know about the words of a query: a language that the model
        does not know, or too many words.
        """
        with self.source.computing(self.encoder):
            return list(unread_notes(texts, self.encoder).values()) if texts else []

    def read_picture(self, data: bytes) -> Image.Image:
        """Return an uploaded picture, decoded in a process of its own within a time limit; raises
        PhotoError with the reason.
        """
        self.memory.note_upload()
        # as the photos that it is held against
        decoding = self.source.decoding()
        return self._decoder.decode(
            data,
            max_pixels=self.settings.upload_pixels,
            at_least=decoding.at_least(self.encoder),
            colours="srgb" if decoding.managed else "raw",
        )[0]

    # -- photos ------------------------------------------------------------------------------------

    def photo(self, photo_id: int) -> Photo:
        """Return the facts of one photo."""
        photos = self.photos_of([photo_id])
        if not photos:
            raise UnknownPhoto(f"there is no photo {photo_id} in the collection")
        return photos[0]

    def photos_of(self, ids: Sequence[int]) -> list[Photo]:
        """Return the facts of those photos that are in the collection, in the order of the ids."""
        return self.source.photos_of([photo_id for photo_id in ids if -(2**63) <= photo_id < 2**63])

    def browse(
        self, *, k: int = 50, offset: int = 0, where: str | Filter | None = None
    ) -> tuple[list[Photo], int]:
        """Return ``k`` photos from ``offset`` on, the last indexed first, and how many there are;
        of a video the first moment that the filter leaves.
        """
        options = search_options(k, offset, where=where)
        with self.source.facts() as store:
            if is_large(store):
                first = store.first_moments(options.where)
                last = store.last_ids(first, offset + k)[offset:]
                return self.photos_of(last), store.count_where(first or EVERY)
            ids = store.ids_where(options.where or EVERY)
            if moments := store.moments():
                ids = ids[first_indices([moments.get(each, each) for each in ids.tolist()])]
        ids = ids[::-1]
        return self.photos_of(ids[offset : offset + k].tolist()), len(ids)

    def open_photo(self, photo_id: int) -> io.FileIO:
        """Return the open file of a photo, as the collection knows it; raises UnknownPhoto where it
        is gone, or something else is in its place.
        """
        return self.source.open_photo(self.photo(photo_id))

    def picture(self, photo_id: int, side: int) -> Image.Image:
        """Return a photo as an RGB picture, decoded as an upload is, both sides at least so many
        pixels where it has them.
        """
        photo = self.photo(photo_id)
        with self.source.open_photo(photo) as file:
            return self._decoder.decode_file(file, at=photo.time, at_least=side)

    def thumbnail(self, photo_id: int, side: int) -> Thumbnail:
        """Return a WebP picture of a photo, its longest side at most ``side`` pixels."""
        photo = self.photo(photo_id)
        return self.thumbnails.get(lambda: self.source.open_photo(photo), photo, side)

    # -- the whole collection ----------------------------------------------------------------------

    def labels(
        self,
        names: Sequence[str],
        *,
        where: str | Filter | None = None,
        background: bool = False,
        multi: bool = False,
    ) -> list[Prediction]:
        """Return the label of each photo, in order of path, among these (see `Collection.label`);
        of a large collection in Milvus of a sample; the last answers are remembered.
        """
        condition = as_filter(where)
        with self.source.reading() as collection:
            key = (
                tuple(names),
                background,
                multi,
                collection.store.generation(),
                self.source.version(),
            )
            with self._labelling:
                predictions = self._labelled.pop(key, None) or self._label(
                    collection, names, background, multi
                )
                self._labelled[key] = predictions
                while len(self._labelled) > REMEMBERED:
                    del self._labelled[next(iter(self._labelled))]
            if condition is None:
                return predictions
            ids = sampled_ids(collection.store, condition)
        return [prediction for prediction in predictions if prediction.photo_id in ids]

    def _label(
        self, collection: Collection, names: Sequence[str], background: bool, multi: bool
    ) -> list[Prediction]:
        with self.source.encoding:
            classifier = collection.zero_shot(names, "plain", background, multi)
        return collection.label(classifier, multi=multi, sampled=True)

    def stored_labels(self, where: Filter | None = None) -> list[Prediction]:
        """Return the stored labels of the photos that a filter leaves, in any order; of a large
        collection in Milvus of a sample.
        """
        with self.source.reading() as collection:
            store = collection.store
            ids = None if where is None else sampled_ids(store, where)
            rows = sampled_values(store, ("path", "label", "score", "id"))
            return [
                Prediction(path, label, score or 0.0, photo_id)
                for path, label, score, photo_id in rows
                if label is not None and (ids is None or photo_id in ids)
            ]

    def duplicates(self, *, where: str | Filter | None = None) -> list[list[Photo]]:
        """Return the groups of photos whose files are the same byte for byte."""
        with self.source.reading() as collection:
            return collection.duplicates(where=where)

    def lookalikes(
        self, threshold: float | None = None, *, where: str | Filter | None = None
    ) -> list[LookAlikes]:
        """Return the groups of photos that look alike though their files differ (see
        `Collection.lookalikes`).
        """
        with self.source.reading() as collection:
            return collection.lookalikes(threshold, where=where)

    def failures(self) -> list[SkippedPhoto]:
        """Return the files that are not in it, with state and reason, in order of path."""
        return self.source.failures()

    def companions(self, photos: Sequence[Photo]) -> dict[str, list[str]]:
        """Return the other files of photos, such as the RAW of a JPEG, by the photo's path."""
        return self.source.companions([photo.path for photo in photos])

    def left_out(self) -> list[LeftOut]:
        """Return what the last run met in the folder and did not take, in order of path."""
        return self.source.left_out()

    def info(self) -> dict[str, Any]:
        """Return what the collection holds (see `collection_info`)."""
        return self.source.info()

    def sample_size(self, where: Filter | None = None) -> int | None:
        """Return of how many photos that a filter leaves labels are told, None where of all (see
        `Collection.sample_size`).
        """
        with self.source.reading() as collection:
            size = collection.sample_size()
            if size is None or where is None:
                return size
            return len(sampled_ids(collection.store, where))

    def count(self) -> int:
        """Return the number of photos, a video counted once."""
        with self.source.facts() as store:
            return store.count_files()

    @property
    def encoder(self) -> ImageEncoder:
        """The model of the collection; hold ``source.encoding`` while it computes."""
        return self.source.encoder()

    @property
    def reads_text(self) -> bool:
        """Whether words can be searched for."""
        return isinstance(self.encoder, Encoder)

    def _count_batch(self, size: int) -> None:
        with self._counting:
            self.batch_sizes[size] = self.batch_sizes.get(size, 0) + 1


MAX_LABELS = 200


@dataclass(frozen=True, slots=True)
class LabelGroup:
    """A label, the number of photos that have it, and those with the highest scores, best first."""

    label: str
    photos: int
    examples: list[Prediction]


@dataclass(frozen=True, slots=True)
class LabelCounts:
    """The labels, the most frequent first, and the number of photos that have none; ``sample`` is
    of how many photos these are numbers, where not of all.
    """

    groups: list[LabelGroup]
    unlabelled: int
    sample: int | None = None


def split_labels(text: str) -> list[str]:
    """Return the labels of a text with commas between; raises QueryError for none, or too many."""
    names = [name.strip() for name in text.split(",") if name.strip()]
    if not names:
        raise QueryError("give labels with commas between: cat, dog")
    if len(names) > MAX_LABELS:
        raise QueryError(f"{len(names)} labels are more than {MAX_LABELS}: label with fewer")
    return names


def label_counts(
    service: PhotoService,
    text: str,
    where: Filter | None,
    *,
    examples: int,
    background: bool,
    multi: bool,
) -> LabelCounts:
    """Return the photos of each of these labels, the most frequent label first."""
    names = split_labels(text)
    predictions = service.labels(names, where=where, background=background, multi=multi)
    return _counts(predictions, examples, service, where)


def stored_counts(service: PhotoService, where: Filter | None, examples: int) -> LabelCounts:
    """Return the photos of each stored label (`vitsearch label --store`), the most frequent label
    first.
    """
    return _counts(service.stored_labels(where), examples, service, where)


def _counts(
    predictions: Sequence[Prediction], examples: int, service: PhotoService, where: Filter | None
) -> LabelCounts:
    by_label: dict[str, list[Prediction]] = defaultdict(list)
    for prediction in predictions:
        by_label[prediction.label].append(prediction)
    groups = []
    for name, members in sorted(by_label.items(), key=lambda item: (-len(item[1]), item[0])):
        members.sort(key=lambda prediction: (-prediction.score, prediction.path))
        groups.append(LabelGroup(name, len(members), members[:examples]))
    labelled = {prediction.photo_id for prediction in predictions}
    sample = service.sample_size(where)
    if sample is None:
        total = service.count() if where is None else service.browse(k=1, where=where)[1]
    else:
        total = sample
    return LabelCounts(groups, max(0, total - len(labelled)), sample)
