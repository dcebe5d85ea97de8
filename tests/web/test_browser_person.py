"""What a person does, from a folder that is not indexed to an export, in Chromium; after a restart
all is there.
"""

import csv
import io
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from helpers.browser import LONG, Browser, Page, expect, launched, opened, serious
from helpers.web_client import announced, wait_until
from helpers.web_site import cut_out
from vitsearch.cli.demo import copy_samples

pytestmark = pytest.mark.slow

PHOTOS = 90  # more than one page of them


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    folder = tmp_path / "Holidays"
    samples = sorted(copy_samples(folder / "samples").iterdir())
    for number in range(PHOTOS - len(samples)):
        source = samples[number % len(samples)]
        cut_out(source, folder / "pieces" / f"{source.stem}-{number:03}.jpg", number)
    return folder


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with launched(seconds=LONG) as started:
        yield started


def search(page: Page, query: str) -> None:
    page.get_by_role("searchbox", name="Search your photos").fill(query)
    page.keyboard.press("Enter")
    expect(page.get_by_text("Best match first")).to_be_visible()


def make_an_album(page: Page) -> None:
    for number in range(5):
        page.locator(".tick input").nth(number).check(force=True)
    page.get_by_label("Album", exact=True).fill("Cats")
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", name="Cats 5 photos")).to_be_visible()


def look_closely(page: Page) -> None:
    page.locator(".photo-link").first.click()
    viewer = page.get_by_role("dialog", name="Photo")
    expect(viewer).to_be_visible()
    picture = viewer.locator(".screen img").first
    fitting = picture.bounding_box()
    page.keyboard.press("+")
    page.keyboard.press("+")
    assert fitting is not None
    wait_until(lambda: (picture.bounding_box() or fitting)["width"] > 1.2 * fitting["width"])
    page.keyboard.press("Escape")
    expect(viewer).to_be_hidden()


def label_with_two_corrections(page: Page) -> None:
    page.get_by_role("link", name="Labels").click()
    page.get_by_role("textbox").first.fill("cat\nflower\nrocket")
    page.get_by_role("button", name="Label the photos").click()
    expect(page.get_by_text(f"{PHOTOS} photos in 3 labels")).to_be_visible()
    cats = page.locator(".group", has=page.get_by_role("heading", name="cat"))
    cats.locator(".judge .yes").first.click()
    expect(page.locator("[data-judged]")).to_have_text("1 example")
    flowers = page.locator(".group", has=page.get_by_role("heading", name="flower"))
    wrong = flowers.locator(".tile").last
    name = (wrong.locator("img").get_attribute("alt") or "").split(",")[0]
    wrong.locator(".judge .no").click()
    page.get_by_label(f"Label of {name}", exact=True).select_option("rocket")
    expect(page.locator("[data-judged]")).to_have_text("2 examples")
    page.get_by_role("radio", name="Words and examples").check()
    page.get_by_role("button", name="Train and label the photos").click()
    expect(page.locator("[data-trained]")).to_contain_text("Trained on 2 examples of")


def test_a_folder_becomes_a_collection_that_is_kept(browser: Browser, photos: Path) -> None:
    with announced(photos) as (_, address), opened(browser, address) as page:
        page.get_by_role("button", name="Index the photos").click()
        expect(page.get_by_text(f"{PHOTOS} photos, ")).to_be_visible()
        search(page, "a cat")
        make_an_album(page)
        look_closely(page)
        assert serious(page) == []
        with page.expect_download() as gallery:
            page.get_by_role("button", name="Gallery").click()
        with zipfile.ZipFile(Path(gallery.value.path())) as archive:
            assert "index.html" in {name.rpartition("/")[2] for name in archive.namelist()}
        label_with_two_corrections(page)
        with page.expect_download() as saved:
            page.get_by_role("link", name="Examples as CSV").click()
        rows = list(csv.DictReader(io.StringIO(Path(saved.value.path()).read_text())))
        assert sorted(row["label"] for row in rows) == ["cat", "rocket"]
    with announced(photos) as (_, address), opened(browser, address) as page:
        expect(page.get_by_text(f"{PHOTOS} photos, ")).to_be_visible()
        page.get_by_role("link", name="Albums").click()
        page.get_by_role("link", name="Cats").first.click()
        expect(page.locator(".tile")).to_have_count(5)
        page.get_by_role("link", name="Labels").click()
        expect(page.locator("[data-judged]")).to_have_text("2 examples")
        expect(page.locator("[data-trained]")).to_contain_text("Trained on 2 examples of")
        page.get_by_role("link", name="Your examples").click()
        expect(page.locator(".tile")).to_have_count(2)
