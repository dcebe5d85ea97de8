"""The options of a search and of a run of indexing, each written once: default, range and help.

Python's keywords, the flags of the command line and the HTTP parameters all derive from the fields
of `SearchOptions` and `IndexOptions`. Nothing heavy is imported here, so that ``--help`` is quick.
"""

import math
import os
from collections.abc import Iterable, Sequence
from dataclasses import Field, dataclass, field, fields
from functools import cache
from numbers import Integral, Real
from typing import TYPE_CHECKING, Any, TypedDict, get_args, get_origin

from vitsearch.errors import CollectionError, QueryError
from vitsearch.types import MAX_PIXELS

if TYPE_CHECKING:
    from vitsearch.encoders.base import ImageEncoder
    from vitsearch.filters.tree import Filter
    from vitsearch.index.recipe import Recipe

TOP_K = 10


@dataclass(frozen=True, slots=True, kw_only=True)
class Option:
    """What a field of `SearchOptions` or `IndexOptions` is called, what it takes, and its help.

    ``flag`` is its name on the command line where that is not the field's with dashes,
    ``parameter`` its name in a URL ("" for none). The flag's value times ``unit`` is the field's.
    ``title`` is what the page calls it ("" where the page does not offer it); ``later`` is whether
    it means nothing for a new collection, ``first`` whether it stays as it was for one that is
    there.
    """

    help: str
    flag: str = ""
    short: str = ""
    metavar: str | None = None
    parameter: str = ""
    minimum: float | None = None
    maximum: float | None = None
    choices: tuple[str, ...] = ()
    unit: int = 1
    title: str = ""
    later: bool = False
    first: bool = False


def option(default: Any, help: str, **facts: Any) -> Any:
    """Return a field of a dataclass with a default, and an `Option` as its metadata."""
    return field(default=default, metadata={"option": Option(help=help, **facts)})


def options_of(options: type) -> dict[str, tuple[Field[Any], Option]]:
    """Return the fields of an options dataclass by name, each with its `Option`."""
    return {entry.name: (entry, entry.metadata["option"]) for entry in fields(options)}


def value_type(entry: Field[Any]) -> type:
    """Return what a flag or a URL gives for a field: bool, int, float, tuple (of texts) or str."""
    members = get_args(entry.type) or (entry.type,)
    if get_origin(entry.type) is Sequence:
        return tuple
    return next((kind for kind in (bool, int, float) if kind in members), str)


def check_names(options: type, names: Iterable[str], what: str) -> None:
    """Raise TypeError for a keyword that is not a field of an options dataclass; ``what`` takes
    them.
    """
    known = options_of(options)
    for name in names:
        if name not in known:
            raise TypeError(f"{what} has no {name!r}: it takes {', '.join(known)}")


# -- A search --------------------------------------------------------------------------------------


def check_top_k(top_k: int) -> None:
    """Raise QueryError unless this is a number of results."""
    if not _is_whole(top_k) or top_k < 1:
        raise QueryError(
            f"the number of results must be a whole number of at least 1, not {top_k!r}"
        )


def _is_whole(number: object) -> bool:
    return isinstance(number, Integral) and not isinstance(number, bool)


@cache
def _numbers() -> list[tuple[str, tuple[type, ...]]]:
    """Return the options of a search that are numbers, with all types that they may be."""
    types = ((entry.name, get_args(entry.type) or (entry.type,)) for entry in fields(SearchOptions))
    return [(name, (Real, *kinds)) for name, kinds in types if float in kinds]


def _check_numbers(options: "SearchOptions") -> None:
    for name, kinds in _numbers():
        if not isinstance(value := getattr(options, name), kinds):
            raise QueryError(f"{name} is a number, not {value!r}")


@dataclass(frozen=True, slots=True)
class SearchOptions:
    """How many results, from which one on, of which photos, how alike, how different from each
    other.

    ``top_k`` None returns all that reach ``min_score``. ``diverse`` from 0 to 1 trades likeness to
    the query for difference from the results before (maximal marginal relevance, Carbonell and
    Goldstein 1998), among the 200 most alike, then among the next 200, and so on. ``collapse`` is
    the cosine from which two photos count as the same, True for that of the collection's encoder.
    ``min_relevance`` leaves out what hardly shows the words of a query. ``literal`` takes dates,
    places and the like in a query string as words of the picture. Raises QueryError for a number
    outside its range.
    """

    top_k: int | None = option(
        TOP_K, "How many results.", short="-k", metavar="N", parameter="k", minimum=1
    )
    offset: int = option(
        0, "How many results to pass over.", metavar="N", parameter="offset", minimum=0
    )
    where: "Filter | None" = option(
        None,
        "Only photos like this: \"year >= 2019 and path like 'italy/%'\".",
        metavar="FILTER",
        parameter="where",
    )
    min_score: float | None = option(
        None,
        "Only results with at least this cosine.",
        metavar="X",
        parameter="min_score",
        minimum=-1,
        maximum=1,
    )
    min_relevance: float = option(
        0.1,
        "Only results that show the words at least this likely, from 0 to 1; 0 gives the nearest "
        "however far they are. Photos in a query are not judged.",
        metavar="X",
        parameter="min_relevance",
        minimum=0,
        maximum=1,
    )
    diverse: float = option(
        0.0,
        "Results unlike each other: from 0, the most alike to the query, to 1.",
        metavar="X",
        minimum=0,
        maximum=1,
    )
    collapse: bool | float | None = option(
        None, "Show one photo of those that are the same or look alike."
    )
    literal: bool = option(
        False, "Take dates, places and the like in the query as words of the picture."
    )

    def __post_init__(self) -> None:
        if self.top_k is not None:
            check_top_k(self.top_k)
        elif self.min_score is None:
            raise QueryError(
                "say how many results are wanted (top_k, at least 1), or from which score on "
                "(min_score)"
            )
        if not _is_whole(self.offset) or self.offset < 0:
            raise QueryError(
                f"the offset is the number of results to pass over, 0 or more, not {self.offset!r}"
            )
        _check_numbers(self)
        if self.min_score is not None and not -1 <= self.min_score <= 1:
            raise QueryError(f"a score is a cosine from -1 to 1, not {self.min_score}")
        if not 0 <= self.min_relevance <= 1:
            raise QueryError(f"relevance is from 0 to 1, not {self.min_relevance}")
        if not 0 <= self.diverse <= 1:
            raise QueryError(
                f"diverse is from 0 (most alike) to 1 (most different), not {self.diverse}"
            )
        if self.collapse is None or self.collapse is False:
            return
        if not 0 < self.collapse <= 1:
            raise QueryError(f"photos collapse from a cosine above 0 up to 1, not {self.collapse}")

    @property
    def end(self) -> float:
        """The position after the last result."""
        return math.inf if self.top_k is None else self.offset + self.top_k


class SearchKeywords(TypedDict, total=False):
    """The fields of `SearchOptions` but ``top_k``, for type checkers; a filter may be written as
    text.
    """

    offset: int
    where: "str | Filter | None"
    min_score: float | None
    min_relevance: float
    diverse: float
    collapse: bool | float | None
    literal: bool


# -- A run of indexing -----------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class IndexOptions:
    """How a folder is indexed, see `vitsearch.index_folder`; raises CollectionError for a number
    outside its range.
    """

    encoder: "str | ImageEncoder | None" = option(
        None,
        "The model (`vitsearch models`); mini for a new collection.",
        metavar="NAME",
        title="Model",
        first=True,
    )
    recipe: "str | os.PathLike[str] | Recipe | None" = option(
        None,
        "Index: auto, flat, hnsw, ivf, ivf-sq8, ivf-pq, sq8, rabitq, disk, gpu-flat, gpu-ivf, "
        "gpu-cagra, a TOML file; auto for a new one.",
        metavar="NAME|FILE",
    )
    device: str = option(
        "auto",
        "cpu, cuda, cuda:1, mps or auto; index also uses several: cuda:0,cuda:1 or cuda:all.",
        metavar="D",
    )
    dtype: str | None = option(
        None,
        "float32, float16, bfloat16 or int8 (on a CPU); auto: int8 for a new collection of 1,000 "
        "photos or more where it finds the same in a trial; float32, float16 on a GPU.",
        metavar="T",
        choices=("auto", "float32", "float16", "bfloat16", "int8"),
        title="Number format of the model",
        first=True,
    )
    runtime: str = option(
        "auto",
        "What runs a CLIP or SigLIP model: auto is ONNX Runtime on a CPU, if the model can be "
        "exported.",
        choices=("auto", "onnx", "torch"),
    )
    batch_size: int = option(32, "Photos encoded and stored at a time.", metavar="N", minimum=1)
    workers: int | None = option(None, "Threads that decode; one a core.", metavar="N", minimum=1)
    exclude: Sequence[str] = option(
        (),
        "Leave out paths or names like this; may be repeated.",
        metavar="GLOB",
        title="Leave out what is named like this, one a line",
    )
    include_hidden: bool = option(
        False,
        "Take hidden files, recycle bins, snapshots and previews of photo programs too.",
        title="Take hidden files, recycle bins and previews of photo programs too",
    )
    follow_symlinks: bool = option(
        False,
        "Enter linked folders (links to files are always followed).",
        title="Enter linked folders",
    )
    retry: bool = option(
        False,
        "Try again the files that are not readable photos; others are tried in every run.",
        title="Try again the files that are not readable photos",
        later=True,
    )
    reread: str | None = option(
        None,
        "Read again what is like GLOB, or everything, whatever its size and time; after PHOTOS.",
        metavar="[GLOB]",
        title="Read again what is named like this, changed or not (* is everything)",
        later=True,
    )
    keep_missing: int = option(
        30,
        "Keep the vectors of photos that are gone for so many days, should they come back.",
        metavar="DAYS",
        minimum=0,
        maximum=36_500,
        title="Days for which photos that are gone may come back",
        later=True,
    )
    accept_missing: bool = option(
        False,
        "Put photos aside even where their disk may be away or their folder is empty.",
        title="Put photos aside even where their disk may be away",
        later=True,
    )
    max_pixels: int = option(
        MAX_PIXELS, "Largest picture to decode.", flag="--max-megapixels", minimum=1, unit=10**6
    )
    exact_decode: bool | None = option(
        None,
        "Decode large JPEGs whole, or at the size that the model needs (cosine 0.995 or more); "
        "as before, scaled for a new collection.",
        flag="--exact-decode/--scaled-decode",
        title="Decode large JPEGs whole, not at the size that the model needs",
    )
    decode: str = option(
        "cpu",
        "Where JPEGs are decoded and resized: cpu, or device, where the model runs, whole, by "
        "nvJPEG on an NVIDIA GPU (cosine 0.995 or more); other photos by the CPU.",
        choices=("cpu", "device"),
    )
    decode_timeout: float | None = option(
        None,
        "Decode every photo in a child process, within this limit; without it only formats other "
        "than JPEG, PNG and WebP (180 s), and photos that took a run down.",
        metavar="SECONDS",
        title="Seconds in which a photo must be decoded, each in a process of its own",
    )
    video_every: float = option(
        5.0,
        "Least time between two moments of a video; what looks like the one before is left out.",
        metavar="SECONDS",
        minimum=0.1,
        title="Seconds between two moments of a video, at least",
    )
    ocr: bool | None = option(
        None,
        "Read the text in photos too, for --where \"text contains 'invoice'\" and words in quotes "
        "(with vitsearch[ocr]); as before.",
        flag="--ocr/--no-ocr",
        title="Read the text in photos too",
    )
    profile: str | os.PathLike[str] | None = option(
        None, "Write where the time went as a trace for chrome://tracing.", metavar="FILE"
    )

    def __post_init__(self) -> None:
        if min(self.batch_size, 1 if self.workers is None else self.workers, self.max_pixels) < 1:
            raise CollectionError("batch size, workers and the pixel cap must be at least 1")
        if not _is_whole(self.keep_missing) or not 0 <= self.keep_missing <= 36_500:
            raise CollectionError(
                f"photos that are gone are kept for 0 to 36,500 days, not {self.keep_missing!r}"
            )
        if not 0.1 <= self.video_every < math.inf:
            raise CollectionError(
                "the moments of a video must be at least 0.1 seconds apart, "
                f"not {self.video_every!r}"
            )
        if self.decode not in ("cpu", "device"):
            raise CollectionError(f"JPEGs are decoded on cpu or device, not on {self.decode!r}")
        if self.decode == "device" and self.exact_decode is False:
            raise CollectionError(
                "the device decodes JPEGs whole: leave out either --decode device or "
                "--scaled-decode"
            )
        seconds = self.decode_timeout
        if seconds is not None and not (
            isinstance(seconds, int | float) and 0 < seconds < math.inf
        ):
            raise CollectionError(
                "the time limit for decoding a photo must be a finite number of seconds above 0, "
                f"got {seconds!r}"
            )


class IndexKeywords(TypedDict, total=False):
    """The fields of `IndexOptions`, for type checkers."""

    encoder: "str | ImageEncoder | None"
    recipe: "str | os.PathLike[str] | Recipe | None"
    device: str
    dtype: str | None
    runtime: str
    batch_size: int
    workers: int | None
    exclude: Sequence[str]
    include_hidden: bool
    follow_symlinks: bool
    retry: bool
    reread: str | None
    keep_missing: int
    accept_missing: bool
    max_pixels: int
    exact_decode: bool | None
    decode: str
    decode_timeout: float | None
    video_every: float
    ocr: bool | None
    profile: str | os.PathLike[str] | None
