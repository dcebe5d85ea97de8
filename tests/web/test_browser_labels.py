"""Labels in Chromium: what is right and wrong by mouse, keyboard and finger, and training on it."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from helpers.browser import PHONE, WIDE, Browser, Page, expect, needs, serious, texts, visiting
from helpers.web_site import serving
from vitsearch import Collection
from vitsearch.collection.training import right_labels

needs("skimage", "sklearn")
pytestmark = pytest.mark.slow


@pytest.fixture
def site(samples: Path, tmp_path: Path) -> Iterator[tuple[str, Path]]:
    """The address of a copy of the collection, which a test may change, and its folder."""
    folder = shutil.copytree(samples, tmp_path / "copy")
    with serving(folder) as address:
        yield address, folder


def examples(folder: Path) -> dict[str, str]:
    with Collection.open(folder) as found:
        return right_labels(found)


def judged(page: Page, name: str) -> tuple[str | None, str | None]:
    """Return whether the label of a photo is marked right, and wrong."""
    tile = page.locator(".tile", has=page.locator(f"img[alt^='{name}']"))
    return tuple(tile.locator(each).get_attribute("aria-pressed") for each in (".yes", ".no"))  # type: ignore[return-value]


def test_labels_are_judged_trained_on_and_kept(browser: Browser, site: tuple[str, Path]) -> None:
    address, folder = site
    with visiting(browser, address) as context:
        page = context.new_page()
        faults: list[str] = []
        page.on("pageerror", lambda error: faults.append(str(error)))
        page.on("console", lambda said: faults.append(said.text) if said.type == "error" else None)
        page.goto("/labels")
        assert page.locator(".group").count() == 10
        status = page.locator("[data-judged]")
        page.get_by_role("button", name="chelsea.png is right: cat").click()
        expect(status).to_have_text("1 example")
        # the keyboard: the next photo is right too, the one after it is not
        page.locator(".tile:has(img[alt^='chelsea.png']) .photo-link").focus()
        page.keyboard.press("j")
        page.keyboard.press("r")
        expect(status).to_have_text("2 examples")
        page.keyboard.press("w")
        expect(status).to_have_text("1 example, 1 more with a wrong label")
        page.keyboard.press("u")
        expect(status).to_have_text("2 examples")
        # one that is wrong is something else
        temples = page.locator(".group", has=page.get_by_role("heading", name="temple"))
        last = temples.locator(".tile").last
        name = (last.locator("img").get_attribute("alt") or "").split(",")[0]
        last.locator(".photo-link").focus()
        page.keyboard.press("w")
        expect(page.get_by_label(f"Label of {name}", exact=True)).to_be_visible()
        page.get_by_label(f"Label of {name}", exact=True).select_option("moon")
        expect(status).to_have_text("3 examples")
        assert judged(page, name) == ("false", "true")
        # several at once, with a label that is new
        page.locator(".tile:has(img[alt^='coffee.png']) .tick input").check(force=True)
        page.get_by_label("Label", exact=True).fill("something to drink")
        page.keyboard.press("Enter")
        expect(page.locator("[data-judged]")).to_have_text("4 examples")
        page.get_by_role("link", name="Your examples").click()
        expect(page.locator(".tile")).to_have_count(4)
        page.get_by_role("link", name="Least sure first").click()
        expect(page.locator("#members")).to_contain_text("68 photos")
        shares = [float(text.split()[-2]) for text in texts(page.locator(".score"))]
        assert shares == sorted(shares)
        assert len(shares) >= 60
        page.get_by_role("radio", name="Words and examples").check()
        page.get_by_role("button", name="Train and label the photos").click()
        expect(page.locator("[data-trained]")).to_contain_text("Trained on 4 examples of 11 labels")
        # undone, and trained again
        page.get_by_role("button", name="Bring back the labels of before").click()
        expect(page.get_by_role("button", name="Bring back the labels")).to_have_count(0)
        page.get_by_role("button", name="Train and label the photos").click()
        expect(page.get_by_role("button", name="Bring back the labels")).to_be_visible()
        with page.expect_download() as saved:
            page.get_by_role("link", name="Examples as CSV").click()
        rows = Path(saved.value.path()).read_text().splitlines()
        assert faults == []
    said = examples(folder)
    assert [path.rpartition("/")[2] for path in said if said[path] == "moon"] == [name]
    assert sorted(said.values()) == ["cat", "cat", "moon", "something to drink"]
    assert sorted(rows) == sorted(["path,label", *(f"{path},{said[path]}" for path in said)])
    with Collection.open(folder) as found:
        stored = {photo.path: photo.label for photo in found.photos()}
    assert {path: stored[path] for path in said} == said
    with serving(folder) as again, visiting(browser, again) as context:  # after a restart
        page = context.new_page()
        page.goto("/labels?class=something+to+drink")
        expect(page.locator("img[alt^='coffee.png']")).to_be_visible()
        expect(page.locator("[data-trained]")).to_contain_text("Trained on 4 examples")


def test_labels_are_judged_without_javascript(browser: Browser, site: tuple[str, Path]) -> None:
    address, folder = site
    with visiting(browser, address, java_script_enabled=False) as context:
        page = context.new_page()
        page.goto("/labels?class=cat")
        page.get_by_role("button", name="chelsea.png is right: cat").click()
        assert judged(page, "chelsea.png") == ("true", "false")
        page.get_by_role("button", name="cat.png is wrong: not cat").click()
        page.get_by_label("Label of cat.png", exact=True).select_option("flower")
        page.get_by_role("button", name="Set the label of cat.png").click()
        expect(page.locator("[data-judged]")).to_have_text("2 examples")
        page.get_by_role("button", name="Undo").click()
        expect(page.locator("[data-judged]")).to_have_text("1 example, 1 more with a wrong label")
        page.get_by_role("button", name="Undo").click()
        assert (judged(page, "cat.png"), page.url.partition("#")[0]) == (
            ("false", "false"),
            f"{address}/labels?class=cat",
        )
    assert examples(folder) == {"samples/chelsea.png": "cat"}


def test_labels_on_a_phone_and_for_everybody(browser: Browser, site: tuple[str, Path]) -> None:
    views = ("/labels", "/labels?show=unsure", "/labels?show=examples", "/labels?class=cat")
    for options in (
        {"viewport": PHONE, "has_touch": True, "is_mobile": True},
        {"viewport": WIDE, "color_scheme": "dark"},
    ):
        with visiting(browser, site[0], **options) as context:
            page = context.new_page()
            page.goto("/labels?class=cat")
            press = "tap" if "has_touch" in options else "click"
            getattr(page.locator(".judge .no").first, press)()
            expect(page.locator("[data-undo]")).to_be_visible()
            for view in views:
                page.goto(view)
                width = page.evaluate("document.documentElement.scrollWidth")
                assert width <= options["viewport"]["width"], view  # type: ignore[index]
                assert (view, serious(page)) == (view, [])
