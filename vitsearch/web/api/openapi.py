"""The description of the interface, as OpenAPI and as a page; nothing of it comes
from elsewhere.
"""

import html
from collections.abc import Iterator, Mapping
from typing import Any

from fastapi import APIRouter, FastAPI, Request
from fastapi.openapi.utils import get_openapi
from fastapi.responses import HTMLResponse, JSONResponse, Response

from vitsearch._version import __version__
from vitsearch.web.api.schemas import SearchRequest
from vitsearch.web.settings import ServeSettings

router = APIRouter(include_in_schema=False)
_LEFT_OUT = ("HTTPValidationError", "ValidationError")  # our errors have another shape
_TEXT = (
    "Search a collection of photos. Photos are named by ids, which stay; scores are cosine "
    "similarities."
)


def describe(app: FastAPI, settings: ServeSettings) -> dict[str, Any]:
    """Return the OpenAPI description of the routes below /api, /healthz and /metrics."""
    if app.openapi_schema:
        return app.openapi_schema
    description = get_openapi(
        title="vitsearch", version=__version__, description=_TEXT, routes=app.routes
    )
    schemas = description.setdefault("components", {}).setdefault("schemas", {})
    for name in _LEFT_OUT:
        schemas.pop(name, None)
    request_schema = SearchRequest.model_json_schema(ref_template="#/components/schemas/{model}")
    schemas |= request_schema.pop("$defs", {}) | {"SearchRequest": request_schema}
    for operations in description["paths"].values():
        for operation in operations.values():
            operation["responses"].pop("422", None)
    if settings.token:
        description["components"]["securitySchemes"] = {
            "token": {"type": "http", "scheme": "bearer"}
        }
        description["security"] = [{"token": []}]
        description["paths"]["/healthz"]["get"]["security"] = []
    app.openapi_schema = description
    return description


@router.get("/api/openapi.json")
def openapi(request: Request) -> Response:
    """Return the description for programs."""
    return JSONResponse(request.app.openapi())


@router.get("/api/docs")
def docs(request: Request) -> Response:
    """Return the description for people."""
    description = request.app.openapi()
    body = "".join(
        part
        for path, operations in description["paths"].items()
        for method, operation in operations.items()
        for part in _operation(path, method, operation)
    )
    schemas = "".join(
        _schema(name, schema) for name, schema in description["components"]["schemas"].items()
    )
    return HTMLResponse(
        '<!doctype html><html lang="en"><meta charset="utf-8"><meta name="viewport" '
        'content="width=device-width, initial-scale=1">'
        '<title>vitsearch: HTTP interface</title><link rel="icon" '
        'href="/static/icon.svg"><link rel="stylesheet" href="/static/app.css">'
        f'<main class="docs"><h1>HTTP interface</h1><p>{html.escape(_TEXT)} For programs: <a '
        'href="/api/openapi.json">OpenAPI</a>.</p>'
        f"{body}<h2>Shapes</h2>{schemas}</main></html>"
    )


def _operation(path: str, method: str, operation: Mapping[str, Any]) -> Iterator[str]:
    yield (
        f"<h2><code>{method.upper()} "
        f"{html.escape(path)}</code></h2><p>{html.escape(operation.get('description', ''))}</p>"
    )
    if parameters := operation.get("parameters"):
        rows = "".join(_parameter(parameter) for parameter in parameters)
        head = "<tr><th>parameter<th>in<th>type<th>default<th>meaning"
        yield f"<table><thead>{head}</thead><tbody>{rows}</tbody></table>"
    if "requestBody" in operation:
        kinds = "".join(
            f"<li><code>{html.escape(kind)}</code>: {_type(content['schema'])}</li>"
            for kind, content in operation["requestBody"]["content"].items()
        )
        yield f"<p>Body:</p><ul>{kinds}</ul>"
    answers = "".join(
        f"<li>{status}: {_answer(answer)}</li>"
        for status, answer in sorted(operation["responses"].items())
    )
    yield f"<p>Answers:</p><ul>{answers}</ul>"


def _parameter(parameter: Mapping[str, Any]) -> str:
    schema = parameter["schema"]
    default = (
        html.escape(str(schema["default"]))
        if "default" in schema
        else "required"
        if parameter.get("required")
        else ""
    )
    cells = (
        f"<code>{html.escape(parameter['name'])}</code>",
        parameter["in"],
        _type(schema),
        default,
        html.escape(parameter.get("description", "")),
    )
    return f"<tr><td>{'<td>'.join(cells)}"


def _answer(answer: Mapping[str, Any]) -> str:
    kinds = [
        f"<code>{html.escape(kind)}</code> {_type(content.get('schema', {}))}"
        for kind, content in answer.get("content", {}).items()
    ]
    return ", ".join(kinds) or html.escape(answer.get("description", ""))


def _schema(name: str, schema: Mapping[str, Any]) -> str:
    rows = "".join(
        f"<tr><td><code>{html.escape(field)}</code><td>{_type(facts)}"
        f"<td>{html.escape(facts.get('description', ''))}"
        for field, facts in schema.get("properties", {}).items()
    )
    return (
        f'<h3 id="{html.escape(name)}"><code>{html.escape(name)}</code></h3>'
        f"<p>{html.escape(schema.get('description', ''))}</p>"
        f"<table><thead><tr><th>field<th>type<th>meaning</thead><tbody>{rows}</tbody></table>"
    )


def _type(schema: Mapping[str, Any]) -> str:
    """Return a schema in a few words, with links to those that have a name."""
    if "$ref" in schema:
        name = html.escape(schema["$ref"].rpartition("/")[2])
        return f'<a href="#{name}">{name}</a>'
    if "anyOf" in schema:
        return " or ".join(_type(option) for option in schema["anyOf"])
    if schema.get("type") == "array":
        return f"list of {_type(schema.get('items', {}))}"
    if schema.get("properties"):
        return ", ".join(
            f"<code>{html.escape(name)}</code> ({_type(field)})"
            for name, field in schema["properties"].items()
        )
    low, high = schema.get("minimum"), schema.get("maximum")
    bounds = (
        f" from {low} to {high}" if low is not None and high is not None and high < 2**62 else ""
    )
    return html.escape(schema.get("format") or schema.get("type", "anything")) + bounds
