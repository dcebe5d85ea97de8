"""The page while it computes, where it is empty, and where something is wrong, in Chromium."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from helpers.browser import PHONE, WIDE, Browser, Page, Route, expect, serious, visiting
from helpers.photos import paint, shade
from helpers.web_site import KEY, serving
from vitsearch import index_folder
from vitsearch.encoders.colour import ColourEncoder
from vitsearch.web import ServeSettings

pytestmark = pytest.mark.slow

TOKEN = "a long enough secret"


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("photos")
    for number in range(12):
        paint(folder / f"{number}.png", shade(number), size=(60, 40))
    index_folder(folder, encoder=ColourEncoder())
    return folder


@pytest.fixture(scope="module")
def site(photos: Path) -> Iterator[str]:
    with serving(photos) as address:
        yield address


@pytest.fixture
def wide_page(browser: Browser, site: str) -> Iterator[Page]:
    with visiting(browser, site) as context:
        yield context.new_page()


@pytest.fixture(params=[WIDE, PHONE], ids=["wide", "phone"])
def page(request: pytest.FixtureRequest, browser: Browser, site: str) -> Iterator[Page]:
    with visiting(browser, site, viewport=request.param) as context:
        yield context.new_page()


def held(page: Page, pattern: str) -> list[Route]:
    """Hold back the answers to requests; they go on with ``continue_``."""
    routes: list[Route] = []
    page.route(re.compile(pattern), lambda route: routes.append(route))
    return routes


def test_a_search_shows_tiles_without_photos_until_it_is_there(page: Page) -> None:
    page.goto("/")
    routes = held(page, r"/\?q=red")
    page.get_by_role("searchbox").fill("red")
    page.get_by_role("searchbox").press("Enter", no_wait_after=True)
    page.wait_for_timeout(600)  # a locator would wait for the search to end
    routes[0].abort("aborted")
    expect(page.locator(".skeletons .tile")).to_have_count(14)
    expect(page.locator(".heading > .count")).to_have_text("Searching…")
    expect(page.locator(".results")).to_be_hidden()
    assert page.get_by_role("searchbox").input_value() == "red"
    page.keyboard.press("Escape")
    expect(page.locator(".skeletons")).to_have_count(0)
    expect(page.locator(".heading > .count")).to_have_text("12 photos, newest first")
    page.unroute_all()
    page.get_by_role("searchbox").fill("red")
    page.get_by_role("searchbox").press("Enter")
    page.wait_for_url(re.compile(r"q=red"))
    expect(page.locator(".skeletons")).to_have_count(0)
    expect(page.locator(".heading > .count")).to_contain_text("12 photos")


def test_the_map_says_that_it_computes(page: Page) -> None:
    routes = held(page, "/map/places")
    page.goto("/map")
    words = "Computing the map of 12 photos from how alike they look; it is stored for the next"
    expect(page.locator("[data-told]")).to_have_text(f"{words} time…")
    expect(page.locator(".atlas")).to_have_attribute("aria-busy", "true")
    assert serious(page) == []
    routes[0].continue_()
    expect(page.locator("[data-told]")).to_have_text("12 of 12 photos in view")
    expect(page.locator(".atlas")).not_to_have_attribute("aria-busy", "true")


def test_a_file_that_is_no_photo_stays_on_the_page(page: Page, tmp_path: Path) -> None:
    words = tmp_path / "words.jpg"
    words.write_text("these are words")
    page.goto("/?q=red")
    page.get_by_role("searchbox").fill("red and more")  # typed, not yet sent
    address = page.url
    page.locator("[data-bring]").set_input_files(words)
    expect(page.get_by_role("alert")).to_contain_text("words.jpg: ")
    assert page.url == address
    assert page.get_by_role("searchbox").input_value() == "red and more"
    expect(page.locator("[data-dropping]")).to_be_hidden()
    assert serious(page) == []
    page.locator("[data-bring]").set_input_files(paint(tmp_path / "a.png", "red", size=(40, 30)))
    page.wait_for_url(re.compile(r"u[0-9a-f]{32}=0\.5"))
    page.goto("/albums")  # a view without a search
    page.locator("form[action='/photo'] input[type=file]").set_input_files(words)
    expect(page.get_by_role("alert")).to_contain_text("words.jpg: ")
    assert page.url.endswith("/albums")


def test_without_javascript_it_comes_back_with_the_search(
    browser: Browser, site: str, tmp_path: Path
) -> None:
    words = tmp_path / "words.jpg"
    words.write_text("these are words")
    with visiting(browser, site, java_script_enabled=False) as context:
        page = context.new_page()
        page.goto("/?q=red")
        page.locator("[data-bring]").set_input_files(words)
        page.get_by_role("button", name="Search with the chosen photo").click()
        expect(page.get_by_role("alert")).to_be_visible()
        assert page.get_by_role("searchbox").input_value() == "red"


def test_an_error_keeps_what_was_typed_and_picked(wide_page: Page) -> None:
    page = wide_page
    page.goto("/?q=red&w1=0.5&where=width+%3E+much")
    expect(page.get_by_role("alert")).to_contain_text("expected a number for width")
    assert page.get_by_role("searchbox").input_value() == "red"
    assert page.get_by_role("textbox", name="Condition").input_value() == "width > much"
    assert page.locator("input[name=w1]").first.input_value() == "0.5"
    page.get_by_role("textbox", name="Condition").fill("width > 10")
    with page.expect_navigation():
        page.keyboard.press("Enter")
    expect(page.locator(".heading > .count")).to_contain_text(
        "Best match first, of 12 photos that the filters leave"
    )


def test_empty_results_say_what_to_do(wide_page: Page) -> None:
    page = wide_page
    page.goto("/?q=red&under=nowhere")
    expect(page.locator(".heading > .count")).to_have_text("No photo fits")
    expect(page.locator(".empty")).to_contain_text("No photo fits the filters and the search.")
    page.goto("/duplicates")
    expect(page.locator(".count")).to_have_text("No file is there twice.")
    page.goto("/albums")
    expect(page.locator("main")).to_contain_text("No album yet. Tick photos on any page")
    page.goto("/places")
    expect(page.locator(".empty")).to_contain_text("No photo here says where it was taken.")


@pytest.mark.parametrize("viewport", [WIDE, PHONE], ids=["wide", "phone"])
def test_the_page_that_asks_for_the_token(
    browser: Browser, photos: Path, viewport: dict[str, int]
) -> None:
    with serving(photos, ServeSettings(key=KEY, token=TOKEN)) as address:
        with browser.new_context(base_url=address, viewport=viewport) as context:
            page = context.new_page()
            faults: list[str] = []
            page.on("pageerror", lambda error: faults.append(str(error)))
            page.goto("/?q=red")
            field = page.get_by_label("This server asks for its token")
            expect(field).to_be_focused()
            expect(page.get_by_role("heading", name="Photos behind a token")).to_be_visible()
            expect(page.locator("nav")).to_have_count(0)
            assert serious(page) == []
            width = page.evaluate("document.documentElement.scrollWidth")
            assert width == viewport["width"]
            field.fill("not this")
            page.keyboard.press("Enter")
            again = page.get_by_label("That is not the token: try again")
            expect(again).to_have_attribute("aria-invalid", "true")
            again.fill(TOKEN)
            page.keyboard.press("Enter")
            page.wait_for_url("**/?q=red")
            expect(page.locator(".tile")).to_have_count(12)
            assert faults == []


def test_ticked_photos_have_a_bar_of_one_row(browser: Browser, site: str) -> None:
    with visiting(browser, site, viewport=PHONE, has_touch=True, is_mobile=True) as context:
        page = context.new_page()
        page.goto("/?q=red")
        page.locator(".tick input").first.check(force=True)
        bar = page.locator("[data-selecting]")
        box = bar.bounding_box()
        assert box is not None
        assert box["height"] < 70
        clear = page.locator("[data-clear]")
        clear.scroll_into_view_if_needed()  # the row scrolls
        clear.click()
        expect(bar).to_be_hidden()
        saving = page.locator(".saving summary").bounding_box()
        assert saving is not None
        assert saving["height"] < 40  # one line
        assert page.evaluate("document.documentElement.scrollWidth") == PHONE["width"]


def test_the_description_of_the_interface_fits_a_phone(browser: Browser, site: str) -> None:
    with visiting(browser, site, viewport=PHONE) as context:
        page = context.new_page()
        page.goto("/api/docs")
        assert page.evaluate("document.documentElement.scrollWidth") == PHONE["width"]
        narrow = page.locator("td").evaluate_all(
            "all => all.filter(one => one.textContent.length > 12 && one.offsetWidth < 60).length"
        )
        assert narrow == 0
        assert serious(page) == []


def test_it_can_be_installed_as_an_app(browser: Browser, site: str) -> None:
    with visiting(browser, site) as context:
        page = context.new_page()
        page.goto("/")
        manifest = page.context.new_cdp_session(page).send("Page.getAppManifest")
        assert manifest["errors"] == []
        faults = page.context.new_cdp_session(page).send("Page.getInstallabilityErrors")
        ids = [fault["errorId"] for fault in faults["installabilityErrors"]]
        assert [each for each in ids if each != "in-incognito"] == []
        icon = page.request.get("/favicon.ico")
        assert (icon.status, icon.headers["content-type"]) == (200, "image/png")
