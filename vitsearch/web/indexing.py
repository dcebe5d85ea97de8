"""Indexing from the page and over HTTP: who may start and stop it, and with which settings."""

import importlib.util
import os
import re
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import Field
from typing import Any, get_args

from starlette.requests import Request

from vitsearch.collection.run_facts import WALK_SETTINGS, walk_settings
from vitsearch.collection.runs import IndexRunner
from vitsearch.encoders import SOURCES
from vitsearch.encoders.catalogue import list_encoders
from vitsearch.errors import CollectionError, NotShown, QueryError, VitsearchError
from vitsearch.options import IndexOptions, Option, options_of, value_type
from vitsearch.web.privacy import may_write

REFUSED = (
    "only the person at this machine may index photos, from the address that `vitsearch serve` "
    "printed; with --allow-edits everybody who has the token may"
)
NOT_ON_DISK = "a collection in Milvus is filled by `vitsearch push`, not from here"
Offered = dict[str, tuple[Field[Any], Option]]


def runner_of(request: Request) -> IndexRunner:
    """Return what indexes the photos of an application; raises NotShown for who may not use it, and
    QueryError where there is nothing to index.
    """
    runs: IndexRunner | None = request.app.state.runs
    if runs is None:
        raise QueryError(NOT_ON_DISK)
    if not may_write(request):
        raise NotShown(REFUSED)
    return runs


def may_index(request: Request) -> bool:
    """Return whether this client may start and stop runs of indexing."""
    return request.app.state.runs is not None and may_write(request)


def offered(*, is_new: bool) -> Offered:
    """Return the settings that a person may choose, for a collection that is new or for one that is
    there.
    """
    return {
        name: (entry, option)
        for name, (entry, option) in options_of(IndexOptions).items()
        if option.title and not (option.later if is_new else option.first)
    }


def encoders() -> dict[str, str]:
    """Return the encoders whose weights are on this machine, each with what it is."""
    has_torch = importlib.util.find_spec("torch") is not None
    return {
        each.name: SOURCES[each.name].help if each.name in SOURCES else ""
        for each in list_encoders()
        if each.on_this_machine and (has_torch or each.name in SOURCES)
    }


def three_state(entry: Field[Any]) -> bool:
    """Return whether a setting is yes, no, or as it was."""
    return value_type(entry) is bool and type(None) in get_args(entry.type)


def read_settings(values: Mapping[str, str], *, is_new: bool) -> dict[str, Any]:
    """Return the keywords of `index_folder` that a form holds; raises QueryError for a number that
    is not one.
    """
    options: dict[str, Any] = {}
    for name, (entry, option) in offered(is_new=is_new).items():
        text = values.get(name, "").strip()
        if not text:
            continue
        kind = value_type(entry)
        if kind is bool:
            options[name] = text != "no"
        elif kind is tuple:
            options[name] = [line.strip() for line in text.splitlines() if line.strip()]
        elif kind in (int, float):
            options[name] = _number(text, kind, option)
        else:
            options[name] = text
    return options


def _number(text: str, kind: Callable[[str], float], option: Option) -> float:
    try:
        return kind(text)
    except (ValueError, OverflowError):
        raise QueryError(f"{option.title}: {text[:40]!r} is not a number") from None


def last_settings(request: Request) -> dict[str, Any]:
    """Return the settings of the last run: the collection's record, which runs elsewhere write
    too, before what this server remembers.
    """
    runs, service = request.app.state.runs, getattr(request.app.state, "service", None)
    settings = dict(runs.options)
    if service is not None:
        with suppress(VitsearchError), service.source.facts() as store:
            settings |= walk_settings(store)
    return settings


def settings_to_retry(request: Request) -> dict[str, Any]:
    """Return the keywords of `index_folder` for the run that tries failures again: it takes and
    leaves out what the last one did.
    """
    last = last_settings(request)
    return {name: last[name] for name in WALK_SETTINGS if name in last} | {"retry": True}


def start(request: Request, options: Mapping[str, Any]) -> None:
    """Begin a run; raises NotShown, and QueryError for settings that cannot be, or while another
    run of this server goes on.
    """
    runs = runner_of(request)
    encoder = options.get("encoder")
    if encoder is not None and encoder not in encoders():
        raise QueryError(
            f"the model {str(encoder)[:100]!r} is not on this machine: choose one of "
            f"{', '.join(encoders())}, or run `vitsearch index` with it"
        )
    for name, (_, option) in options_of(IndexOptions).items():
        value = options.get(name)
        if option.choices and value not in (None, *option.choices):
            raise QueryError(
                f"{name} is one of {', '.join(option.choices)}, not {str(value)[:40]!r}"
            )
    try:
        IndexOptions(**options)
    except CollectionError as error:
        raise QueryError(str(error)) from error
    runs.start(options)


def without_root(text: str, runs: IndexRunner) -> str:
    """Return a message with the names of the photo folder and of the collection's in place of their
    paths on this machine.
    """
    for folder in (runs.root, runs.folder):
        path = os.path.abspath(folder)
        if name := os.path.basename(path):
            safe = name.replace("\\", r"\\")  # what a name holds is no reference to a group
            text = re.sub(re.escape(path) + r"(?![\w-])", safe, text)
    return text
