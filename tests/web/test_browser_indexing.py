"""A folder is indexed from the page, in Chromium: by mouse and keyboard, on a phone, and without
JavaScript.
"""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
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

from helpers.photos import paint, shade  # noqa: E402
from helpers.web_client import announced  # noqa: E402
from vitsearch import Collection  # noqa: E402
from vitsearch.storage.lock import writer_lock  # noqa: E402

pytestmark = pytest.mark.slow

SECONDS = 120  # that anything may take on a busy machine
WIDE, PHONE = {"width": 1280, "height": 860}, {"width": 390, "height": 800}
MANY = 150


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    expect.set_options(timeout=1000 * SECONDS)
    with sync_playwright() as playwright:
        started = playwright.chromium.launch(
            executable_path=CHROMIUM, headless=True, args=["--no-sandbox", "--disable-gpu"]
        )
        yield started
        started.close()


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    for number in range(MANY):
        paint(tmp_path / "Holidays" / f"{number:03}.png", shade(number), size=(96, 64))
    return tmp_path / "Holidays"


@contextmanager
def opened(browser: Browser, photos: Path, **options: Any) -> Iterator[Page]:
    """Serve a folder, and open the address that is printed, with its key."""
    with announced(photos) as (_, address):
        context = browser.new_context(**{"viewport": WIDE, **options})
        context.set_default_timeout(1000 * SECONDS)
        page = context.new_page()
        faults: list[str] = []
        page.on("pageerror", lambda error: faults.append(str(error)))
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
    wide: bool = page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    return wide


def test_a_folder_is_indexed_from_its_page(browser: Browser, photos: Path) -> None:
    with opened(browser, photos) as page:
        expect(page.get_by_role("heading", level=1)).to_have_text("Holidays is not indexed yet")
        assert serious(page) == []
        page.get_by_text("Settings").click()
        page.get_by_label("Leave out what is named like this").fill("14?.png")
        assert serious(page) == []
        page.get_by_role("button", name="Index the photos").click()
        expect(page.get_by_role("heading", level=2)).to_have_text("Indexing")
        expect(page.get_by_role("status")).to_contain_text(f" of {MANY - 10} photos")
        expect(page.get_by_role("progressbar")).to_have_attribute("max", f"{MANY - 10}")
        assert serious(page) == []
        # it becomes the page of the collection by itself
        expect(page.get_by_role("searchbox", name="Search your photos")).to_be_visible()
        expect(page.get_by_text(f"{MANY - 10} photos, ")).to_be_visible()
        page.get_by_role("link", name="Index again").click()
        expect(page.get_by_text(f"{MANY - 10} new or changed")).to_be_visible()
        assert serious(page) == []
        page.get_by_text("Settings").click()
        expect(page.get_by_label("Leave out what is named like this")).to_have_value("14?.png")
        page.get_by_label("Leave out what is named like this").fill("")
        page.get_by_role("button", name="Index again").click()
        expect(page.get_by_text(f"10 new or changed, {MANY - 10} as before")).to_be_visible()
    with Collection.open(photos) as found:
        assert len(found) == MANY


def test_on_a_phone_by_keyboard_it_is_stopped_and_goes_on(browser: Browser, photos: Path) -> None:
    for number in range(MANY, 4 * MANY):
        paint(photos / f"{number:03}.png", shade(number), size=(96, 64))
    with opened(browser, photos, viewport=PHONE, has_touch=True) as page:
        assert fits(page)
        for name in ("Skip to the content", "vitsearch"):
            page.keyboard.press("Tab")
            expect(page.locator(":focus")).to_have_text(name)
        page.keyboard.press("Tab")  # the colours
        page.keyboard.press("Tab")
        expect(page.get_by_role("combobox", name="Model")).to_be_focused()
        page.keyboard.press("Tab")
        page.keyboard.press("Enter")
        expect(page.get_by_label("Enter linked folders")).to_be_visible()
        assert fits(page)
        page.get_by_role("button", name="Index the photos").focus()
        page.keyboard.press("Enter")
        expect(page.get_by_role("status")).to_contain_text(" a second")
        assert fits(page)
        page.get_by_role("button", name="Stop").focus()
        expect(page.get_by_role("button", name="Stop")).to_be_focused()  # it outlives the news
        page.keyboard.press("Enter")
        expect(page.get_by_role("searchbox", name="Search your photos")).to_be_visible()
        page.get_by_role("link", name="Index again").focus()
        page.keyboard.press("Enter")
        expect(page.get_by_text("What was indexed stays")).to_be_visible()
        assert fits(page)
        assert serious(page) == []
        with writer_lock(photos / ".vitsearch"):
            page.get_by_role("button", name="Index again").click()
            expect(page.get_by_role("alert")).to_contain_text("by another run, outside of this")
        page.get_by_role("button", name="Index again").click()
        expect(page.get_by_text(f"{4 * MANY} photos are searchable")).to_be_visible()


def test_failures_are_tried_again(browser: Browser, photos: Path) -> None:
    (photos / "late.png").write_bytes(b"cut off")
    with opened(browser, photos, viewport=PHONE) as page:
        page.get_by_role("button", name="Index the photos").click()
        page.get_by_role("link", name="Not indexed").click()
        expect(page.get_by_text("1 file could not be read")).to_be_visible()
        assert fits(page)
        assert serious(page) == []
        paint(photos / "late.png", "red")
        page.get_by_role("button", name="Try again").click()
        expect(page.get_by_text(f"1 new or changed, {MANY} as before")).to_be_visible()
        page.get_by_role("link", name="Not indexed").click()
        expect(page.get_by_text("Every photo of the folder is in the collection.")).to_be_visible()


def test_without_javascript(browser: Browser, photos: Path) -> None:
    with opened(browser, photos, java_script_enabled=False) as page:
        page.get_by_text("Settings").click()
        page.get_by_label("Seconds between two moments").fill("3")
        page.get_by_role("button", name="Index the photos").click()
        expect(page.get_by_role("heading", level=1)).to_have_text("Holidays is being indexed")
        # the page asks anew by itself
        expect(page.get_by_role("searchbox", name="Search your photos")).to_be_visible()
        page.get_by_role("link", name="Index again").click()
        page.get_by_role("button", name="Index again").click()
        expect(page.get_by_text("150 as before")).to_be_visible()
