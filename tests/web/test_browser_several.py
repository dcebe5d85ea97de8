"""Several collections in Chromium: the switcher, the search in all, and each by itself."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from helpers.browser import (
    LONG,
    PHONE,
    WIDE,
    Browser,
    alts,
    expect,
    fits,
    launched,
    opened,
    serious,
    texts,
)
from helpers.photos import paint
from helpers.web_client import announced
from vitsearch import index_folder
from vitsearch.cli.demo import copy_samples

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with launched(seconds=LONG) as started:
        yield started


@pytest.fixture(scope="module")
def address(samples: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    folder = tmp_path_factory.mktemp("several")
    holidays, cats, new = folder / "Holidays", folder / "Cats & dogs", folder / "New"
    shutil.copytree(samples, holidays)
    cats.mkdir()
    for name in ("chelsea.png", "coffee.png"):
        shutil.copy(samples / "samples" / name, cats)
    index_folder(cats, encoder="mini")
    paint(new / "red.png", "red", size=(96, 64))
    with announced(holidays, cats, new) as (_, found):
        yield found


@pytest.mark.parametrize("viewport", [WIDE, PHONE], ids=["wide", "phone"])
def test_all_are_searched_and_each_is_reached(
    browser: Browser, address: str, viewport: dict[str, int]
) -> None:
    with opened(browser, address, viewport=viewport) as page:
        root = address.partition("?")[0]
        expect(page.locator(".albums .what")).to_have_text(["Holidays", "Cats & dogs", "New"])
        assert serious(page) == []
        assert fits(page)
        page.get_by_role("searchbox", name="Search all collections").fill("a cat")
        page.keyboard.press("Enter")
        expect(page.get_by_role("status")).to_have_text(
            "Best match first, in Holidays and Cats & dogs. Not searched: New (not indexed yet)"
        )
        of = texts(page.locator(".tile .moment"))
        assert {"Holidays", "Cats & dogs"} == set(of)
        assert serious(page) == []
        assert fits(page)
        # a photo opens over the grid, from whichever collection it is, and Back returns
        number = of.index("Cats & dogs")
        page.locator(".photo-link").nth(number).click()
        page.wait_for_url(f"{root}in/cats-dogs/photos/*")
        expect(page.locator(".viewer h1")).to_have_text("chelsea.png")
        picture = page.locator(".viewer [data-picture]")
        expect(picture).to_have_js_property("complete", True)
        assert "/in/cats-dogs/api/photos/" in str(picture.get_attribute("src"))
        page.keyboard.press("ArrowLeft" if number else "ArrowRight")
        page.wait_for_url(f"{root}in/holidays/photos/*")
        page.keyboard.press("Escape")
        page.wait_for_url(f"{root}?*")
        # the switcher, by keyboard
        switch = page.locator(".switch summary")
        switch.focus()
        page.keyboard.press("Enter")
        expect(page.get_by_role("link", name="Cats & dogs", exact=True)).to_be_visible()
        assert serious(page) == []
        page.keyboard.press("Escape")
        expect(page.get_by_role("link", name="Cats & dogs", exact=True)).to_be_hidden()
        expect(switch).to_be_focused()
        page.keyboard.press("Enter")
        page.get_by_role("link", name="Cats & dogs", exact=True).focus()
        page.keyboard.press("Enter")
        page.wait_for_url(f"{root}in/cats-dogs/")
        expect(switch).to_contain_text("Cats & dogs")
        expect(page.get_by_text("2 photos, ")).to_be_visible()
        assert serious(page) == []
        assert fits(page)


def test_scripts_stay_in_their_collection(browser: Browser, address: str) -> None:
    with opened(browser, address) as page:
        root = address.partition("?")[0]
        page.goto(f"{root}in/holidays/?q=flower")
        page.locator(".tile .tick").first.click()
        expect(page.locator("[data-chosen]")).to_have_text("1 ticked")
        page.goto(f"{root}in/cats-dogs/")
        expect(page.locator(".selecting.on")).to_have_count(0)
        page.goto(f"{root}in/holidays/")
        expect(page.locator("[data-chosen]")).to_contain_text("1 ticked")
        page.keyboard.press("/")
        expect(page.get_by_role("searchbox")).to_be_focused()
        with page.expect_response(f"{root}in/holidays/api/photos/*/thumbnail?size=160"):
            page.goto(f"{root}in/holidays/map")
        page.keyboard.press("/")
        page.wait_for_url(f"{root}in/holidays/#q")
        page.get_by_role("link", name="vitsearch").click()
        page.wait_for_url(f"{root}in/holidays/")


@pytest.mark.parametrize("viewport", [WIDE, PHONE], ids=["wide", "phone"])
def test_all_are_searched_by_a_photo(
    browser: Browser, address: str, viewport: dict[str, int], tmp_path: Path
) -> None:
    def cats() -> list[str]:
        return [name for name in alts(page)[:4] if "chelsea.png" in name or "cat.png" in name]

    with opened(browser, address, viewport=viewport) as page:
        root = address.partition("?")[0]
        page.locator("[data-bring]").set_input_files(sample("chelsea.png", tmp_path))
        page.wait_for_url(f"{root}?model=*")
        expect(page.locator(".chips")).to_contain_text("like this")
        assert len(cats()) == 3
        assert serious(page) == []
        assert fits(page)
        if viewport == WIDE:
            page.locator(".tile").nth(1).hover()
            page.get_by_role("link", name="More like").nth(1).click()
            page.wait_for_url(f"{root}?photo=*")
            assert len(cats()) == 2  # without the photo itself
        page.get_by_role("searchbox", name="Search all collections").fill("coffee")
        page.keyboard.press("Enter")
        expect(page.locator(".chips")).to_contain_text("like this")
        expect(page.locator("img[alt^='coffee.png']").first).to_be_visible()
        page.get_by_role("link", name="Leave out the photo").click()
        page.wait_for_url(f"{root}?q=coffee&model=*")
        (tmp_path / "none.jpg").write_text("none")
        page.locator("[data-bring]").set_input_files(tmp_path / "none.jpg")
        expect(page.get_by_role("alert")).to_contain_text("none.jpg")
        expect(page.get_by_role("searchbox")).to_have_value("coffee")


def sample(name: str, folder: Path) -> Path:
    """Return a sample photo as a file of its own."""
    return next(file for file in copy_samples(folder / "samples").iterdir() if file.name == name)


def test_without_javascript_and_a_folder_that_is_not_indexed(
    browser: Browser, address: str
) -> None:
    with opened(browser, address, java_script_enabled=False, viewport=PHONE) as page:
        root = address.partition("?")[0]
        page.locator(".switch summary").click()
        page.locator(".switch").get_by_role("link", name="New").click()
        page.wait_for_url(f"{root}in/new/")
        page.get_by_role("button", name="Index the photos").click()
        expect(page.get_by_role("searchbox", name="Search your photos")).to_be_visible()
        page.locator(".switch summary").click()
        page.get_by_role("link", name="All collections").click()
        page.get_by_role("searchbox", name="Search all collections").fill("red")
        page.get_by_role("button", name="Search", exact=True).click()
        expect(page.get_by_role("status")).to_contain_text("in Holidays, Cats & dogs and New")
        page.locator(".photo-link").first.click()
        expect(page.get_by_role("heading", level=1)).to_be_visible()
        page.get_by_role("link", name="More like this").first.click()
        assert "/in/" in page.url
