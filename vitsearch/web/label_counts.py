"""How the labels of a collection are spread over its photos."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from vitsearch.errors import QueryError
from vitsearch.filters.tree import Filter
from vitsearch.types import Prediction
from vitsearch.web.service import PhotoService

MAX_LABELS = 200


@dataclass(frozen=True, slots=True)
class LabelGroup:
    """A label, the number of photos that have it, and those with the highest scores, best first."""

    label: str
    photos: int
    examples: list[Prediction]


@dataclass(frozen=True, slots=True)
class LabelCounts:
    """The labels, the most frequent first, and the number of photos that have none; ``sample`` is
    of how many photos these are numbers, where not of all.
    """

    groups: list[LabelGroup]
    unlabelled: int
    sample: int | None = None


def split_labels(text: str) -> list[str]:
    """Return the labels of a text with commas between; raises QueryError for none, or too many."""
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
    """Return the photos of each of these labels, the most frequent label first."""
    names = split_labels(text)
    predictions = service.labels(names, where=where, background=background, multi=multi)
    return _counts(predictions, examples, service, where)


def stored_counts(service: PhotoService, where: Filter | None, examples: int) -> LabelCounts:
    """Return the photos of each stored label (`vitsearch label --store`), the most frequent label
    first.
    """
    return _counts(service.stored_labels(where), examples, service, where)


def _counts(
    predictions: Sequence[Prediction], examples: int, service: PhotoService, where: Filter | None
) -> LabelCounts:
    by_label: dict[str, list[Prediction]] = defaultdict(list)
    for prediction in predictions:
        by_label[prediction.label].append(prediction)
    groups = []
    for name, members in sorted(by_label.items(), key=lambda item: (-len(item[1]), item[0])):
        members.sort(key=lambda prediction: (-prediction.score, prediction.path))
        groups.append(LabelGroup(name, len(members), members[:examples]))
    labelled = {prediction.photo_id for prediction in predictions}
    sample = service.sample_size(where)
    if sample is None:
        total = service.count() if where is None else service.browse(k=1, where=where)[1]
    else:
        total = sample
    return LabelCounts(groups, max(0, total - len(labelled)), sample)
