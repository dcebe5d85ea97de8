"""The description of the HTTP interface is true: requests made from it meet no fault and no answer
of another shape.
"""

import os
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from schemathesis import GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi import checks

from helpers.photos import COLOURS, paint
from helpers.web_client import opened
from vitsearch import index_folder
from vitsearch.encoders.colour import ColourEncoder
from vitsearch.web import ServeSettings
from vitsearch.web.app import make_app
from vitsearch.web.several import Several
from vitsearch.web.several_app import several_app

pytestmark = pytest.mark.slow

# of requests that are as described, and as many that are not, for each of the operations
CASES = int(os.environ.get("VITSEARCH_SCHEMA_CASES", "40"))
# Not among them: positive_data_acceptance, for no JSON Schema says what a filter or a query may be;
# and negative_data_rejection, for a list of one number looks in an address like the number, and an
# empty one like nothing (what is refused is listed in test_web_api)
CHECKS = [
    not_a_server_error,
    checks.status_code_conformance,
    checks.content_type_conformance,
    checks.response_headers_conformance,
    checks.response_schema_conformance,
]
WITHOUT_PARAMETERS = {
    ("/api/info", "GET"),
    ("/api/index", "GET"),
    ("/api/index", "DELETE"),
    ("/healthz", "GET"),
    ("/metrics", "GET"),
}
OPERATIONS = {
    ("/api/search", "GET"),
    ("/api/search", "POST"),
    ("/api/similar/{photo_id}", "GET"),
    ("/api/photos/{photo_id}", "GET"),
    ("/api/photos/{photo_id}/thumbnail", "GET"),
    ("/api/photos/{photo_id}/image", "GET"),
    ("/api/labels", "GET"),
    ("/api/index", "POST"),
}
ways = settings(
    max_examples=CASES,
    deadline=None,
    suppress_health_check=list(HealthCheck),
    derandomize=True,
    database=None,
)
statuses: Counter[int] = Counter()
# of several collections: the search in all, and one collection below its address
IN_ALL = {("/api/search", "GET"), ("/api/search", "POST")}
few = settings(ways, max_examples=max(10, CASES // 5))


@pytest.fixture(scope="module")
def described(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    folder: Path = tmp_path_factory.mktemp("described")
    for colour in COLOURS:
        paint(folder / f"{colour}.png", colour)
    index_folder(folder, encoder=ColourEncoder())
    chosen = ServeSettings(hosts=("testserver",))
    with opened(folder, chosen) as service:
        yield schema_of(make_app(service, chosen))


def schema_of(app: Any, below: str = "") -> Any:
    """Return the description of an application, or of what is below a path of it."""

    async def without_end(scope: Any, receive: Any, send: Any) -> None:
        assert (
            scope["type"] != "lifespan"
        )  # schemathesis ends an application after each look at it, and this one stays ended
        raw = below.encode() + scope.get("raw_path", scope["path"].encode())
        await app({**scope, "path": below + scope["path"], "raw_path": raw}, receive, send)

    return schemathesis.openapi.from_asgi("/api/openapi.json", without_end)


@pytest.fixture(scope="module")
def several(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Any, Any]]:
    """The descriptions of the application of several collections, and of one of them."""
    folders = [tmp_path_factory.mktemp(name) for name in ("reds", "blues")]
    for folder, colour in zip(folders, COLOURS, strict=False):
        paint(folder / f"{colour}.png", colour)
        index_folder(folder, encoder=ColourEncoder())
    served = Several([str(folder) for folder in folders])
    app = several_app(served, ServeSettings(hosts=("testserver",)))
    try:
        yield schema_of(app), schema_of(app, served.members[0].path)
    finally:
        served.close()


@pytest.mark.parametrize("mode", list(GenerationMode))
@pytest.mark.parametrize(("path", "method"), sorted(OPERATIONS))
def test_every_answer_is_as_described(
    described: Any, path: str, method: str, mode: GenerationMode
) -> None:
    @ways
    @given(case=described[path][method].as_strategy(generation_mode=mode))
    def answer(case: Any) -> None:
        if mode.is_positive and "photo_id" in case.path_parameters:
            case.path_parameters["photo_id"] = (
                case.path_parameters["photo_id"] % 5 + 1
            )  # most of them are there, 5 is not
        response = case.call()
        statuses[response.status_code] += 1
        case.validate_response(response, checks=CHECKS)

    answer()


def test_a_term_for_a_photo_that_is_not_there(described: Any) -> None:
    case = described["/api/search"]["POST"].Case(
        body={"terms": [{"photo": 10**10}]}, media_type="application/json"
    )
    response = case.call()
    assert response.status_code == 404
    case.validate_response(response, checks=CHECKS)


@pytest.mark.parametrize(("path", "method"), sorted(WITHOUT_PARAMETERS))
def test_what_takes_no_parameters(described: Any, path: str, method: str) -> None:
    case = described[path][method].Case()
    response = case.call()
    statuses[response.status_code] += 1
    case.validate_response(response, checks=CHECKS)


@pytest.mark.parametrize("mode", list(GenerationMode))
@pytest.mark.parametrize(("path", "method"), sorted(IN_ALL | OPERATIONS))
def test_every_answer_of_several_is_as_described(
    several: tuple[Any, Any], path: str, method: str, mode: GenerationMode
) -> None:
    for described, operations in zip(several, (IN_ALL, OPERATIONS), strict=True):
        if (path, method) not in operations:
            continue

        @few
        @given(case=described[path][method].as_strategy(generation_mode=mode))
        def answer(case: Any) -> None:
            response = case.call()
            statuses[response.status_code] += 1
            case.validate_response(response, checks=CHECKS)

        answer()


def test_enough_was_asked(described: Any) -> None:
    operations = {
        (result.ok().path, result.ok().method.upper()) for result in described.get_all_operations()
    }
    assert operations == OPERATIONS | WITHOUT_PARAMETERS
    assert statuses.total() >= 13 * CASES
    assert {200, 400, 404} <= set(statuses)
    assert max(statuses) < 500
