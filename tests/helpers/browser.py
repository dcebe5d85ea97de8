"""Chromium for the tests of the page: where it is missing they are skipped."""

import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

NEEDED = os.environ.get("VITSEARCH_NEEDS_BROWSER") == "1"
CHROMIUM = shutil.which("chromium")
if CHROMIUM is None and not NEEDED:
    pytest.skip("there is no Chromium on the path (apt install chromium)", allow_module_level=True)


def needs(*libraries: str) -> None:
    """Skip the module where a library is missing, but where the tests of the page must run."""
    for library in () if NEEDED else libraries:
        pytest.importorskip(library)


needs("fastapi", "playwright", "axe_playwright_python")

from axe_playwright_python.sync_playwright import Axe  # noqa: E402
from playwright.sync_api import (  # noqa: E402
    Browser,
    BrowserContext,
    Locator,
    Page,
    Route,
    expect,
    sync_playwright,
)

from helpers.web_site import KEY  # noqa: E402

__all__ = ["Browser", "BrowserContext", "Page", "Route", "expect"]  # of playwright

OPTIONS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
SECONDS = 30  # that anything may take on a busy machine
LONG = 120  # where photos are indexed meanwhile
OF_COLOURS = "color-contrast", "link-in-text-block"  # what a page is judged by in other colours
WIDE, PHONE = {"width": 1280, "height": 860}, {"width": 390, "height": 800}


@contextmanager
def launched(*options: str, seconds: int = SECONDS) -> Iterator[Browser]:
    """Start Chromium for the block; ``seconds`` are those that `expect` waits."""
    expect.set_options(timeout=1000 * seconds)
    with sync_playwright() as playwright:
        started = playwright.chromium.launch(
            executable_path=CHROMIUM, headless=True, args=[*OPTIONS, *options]
        )
        yield started
        started.close()


def visiting(browser: Browser, site: str, **options: Any) -> BrowserContext:
    """Return a context for the pages of a server in this process, with the key of the person at
    this machine where that is its name.
    """
    context = browser.new_context(**{"base_url": site, "viewport": WIDE, **options})
    context.set_default_timeout(1000 * SECONDS)
    if "localhost" in site:
        context.request.get(f"/?key={KEY}", headers={"Accept": "text/html"})
    return context


@contextmanager
def opened(browser: Browser, address: str, **options: Any) -> Iterator[Page]:
    """Open the address that `vitsearch serve` printed, with its key; scripts must not fail, and no
    answer is a fault of the server.
    """
    context = browser.new_context(**{"viewport": WIDE, **options})
    context.set_default_timeout(1000 * LONG)
    page = context.new_page()
    faults: list[str] = []
    page.on("pageerror", lambda error: faults.append(str(error)))
    page.on("response", lambda got: faults.append(got.url) if got.status >= 500 else None)
    page.goto(address)
    page.wait_for_url(address.partition("?")[0])
    yield page
    assert faults == []
    context.close()


def texts(locator: Locator) -> list[str]:
    """Return the texts of all that is there once the page has loaded: a click that leads to another
    page ends with its first byte.
    """
    locator.page.wait_for_load_state()
    return locator.all_inner_texts()


def alts(page: Page) -> list[str]:
    """Return the alt texts of the tiles once the page has loaded."""
    page.wait_for_load_state()
    return page.locator(".tile img").evaluate_all("all => all.map(one => one.alt)")


def watched(page: Page, *sources: str) -> list[str]:
    """Return a list that gets the failures of a page's scripts, and the addresses that it asks for
    which begin with none of ``sources``.
    """
    faults: list[str] = []
    page.on("pageerror", lambda error: faults.append(str(error)))
    page.on("console", lambda said: faults.append(said.text) if said.type == "error" else None)
    page.on(
        "request",
        lambda request: None if request.url.startswith(sources) else faults.append(request.url),
    )
    return faults


def serious(page: Page, *rules: str) -> list[str]:
    """Return the serious faults of accessibility that axe finds, by all rules or some, each with
    its element.
    """
    # three tiles of each list stand for all: it takes a second for a page full of them
    context = {"exclude": [[".tile:nth-child(n + 4)"]]}
    options: dict[str, Any] = {"resultTypes": ["violations"]}
    if rules:
        options["runOnly"] = {"type": "rule", "values": rules}
    is_there = page.evaluate("'axe' in window")  # half a megabyte of script, sent once to a page
    axe = Axe("0") if is_there else Axe()
    return [
        f"{fault['id']}: {node['html'][:200]}"
        for fault in axe.run(page, context, options).response["violations"]
        if fault["impact"] in ("serious", "critical")
        for node in fault["nodes"]
    ]


def serious_in_both(page: Page, draw: Callable[[str], object] = lambda _: None) -> list[str]:
    """Return the serious faults of a page in light colours, and those of its colours in dark ones;
    ``draw`` is called with the name of each. The page must have no transitions, in which colours
    are neither.
    """
    faults: list[str] = []
    for scheme, rules in (("light", ()), ("dark", OF_COLOURS)):
        page.emulate_media(color_scheme=scheme)
        draw(scheme)
        faults += [f"{scheme}: {fault}" for fault in serious(page, *rules)]
    page.emulate_media(color_scheme="light")
    return faults


def fits(page: Page) -> bool:
    """Whether nothing is wider than the screen."""
    does: bool = page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    return does
