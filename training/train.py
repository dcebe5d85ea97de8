"""Step 4: train the transformer over the stem's map and bring the text tower to it, in three
stages.

``head`` keeps the stem and MiniLM as they are (what they give is kept on disk) and trains all the
rest; ``whole`` goes on with the stem's last five blocks and the text tower unfrozen at low rates,
``last`` from a third of these.
The loss is a sum of terms:

    captions    photos and their captions find each other in the batch (InfoNCE, both ways),
                among captions with a colour, person, number or time exchanged for another
    turned      photos and copies of these in other hues find their captions, in which only the
                colours differ (InfoNCE)
    ngrams      what captions say, "red shirt" or "dog in water", ranks the photos of the batch by
                how many of their captions say it (KL)
    spanish     Spanish captions find their photo, Spanish texts lie where English ones do
    copies      a changed copy finds its photo in the batch (InfoNCE)
    classes     class prompts rank for a picture as the published stem's classifier
                ranks them (KL), so that what ImageNet taught is kept
    words       a word of WordNet ranks the pictures of the batch as the untrained
                path does (KL): class probabilities x class names
    hypernyms   a word above classes ("dog", "fruit") ranks the pictures by the
                probability of all classes below it (KL)
    things      drawings and their titles or keywords, photos of classes and phrases for these
                find each other (InfoNCE with targets softened by how alike two phrases are)
    stem        ``whole`` only: the stem's class logits stay those of the published one (KL)
    anchor      ``whole`` only: sentence vectors of words, prompts and phrases stay near
                MiniLM's
"""

import json
import math
import random
import time
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from training.banks import PictureBank, TextBank, Turned
from training.checkpoint import save
from training.losses import contrast, like, log_shares
from training.prepare import load_stem
from training.spanish import TOKENIZER, SpanishBank
from training.stages import STAGES, Stage, TrainingConfig
from training.texts import TEMPLATES, embed_rows, load_tokenizer
from vitsearch.encoders.mini.network import MiniConfig, MiniNetwork, unit

TERMS = (
    "captions",
    "turned",
    "ngrams",
    "spanish",
    "copies",
    "classes",
    "words",
    "hypernyms",
    "things",
    "stem",
    "anchor",
)


# short texts that are no captions' words
ANCHORED = frozenset({"words", "prompts", "hypernyms", "labels", "phrases"})


class Trainer:
    """One stage of training: the network, its moving average and the optimiser."""

    def __init__(self, work: Path, settings: TrainingConfig, stage: Stage) -> None:
        self.work, self.settings, self.stage = work, settings, stage
        self.config = mini_config(work, settings.dropout)
        self.pictures = PictureBank(
            work, ("middle", "logits") if stage.text_rate else ("map", "pooled", "logits")
        )
        self.texts = TextBank(work, self.config.context)
        self.spanish = SpanishBank(work, load_tokenizer(work, self.config.context))
        self.seed(0)
        self.network = start_network(work, self.config, self.texts)
        self.teacher_mean = self.texts.vectors["classes"].mean(dim=0)
        self.teacher_classes = self.texts.vectors["classes"] - self.teacher_mean
        self.network.stem.to(memory_format=torch.channels_last)
        self.trained = self.choose_trained()
        self.averaged = {name: weight.detach().clone() for name, weight in self.trained.items()}
        self.updates = 0
        self.optimiser = self.make_optimiser()

    def seed(self, round_number: int) -> None:
        """Start all random numbers anew, so that a resumed round draws what an uninterrupted one
        would.
        """
        number = 1000 * self.settings.seed + 100 * STAGES.index(self.stage) + round_number
        torch.manual_seed(number)
        self.rng = random.Random(number)

    def choose_trained(self) -> dict[str, Tensor]:
        """Return the weights of this stage by name."""
        tail = (
            {f"stem.{name}" for name in self.network.stem.tail_parameters()}
            if self.stage.tail_rate
            else set()
        )
        frozen = ("stem.",) if self.stage.text_rate else ("stem.", "text.")
        named = {
            name: weight
            for name, weight in self.network.named_parameters()
            if name in tail or not name.startswith(frozen)
        }
        trained = {name: weight for name, weight in named.items() if name != "sentence_mean"}
        for name, weight in self.network.named_parameters():
            weight.requires_grad_(name in trained)
        return trained

    def make_optimiser(self) -> torch.optim.AdamW:
        """Return AdamW with a group a weight; only the matrices of the head decay."""
        rates = {
            "stem": self.stage.tail_rate,
            "text": self.stage.text_rate,
            "class_vectors": self.stage.class_rate,
        }
        groups = []
        for name, weight in self.trained.items():
            part = name.partition(".")[0]
            decay = self.settings.decay if weight.ndim > 1 and part not in rates else 0.0
            rate = rates.get(part, self.stage.rate)
            groups.append({"params": [weight], "lr": rate, "top": rate, "weight_decay": decay})
        return torch.optim.AdamW(groups, betas=(0.9, 0.98))

    def run(self) -> None:
        """Train the rounds that are not done yet, warming up and then cooling down as a cosine;
        each round is saved.
        """
        steps = self.pictures.count(self.pictures.captioned) // self.settings.batch
        for number in range(self.load_rounds(), self.stage.rounds):
            self.seed(number + 1)
            began, totals = time.time(), torch.zeros(len(TERMS))
            self.network.train()
            order = torch.randperm(self.pictures.count(self.pictures.captioned))
            for k, rows in enumerate(order.split(self.settings.batch)[:steps]):
                self.set_rates(number * steps + k + 1, self.stage.rounds * steps)
                totals += self.step(rows)
            self.save_round(number + 1)
            means = "  ".join(
                f"{name} {float(total):.3f}"
                for name, total in zip(TERMS, totals / steps, strict=True)
                if total
            )
            print(
                (
                    f"{self.stage.name} {number + 1}/{self.stage.rounds}: {means}  "
                    f"{time.time() - began:.0f} s"
                ),
                flush=True,
            )

    def set_rates(self, step: int, steps: int) -> None:
        """Set every group's learning rate for this step."""
        factor = min(step / self.stage.warm_up, 0.5 + 0.5 * math.cos(math.pi * step / steps) + 1e-3)
        for group in self.optimiser.param_groups:
            group["lr"] = group["top"] * factor

    def step(self, rows: Tensor) -> Tensor:
        """Take one step on these captioned photos and return the weighted terms of the loss."""
        terms = [
            weight * term
            for weight, term in zip(self.settings.weights, self.losses(rows), strict=True)
        ]
        self.optimiser.zero_grad(set_to_none=True)
        torch.stack(terms).sum().backward()
        torch.nn.utils.clip_grad_norm_(list(self.trained.values()), 1.0)
        self.optimiser.step()
        self.updates += 1
        # the average follows the weights closely at first
        pull = 1 - min(self.stage.average, self.updates / (10 + self.updates))
        with torch.no_grad():
            for name, weight in self.trained.items():
                self.averaged[name].lerp_(weight, pull)
        return torch.stack(terms).detach()

    def losses(self, rows: Tensor) -> list[Tensor]:
        """Return the terms for these captioned photos, changed copies of some, some photos without
        captions, photos of classes and drawings.
        """
        bank, stage = self.pictures, self.stage
        drawn = torch.randint(bank.count(bank.drawings), (stage.drawings,))
        labelled = torch.randint(bank.count(bank.labelled), (stage.labelled,))
        turned = self.texts.turn(rows, stage.turned, self.rng)
        (images, logits, own_logits), hues, copies = self.see(rows, labelled, drawn, turned)
        chosen = self.choose_texts(rows, labelled, drawn, logits, turned)
        chosen["ngrams"], said = self.texts.ask(rows, turned.pictures, stage.ngrams, self.rng)
        texts, anchor = self.read(chosen)
        scale = self.network.log_scale.exp().clamp(max=100)
        captioned, things = images[: len(rows)], images[-stage.labelled - stage.drawings :]
        return [
            contrast(
                captioned @ texts["captions"].T * scale,
                stage.captions,
                captioned @ texts["swapped"].T * scale,
            ),
            contrast(
                torch.cat([captioned[turned.rows], hues])
                @ torch.cat([texts["captions"][turned.rows], texts["turned"]]).T
                * scale,
                1,
            ),
            like(
                texts["ngrams"] @ torch.cat([captioned, hues]).T * scale,
                log_shares(said),
            ),
            self.spanish_term(captioned, chosen["captions"], scale),
            F.cross_entropy(
                copies @ captioned.T * self.settings.copy_scale, torch.arange(len(copies))
            ),
            like(
                images @ texts["prompts"].T * scale,
                logits[:, chosen["prompts"] % 1000].log_softmax(dim=1),
            ),
            self.word_term(images, texts["words"], logits, chosen["words"]),
            self.hypernym_term(texts["hypernyms"] @ images.T * scale, logits, chosen["hypernyms"]),
            self.thing_term(
                things @ torch.cat([texts["labels"], texts["phrases"]]).T * scale, chosen
            ),
            like(own_logits, logits.log_softmax(dim=1))
            if self.stage.tail_rate
            else torch.zeros(()),
            anchor,
        ]

    def see(
        self, rows: Tensor, labelled: Tensor, drawn: Tensor, turned: Turned
    ) -> tuple[tuple[Tensor, Tensor, Tensor], Tensor, Tensor]:
        """Return the unit vectors of the pictures of a step, the published stem's logits and this
        stem's logits, in the order captioned, of ImageNet, without captions, labelled, drawn; the
        vectors of photos in other hues; and of changed copies of the first captioned ones.
        """
        bank, half = self.pictures, self.stage.extra // 4
        classed = torch.randint(bank.count(bank.classed), (half,))
        plain = torch.randint(bank.count(bank.uncaptioned), (self.stage.extra - half,))
        sets = (
            (bank.captioned, rows),
            (bank.classed, classed),
            (bank.uncaptioned, plain),
            (bank.labelled, labelled),
            (bank.drawings, drawn),
            (bank.turned, turned.pictures),
            (bank.captioned[-1:], rows[: self.stage.copies]),
        )
        parts = [
            torch.cat(part)
            for part in zip(
                *(bank.take(views, rows, self.rng) for views, rows in sets), strict=True
            )
        ]
        if self.stage.text_rate:  # channels last: a quarter less time for a step
            parts[:1] = self.network.stem.tail(
                parts[0].contiguous(memory_format=torch.channels_last)
            )
        grid, pooled, own_logits = parts[:3]
        images = self.network.join_image(self.attend(grid), pooled, own_logits)
        copied = len(images) - self.stage.copies
        end = copied - len(turned.pictures)
        return (
            (images[:end], parts[-1][:end], own_logits[:end]),
            images[end:copied],
            images[copied:],
        )

    def attend(self, grid: Tensor) -> Tensor:
        """Run the transformer on a random part of the cells: quicker, and it learns not to hang on
        one of them.
        """
        vit = self.network.vit
        x = vit.embed(grid)
        patches = torch.randperm(x.shape[1] - 1)[: self.settings.kept_tokens] + 1
        x = x[:, torch.cat([torch.zeros(1, dtype=torch.int64), patches])]
        for block in vit.blocks:
            x, _ = block(x)
        seen: Tensor = vit.head(vit.norm(x)[:, 0])
        return seen

    def choose_texts(
        self, rows: Tensor, labelled: Tensor, drawn: Tensor, logits: Tensor, turned: Turned
    ) -> dict[str, Tensor]:
        """Return the places of the texts of a step, by kind: captions caption by caption, the first
        of a photo that is seen in other hues the one of which the colours are exchanged; and
        prompts of one template.
        """
        stage, texts = self.stage, self.texts
        captions = texts.captions_of(rows, stage.captions).T.reshape(-1)
        captions[turned.rows] = turned.before
        swapped = texts.swapped_of[captions]
        template = 0 if self.rng.random() < 0.4 else self.rng.randrange(len(TEMPLATES))
        return {
            "captions": captions,
            "swapped": swapped[swapped >= 0][: stage.swapped],
            "turned": turned.captions,
            "words": torch.randint(len(texts.vectors["words"]), (stage.words,)),
            "prompts": 1000 * template + choose_classes(logits, stage.prompts),
            "hypernyms": torch.randint(len(texts.vectors["hypernyms"]), (stage.hypernyms,)),
            "labels": texts.labels(labelled),
            "phrases": torch.tensor(
                [texts.drawing_phrase(drawing, self.rng) for drawing in drawn.tolist()]
            ),
        }

    def read(self, chosen: dict[str, Tensor]) -> tuple[dict[str, Tensor], Tensor]:
        """Return the unit vectors of the texts by kind, and how far the short ones have moved from
        MiniLM's.
        """
        before = {kind: self.texts.vectors[kind][places] for kind, places in chosen.items()}
        anchor = torch.zeros(())
        if self.stage.text_rate:
            tokens = {
                kind: [self.texts.tokens[kind][index] for index in places.tolist()]
                for kind, places in chosen.items()
            }
            sentences = embed_rows(
                self.network.text, [row for rows in tokens.values() for row in rows]
            )
            near = torch.cat(
                [torch.full((len(places),), kind in ANCHORED) for kind, places in chosen.items()]
            )
            held = torch.cat([before[kind] for kind in chosen])
            anchor = (1 - (sentences * held).sum(dim=1))[near].mean()
        else:
            noisy = before["captions"] + self.settings.caption_noise * torch.randn_like(
                before["captions"]
            )
            sentences = torch.cat([unit(noisy), *list(before.values())[1:]])
        texts = self.network.encode_sentences(sentences).split(
            [len(places) for places in chosen.values()]
        )
        return dict(zip(chosen, texts, strict=True)), anchor

    def spanish_term(self, captioned: Tensor, captions: Tensor, scale: Tensor) -> Tensor:
        """Return InfoNCE of Spanish captions to photos and, at tenfold weight, how far Spanish
        sentences are from MiniLM's vectors of the English ones.
        """
        count, bank = self.stage.spanish, self.spanish
        if not count:
            return torch.zeros(())
        sentences, english = bank.sentence(torch.randint(len(bank.sentences), (count,)))
        tokens = [bank.captions[place] for place in captions[:count].tolist()]
        vectors = embed_rows(self.network.text, tokens + sentences)
        scores = self.network.encode_sentences(vectors[:count]) @ captioned.T * scale
        far = 1 - (vectors[count:] * english).sum(dim=1)
        return F.cross_entropy(scores, torch.arange(count)) + 10 * far.mean()

    def word_term(self, images: Tensor, texts: Tensor, logits: Tensor, places: Tensor) -> Tensor:
        """Return KL, over the pictures of the batch, from how the untrained path ranks them for
        each word.
        """
        scale = self.settings.teacher_scale
        known = unit((logits / self.config.class_temperature).softmax(dim=1) @ self.teacher_classes)
        target = unit(self.texts.vectors["words"][places] - self.teacher_mean) @ known.T * scale
        return like(texts @ images.T * scale * math.sqrt(2), target.log_softmax(dim=1))

    def hypernym_term(self, scores: Tensor, logits: Tensor, places: Tensor) -> Tensor:
        """Return KL, over the pictures of the batch, from their probabilities of all classes below
        each word.
        """
        return like(scores, log_shares(self.texts.covers[places] @ logits.softmax(dim=1).T))

    def thing_term(self, scores: Tensor, chosen: dict[str, Tensor]) -> Tensor:
        """Return InfoNCE both ways; phrases that mean nearly the same share a picture's target."""
        vectors = torch.cat(
            [self.texts.vectors[kind][chosen[kind]] for kind in ("labels", "phrases")]
        )
        target = (vectors @ vectors.T * self.settings.phrase_scale).softmax(dim=1)
        return (F.cross_entropy(scores, target) + F.cross_entropy(scores.T, target)) / 2

    def load_rounds(self) -> int:
        """Go on from the last round that was saved and return how many are done."""
        path = self.work / f"{self.stage.name}.rounds.pt"
        if not path.exists():
            return 0
        saved = torch.load(path, weights_only=True)
        self.network.load_state_dict(saved["network"])
        self.averaged, self.updates = saved["averaged"], saved["updates"]
        self.optimiser.load_state_dict(saved["optimiser"])
        return int(saved["rounds"])

    def save_round(self, rounds: int) -> None:
        """Write what a resumed run needs, aside and then renamed."""
        state = {
            "rounds": rounds,
            "network": self.network.state_dict(),
            "averaged": self.averaged,
            "updates": self.updates,
        }
        save(
            state | {"optimiser": self.optimiser.state_dict()},
            self.work / f"{self.stage.name}.rounds.pt",
        )

    def use_average(self) -> None:
        """Put the averaged weights into the network."""
        with torch.no_grad():
            for name, weight in self.trained.items():
                weight.copy_(self.averaged[name])


def mini_config(work: Path, dropout: float = 0.0) -> MiniConfig:
    """Return the shape of the network, whose vocabulary is that of the wider tokenizer."""
    vocabulary = json.loads((work / TOKENIZER).read_text(encoding="utf-8"))["model"]["vocab"]
    return MiniConfig(vocabulary=len(vocabulary), surface=True, dropout=dropout)


def start_network(work: Path, config: MiniConfig, texts: TextBank) -> MiniNetwork:
    """Return the network with the published stem and MiniLM that was taught Spanish, its class
    vectors those of MiniLM for the class names.
    """
    network = MiniNetwork(config)
    network.stem = load_stem()
    network.text.load_state_dict(torch.load(work / "spanish.pt", weights_only=True))
    mean = texts.vectors["classes"].mean(dim=0)
    network.class_vectors.data.copy_(texts.vectors["classes"] - mean)
    network.sentence_mean.data.copy_(mean)
    return network


def choose_classes(logits: Tensor, count: int) -> Tensor:
    """Return the classes to rank: all of them, or few with the pictures' own among them."""
    if count >= logits.shape[1]:
        return torch.arange(logits.shape[1])
    present = logits.argmax(dim=1)[torch.randperm(len(logits))[: count * 2 // 3]]
    return torch.cat([present, torch.randint(logits.shape[1], (count - len(present),))]).unique()


def train(work: Path, settings: TrainingConfig, stages: tuple[Stage, ...] = STAGES) -> None:
    """Run the stages, each from the end of the one before; what is finished is not done again.
    Writes ``STAGE.pt`` for each.
    """
    before: Path | None = None
    for stage in stages:
        finished = work / f"{stage.name}.pt"
        if not finished.exists():
            trainer = Trainer(work, settings, stage)
            if before is not None:
                trainer.network.load_state_dict(torch.load(before, weights_only=True))
                trainer.averaged = {
                    name: weight.detach().clone() for name, weight in trainer.trained.items()
                }
            trainer.run()
            trainer.use_average()
            save(trainer.network.state_dict(), finished)
        before = finished
