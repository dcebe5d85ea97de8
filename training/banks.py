"""What training reads: the views of the pictures that step 1 kept, and the texts of step 2 with
their tokens.
"""

import json
import random
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from training.prepare import DRAWINGS, VIEWS
from training.texts import extract_minilm, load_tokenizer

CAPTIONED, CLASSED, UNCAPTIONED = "flickr8k-train", "imagenet-sample", "coco-unlabelled"


class PictureBank:
    """The captioned photos, the photos without captions, and the drawings, each in its views; read
    from disk as they are used.
    """

    def __init__(self, work: Path, kinds: tuple[str, ...]) -> None:
        self.kinds = kinds
        self.captioned = [self._open(work, CAPTIONED, view) for view in range(VIEWS[CAPTIONED])]
        self.drawings = [self._open(work, DRAWINGS, 0)]
        plain = [
            [self._open(work, name, view) for view in range(VIEWS[name])]
            for name in (CLASSED, UNCAPTIONED)
        ]
        self.classed, self.uncaptioned = plain

    @staticmethod
    def count(views: list[dict[str, np.ndarray]]) -> int:
        """Return how many pictures a set has."""
        return len(views[0]["logits"])

    def take(
        self, views: list[dict[str, np.ndarray]], rows: Tensor, rng: random.Random
    ) -> list[Tensor]:
        """Return the bank's kinds of these pictures of a set in one of its views, each picture
        mirrored by chance.
        """
        view = views[rng.randrange(len(views))]
        parts = [torch.from_numpy(view[kind][rows.numpy()]).float() for kind in self.kinds]
        mirrored = torch.tensor([rng.random() < 0.5 for _ in range(len(rows))])
        parts[0][mirrored] = parts[0][mirrored].flip(-1)
        return parts

    def _open(self, work: Path, name: str, view: int) -> dict[str, np.ndarray]:
        return {
            kind: np.load(work / f"{name}.{view}.{kind}.npy", mmap_mode="r")
            for kind in {*self.kinds, "logits"}
        }


class TextBank:
    """The texts, their tokens, and what MiniLM makes of them untrained."""

    def __init__(self, work: Path, context: int) -> None:
        stored = np.load(work / "texts.npz")
        self.vectors = {
            name: torch.from_numpy(stored[name]) for name in stored.files if name != "covers"
        }
        self.covers = torch.from_numpy(stored["covers"]).float()
        self.drawings = json.loads((work / "drawings.json").read_text())
        tokenizer = load_tokenizer(extract_minilm(work), context)
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
