"""Photos and their captions found by each other: retrieval recall, from a file of captions."""

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from vitsearch.arrays import Ids, Vectors
from vitsearch.collection import Collection
from vitsearch.encoders import Encoder
from vitsearch.encoders.language import readable, unread_notes
from vitsearch.errors import QueryError
from vitsearch.labels.metrics import (
    first_right_ranks,
    recall_at_k,
)

CAPTIONS = "captions.tsv"
RANKS = (1, 5, 10)
_TEXTS = 4096  # captions encoded at once: with the next it bounds the memory
_SCORES = 8_000_000


@dataclass(frozen=True, slots=True)
class Retrieval:
    """Recall@k of captions and photos, at k = 1, 5 and 10, among the ``photos`` that have captions
    (Karpathy and Fei-Fei, arXiv:1412.2306).

    ``image_recall`` is the share of captions whose photo is among the k nearest photos,
    ``text_recall`` the share of photos with at least one of their captions among the k nearest.
    ``unknown`` captions were left out: their photo is not in the set.
    """

    photos: int
    captions: int
    unknown: int
    image_recall: Mapping[int, float]
    text_recall: Mapping[int, float]


@dataclass(frozen=True, slots=True)
class Captions:
    """The captions of photos of a set, the place of each one's photo among all ``(captions,)``, and
    how many are of no photo of it.
    """

    texts: list[str]
    photo: Ids
    unknown: int


def read_captions(
    collection: Collection, paths: Sequence[str], named: str | os.PathLike[str] | None
) -> Captions | None:
    """Return the captions of a file, or (None) of ``captions.tsv`` in the photo folder; None where
    there is none.

    Lines are ``path<TAB>caption``; ``paths`` are the photos of the collection. Raises QueryError
    for a damaged line, with its number.
    """
    file = Path(named) if named is not None else collection.root / CAPTIONS
    if named is None and not os.path.lexists(file):
        return None
    place = {path: number for number, path in enumerate(paths)}
    pairs = list(_caption_lines(file))
    kept = [(text, place[path]) for path, text in pairs if path in place]
    if not kept:
        first = f" (the first is {pairs[0][0]!r})" if pairs else ""
        raise QueryError(
            f"no path in {file} is a photo of the set{first}: write path<TAB>caption, paths "
            "relative to the photo folder"
        )
    unknown = len(pairs) - len(kept)
    if unknown:
        lost = next(path for path, _ in pairs if path not in place)
        collection.notes.append(
            f"{unknown:,} of {len(pairs):,} captions are of photos that are not in the set, such "
            f"as {lost!r}"
        )
    return Captions(
        [text for text, _ in kept],
        np.array([number for _, number in kept], dtype=np.int64),
        unknown,
    )


def _caption_lines(file: Path) -> Iterator[tuple[str, str]]:
    """Yield (path, caption) of each line that is not blank; raises QueryError with the line that is
    wrong.
    """
    try:
        lines = file.read_bytes().removeprefix(b"\xef\xbb\xbf").split(b"\n")
    except OSError as error:
        raise QueryError(
            f"cannot read the captions in {file} ({error.strerror}): check the path"
        ) from error
    for number, raw in enumerate(lines, start=1):
        try:
            path, tab, caption = raw.decode("utf-8").rstrip("\r").partition("\t")
        except UnicodeDecodeError as error:
            raise QueryError(
                f"{file}, line {number}: it is not UTF-8 text ({error.reason}): save the file as "
                "UTF-8"
            ) from error
        if not (path + tab + caption).strip():
            continue
        if not tab:
            raise QueryError(
                f"{file}, line {number}: there is no tab in it: write path<TAB>caption"
            )
        if not path.strip() or not caption.strip():
            raise QueryError(
                f"{file}, line {number}: the path or the caption is empty: write path<TAB>caption"
            )
        yield path, " ".join(caption.split())


def retrieve(collection: Collection, vectors: Vectors, found: Captions | None) -> Retrieval | None:
    """Return the recall@k of the captions and of the photos that have one, ``(n, dim)`` vectors of
    all photos; None without captions.

    An encoder that reads no text, and captions that it cannot read whole, are noted in the
    collection.
    """
    if found is None:
        return None
    encoder = collection.encoder
    if not isinstance(encoder, Encoder):
        collection.notes.append(
            f"encoder {encoder.name} reads no text, so the captions are not searched for"
        )
        return None
    collection.notes += unread_notes(found.texts, encoder).values()
    texts = [readable(text) for text in found.texts]
    rows = np.concatenate(
        [
            encoder.encode_texts(texts[start : start + _TEXTS])
            for start in range(0, len(texts), _TEXTS)
        ]
    )
    shown, photo = np.unique(found.photo, return_inverse=True)
    images = vectors[shown]
    of_images = np.arange(len(shown))
    image_ranks, text_ranks = (
        _ranks(rows, images, photo, of_images),
        _ranks(images, rows, of_images, photo),
    )
    return Retrieval(
        photos=len(shown),
        captions=len(rows),
        unknown=found.unknown,
        image_recall={k: recall_at_k(image_ranks, k) for k in RANKS},
        text_recall={k: recall_at_k(text_ranks, k) for k in RANKS},
    )


def _ranks(queries: Vectors, items: Vectors, query_photo: Ids, item_photo: Ids) -> Ids:
    """Return the rank of each query's best-placed item of the same photo; equal scores rank in
    order of path and of line.
    """
    step = max(1, _SCORES // len(items))
    wide = items.astype(np.float64).T
    ranks = []
    for start in range(0, len(queries), step):
        here = slice(start, start + step)
        scores = np.round(
            queries[here].astype(np.float64) @ wide, 10
        )  # a product of matrices may tell equal rows apart in the last bit
        ranks.append(first_right_ranks(scores, query_photo[here, None] == item_photo))
    return np.concatenate(ranks)
