"""Names, labels, EXIF texts, queries and captions that are markup: in Chromium none of it runs, and
all of it is shown as the text that it is.
"""

from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import pytest
from PIL import Image

from helpers.browser import Page, launched
from helpers.web_site import KEY, serving
from vitsearch import Collection, index_folder
from vitsearch.outputs.contact_sheet import Verdict, write_sheet
from vitsearch.types import Prediction

pytestmark = pytest.mark.slow

# each runs if it is not escaped, in a text, an attribute, an address or a script
HOSTILE = (
    "<img src=x onerror=alert(1)>",
    "<script>alert(1)<&#47;script>",
    '"><svg onload=alert(1)>',
    "' onmouseover='alert(1)' x='",
    '" autofocus onfocus=alert(1) x="',
    "javascript:alert(1)",
    "{{ 7*7 }}${7*7}",
    "--><iframe srcdoc='<script>alert(1)<&#47;script>'>",
    "]]><style>*{background:url(x)}<&#47;style>",
    "&lt;img src=x onerror=alert(1)&gt;",
)
MAKE, MODEL, DESCRIPTION, EXIF, LENS = 0x010F, 0x0110, 0x010E, 0x8769, 0xA434


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Photos whose names, folders, EXIF texts and labels are hostile, and one that is broken."""
    root = tmp_path_factory.mktemp("photos")
    for number, text in enumerate(HOSTILE):
        exif = Image.Exif()
        exif.update({MAKE: "Maker", MODEL: text, DESCRIPTION: text})
        exif.get_ifd(EXIF)[LENS] = text
        folder = root / text.replace("/", "_")[:60]
        folder.mkdir()
        image = Image.new("RGB", (64, 48), (20 * number, 200 - 10 * number, 90))
        image.save(folder / f"{number} {text.replace('/', '_')}.jpg", exif=exif)
    twin = next(root.rglob("0 *.jpg"))
    (root / f"twin {HOSTILE[2]}.jpg").write_bytes(twin.read_bytes())
    (root / f"broken {HOSTILE[0]}.jpg").write_bytes(b"\xff\xd8\xff no photo")
    (root / "gone.jpg").symlink_to(HOSTILE[0])
    index_folder(root, encoder="mini")
    with Collection.open(root) as collection:
        collection.store_labels(
            [
                Prediction(photo.path, HOSTILE[number % len(HOSTILE)], 0.9, photo.photo_id)
                for number, photo in enumerate(collection.photos())
            ]
        )
    return root


@pytest.fixture(scope="module")
def browser_page() -> Iterator[tuple[Page, list[str]]]:
    """A page, and what ran or was asked for that should not have been."""
    with launched() as browser:
        # without the policy, which would hide what is not escaped
        context = browser.new_context(bypass_csp=True)
        context.set_default_timeout(30_000)
        page, faults = context.new_page(), []
        page.on("dialog", lambda dialog: (faults.append(f"{page.url}: ran"), dialog.dismiss()))
        page.on("pageerror", lambda error: faults.append(f"{page.url}: {error}"))
        yield page, faults


def addresses(photo_ids: list[int]) -> Iterator[str]:
    """Every page, with hostile queries in every place of its address."""
    yield from ("/", "/labels", "/map/list", "/duplicates", "/duplicates?kind=alike", "/failures")
    yield from (f"/photos/{photo_id}" for photo_id in photo_ids)
    everything = quote(" ".join(text.replace(",", "") for text in HOSTILE))
    yield f"/photos/1?q={everything}&labels={everything},b"
    for text in HOSTILE:
        words = quote(text)
        yield f"/?q=cat+%2B+{words}+-+{words}&under={words}&camera={words}&label={words}"
        yield f"/?where={words}&after={words}&before={words}&page={words}&w1={words}"
        yield f"/labels?labels={words}&class={words}"
        yield f"/{words}"
        yield f"/duplicates?kind={words}&page={words}"


def test_nothing_hostile_runs_in_any_page(
    photos: Path, browser_page: tuple[Page, list[str]]
) -> None:
    page, faults = browser_page
    with Collection.open(photos) as collection:
        ids = [photo.photo_id for photo in collection.photos()]
    with serving(photos) as site:
        page.goto(f"{site}/?key={KEY}")
        page.wait_for_url(f"{site}/")
        for address in addresses(ids):
            page.goto(site + address)
            strange = page.evaluate(
                """() => [...document.querySelectorAll("*")].flatMap(one => [
                    ...one.getAttributeNames().filter(name => name.startsWith("on")),
                    ...(["IFRAME", "STYLE", "OBJECT"].includes(one.tagName) ? [one.tagName] : []),
                    ...(one.tagName === "SCRIPT" && !one.src ? ["inline script"] : []),
                    ...(one.tagName === "IMG" && one.getAttribute("src") === "x" ? ["x"] : []),
                    ...(String(one.href || "").startsWith("javascript:") ? ["javascript"] : []),
                ])"""
            )
            assert strange == [], address
        page.goto(f"{site}/photos/{ids[0]}")
        assert "49" not in page.locator("main").inner_text().split()
    assert faults == []


def test_nothing_hostile_runs_in_a_sheet(
    photos: Path, browser_page: tuple[Page, list[str]], tmp_path: Path
) -> None:
    page, faults = browser_page
    with Collection.open(photos) as collection:
        paths = [photo.path for photo in collection.photos()]
    tiles = [
        *[(path, HOSTILE[number % len(HOSTILE)]) for number, path in enumerate(paths)],
        *[(paths[0], [Verdict(text, text, 0.5, True)]) for text in HOSTILE],
        (f"missing {HOSTILE[0]}.jpg", HOSTILE[2]),
    ]
    for number, text in enumerate(HOSTILE):
        file = tmp_path / f"sheet-{number}.html"
        write_sheet(file, [(text, tiles)], root=photos, title=text)
        page.goto(file.as_uri())
        assert page.title() == text
        assert page.locator("script, svg, iframe, [onerror], [onfocus], [onmouseover]").count() == 0
    assert faults == []
