"""Results that one can work with: their pictures and facts, a page of them, a table."""

import base64
import html
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, Any, SupportsIndex, overload

from PIL import Image

from vitsearch.collection.backend import Backend
from vitsearch.collection.base import OpenCollection, open_backend
from vitsearch.errors import PhotoError, UnknownPhoto, VitsearchError
from vitsearch.photos import prefetch_map
from vitsearch.photos.columns import METADATA, clock
from vitsearch.photos.decode import open_photo, webp
from vitsearch.photos.decoder import PhotoDecoder
from vitsearch.types import Photo, ResultSource, SearchResult

if TYPE_CHECKING:
    from pandas import DataFrame

MAX_PICTURES = 20  # of a page of results in a notebook, which stores it
SIDE = 160  # pixels of the longest side of each
MAX_NAME = 60  # characters
FACTS = ("width", "height", *(name for name in METADATA if name != "time"), "label", "label_score")


class CollectionSource:
    """The collection that results are of, opened again for each question: it holds nothing open,
    and another process can have it.
    """

    def __init__(self, keywords: Mapping[str, Any]) -> None:
        self._keywords = {
            **{"collection": None, "root": None, "device": "cpu", "read_only": False},
            **keywords,
        }

    @contextmanager
    def opened(self) -> Iterator[Backend]:
        """Yield the collection, open for reading; raises the errors of `Collection.open`."""
        with closing(open_backend(**self._keywords)) as backend:
            yield backend

    def photo(self, result: SearchResult) -> Photo:
        """Return what `SearchResult.photo` is."""
        with self.opened() as backend:
            return _photo(backend, result)

    def image(self, result: SearchResult) -> Image.Image:
        """Return what `SearchResult.image` returns."""
        with self.opened() as backend, PhotoDecoder() as decoder:
            return _picture(backend, result, decoder)


class SearchResults(list[SearchResult]):
    """Results in their order: a list that notebooks show with pictures."""

    @overload
    def __getitem__(self, index: SupportsIndex) -> SearchResult: ...
    @overload
    def __getitem__(self, index: slice) -> "SearchResults": ...
    def __getitem__(self, index: SupportsIndex | slice) -> "SearchResult | SearchResults":
        """Return a result, or the results of a slice."""
        if isinstance(index, slice):
            return SearchResults(super().__getitem__(index))
        return super().__getitem__(index)

    def to_pandas(self) -> "DataFrame":
        """Return a table with a row for each result, in order.

        Its columns are ``path``, ``score``, ``photo_id``, ``file``, ``collection``, ``time``,
        ``relevance``, and what the collection knows of the photo: its size, the metadata columns,
        its stored label; null where that is nothing. Raises VitsearchError without pandas, and the
        errors of `Collection.open`.
        """
        try:
            import pandas
        except ImportError:
            raise VitsearchError("a table of results needs pandas: pip install pandas") from None
        columns: dict[str, Any] = {
            # paths may have bytes that no Unicode string type of pandas holds
            "path": pandas.Series([result.path for result in self], dtype=object),
            "score": pandas.Series([result.score for result in self], dtype="float64"),
            "photo_id": pandas.Series([result.photo_id for result in self], dtype="int64"),
            "file": pandas.Series([result.file for result in self], dtype=object),
            "collection": pandas.Series([result.collection for result in self], dtype=object),
            "time": pandas.Series([result.time for result in self], dtype="float64"),
            "relevance": pandas.Series([result.relevance for result in self], dtype="float64"),
        }
        facts = _facts(self)
        columns |= {name: [row.get(name) for row in facts] for name in FACTS}
        return pandas.DataFrame(columns)

    def _repr_html_(self) -> str:
        """Return the first 20 results as HTML, with small pictures inside it."""
        shown = self[:MAX_PICTURES]
        more = f", the first {len(shown)}" if len(shown) < len(self) else ""
        heading = f"{len(self):,} result{'' if len(self) == 1 else 's'}{more}"
        return _page(heading, [(result, f"{result.score:.3f}") for result in shown])


def results_of(backend: Backend, results: Iterable[SearchResult]) -> SearchResults:
    """Return results that know their collection."""
    source = CollectionSource(backend.open_keywords)
    root = os.path.join(os.path.abspath(backend.root), "")
    return SearchResults(
        [result.of(source, root + result.path.replace("/", os.sep)) for result in results]
    )


def collection_page(collection: OpenCollection) -> str:
    """Return a collection as HTML: its name, what it holds, and its first 20 photos."""
    photos = islice(collection.photos(), MAX_PICTURES)
    results = results_of(
        collection.backend,
        [SearchResult(photo.path, 0.0, photo.photo_id, time=photo.time) for photo in photos],
    )
    number = len(collection)
    more = f", the first {len(results)}" if len(results) < number else ""
    heading = (
        f"{collection.backend.name}: {number:,} photo{'' if number == 1 else 's'} "
        f"({collection.config.encoder}){more}"
    )
    return _page(heading, [(result, "") for result in results])


def _photo(backend: Backend, result: SearchResult) -> Photo:
    store = backend.store
    photo = store.photo_at(result.stored_path) or store.photo_at(result.path)
    if photo is None:
        raise UnknownPhoto(f"{result.path} is no longer in the collection {backend.name}")
    return photo


def _picture(
    backend: Backend, result: SearchResult, decoder: PhotoDecoder, *, at_least: int | None = None
) -> Image.Image:
    try:
        photo = _photo(backend, result)
        with open_photo(backend.root, photo.file, photo) as file:
            return decoder.decode_file(file, at=photo.time, name=photo.path, at_least=at_least)
    except (PhotoError, UnknownPhoto) as error:
        raise PhotoError(f"{result.file or result.path}: {error}") from error


@contextmanager
def _opened(results: Iterable[SearchResult]) -> Iterator[dict[ResultSource, Backend]]:
    """Yield the collections of results, each opened once."""
    with ExitStack() as stack:
        yield {
            source: stack.enter_context(source.opened())
            for source in dict.fromkeys(result.source for result in results)
            if isinstance(source, CollectionSource)
        }


def _facts(results: Sequence[SearchResult]) -> list[dict[str, Any]]:
    """Return what the collections know of each result; nothing of one that has left its own."""
    rows: list[dict[str, Any]] = []
    with _opened(results) as backends:
        for result in results:
            try:
                photo = _photo(backends[result.source], result)
            except UnknownPhoto:
                rows.append({})
                continue
            size = {"width": photo.info.width, "height": photo.info.height}
            label = {"label": photo.label, "label_score": photo.label_score}
            rows.append({**photo.info.metadata, **size, **label})
    return rows


# -- As HTML, for notebooks ------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Tile:
    """A result as shown: its picture in WebP, or the reason why there is none."""

    result: SearchResult
    caption: str
    picture: bytes = b""
    reason: str = ""


def _page(heading: str, captioned: Sequence[tuple[SearchResult, str]]) -> str:
    try:
        tiles = _tiles(captioned)
    except (VitsearchError, LookupError) as error:  # a notebook would show a traceback
        tiles = [_Tile(result, caption, reason=str(error)) for result, caption in captioned]
    figures = "".join(map(_figure, tiles))
    return (
        f"<div><p>{html.escape(_short(heading, 4 * MAX_NAME))}</p>"
        f'<div style="display:flex;flex-wrap:wrap;gap:12px">{figures}</div></div>'
    )


def _tiles(captioned: Sequence[tuple[SearchResult, str]]) -> list[_Tile]:
    with _opened([result for result, _ in captioned]) as backends, PhotoDecoder() as decoder:

        def tile(shown: tuple[SearchResult, str]) -> _Tile:
            result, caption = shown
            try:
                picture = _picture(backends[result.source], result, decoder, at_least=2 * SIDE)
            except PhotoError as error:
                reason = str(error.__cause__ or error)
                return _Tile(result, caption, reason=reason)
            return _Tile(result, caption, webp(picture, SIDE))

        return list(prefetch_map(tile, captioned, workers=4, buffer=8, on_stop=decoder.close))


def _figure(tile: _Tile) -> str:
    result = tile.result
    name = html.escape(_short(result.path.rpartition("/")[2]))
    if tile.picture:
        data = base64.b64encode(tile.picture).decode("ascii")
        inside = f'<img src="data:image/webp;base64,{data}" alt="{name}">'
    else:
        inside = f'<span style="color:#777">{html.escape(_short(tile.reason, 2 * MAX_NAME))}</span>'
    moment = "" if result.time is None else clock(result.time)
    caption = html.escape(" ".join(each for each in (tile.caption, moment) if each))
    return (
        f'<figure style="margin:0;width:{SIDE}px"><div style="height:{SIDE}px;display:flex;'
        f'align-items:center;justify-content:center;overflow:hidden">{inside}</div><figcaption '
        f'style="font-size:12px;overflow-wrap:anywhere">{caption} {name}</figcaption></figure>'
    )


def _short(text: str, limit: int = MAX_NAME) -> str:
    """Return text as one line of at most so many characters, both of its ends."""
    from vitsearch.outputs import readable

    line = readable(text)
    half = limit // 2
    return line if len(line) <= limit else f"{line[: half - 1]}…{line[-half:]}"
