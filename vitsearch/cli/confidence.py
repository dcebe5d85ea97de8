"""Labels that are not sure enough for links and sidecars: asked about before they are written."""

import sys
from collections.abc import Container, Sequence
from typing import Any

import click

from vitsearch.cli.output import print_note, printable
from vitsearch.errors import VitsearchError
from vitsearch.types import Prediction

SURE = 0.5  # of the best label of a photo


def doubted(collection: Any, names: Sequence[str], templates: Any) -> set[str]:
    """Return the paths of the photos that "none of these" fits better than any of the names: of
    two words one may be far more probable than the other though the photo shows neither.
    """
    from vitsearch.labels import NOTHING

    best = collection.label(names, templates=templates, background=True)
    return {prediction.path for prediction in best if prediction.label == NOTHING}


def writes(options: dict[str, Any]) -> bool:
    """Return whether links or sidecars are written and nothing says down to which probability."""
    chosen = options["min_probability"], options.get("threshold")
    return bool(options["sort_into"] is not None or options["xmp"]) and chosen == (None, None)


def sure_enough(
    options: dict[str, Any], predictions: Sequence[Prediction], doubtful: Container[str] = ()
) -> Sequence[Prediction]:
    """Return the predictions, photo by photo and the best first, to write into links and sidecars.

    These are the ones of at least ``--min-probability``. Without it (and ``--threshold``), photos
    that are in doubt, or whose best label is less probable than `SURE`, are asked about; raises
    VitsearchError where nobody can be asked.
    """
    from vitsearch.labels import NOTHING

    if not writes(options):
        least = options["min_probability"] or 0.0
        return [prediction for prediction in predictions if prediction.score >= least]
    best: dict[str, Prediction] = {}
    for prediction in predictions:
        best.setdefault(prediction.path, prediction)
    unsure = {
        path
        for path, first in best.items()
        if first.label != NOTHING and (first.score < SURE or path in doubtful)
    }
    if not unsure or _confirmed([best[path] for path in best if path in unsure], len(best)):
        return predictions
    print_note(f"vitsearch: {_photos(len(unsure))} left out, for which no label is sure")
    return [prediction for prediction in predictions if prediction.path not in unsure]


def _confirmed(unsure: Sequence[Prediction], total: int) -> bool:
    """Return whether a person wants these labels written too; raises VitsearchError where nobody
    can be asked.
    """
    first = unsure[0]
    text = (
        f"no label is sure for {len(unsure):,} of {_photos(total)} (such as "
        f"{printable(first.label)!r} for {printable(first.path)})"
    )
    if sys.stdin.isatty() and sys.stderr.isatty():
        return click.confirm(f"vitsearch: {text}. Write their labels too?", err=True)
    raise VitsearchError(
        f"{text}: nothing was written; say with --min-probability P how probable a label must be, "
        "or write all with --min-probability 0"
    )


def _photos(count: int) -> str:
    return f"{count:,} {'photo' if count == 1 else 'photos'}"
