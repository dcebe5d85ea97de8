"""The training loop, the head that it starts from, and augmentation as in DeiT (arXiv:2012.12877):
random crops, mirroring, RandAugment and mixup.

For each batch: augmented photos -> mixup -> logits -> cross-entropy with label smoothing -> AdamW,
slower for lower layers. After each epoch: validate on the photos held out, keep the best weights,
write the checkpoint, stop when nothing has improved for a while.
"""

import math
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset
from torchvision.transforms import InterpolationMode, v2

from vitsearch.classifiers.finetune.settings import (
    EpochResult,
    Example,
    FinetuneSettings,
    FinetuneStep,
    Photos,
    open_example,
)
from vitsearch.classifiers.torch_model import Trainable
from vitsearch.errors import PhotoError
from vitsearch.photos import prefetch_map
from vitsearch.photos.decoder import PhotoDecoder

Weights = dict[str, Tensor]
OnStep = Callable[[FinetuneStep], None]
MIN_RATE = 0.01  # of the peak, at the end of the cosine
MAX_GRADIENT = 1.0


# -- Augmentation ----------------------------------------------------------------------------------


def augmentation(side: int, settings: FinetuneSettings) -> v2.Transform:
    """Return the transform of one RGB picture to uint8 ``(3, side, side)``.

    It draws from torch's global generator.
    """
    bicubic, bilinear = InterpolationMode.BICUBIC, InterpolationMode.BILINEAR
    crop = v2.RandomResizedCrop(side, scale=(settings.crop, 1.0), interpolation=bicubic)
    steps: list[v2.Transform] = [crop, v2.RandomHorizontalFlip()]
    if settings.magnitude:
        grey = [127, 127, 127]
        steps.append(v2.RandAugment(2, settings.magnitude, interpolation=bilinear, fill=grey))
    return v2.Compose([*steps, v2.ToImage()])


class Unreadable(PhotoError):
    """A photo that could be read at the beginning cannot be read now.

    PyTorch wraps the text of what a worker raises; `text` unwraps it.
    """

    @property
    def text(self) -> str:
        """The reason alone."""
        return str(self).strip().rpartition(f"{type(self).__name__}: ")[2]


class AugmentedPhotos(Dataset[tuple[Tensor, int]]):
    """The photos of one epoch, augmented.

    What is drawn for a photo depends on seed, epoch and index alone, not on the worker or the time.
    """

    def __init__(
        self,
        root: Path,
        examples: Sequence[Example],
        *,
        side: int,
        settings: FinetuneSettings,
        epoch: int,
    ) -> None:
        self.root, self.examples = root, examples
        self.side, self.epoch, self.seed = side, epoch, settings.seed
        self._augment = augmentation(side, settings)
        self.decoder = PhotoDecoder()

    def __len__(self) -> int:
        return len(self.examples)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        example = self.examples[index]
        try:
            image = open_example(self.root, example, self.decoder, at_least=2 * self.side)
        except PhotoError as error:
            raise Unreadable(str(error)) from None
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed_of(self.seed, self.epoch, index))
            return self._augment(image), example.label


def epoch_batches(
    photos: AugmentedPhotos, settings: FinetuneSettings, workers: int
) -> "DataLoader[tuple[Tensor, int]]":
    """Return the batches of one epoch: pictures ``(n, 3, side, side)`` uint8, classes ``(n,)``.

    Seed and epoch determine their order.
    """
    order = np.random.default_rng([settings.seed, photos.epoch]).permutation(len(photos)).tolist()
    return DataLoader(photos, batch_size=settings.batch_size, sampler=order, num_workers=workers)


def mixed(pixels: Tensor, labels: Tensor, *, classes: int, alpha: float) -> tuple[Tensor, Tensor]:
    """Return pictures mixed in pairs and their mixed labels ``(n, classes)``.

    This is mixup (Zhang et al. 2018, arXiv:1710.09412); an ``alpha`` of 0 mixes nothing.
    """
    if not alpha:
        return pixels, torch.nn.functional.one_hot(labels, classes).float()
    pair: tuple[Tensor, Tensor] = v2.MixUp(alpha=alpha, num_classes=classes)(pixels, labels)
    return pair


def seed_of(*numbers: int) -> int:
    """Return a seed that depends on each of the numbers."""
    return int(np.random.SeedSequence(numbers).generate_state(1, np.uint64)[0] >> np.uint64(1))


# -- The loop --------------------------------------------------------------------------------------


class Learner:
    """A model in training: its weights and optimiser, the epochs so far and the best weights."""

    def __init__(self, model: Trainable, settings: FinetuneSettings, device: torch.device) -> None:
        self.model, self.settings, self.device = model, settings, device
        model.net.to(device).requires_grad_(False)
        self.weights = trained_weights(model)
        for weight in self.weights.values():
            weight.requires_grad_(True)
        self.optimizer = torch.optim.AdamW(
            layer_rates(model, settings), lr=settings.learning_rate, betas=(0.9, 0.999)
        )
        half = device.type == "cuda" and not torch.cuda.is_bf16_supported()
        # bfloat16 has the range of float32 and needs no scaling
        self.scaler = torch.amp.GradScaler(enabled=half)
        self.start: Weights = {}  # set when the head has been fitted
        self.results: list[EpochResult] = []
        self.best: EpochResult | None = None
        self.best_weights: Weights = {}
        self._mean = torch.tensor(model.mean, device=device).view(1, 3, 1, 1)
        self._std = torch.tensor(model.std, device=device).view(1, 3, 1, 1)

    def learn(self, pixels: Tensor, labels: Tensor, rate: float) -> float:
        """Take one step and return the loss.

        ``pixels`` are ``(n, 3, side, side)`` uint8 and ``labels`` their classes ``(n,)``.
        """
        values = pixels.to(self.device, non_blocking=True).float() / 255
        normalised, labels = (values - self._mean) / self._std, labels.to(self.device)
        classes = self.model.head.out_features
        images, targets = mixed(normalised, labels, classes=classes, alpha=self.settings.mixup)
        for group in self.optimizer.param_groups:
            group["lr"] = rate * group["share"]
        with self.half_precision():
            logits = self.model.logits(images).float()
            smoothing = self.settings.label_smoothing
            loss = F.cross_entropy(logits, targets, label_smoothing=smoothing)
        self.optimizer.zero_grad(set_to_none=True)
        torch.autograd.backward(self.scaler.scale(loss))
        self.scaler.unscale_(self.optimizer)
        torch.nn.utils.clip_grad_norm_(list(self.weights.values()), MAX_GRADIENT)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        return float(loss.detach())

    def half_precision(self) -> AbstractContextManager[object]:
        """Return the context in which a GPU computes in 16 bits; on a CPU it changes nothing."""
        dtype = torch.float16 if self.scaler.is_enabled() else torch.bfloat16
        return torch.autocast(self.device.type, dtype=dtype, enabled=self.device.type == "cuda")

    @contextmanager
    def averaged(self, share: float) -> Iterator[None]:
        """Set the model's weights, for the block, to a mean with those of the start.

        ``share`` is that of the present weights.
        """
        present = copied(self.weights)
        with torch.no_grad():
            for name, weight in self.weights.items():
                weight.lerp_(self.start[name], 1 - share)
        yield
        with torch.no_grad():
            for name, weight in self.weights.items():
                weight.copy_(present[name])

    def keep(self, result: EpochResult) -> None:
        """Keep the model's present weights where their result is the best so far."""
        if result.is_better_than(self.best):
            self.best, self.best_weights = result, copied(self.weights)

    @property
    def is_done(self) -> bool:
        """Whether all epochs are over, or the last ones brought no improvement."""
        if not self.results or self.best is None:
            return False
        last = self.results[-1].epoch
        return last >= self.settings.epochs or last - self.best.epoch >= self.settings.patience


def train(learner: Learner, photos: Photos, *, after: Callable[[], None], on_step: OnStep) -> None:
    """Train until the learner is done; ``after`` is called at the end of each epoch."""
    while not learner.is_done:
        epoch = len(learner.results)
        try:
            loss = train_epoch(learner, photos, epoch, on_step=on_step) if epoch else None
            validate_epoch(learner, photos, epoch, loss)
        except PhotoError as error:
            text = error.text if isinstance(error, Unreadable) else str(error)
            raise PhotoError(
                f"{text}: it could be read at the beginning; put it back and --resume, or begin "
                "anew in another folder"
            ) from error
        after()
        count = len(photos.validation)
        on_step(FinetuneStep("judged", count, count, epoch, learner.results[-1]))


def train_epoch(learner: Learner, photos: Photos, epoch: int, *, on_step: OnStep) -> float:
    """Train on every photo once and return the mean loss."""
    settings = learner.settings
    # of mixup and dropout: the same in a run that is resumed
    torch.manual_seed(seed_of(settings.seed, epoch))
    learner.model.net.train()
    augmented = AugmentedPhotos(
        photos.root, photos.training, side=learner.model.side, settings=settings, epoch=epoch
    )
    batches = -(-len(augmented) // settings.batch_size)
    total, done = 0.0, 0
    with augmented.decoder:
        for number, (pixels, labels) in enumerate(epoch_batches(augmented, settings, _workers())):
            rate = rate_at((epoch - 1) + number / batches, settings)
            total += len(labels) * learner.learn(pixels, labels, rate)
            done += len(labels)
            on_step(FinetuneStep("training", done, len(augmented), epoch))
    return total / done


def validate_epoch(learner: Learner, photos: Photos, epoch: int, loss: float | None) -> None:
    """Validate the trained weights and their mean with the start; record the better result."""
    if not epoch:
        shares = [1.0]
    else:
        shares = [learner.settings.average, *([1.0] if photos.validation else [])]
    better: EpochResult | None = None
    for share in shares:
        with learner.averaged(share):
            right, validation_loss = validate(learner, photos)
            result = EpochResult(epoch, loss, share, right, len(photos.validation), validation_loss)
            learner.keep(result)
        better = result if result.is_better_than(better) else better
    assert better is not None
    learner.results.append(better)


@torch.no_grad()
def validate(learner: Learner, photos: Photos) -> tuple[int, float]:
    """Return how many validation photos are right, and their mean loss.

    Each photo is prepared as the saved model prepares it.
    """
    learner.model.net.eval()
    right, loss = 0, 0.0
    for images, labels in prepared_batches(learner, photos.root, photos.validation):
        logits = learner.model.logits(images).float()
        right += int((logits.argmax(dim=1) == labels).sum())
        loss += float(F.cross_entropy(logits, labels, reduction="sum"))
    return right, loss / max(1, len(photos.validation))


def prepared_batches(
    learner: Learner, root: Path, examples: Sequence[Example]
) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield prepared pictures and their classes, in order, read ahead in threads."""
    size, workers = learner.settings.batch_size, os.cpu_count() or 1
    with PhotoDecoder() as decoder:
        ready = prefetch_map(
            lambda example: learner.model.prepare(open_example(root, example, decoder)),
            examples,
            workers=workers,
            buffer=size + workers,
            on_stop=decoder.close,
        )
        for start in range(0, len(examples), size):
            batch = examples[start : start + size]
            yield (
                torch.stack([next(ready) for _ in batch]).to(learner.device),
                torch.tensor([example.label for example in batch], device=learner.device),
            )


def copied(weights: Mapping[str, Tensor]) -> Weights:
    """Return a copy of the weights as they are now."""
    return {name: weight.detach().clone() for name, weight in weights.items()}


def trained_weights(model: Trainable) -> dict[str, torch.nn.Parameter]:
    """Return the weights that are trained, by name, from the picture to the head."""
    parameters = dict(model.net.named_parameters())
    return {name: parameters[name] for layer in model.layers for name in layer}


def layer_rates(model: Trainable, settings: FinetuneSettings) -> list[dict[str, object]]:
    """Return the optimiser's parameter groups: each layer has its share of the learning rate.

    Biases and norms have no weight decay.
    """
    parameters, groups = dict(model.net.named_parameters()), []
    for depth, layer in enumerate(model.layers):
        share = settings.layer_decay ** (len(model.layers) - 1 - depth)
        for decay, weights in (
            (
                settings.weight_decay,
                [parameters[name] for name in layer if parameters[name].ndim > 1],
            ),
            (0.0, [parameters[name] for name in layer if parameters[name].ndim <= 1]),
        ):
            if weights:
                groups.append({"params": weights, "weight_decay": decay, "share": share})
    return groups


def rate_at(epochs: float, settings: FinetuneSettings) -> float:
    """Return the head's learning rate after so many epochs: a linear rise, then a cosine.

    Source: Loshchilov and Hutter 2017, arXiv:1608.03983.
    """
    warmup = min(settings.warmup_epochs, settings.epochs / 2)
    if epochs < warmup:
        return settings.learning_rate * (epochs + 1e-3) / warmup
    progress = (epochs - warmup) / max(1e-9, settings.epochs - warmup)
    cosine = (1 + math.cos(math.pi * min(1.0, progress))) / 2
    return settings.learning_rate * (MIN_RATE + (1 - MIN_RATE) * cosine)


def _workers() -> int:
    """Return how many processes augment: half the cores, since the model computes on all."""
    return max(1, (os.cpu_count() or 1) // 2)


# -- The head's start ------------------------------------------------------------------------------

RIDGE = 1e-3
STEPS = 200


class FeatureHook:
    """Collects the features that enter a network's head."""

    def __init__(self, head: nn.Linear) -> None:
        self.rows: list[Tensor] = []
        self._handle = head.register_forward_pre_hook(
            lambda _, inputs: self.rows.append(inputs[0].detach().float().cpu())
        )

    def collected(self) -> Tensor:
        """Return the features ``(n, width)`` collected so far, and remove the hook."""
        self._handle.remove()
        return torch.cat(self.rows)


def fit_head(head: nn.Linear, features: Tensor, labels: Tensor) -> None:
    """Set a linear head to the logistic regression of features on their classes, by L-BFGS.

    ``features`` are ``(n, width)`` and ``labels`` ``(n,)``.
    """
    # a single number, so that the ridge penalty means the same for every network
    spread = features.pow(2).mean().sqrt().clamp(min=1e-6)
    rows, right = features / spread, labels.cpu()
    weight = torch.zeros(head.weight.shape, requires_grad=True)
    bias = torch.zeros(len(head.weight), requires_grad=True)
    optimizer = torch.optim.LBFGS([weight, bias], max_iter=STEPS, line_search_fn="strong_wolfe")

    def loss() -> Tensor:
        optimizer.zero_grad()
        value = F.cross_entropy(rows @ weight.T + bias, right) + RIDGE / 2 * weight.pow(2).sum()
        torch.autograd.backward(value)
        return value

    step: Callable[[Callable[[], Tensor]], Tensor] = optimizer.step  # carries no types
    step(loss)
    with torch.no_grad():
        head.weight.copy_(weight / spread)
        if head.bias is not None:
            head.bias.copy_(bias)
