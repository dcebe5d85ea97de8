"""The view of labels: the photos of each, which are right and wrong, and training on that."""

import csv
import io
from collections import Counter
from collections.abc import Mapping, Sequence
from heapq import nsmallest
from importlib.util import find_spec
from typing import Any, NamedTuple, get_args

from fastapi import APIRouter, Request
from starlette.concurrency import run_in_threadpool
from starlette.datastructures import URL
from starlette.responses import JSONResponse, RedirectResponse, Response

from vitsearch.collection.training import (
    Method,
    can_restore_labels,
    label_with_examples,
    put_with_undo,
    restore_labels,
    train_examples,
)
from vitsearch.errors import NotShown, QueryError, ServiceBusy, VitsearchError
from vitsearch.labels import NOTHING, parse_labels
from vitsearch.labels.metrics import accuracy_interval
from vitsearch.storage.store import PhotoStore
from vitsearch.storage.user_data import (
    Example,
    can_undo,
    examples,
    put_examples,
    trained,
    undo,
    writing,
)
from vitsearch.types import Prediction
from vitsearch.web.pages import (
    PER_PAGE,
    PageQuery,
    Pairs,
    Tile,
    address,
    counted,
    label_lines,
    neighbours,
    page_number,
    selection,
    spoken_date,
)
from vitsearch.web.pages.context import Page, PageContext, form_of
from vitsearch.web.pages.photo import cell
from vitsearch.web.responses import wants_page
from vitsearch.web.security import own_address
from vitsearch.web.source import busy_when_locked

router = APIRouter(include_in_schema=False)

PATH = "/labels"
MAX_ROWS, PER_ROW = 30, 8  # labels whose photos are shown at once, and photos of each
MAX_FIELDS = 1300  # of a form: the most photos that may be ticked, and the answers beside them
SHOWS = {"": "By label", "unsure": "Least sure first", "examples": "Your examples"}


class LabelledTile(NamedTuple):
    """A photo in this view: its label, a word about that, and what a person said."""

    tile: Tile
    label: str
    detail: str
    example: Example


class Judgement(NamedTuple):
    """The examples of a collection by photo, whether a change of them can be undone, what is known
    of the classifier that was trained on them, and whether the labels of before can be restored.
    """

    examples: dict[int, Example]
    can_undo: bool
    trained: dict[str, Any] | None
    can_restore: bool


def _judgement(here: PageContext) -> Judgement:
    with here.service.source.facts() as store:
        if not isinstance(store, PhotoStore):
            return Judgement({}, False, None, False)
        return Judgement(
            examples(store), can_undo(store), trained(store), can_restore_labels(store)
        )


# -- the view --------------------------------------------------------------------------------------


@router.get(PATH)
def labels(here: Page) -> Response:
    """The photos of each label, stored ones or any others; those of one label, those whose label is
    least sure, or those of which a person said something.
    """
    parameters = here.request.query_params
    text, chosen = parameters.get("labels", "").strip(), parameters.get("class", "")
    background, show = parameters.get("background") == "1", parameters.get("show", "")
    pairs = [("labels", text)] if text else []
    pairs += [("background", "1")] if background else []
    shown: dict[str, Any] = {
        "text": text,
        "background": background,
        "show": "" if show not in SHOWS else show,
        "tabs": [(title, _with(pairs, "show", key), key) for key, title in SHOWS.items()],
        "back": own_address(here.request.url),
        "fault": "",
        "classes": [],
        "rows": [],
        "tiles": [],
        "chosen": "",
        "total": 0,
        "highest": 0,
        "query": PageQuery(),
        "judging": None,
        "sample": here.service.sample_size(),
    }
    try:
        number = page_number(parameters.get("page", ""))
        predictions = _zero_shot(here, text, background) if text else here.service.stored_labels()
        names = _names(text)
    except ServiceBusy:
        raise
    except VitsearchError as error:
        return here.page("labels.html", status=400, view=PATH, **shown | {"fault": str(error)})
    state = _judgement(here)
    counts = Counter(prediction.label for prediction in predictions)
    frequent = sorted(counts, key=lambda name: (-counts[name], name))
    names = list(dict.fromkeys([*names, *frequent]))
    for name in names:
        members_address = address(PATH, [*pairs, ("class", name)]) + "#members"
        shown["classes"].append({"name": name, "count": counts[name], "address": members_address})
    shown |= {"total": len(predictions), "highest": max(counts.values(), default=0)}
    if here.may_write:
        shown["judging"] = _judging(here, state, names)
    if chosen in names:
        members = _best_first(predictions, chosen)
        shown |= _members(here, state, members, number, _pairs(pairs, "class", chosen))
        shown["chosen"] = chosen
    elif shown["show"]:
        members = _of_interest(here, state, predictions, shown["show"])
        shown |= _members(here, state, members, number, _pairs(pairs, "show", show))
    else:
        shown["rows"] = _rows(here, state, predictions, shown["classes"][:MAX_ROWS])
    return here.page("labels.html", view=PATH, **shown)


def _pairs(pairs: Pairs, name: str, value: str) -> Pairs:
    return [*pairs, (name, value)] if value else pairs


def _with(pairs: Pairs, name: str, value: str) -> str:
    return address(PATH, _pairs(pairs, name, value))


def _names(text: str) -> list[str]:
    return [label.name for label in parse_labels(label_lines(text))] if text else []


def _zero_shot(here: PageContext, text: str, background: bool) -> list[Prediction]:
    return here.service.labels(label_lines(text), background=background)


def _best_first(predictions: Sequence[Prediction], label: str) -> list[Prediction]:
    """Return the predictions of a label, the surest first."""
    return sorted((each for each in predictions if each.label == label), key=_surest_first)


def _surest_first(prediction: Prediction) -> tuple[float, str]:
    return -prediction.score, prediction.path


def _of_interest(
    here: PageContext, state: Judgement, predictions: Sequence[Prediction], show: str
) -> list[Prediction]:
    """Return the photos of which a person has said something, or the others, those of the least
    probable labels first: an example of them teaches the most (uncertainty sampling, Lewis and
    Gale 1994, arXiv:cmp-lg/9407020).
    """
    if show == "unsure":
        others = [each for each in predictions if each.photo_id not in state.examples]
        return sorted(others, key=lambda prediction: (prediction.score, prediction.path))
    by_id = {prediction.photo_id: prediction for prediction in predictions}
    return [
        by_id.get(photo.photo_id, Prediction(photo.path, photo.label or "", 0.0, photo.photo_id))
        for photo in here.service.photos_of(sorted(state.examples))
    ]


def _members(
    here: PageContext, state: Judgement, members: Sequence[Prediction], number: int, pairs: Pairs
) -> dict[str, Any]:
    """Return a page of photos."""
    start = (number - 1) * PER_PAGE
    return {
        "members": len(members),
        "tiles": _tiles(here, state, members[start : start + PER_PAGE]),
        "page": number,
        **neighbours(PATH, pairs, number, more=len(members) > start + PER_PAGE),
    }


def _rows(
    here: PageContext,
    state: Judgement,
    predictions: Sequence[Prediction],
    classes: Sequence[Mapping[str, Any]],
) -> list[dict[str, Any]]:
    """Return the first photos of each of these labels that has some."""
    by_label: dict[str, list[Prediction]] = {label["name"]: [] for label in classes}
    for prediction in predictions:
        if prediction.label in by_label:
            by_label[prediction.label].append(prediction)
    first = {
        name: nsmallest(PER_ROW, members, key=_surest_first) for name, members in by_label.items()
    }
    tiles = {
        each.tile.photo_id: each
        for each in _tiles(here, state, [each for members in first.values() for each in members])
    }
    rows = [
        {**label, "tiles": [tiles[each.photo_id] for each in first[label["name"]]
                            if each.photo_id in tiles]}
        for label in classes
    ]  # fmt: skip
    return [row for row in rows if row["tiles"]]


def _tiles(
    here: PageContext, state: Judgement, predictions: Sequence[Prediction]
) -> list[LabelledTile]:
    by_id = {prediction.photo_id: prediction for prediction in predictions}
    return [
        LabelledTile(
            tile,
            by_id[tile.photo_id].label,
            f"{by_id[tile.photo_id].label} {100 * by_id[tile.photo_id].score:.0f} %",
            state.examples.get(tile.photo_id, Example(tile.photo_id)),
        )
        for tile in here.tiles(predictions)
    ]


# -- examples and training -------------------------------------------------------------------------


def _judging(here: PageContext, state: Judgement, names: Sequence[str]) -> dict[str, Any]:
    """Return what a person who may judge labels is shown: the labels to choose from, the number of
    examples of each, the ways to train, and what the last training came to.
    """
    right = Counter(each.label for each in state.examples.values() if each.label)
    options = [name for name in dict.fromkeys([*names, *sorted(right)]) if name != NOTHING]
    return {
        "options": [*options, NOTHING],
        "right": right.most_common(),
        "summary": _summary(state),
        "can_undo": state.can_undo,
        "methods": _methods(here) if len(right) > 1 else [],
        "trained": state.trained and _trained_text(state.trained),
        "can_restore": state.can_restore,
    }


def _summary(state: Judgement) -> str:
    right = sum(bool(example.label) for example in state.examples.values())
    wrong = len(state.examples) - right
    if not state.examples:
        return "No examples yet"
    more = f", {wrong:,} more with a wrong label" if wrong else ""
    return f"{counted(right, 'example', 'examples')}{more}"


def _methods(here: PageContext) -> list[tuple[str, str, str]]:
    """Return the name, title and use of each method that can be used here, the usual one first."""
    methods = [
        ("prototype", "Prototype", "only the labels that have examples; one of each is enough")
    ]
    if here.service.reads_text:
        methods.insert(
            0, ("tip", "Words and examples", "all labels; good from the first example on")
        )
    if find_spec("sklearn"):
        methods.append(
            (
                "probe",
                "Probe",
                "only the labels that have two examples or more; the best with twenty",
            )
        )
    return methods


def _trained_text(facts: Mapping[str, Any]) -> str:
    text = (
        f"Trained on {counted(facts['photos'], 'example', 'examples')} of {facts['classes']:,} "
        f"labels ({facts['method']}, {spoken_date(str(facts['trained_at'])[:16])} UTC)"
    )
    if not facts["validated"]:
        return f"{text}: its accuracy can be measured when every label has two examples."
    low, high = accuracy_interval(facts["right"], facts["validated"])
    return (
        f"{text}: accuracy {facts['right'] / facts['validated']:.3f} (95 % interval {low:.3f} to "
        f"{high:.3f}) on examples left out in turn."
    )


@router.get("/labels/examples.csv")
def examples_csv(here: Page) -> Response:
    """The photos whose label a person gave, as ``path,label``."""
    by_photo = _judgement(here).examples
    out = io.StringIO(newline="")
    rows = csv.writer(out, lineterminator="\n")
    rows.writerow(["path", "label"])
    for photo in here.service.photos_of(sorted(by_photo)):
        if label := by_photo[photo.photo_id].label:
            rows.writerow([cell(photo.file), cell(label)])
    return Response(
        out.getvalue().encode("utf-8", "surrogateescape"),
        media_type="text/csv",
        headers={"Content-Disposition": 'attachment; filename="examples.csv"'},
    )


@router.post(PATH)
async def change(request: Request) -> Response:
    """Take what a person says about labels, or train on it; answers a page by going back to it, and
    its script by the photos that have changed.
    """
    here = PageContext(request)
    values, ids = await form_of(request, MAX_FIELDS)
    changed = await run_in_threadpool(_change, here, values, ids)
    if wants_page(request):
        return RedirectResponse(_back(values.get("back", ""), changed), 303)
    state = await run_in_threadpool(_judgement, here)
    photos = [state.examples.get(each, Example(each)) for each in changed]
    return JSONResponse(
        {
            "photos": [each._asdict() for each in photos],
            "summary": _summary(state),
            "can_undo": state.can_undo,
        }
    )


def _back(to: str, changed: Sequence[int]) -> str:
    """Return the address in this view to go back to, at the photo that was changed."""
    back = own_address(URL(to))
    back = back if back.partition("?")[0] == PATH else PATH
    return f"{back}#photo{changed[0]}" if len(changed) == 1 else back


def _change(here: PageContext, values: Mapping[str, str], ticked: Sequence[str]) -> list[int]:
    """Make a change and return the ids of the photos whose examples changed."""
    if not here.may_write:
        raise NotShown(
            "only the person at this machine may say which labels are right, from the address that "
            "`vitsearch serve` printed; with --allow-edits everybody who has the token may"
        )
    action, _, rest = values.get("do", "").partition(" ")
    with busy_when_locked():
        if action in ("train", "apply"):
            return _learn(here, values if action == "train" else {})
        with writing(here.service.source.folder) as store:
            if action == "undo":
                return undo(store)
            if action == "restore":
                restore_labels(store)
                return []
            changed = _new_examples(store, action, rest, values, ticked)
            put_examples(store, changed)
            return [example.photo_id for example in changed]


def _new_examples(
    store: PhotoStore, action: str, rest: str, values: Mapping[str, str], ticked: Sequence[str]
) -> list[Example]:
    """Return the examples that a form gives: ``right ID LABEL`` and ``wrong ID LABEL``, each taken
    back where it was said before; ``as ID`` with the label of the field ``as ID``; and ``ticked``
    with that of the field ``label``.
    """
    before = examples(store)
    if action == "ticked":
        label = values.get("label", "").strip()
        if not label:
            raise QueryError("say which label the ticked photos have")
        return [before.get(each, Example(each)).with_label(label) for each in selection(ticked)]
    number, _, label = rest.partition(" ")
    [photo_id] = selection([number])
    example = before.get(photo_id, Example(photo_id))
    if action == "right":
        return [example.with_label("" if example.label == label else label)]
    if action == "wrong":
        if label in example.wrong:
            return [example.with_label(label)._replace(label=example.label)]
        return [example.without(label)]
    if action == "as":
        return [example.with_label(values.get(f"as {photo_id}", "").strip())]
    raise QueryError("a label can be right, wrong, or another one")


def _learn(here: PageContext, values: Mapping[str, str]) -> list[int]:
    """Train on the examples by a method, or without one label the photos by the classifier of
    before.
    """
    method, source = values.get("method", ""), here.service.source
    if values and method not in get_args(Method):
        raise QueryError(f"there is no method {method!r}: choose {', '.join(get_args(Method))}")
    with source.reading() as collection, source.encoding:
        if values:
            names = label_lines(values.get("labels", "")) or sorted(
                {photo.label for photo in collection.photos() if photo.label}
            )
            train_examples(collection, method, names)  # type: ignore[arg-type]
        else:
            predictions = label_with_examples(collection)
            with writing(collection.folder) as store:
                put_with_undo(store, predictions)
    return []
