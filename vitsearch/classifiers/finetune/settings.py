"""What a fine-tuning run is asked for, what it says on its way, and what came of it."""

from dataclasses import dataclass

from vitsearch.errors import QueryError


@dataclass(frozen=True, slots=True)
class FinetuneSettings:
    """How a model is fine-tuned; the defaults suit a few hundred photos.

    ``learning_rate`` is that of the head at its peak; each layer below learns at ``layer_decay``
    times the rate of the one above. ``crop`` is the least share of a photo's area that a random
    crop keeps, ``magnitude`` RandAugment's strength from 0 (off) to 30, ``mixup`` the alpha of the
    Beta distribution (0 is off). ``average`` is the share of the trained weights in a mean with
    those of the start, which is judged beside the trained weights alone (Wortsman et al. 2022,
    arXiv:2109.01903). ``validation`` is the share of each class that is left out of training,
    ``patience`` the number of epochs without a better result on them after which training stops.
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


@dataclass(frozen=True, slots=True)
class EpochResult:
    """One epoch: the mean training loss in nats, and how many of the photos left out were right, of
    how many, at what loss.

    Epoch 0 is the start: the frozen network under a head fitted to it, without a training loss.
    ``share`` is that of the trained weights in the mean that was judged.
    """

    epoch: int
    loss: float | None
    share: float
    right: int
    judged: int
    judged_loss: float

    def is_better_than(self, other: "EpochResult | None") -> bool:
        """Return whether more are right, or as many at a smaller loss; without photos left out the
        later epoch is the better.
        """
        return (
            other is None
            or not self.judged
            or (self.right, -self.judged_loss) > (other.right, -other.judged_loss)
        )


@dataclass(frozen=True, slots=True)
class FinetuneStep:
    """Where a run is: the stage, how many of its photos are done, and the last epoch that ended,
    if any.
    """

    stage: str
    done: int
    total: int
    epoch: int = 0
    last: EpochResult | None = None


@dataclass(frozen=True, slots=True)
class FinetuneReport:
    """The outcome of a run: photos trained on, each epoch, the epoch that was kept, and the photos
    that could not be read.

    The kept epoch was chosen by the same photos that judged it, so its accuracy is a little
    flattering.
    """

    classes: tuple[str, ...]
    photos: int
    epochs: tuple[EpochResult, ...]
    best: EpochResult
    unreadable: tuple[tuple[str, str], ...]
    seconds: float
