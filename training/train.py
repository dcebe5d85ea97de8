"""Step 3: train the transformer over the stem's map and bring the text tower to it.

Stage one keeps MiniLM as it is (its vectors are cached) and trains all the rest; stage two also changes MiniLM, at a low rate.
The loss has four terms:

    captions   photos and their captions find each other in the batch (InfoNCE, both ways)
    classes    class prompts rank for a photo as the stem's own classifier ranks them (KL), so that what ImageNet taught is kept
    words      a word of WordNet ranks the photos of the batch as the untrained path does (KL): class probabilities x MiniLM's class names
    anchor     stage two only: sentence vectors of such words stay near MiniLM's own
"""

import json
import math
import random
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from training.texts import extract_minilm, load_minilm, load_tokenizer, pad
from vitsearch.encoders.mini.network import MiniConfig, MiniNetwork, unit

CAPTIONED, UNCAPTIONED = "flickr8k-train", ("imagenet-sample", "coco-unlabelled")


@dataclass(frozen=True, slots=True)
class Settings:
    """Every number of the recipe."""

    seed: int = 0
    dropout: float = 0.2
    batch: int = 256
    extra: int = 96
    kept_tokens: int = 48
    epochs: int = 10
    text_epochs: int = 4
    text_peak: float = 0.3
    rate: float = 1e-3
    text_rate: float = 3e-5
    class_rate: float = 1e-4
    decay: float = 0.1
    average: float = 0.99
    class_weight: float = 0.5
    word_weight: float = 1.0
    anchor_weight: float = 20.0
    words: int = 192
    prompts: int = 96
    teacher_scale: float = 20.0
    caption_noise: float = 0.02


class PhotoBank:
    """What the stem saw in every training photo, in memory."""

    def __init__(self, work: Path) -> None:
        sets = [CAPTIONED, *UNCAPTIONED]
        parts = {kind: [np.load(work / f"{name}.{kind}.npy") for name in sets] for kind in ("map", "pooled", "logits")}
        self.grid, self.pooled, self.logits = (torch.from_numpy(np.concatenate(arrays)) for arrays in parts.values())
        self.captioned = len(np.load(work / f"{CAPTIONED}.logits.npy", mmap_mode="r"))
        self.count = len(self.logits)

    def take(self, rows: Tensor, rng: random.Random) -> list[Tensor]:
        """Return maps ``(n, 352, 9, 9)``, pooled features and logits of the photos, each mirrored by chance."""
        grid, pooled, logits = (part[rows].float() for part in (self.grid, self.pooled, self.logits))
        grid = grid.transpose(1, 2).reshape(len(rows), grid.shape[2], 9, 9)
        mirrored = torch.tensor([rng.random() < 0.5 for _ in range(len(rows))])
        grid[mirrored] = grid[mirrored].flip(-1)
        return [grid, pooled, logits]


class TextBank:
    """The texts, their tokens and what MiniLM makes of them untrained."""

    def __init__(self, work: Path, context: int) -> None:
        stored = np.load(work / "texts.npz")
        self.captions, self.words = torch.from_numpy(stored["captions"]), torch.from_numpy(stored["words"])
        self.prompts, self.classes = torch.from_numpy(stored["prompts"]), torch.from_numpy(stored["classes"])
        texts = json.loads((work / "texts.json").read_text())
        tokenizer = load_tokenizer(extract_minilm(work), context)
        self.tokens = {name: [e.ids for e in tokenizer.encode_batch(lines)] for name, lines in texts.items()}


class Trainer:
    """One training run: the network, its moving average and the optimiser."""

    def __init__(self, work: Path, settings: Settings) -> None:
        self.seed(settings.seed)
        self.settings = settings
        self.config = MiniConfig(dropout=settings.dropout)
        self.photos, self.texts = PhotoBank(work), TextBank(work, self.config.context)
        self.network = MiniNetwork(self.config)
        self.network.text = load_minilm(extract_minilm(work), self.config)
        mean = self.texts.classes.mean(dim=0)
        self.network.class_vectors.data.copy_(self.texts.classes - mean)
        self.network.sentence_mean.data.copy_(mean)
        self.teacher_classes = self.network.class_vectors.detach().clone()
        self.teacher_mean = mean
        self.trained = {name: p for name, p in self.network.named_parameters() if p.requires_grad and not name.startswith("stem.")}
        self.averaged = {name: p.detach().clone() for name, p in self.trained.items()}
        self.updates = 0

    def optimiser(self, with_text: bool) -> torch.optim.AdamW:
        """Return AdamW with one group a learning rate; biases and norms do not decay."""
        groups = []
        for name, parameter in self.trained.items():
            if name.startswith("text.") and not with_text:
                continue
            rates = {"text": self.settings.text_rate, "class_vectors": self.settings.class_rate}
            rate = rates.get(name.partition(".")[0], self.settings.rate)
            decays = parameter.ndim > 1 and not name.startswith(("text.", "class_vectors"))
            groups.append({"params": [parameter], "lr": rate, "top": rate, "weight_decay": self.settings.decay if decays else 0.0})
        return torch.optim.AdamW(groups, betas=(0.9, 0.98))

    def run(self, epochs: int, *, with_text: bool, peak: float = 1.0) -> None:
        """Train for ``epochs`` rounds of the captioned photos, warming up and then cooling down as a cosine."""
        self.updates = 0
        optimiser = self.optimiser(with_text)
        steps = epochs * (self.photos.captioned // self.settings.batch)
        step = 0
        self.network.train()
        for epoch in range(epochs):
            began, totals = time.time(), torch.zeros(4)
            order = torch.randperm(self.photos.captioned)
            for rows in order.split(self.settings.batch)[: self.photos.captioned // self.settings.batch]:
                step += 1
                factor = peak * min(step / 40, 0.5 + 0.5 * math.cos(math.pi * step / steps) + 1e-3)
                for group in optimiser.param_groups:
                    group["lr"] = group["top"] * factor
                terms = self.losses(rows, with_text)
                optimiser.zero_grad(set_to_none=True)
                sum(terms).backward()  # type: ignore[union-attr]
                torch.nn.utils.clip_grad_norm_([p for g in optimiser.param_groups for p in g["params"]], 1.0)
                optimiser.step()
                self.follow()
                totals += torch.tensor([float(t) for t in terms])
            means = " ".join(f"{float(t):.3f}" for t in totals / (steps / epochs))
            scale, stage = self.network.log_scale.exp().item(), "text " if with_text else ""
            print(f"{stage}epoch {epoch + 1}: {means}  scale {scale:.1f}  {time.time() - began:.0f} s", flush=True)
        self.network.eval()

    def follow(self) -> None:
        """Move the average towards the weights; it starts faster than it goes on."""
        self.updates += 1
        pull = 1 - min(self.settings.average, self.updates / (10 + self.updates))
        with torch.no_grad():
            for name, parameter in self.trained.items():
                self.averaged[name].lerp_(parameter, pull)

    def seed(self, seed: int) -> None:
        """Start all random numbers anew."""
        torch.manual_seed(seed)
        self.rng = random.Random(seed)

    def state(self) -> dict[str, Tensor]:
        """Return every weight but the stem's, which never change."""
        return {name: p.detach() for name, p in self.network.state_dict().items() if not name.startswith("stem.")}

    def restore(self, state: dict[str, Tensor]) -> None:
        """Go on from a finished stage."""
        self.network.load_state_dict(state, strict=False)
        self.averaged = {name: p.detach().clone() for name, p in self.trained.items()}

    def use_average(self) -> None:
        """Go on with the averaged weights."""
        with torch.no_grad():
            for name, parameter in self.trained.items():
                parameter.copy_(self.averaged[name])

    def losses(self, rows: Tensor, with_text: bool) -> list[Tensor]:
        """Return the four terms for these captioned photos and some uncaptioned ones."""
        s, net = self.settings, self.network
        extra = torch.randint(self.photos.captioned, self.photos.count, (s.extra,))
        grid, pooled, logits = self.photos.take(torch.cat([rows, extra]), self.rng)
        with torch.autocast("cpu", torch.bfloat16):
            images = net.join_image(self.see(grid), pooled, logits)
        words = torch.randint(len(self.texts.words), (s.words,))
        prompts = self.choose_prompts(logits, with_text)
        sentences, anchor = self.sentences(rows, words, prompts, with_text)
        with torch.autocast("cpu", torch.bfloat16):
            texts = net.encode_sentences(sentences)
        captions, word_texts, prompt_texts = texts.split([len(rows), len(words), len(prompts[1])])
        scale = net.log_scale.exp().clamp(max=100)
        return [
            contrast(images[: len(rows)] @ captions.T * scale),
            s.class_weight * self.class_term(images @ prompt_texts.T * scale, logits[:, prompts[1]]),
            s.word_weight * self.word_term(images, word_texts, logits, self.texts.words[words]),
            s.anchor_weight * anchor,
        ]

    def see(self, grid: Tensor) -> Tensor:
        """Run the transformer on a random part of the cells: quicker, and it learns not to hang on one of them."""
        vit = self.network.vit
        x = vit.embed(grid)
        kept = torch.randperm(x.shape[1] - 1)[: self.settings.kept_tokens] + 1
        x = x[:, torch.cat([torch.zeros(1, dtype=torch.int64), kept])]
        for block in vit.blocks:
            x, _ = block(x)
        seen: Tensor = vit.head(vit.norm(x)[:, 0])
        return seen

    def choose_prompts(self, logits: Tensor, with_text: bool) -> tuple[int, Tensor]:
        """Return a template and the classes to rank: all of them, or few with the photos' own among them."""
        template = 0 if self.rng.random() < 0.4 else self.rng.randrange(len(self.texts.prompts))
        if not with_text:
            return template, torch.arange(logits.shape[1])
        own = logits.argmax(dim=1)[torch.randperm(len(logits))[: self.settings.prompts * 2 // 3]]
        other = torch.randint(logits.shape[1], (self.settings.prompts - len(own),))
        return template, torch.cat([own, other]).unique()

    def sentences(self, rows: Tensor, words: Tensor, prompts: tuple[int, Tensor], with_text: bool) -> tuple[Tensor, Tensor]:
        """Return the sentence vectors of captions, words and prompts, and how far the words moved from MiniLM's."""
        chosen = torch.randint(5, (len(rows),))
        template, classes = prompts
        if not with_text:
            captions = self.texts.captions[rows, chosen]
            captions = unit(captions + self.settings.caption_noise * torch.randn_like(captions))
            return torch.cat([captions, self.texts.words[words], self.texts.prompts[template, classes]]), torch.zeros(())
        tokens = self.texts.tokens
        lines = [tokens["captions"][5 * row + pick] for row, pick in zip(rows.tolist(), chosen.tolist(), strict=True)]
        short = [tokens["words"][i] for i in words.tolist()]
        short += [tokens["prompts"][template * self.texts.prompts.shape[1] + c] for c in classes.tolist()]
        with torch.autocast("cpu", torch.bfloat16):
            long_vectors, short_vectors = self.network.text(*pad(lines)), self.network.text(*pad(short))
        before = torch.cat([self.texts.words[words], self.texts.prompts[template, classes]])
        return torch.cat([long_vectors, short_vectors]), (1 - (short_vectors * before).sum(dim=1)).mean()

    def class_term(self, scores: Tensor, logits: Tensor) -> Tensor:
        """Return KL from the stem's own class probabilities."""
        return F.kl_div(scores.log_softmax(dim=1), logits.log_softmax(dim=1), log_target=True, reduction="batchmean")

    def word_term(self, images: Tensor, texts: Tensor, logits: Tensor, before: Tensor) -> Tensor:
        """Return KL, over the photos of the batch, from how the untrained path ranks them for each word."""
        scale = self.settings.teacher_scale
        known = unit((logits / self.config.class_temperature).softmax(dim=1) @ self.teacher_classes)
        wanted = unit(before - self.teacher_mean) @ known.T * scale
        got = texts @ images.T * scale * math.sqrt(2)
        return F.kl_div(got.log_softmax(dim=1), wanted.log_softmax(dim=1), log_target=True, reduction="batchmean")


def contrast(scores: Tensor) -> Tensor:
    """Return InfoNCE both ways for scores whose diagonal is right (CLIP, arXiv:2103.00020)."""
    target = torch.arange(len(scores))
    return (F.cross_entropy(scores, target) + F.cross_entropy(scores.T, target)) / 2


def train(work: Path, settings: Settings) -> MiniNetwork:
    """Run both stages and write ``stage1.pt`` and ``network.pt``; a run that was cut after stage one goes on from there."""
    trainer = Trainer(work, settings)
    checkpoint = work / "stage1.pt"
    if checkpoint.exists():
        trainer.restore(torch.load(checkpoint, weights_only=True))
    else:
        trainer.run(settings.epochs, with_text=False)
        trainer.use_average()
        torch.save(trainer.state(), checkpoint)
    trainer.seed(settings.seed + 1)
    trainer.run(settings.text_epochs, with_text=True, peak=settings.text_peak)
    trainer.use_average()
    torch.save(trainer.state(), work / "network.pt")
    return trainer.network
