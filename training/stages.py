"""The stages of training and all their numbers."""

from dataclasses import dataclass, replace


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
    turned: int
    ngrams: int
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
    weights: tuple[float, ...] = (1.0, 0.5, 0.5, 0.4, 0.3, 0.5, 1.0, 0.5, 0.5, 6.0, 20.0)


HEAD = Stage(
    name="head",
    rounds=5,
    rate=1e-3,
    class_rate=1e-4,
    tail_rate=0.0,
    text_rate=0.0,
    captions=2,
    swapped=96,
    turned=64,
    ngrams=128,
    spanish=0,
    copies=96,
    extra=64,
    drawings=64,
    labelled=96,
    words=128,
    hypernyms=96,
    prompts=1000,
    warm_up=40,
    average=0.99,
)
WHOLE = Stage(
    name="whole",
    rounds=9,
    rate=3e-4,
    class_rate=3e-5,
    tail_rate=1.5e-4,
    text_rate=2e-5,
    captions=1,
    swapped=48,
    turned=48,
    ngrams=96,
    spanish=64,
    copies=48,
    extra=40,
    drawings=40,
    labelled=40,
    words=56,
    hypernyms=56,
    prompts=64,
    warm_up=20,
    average=0.97,
)
LAST = replace(
    WHOLE,
    name="last",
    rounds=4,
    rate=1e-4,
    class_rate=1e-5,
    tail_rate=5e-5,
    text_rate=7e-6,
)
STAGES = (HEAD, WHOLE, LAST)
