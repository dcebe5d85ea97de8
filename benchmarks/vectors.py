"""Vectors like those of real photos, for the benchmarks of indexes: as many as wanted from a few
thousand real ones.

python benchmarks/vectors.py [--photos DIR | --vectors PHOTOS.npy WORDS.npy] checks them: half of
the real vectors with as many made from them must give an index the recall of all real ones at
each nprobe, within .02, for photos and for words.

A made vector is a Gaussian around a real one drawn at random, with the covariance of its 24 nearest
neighbours. (Round clusters flatter an index: each of its lists holds one, and the first list has
every answer.) The real ones are those of an indexed folder, with ``--vectors`` those of two files
of rows, or, where neither is named, `mini`'s of crops of the sample photos of scikit-image and
scikit-learn; words are the queries of everyday_queries.tsv, or the second file. Queries are
photos and words that no vector was made from.
"""

import argparse
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import numpy as np

from vitsearch import Collection
from vitsearch.arrays import unit_rows

NEIGHBOURS, KEPT_OUT, BLOCK, SEED = 24, 400, 20_000, 0
CROPS, SIDE = 6_000, 160  # of the sample photos; the fewest pixels of a side
NPROBES, TRAININGS, TOLERANCE = (1, 2, 4, 8, 16, 32), 4, 0.02


class Neighbourhoods:
    """Gaussians around the rows of ``base``, each with the covariance of its nearest ones."""

    def __init__(self, base: np.ndarray) -> None:
        self.base = base
        starts = range(0, len(base), 1000)
        self.near = np.concatenate([_nearest(base, start) for start in starts])
        self.means = np.stack([base[near].mean(axis=0) for near in self.near])

    def made(self, count: int, random: np.random.Generator) -> np.ndarray:
        """Return ``(count, dim)`` float32 unit rows."""
        at = random.integers(0, len(self.base), count)
        weights = random.standard_normal((count, NEIGHBOURS), np.float32)
        weights /= np.float32(NEIGHBOURS**0.5)
        rows = self.base[at] - weights.sum(axis=1, keepdims=True) * self.means[at]
        for column in range(NEIGHBOURS):
            rows += weights[:, column, None] * self.base[self.near[at, column]]
        return unit_rows(rows)


class LikeReal:
    """``count`` unit rows made from real ones, and queries that are real and kept out; in the
    ``dim`` principal directions of the photos (0: all).
    """

    def __init__(self, count: int, photos: np.ndarray, words: np.ndarray, dim: int = 0) -> None:
        photos, words = narrowed(unit_rows(photos), unit_rows(words), dim)
        order = np.random.default_rng(SEED).permutation(len(photos))
        held_out = min(KEPT_OUT, len(photos) // 10)
        self.count, self.dim = count, photos.shape[1]
        self.base, self._photos = photos[order[held_out:]], photos[order[:held_out]]
        self._words = words[np.random.default_rng(SEED).permutation(len(words))]

    def rows(self) -> Iterator[np.ndarray]:
        """Yield float16 blocks, the same in every run."""
        random, near = np.random.default_rng(SEED + 1), Neighbourhoods(self.base)
        for start in range(0, self.count, BLOCK):
            yield near.made(min(BLOCK, self.count - start), random).astype(np.float16)

    def queries(self, count: int, *, words: bool, tuning: bool = False) -> np.ndarray:
        """Return at most ``count`` float32 unit rows; those for ``tuning`` are other ones."""
        rows = self._words if words else self._photos
        third = len(rows) // 3
        return rows[: min(count, third)] if tuning else rows[third:][:count]


def narrowed(photos: np.ndarray, words: np.ndarray, dim: int) -> tuple[np.ndarray, np.ndarray]:
    """Return both in the ``dim`` principal directions of the photos; all of them for 0."""
    if not 0 < dim < photos.shape[1]:
        return photos, words
    _, axes = np.linalg.eigh(photos.T @ photos)  # the largest last
    return unit_rows(photos @ axes[:, -dim:]), unit_rows(words @ axes[:, -dim:])


def _nearest(base: np.ndarray, start: int) -> np.ndarray:
    likeness = base[start : start + 1000] @ base.T
    likeness[np.arange(len(likeness)), start + np.arange(len(likeness))] = -2
    return np.argpartition(-likeness, NEIGHBOURS, axis=1)[:, :NEIGHBOURS]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options that say where the real vectors are."""
    parser.add_argument("--photos", type=Path, help="an indexed folder of thousands of photos")
    parser.add_argument(
        "--vectors", type=Path, nargs=2, help="real vectors: a .npy file of photos, one of words"
    )


def real_vectors(chosen: argparse.Namespace) -> tuple[np.ndarray, np.ndarray]:
    """Return the vectors of real photos and of words that the options name."""
    if chosen.vectors:
        photos, words = (np.load(file) for file in chosen.vectors)
        return unit_rows(photos), unit_rows(words)
    if chosen.photos:
        with Collection.open(chosen.photos) as collection:
            return collection.vectors()[1], collection.encoder.encode_texts(everyday_queries())
    return sample_photos()


def everyday_queries() -> list[str]:
    """Return what people type."""
    table = Path(__file__).with_name("everyday_queries.tsv").read_text(encoding="utf-8")
    return [line.split("\t")[0] for line in table.splitlines()[1:]]


@cache
def sample_photos() -> tuple[np.ndarray, np.ndarray]:
    """Return the vectors by `mini` of crops of the photos that two packages bring."""
    from PIL import Image
    from skimage import data
    from sklearn.datasets import load_sample_images

    from vitsearch import load_encoder
    from vitsearch.encoders.base import Encoder

    names = ("astronaut", "cat", "chelsea", "coffee", "rocket", "camera", "coins", "brick", "grass")
    arrays = [*load_sample_images().images, *(getattr(data, name)() for name in names)]
    pictures = [Image.fromarray(array).convert("RGB") for array in arrays]
    encoder, random, rows = load_encoder("mini"), np.random.default_rng(SEED), []
    assert isinstance(encoder, Encoder)
    for _ in range(0, CROPS, 60):
        crops = [_crop(pictures[random.integers(len(pictures))], random) for _ in range(60)]
        rows.append(encoder.encode_prepared([encoder.prepare(crop) for crop in crops]))
    return unit_rows(np.concatenate(rows)), encoder.encode_texts(everyday_queries())


def _crop(picture: "object", random: np.random.Generator) -> "object":
    width, height = picture.size  # type: ignore[attr-defined]
    side = random.integers(min(SIDE, width, height), min(width, height) + 1)
    left, top = random.integers(0, width - side + 1), random.integers(0, height - side + 1)
    return picture.crop((left, top, left + side, top + side))  # type: ignore[attr-defined]


def recalls(rows: np.ndarray, queries: np.ndarray) -> np.ndarray:
    """Return the recall@10 at each nprobe, the mean of several trainings."""
    import faiss

    exact = faiss.IndexFlatIP(rows.shape[1])
    exact.add(rows)
    truth, results = exact.search(queries, 10)[1], []
    lists = round(2 * len(rows) ** 0.5) // 2
    for seed in range(TRAININGS):
        index = faiss.index_factory(rows.shape[1], f"IVF{lists},Flat", faiss.METRIC_INNER_PRODUCT)
        index.cp.seed = seed + 1
        index.train(rows)
        index.add(rows)
        for index.nprobe in NPROBES:
            answers = index.search(queries, 10)[1]
            shares = [len({*a} & {*b}) / 10 for a, b in zip(truth, answers, strict=True)]
            results.append(np.mean(shares))
    return np.reshape(results, (TRAININGS, -1)).mean(axis=0)


def check(photos: np.ndarray, words: np.ndarray) -> float:
    """Print the recalls of real and of made vectors, and return the largest difference."""
    every = LikeReal(0, photos, words)
    half = len(every.base) // 2
    made = Neighbourhoods(every.base[:half]).made(half, np.random.default_rng(SEED))
    both, worst = np.concatenate([every.base[:half], made]), 0.0
    print("| queries | vectors | " + " | ".join(f"nprobe {number}" for number in NPROBES) + " |")
    print("|---|---|" + "---|" * len(NPROBES))
    for kind in (False, True):
        queries = every.queries(600, words=kind)
        real, mixed = recalls(every.base[: 2 * half], queries), recalls(both, queries)
        worst = max(worst, float(np.abs(real - mixed).max()))
        for name, row in (("all real", real), ("half of them made", mixed)):
            shown = " | ".join(f"{value:.3f}" for value in row)
            print(f"| {'words' if kind else 'photos'} | {name} | {shown} |", flush=True)
    return worst


def main() -> None:
    """Check the made vectors."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add_arguments(parser)
    worst = check(*real_vectors(parser.parse_args()))
    print(f"largest difference {worst:.3f}, {TOLERANCE} allowed")
    if worst > TOLERANCE:
        raise SystemExit(1)


if __name__ == "__main__":
    main()
