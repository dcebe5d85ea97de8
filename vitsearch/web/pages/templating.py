"""Pages drawn from their templates."""

import hashlib
from collections.abc import Iterable, Mapping
from functools import cache, lru_cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from starlette.responses import HTMLResponse

from vitsearch.web.pages.tiles import clean, thumbnail
from vitsearch.web.pages.url import PhotoLinks

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
    """Return the templates, which escape whatever they show: it may come from file names."""
    environment = Environment(
        loader=FileSystemLoader(HERE / "templates", encoding="utf-8"),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=clean,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.globals.update(
        asset_version=asset_version(),
        views=VIEWS,
        view="",
        thumbnail=thumbnail,
        photo_links=lru_cache(64)(PhotoLinks),
    )
    return environment


def load_templates() -> None:
    """Have every template ready, so that no request waits for one to be compiled."""
    for name in templates().list_templates():
        templates().get_template(name)


@cache
def asset_version() -> str:
    """Return a short hash of the static files: it is part of their addresses, so that caches never
    mix two versions.
    """
    digest = hashlib.blake2b(digest_size=6)
    for file in sorted(STATIC.iterdir()):
        digest.update(file.name.encode() + file.read_bytes())
    return digest.hexdigest()


def page(
    name: str,
    facts: Mapping[str, Any],
    *,
    status: int = 200,
    headers: Iterable[tuple[str, str]] = (),
) -> HTMLResponse:
    """Return a drawn page; browsers may cache it but must ask whether it is still valid."""
    text = templates().get_template(name).render(facts)
    sent = {"Cache-Control": "private, no-cache", **dict(headers)}
    return HTMLResponse(text, status, headers=sent)
