"""What training reads: the views of the pictures that step 1 kept, and the texts of step 2 with
their tokens.
"""

import json
import random
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from training.sets import CAPTIONED, DRAWINGS, VIEWS
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

    def _open(self, work: Path, names: tuple[str, ...], view: int) -> Kinds:
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


class TextBank:
    """The texts, their tokens, and what MiniLM makes of them untrained."""

    def __init__(self, work: Path, context: int) -> None:
        stored = np.load(work / "texts.npz")
        self.vectors = {
            name: torch.from_numpy(stored[name])
            for name in stored.files
            if name not in ("covers", "starts", "swapped_of", "labels_of")
        }
        self.covers = torch.from_numpy(stored["covers"]).float()
        # captions of photo k are those from starts[k] to before starts[k + 1]
        self.starts = torch.from_numpy(stored["starts"])
        self.swapped_of = torch.from_numpy(stored["swapped_of"])
        self.labels_of = torch.from_numpy(stored["labels_of"])
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

    def labels(self, photos: Tensor) -> Tensor:
        """Return the places of a phrase for the class of each labelled photo."""
        phrasing = torch.randint(len(LABEL_TEMPLATES), (len(photos),))
        return len(LABEL_TEMPLATES) * self.labels_of[photos] + phrasing
