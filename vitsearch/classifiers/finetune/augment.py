"""What training sees of a photo: a random crop, perhaps mirrored, with colours and shapes a little
off (DeiT, arXiv:2012.12877).
"""

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


def augmentation(side: int, settings: FinetuneSettings) -> v2.Transform:
    """Return the transform of one RGB picture to uint8 ``(3, side, side)``; it draws from torch's
    global generator.
    """
    size = {"size": side, "scale": (settings.crop, 1.0), "interpolation": InterpolationMode.BICUBIC}
    steps: list[v2.Transform] = [v2.RandomResizedCrop(**size), v2.RandomHorizontalFlip()]
    if settings.magnitude:
        steps.append(
            v2.RandAugment(
                2,
                settings.magnitude,
                interpolation=InterpolationMode.BILINEAR,
                fill=[127, 127, 127],
            )
        )
    return v2.Compose([*steps, v2.ToImage()])


class Unreadable(PhotoError):
    """A photo that could be read at the beginning cannot be read now; PyTorch wraps what a worker
    raises, and this takes the text back.
    """

    @property
    def text(self) -> str:
        """The reason alone."""
        return str(self).strip().rpartition(f"{type(self).__name__}: ")[2]


class AugmentedPhotos(Dataset[tuple[Tensor, int]]):
    """The photos of one epoch; what is drawn for a photo depends on seed, epoch and place alone,
    not on who reads it or when.
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
        self.root, self.examples, self.side, self.epoch, self.seed = (
            root,
            examples,
            side,
            epoch,
            settings.seed,
        )
        self._augment = augmentation(side, settings)

    def __len__(self) -> int:
        return len(self.examples)

    def __getitem__(self, place: int) -> tuple[Tensor, int]:
        example = self.examples[place]
        try:
            image = open_example(self.root, example, at_least=2 * self.side)
        except PhotoError as error:
            raise Unreadable(str(error)) from None
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed_of(self.seed, self.epoch, place))
            return self._augment(image), example.label


def epoch_batches(
    photos: AugmentedPhotos, settings: FinetuneSettings, workers: int
) -> "DataLoader[tuple[Tensor, int]]":
    """Return the batches of one epoch, in an order that seed and epoch say: pictures ``(n, 3, side,
    side)`` uint8, classes ``(n,)``.
    """
    order = np.random.default_rng([settings.seed, photos.epoch]).permutation(len(photos)).tolist()
    return DataLoader(photos, batch_size=settings.batch_size, sampler=order, num_workers=workers)


def mixed(pixels: Tensor, labels: Tensor, *, classes: int, alpha: float) -> tuple[Tensor, Tensor]:
    """Return pictures mixed in pairs and their shared labels ``(n, classes)`` (mixup, Zhang et al.
    2018, arXiv:1710.09412).
    """
    if not alpha:
        return pixels, torch.nn.functional.one_hot(labels, classes).float()
    both: tuple[Tensor, Tensor] = v2.MixUp(alpha=alpha, num_classes=classes)(pixels, labels)
    return both


def seed_of(*numbers: int) -> int:
    """Return a seed in which each of the numbers counts."""
    return int(np.random.SeedSequence(numbers).generate_state(1, np.uint64)[0] >> np.uint64(1))
