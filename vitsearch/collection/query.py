"""What a query means: `2:beach + ./dog.jpg - people` as weighted terms, and the terms as one
vector.
"""

import math
import os
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from vitsearch.arrays import Vectors, unit_rows
from vitsearch.encoders.base import Encoder, ImageEncoder
from vitsearch.encoders.language import readable
from vitsearch.errors import PhotoError, QueryError
from vitsearch.photos import read_bytes_and_fingerprint, upright_rgb
from vitsearch.photos.decode import decode
from vitsearch.storage.decoding import Decoding
from vitsearch.storage.reader import PhotoReader
from vitsearch.types import Photo

_PHOTO_START = ("./", "../", "/", "~", ".\\", "..\\")
_WEIGHT = re.compile(r"(\d+(?:\.\d*)?|\.\d+):(?=\S)")
_QUOTED = re.compile(r"\"([^\"]*)\"|'([^']*)'")
_SIGN = re.compile(r"\s+([+-])\s+")
_LOOSE = re.compile(r"^\s*[+-](\s|$)|\s[+-]\s*$")  # a sign with no term on one of its sides


@dataclass(frozen=True, slots=True)
class Term:
    """One part of a query: words (``str``), a photo file (``Path``) or a picture, with a weight
    that is negative for "not".
    """

    what: str | Path | Image.Image
    weight: float = 1.0


Query = str | os.PathLike[str] | Image.Image | Sequence[Term] | Vectors


def parse_query(text: str) -> list[Term]:
    """Return the terms of a query string.

    Terms are joined by `` + `` and `` - `` (with spaces), may begin with a weight (``2:``),
    and may be quoted to keep such signs as words. A term that begins with ``./``, ``../``, ``/`` or
    ``~`` is a photo, relative to the working folder. Raises QueryError for an empty query or term.
    """
    if not text.strip():
        raise QueryError("the query is empty: give words, or a photo as ./photo.jpg")
    terms: list[Term] = []
    rest, sign = text.strip(), 1.0
    if lead := re.match(r"([+-])\s+", rest):
        sign, rest = (-1.0 if lead[1] == "-" else 1.0), rest[lead.end() :]
    while True:
        term, sign_mark, rest = _next_term(rest, text)
        terms.append(Term(term.what, sign * term.weight))
        if sign_mark is None:
            return terms
        sign = -1.0 if sign_mark == "-" else 1.0


def _next_term(rest: str, query: str) -> tuple[Term, str | None, str]:
    """Split off the first term: (term, the sign that follows it or None, what follows the sign)."""
    weight = 1.0
    if found := _WEIGHT.match(rest):
        weight, rest = float(found[1]), rest[found.end() :]
    sql_quote = _QUOTED.match(rest)
    wrapped = sql_quote is not None and (
        not rest[sql_quote.end() :].strip()
        or re.match(r"\s+[+-]\s", rest[sql_quote.end() :]) is not None
    )
    if sql_quote and wrapped:
        body, rest = (
            sql_quote[1] if sql_quote[1] is not None else sql_quote[2],
            rest[sql_quote.end() :],
        )
        sign = _SIGN.match(rest)
    else:
        sign = _SIGN.search(rest)
        body = rest[: sign.start()] if sign else rest
    if not body.strip() or (not wrapped and _LOOSE.search(body)):
        raise QueryError(
            f"a term of the query {query!r} is empty: write it as 'beach + dog - people'"
        )
    if weight == 0:
        raise QueryError(
            f"a weight of 0 in the query {query!r} says nothing: leave the term out or give it "
            "another weight"
        )
    return (
        Term(_meaning(body.strip()), weight),
        sign[1] if sign else None,
        rest[sign.end() :] if sign else "",
    )


def _meaning(body: str) -> str | Path:
    if not body.startswith(_PHOTO_START):
        return body
    return photo_path(body)


def photo_path(photo: str | os.PathLike[str]) -> Path:
    """Return the path of a query's photo with ``~`` written out; raises QueryError where there is
    no such home folder.
    """
    try:
        return Path(photo).expanduser()
    except (
        RuntimeError,
        ValueError,
    ) as error:  # ~name of nobody, or a name that no file system takes
        raise QueryError(
            f"no home folder for {str(photo)!r}: write the photo's full path"
        ) from error


def combine(terms: Sequence[Term], vector_of: Callable[[Term], Vectors]) -> Vectors:
    """Return the unit vector ``(d,)`` of the weighted sum of the terms' unit vectors.

    Raises QueryError when there is no term or the terms cancel each other out.
    """
    if not terms:
        raise QueryError("the query has no term: give words, a photo or a vector")
    for term in terms:
        _check_term(term)
    most = max(abs(term.weight) for term in terms)
    total = np.sum(
        [term.weight / most * vector_of(term).astype(np.float64) for term in terms], axis=0
    )
    if float(np.linalg.norm(total)) < 1e-6 * sum(abs(term.weight / most) for term in terms):
        raise QueryError("the terms of the query cancel each other out: change a weight")
    return unit_rows(total[None])[0]


def _check_term(term: Term) -> None:
    if not isinstance(term.what, str | Path | Image.Image):
        raise QueryError(
            f"a term is words, a Path or a PIL picture, not {type(term.what).__name__}"
        )
    if isinstance(term.what, str) and not term.what.strip():
        raise QueryError("a term of the query is empty: give words, a photo or leave it out")
    if not math.isfinite(term.weight) or term.weight == 0:
        raise QueryError(
            f"a weight must be a number other than 0, not {term.weight}: leave the term out or "
            "give it another weight"
        )


def check_vector(vector: object, dim: int) -> Vectors:
    """Return a user's vector as a unit row ``(dim,)``; raises QueryError for another shape, zeros,
    or numbers that are not finite.
    """
    try:
        array = np.asarray(vector, dtype=np.float32)
    except (TypeError, ValueError) as error:
        raise QueryError(
            "a query is a string, a picture, a path, a vector or terms, not "
            f"{type(vector).__name__}"
        ) from error
    if array.shape != (dim,):
        raise QueryError(
            f"the query vector has shape {array.shape}, the collection's vectors have ({dim},)"
        )
    if not np.isfinite(array).all() or not array.any():
        raise QueryError("the query vector is all zeros or holds a number that is not finite")
    return unit_rows(array[None])[0]


def terms_of(query: Query) -> list[Term] | None:
    """Return the query's terms, or None when it is a vector."""
    if isinstance(query, str):
        return parse_query(query)
    if isinstance(query, os.PathLike):
        return [Term(photo_path(query))]
    if isinstance(query, Image.Image):
        return [Term(query)]
    if isinstance(query, list | tuple) and query and all(isinstance(term, Term) for term in query):
        return list(query)
    return None


def check_top_k(top_k: int) -> None:
    """Raise QueryError unless this is a number of results."""
    if isinstance(top_k, bool) or not isinstance(top_k, int | np.integer) or top_k < 1:
        raise QueryError(
            f"the number of results must be a whole number of at least 1, not {top_k!r}"
        )


# -- From a query to its vector: words and photos encoded, known photos looked up ------------------


class QueryEncoder:
    """Reads queries for one collection: its photos' vectors are looked up, everything else is
    encoded.
    """

    def __init__(
        self,
        root: Path,
        store: PhotoReader,
        encoder: Callable[[], ImageEncoder],
        *,
        dim: int,
        decoding: Callable[[], Decoding],
    ) -> None:
        self._root, self._store, self._encoder = root, store, encoder
        self._dim, self._decoding = dim, decoding

    def vector_of(self, query: Query) -> tuple[Vectors, frozenset[int], list[str]]:
        """Return the query's unit vector ``(dim,)``, the ids of the photos that it names, and its
        words.
        """
        terms = terms_of(query)
        if terms is None:
            return check_vector(query, self._dim), frozenset(), []
        named = {
            term.what: self.photo_of(term.what) for term in terms if isinstance(term.what, Path)
        }
        vector = combine(
            terms,
            lambda term: self._term_vector(
                term, named.get(term.what) if isinstance(term.what, Path) else None
            ),
        )
        words = [term.what for term in terms if isinstance(term.what, str)]
        return vector, frozenset(photo.photo_id for photo in named.values() if photo), words

    def vectors_of(
        self, queries: Sequence[Query]
    ) -> list[tuple[Vectors, frozenset[int], list[str]]]:
        """Return what `vector_of` returns for each query; queries that are one text each are
        encoded together.
        """
        alone = {place: term for place, query in enumerate(queries) if (term := _only_text(query))}
        encoder = self._encoder() if alone else None
        if not isinstance(encoder, Encoder):
            return [self.vector_of(query) for query in queries]
        rows = dict(
            zip(
                alone,
                encoder.encode_texts([readable(str(term.what)) for term in alone.values()]),
                strict=True,
            )
        )
        return [
            (
                combine([alone[place]], lambda _, row=rows[place]: row),  # type: ignore[misc]
                frozenset(),
                [str(alone[place].what)],
            )
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
        for file, root in (
            (os.path.abspath(path), os.path.abspath(self._root)),
            (real, os.path.realpath(self._root)),
        ):
            inside = os.path.relpath(file, root).replace(os.sep, "/")
            if not inside.startswith("../") and (photo := self._store.photo_at(inside)):
                return photo
        return None

    def _term_vector(self, term: Term, photo: Photo | None) -> Vectors:
        what = term.what
        if isinstance(what, str):
            encoder = self._encoder()
            if not isinstance(encoder, Encoder):
                raise QueryError(
                    f"encoder {encoder.name} reads no text: search with a photo (./photo.jpg)"
                )
            return encoder.encode_texts([readable(what)])[0]
        if isinstance(what, Image.Image):
            return self._encoder().encode_images([upright_rgb(what)])[0]
        try:
            data, fingerprint = read_bytes_and_fingerprint(what)
            same = (
                photo
                if photo and photo.fingerprint == fingerprint
                else next(iter(self._store.photos_with(fingerprint)), None)
            )
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
    return (
        terms[0]
        if terms and len(terms) == 1 and isinstance(terms[0].what, str) and terms[0].what.strip()
        else None
    )
