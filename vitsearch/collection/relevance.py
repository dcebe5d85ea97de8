"""How likely photos show what words say, for any encoder: measured against what the collection
gives for words that mean nothing.

The cosines of one encoder lie elsewhere than another's, and the best of many photos is higher than
that of a few. So the encoder reads lines that nobody searches for, and words for everyday things:
their best scores in the collection say what a score is worth, and their vectors whether the words
of a query mean anything to the encoder.
"""

import math
import random
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from vitsearch.arrays import Vectors, map_npy, unit_rows
from vitsearch.encoders.base import Encoder, ImageEncoder, fingerprint_of
from vitsearch.encoders.language import texts_in
from vitsearch.errors import CollectionError
from vitsearch.labels import THINGS
from vitsearch.paths import cache_dir
from vitsearch.records import atomic_file, atomic_write, read_record, to_json
from vitsearch.storage import PhotoReader

# how the likelihood rises with the score, where it is a half, how much farther that is for words
# without meaning, and nearer where few photos are; fitted on captions of Flickr8k dev and COCO with
# one half of `benchmarks/everyday_queries.tsv`
STEEPNESS = 1.9
EVEN = 1.8
MEANINGLESS = 2.75
FEW = 1.3
ALIKE = 8  # lines whose mean likeness counts
LINES = 128  # that mean nothing
FILE = "relevance.json"  # of a collection's folder, derived from its vectors
SLOW_SECONDS = 0.05  # what takes longer to measure is written there


def meaningless_lines() -> list[str]:
    """Return lines of random letters, syllables and digits, always the same ones."""
    random_number = random.Random(22).random

    def pick(choices: str) -> str:
        return choices[int(random_number() * len(choices))]

    def letters() -> str:
        return "".join(pick("abcdefghijklmnopqrstuvwxyz") for _ in range(3 + int(pick("0123456"))))

    def syllables() -> str:
        return "".join(
            pick("bcdfghjklmnprstvwz") + pick("aeiou") + pick("  nrl").strip()
            for _ in range(2 + int(pick("01")))
        )

    def digits() -> str:
        return "".join(pick("0123456789") for _ in range(1 + int(pick("012345"))))

    kinds = (letters, syllables, digits)
    return [
        " ".join(kinds[int(pick("012"))]() for _ in range(1 + int(pick("012"))))
        for _ in range(LINES)
    ]


@dataclass(frozen=True, slots=True, eq=False)
class Lines:
    """The unit rows of words for things, ``(things, dim)``, and of lines that mean nothing."""

    things: Vectors
    meaningless: Vectors

    @classmethod
    def of(cls, encoder: Encoder) -> "Lines":
        """Return those of an encoder, which are kept in the user's cache."""
        things, meaningless = THINGS.split(", "), meaningless_lines()
        texts = [*things, *meaningless]
        key = fingerprint_of({"encoder": encoder.fingerprint, "lines": texts})
        file = cache_dir() / "lines" / f"{key}.npy"
        shape = (len(texts), encoder.dim)
        halves: NDArray[np.float16] | None = None
        with suppress(OSError, ValueError):
            stored = map_npy(file)
            if stored.shape == shape and stored.dtype == np.float16 and np.isfinite(stored).all():
                halves = np.array(stored)
        if halves is None:
            with texts_in("en"):
                halves = encoder.encode_texts(texts).astype(np.float16)
            with suppress(OSError):  # a cache that cannot be written has none
                file.parent.mkdir(parents=True, exist_ok=True)
                with atomic_file(file, sync=False) as aside, open(aside, "wb") as opened:
                    np.save(opened, halves)
        rows = unit_rows(halves)
        return cls(rows[: len(things)], rows[len(things) :])

    def likeness(self, vector: Vectors) -> float:
        """Return how much more alike a unit vector ``(dim,)`` is to words for things."""
        return float(_nearest(self.things @ vector) - _nearest(self.meaningless @ vector))

    def levels(self) -> tuple[float, float] | None:
        """Return the likeness of a line that means nothing and of a word for a thing, each left
        out of its own kind; None for an encoder that does not tell them apart.
        """
        across = self.things @ self.meaningless.T
        things = _nearest(_without_itself(self.things)) - _nearest(across)
        meaningless = _nearest(across.T) - _nearest(_without_itself(self.meaningless))
        low, high = float(meaningless.mean()), float(things.mean())
        return (low, high) if high - low > meaningless.std() + things.std() else None


def _nearest(cosines: NDArray[np.float32]) -> NDArray[np.float64]:
    """Return the mean of the best `ALIKE` along the last axis."""
    best = np.partition(cosines, -ALIKE, axis=-1)[..., -ALIKE:]
    return np.asarray(best.mean(axis=-1, dtype=np.float64))


def _without_itself(rows: Vectors) -> NDArray[np.float32]:
    cosines: NDArray[np.float32] = rows @ rows.T
    np.fill_diagonal(cosines, -1)
    return cosines


@dataclass(frozen=True, slots=True)
class Scale:
    """What scores of words are worth in one state of a collection of ``photos``.

    ``chance`` is the best score that words without meaning get, ``spread`` how far words for things
    lie above it, or apart; ``low`` and ``high`` are the likeness of either to words for things.
    """

    state: str
    photos: int
    chance: float
    spread: float
    low: float
    high: float

    def even(self, likeness: float) -> float:
        """Return how many spreads above chance a photo fits as likely as not, for words of such a
        likeness to words for things.
        """
        meaning = min(1.0, (likeness - self.low) / (self.high - self.low))
        return EVEN + MEANINGLESS * (1 - meaning) - FEW / math.sqrt(self.photos)

    def relevance(self, score: float, even: float) -> float:
        """Return how likely a photo with this score shows what the words say, from 0 to 1."""
        logit = STEEPNESS * ((score - self.chance) / self.spread - even)
        return 0.5 * (1 + math.tanh(logit / 2))

    def least_score(self, relevance: float, even: float) -> float:
        """Return the score from which on photos are at least so likely to show it."""
        if relevance <= 0:
            return -math.inf
        logit = math.log(relevance / (1 - relevance)) if relevance < 1 else math.inf
        return self.chance + self.spread * (even + logit / STEEPNESS)


def measured_scale(lines: Lines, rows: Vectors, photos: int, state: str = "") -> Scale | None:
    """Return the scale of a collection of so many photos by a sample ``(n, dim)`` of its vectors;
    None where nothing can be told: of no photo, and by an encoder to which all words are alike.
    """
    levels = lines.levels()
    if levels is None or not len(rows):
        return None
    chance = _best(lines.meaningless, rows, photos)
    things = _best(lines.things, rows, photos)
    spread = float(max(things.mean() - chance.mean(), things.std()))
    return Scale(state, photos, float(chance.mean()), spread, *levels) if spread > 0 else None


def _best(lines: Vectors, rows: Vectors, photos: int) -> NDArray[np.float64]:
    """Return the best score of each line among all photos, by a sample of them: with four times as
    many it grows by as much as from a quarter of the sample to all of it.
    """
    cosines = (lines @ rows.T).astype(np.float64)
    best: NDArray[np.float64] = cosines.max(axis=1)
    if photos > len(rows) >= 4:
        growth = best - cosines[:, ::4].max(axis=1)
        best = best + growth.mean() * math.log(photos / len(rows)) / math.log(4)
    return best


class KnownScale:
    """The scale of a collection in its present state. ``folder`` is where it is written if it takes
    long to measure, and ``sample`` returns some of its vectors.
    """

    def __init__(self, folder: Path, sample: Callable[[], Vectors]) -> None:
        self._folder, self._sample = folder, sample
        self._known: tuple[str, Lines, Scale | None] | None = None

    def of(self, store: PhotoReader, encoder: ImageEncoder) -> tuple[Lines, Scale] | None:
        """Return the lines as the encoder reads them, and the scale; None where relevance cannot be
        told.
        """
        if not isinstance(encoder, Encoder):
            return None
        state = f"{encoder.fingerprint} {store.generation()} {store.state()}"
        known = self._known
        if known is None or known[0] != state:
            lines = known[1] if known else Lines.of(encoder)
            known = state, lines, self._read(state) or self._measure(lines, store, state)
            self._known = known
        return None if known[2] is None else (known[1], known[2])

    def _read(self, state: str) -> Scale | None:
        with suppress(CollectionError, OSError):
            stored = read_record(
                Scale, self._folder / FILE, error=CollectionError, repair="delete it"
            )
            numbers = (stored.chance, stored.spread, stored.low, stored.high)
            usable = all(map(math.isfinite, numbers)) and stored.low < stored.high
            if stored.state == state and usable and stored.spread > 0 < stored.photos:
                return stored
        return None

    def _measure(self, lines: Lines, store: PhotoReader, state: str) -> Scale | None:
        start = time.monotonic()
        try:
            scale = measured_scale(lines, self._sample(), store.count(), state)
        except (CollectionError, ValueError):  # what is damaged is told by the search itself
            return None
        if scale and time.monotonic() - start > SLOW_SECONDS and self._folder.is_dir():
            with suppress(OSError):  # a folder that cannot be written has none
                atomic_write(self._folder / FILE, to_json(scale), sync=False)
        return scale
