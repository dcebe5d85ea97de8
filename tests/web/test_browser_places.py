"""The map of places in Chromium: by mouse, keys, touch and without JavaScript."""

import random
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from helpers.browser import (
    PHONE,
    WIDE,
    Browser,
    Page,
    expect,
    serious_in_both,
    texts,
    visiting,
    watched,
)
from helpers.web_site import KEY, serving
from vitsearch import index_folder
from vitsearch.encoders.colour import ColourEncoder
from vitsearch.web import ServeSettings

pytestmark = pytest.mark.slow

TOWNS = {"Paris": (48.86, 2.35, 12), "Rome": (41.9, 12.48, 5), "Fiji": (-17.9, 179.9, 3)}


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("photos")
    jitter = random.Random(3)
    for town, (latitude, longitude, count) in TOWNS.items():
        for number in range(count):
            tags = Image.Exif()
            tags.get_ifd(0x8769)[0x9003] = f"2019:07:{number + 1:02} 18:30:00"
            spot = (latitude + jitter.gauss(0, 0.01), longitude + jitter.gauss(0, 0.01))
            tags.get_ifd(0x8825).update(
                {
                    1: "N" if spot[0] >= 0 else "S",
                    2: (abs(spot[0]), 0.0, 0.0),
                    3: "E" if spot[1] >= 0 else "W",
                    4: (abs(spot[1]), 0.0, 0.0),
                }
            )
            colour = tuple(jitter.randrange(256) for _ in range(3))
            path = folder / town / f"{number}.jpg"
            path.parent.mkdir(exist_ok=True)
            Image.new("RGB", (96, 64), colour).save(path, exif=tags.tobytes())
    index_folder(folder, encoder=ColourEncoder())
    return folder


@pytest.fixture(scope="module")
def site(photos: Path) -> Iterator[str]:
    with serving(photos) as address:
        yield address


@pytest.fixture
def page(browser: Browser, site: str) -> Iterator[Page]:
    """The map, whose scripts must not fail and that asks nobody but the server."""
    with visiting(browser, site) as context:
        tab = context.new_page()
        faults = watched(tab, site, "data:")
        ready(tab, "/places")
        yield tab
        assert faults == []


def ready(page: Page, address: str) -> None:
    page.goto(address)
    page.locator("[data-world][data-ready]").wait_for()


def counts(page: Page) -> list[str]:
    return sorted(
        page.locator(".pin").evaluate_all("all => all.map(each => each.textContent || '1')")
    )


def cluster(page: Page, count: int) -> Any:
    return page.locator(".pin", has_text=re.compile(rf"^{count}$")).first


def test_the_map_shows_all_photos_and_a_click_those_of_a_cluster(page: Page) -> None:
    expect(page.locator("[data-told]")).to_have_text("20 of 20 photos in view")
    assert page.url.partition("#")[2]
    cluster(page, 12).click()
    heading = page.locator("#located")
    expect(heading).to_be_focused()
    expect(heading).to_contain_text("12 photos")
    expect(page.locator(".tile")).to_have_count(12)
    page.locator(".tile .photo-link").nth(2).click()  # the viewer opens over the map
    expect(page.locator("[data-viewer]")).to_be_visible()
    page.keyboard.press("Escape")
    expect(page.locator("[data-viewer]")).to_be_hidden()
    expect(page.locator(".tile")).to_have_count(12)
    page.locator(".tile .tick input").first.check(force=True)
    expect(page.locator("[data-chosen]")).to_have_text("1 ticked")
    page.get_by_role("link", name="Search among them").click()
    expect(page.locator(".count")).to_have_text("12 photos fit, newest first")
    assert "latitude+between+48." in page.url
    page.go_back()
    page.locator("[data-world][data-ready]").wait_for()
    expect(page.locator("[data-told]")).to_have_text("20 of 20 photos in view")


def settled(element: Any) -> dict[str, float]:
    """Return the box of an element when it has stopped moving: the page may still be laid out."""
    before, box = None, element.bounding_box()
    while box is None or box != before:
        element.page.wait_for_timeout(100)
        before, box = box, element.bounding_box()
    return dict(box)


def test_buttons_the_wheel_and_keys_move_and_zoom(page: Page) -> None:
    status = page.locator("[data-told]")
    first = page.url
    box = page.locator("[data-world]").bounding_box()
    pin = settled(cluster(page, 12))
    assert box is not None
    page.mouse.move(pin["x"] + 26, pin["y"] + 26)
    for _ in range(10):
        page.mouse.wheel(0, -120)
    expect(status).to_have_text("12 of 20 photos in view")
    page.get_by_role("button", name="Show all").click()
    expect(status).to_have_text("20 of 20 photos in view")
    expect(page).to_have_url(first)
    page.get_by_role("button", name="Zoom in").click()
    expect(page).not_to_have_url(first)
    page.locator("canvas").focus()
    page.keyboard.press("0")
    expect(page).to_have_url(first)
    page.keyboard.press("ArrowRight")
    expect(page).not_to_have_url(first)
    page.keyboard.press("0")
    page.keyboard.press("Enter")
    expect(page.locator("#located")).to_contain_text("20 photos")
    # by the keyboard alone: from the map to its clusters
    page.locator("canvas").focus()
    page.keyboard.press("Tab")
    expect(page.locator(".pin").first).to_be_focused()
    page.keyboard.press("Enter")
    expect(page.locator("#located")).not_to_contain_text("20 photos")


def test_dragging_moves_and_a_drawn_box_chooses(page: Page) -> None:
    pin = cluster(page, 5).bounding_box()
    before = page.url
    assert pin is not None
    x, y = pin["x"] + 26, pin["y"] + 26
    page.mouse.move(x, y)
    page.mouse.down()
    page.mouse.move(x + 60, y + 40, steps=4)
    page.mouse.up()
    expect(page).not_to_have_url(before)
    expect(page.locator(".tile")).to_have_count(0)  # a drag is not a click
    page.get_by_role("button", name="Draw a box").click()
    expect(page.locator("[data-told]")).to_have_text("Draw a box around the photos.")
    moved = cluster(page, 5).bounding_box()
    assert moved is not None
    page.mouse.move(moved["x"] - 4, moved["y"] - 4)
    page.mouse.down()
    page.mouse.move(moved["x"] + 60, moved["y"] + 60, steps=4)
    page.mouse.up()
    expect(page.locator("#located")).to_contain_text("5 photos")
    expect(page.get_by_role("button", name="Draw a box")).to_have_attribute("aria-pressed", "false")


def test_a_view_across_the_date_line(page: Page) -> None:
    ready(page, "/places#9/-17.9/179.95")
    page.reload()
    page.locator("[data-world][data-ready]").wait_for()
    expect(page.locator("[data-told]")).to_have_text("3 of 20 photos in view")
    page.get_by_role("button", name="Photos in this view").click()
    expect(page.locator("#located")).to_contain_text("3 photos")
    page.get_by_role("link", name="Search among them").click()
    assert "longitude+%3E%3D+17" in page.url
    expect(page.locator(".tile")).to_have_count(3)


def test_on_a_phone_by_touch(browser: Browser, site: str) -> None:
    with visiting(browser, site, viewport=PHONE, has_touch=True, is_mobile=True) as context:
        page = context.new_page()
        ready(page, "/places#3.4/46/7")
        expect(page.locator("[data-told]")).to_contain_text("of 20 photos in view")
        assert page.evaluate("document.documentElement.scrollWidth") == PHONE["width"]
        page.locator(".pin").first.tap()
        expect(page.locator("#located")).to_be_visible()
        pinch = """async () => {
          const box = document.querySelector("[data-world]"), frame = box.getBoundingClientRect();
          const [x, y] = [frame.left + frame.width / 2, frame.top + frame.height / 2];
          const send = (name, id, dx) => box.dispatchEvent(new PointerEvent(name, {
            pointerId: id, pointerType: "touch", bubbles: true, clientX: x + dx, clientY: y }));
          box.setPointerCapture = () => {}; box.hasPointerCapture = () => true;
          send("pointerdown", 11, -20); send("pointerdown", 12, 20);
          for (let each = 20; each <= 80; each += 10) {
            send("pointermove", 11, -each); send("pointermove", 12, each);
          }
          send("pointerup", 11, -80); send("pointerup", 12, 80);
        }"""
        page.evaluate(pinch)
        expect(page).to_have_url(re.compile(r"#[5-9]\."))


def test_without_javascript_there_is_a_list(browser: Browser, site: str) -> None:
    with visiting(browser, site, java_script_enabled=False) as context:
        page = context.new_page()
        page.goto("/places")
        expect(page.locator("canvas")).to_be_hidden()
        page.get_by_role("link", name="The list of its towns").click()
        expect(page.locator(".count")).to_have_text("20 photos with a position")
        page.locator("section a").first.click()
        expect(page.locator(".tile").first).to_be_visible()


@pytest.mark.parametrize("viewport", [WIDE, PHONE], ids=["wide", "phone"])
def test_no_serious_fault_of_accessibility(
    browser: Browser, site: str, viewport: dict[str, int]
) -> None:
    with visiting(browser, site, viewport=viewport, reduced_motion="reduce") as context:
        page = context.new_page()
        ready(page, "/places")
        page.locator(".pin").first.focus()
        page.keyboard.press("Enter")
        page.locator("#located").wait_for()
        faults = serious_in_both(page)
        page.goto("/places/list")
        faults += serious_in_both(page)
    assert faults == []


def test_a_server_that_hides_exif_has_no_map(browser: Browser, photos: Path) -> None:
    with serving(photos, ServeSettings(key=KEY)) as site:
        with browser.new_context(base_url=site) as context:
            page = context.new_page()
            page.goto("/")
            links = texts(page.locator("nav[aria-label=Views] a"))
            assert "Places" not in links
            answer = page.goto("/places")
            assert answer is not None
            assert answer.status == 403
            expect(page.get_by_role("heading", name="Not shown here")).to_be_visible()
