"""The values that the packages of vitsearch exchange, as frozen dataclasses."""

import re
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, Protocol

if TYPE_CHECKING:
    from PIL import Image

MAX_PIXELS = 250_000_000  # of a picture that is decoded
State = Literal["failed", "skipped"]
LeftOutReason = Literal[
    "unreadable", "path too long", "excluded", "hidden", "recycle bin", "snapshots", "previews",
    "link", "extension", "companion",
]  # fmt: skip
Value = str | int | float  # of a column of a photo
Bottleneck = Literal["decoding", "disk", "model", "storing", "looking"]
STAGES = ("walk", "read", "decode", "prepare", "encode", "store", "build")
# of classes: probabilities that sum to 1, or one for each class by itself
Activation = Literal["softmax", "sigmoid"]
LEVEL_SEPARATOR = " > "  # between the levels of a label: "animal > dog"
RunStage = Literal[
    "looking",
    "loading",
    "decoding",
    "embedding",
    "building",
    "reading text",
    "exporting",
    "importing",
    "merging",
    "pushing",
    "comparing",
    "classifying",
]


class Found(NamedTuple):
    """A file of a walked folder: its path relative to the root with ``/``, and its stat.

    ``problem`` is a reason to skip the file without opening it (a pipe, a broken link), else None;
    ``sidecars`` are the names, sizes and times of its sidecars (`vitsearch.photos.sidecars`).
    It is a tuple for speed: every run makes one for every file.
    """

    path: str
    size: int
    mtime_ns: int
    problem: str | None = None
    sidecars: str = ""


class LeftOut(NamedTuple):
    """What a walk met and did not take: a path relative to the root, a folder's with a closing
    ``/``, or all ``files`` of one extension (``*.xmp``).

    ``unreadable`` and ``path too long``: its photos, if it has any, stay in the collection;
    ``detail`` is the system's message. ``excluded``: by an option; ``hidden``, ``recycle bin``,
    ``snapshots`` of a disk, ``previews`` (and all else in the library of a program but its
    originals): by default. ``link``: a link to a folder that is not followed, or was entered
    before. ``companion``: a file that belongs to the photo ``detail`` beside it, such as the RAW of
    a JPEG.
    """

    path: str
    reason: LeftOutReason
    detail: str = ""
    files: int = 1


@dataclass(frozen=True, slots=True)
class PhotoInfo:
    """The size of a photo in pixels, as displayed, and the metadata of its file.

    ``metadata`` holds the columns of `vitsearch.photos.columns` that are read from the file (EXIF,
    XMP) by name, without the null ones: ``info["camera"]`` is None for a missing column.
    """

    width: int
    height: int
    metadata: Mapping[str, Value | None] = field(default_factory=dict, hash=False)

    def __post_init__(self) -> None:
        present = {name: value for name, value in self.metadata.items() if value is not None}
        object.__setattr__(self, "metadata", present)

    def __getitem__(self, column: str) -> Value | None:
        """Return the value of a metadata column, None if the file does not have it."""
        return self.metadata.get(column)


# A video is a row for each of its moments, all of them of one file. The first has the path of the
# file, any other one a media fragment behind it (W3C Media Fragments URI 1.0), in milliseconds: no
# photo or video has such a suffix.
_MOMENT = re.compile(r"(.+)#t=(\d+\.\d{3})", re.DOTALL | re.ASCII)


def moment_path(file: str, seconds: float) -> str:
    """Return the path under which a later moment of a video is stored."""
    return f"{file}#t={seconds:.3f}"


def split_moment(path: str) -> tuple[str, float | None]:
    """Return the file and the seconds of a later moment of a video, for any other path itself and
    None.
    """
    match = _MOMENT.fullmatch(path) if "#t=" in path else None
    return (match[1], float(match[2])) if match else (path, None)


StoredRow = tuple[int, str, bytes, bytes]  # of a photo: id, path, raw vector and fingerprint


@dataclass(frozen=True, slots=True)
class Photo:
    """A photo of a collection, or a moment of a video.

    The first moment of a video has the path of its file, a later one that of
    `moment_path`; ``file`` is the path of the file of either.
    """

    photo_id: int
    path: str
    size: int
    mtime_ns: int
    fingerprint: bytes
    info: PhotoInfo
    label: str | None = None
    label_score: float | None = None

    @property
    def file(self) -> str:
        """The path of the file that it is in."""
        return split_moment(self.path)[0]

    @property
    def time(self) -> float | None:
        """The time of a moment in its video in seconds, None for a photo."""
        time = self.info["time"]
        return float(time) if isinstance(time, int | float) else None


class ResultSource(Protocol):
    """The collection that a result is of, which is asked for what a result does not hold."""

    def photo(self, result: "SearchResult") -> Photo: ...
    def image(self, result: "SearchResult") -> "Image.Image": ...


class _OfSource:
    """What a result is of is no field of it: two are equal without, and `asdict` is plain data."""

    __slots__ = ("_source",)
    _source: ResultSource | None


@dataclass(frozen=True, slots=True)
class SearchResult(_OfSource):
    """A hit: path relative to the root, cosine similarity (higher is better), stable id.

    ``file`` is the absolute path, ``collection`` the name of its collection where several were
    searched (`search_all`). ``quotes`` are the words in quotes of the query where they stand in the
    photo as text, which puts it first. Of a video it is the best moment, ``time`` in seconds; None
    for a photo. ``relevance`` is how likely it shows the words of the query, from 0 to 1; None
    where photos were looked for, and where the encoder cannot tell. ``photo`` and `image` open the
    collection again, so results stay small, can be pickled, and may be used after it was closed;
    both raise LookupError for a result made by hand.
    """

    path: str
    score: float
    photo_id: int
    file: str = field(default="", compare=False)
    collection: str = ""
    time: float | None = None
    # it follows from the score, and the rest of the collection
    relevance: float | None = field(default=None, compare=False)
    quotes: tuple[str, ...] = ()

    @property
    def stored_path(self) -> str:
        """The path under which the collection has it: that of a moment where it is a later one."""
        return moment_path(self.path, self.time) if self.time else self.path

    @property
    def source(self) -> ResultSource:
        """The collection that it is of; raises LookupError where there is none."""
        source = getattr(self, "_source", None)
        if source is None:
            raise LookupError(f"{self.path}: this result is of no collection")
        return source

    @property
    def photo(self) -> Photo:
        """What the collection knows of the photo, or the moment of a video; raises UnknownPhoto
        where it has left the collection, and the errors of `Collection.open`.
        """
        return self.source.photo(self)

    def image(self) -> "Image.Image":
        """Return the upright RGB picture of the photo, of a video the moment; raises PhotoError
        where the file is gone, has changed, or cannot be decoded, and the errors of
        `Collection.open`.
        """
        return self.source.image(self)

    def of(self, source: ResultSource, file: str) -> "SearchResult":
        """Return the result as one of a collection, its file there."""
        result = SearchResult(  # `replace` takes three times as long
            self.path,
            self.score,
            self.photo_id,
            file,
            self.collection,
            self.time,
            self.relevance,
            self.quotes,
        )
        object.__setattr__(result, "_source", source)
        return result

    def __getstate__(self) -> list[Any]:
        values = [getattr(self, each.name) for each in fields(self)]
        return [*values, getattr(self, "_source", None)]

    def __setstate__(self, state: list[Any]) -> None:
        names = [*(each.name for each in fields(self)), "_source"]
        for name, value in zip(names, state, strict=True):
            object.__setattr__(self, name, value)


@dataclass(frozen=True, slots=True)
class Prediction:
    """A label for a photo, with its probability.

    ``photo_id`` is 0 outside collections, ``path`` is "" for a picture without a file.
    """

    path: str
    label: str
    score: float
    photo_id: int = 0


@dataclass(frozen=True, slots=True)
class SkippedPhoto:
    """A file that is not in the collection: ``failed`` (unreadable) or ``skipped`` (not opened).

    A ``transient`` failure may pass by itself, as when a disk was away: every run tries again.
    """

    path: str
    state: State
    reason: str
    transient: bool = False


@dataclass(frozen=True, slots=True)
class Stages:
    """Seconds of work in each stage of a run of indexing, summed over its threads.

    ``wall`` is the time that passed. ``walk`` lists files, ``read`` also hashes, ``prepare``
    resizes, ``store`` is the database, ``build`` the index. ``bound`` is the bottleneck, the
    busiest of the threads: more cores help decoding, a faster disk the disk, a GPU the model.
    """

    walk: float
    read: float
    decode: float
    prepare: float
    encode: float
    store: float
    build: float
    wall: float
    bound: Bottleneck

    def shares(self) -> dict[str, float]:
        """Return the share of each stage in the total work, 0 to 1, in the order of the stages."""
        seconds = {name: value for name, value in asdict(self).items() if name in STAGES}
        total = sum(seconds.values())
        return {name: value / total if total else 0.0 for name, value in seconds.items()}


@dataclass(frozen=True, slots=True)
class IndexReport:
    """The outcome of one run of indexing, in photos; times in seconds.

    ``indexed`` counts new and changed photos, ``removed`` those that left (``put_aside`` are all
    that are kept should their files come back, ``restored`` those that came back in this run),
    ``out_of_reach`` those that stay though their files were not seen, ``failed`` and ``skipped``
    all such files now in the folder. ``left_out`` counts what the walk met and did not take by
    reason (`LeftOut`), ``extensions`` the files of other kinds (``*.xmp``).
    ``texts_read`` and ``texts_failed`` count the photos whose text was read, or could not be.
    ``seconds`` is the time from the first folder read to the end, without ``load_seconds``
    (imports, model); ``stages`` says where it went.
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
    restored: int = 0
    put_aside: int = 0
    out_of_reach: int = 0
    left_out: Mapping[str, int] = field(default_factory=dict)
    extensions: Mapping[str, int] = field(default_factory=dict)
    texts_read: int = 0
    texts_failed: int = 0


@dataclass(frozen=True, slots=True)
class EmbedReport:
    """The outcome of a run of embedding into shards, in rows; times in seconds.

    Of ``rows`` rows listed in all, this run embedded ``embedded``, of which ``failed`` have no
    vector, and wrote ``written`` of ``shards`` shards. ``start_seconds`` passed until the cluster
    and the actors began the first piece of work, ``seconds`` from then on.
    """

    rows: int
    embedded: int
    failed: int
    shards: int
    written: int
    actors: int
    start_seconds: float
    list_seconds: float
    seconds: float


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
