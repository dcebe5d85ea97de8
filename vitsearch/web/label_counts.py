"""How the labels of a collection are spread over its photos."""

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass

from vitsearch.errors import QueryError
from vitsearch.filters import Filter
from vitsearch.types import Prediction
from vitsearch.web.service import PhotoService

MAX_LABELS = 200


@dataclass(frozen=True, slots=True)
class LabelGroup:
    """One label, the number of photos that have it, and those that have it most clearly, best
    first.
    """

    label: str
    photos: int
    examples: list[Prediction]


@dataclass(frozen=True, slots=True)
class LabelCounts:
    """The labels, that with the most photos first, and the number of photos that have none."""

    groups: list[LabelGroup]
    unlabelled: int


def split_labels(text: str) -> list[str]:
    """Return labels with commas between; raises QueryError for none, or too many."""
    names = [name.strip() for name in text.split(",") if name.strip()]
    if not names:
        raise QueryError("give labels with commas between: cat, dog")
    if len(names) > MAX_LABELS:
        raise QueryError(f"{len(names)} labels are more than {MAX_LABELS}: label with fewer")
    return names


def label_counts(
    service: PhotoService,
    text: str,
    where: Filter | None,
    *,
    examples: int,
    background: bool,
    multi: bool,
) -> LabelCounts:
    """Return the photos of each of these labels, the label with the most photos first."""
    found = service.labels(split_labels(text), where=where, background=background, multi=multi)
    total = service.count() if where is None else service.browse(k=1, where=where)[1]
    return _counts(found, examples, unlabelled=max(0, total - len({one.photo_id for one in found})))


def stored_counts(service: PhotoService, where: Filter | None, examples: int) -> LabelCounts:
    """Return the photos of each stored label (`vitsearch label --store`), the label with the most
    photos first.
    """
    found = [
        Prediction(photo.path, photo.label or "", photo.label_score or 0.0, photo.photo_id)
        for photo in service.stored_labels(where)
    ]
    total = service.count() if where is None else service.browse(k=1, where=where)[1]
    return _counts(found, examples, unlabelled=max(0, total - len(found)))


def _counts(predictions: Iterable[Prediction], examples: int, unlabelled: int) -> LabelCounts:
    found: dict[str, list[Prediction]] = defaultdict(list)
    for one in predictions:
        found[one.label].append(one)
    ordered = sorted(found.items(), key=lambda group: (-len(group[1]), group[0]))
    groups = [
        LabelGroup(
            name, len(group), sorted(group, key=lambda one: (-one.score, one.path))[:examples]
        )
        for name, group in ordered
    ]
    return LabelCounts(groups, unlabelled)
