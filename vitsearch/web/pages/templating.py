"""How a page is drawn from its template."""

import hashlib
from collections.abc import Iterable, Mapping
from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from starlette.responses import HTMLResponse

from vitsearch.web.pages.tiles import clean, photo_address, thumbnail

HERE = Path(__file__).parents[1]
STATIC = HERE / "static"
VIEWS = (
    ("/", "Photos"),
    ("/labels", "Labels"),
    ("/map", "Map"),
    ("/duplicates", "Duplicates"),
    ("/failures", "Not indexed"),
)


@cache
def templates() -> Environment:
    """Return the templates; whatever they show is escaped, for it comes from file names."""
    found = Environment(
        loader=FileSystemLoader(HERE / "templates", encoding="utf-8"),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=clean,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    found.globals.update(
        asset_version=asset_version(),
        views=VIEWS,
        view="",
        thumbnail=thumbnail,
        photo_address=photo_address,
    )
    return found


@cache
def asset_version() -> str:
    """Return a short hash of what is beside the pages: another version has other addresses, so that
    caches never mix them.
    """
    found = hashlib.blake2b(digest_size=6)
    for file in sorted(STATIC.iterdir()):
        found.update(file.name.encode() + file.read_bytes())
    return found.hexdigest()


def page(
    name: str,
    facts: Mapping[str, Any],
    *,
    status: int = 200,
    headers: Iterable[tuple[str, str]] = (),
) -> HTMLResponse:
    """Return a drawn page; browsers keep it but ask again whether it is still so."""
    text = templates().get_template(name).render(facts)
    return HTMLResponse(
        text, status, headers={"Cache-Control": "private, no-cache", **dict(headers)}
    )
