"""Chromium for the tests of the page: where it is missing they are skipped."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

NEEDED = os.environ.get("VITSEARCH_NEEDS_BROWSER") == "1"
CHROMIUM = shutil.which("chromium")
if CHROMIUM is None and not NEEDED:
    pytest.skip("there is no Chromium on the path (apt install chromium)", allow_module_level=True)
if not NEEDED:
    for library in ("fastapi", "playwright", "axe_playwright_python"):
        pytest.importorskip(library)

from axe_playwright_python.sync_playwright import Axe  # noqa: E402
from playwright.sync_api import Browser, Page, expect, sync_playwright  # noqa: E402

SECONDS = 120  # that anything may take on a busy machine
WIDE, PHONE = {"width": 1280, "height": 860}, {"width": 390, "height": 800}


@contextmanager
def launched() -> Iterator[Browser]:
    """Start Chromium for the block."""
    expect.set_options(timeout=1000 * SECONDS)
    with sync_playwright() as playwright:
        started = playwright.chromium.launch(
            executable_path=CHROMIUM, headless=True, args=["--no-sandbox", "--disable-gpu"]
        )
        yield started
        started.close()


@contextmanager
def opened(browser: Browser, address: str, **options: Any) -> Iterator[Page]:
    """Open the address that `vitsearch serve` printed, with its key; scripts must not fail, and no
    answer is a fault of the server.
    """
    context = browser.new_context(**{"viewport": WIDE, **options})
    context.set_default_timeout(1000 * SECONDS)
    page = context.new_page()
    faults: list[str] = []
    page.on("pageerror", lambda error: faults.append(str(error)))
    page.on("response", lambda got: faults.append(got.url) if got.status >= 500 else None)
    page.goto(address)
    page.wait_for_url(address.partition("?")[0])
    yield page
    assert faults == []
    context.close()


def serious(page: Page) -> list[str]:
    """Return the serious faults of accessibility that axe finds."""
    found = Axe().run(page).response["violations"]
    return [each["id"] for each in found if each["impact"] in ("serious", "critical")]


def fits(page: Page) -> bool:
    """Whether nothing is wider than the screen."""
    does: bool = page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    return does
