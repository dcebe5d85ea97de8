"""The page in Chromium: what a person does, what axe finds, and how it looks."""

import os
import re
import shutil
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from helpers.browser import (
    SECONDS,
    Browser,
    Page,
    alts,
    expect,
    launched,
    needs,
    serious,
    serious_in_both,
    texts,
    visiting,
    watched,
)
from helpers.web_site import serving
from vitsearch import Collection, index_folder
from vitsearch.storage.user_data import Album, put_album, remove_album, writing
from vitsearch.web import ServeSettings

needs("skimage", "sklearn")
pytestmark = pytest.mark.slow

# is this machine, for the browser alone: a name over plain HTTP, as in a house's own network
NAME = "photos.example"
TOKEN = "a long enough secret"
# the photo, its copy, and what is cut out of it
CATS = ("chelsea.png", "cat.png", "piece-03.jpg", "piece-23.jpg", "piece-43.jpg")
PHONE = {"width": 360, "height": 740}


@pytest.fixture(scope="module")
def photos(samples: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = shutil.copytree(samples, tmp_path_factory.mktemp("photos") / "photos")
    with Collection.open(folder) as found, writing(found.folder) as store:
        cats = [photo.photo_id for photo in found.photos() if photo.label == "cat"]
        put_album(store, Album("Cats", tuple(cats)))
    return folder


@pytest.fixture(scope="module")
def ids(photos: Path) -> dict[str, int]:
    with Collection.open(photos) as found:
        return {photo.path: photo.photo_id for photo in found.photos()}


@pytest.fixture(scope="module")
def site(photos: Path) -> Iterator[str]:
    with serving(photos) as address:
        yield address


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with launched(f"--host-resolver-rules=MAP {NAME} 127.0.0.1") as started:
        yield started


def picture(page: Page, name: str, kind: str) -> None:
    """Draw the page into the folder that the environment names, for who wants to look at it."""
    if folder := os.environ.get("VITSEARCH_SCREENSHOTS"):
        page.screenshot(path=Path(folder, f"{name}-{kind}.png"))


@pytest.fixture
def page(browser: Browser, site: str) -> Iterator[Page]:
    """A page whose scripts must not fail and that asks nobody but the server."""
    with visiting(browser, site) as context:
        tab = context.new_page()
        faults = watched(tab, site, "data:", "blob:")
        yield tab
        assert faults == []


def names(page: Page) -> list[str]:
    """Return the alt texts of the photos that are shown, up to the label."""
    return [text.split(",")[0] for text in alts(page)]


def tile(page: Page, number: int) -> int:
    """Return the id of a photo that is shown."""
    return int(page.locator(".tile .tick input").nth(number).input_value())


def ask(page: Page, words: str) -> None:
    page.get_by_role("searchbox", name="Search your photos").fill(words)
    with page.expect_navigation():
        page.keyboard.press("Enter")


# -- what a person does ----------------------------------------------------------------------------


def test_search_by_words(page: Page) -> None:
    page.goto("/")
    expect(page.get_by_role("status").first).to_contain_text("72 photos, newest first")
    ask(page, "a cat")
    assert names(page)[0] in CATS
    assert {"chelsea.png", "cat.png"} <= set(names(page)[:8])
    ask(page, "a rocket launch - clouds")
    assert "rocket.jpg" in names(page)[:4]
    assert texts(page.locator(".chip")) == ["+ 1\na rocket launch", "− 1\nclouds"]


def test_what_was_understood_is_chips_that_can_be_taken_off(page: Page) -> None:
    page.goto("/")
    ask(page, "a temple in 2019 in the folder china")
    assert names(page) == ["temple.jpg"]
    chips = page.locator(".chip.phrase")
    assert texts(chips) == [
        "2019\nLeave out 2019",
        "folder china\nLeave out folder china",
    ]
    chips.first.get_by_role("link", name="Leave out 2019").click()
    expect(page.get_by_role("searchbox")).to_have_value("a temple in the folder china")
    assert texts(chips) == ["folder china\nLeave out folder china"]
    page.get_by_role("link", name="Take the words as they are").click()
    expect(page.get_by_role("searchbox")).to_have_value("a temple in the folder china")
    assert len(names(page)) > 1
    assert chips.count() == 0
    ask(page, "2019")
    assert names(page) == ["temple.jpg"]
    expect(page.get_by_role("status").first).to_contain_text("newest first")


def test_where_nothing_fits_the_nearest_are_shown_pale(page: Page) -> None:
    page.goto("/")
    ask(page, "asdf qwer")
    expect(page.get_by_role("status").first).to_contain_text("Nothing here fits. Of 72 photos")
    expect(page.locator(".unfit .tile")).to_have_count(12)
    page.get_by_role("link", name="show more of them").click()
    expect(page.locator(".tile")).to_have_count(60)
    expect(page.locator(".unfit")).to_have_count(0)
    ask(page, "a flower")
    assert 1 < len(names(page)) < 60
    page.get_by_role("link", name="show them too").click()
    expect(page.locator(".tile")).to_have_count(60)


def test_a_query_that_cannot_be_read_says_why_and_stays_to_be_put_right(
    page: Page, site: str
) -> None:
    answer = page.request.get("/?q=a+cat+%2B", headers={"Accept": "text/html"})
    assert answer.status == 400
    page.set_content(answer.text())
    expect(page.get_by_role("alert")).to_contain_text("a term of the query 'a cat +' is empty")
    expect(page.locator("#q")).to_have_value("a cat +")


def test_search_by_a_chosen_a_dropped_and_a_pasted_photo(
    page: Page, photos: Path, tmp_path: Path
) -> None:
    with Image.open(photos / "samples" / "coffee.png") as coffee:
        coffee.crop((60, 40, 560, 380)).save(tmp_path / "cup.jpg", quality=80)
    page.goto("/")
    page.locator("[data-bring]").set_input_files(tmp_path / "cup.jpg")
    page.wait_for_url(re.compile(r"[?&]u[0-9a-f]{32}=1"))
    assert names(page)[0] == "coffee.png"
    expect(page.locator(".chip img")).to_have_count(1)
    brought = page.url
    data = list((tmp_path / "cup.jpg").read_bytes())
    for event in ("drop", "paste"):
        page.goto("/labels")
        page.evaluate(
            """([event, data]) => {
                const carrier = new DataTransfer();
                const bytes = new Uint8Array(data), way = { bubbles: true, cancelable: true };
                carrier.items.add(new File([bytes], "cup.jpg", { type: "image/jpeg" }));
                const made = event === "drop"
                    ? new DragEvent("drop", { dataTransfer: carrier, ...way })
                    : new ClipboardEvent("paste", { clipboardData: carrier, ...way });
                document.body.dispatchEvent(made);
            }""",
            [event, data],
        )
        page.wait_for_url(brought)


def test_a_file_that_is_no_photo_is_refused_with_the_reason(
    browser: Browser, site: str, tmp_path: Path
) -> None:
    (tmp_path / "page.jpg").write_text("<script>alert(1)</script>")
    with visiting(browser, site) as context:
        page = context.new_page()
        page.goto("/?q=a+cat")
        page.locator("[data-bring]").set_input_files(tmp_path / "page.jpg")
        expect(page.get_by_role("alert")).to_contain_text("not a photo")
        expect(page.locator("#q")).to_have_value("a cat")


def test_refine_with_what_is_right_and_what_is_not(page: Page) -> None:
    page.goto("/?q=a+photo")
    first, second = tile(page, 0), tile(page, 1)
    page.locator(".tile").nth(0).hover()
    page.get_by_role("link", name="More like").first.click()
    page.wait_for_url(re.compile(rf"w{first}=0\.5"))
    page.goto(f"{page.url}&w{second}=-0.5")
    shown = [page.locator(f"#w{one}").input_value() for one in (first, second)]
    assert shown == ["0.5", "-0.5"]
    assert not {first, second} & {tile(page, number) for number in range(20)}
    before = names(page)
    page.locator(f"#w{first}").fill("2")
    page.get_by_role("button", name="Apply the weights").click()
    page.wait_for_url(re.compile(rf"w{first}=2"))
    assert names(page) != before
    page.get_by_role("link", name=re.compile("Leave out")).first.click()
    expect(page.locator(f"#w{first}")).to_have_count(0)


def test_ticked_photos_refine_together_and_are_taken_along(page: Page, ids: dict[str, int]) -> None:
    page.goto("/?q=a+cat")
    expect(page.locator("[data-selecting]")).to_be_hidden()
    chosen = [ids["samples/chelsea.png"], ids["copies/cat.png"]]
    for one in chosen:
        page.locator(f".tick input[value='{one}']").check(force=True)
    expect(page.locator("[data-chosen]")).to_have_text("2 ticked")
    with page.expect_download() as saved:
        page.get_by_role("button", name="Paths").click()
    assert sorted(Path(saved.value.path()).read_text().split("\n")) == [
        "",
        "copies/cat.png",
        "samples/chelsea.png",
    ]
    page.get_by_role("button", name="More like these").click()
    page.wait_for_url(re.compile(r"w\d+=0\.25"))
    assert not {"chelsea.png", "cat.png"} & set(names(page))


def test_ranges_and_all_of_a_result_are_ticked(page: Page) -> None:
    page.goto("/?q=a+cat&nearest=1")
    boxes = page.locator(".tick input")
    chosen = page.locator("[data-chosen]")
    boxes.nth(3).check(force=True)
    boxes.nth(7).click(force=True, modifiers=["Shift"])
    expect(chosen).to_have_text("5 ticked")
    boxes.nth(5).click(force=True, modifiers=["Shift"])  # off, with those between
    expect(chosen).to_have_text("2 ticked")
    page.locator(".photo-link").nth(9).focus()
    page.keyboard.press("x")
    page.keyboard.press("k")
    page.keyboard.press("k")
    page.keyboard.press("Shift+X")
    expect(chosen).to_have_text("5 ticked")
    assert [boxes.nth(number).is_checked() for number in range(3, 11)] == [
        *(True, True, False, False, True),
        *(True, True, False),
    ]
    page.get_by_role("button", name="All of these").click()
    expect(chosen).to_have_text("72 ticked")
    page.get_by_role("button", name="Clear").click()
    expect(page.locator(".tick input:checked")).to_have_count(0)


def test_a_selection_outlives_the_search_until_it_is_used(page: Page, photos: Path) -> None:
    page.goto("/?q=a+cat")
    first = tile(page, 0)
    page.locator(".tick input").first.check(force=True)
    ask(page, "a rocket launch")
    expect(page.locator("[data-chosen]")).to_have_text("1 ticked, 1 not shown")
    second = tile(page, 0)
    page.locator(".tick input").first.check(force=True)
    expect(page.locator("[data-chosen]")).to_have_text("2 ticked, 1 not shown")
    ask(page, "a cat")
    assert page.locator(".tick input:checked").first.input_value() == str(first)
    page.locator("#into").fill("Outlived")
    page.get_by_role("button", name="Add to album").click()
    expect(page.locator(".tick input:checked")).to_have_count(0)
    page.goto("/albums")
    page.get_by_role("link", name="Outlived").first.click()
    expect(page.locator(".tile")).to_have_count(2)
    assert {tile(page, 0), tile(page, 1)} == {first, second}
    with Collection.open(photos) as found, writing(found.folder) as store:
        remove_album(store, "Outlived")


def test_a_long_press_ticks_and_then_taps_do(browser: Browser, site: str) -> None:
    with visiting(browser, site, viewport=PHONE, has_touch=True, is_mobile=True) as context:
        page = context.new_page()
        page.goto("/?q=a+cat&nearest=1")
        finger = context.new_cdp_session(page)
        box = page.locator(".tile").nth(2).bounding_box()
        assert box is not None
        at = {"x": box["x"] + box["width"] / 2, "y": box["y"] + box["height"] / 2}
        finger.send("Input.dispatchTouchEvent", {"type": "touchStart", "touchPoints": [at]})
        expect(page.locator("[data-chosen]")).to_have_text("1 ticked")
        finger.send("Input.dispatchTouchEvent", {"type": "touchEnd", "touchPoints": []})
        page.locator(".photo-link").nth(1).tap()
        expect(page.locator("[data-chosen]")).to_have_text("2 ticked")
        expect(page.get_by_role("dialog", name="Photo")).to_be_hidden()
        page.locator(".photo-link").nth(1).tap()
        page.locator(".photo-link").nth(2).tap()  # nothing is ticked: a tap opens again
        expect(page.locator("[data-selecting]")).to_be_hidden()
        page.locator(".photo-link").nth(2).tap()
        expect(page.get_by_role("dialog", name="Photo")).to_be_visible()


def test_filters(page: Page, ids: dict[str, int]) -> None:
    page.goto("/?q=a+building")
    page.locator(".filters summary").click()
    page.locator("select[name=camera]").select_option("Canon EOS 5D")
    page.get_by_label("Taken from").fill("2019-07-01")
    page.get_by_role("button", name="Filter", exact=True).click()
    page.wait_for_url(
        lambda url: url.endswith("/?q=a+building&after=2019-07-01&camera=Canon+EOS+5D")
    )
    assert names(page) == ["temple.jpg"]
    page.goto("/?under=copies")
    assert sorted(names(page)) == ["cat.png", "small flower.jpg"]
    page.goto("/?label=cat&where=path+like+'samples/%25'")
    assert "chelsea.png" in names(page)
    page.locator(".filters summary").click()
    page.get_by_role("link", name="Remove all filters").click()
    expect(page.get_by_role("status").first).to_contain_text("72 photos")


def test_the_page_of_a_photo(page: Page, ids: dict[str, int]) -> None:
    page.goto(f"/photos/{ids['china/temple.jpg']}?q=a+temple")
    facts = dict(
        zip(
            texts(page.locator(".facts dt")),
            texts(page.locator(".facts dd")),
            strict=True,
        )
    )
    assert facts["Path"] == "china/temple.jpg"
    assert facts["Taken"] == "14 July 2019, 18:30"
    assert facts["Camera"] == "Canon EOS 5D"
    assert facts["Place"] == "39.99167, 116.27083"
    assert facts["Label"].startswith("temple (")
    own, taught = page.locator(".card").all()
    assert own.locator(".what").first.inner_text() == "temple"
    assert taught.locator(".what").count() == 5
    own.get_by_label("Labels, with commas between").fill("a palace, a cat")
    own.get_by_role("button", name="Label").click()
    expect(page.locator(".card .what").first).to_have_text("a palace")
    assert names(page)[0] == "china.jpg"  # among the photos like it


def test_what_speaks_for_the_words(page: Page, ids: dict[str, int]) -> None:
    pytest.importorskip("torch")
    page.goto(f"/photos/{ids['samples/chelsea.png']}?q=a+cat")
    page.get_by_role("link", name="Show what speaks for “a cat”").click()
    picture = page.locator(".why img")
    expect(picture).to_be_visible()
    until(page, "document.querySelector('.why img').naturalWidth > 400")
    assert (
        picture.get_attribute("alt")
        == "chelsea.png under a heat map: bright where it speaks for “a cat”"
    )


def test_photos_are_put_into_albums(page: Page, ids: dict[str, int]) -> None:
    page.goto("/?q=a+cat")
    chosen = [ids["samples/chelsea.png"], ids["copies/cat.png"]]
    for one in chosen:
        page.locator(f".tick input[value='{one}']").check(force=True)
    page.get_by_label("Album", exact=True).fill("Our cats")
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", name="Our cats 2 photos")).to_be_visible()
    assert sorted(tile(page, number) for number in (0, 1)) == sorted(chosen)
    last = tile(page, 1)
    page.locator(".tick input").nth(1).check(force=True)
    page.get_by_role("button", name="To the front").click()
    expect(page.locator(".tick input:checked")).to_have_count(0)
    assert tile(page, 0) == last
    with page.expect_download() as saved:
        page.get_by_role("button", name="Gallery").click()
    assert saved.value.suggested_filename == "gallery.zip"
    page.locator(".photo-link").first.click()
    viewer = page.get_by_role("dialog", name="Photo")
    favourite = viewer.get_by_role("button", name="Favourite")
    expect(favourite).to_have_attribute("aria-pressed", "false")
    page.keyboard.press("h")
    expect(favourite).to_have_attribute("aria-pressed", "true")
    page.keyboard.press("Escape")
    page.goto("/?q=a+rocket")
    page.get_by_text("Save this search").click()
    page.get_by_role("button", name="Save", exact=True).click()
    expect(page.get_by_role("link", name="a rocket")).to_be_visible()
    assert texts(page.locator(".albums .what")) == ["Favourites", "Cats", "Our cats"]
    page.get_by_role("link", name="Our cats").click()
    page.on("dialog", lambda dialog: dialog.accept())
    page.get_by_role("button", name="Remove the album").click()
    expect(page.locator(".albums .what")).to_have_text(["Favourites", "Cats"])


def test_labels(page: Page) -> None:
    page.goto("/labels")
    expect(page.get_by_role("heading", name="The stored labels")).to_be_visible()
    page.locator("#labels").fill("cat, coffee\nrocket, something else entirely")
    page.get_by_role("button", name="Label the photos").click()
    expect(page.get_by_role("heading", name="72 photos in 4 labels")).to_be_visible()
    counts = [int(text) for text in texts(page.locator(".spread .share"))]
    assert sum(counts) == 72
    page.locator(".spread a", has_text="coffee").click()
    page.wait_for_url(re.compile("class=coffee"))
    assert "coffee.png" in names(page)
    assert len(names(page)) == counts[1]


def test_duplicates_and_what_is_not_indexed(page: Page) -> None:
    page.goto("/duplicates")
    assert sorted(names(page)) == ["cat.png", "chelsea.png"]
    expect(page.locator("[data-left]")).to_have_text("Choose what to keep")
    page.get_by_role("button", name="Keep what is proposed").click()
    expect(page.locator("[data-left]")).to_have_text("1 other of 1 group")
    with page.expect_download() as saved:
        page.get_by_role("button", name="Paths").click()
    assert Path(saved.value.path()).read_text() == "samples/chelsea.png\n"
    page.get_by_role("link", name="The same view").click()
    assert {"flower.jpg", "small flower.jpg", "china.jpg", "temple.jpg"} <= set(names(page))
    page.get_by_role("link", name="Not indexed").click()
    assert texts(page.locator(".rows .path")) == ["broken.jpg"]


def test_the_map_is_moved_and_opens_photos(page: Page) -> None:
    page.goto("/map")
    page.locator("canvas[data-ready]").wait_for()
    expect(page.locator("[data-told]")).to_have_text("72 of 72 photos in view")
    for _ in range(3):
        page.get_by_role("button", name="Zoom in").click()
    expect(page.locator("[data-told]")).not_to_have_text("72 of 72 photos in view")
    page.locator("canvas").focus()
    page.keyboard.press("0")
    expect(page.locator("[data-told]")).to_have_text("72 of 72 photos in view")
    page.keyboard.press("Enter")
    page.wait_for_url(re.compile(r"/photos/\d+$"))
    page.goto("/map/list")
    assert page.locator(".group").count() >= 2


def test_endless_scroll_shows_each_photo_once_in_one_order(page: Page, ids: dict[str, int]) -> None:
    page.goto("/?q=a+cat&nearest=1")
    expect(page.locator(".tile")).to_have_count(60)
    page.mouse.wheel(0, 100_000)
    expect(page.locator(".tile")).to_have_count(72)
    expect(page.locator(".pages")).to_have_count(0)
    order = [tile(page, number) for number in range(72)]
    assert sorted(order) == sorted(ids.values())
    page.goto("/?q=a+cat&nearest=1&page=2")
    assert [tile(page, number) for number in range(12)] == order[60:]


def test_a_photo_is_looked_at_over_the_grid(browser: Browser, site: str) -> None:
    """Zoom, pan, steps by key, button and swipe, and back to the same place with its tile."""
    with visiting(browser, site, has_touch=True) as context:
        page = context.new_page()
        faults: list[str] = []
        page.on("pageerror", lambda error: faults.append(str(error)))
        page.goto("/?q=a+flower&nearest=1")
        page.mouse.wheel(0, 100_000)
        expect(page.locator(".tile")).to_have_count(72)  # all of two pages
        links = page.locator(".tile .photo-link")
        addresses = links.evaluate_all("all => all.map(one => one.getAttribute('href'))")
        grid = page.url
        links.nth(64).click()
        viewer = page.get_by_role("dialog", name="Photo")
        expect(viewer.get_by_role("status")).to_contain_text("65 of 72")
        assert page.url.endswith(addresses[64])
        expect(viewer.locator(".facts")).to_contain_text("Path")
        page.keyboard.press("1")
        expect(viewer.get_by_role("status")).to_contain_text("· 100 %")
        for _ in range(6):
            viewer.get_by_role("button", name="Zoom in").click()
        expect(viewer.locator(".screen")).to_have_class(re.compile("zoomed"))
        shown = viewer.locator("[data-picture]")
        before = shown.evaluate("one => one.style.transform")
        page.mouse.move(300, 400)
        page.mouse.down()
        page.mouse.move(200, 330, steps=3)
        page.mouse.up()
        assert shown.evaluate("one => one.style.transform") != before
        page.keyboard.press("0")
        page.keyboard.press("j")
        page.keyboard.press("ArrowRight")
        viewer.get_by_role("button", name="Next photo").click()
        expect(viewer.get_by_role("status")).to_contain_text("68 of 72")
        swipe(page, 500, 250)
        expect(viewer.get_by_role("status")).to_contain_text("69 of 72")
        swipe(page, 250, 500)
        expect(viewer.get_by_role("status")).to_contain_text("68 of 72")
        assert page.url.endswith(addresses[67])
        page.keyboard.press("x")
        viewer.get_by_role("button", name="Slide show").click()
        expect(viewer.get_by_role("status")).to_contain_text("69 of 72")
        page.keyboard.press("Escape")  # the slide show ends
        expect(viewer.get_by_role("button", name="Slide show")).to_have_attribute(
            "aria-pressed", "false"
        )
        assert serious(page) == []
        last = page.url
        page.go_back()
        expect(viewer).to_be_hidden()
        assert page.url == grid
        expect(page.locator(".tile")).to_have_count(72)
        at = [last.endswith(address) for address in addresses].index(True)
        expect(links.nth(at)).to_be_focused()
        expect(page.locator(".tick input:checked")).to_have_count(1)
        assert faults == []
        # without the grid, the photo's page knows what comes before and after
        alone = context.new_page()
        alone.goto(addresses[61])
        alone.get_by_role("link", name="Next photo").click()
        alone.wait_for_url(lambda url: url.endswith(addresses[62]))
        alone.get_by_role("link", name="Previous photo").click()
        alone.wait_for_url(lambda url: url.endswith(addresses[61]))


def swipe(page: Page, start: int, end: int) -> None:
    """Move a finger over an open photo."""
    touch = page.context.new_cdp_session(page)
    steps = [start + (end - start) * step // 4 for step in range(5)]
    for kind, x in zip(["touchStart", *["touchMove"] * 4], steps, strict=True):
        points = [{"x": x, "y": 400}]
        touch.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": points})
    touch.send("Input.dispatchTouchEvent", {"type": "touchEnd", "touchPoints": []})


def test_a_part_of_a_photo_is_searched_for(page: Page, ids: dict[str, int]) -> None:
    page.goto("/?q=a+cup+of+coffee")
    page.locator(f".photo-link[href^='/photos/{ids['samples/coffee.png']}?']").click()
    viewer = page.get_by_role("dialog", name="Photo")
    expect(viewer.locator(".facts")).to_contain_text("Path")
    page.keyboard.press("p")
    box = viewer.locator("[data-box]")
    expect(box).to_be_visible()
    before = box.bounding_box()
    page.keyboard.press("ArrowLeft")
    page.keyboard.press("Shift+ArrowRight")
    assert box.bounding_box() != before
    page.keyboard.press("Enter")
    page.wait_for_url(re.compile(r"/\?u[0-9a-f]{32}=1$"))
    assert "coffee.png" in names(page)[:3]
    expect(page.locator(".chip img")).to_have_count(1)


def test_months_are_reached_by_the_scrubber(browser: Browser, tmp_path: Path) -> None:
    """Photos of three months on two pages: beyond the first, before it, and by the scrubber."""
    for number in range(70):
        tags = Image.Exif()
        month = 5 if number < 55 else 3
        tags.get_ifd(0x8769)[0x9003] = f"2021:{month:02}:02 10:00:{number % 60:02}"
        shade = (3 * number, 90, 200 - number)
        Image.new("RGB", (48, 32), shade).save(tmp_path / f"{number}.jpg", exif=tags.tobytes())
    Image.new("RGB", (48, 32)).save(tmp_path / "undated.png")
    index_folder(tmp_path)
    months = ".month"
    counts = "all => all.map(one => [one.dataset.month, one.querySelectorAll('.tile').length])"
    with serving(tmp_path) as site, visiting(browser, site) as context:
        page = context.new_page()
        page.goto("/?page=2")
        assert page.locator(months).evaluate_all(counts) == [["2021-03", 10], ["", 1]]
        page.get_by_role("link", name="Photos before these").click()
        expect(page.locator(".tile")).to_have_count(71)
        joined = [["2021-05", 55], ["2021-03", 15], ["", 1]]
        assert page.locator(months).evaluate_all(counts) == joined
        scrubber = page.get_by_role("navigation", name="Months")
        scrubber.get_by_role("link", name="Mar").click()
        expect(scrubber.locator("[aria-current]")).to_have_text("Mar")
        expect(page.locator("[id='m2021-03'] .photo-link").first).to_be_focused()
        page.goto("/")
        page.get_by_role("button", name="Select all of March 2021").click()  # it goes on
        expect(page.locator("[data-chosen]")).to_have_text("15 ticked")
        page.get_by_role("button", name="Select all of March 2021").click()
        expect(page.locator(".tick input:checked")).to_have_count(0)
        page.goto("/")
        page.mouse.wheel(0, 100_000)
        expect(page.locator(".tile")).to_have_count(71)
        assert page.locator(months).evaluate_all(counts) == joined
        page.get_by_role("link", name="Name", exact=True).click()
        expect(page.get_by_role("status").first).to_have_text("71 photos, by name")


def test_keyboard(page: Page) -> None:
    page.goto("/")
    page.keyboard.press("/")
    expect(page.locator("#q")).to_be_focused()
    page.keyboard.type("a flower")
    page.keyboard.press("Enter")
    page.wait_for_url(re.compile("q=a"))
    page.keyboard.press("j")
    page.keyboard.press("j")
    expect(page.locator(".tile .photo-link").nth(1)).to_be_focused()
    page.keyboard.press("x")
    expect(page.locator(".tile .tick input").nth(1)).to_be_checked()
    page.keyboard.press("ArrowDown")
    assert page.evaluate("document.activeElement.closest('.tile').offsetTop") > page.locator(
        ".tile"
    ).nth(1).evaluate("one => one.offsetTop")
    page.keyboard.press("ArrowUp")
    page.keyboard.press("Escape")
    expect(page.locator(".tile .tick input:checked")).to_have_count(0)
    page.locator(".tile .photo-link").nth(1).focus()
    page.keyboard.press("k")
    href, after = (
        page.locator(".tile .photo-link").nth(number).get_attribute("href") for number in (0, 1)
    )
    page.keyboard.press("Enter")
    page.wait_for_url(lambda url: url.endswith(str(href)))
    page.keyboard.press("j")
    page.wait_for_url(lambda url: url.endswith(str(after)))
    page.keyboard.press("Escape")
    page.wait_for_url(re.compile(r"/\?q=a"))


def test_tab_order_and_the_skip_link(page: Page) -> None:
    page.goto("/")
    page.keyboard.press("Tab")
    expect(page.get_by_role("link", name="Skip to the content")).to_be_focused()
    page.keyboard.press("Enter")
    page.keyboard.press("Tab")
    expect(page.locator("#q")).to_be_focused()


def test_colours_follow_the_system_and_the_switch(browser: Browser, site: str) -> None:
    ground = "getComputedStyle(document.documentElement).backgroundColor"
    with visiting(browser, site, color_scheme="dark") as context:
        page = context.new_page()
        page.goto("/")
        assert page.evaluate(ground) == "rgb(20, 21, 22)"
        page.get_by_role("button", name="Dark colours").click()
        assert page.evaluate(ground) == "rgb(250, 249, 247)"
        page.goto("/labels")
        assert page.evaluate(ground) == "rgb(250, 249, 247)"


def test_without_javascript(browser: Browser, site: str, ids: dict[str, int], photos: Path) -> None:
    with visiting(browser, site, java_script_enabled=False) as context:
        page = context.new_page()
        page.goto("/")
        ask(page, "a cat")
        first = page.locator(".tile .photo-link img").first.get_attribute("alt") or ""
        assert first.startswith(CATS)
        page.get_by_role("link", name="show them too").click()
        page.get_by_role("link", name="Next page").click()
        expect(page.locator(".tile")).to_have_count(12)
        page.get_by_role("link", name="Previous page").click()
        page.locator(f".tick input[value='{ids['samples/chelsea.png']}']").check(force=True)
        page.get_by_role("button", name="Less like these").click()
        page.wait_for_url(re.compile(r"w\d+=-0\.5"))
        expect(page.locator(".chip img")).to_have_count(1)
        page.locator("[data-bring]").set_input_files(photos / "samples" / "coffee.png")
        page.get_by_role("button", name="Search with the chosen photo").click()
        page.wait_for_url(re.compile(r"u[0-9a-f]{32}="))
        page.goto("/map")
        page.get_by_role("link", name="The list of its regions").click()
        expect(page.locator(".group .tile").nth(4)).to_be_visible()
        page.locator(".tile .photo-link").first.click()
        page.wait_for_url(re.compile(r"/photos/\d+"))


def test_the_explanation_says_that_it_is_computed(page: Page, ids: dict[str, int]) -> None:
    held: list[Any] = []
    page.route(re.compile(r"/photos/\d+/why"), lambda route: held.append(route))
    address = f"/photos/{ids['samples/chelsea.png']}?why=1"
    page.goto(address, wait_until="domcontentloaded")
    line = page.locator("[data-waiting] [role=status]")
    expect(line).to_contain_text("Computing what the model looks at. The first time")
    held[0].continue_()
    expect(line).to_have_count(0)


def test_another_machine_over_plain_http_asks_for_the_token_and_shows_no_exif(
    browser: Browser, photos: Path, ids: dict[str, int], tmp_path: Path
) -> None:
    settings = ServeSettings(host="0.0.0.0", token=TOKEN, hosts=(NAME,))
    with (
        serving(photos, settings) as address,
        visiting(browser, address.replace("localhost", NAME)) as context,
    ):
        page = context.new_page()
        page.goto("/")
        page.get_by_label("This server asks for its token").fill(TOKEN)
        page.keyboard.press("Enter")
        expect(page.get_by_role("searchbox")).to_be_visible()
        assert TOKEN not in page.url
        page.goto(f"/photos/{ids['china/temple.jpg']}")
        assert texts(page.locator(".facts dt")) == ["Path", "Size", "Label"]
        page.goto("/?camera=Canon+EOS+5D")
        expect(page.get_by_role("alert")).to_contain_text("does not show you EXIF")
        page.goto("/")
        page.locator("[data-bring]").set_input_files(photos / "samples" / "coffee.png")
        page.wait_for_url(re.compile(r"u[0-9a-f]{32}="))  # the server takes its own form


# -- how it looks ----------------------------------------------------------------------------------


def views(ids: dict[str, int]) -> dict[str, str]:
    """Return the address of every view by the name of its picture."""
    cat, rocket = ids["samples/chelsea.png"], ids["samples/rocket.jpg"]
    return {
        "photos": "/",
        "search": "/?q=a+cat",
        "refined": f"/?q=an+animal+-+people&w{cat}=0.5&w{rocket}=-0.5",
        "filters": "/?q=a+flower&under=samples&where=width+%3E+nonsense",
        "photo": f"/photos/{cat}?q=a+cat",
        "albums": "/albums",
        "album": "/album?name=Cats",
        "labels": "/labels",
        "label": "/labels?labels=cat,flower,rocket,temple,coffee&class=flower",
        "duplicates": "/duplicates?kind=alike",
        "failures": "/failures",
        "places": "/places",
        "places-list": "/places/list",
        "map": "/map",
        "map-list": "/map/list",
        "help": "/help",
        "missing": "/photos/999999",
    }


def until(page: Page, script: str) -> None:
    """Wait until a script says so; asked from outside, for the page's policy lets nothing that
    waits inside be evaluated.
    """
    end = time.monotonic() + SECONDS
    while not page.evaluate(script):
        assert time.monotonic() < end, script
        page.wait_for_timeout(30)


def settled(page: Page, address: str) -> None:
    """Open a view and wait until every photo in sight is there."""
    page.goto(address)
    if address in ("/map", "/places"):
        page.locator("[data-ready]").wait_for()
    if address == "/map":  # the land of the other may take long to be made, at first use
        page.wait_for_load_state("networkidle")
    until(
        page,
        (
            "[...document.images].every(one => one.complete || one.getBoundingClientRect().top > "
            "innerHeight)"
        ),
    )


def test_no_view_has_a_serious_fault_of_accessibility(
    browser: Browser, site: str, ids: dict[str, int]
) -> None:
    faults: list[str] = []
    with visiting(browser, site, reduced_motion="reduce") as context:
        page = context.new_page()
        for name, address in views(ids).items():
            settled(page, address)
            draw = partial(picture, page, name)
            faults += [f"{name}, {fault}" for fault in serious_in_both(page, draw)]
    assert faults == []


def test_every_view_fits_a_phone(browser: Browser, site: str, ids: dict[str, int]) -> None:
    wide: dict[str, Any] = {}
    with visiting(
        browser, site, viewport=PHONE, has_touch=True, is_mobile=True, device_scale_factor=2
    ) as context:
        page = context.new_page()
        for name, address in views(ids).items():
            settled(page, address)
            picture(page, name, "phone")
            width = page.evaluate("document.documentElement.scrollWidth")
            if width > PHONE["width"]:
                wide[name] = width
    assert wide == {}
