"""A folder is indexed from the page, in Chromium: by mouse and keyboard, on a phone, and without
JavaScript.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from helpers.browser import LONG, PHONE, Browser, Page, expect, fits, launched, opened, serious
from helpers.photos import paint, shade
from helpers.web_client import announced
from vitsearch import Collection
from vitsearch.storage.filesystem import writer_lock

pytestmark = pytest.mark.slow

MANY = 40


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with launched(seconds=LONG) as started:
        yield started


@contextmanager
def served(browser: Browser, photos: Path, **options: Any) -> Iterator[Page]:
    """Serve a folder, and open its page."""
    with announced(photos) as (_, address), opened(browser, address, **options) as page:
        yield page


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    for number in range(MANY):
        paint(tmp_path / "Holidays" / f"{number:03}.png", shade(number), size=(96, 64))
    return tmp_path / "Holidays"


def test_a_folder_is_indexed_from_its_page(browser: Browser, photos: Path) -> None:
    with served(browser, photos) as page:
        expect(page.get_by_role("heading", level=1)).to_have_text("Holidays is not indexed yet")
        assert serious(page) == []
        page.get_by_text("Settings").click()
        page.get_by_label("Leave out what is named like this").fill("03?.png")
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
        expect(page.get_by_label("Leave out what is named like this")).to_have_value("03?.png")
        page.get_by_label("Leave out what is named like this").fill("")
        page.get_by_role("button", name="Index again").click()
        expect(page.get_by_text(f"10 new or changed, {MANY - 10} as before")).to_be_visible()
    with Collection.open(photos) as found:
        assert len(found) == MANY


def test_on_a_phone_by_keyboard_it_is_stopped_and_goes_on(browser: Browser, photos: Path) -> None:
    for number in range(MANY, 4 * MANY):
        paint(photos / f"{number:03}.png", shade(number), size=(96, 64))
    with served(browser, photos, viewport=PHONE, has_touch=True) as page:
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
    with served(browser, photos, viewport=PHONE) as page:
        page.get_by_role("combobox", name="Model").select_option("colour")
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
    with served(browser, photos, java_script_enabled=False) as page:
        page.get_by_role("combobox", name="Model").select_option("colour")
        page.get_by_text("Settings").click()
        page.get_by_label("Seconds between two moments").fill("3")
        page.get_by_role("button", name="Index the photos").click()
        expect(page.get_by_role("heading", level=1)).to_have_text("Holidays is being indexed")
        # the page asks anew by itself
        expect(page.get_by_role("searchbox", name="Search your photos")).to_be_visible()
        page.get_by_role("link", name="Index again").click()
        page.get_by_role("button", name="Index again").click()
        expect(page.get_by_text(f"{MANY} as before")).to_be_visible()
