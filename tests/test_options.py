"""The options of a search and of indexing are written once: what repeats them for others agrees."""

import inspect
from dataclasses import fields
from typing import Any, get_args, get_type_hints

import click
import pytest

from vitsearch import Collection, index_folder
from vitsearch.cli.index import index
from vitsearch.cli.search import search, similar
from vitsearch.encoders.base import ImageEncoder
from vitsearch.errors import CollectionError
from vitsearch.filters import Filter
from vitsearch.index.recipe import Recipe
from vitsearch.options import (
    TOP_K,
    IndexKeywords,
    IndexOptions,
    SearchKeywords,
    SearchOptions,
    options_of,
)
from vitsearch.web import routes
from vitsearch.web.schemas import BODY, FORM_TYPE, SearchRequest

NAMES = {"Filter": Filter, "ImageEncoder": ImageEncoder, "Recipe": Recipe}


def hints(of: type) -> dict[str, Any]:
    return get_type_hints(of, localns=NAMES)


def defaults(command: click.Command) -> dict[str, Any]:
    return {str(entry.name): entry.default for entry in command.params}


def test_the_keywords_for_type_checkers_are_the_fields() -> None:
    assert hints(IndexKeywords) == hints(IndexOptions)
    options = {name: set(get_args(kind)) or {kind} for name, kind in hints(SearchOptions).items()}
    assert options.pop("top_k") == {int, type(None)}
    options["where"].add(str)  # a filter may be written as text
    keywords = hints(SearchKeywords).items()
    assert {name: set(get_args(kind)) or {kind} for name, kind in keywords} == options


def test_every_option_of_a_search_has_a_flag_and_of_indexing_too() -> None:
    names = {entry.name for entry in fields(SearchOptions)}
    assert names <= defaults(search).keys()
    assert names - {"literal", "min_relevance"} <= defaults(similar).keys()  # a photo has no words
    known = defaults(index)
    assert {entry.name for entry in fields(IndexOptions)} <= known.keys()
    assert (known["batch_size"], known["max_pixels"]) == (32, 250)


def test_the_number_of_results_has_one_default() -> None:
    for method in (Collection.search, Collection.search_batch, Collection.similar):
        assert inspect.signature(method).parameters["top_k"].default == TOP_K
    assert SearchOptions().top_k == TOP_K


def test_http_takes_the_options_that_have_a_parameter() -> None:
    named = {option.parameter for _, option in options_of(SearchOptions).values()} - {""}
    assert named == {"k", "offset", "where", "min_score", "min_relevance"}
    assert named <= inspect.signature(routes.search).parameters.keys()
    # a photo has no words
    assert named - {"min_relevance"} <= inspect.signature(routes.similar).parameters.keys()
    assert named <= SearchRequest.model_fields.keys()
    form = BODY["content"][FORM_TYPE]["schema"]["properties"]
    assert named <= form.keys()
    assert {name: form["min_score"][name] for name in ("minimum", "maximum")} == {
        "minimum": -1,
        "maximum": 1,
    }


@pytest.mark.parametrize("name", ["batch_size", "workers", "max_pixels"])
def test_a_number_below_1_is_refused(name: str) -> None:
    with pytest.raises(CollectionError, match="at least 1"):
        IndexOptions(**{name: 0})


def test_a_misspelt_keyword_is_named_with_those_there_are() -> None:
    with pytest.raises(TypeError, match=r"index_folder has no 'batchsize': it takes encoder, "):
        index_folder("photos", batchsize=3)  # type: ignore[call-arg]
