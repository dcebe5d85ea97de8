"""The data sets that encoders are evaluated on: captions of photos, with the recall of retrieval
(photos found by their captions and captions by their photos), and sets in the layout of
CLIP_benchmark's webdatasets: ``classnames.txt``, templates of prompts, and tars of photos with the
number of their class, or with captions.
"""

import json
import logging
import os
import re
import shutil
import tarfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import IO

import numpy as np

from vitsearch.arrays import Ids, Vectors
from vitsearch.collection import Collection
from vitsearch.encoders import Encoder
from vitsearch.encoders.language import readable, unread_notes
from vitsearch.errors import QueryError
from vitsearch.labels import Label
from vitsearch.labels.metrics import accuracy_interval, first_right_ranks, recall_at_k
from vitsearch.photos.sources.source import is_photo, key_of
from vitsearch.records import atomic_folder
from vitsearch.types import Photo
from vitsearch.untrusted import parse_json, read_bounded

log = logging.getLogger("vitsearch")

CAPTIONS = "captions.tsv"
DESCRIPTIONS = "descriptions"  # in place of a file: the photos' own
RANKS = (1, 5, 10)
# captions encoded, and scores computed, at once: they bound the memory
_MAX_TEXTS = 4096
_MAX_SCORES = 8_000_000


@dataclass(frozen=True, slots=True)
class Retrieval:
    """Recall@k of captions and photos, at k = 1, 5 and 10, among the ``photos`` with captions.

    The measure is that of Karpathy and Fei-Fei (arXiv:1412.2306). ``image_recall`` is the share of
    captions whose photo is among the k nearest photos, ``text_recall`` the share of photos with at
    least one of their captions among the k nearest. ``unknown`` captions were left out: their photo
    is not in the set.
    """

    photos: int
    captions: int
    unknown: int
    image_recall: Mapping[int, float]
    text_recall: Mapping[int, float]

    def image_interval(self, k: int) -> tuple[float, float]:
        """Return the 95 % interval of ``image_recall`` at k."""
        return accuracy_interval(round(self.image_recall[k] * self.captions), self.captions)

    def text_interval(self, k: int) -> tuple[float, float]:
        """Return the 95 % interval of ``text_recall`` at k."""
        return accuracy_interval(round(self.text_recall[k] * self.photos), self.photos)


@dataclass(frozen=True, slots=True)
class Captions:
    """The captions of a set of photos.

    ``photo`` is the position of each caption's photo in the set ``(captions,)``; ``unknown`` is the
    number of captions whose photo is not in the set.
    """

    texts: list[str]
    photo: Ids
    unknown: int


def read_captions(
    collection: Collection, photos: Sequence[Photo], requested: str | os.PathLike[str] | None
) -> Captions | None:
    """Return the captions of a file, by default ``captions.tsv`` in the photo folder, or None; of
    ``descriptions`` the column of this name of the ``photos``.

    Lines are ``path<TAB>caption``. Raises QueryError for a damaged line, with its number, and where
    no photo has a description.
    """
    if requested == DESCRIPTIONS:
        return _descriptions(photos)
    paths = [photo.path for photo in photos]
    file = Path(requested) if requested is not None else collection.root / CAPTIONS
    if requested is None and not os.path.lexists(file):
        return None
    position = {path: number for number, path in enumerate(paths)}
    pairs = list(_caption_lines(file))
    known = [(text, position[path]) for path, text in pairs if path in position]
    if not known:
        first = f" (the first is {pairs[0][0]!r})" if pairs else ""
        raise QueryError(
            f"no path in {file} is a photo of the set{first}: write path<TAB>caption, paths "
            "relative to the photo folder"
        )
    unknown = len(pairs) - len(known)
    if unknown:
        missing = next(path for path, _ in pairs if path not in position)
        log.warning(
            f"{unknown:,} of {len(pairs):,} captions are of photos that are not in the set, such "
            f"as {missing!r}"
        )
    return Captions(
        [text for text, _ in known],
        np.array([number for _, number in known], dtype=np.int64),
        unknown,
    )


def _descriptions(photos: Sequence[Photo]) -> Captions:
    texts = [" ".join(str(photo.info["description"] or "").split()) for photo in photos]
    described = np.flatnonzero(np.array([bool(text) for text in texts], dtype=bool))
    if not len(described):
        raise QueryError(
            "no photo of the collection has a description: name a file of captions, lines of "
            "path<TAB>caption"
        )
    return Captions([texts[position] for position in described], described, 0)


def _caption_lines(file: Path) -> Iterator[tuple[str, str]]:
    """Yield (path, caption) of each line that is not blank.

    Raises QueryError that names the faulty line.
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
                f"{file}, line {number}: it is not UTF-8 text "
                f"({error.reason}): save the file as UTF-8"
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


def retrieve(
    collection: Collection, vectors: Vectors, captions: Captions | None
) -> Retrieval | None:
    """Return the recall@k of captions and of the photos that have one; None without captions.

    ``vectors`` ``(n, dim)`` are those of all photos. An encoder that reads no text, and captions
    that it cannot read to the end, are noted in the collection.
    """
    if captions is None:
        return None
    encoder = collection.encoder
    if not isinstance(encoder, Encoder):
        log.warning(f"encoder {encoder.name} reads no text, so the captions are not searched for")
        return None
    for note in unread_notes(captions.texts, encoder).values():
        log.warning(note)
    texts = [readable(text) for text in captions.texts]
    rows = np.concatenate(
        [
            encoder.encode_texts(texts[start : start + _MAX_TEXTS])
            for start in range(0, len(texts), _MAX_TEXTS)
        ]
    )
    positions, photo = np.unique(captions.photo, return_inverse=True)
    images = vectors[positions]
    numbers = np.arange(len(positions))
    image_ranks = _ranks(rows, images, photo, numbers)
    text_ranks = _ranks(images, rows, numbers, photo)
    return Retrieval(
        photos=len(positions),
        captions=len(rows),
        unknown=captions.unknown,
        image_recall={k: recall_at_k(image_ranks, k) for k in RANKS},
        text_recall={k: recall_at_k(text_ranks, k) for k in RANKS},
    )


def _ranks(queries: Vectors, items: Vectors, query_photo: Ids, item_photo: Ids) -> Ids:
    """Return the rank of each query's best-placed item of the same photo.

    Equal scores rank in order of path and of line.
    """
    step = max(1, _MAX_SCORES // len(items))
    columns = items.astype(np.float64).T
    ranks = []
    for start in range(0, len(queries), step):
        block = slice(start, start + step)
        # rounded, since a matrix product may give equal rows scores that differ in the last bit
        scores = np.round(queries[block].astype(np.float64) @ columns, 10)
        ranks.append(first_right_ranks(scores, query_photo[block, None] == item_photo))
    return np.concatenate(ranks)


# -- Sets of CLIP_benchmark ------------------------------------------------------------------------


CLASSES = "classnames.txt"
TEMPLATES = "zeroshot_classification_templates.txt"
TARS = "test/*.tar"
UNPACKED = "unpacked"  # a folder in the set, with a folder of photos for each class
_TARS = "tars.json"  # in that folder: the tars that it was unpacked from, and their sizes
_MAX_TEXT = 65_536  # bytes of the captions of a photo


@dataclass(frozen=True, slots=True)
class BenchmarkSet:
    """A set on disk: its photos in a folder for each class, all its classes (those without a photo
    too), and the templates of its prompts; no labels where the photos have captions instead.
    """

    folder: Path
    labels: list[Label] | None
    templates: list[str]


def is_webdataset(folder: Path) -> bool:
    """Return whether a folder holds a set in this layout."""
    return next(folder.glob(TARS), None) is not None


def unpack(folder: Path) -> BenchmarkSet:
    """Return the set in a folder, its photos unpacked beside the tars where they are not yet, or
    where the tars are others now, by name and size.

    Raises QueryError for a tar that is damaged, for photos whose class is not one number (sets
    of several labels a photo), and for a folder of that name that holds something else.
    """
    tars = sorted(folder.glob(TARS), key=lambda tar: (len(tar.stem), tar.stem))
    names = _lines(folder / CLASSES)
    target = folder / UNPACKED
    sizes = {tar.name: tar.stat().st_size for tar in tars}
    if not target.exists() or _sizes_of(target) != sizes:
        with atomic_folder(target, prefix=".unpacking-") as aside:
            captions = [line for tar in tars for line in _unpack_tar(tar, aside, names)]
            if captions:
                (aside / CAPTIONS).write_text("\n".join(captions) + "\n", encoding="utf-8")
            elif not names:
                raise QueryError(f"{folder} has no {CLASSES}, and its photos have no captions")
            (aside / _TARS).write_text(json.dumps(sizes), encoding="utf-8")
    labels = [Label(_folder_of(number), (name,)) for number, name in enumerate(names)]
    if not any((target / label.name).is_dir() for label in labels):
        labels = []
    templates = [line.replace("{c}", "{}") for line in _lines(folder / TEMPLATES)]
    return BenchmarkSet(target, labels or None, templates)


def _sizes_of(target: Path) -> object:
    """Return the names and sizes of the tars that a folder was unpacked from; raises QueryError
    where it was not.
    """
    try:
        return parse_json(read_bounded(target / _TARS))
    except (OSError, ValueError) as error:
        raise QueryError(
            f"{target} is where the photos of the set are unpacked, and it holds something else: "
            "move it away"
        ) from error


def _lines(file: Path) -> list[str]:
    try:
        text = file.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        return []
    except (OSError, UnicodeDecodeError) as error:
        raise QueryError(f"cannot read {file} ({error}): fetch the set again") from error
    return [line.strip() for line in text.splitlines() if line.strip()]


def _folder_of(number: int) -> str:
    return f"{number:05d}"


def _unpack_tar(tar: Path, target: Path, classes: list[str]) -> Iterator[str]:
    """Write the photos of a tar into the folders of their classes, and yield the lines of their
    captions.
    """
    try:
        with tarfile.open(tar, mode="r:") as archive:
            members = (member for member in archive if member.isreg())
            for key, sample in groupby(members, key=lambda member: _split(member.name)[0]):
                parts = {_split(member.name)[1]: member for member in sample}
                photo = next((suffix for suffix in parts if is_photo(f"a.{suffix}")), None)
                if photo is None:
                    continue
                name = f"{tar.stem}-{re.sub(r'[^A-Za-z0-9-]', '_', key)}.{photo}"
                if "cls" in parts:
                    number = _class_of(_text(archive, parts["cls"]), classes, tar, key)
                    name = f"{_folder_of(number)}/{name}"
                name = _unused(target, name)
                if "cls" not in parts and "txt" in parts:
                    captions = _text(archive, parts["txt"]).splitlines()
                    yield from (f"{name}\t{line.strip()}" for line in captions if line.strip())
                elif "cls" not in parts:
                    raise QueryError(
                        f"{tar}: {key} has neither a class (.cls) nor captions (.txt): sets with "
                        "several labels a photo are not read"
                    )
                (target / name).parent.mkdir(exist_ok=True)
                with _opened(archive, parts[photo]) as source, (target / name).open("wb") as file:
                    shutil.copyfileobj(source, file)
    except (tarfile.TarError, OSError) as error:
        raise QueryError(f"{tar} is cut or damaged ({error}): fetch the set again") from error


def _unused(target: Path, name: str) -> str:
    """Return the name, with a number where it is taken: keys may differ in what was replaced."""
    stem, _, suffix = name.partition(".")
    number = 1
    while (target / name).exists():
        number += 1
        name = f"{stem}-{number}.{suffix}"
    return name


def _split(name: str) -> tuple[str, str]:
    """Return the key and the suffix of a member."""
    key = key_of(name)
    return key, name[len(key) + 1 :].lower()


def _class_of(text: str, classes: list[str], tar: Path, key: str) -> int:
    if text.strip().isdecimal() and int(text) < len(classes):
        return int(text)
    raise QueryError(
        f"{tar}: the class of {key} is {text.strip()[:40]!r}, not the number of a line of "
        f"{CLASSES}, from 0 to {len(classes) - 1}"
    )


def _text(archive: tarfile.TarFile, member: tarfile.TarInfo) -> str:
    with _opened(archive, member) as source:
        return source.read(_MAX_TEXT).decode("utf-8", "replace")


def _opened(archive: tarfile.TarFile, member: tarfile.TarInfo) -> IO[bytes]:
    opened = archive.extractfile(member)
    assert opened is not None  # it is a regular file
    return opened
