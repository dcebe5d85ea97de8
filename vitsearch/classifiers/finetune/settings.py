"""The settings of a fine-tuning run, its progress and its report; and the photos that it learns
from: their labels, and which of them validate it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
from PIL import Image

from vitsearch.errors import PhotoError, QueryError
from vitsearch.labels.labels import read_labels
from vitsearch.photos.decoder import PhotoDecoder, read_photo
from vitsearch.photos.walk import walk


@dataclass(frozen=True, slots=True)
class FinetuneSettings:
    """How a model is fine-tuned; the defaults suit a few hundred photos.

    ``learning_rate`` is that of the head at its peak; each layer below learns at ``layer_decay``
    times the rate of the one above. ``crop`` is the least share of a photo's area that a random
    crop keeps, ``magnitude`` RandAugment's strength from 0 (off) to 30, ``mixup`` the alpha of the
    Beta distribution (0 is off). ``average`` is the share of the trained weights in a mean with
    those of the start, which is validated beside the trained weights alone (Wortsman et al. 2022,
    arXiv:2109.01903). ``validation`` is the share of each class that is held out of training,
    ``patience`` the number of epochs without a better result on it after which training stops.
    Raises QueryError for a value outside its range.
    """

    epochs: int = 8
    batch_size: int = 32
    learning_rate: float = 3e-4
    weight_decay: float = 0.05
    layer_decay: float = 0.75
    warmup_epochs: float = 1.0
    label_smoothing: float = 0.1
    mixup: float = 0.2
    average: float = 0.5
    crop: float = 0.4
    magnitude: int = 9
    validation: float = 0.2
    patience: int = 4
    seed: int = 0

    def __post_init__(self) -> None:
        ranges = {
            "epochs": (1, 10_000),
            "batch_size": (1, 4096),
            "learning_rate": (1e-8, 10.0),
            "weight_decay": (0.0, 10.0),
            "layer_decay": (0.01, 1.0),
            "warmup_epochs": (0.0, 10_000.0),
            "label_smoothing": (0.0, 0.9),
            "mixup": (0.0, 10.0),
            "average": (0.01, 1.0),
            "crop": (0.01, 1.0),
            "magnitude": (0, 30),
            "validation": (0.0, 0.9),
            "patience": (1, 10_000),
            "seed": (0, 2**63 - 1),
        }
        for name, (low, high) in ranges.items():
            if not low <= getattr(self, name) <= high:
                raise QueryError(
                    f"{name} must be from {low:g} to {high:g}, not {getattr(self, name)}"
                )


# the names of fields in checkpoints and JSON, where they differ
_RECORD_NAMES = {"validated": "judged", "validation_loss": "judged_loss"}


@dataclass(frozen=True, slots=True)
class EpochResult:
    """One epoch: its mean training loss in nats, and what validation measured.

    ``right`` of the ``validated`` photos, which were held out, were right, at ``validation_loss``.
    Epoch 0 is the start: the frozen network under a head fitted to it, without a training loss.
    ``share`` is that of the trained weights in the mean that was validated.
    """

    epoch: int
    loss: float | None
    share: float
    right: int
    validated: int
    validation_loss: float

    def is_better_than(self, other: "EpochResult | None") -> bool:
        """Return whether more photos are right, or as many at a smaller loss.

        Without validation photos the later epoch is the better one.
        """
        return (
            other is None
            or not self.validated
            or (self.right, -self.validation_loss) > (other.right, -other.validation_loss)
        )

    def to_record(self) -> dict[str, Any]:
        """Return the result as checkpoints and JSON hold it."""
        return {_RECORD_NAMES.get(name, name): value for name, value in asdict(self).items()}

    @classmethod
    def from_record(cls, record: Mapping[str, Any]) -> Self:
        """Return the result of what `to_record` returned."""
        names = {stored: name for name, stored in _RECORD_NAMES.items()}
        return cls(**{names.get(name, name): value for name, value in record.items()})


@dataclass(frozen=True, slots=True)
class FinetuneStep:
    """The progress of a run: its stage, how many photos are done, and the last epoch that ended."""

    stage: str
    done: int
    total: int
    epoch: int = 0
    last: EpochResult | None = None


@dataclass(frozen=True, slots=True)
class FinetuneReport:
    """The outcome of a run: its epochs, the best of them, and the photos that could not be read.

    ``photos`` is the number of photos trained on. The photos that chose the best epoch also
    measured it, so its accuracy is a little optimistic.
    """

    classes: tuple[str, ...]
    photos: int
    epochs: tuple[EpochResult, ...]
    best: EpochResult
    unreadable: tuple[tuple[str, str], ...]
    seconds: float


# -- Examples --------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Example:
    """A photo, its path relative to the folder with ``/``, and the number of its class."""

    path: str
    label: int


@dataclass(frozen=True, slots=True)
class Photos:
    """The photos of a run: those to train on and those held out for validation."""

    root: Path
    training: tuple[Example, ...]
    validation: tuple[Example, ...]


def open_example(
    root: Path, example: Example, decoder: PhotoDecoder, *, at_least: int | None = None
) -> Image.Image:
    """Return an example's picture (see `read_photo`); raises PhotoError that names it."""
    try:
        return read_photo(root / example.path, at_least=at_least, decoder=decoder).image
    except PhotoError as error:
        raise PhotoError(f"{example.path}: {error}") from error


def labelled_photos(root: Path, source: str) -> tuple[tuple[Example, ...], tuple[str, ...]]:
    """Return the labelled photos below a folder in order of path, and their sorted class names.

    Raises QueryError where fewer than two classes have a photo.
    """
    truth = read_labels(source, [file.path for file in walk(root) if file.problem is None])
    classes = tuple(sorted(set(truth.values())))
    if len(classes) < 2:
        raise QueryError(
            f"all labelled photos are {classes[0]!r}: give photos of at least two classes"
        )
    numbers = {name: number for number, name in enumerate(classes)}
    return tuple(Example(path, numbers[label]) for path, label in truth.items()), classes


def split(
    examples: Sequence[Example], share: float, seed: int
) -> tuple[tuple[Example, ...], tuple[Example, ...]]:
    """Return the photos to train on and those for validation, each in their original order.

    The share of every class is held out, rounded, but never all of it; the seed selects the photos.
    """
    labels = np.array([example.label for example in examples])
    held_out = np.zeros(len(examples), dtype=bool)
    rng = np.random.default_rng(seed)
    for number in np.unique(labels):
        members = rng.permutation(np.flatnonzero(labels == number))
        held_out[members[: min(round(share * len(members)), len(members) - 1)]] = True
    pairs = list(zip(examples, held_out, strict=True))
    training = tuple(example for example, is_held_out in pairs if not is_held_out)
    return training, tuple(example for example, is_held_out in pairs if is_held_out)
