"""Duplicates in Chromium: copies side by side, the proposal, and the way to the trash."""

import os
import shutil
from pathlib import Path

import pytest
from PIL import Image

from helpers.browser import PHONE, WIDE, Browser, expect, needs, serious, texts, visiting
from helpers.web_site import KEY, serving
from vitsearch import index_folder
from vitsearch.cli.demo import copy_samples
from vitsearch.web import ServeSettings

needs("skimage", "send2trash")
pytestmark = pytest.mark.slow


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Three samples, two of them as a small and a grey copy too."""
    samples = copy_samples(tmp_path / "samples")
    root = tmp_path / "photos"
    (root / "copies").mkdir(parents=True)
    for name in ("astronaut.png", "coffee.png", "rocket.jpg"):
        shutil.copyfile(samples / name, root / name)
    with Image.open(root / "astronaut.png") as photo:
        photo.resize((128, 128)).save(root / "copies" / "astronaut small.png")
    with Image.open(root / "coffee.png") as photo:
        photo.convert("L").save(root / "copies" / "coffee grey.png")
    index_folder(root)
    return root


@pytest.mark.parametrize("scripts", [True, False], ids=["javascript", "plain"])
@pytest.mark.parametrize("viewport", [WIDE, PHONE], ids=["wide", "phone"])
def test_copies_go_to_the_trash_after_a_question(
    browser: Browser,
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    viewport: dict[str, int],
    scripts: bool,
) -> None:
    system = pytest.importorskip("send2trash.plat_other", reason="the trash of freedesktop.org")
    home = folder.parent / "data"
    monkeypatch.setenv("HOME", str(folder.parent))  # it must be on the disk of the photos
    monkeypatch.setattr(system, "XDG_DATA_HOME", os.fsencode(home))
    monkeypatch.setattr(system, "HOMETRASH_B", os.fsencode(home / "Trash"))
    faults: list[str] = []
    with (
        serving(folder, ServeSettings(key=KEY, allow_delete=True)) as address,
        visiting(browser, address, viewport=viewport, java_script_enabled=scripts) as context,
    ):
        page = context.new_page()
        page.on("pageerror", lambda error: faults.append(str(error)))
        page.goto("/duplicates?kind=alike")
        expect(page.get_by_role("status").first).to_have_text(
            "2 photos look like others, in 2 groups"
        )
        assert texts(page.locator(".caption")) == [
            "astronaut.png",
            "astronaut small.png",
            "coffee.png",
            "coffee grey.png",
        ]
        assert texts(page.locator(".proposed")) == [
            "Proposed: more pixels",
            "Proposed: in colour",
        ]
        if scripts:
            assert serious(page) == []
            width = page.evaluate("document.documentElement.scrollWidth")
            assert width <= viewport["width"]
            page.get_by_role("button", name="Keep what is proposed").click()
            expect(page.locator("[data-left]")).to_have_text("2 others of 2 groups")
            page.get_by_role("button", name="Clear").click()
            expect(page.locator("[data-left]")).to_have_text("Choose what to keep")
        # by keyboard: this one, against the proposal
        radio = page.get_by_role("radio", name="astronaut small.png")
        radio.focus()
        page.keyboard.press("Space")
        page.get_by_role("button", name="To the trash").click()
        expect(page.get_by_role("heading", level=1)).to_have_text("Move 1 photo to the trash?")
        expect(page.locator(".rows")).to_have_text("astronaut.pngcopies/astronaut small.png stays")
        if scripts:
            assert serious(page) == []
        page.get_by_role("button", name="Move to the trash").click()
        expect(page.get_by_role("heading", level=1)).to_have_text("1 photo is in the trash")
        page.get_by_role("link", name="Go on").click()
        expect(page.locator(".caption")).to_have_text(["coffee.png", "coffee grey.png"])
    assert faults == []
    assert [file.name for file in (home / "Trash" / "files").iterdir()] == ["astronaut.png"]
    assert sorted(file.name for file in folder.iterdir() if file.is_file()) == [
        "coffee.png",
        "rocket.jpg",
    ]
