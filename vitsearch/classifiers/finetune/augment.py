"""Augmentation as in DeiT (arXiv:2012.12877): random crops, mirroring, RandAugment and mixup."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from torchvision.transforms import InterpolationMode, v2

from vitsearch.classifiers.finetune.examples import Example, open_example
from vitsearch.classifiers.finetune.settings import FinetuneSettings
from vitsearch.errors import PhotoError
from vitsearch.photos.decoder import PhotoDecoder


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
