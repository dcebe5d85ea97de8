"""The shapes of the requests and answers of the HTTP interface."""

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from vitsearch.types import Photo, Prediction, SearchResult, raw_path
from vitsearch.web.asking import LONGEST_TEXT, MOST_PASSED_OVER, MOST_RESULTS, MOST_TERMS
from vitsearch.web.labelled import LabelCounts

LONGEST_FILTER = 4000
DEFAULT_RESULTS = 50
MOST_ID = 2**63 - 1
EXIF_FIELDS = ("taken_at", "camera", "latitude", "longitude")

PhotoId = Annotated[int, Field(ge=1, le=MOST_ID, description="the id of a photo of the collection")]


class Error(BaseModel):
    """What went wrong: a short code for programs, a line for people."""

    code: str
    message: str


class ErrorAnswer(BaseModel):
    """The one shape of every answer that is an error."""

    error: Error


class Hit(BaseModel):
    """One photo of a result, and its cosine similarity to the query."""

    id: int
    path: str = Field(description="relative to the photo folder; bytes that are no UTF-8 are shown as U+FFFD")
    score: float


class SearchAnswer(BaseModel):
    """Photos, best first, equal scores in order of path."""

    results: list[Hit]
    k: int
    offset: int
    notes: list[str] = Field(description="what to know about the words of the query")


class TermRequest(BaseModel):
    """One part of a query: words, or a photo of the collection; a negative weight means 'not'."""

    model_config = ConfigDict(extra="forbid")

    text: Annotated[str, Field(min_length=1, max_length=LONGEST_TEXT)] | None = None
    photo: PhotoId | None = None
    weight: Annotated[float, Field(ge=-1000, le=1000)] = 1.0


class SearchRequest(BaseModel):
    """A query of words in the query language, of terms, of a vector, or of several of these together, and what is wanted of its results."""

    model_config = ConfigDict(extra="forbid")

    q: Annotated[str, Field(max_length=LONGEST_TEXT, description='words, or terms such as "2:beach + dog - people"')] | None = None
    terms: Annotated[list[TermRequest], Field(max_length=MOST_TERMS)] | None = None
    vector: Annotated[list[float], Field(max_length=16384, description="of the collection's own model")] | None = None
    k: Annotated[int, Field(ge=1, le=MOST_RESULTS)] = DEFAULT_RESULTS
    offset: Annotated[int, Field(ge=0, le=MOST_PASSED_OVER)] = 0
    where: Annotated[str, Field(max_length=LONGEST_FILTER)] | None = None
    min_score: Annotated[float, Field(ge=-1, le=1)] | None = None


class PhotoAnswer(BaseModel):
    """One photo. The fields of EXIF are missing where the server does not show them."""

    id: int
    path: str
    bytes: int
    modified_at: str = Field(description="of the file, UTC")
    width: int
    height: int
    fingerprint: str
    label: str | None
    label_score: float | None
    taken_at: str | None = None
    camera: str | None = None
    latitude: float | None = None
    longitude: float | None = None


class LabelAnswer(BaseModel):
    """One label, the number of photos that have it, and those that have it most clearly, best first."""

    label: str
    photos: int
    examples: list[Hit]


class LabelsAnswer(BaseModel):
    """The labels with their photos; ``unlabelled`` photos have none."""

    labels: list[LabelAnswer]
    unlabelled: int


class InfoAnswer(BaseModel):
    """What the collection holds and what the server shows; a collection in Milvus does not say all of it."""

    version: str
    photos: int
    failed: int | None = None
    skipped: int | None = None
    encoder: str
    dim: int
    reads_text: bool
    index: str | None
    recall: float | None
    created_at: str | None = None
    changed_at: str | None = None
    database_bytes: int | None = None
    index_bytes: int | None = None
    exif_shown: bool


class HealthAnswer(BaseModel):
    """The server lives and can read its collection."""

    status: str


def shown(text: str) -> str:
    """Return a path or label as text that every client can read: bytes that are no UTF-8 become U+FFFD."""
    return raw_path(text).decode("utf-8", "replace")


def hits(results: Sequence[SearchResult | Prediction]) -> list[Hit]:
    """Return results as the interface answers them."""
    return [Hit.model_construct(id=one.photo_id, path=shown(one.path), score=round(one.score, 6)) for one in results]


def labels_answer(counts: LabelCounts) -> LabelsAnswer:
    """Return labels as the interface answers them."""
    listed = [LabelAnswer(label=shown(one.label), photos=one.photos, examples=hits(one.examples)) for one in counts.groups]
    return LabelsAnswer(labels=listed, unlabelled=counts.unlabelled)


def photo_answer(photo: Photo, exif: bool) -> PhotoAnswer:
    """Return a photo as the interface answers it, with its EXIF or without."""
    facts = {name: getattr(photo.info, name) for name in EXIF_FIELDS} if exif else {}
    return PhotoAnswer(
        id=photo.photo_id,
        path=shown(photo.path),
        bytes=photo.size,
        modified_at=_iso(photo.mtime_ns),
        width=photo.info.width,
        height=photo.info.height,
        fingerprint=photo.fingerprint.hex(),
        label=None if photo.label is None else shown(photo.label),
        label_score=photo.label_score,
        **facts,
    )


def _iso(mtime_ns: int) -> str:
    try:
        return datetime.fromtimestamp(mtime_ns // 1_000_000_000, UTC).isoformat(timespec="seconds")
    except (ValueError, OverflowError, OSError):  # a file system may say anything
        return ""
