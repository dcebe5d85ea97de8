"""What a query means: `2:beach + ./dog.jpg - people` as weighted terms, and the terms as one
vector. The library, the command line and the page all take this way.
"""

import math
import os
import re
import threading
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from PIL import Image

from vitsearch.arrays import Vectors, unit_rows
from vitsearch.collection.search import Negative, QueryMeaning
from vitsearch.encoders.base import Encoder, ImageEncoder
from vitsearch.encoders.language import readable, set_language
from vitsearch.errors import PhotoError, QueryError, UnknownPhoto
from vitsearch.photos import upright_rgb
from vitsearch.photos.decode import read_bytes, read_fingerprint
from vitsearch.photos.decoder import PhotoDecoder
from vitsearch.photos.formats import container_of
from vitsearch.photos.text import plain_words
from vitsearch.storage import Decoding, PhotoReader
from vitsearch.types import Photo

# ~/ and ~name/, but ~50 people and "/ " are words
_PHOTO_START = re.compile(r"\.\.?[/\\]|/(?!\s|$)|~(?:[^\W\d][^\s/\\]*)?(?:[/\\]|$)")
# a digit after the colon makes it a time or a ratio: 4:30 pm, 16:9
_WEIGHT = re.compile(r"(\d+(?:\.\d*)?|\.\d+):(?=[^\s\d])")
_QUOTED = re.compile(r"\"([^\"]*)\"|'([^']*)'|“([^“”]*)”|„([^„“”]*)[“”]|«([^«»]*)»|‘([^‘’]*)’")
_SIGN = re.compile(r"[+\-−](?=\s|$)")
# a sign before a word, a quote, a photo or a weight; -5 degrees and -> are words
_ATTACHED = re.compile(r"[+\-−](?=[^\W\d_]|[\"'“„«‘/~]|\.\.?[/\\]|[\d.]+:[^\s\d])")
_WORD = re.compile(r"\S+")
_SUFFIX = re.compile(r"\.\w{2,5}[\"'”»’]?$")
REMEMBERED = 1000  # texts whose vectors are kept: 2.5 MB with `mini`


@dataclass(frozen=True, slots=True)
class Term:
    """One part of a query, with a weight that is negative for "not".

    It is words (``str``), a photo file (``Path``), the id of a photo of the collection (``int``), a
    PIL picture, or a vector ``(dim,)``. Photos in which its ``verbatim`` words stand as text come
    first.
    """

    what: str | Path | int | Image.Image | Vectors
    weight: float = 1.0
    verbatim: tuple[str, ...] = ()


Query = str | os.PathLike[str] | Image.Image | Sequence[Term] | Vectors


@dataclass(slots=True)
class QueryPart:
    """A term of a query string as it is written: its sign and weight, and the ``(start, end)`` of
    its words in the query; ``in_quotes`` where quotes keep all of them as they are.
    """

    sign: float = 1.0
    weight: float = 1.0
    spans: list[tuple[int, int]] = field(default_factory=list)
    in_quotes: bool = False

    def text(self, query: str) -> str:
        """Return its words, without the quotes around all of them."""
        pieces: list[list[int]] = []
        for start, end in self.spans:
            if pieces and not query[pieces[-1][1] : start].strip():
                pieces[-1][1] = end
            else:
                pieces.append([start, end])
        return " ".join(query[start:end] for start, end in pieces)

    def verbatim(self, query: str) -> tuple[str, ...]:
        """Return its words that stand in quotes, each pair of quotes by itself."""
        pieces = (query[start:end] for start, end in self.spans)
        return tuple(
            piece[1:-1].strip()
            for piece in pieces
            if _QUOTED.fullmatch(piece) and plain_words(piece[1:-1])
        )


def parse_query(text: str) -> list[Term]:
    """Return the terms of a query string.

    Terms are joined by `` + `` and `` - `` (with spaces); ``-word`` and ``+word`` are terms of one
    word, and what follows them goes on with the term before. A term may begin with a weight
    (``2:``, but 16:9 and 4:30 are words), and may be quoted to keep such signs as words. A term
    that begins with ``./``, ``../``, ``/`` or ``~/`` is a photo, relative to the working folder.
    Raises QueryError for an empty query or term.
    """
    return [term_of(part, text) for part in query_parts(text)]


def query_parts(text: str) -> list[QueryPart]:
    """Return the terms of a query string as they are written; raises QueryError."""
    if not text.strip():
        raise QueryError("the query is empty: give words, or a photo as ./photo.jpg")
    parts = [QueryPart()]
    current, position, closed = parts[0], _after_space(text, 0), False
    while position < len(text):
        if sign := _SIGN.match(text, position):
            if closed or current.spans:
                current = QueryPart()
                parts.append(current)
            elif position != _after_space(text, 0):
                raise _empty_term(text)
            current.sign, closed = -1.0 if sign[0] in "-−" else 1.0, True
            position = sign.end()
        elif (sign := _ATTACHED.match(text, position)) and _may_end(current, text):
            alone = QueryPart(sign=-1.0 if sign[0] in "-−" else 1.0)
            position = _read_word(alone, text, sign.end())
            parts.append(alone)
        else:
            position = _read_word(current, text, position)
        position = _after_space(text, position)
    if not parts[0].spans and len(parts) > 1 and not closed:
        del parts[0]  # -people and nothing else
    return parts


def _after_space(text: str, position: int) -> int:
    return len(text) - len(text[position:].lstrip())


def _may_end(part: QueryPart, text: str) -> bool:
    """Return whether a term may end before a sign that is attached to the next word: the name of a
    photo may hold such signs.
    """
    body = part.text(text)
    return _PHOTO_START.match(body) is None or _SUFFIX.search(body) is not None


def _read_word(part: QueryPart, text: str, start: int) -> int:
    """Add the word, or the words in quotes, that begin here to a term, and return their end."""
    if not part.spans and (prefix := _WEIGHT.match(text, start)):
        part.weight, start = float(prefix[1]), prefix.end()
    quotation = _QUOTED.match(text, start)
    if quotation and (quotation.end() == len(text) or text[quotation.end()].isspace()):
        part.in_quotes = not part.spans
        part.spans.append(quotation.span())
        return quotation.end()
    word = _WORD.match(text, start)
    assert word is not None
    part.in_quotes = False
    part.spans.append(word.span())
    return word.end()


def _empty_term(query: str) -> QueryError:
    return QueryError(f"a term of the query {query!r} is empty: write it as 'beach + dog - people'")


def term_of(part: QueryPart, query: str) -> Term:
    """Return what a term of a query string means; raises QueryError."""
    body = part.text(query)
    body = (body[1:-1] if part.in_quotes else body).strip()
    if not body:
        raise _empty_term(query)
    if part.weight == 0:
        raise QueryError(
            f"a weight of 0 in the query {query!r} says nothing: leave the term out or give it "
            "another weight"
        )
    verbatim = part.verbatim(query) if part.sign > 0 else ()
    return Term(_meaning(body), part.sign * part.weight, verbatim)


def _meaning(body: str) -> str | Path:
    if _PHOTO_START.match(body) is None:
        return body
    return photo_path(body)


def photo_path(photo: str | os.PathLike[str]) -> Path:
    """Return the path of a query's photo with ``~`` written out; raises QueryError where there is
    no such home folder.
    """
    try:
        return Path(photo).expanduser()
    except (RuntimeError, ValueError) as error:  # an unknown ~user, or a name no file system takes
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
    largest = max(abs(term.weight) for term in terms)
    total = np.sum(
        [term.weight / largest * vector_of(term).astype(np.float64) for term in terms], axis=0
    )
    if float(np.linalg.norm(total)) < 1e-6 * sum(abs(term.weight / largest) for term in terms):
        raise QueryError("the terms of the query cancel each other out: change a weight")
    return unit_rows(total[None])[0]


def split_negatives(terms: Sequence[Term]) -> tuple[list[Term], list[Term]]:
    """Return the terms whose vectors are summed, and the words with a minus that lower the score of
    what shows them instead.

    Subtracted from other words, a vector leads away from all that the two share: "person - child"
    finds cattle. Without words or photos to lower, and for photos, a minus is subtraction.
    """
    minus = [term for term in terms if isinstance(term.what, str) and term.weight < 0]
    summed = [term for term in terms if not (isinstance(term.what, str) and term.weight < 0)]
    return (summed, minus) if any(term.weight > 0 for term in summed) else (list(terms), [])


def _beside(vector: Vectors, query: Vectors) -> Vectors:
    """Return the part of a unit vector ``(dim,)`` at right angles to the query's, scaled to length
    1: what it means besides the query. Raises QueryError where there is none.
    """
    wide, along = vector.astype(np.float64), query.astype(np.float64)
    part = wide - float(wide @ along) * along
    if float(np.linalg.norm(part)) < 1e-6:
        raise QueryError("the terms of the query cancel each other out: change a weight")
    return unit_rows(part[None])[0]


def _check_term(term: Term) -> None:
    what = term.what
    if isinstance(what, bool) or not isinstance(what, str | Path | int | Image.Image | np.ndarray):
        raise QueryError(
            "a term is words, a Path, the id of a photo, a PIL picture or a vector, not "
            f"{type(what).__name__}"
        )
    if isinstance(what, str) and not what.strip():
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
    return unit_rows(_usable(vector, dim)[None])[0]


def _usable(vector: object, dim: int) -> Vectors:
    """Return a user's vector as it is, as float32; raises what `check_vector` raises."""
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
    return array


def terms_of(query: Query, dim: int) -> list[Term]:
    """Return the query's terms; raises QueryError for what is neither that nor a vector ``(dim,)``,
    and for a term that means nothing.
    """
    if isinstance(query, str):
        return parse_query(query)
    if isinstance(query, os.PathLike):
        return [Term(photo_path(query))]
    if isinstance(query, Image.Image):
        return [Term(query)]
    if isinstance(query, list | tuple) and query and all(isinstance(term, Term) for term in query):
        return list(query)
    return [Term(_usable(query, dim))]  # it is scaled when it is used, once


# -- From a query to its vector: words and photos encoded, known photos looked up ------------------


# unit vectors ``(dim,)``: those of words by the words, of pictures by their ids in memory
EncodedTerms = dict[str | int, Vectors]


class QueryEncoder:
    """Reads queries for a collection: its photos' vectors are looked up, all else is encoded."""

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
        self._remembered: dict[tuple[str | None, str], Vectors] = {}  # the last one last
        self._remembering = threading.Lock()

    def encode(self, terms: Iterable[Term]) -> EncodedTerms:
        """Return the vectors of the words and of the pictures among terms, by the model alone and
        from any thread; words that it cannot read are refused where a query is read.
        """
        contents = [term.what for term in terms]
        words = {what: None for what in contents if isinstance(what, str) and what.strip()}
        pictures = {id(what): what for what in contents if isinstance(what, Image.Image)}
        encoded: EncodedTerms = {}
        if words and isinstance(self._encoder(), Encoder):
            encoded |= zip(words, self.encode_texts([*words]), strict=True)
        if pictures:
            upright = [upright_rgb(picture) for picture in pictures.values()]
            encoded |= zip(pictures, self._encoder().encode_images(upright), strict=True)
        return encoded

    def encode_texts(self, texts: Sequence[str]) -> list[Vectors]:
        """Return the unit vector ``(dim,)`` of each text; the last ones are remembered, since
        another page or filter of a search has the same words.
        """
        keys = [(set_language(), readable(text)) for text in texts]
        with self._remembering:
            known = {key: self._remembered[key] for key in keys if key in self._remembered}
        if new := [key for key in dict.fromkeys(keys) if key not in known]:
            model = self._encoder()
            assert isinstance(model, Encoder)
            rows = model.encode_texts([text for _, text in new])
            known |= zip(new, map(np.copy, rows), strict=True)  # a view would keep all rows
        with self._remembering:
            for key in keys:
                self._remembered.pop(key, None)
                self._remembered[key] = known[key]
            for key in [*self._remembered][:-REMEMBERED]:
                del self._remembered[key]
        return [known[key] for key in keys]

    def read_all(self, queries: Sequence[Query]) -> list[QueryMeaning]:
        """Return what each query means, the words of all of them encoded together, and the pictures
        too; raises QueryError, PhotoError, UnknownPhoto or EncoderError.
        """
        terms = [terms_of(query, self._dim) for query in queries]
        for term in (term for part in terms for term in part):
            _check_term(term)
        encoded = self.encode(term for part in terms for term in part)
        return [self.read(part, encoded) for part in terms]

    def read(self, terms: Sequence[Term], encoded: EncodedTerms) -> QueryMeaning:
        """Return what the terms of a query mean, whose words and pictures are encoded already;
        raises QueryError, PhotoError, UnknownPhoto or EncoderError.
        """
        photos = {
            term.what: self.photo_of(term.what) for term in terms if isinstance(term.what, Path)
        }

        def vector_of(term: Term) -> Vectors:
            if isinstance(term.what, Path):
                return self._file_vector(term.what, photos[term.what])
            return self._vector(term.what, encoded)

        summed, minus = split_negatives(terms)
        # a vector by itself is a unit row already: scaled once more it would lose its last bits
        alone = (
            len(summed) == 1 and isinstance(summed[0].what, np.ndarray) and summed[0].weight == 1
        )
        vector = vector_of(summed[0]) if alone else combine(summed, vector_of)
        largest = max(abs(term.weight) for term in summed)
        negatives = tuple(
            Negative(_beside(vector_of(term), vector), -term.weight / largest) for term in minus
        )
        ids = [term.what for term in terms if isinstance(term.what, int)]
        ids += [photo.photo_id for photo in photos.values() if photo]
        words = tuple(term.what for term in terms if isinstance(term.what, str))
        texts = tuple(
            each.what for each in summed if isinstance(each.what, str) and each.weight > 0
        )
        texts = texts if len(texts) == len(summed) else ()
        verbatim = tuple(words for term in terms for words in term.verbatim)
        return QueryMeaning(vector, frozenset(ids), words, negatives, texts, verbatim=verbatim)

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

    def stored_vector(self, photo_id: int) -> Vectors:
        """Return the unit vector ``(dim,)`` of a photo of the collection; raises UnknownPhoto."""
        rows = self._store.rows([photo_id]) if -(2**63) <= photo_id < 2**63 else []
        if not rows:
            raise UnknownPhoto(f"there is no photo {photo_id} in the collection")
        return unit_rows(np.asarray(self._store.halves([rows[0][2]])))[0]

    def _vector(self, what: str | int | Image.Image | Vectors, encoded: EncodedTerms) -> Vectors:
        """Return the unit vector of a term that is not a file."""
        if isinstance(what, str):
            if what not in encoded:
                raise QueryError(
                    f"encoder {self._encoder().name} reads no text: search with a photo, or index "
                    "into another --collection with one that does, such as mini"
                )
            return encoded[what]
        if isinstance(what, Image.Image):
            return encoded[id(what)]
        return self.stored_vector(what) if isinstance(what, int) else check_vector(what, self._dim)

    def _file_vector(self, path: Path, photo: Photo | None) -> Vectors:
        """Return the unit vector of a file, which is ``photo`` where the collection has it."""
        try:
            fingerprint, head = read_fingerprint(path)
            same = photo if photo and photo.fingerprint == fingerprint else None
            same = same or next(iter(self._store.photos_with(fingerprint)), None)
            if same:  # the same bytes have the same vector
                return unit_rows(self._store.vector(same.photo_id)[None])[0]
            encoder = self._encoder()
            decoding = self._decoding()  # as the photos it is compared with
            name, at_least = str(path), decoding.at_least(encoder)
            with PhotoDecoder() as decoder:
                if container_of(head) is None:
                    image, _ = decoder.decode(
                        read_bytes(path), name=name, at_least=at_least, colours=decoding.colours
                    )
                else:
                    image, _ = decoder.moment(name, at=0.0, at_least=at_least)
            return encoder.encode_prepared([decoding.prepare(encoder, image)])[0]
        except PhotoError as error:
            raise PhotoError(f"the query's photo {str(path)!r}: {error}") from error
