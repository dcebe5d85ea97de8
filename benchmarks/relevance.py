"""Measure what fits and what does not: words with a minus, labels that fit no photo, and words for
things that no photo shows.

    python benchmarks/relevance.py --data DIR [--encoder mini]

DIR holds ``flickr8k-dev.tar`` and ``captions-train.tar`` (photos and ``captions.tsv``),
``imagenette-dev.tar`` and ``classes-train.tar`` (one folder a class). ``everyday_queries.tsv``
beside this file was written before any score was looked at: words, a regular expression of captions
of photos that show them ("-": no caption says it surely), and a broader one; where no caption of
any photo matches that one, nothing shows them.
"""

import argparse
import random
import re
import string
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from evaluate import encode_photos, read_captions
from numpy.typing import NDArray

from vitsearch.collection.query import QueryEncoder, QueryMeaning, Term
from vitsearch.collection.relevance import Lines, Scale, measured_scale
from vitsearch.collection.search import UNLIKE, find_relevant
from vitsearch.encoders import Encoder, load_encoder
from vitsearch.labels import NOTHING, zero_shot_classifier
from vitsearch.options import SearchOptions
from vitsearch.types import SearchResult

QUERIES = Path(__file__).with_name("everyday_queries.tsv")
DRAWS = 10  # halves of the labels
MIN_RELEVANCE = SearchOptions(1).min_relevance
# classes of classes-train.tar that do not overlap as "dress" and "black dress" do
DISTINCT = (
    "bed bicycle bridge car cat cow dandelion dog forest guitar horse ice_cream lightning "
    "motorcycle mountains panda piano pizza pool_table receipt refrigerator sheep skyscrapers "
    "snake sunflower sunset swimming tennis violin waterfall"
)
PAIRS = (
    "dog - field of grass; dog - snow; dog - dog in the water; dog - tennis ball; dog - beach; "
    "child - swimming pool; child - beach; child - playground; boy - soccer; boy - swing; "
    "little girl - pink dress; little girl - swing; baby - bathtub; bicycle - mountain biker; "
    "bicycle - street; beach - people; beach - dog; beach - child; crowd of people - street; "
    "people - snow; old man - hat; old man - bench; man jumping - skateboarder; "
    "man jumping - bicycle; skateboarder - stairs; street - bicycle; street - crowd of people; "
    "building - crowd of people; horse - rodeo; mountain - snow; snow - dog; snow - skier; "
    "snow - sledding; rock climbing - mountain; boat - kayak; lake - dog; lake - boat; "
    "river - kayak; ocean waves - surfer; ocean waves - dog; football player - soccer; "
    "car - race car; car - street; sunset - beach; hat - sunglasses; sunglasses - hat; "
    "red shirt - child; fountain - child; bench - old man; concert - guitar; flowers - child; "
    "forest - bicycle; tennis ball - dog; two dogs playing - dog in snow; "
    "black dog - dog in the water; brown dog - white dog; white dog - black dog; "
    "person with a backpack - snow"
)

Rows = NDArray[np.float32]
Flags = NDArray[np.bool_]


@dataclass(frozen=True)
class Captioned:
    """Photos as ``(n, dim)`` unit rows, and their captions in small letters."""

    rows: Rows
    captions: list[list[str]]

    def matches(self, pattern: str, least: int) -> Flags:
        """Return which photos have at least so many captions that match, or all of fewer."""
        shape = re.compile(rf"\b({pattern})\b")
        return np.array(
            [
                sum(bool(shape.search(line)) for line in lines) >= min(least, len(lines) or 1)
                for lines in self.captions
            ]
        )


def read_captioned(encoder: Encoder, archive: Path, prefix: str = "") -> Captioned:
    """Return the photos of a tar file whose names begin so, with their captions."""
    names, rows = encode_photos(encoder, archive)
    places = [place for place, name in enumerate(names) if Path(name).name.startswith(prefix)]
    names, rows = [names[place] for place in places], rows[places]
    by_name = defaultdict(list)
    for name, caption in read_captions(archive):
        by_name[name].append(caption.lower())
    return Captioned(rows, [by_name[Path(name).name] for name in names])


def read_queries() -> dict[str, tuple[str, str]]:
    """Return the words with their two expressions."""
    lines = QUERIES.read_text(encoding="utf-8").splitlines()[1:]
    return {words: (shown, named) for words, shown, named in (line.split("\t") for line in lines)}


def negatives(encoder: Encoder, photos: Captioned) -> None:
    """Print the precision at 10 of words with a minus: without it, subtracted, and as searched."""
    queries = read_queries()
    sums: list[list[float]] = []
    for pair in PAIRS.split("; "):
        words, minus = pair.split(" - ")
        named = queries[minus][1] if queries[minus][1] != "-" else queries[minus][0]
        right = photos.matches(queries[words][0], 1) & ~photos.matches(named, 1)
        if right.sum() < 10:
            continue
        vectors = encoder.encode_texts([words, minus])
        plain = photos.rows @ vectors[0]
        subtracted = photos.rows @ (vectors[0] - vectors[1])
        ways = (plain, subtracted, lowered(photos, vectors))
        sums.append([float(right[np.argsort(-scores)[:10]].mean()) for scores in ways])
    means = np.mean(sums, axis=0)
    print(
        f"minus, {len(sums)} queries, precision at 10: left out {means[0]:.3f}, subtracted "
        f"{means[1]:.3f}, as searched {means[2]:.3f}"
    )


def lowered(photos: Captioned, vectors: Rows) -> NDArray[np.float64]:
    """Return the scores of "words - minus" as `vitsearch search` computes them."""
    reader = QueryEncoder(
        Path(),
        None,
        None,
        dim=vectors.shape[1],
        decoding=None,  # type: ignore[arg-type]
    )
    encoded = dict(zip(("words", "minus"), vectors, strict=True))
    meaning = reader.read([Term("words"), Term("minus", -1)], {**encoded})
    (negative,) = meaning.negatives
    shown = np.maximum(0, photos.rows @ negative.vector - UNLIKE)
    return photos.rows @ meaning.vector - negative.weight * shown


def labels(encoder: Encoder, archive: Path, classes: list[str] | None) -> None:
    """Print how many foreign photos get "none of these" and how many right labels are lost, half of
    the labels given, and how good several labels a photo are.
    """
    names, rows = encode_photos(encoder, archive)
    truth = np.array([Path(name).parent.name for name in names])
    if classes:
        chosen = np.isin(truth, classes)
        rows, truth = rows[chosen], truth[chosen]
    listed = sorted(set(truth))
    plain = np.array(zero_shot_classifier(encoder, listed).predict(rows))
    print(
        f"{archive.name}: {len(rows)} photos, {len(listed)} classes, accuracy of plain labels "
        f"{np.mean(plain == truth):.3f}"
    )
    for title, photos in (("any label that beats the mean", None), ("measured", rows)):
        caught, lost = [], []
        for draw in range(DRAWS):
            half = sorted(np.random.default_rng(draw).permutation(listed)[: len(listed) // 2])
            best = np.array(zero_shot_classifier(encoder, half).predict(rows))
            made = zero_shot_classifier(encoder, half, background=True, photos=photos)
            none = np.array(made.predict(rows)) == NOTHING
            caught.append(none[~np.isin(truth, half)].mean())
            lost.append(none[best == truth].mean())
        several = zero_shot_classifier(encoder, listed, multi=True, photos=photos)
        given = several.predict_proba(rows) >= 0.5
        right = truth[:, None] == np.array(several.classes)
        f1 = 2 * (given & right).sum() / (given.sum() + right.sum())
        print(
            f"  {title}: none of these {np.mean(caught):.3f} of foreign photos, "
            f"{np.mean(lost):.3f} of right labels; several labels F1 {f1:.3f}, "
            f"{given.sum(axis=1).mean():.2f} a photo"
        )


def gate(encoder: Encoder, name: str, photos: Captioned) -> None:
    """Print how many words for what is there, for what is not, and lines without meaning are
    answered "nothing here fits", and how well the best relevance tells the first from the second.
    """
    present, absent = [], []
    for words, (shown, named) in read_queries().items():
        if named == "-":
            continue
        if not photos.matches(named, 1).any():
            absent.append(words)
        elif shown != "-" and photos.matches(shown, 2).any():
            present.append(words)
    lines = Lines.of(encoder)
    shown_by = {words: photos.matches(read_queries()[words][0], 2) for words in present}
    for number in (4, 12, 50, 200, len(photos.rows)):
        there, away, nonsense = [], [], []
        for draw in range(1 if number == len(photos.rows) else DRAWS):
            chosen = np.random.default_rng(draw).permutation(len(photos.rows))[:number]
            known = _known(lines, photos.rows[np.sort(chosen)])
            still = [words for words in present if shown_by[words][chosen].any()]
            there += best_relevance(encoder, known, photos.rows[chosen], still)
            away += best_relevance(encoder, known, photos.rows[chosen], absent)
            nonsense += best_relevance(encoder, known, photos.rows[chosen], other_nonsense())
        area = np.mean([(each > np.array(away)).mean() for each in there])
        told = [np.mean(np.array(each) < MIN_RELEVANCE) for each in (there, away, nonsense)]
        print(
            f"{name}, {number} photos: {len(there)} words for what is there, {len(away)} for what "
            f"is not: AUROC {area:.3f}; nothing fits: {told[0]:.3f} of what is there, "
            f"{told[1]:.3f} of what is not, {told[2]:.3f} of {len(nonsense)} lines without meaning"
        )


def _known(lines: Lines, rows: Rows) -> tuple[Lines, Scale]:
    scale = measured_scale(lines, rows[:: max(1, len(rows) // 1000)], len(rows))
    assert scale is not None
    return lines, scale


def best_relevance(
    encoder: Encoder, known: tuple[Lines, Scale], rows: Rows, texts: list[str]
) -> list[float]:
    """Return the relevance of the best photo for each text, as `vitsearch search` has it."""

    def find(queries: Sequence[QueryMeaning], options: SearchOptions) -> list[list[SearchResult]]:
        best = [float((rows @ query.vector).max()) for query in queries]
        return [
            [SearchResult("", score, 0)] if score >= query.least else []
            for query, score in zip(queries, best, strict=True)
        ]

    vectors = encoder.encode_texts(texts) if texts else np.empty((0, encoder.dim), np.float32)
    queries = [
        QueryMeaning(vector, texts=(text,)) for vector, text in zip(vectors, texts, strict=True)
    ]
    strict = SearchOptions(1, min_relevance=MIN_RELEVANCE)
    found = find_relevant(queries, strict, known, find, encoder.encode_texts)
    every = find_relevant(queries, replace(strict, min_relevance=0), known, find, lambda _: rows)
    return [
        float((fits.hits or others.hits)[0].relevance or 0)
        for fits, others in zip(found, every, strict=True)
    ]


def other_nonsense() -> list[str]:
    """Return 200 lines of letters, runs of keys, made-up words and digits, which the library does
    not measure with.
    """
    rng = random.Random(5)
    rows = ("qwertyuiop", "asdfghjkl", "zxcvbnm")
    starts = [*"bcdfghjklmnprstvwz", "bl", "fl", "gr", "pr", "sk", "tr"]

    def letters() -> str:
        return "".join(rng.choice(string.ascii_lowercase) for _ in range(rng.randint(3, 9)))

    def keys() -> str:
        row = rng.choice(rows)
        start = rng.randrange(len(row) - 3)
        return row[start : start + rng.randint(3, 6)]

    def word() -> str:
        ends = ("", "n", "rk", "mp", "x", "lt")
        return "".join(
            rng.choice(starts) + rng.choice("aeiou") + rng.choice(ends)
            for _ in range(rng.randint(2, 3))
        )

    def digits() -> str:
        return str(rng.randrange(10 ** rng.randint(4, 10)))

    kinds = (letters, keys, word, digits)
    return [
        " ".join(kinds[number % 4]() for _ in range(rng.randint(1, 3))) for number in range(200)
    ]


def main() -> None:
    """Print the figures."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--data", type=Path, required=True, help="folder with the four tar files")
    parser.add_argument("--encoder", default="mini")
    chosen = parser.parse_args()
    encoder = load_encoder(chosen.encoder)
    assert isinstance(encoder, Encoder)
    labels(encoder, chosen.data / "imagenette-dev.tar", None)
    classes = [name.replace("_", " ") for name in DISTINCT.split()]
    labels(encoder, chosen.data / "classes-train.tar", classes)
    flickr = read_captioned(encoder, chosen.data / "flickr8k-dev.tar")
    negatives(encoder, flickr)
    gate(encoder, "Flickr8k dev", flickr)
    gate(encoder, "COCO", read_captioned(encoder, chosen.data / "captions-train.tar", "coco_"))


if __name__ == "__main__":
    main()
