"""What training reads: the views of the pictures that step 1 kept, and the texts of step 2 with
their tokens.
"""

import json
import random
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from training.ngrams import FORMS
from training.sets import CAPTIONED, DRAWINGS, TURNED, VIEWS
from training.texts import LABEL_TEMPLATES, load_tokenizer

Kinds = dict[str, list[np.ndarray]]


class PictureBank:
    """The captioned photos, those of classes, the photos without captions, and the drawings, each
    in its views; read from disk as they are used.

    The last view of a captioned photo is a changed copy (`training.prepare.change`).
    """

    def __init__(self, work: Path, kinds: tuple[str, ...]) -> None:
        self.kinds = kinds
        self.captioned = [self._open(work, CAPTIONED, view) for view in range(VIEWS[CAPTIONED[0]])]
        self.turned = [self._open(work, CAPTIONED, TURNED)]
        self.drawings = [self._open(work, (DRAWINGS,), 0)]
        self.labelled, self.classed, self.uncaptioned = (
            [self._open(work, (name,), view) for view in range(VIEWS[name])]
            for name in ("classes-train", "imagenet-sample", "coco-unlabelled")
        )

    @staticmethod
    def count(views: list[Kinds]) -> int:
        """Return how many pictures a set has."""
        return sum(map(len, views[0]["logits"]))

    def take(self, views: list[Kinds], rows: Tensor, rng: random.Random) -> list[Tensor]:
        """Return the bank's kinds of these pictures of a set in one of its views, each picture
        mirrored by chance.
        """
        view = views[rng.randrange(len(views))]
        parts = [gather(view[kind], rows) for kind in self.kinds]
        mirrored = torch.tensor([rng.random() < 0.5 for _ in range(len(rows))])
        parts[0][mirrored] = parts[0][mirrored].flip(-1)
        return parts

    def _open(self, work: Path, names: tuple[str, ...], view: int | str) -> Kinds:
        return {
            kind: [np.load(work / f"{name}.{view}.{kind}.npy", mmap_mode="r") for name in names]
            for kind in {*self.kinds, "logits"}
        }


def gather(parts: list[np.ndarray], rows: Tensor) -> Tensor:
    """Return rows in float32 of arrays that stand one after the other."""
    result = torch.empty(len(rows), *parts[0].shape[1:])
    start = 0
    for part in parts:
        here = (rows >= start) & (rows < start + len(part))
        result[here] = torch.from_numpy(part[(rows[here] - start).numpy()]).float()
        start += len(part)
    return result


class Turned(NamedTuple):
    """Pictures in other hues: their photos' places in the batch, their own places in the bank, the
    places of their captions among those turned, and of the captions as they were.
    """

    rows: Tensor
    pictures: Tensor
    captions: Tensor
    before: Tensor


def group_turned(pairs: np.ndarray, starts: np.ndarray) -> dict[int, list[tuple[int, int, int]]]:
    """Return for each photo its pictures in other hues with a caption each: the last three of
    `Turned`.
    """
    groups: dict[int, list[tuple[int, int, int]]] = {}
    photos = starts.searchsorted(pairs[:, 1], side="right") - 1
    for caption, (photo, (picture, before)) in enumerate(
        zip(photos.tolist(), pairs.tolist(), strict=True)
    ):
        groups.setdefault(photo, []).append((picture, caption, before))
    return groups


class TextBank:
    """The texts, their tokens, and what MiniLM makes of them untrained."""

    def __init__(self, work: Path, context: int) -> None:
        stored = np.load(work / "texts.npz")
        self.vectors = {
            name: torch.from_numpy(stored[name])
            for name in stored.files
            if name not in ("covers", "starts", "swapped_of", "labels_of", "turned_pairs")
        }
        self.covers = torch.from_numpy(stored["covers"]).float()
        # captions of photo k are those from starts[k] to before starts[k + 1]
        self.starts = torch.from_numpy(stored["starts"])
        self.swapped_of = torch.from_numpy(stored["swapped_of"])
        self.labels_of = torch.from_numpy(stored["labels_of"])
        self.turned = group_turned(stored["turned_pairs"], stored["starts"])
        self.ngrams, self.turned_ngrams = (
            [{int(place): count for place, count in each.items()} for each in kind]
            for kind in json.loads((work / "ngrams.json").read_text())
        )
        self.drawings = json.loads((work / "drawings.json").read_text())
        tokenizer = load_tokenizer(work, context)
        texts = json.loads((work / "texts.json").read_text())
        self.tokens = {
            name: [encoding.ids for encoding in tokenizer.encode_batch(lines)]
            for name, lines in texts.items()
        }

    def drawing_phrase(self, drawing: int, rng: random.Random) -> int:
        """Return the place of one phrase of a drawing: its title, a keyword, or now and then its
        category.
        """
        has, chance = self.drawings[drawing], rng.random()
        if has["title"] and (chance < 0.5 or not has["keywords"]):
            return int(has["title"][0])
        return int(
            rng.choice(has["keywords"]) if has["keywords"] and chance < 0.95 else has["category"][0]
        )

    def captions_of(self, photos: Tensor, count: int) -> Tensor:
        """Return the places of ``count`` captions of each photo, ``(n, count)``, drawn by chance; a
        photo of fewer has some of them twice.
        """
        starts, ends = self.starts[photos], self.starts[photos + 1]
        most = int((ends - starts).max())
        order = torch.rand(len(photos), most)
        order[torch.arange(most) >= (ends - starts)[:, None]] = 2.0
        chosen = order.argsort(dim=1)[:, :count]
        return starts[:, None] + chosen % (ends - starts)[:, None]

    def turn(self, photos: Tensor, count: int, rng: random.Random) -> Turned:
        """Return, for the first ``count`` photos that have one, a picture of it in other hues and a
        caption of this.
        """
        chosen = [
            (place, *rng.choice(self.turned[photo]))
            for place, photo in enumerate(photos.tolist())
            if photo in self.turned
        ][:count]
        return Turned(*torch.tensor(chosen, dtype=torch.int64).reshape(-1, 4).unbind(dim=1))

    def ask(
        self, photos: Tensor, turned: Tensor, count: int, rng: random.Random
    ) -> tuple[Tensor, Tensor]:
        """Return the places of ``count`` n-grams that captions of these photos, and of those in
        other hues, say, and how many captions of each picture say them: ``(count, pictures)``.
        """
        pictures = [self.ngrams[place] for place in photos.tolist()]
        pictures += [self.turned_ngrams[place] for place in turned.tolist()]
        drawn = [rng.choice(list(each)) for each in rng.choices([*filter(None, pictures)], k=count)]
        said = torch.tensor([[float(each.get(ngram, 0)) for each in pictures] for ngram in drawn])
        return torch.tensor(drawn) * len(FORMS) + torch.randint(len(FORMS), (count,)), said

    def labels(self, photos: Tensor) -> Tensor:
        """Return the places of a phrase for the class of each labelled photo."""
        phrasing = torch.randint(len(LABEL_TEMPLATES), (len(photos),))
        return len(LABEL_TEMPLATES) * self.labels_of[photos] + phrasing
