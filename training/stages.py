"""The stages of training and all their numbers."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Stage:
    """How one stage trains: rounds over the captioned photos, learning rates (0: frozen), and how
    many of each a step takes.
    """

    name: str
    rounds: int
    rate: float
    class_rate: float
    tail_rate: float
    text_rate: float
    captions: int
    swapped: int
    spanish: int
    copies: int
    extra: int
    drawings: int
    labelled: int
    words: int
    hypernyms: int
    prompts: int
    warm_up: int
    average: float


@dataclass(frozen=True, slots=True)
class TrainingConfig:
    """All other numbers of the recipe."""

    seed: int = 0
    batch: int = 256
    kept_tokens: int = 40
    dropout: float = 0.2
    decay: float = 0.1
    caption_noise: float = 0.02
    teacher_scale: float = 20.0
    phrase_scale: float = 30.0
    copy_scale: float = 20.0
    # of the terms, in their order
    weights: tuple[float, ...] = (1.0, 0.4, 0.3, 0.5, 1.0, 0.5, 0.5, 6.0, 20.0)


HEAD = Stage("head", 5, 1e-3, 1e-4, 0.0, 0.0, 2, 96, 0, 96, 64, 64, 96, 128, 96, 1000, 40, 0.99)
WHOLE = Stage("whole", 6, 3e-4, 3e-5, 1.5e-4, 2e-5, 1, 48, 64, 48, 40, 32, 40, 56, 56, 64, 20, 0.97)
STAGES = (HEAD, WHOLE)
