"""The collection: a folder of photos that can be searched and labelled."""

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from vitsearch.classify import (
    Answer,
    Choice,
    Classifier,
    Label,
    LinearClassifier,
    answer,
    parse_labels,
    zero_shot_classifier,
)
from vitsearch.encoders import load_encoder
from vitsearch.encoders.protocol import Encoder, ImageEncoder
from vitsearch.errors import EncoderMismatch, IndexDamaged, PhotoError, QueryError
from vitsearch.index import Shadow, manifest_stamp, open_shadow, propose
from vitsearch.language import readable, unread_notes
from vitsearch.layout import Settings, check_fingerprint, collection_folder, photo_root, read_settings, writer_lock
from vitsearch.photos import decode, read_bytes_and_fingerprint, upright_rgb
from vitsearch.query import Query, Term, check_top_k, check_vector, combine, photo_path, terms_of
from vitsearch.store import PhotoStore
from vitsearch.types import Photo, Prediction, SearchResult, SkippedPhoto
from vitsearch.vectors import Vectors, cosine_scores, unit_rows

OVERFETCH = 4  # candidates asked of the index for each result wanted: an approximate index orders them only roughly
SPARE = 8  # candidates asked of the index beyond the results wanted: some may have been removed since it was built
TIE = 1e-6  # where the last candidate is this near to the last result, one not proposed may belong before it, by score or by path


class Collection:
    """An indexed folder of photos, open for reading.

    Paths in results are relative to ``root``, with ``/``. Scores are cosine similarities, computed exactly from the stored
    vectors whatever the index. A collection may be read while another process indexes into it.
    """

    def __init__(self, root: Path, folder: Path, settings: Settings, *, encoder: ImageEncoder | None = None, device: str = "auto") -> None:
        self.root = root
        self.folder = folder
        self.settings = settings
        self.notes: list[str] = []
        self._noted: set[str] = set()
        self._encoder = self._checked(encoder) if encoder else None
        self._device = device
        self._store = PhotoStore(folder / "photos.db", read_only=True)
        self._shadow: Shadow | None = None
        self._stamp: object = None

    @classmethod
    def open(
        cls,
        photos: str | os.PathLike[str],
        *,
        collection: str | os.PathLike[str] | None = None,
        encoder: ImageEncoder | None = None,
        device: str = "auto",
    ) -> "Collection":
        """Return the collection of a photo folder.

        ``collection`` is its folder when it is not ``<photos>/.vitsearch``; ``encoder`` an encoder object to use instead of loading the
        collection's by name. Raises CollectionNotFound, CollectionError, or EncoderMismatch for an encoder with another fingerprint.
        """
        root = photo_root(photos)
        folder = collection_folder(root, collection)
        return cls(root, folder, read_settings(folder, root), encoder=encoder, device=device)

    def __enter__(self) -> "Collection":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __len__(self) -> int:
        return self._store.count()

    def __repr__(self) -> str:
        return f"Collection({str(self.root)!r}, photos={len(self)}, encoder={self.settings.encoder!r})"

    def close(self) -> None:
        """Close the database; a second call does nothing."""
        self._store.close()
        self._shadow = None

    # -- what is in it ------------------------------------------------------------------------------------------------

    @property
    def dim(self) -> int:
        """The length of the vectors."""
        return self.settings.dim

    @property
    def encoder(self) -> ImageEncoder:
        """The collection's encoder, loaded at first use; raises EncoderError, or EncoderMismatch when it is not the same any more."""
        if self._encoder is None:
            self._encoder = self._checked(load_encoder(self.settings.encoder, self._device, self.settings.dtype))
        return self._encoder

    @property
    def store(self) -> PhotoStore:
        """The database, open for reading."""
        return self._store

    def photos(self) -> Iterator[Photo]:
        """Yield the photos in order of path."""
        return self._store.photos()

    def failures(self) -> list[SkippedPhoto]:
        """Return the files that are not in the collection, with state and reason, in order of path."""
        return self._store.failures()

    def vectors(self) -> tuple[list[Photo], Vectors]:
        """Return all photos in order of path and their ``(n, dim)`` float32 unit rows; all of them are held in memory."""
        with self._store.reading():
            photos = list(self._store.photos())
            ids, halves = zip(*self._store.vector_batches(), strict=True) if photos else ((), ())
        if not photos:
            return [], np.empty((0, self.dim), dtype=np.float32)
        place = np.searchsorted(np.concatenate(ids), [photo.photo_id for photo in photos])
        return photos, unit_rows(np.concatenate(halves)[place])

    def _checked(self, encoder: ImageEncoder) -> ImageEncoder:
        check_fingerprint(self.folder, self.settings, encoder)
        return encoder

    # -- search -------------------------------------------------------------------------------------------------------

    def search(self, query: Query, top_k: int = 10) -> list[SearchResult]:
        """Return the ``top_k`` photos most like the query, best first, equal scores in order of path.

        The query is words, or terms in a string (``"2:beach + ./dog.jpg - people"``, see `parse_query`), a path, a PIL picture, a vector
        ``(dim,)``, or a list of `Term`. Photos named in the query are left out. Raises QueryError, PhotoError or EncoderError.
        """
        check_top_k(top_k)
        terms = terms_of(query)
        if terms is None:
            return self._nearest(check_vector(query, self.dim), top_k, frozenset())
        named = {term.what: self._photo_of(term.what) for term in terms if isinstance(term.what, Path)}
        vector = combine(terms, lambda term: self._term_vector(term, named.get(term.what) if isinstance(term.what, Path) else None))
        self._note_unread([term.what for term in terms if isinstance(term.what, str)])
        return self._nearest(vector, top_k, frozenset(photo.photo_id for photo in named.values() if photo))

    def similar(self, photo: str | os.PathLike[str] | Image.Image, top_k: int = 10) -> list[SearchResult]:
        """Return the ``top_k`` photos that look most like one photo, which is itself left out.

        ``photo`` is a file (relative to the working folder, or else to the collection's root) or a PIL picture.
        """
        if isinstance(photo, Image.Image):
            return self.search(photo, top_k)
        path = photo_path(photo)
        return self.search([Term(path if path.exists() or not (self.root / path).exists() else self.root / path)], top_k)

    def _term_vector(self, term: Term, photo: Photo | None) -> Vectors:
        what = term.what
        if isinstance(what, str):
            if not isinstance(self.encoder, Encoder):
                raise QueryError(f"encoder {self.encoder.name} reads no text: search with a photo (./photo.jpg)")
            return self.encoder.encode_texts([readable(what)])[0]
        if isinstance(what, Image.Image):
            return self.encoder.encode_images([upright_rgb(what)])[0]
        try:
            data, fingerprint = read_bytes_and_fingerprint(what)
            same = photo if photo and photo.fingerprint == fingerprint else next(iter(self._store.photos_with(fingerprint)), None)
            if same:  # the same bytes have the same vector
                return unit_rows(self._store.vector(same.photo_id)[None])[0]
            return self.encoder.encode_images([decode(data)[0]])[0]
        except PhotoError as error:
            raise PhotoError(f"the query's photo {str(what)!r}: {error}") from error

    def _note_unread(self, texts: Sequence[str]) -> None:
        """Note once each that a text is in a language that the encoder does not know, or longer than it reads."""
        notes = unread_notes(texts, self.encoder) if texts else {}
        self.notes += [note for kind, note in notes.items() if kind not in self._noted]
        self._noted |= set(notes)

    def _photo_of(self, path: Path) -> Photo | None:
        """Return the collection's photo that this file is, or None for a file outside it."""
        try:
            os.fsencode(path)
            real = os.path.realpath(path)
        except ValueError:  # a name that no file system takes; opening it says so
            return None
        for file, root in ((os.path.abspath(path), os.path.abspath(self.root)), (real, os.path.realpath(self.root))):
            inside = os.path.relpath(file, root).replace(os.sep, "/")
            if not inside.startswith("../") and (photo := self._store.photo_at(inside)):
                return photo
        return None

    def _nearest(self, vector: Vectors, top_k: int, leave_out: frozenset[int]) -> list[SearchResult]:
        with self._store.reading():
            shadow = self._current_shadow()
            fresh = self._fresh(vector, shadow)
            wanted = OVERFETCH * (top_k + len(leave_out)) + SPARE
            while True:
                ids, more = propose(shadow, vector, wanted, fresh)
                hits = self._rescored(ids, vector, leave_out)
                if not more or (len(hits) > top_k and hits[-1].score < hits[top_k - 1].score - TIE):
                    return hits[:top_k]
                wanted *= 4

    def _fresh(self, vector: Vectors, shadow: Shadow | None) -> tuple[Any, Any]:
        """Return (ids, scores) of the vectors that the index does not know yet; all of them where there is no index."""
        ids, scores = [np.empty(0, dtype=np.int64)], [np.empty(0, dtype=np.float32)]
        since = shadow.manifest.generation if shadow else -1
        if shadow and since == self._store.generation():
            return ids[0], scores[0]
        for some_ids, halves in self._store.vector_batches(since=since):
            ids.append(some_ids)
            scores.append(halves.astype(np.float32) @ vector)
        return np.concatenate(ids), np.concatenate(scores)

    def _rescored(self, ids: Any, vector: Vectors, leave_out: frozenset[int]) -> list[SearchResult]:
        """Return the hits of the candidate ids that are (still) in the collection, exactly scored, best first."""
        rows = [row for row in self._store.rows(ids) if row[0] not in leave_out]
        if not rows:
            return []
        halves = self._store.halves([row[2] for row in rows])
        scores = cosine_scores(halves, vector)
        hits = [SearchResult(path, float(score), photo_id) for (photo_id, path, _), score in zip(rows, scores, strict=True)]
        return sorted(hits, key=lambda hit: (-hit.score, hit.path))

    def _current_shadow(self) -> Shadow | None:
        """Return the index, opened again when it was replaced; None where it is missing, damaged or of other vectors."""
        stamp = manifest_stamp(self.folder / "index")
        if stamp == self._stamp:
            return self._shadow
        self._shadow, self._stamp = None, stamp
        if stamp is None:
            return None
        try:
            shadow = open_shadow(self.folder / "index")
        except IndexDamaged as error:
            self.notes.append(f"{error}; searching every stored vector, the next `vitsearch index` rebuilds it")
            return None
        built = shadow.manifest
        current = built.dim == self.dim and built.fingerprint == self.settings.encoder_fingerprint
        if not current or built.generation > self._store.generation():
            return None
        if shadow.degraded:
            self.notes.append(shadow.degraded)
        self._shadow = shadow
        return shadow

    # -- labels -------------------------------------------------------------------------------------------------------

    def label(
        self,
        labels: Sequence[str | Label] | Classifier,
        *,
        templates: str | Sequence[str] = "plain",
        top: int | None = None,
        threshold: float | None = None,
        background: bool = False,
        multi: bool = False,
    ) -> list[Prediction]:
        """Return the labels of every photo, photos in order of path, the best label first.

        The stored vectors are labelled: no photo is read. ``labels`` are strings (zero-shot; `zero_shot_classifier` explains them,
        ``templates``, ``background`` and ``multi``) or a classifier of this encoder's vectors. ``top`` is how many labels a photo gets (1;
        with ``multi`` all of at least 0.5), ``threshold`` the least probability (`Choice`); a photo that reaches none has no prediction.
        """
        check_top_k(1 if top is None else top)
        choice = Choice(top if top or multi else 1, threshold)
        classifier = labels if isinstance(labels, Classifier) else self.zero_shot(labels, templates, background, multi)
        self._check_classifier(classifier)
        found: dict[int, list[Answer]] = {}
        with self._store.reading():
            photos = list(self._store.photos())
            for ids, halves in self._store.vector_batches():
                found |= zip(ids.tolist(), answer(classifier, unit_rows(halves), choice), strict=True)
        return [Prediction(photo.path, name, score, photo.photo_id) for photo in photos for name, score in found[photo.photo_id]]

    def zero_shot(
        self, labels: Sequence[str | Label], templates: str | Sequence[str] = "plain", background: bool = False, multi: bool = False
    ) -> LinearClassifier:
        """Return the collection's encoder's classifier of these labels (see `zero_shot_classifier`)."""
        classifier = zero_shot_classifier(self._text_encoder(), labels, templates=templates, background=background, multi=multi)
        self._note_unread([word for label in parse_labels(labels) for word in label.words])
        return classifier

    def _check_classifier(self, classifier: Classifier) -> None:
        if classifier.fingerprint not in ("", self.settings.encoder_fingerprint):
            raise EncoderMismatch(
                f"the classifier was made for the vectors of another encoder than {self.settings.encoder}: train it again here"
            )

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

    def _text_encoder(self) -> Encoder:
        if not isinstance(self.encoder, Encoder):
            raise QueryError(f"encoder {self.encoder.name} reads no text, so it cannot label by words: give a LinearClassifier")
        return self.encoder
