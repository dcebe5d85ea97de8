"""From a query to its vector: words and photos encoded, known photos looked up."""

import os
from collections.abc import Callable, Sequence
from pathlib import Path

from PIL import Image

from vitsearch.collection.reader import PhotoReader
from vitsearch.encoders.protocol import Encoder, ImageEncoder
from vitsearch.errors import PhotoError, QueryError
from vitsearch.language import readable
from vitsearch.photos import decode, read_bytes_and_fingerprint, upright_rgb
from vitsearch.pipeline import Decoding
from vitsearch.query import Query, Term, check_vector, combine, terms_of
from vitsearch.types import Photo
from vitsearch.vectors import Vectors, unit_rows


class Terms:
    """Reads queries for one collection: its photos' vectors are looked up, everything else is encoded."""

    def __init__(
        self, root: Path, store: PhotoReader, encoder: Callable[[], ImageEncoder], *, dim: int, decoding: Callable[[], Decoding]
    ) -> None:
        self._root, self._store, self._encoder = root, store, encoder
        self._dim, self._decoding = dim, decoding

    def vector_of(self, query: Query) -> tuple[Vectors, frozenset[int], list[str]]:
        """Return the query's unit vector ``(dim,)``, the ids of the photos that it names, and its words."""
        terms = terms_of(query)
        if terms is None:
            return check_vector(query, self._dim), frozenset(), []
        named = {term.what: self.photo_of(term.what) for term in terms if isinstance(term.what, Path)}
        vector = combine(terms, lambda term: self._term_vector(term, named.get(term.what) if isinstance(term.what, Path) else None))
        words = [term.what for term in terms if isinstance(term.what, str)]
        return vector, frozenset(photo.photo_id for photo in named.values() if photo), words

    def vectors_of(self, queries: Sequence[Query]) -> list[tuple[Vectors, frozenset[int], list[str]]]:
        """Return what `vector_of` returns for each query; queries that are one text each are encoded together."""
        alone = {place: term for place, query in enumerate(queries) if (term := _only_text(query))}
        encoder = self._encoder() if alone else None
        if not isinstance(encoder, Encoder):
            return [self.vector_of(query) for query in queries]
        rows = dict(zip(alone, encoder.encode_texts([readable(str(term.what)) for term in alone.values()]), strict=True))
        return [
            (combine([alone[place]], lambda _, row=rows[place]: row), frozenset(), [str(alone[place].what)])  # type: ignore[misc]
            if place in rows
            else self.vector_of(query)
            for place, query in enumerate(queries)
        ]

    def photo_of(self, path: Path) -> Photo | None:
        """Return the collection's photo that this file is, or None for a file outside it."""
        try:
            os.fsencode(path)
            real = os.path.realpath(path)
        except ValueError:  # a name that no file system takes; opening it says so
            return None
        for file, root in ((os.path.abspath(path), os.path.abspath(self._root)), (real, os.path.realpath(self._root))):
            inside = os.path.relpath(file, root).replace(os.sep, "/")
            if not inside.startswith("../") and (photo := self._store.photo_at(inside)):
                return photo
        return None

    def _term_vector(self, term: Term, photo: Photo | None) -> Vectors:
        what = term.what
        if isinstance(what, str):
            encoder = self._encoder()
            if not isinstance(encoder, Encoder):
                raise QueryError(f"encoder {encoder.name} reads no text: search with a photo (./photo.jpg)")
            return encoder.encode_texts([readable(what)])[0]
        if isinstance(what, Image.Image):
            return self._encoder().encode_images([upright_rgb(what)])[0]
        try:
            data, fingerprint = read_bytes_and_fingerprint(what)
            same = photo if photo and photo.fingerprint == fingerprint else next(iter(self._store.photos_with(fingerprint)), None)
            if same:  # the same bytes have the same vector
                return unit_rows(self._store.vector(same.photo_id)[None])[0]
            encoder = self._encoder()
            at_least = self._decoding().at_least(encoder)  # as the photos that it is held against
            return encoder.encode_images([decode(data, at_least=at_least)[0]])[0]
        except PhotoError as error:
            raise PhotoError(f"the query's photo {str(what)!r}: {error}") from error


def _only_text(query: Query) -> Term | None:
    """Return the term of a query that is one text, else None."""
    terms = terms_of(query)
    return terms[0] if terms and len(terms) == 1 and isinstance(terms[0].what, str) and terms[0].what.strip() else None
