"""The facts that travel between the rooms of the house, as frozen dataclasses."""

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Literal, NamedTuple

State = Literal["failed", "skipped"]
Value = str | int | float  # of a column of a photo
Bound = Literal["decoding", "disk", "model", "storing", "looking"]
STAGES = ("walk", "read", "decode", "prepare", "encode", "store", "build")
Activation = Literal[
    "softmax", "sigmoid"
]  # of classes: probabilities that sum to 1, or each by itself
LEVEL_SEPARATOR = " > "  # between the levels of a label: "animal > dog"
RunStage = Literal[
    "looking",
    "loading",
    "embedding",
    "building",
    "exporting",
    "importing",
    "merging",
    "pushing",
    "comparing",
    "classifying",
]


class Found(NamedTuple):
    """One file met while walking a folder: its path relative to the root with ``/``, and its stat.

    ``problem`` is a reason to skip the file without opening it (a pipe, a broken link), else None.
    It is a tuple because one is made for every file of every run.
    """

    path: str
    size: int
    mtime_ns: int
    problem: str | None = None


@dataclass(frozen=True, slots=True)
class PhotoInfo:
    """What a photo's file says about it: size in pixels as displayed, and its metadata.

    ``metadata`` holds the columns of `vitsearch.photos.columns` that are read from the file (EXIF,
    XMP) by name, without those that it says nothing about: ``info["camera"]`` is None for such.
    """

    width: int
    height: int
    metadata: Mapping[str, Value | None] = field(default_factory=dict, hash=False)

    def __post_init__(self) -> None:
        present = {name: value for name, value in self.metadata.items() if value is not None}
        object.__setattr__(self, "metadata", present)

    def __getitem__(self, column: str) -> Value | None:
        """Return the value of a metadata column, None where the file says nothing about it."""
        return self.metadata.get(column)


@dataclass(frozen=True, slots=True)
class Photo:
    """One photo of a collection."""

    photo_id: int
    path: str
    size: int
    mtime_ns: int
    fingerprint: bytes
    info: PhotoInfo
    label: str | None = None
    label_score: float | None = None


@dataclass(frozen=True, slots=True)
class SearchResult:
    """One hit: path relative to the root, cosine similarity (higher is better), stable id."""

    path: str
    score: float
    photo_id: int


@dataclass(frozen=True, slots=True)
class Prediction:
    """One label for one photo, with its probability; ``photo_id`` is 0 outside collections,
    ``path`` "" for a picture without a file.
    """

    path: str
    label: str
    score: float
    photo_id: int = 0


@dataclass(frozen=True, slots=True)
class SkippedPhoto:
    """A file that is not in the collection: ``failed`` (could not be read) or ``skipped`` (not
    opened), and why.
    """

    path: str
    state: State
    reason: str


@dataclass(frozen=True, slots=True)
class Stages:
    """Seconds of work in each stage of a run of indexing, summed over its threads, and ``wall``,
    the seconds that passed.

    ``walk`` looks for files, ``read`` also hashes, ``prepare`` resizes, ``store`` is the database,
    ``build`` the index. ``bound`` is what the run waited for, the busiest of its threads: more
    cores help where that is decoding, a faster disk, or a chip for the model.
    """

    walk: float
    read: float
    decode: float
    prepare: float
    encode: float
    store: float
    build: float
    wall: float
    bound: Bound

    def shares(self) -> dict[str, float]:
        """Return the share of each stage in the work of all, 0 to 1, in the order of the stages."""
        seconds = {name: value for name, value in asdict(self).items() if name in STAGES}
        total = sum(seconds.values())
        return {name: value / total if total else 0.0 for name, value in seconds.items()}


@dataclass(frozen=True, slots=True)
class IndexReport:
    """The outcome of one run of indexing, in photos; times in seconds.

    ``indexed`` counts new and changed photos, ``failed`` and ``skipped`` all such files now in the
    folder, ``seconds`` runs from the first folder read until the results are searchable without
    ``load_seconds`` (imports, model); ``stages`` says where they went.
    """

    indexed: int
    unchanged: int
    moved: int
    removed: int
    skipped: int
    failed: int
    seconds: float
    load_seconds: float
    total: int
    stages: Stages


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a run is: photos done of the total of this stage, and how many of them failed."""

    stage: RunStage
    done: int
    total: int | None
    failed: int = 0


OnProgress = Callable[[Progress], object]  # what a long task calls as it goes on


def no_progress(_: Progress) -> None:
    """Show nothing."""
