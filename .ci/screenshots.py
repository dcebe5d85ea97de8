"""Draw the pictures of the page that docs/web.md shows, from sample photos of scikit-image and
scikit-learn, with the system's Chromium: `make pictures`.
"""

import io
import tempfile
from pathlib import Path

from PIL import Image
from playwright.sync_api import Page, sync_playwright

from helpers.web_client import announced
from helpers.web_site import serving
from vitsearch import Collection, index_folder
from vitsearch.cli.demo import copy_samples
from vitsearch.storage.user_data import FAVOURITES, Album, put_album, put_search, writing
from vitsearch.web import ServeSettings

PICTURES = Path(__file__).parents[1] / "examples" / "pictures"
CHROMIUM = "/usr/bin/chromium"
MAX_BYTES = 60_000
WIDE, PHONE = {"width": 1280, "height": 800}, {"width": 390, "height": 760}
KEY = "key-of-the-pictures"
EXIF, GPS, ORIGINAL = 0x8769, 0x8825, 0x9003
# whose authors and licences examples/pictures/NOTICE states, with a day and a spot that are made up
SAMPLES = {
    "astronaut.png": ("2024-05-02", 40.71, -74.0),
    "brick.png": ("2023-09-12", 51.51, -0.13),
    "chelsea.png": ("2024-05-11", 52.37, 4.9),
    "china.jpg": ("2023-09-20", 39.99, 116.27),
    "clock_motion.png": ("2023-12-24", 48.2, 16.37),
    "coffee.png": ("2024-05-18", 45.44, 12.34),
    "coins.png": ("2023-12-27", 41.9, 12.48),
    "flower.jpg": ("2024-06-01", 52.27, 4.55),
    "grass.png": ("2024-06-02", 53.35, -6.26),
    "rocket.jpg": ("2024-06-09", 28.57, -80.65),
}
PIECES = 40  # cut out of them, so that views are full
LABELS = ("cat", "flower", "temple", "rocket", "cup of coffee", "astronaut", "clock", "coins")


def make_photos(folder: Path) -> None:
    """Fill a folder with the samples, and with pieces of them taken near them the days after."""
    with tempfile.TemporaryDirectory() as samples:
        source = copy_samples(Path(samples) / "samples")
        for number in range(len(SAMPLES) + PIECES):
            name = list(SAMPLES)[number % len(SAMPLES)]
            turn = number // len(SAMPLES)
            day, latitude, longitude = SAMPLES[name]
            with Image.open(source / name) as sample:
                photo = sample.convert("RGB")
            if turn:
                width, height = photo.size
                left, top = (number * 37 % 30) / 100 * width, (number * 53 % 30) / 100 * height
                photo = photo.crop(
                    (int(left), int(top), int(left + 0.65 * width), int(top + 0.65 * height))
                )
            write(
                photo,
                folder / f"{name.partition('.')[0]}-{turn}.jpg",
                day,
                latitude + turn / 90,
                longitude,
            )
    (folder / "copies").mkdir()
    with Image.open(folder / "chelsea-0.jpg") as cat:
        cat.resize((300, 200)).save(folder / "copies" / "small cat.jpg", quality=80)
    (folder / "copies" / "coffee.jpg").write_bytes((folder / "coffee-0.jpg").read_bytes())
    half = (folder / "rocket-0.jpg").read_bytes()[:9000]
    for name, content in (("half copied.jpg", half), ("letter.png", b"Dear Anna,")):
        (folder / "copies" / name).write_bytes(content)


def write(photo: Image.Image, path: Path, day: str, latitude: float, longitude: float) -> None:
    """Write a photo with a day and a spot."""
    tags = Image.Exif()
    tags.get_ifd(EXIF)[ORIGINAL] = f"{day.replace('-', ':')} 12:00:00"
    tags.get_ifd(GPS).update(
        {
            1: "N" if latitude >= 0 else "S",
            2: (abs(latitude), 0.0, 0.0),
            3: "E" if longitude >= 0 else "W",
            4: (abs(longitude), 0.0, 0.0),
        }
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    photo.save(path, quality=90, exif=tags.tobytes())


def make_collection(folder: Path) -> None:
    """Index the photos, and make albums and searches."""
    make_photos(folder)
    index_folder(folder, encoder="mini")
    with Collection.open(folder) as found:
        found.store_labels(found.label(LABELS))
        ids = {photo.path: photo.photo_id for photo in found.photos()}
        albums = {
            FAVOURITES: ("coffee-0.jpg", "flower-0.jpg"),
            "Cats": ("chelsea-0.jpg", "chelsea-1.jpg"),
            "In space": ("rocket-0.jpg", "astronaut-0.jpg"),
            "Summer": ("flower-1.jpg", "grass-0.jpg", "china-0.jpg"),
        }
        with writing(found.folder) as store:
            for name, paths in albums.items():
                put_album(store, Album(name, tuple(ids[path] for path in paths)))
            put_search(store, "Cats in spring", "/?q=a+cat&after=2024-03-01")


def keep(page: Page, name: str) -> None:
    """Write a picture of what the page shows, small enough for the docs."""
    page.wait_for_load_state("networkidle")
    page.wait_for_timeout(600)
    with Image.open(io.BytesIO(page.screenshot())) as picture:
        width = 900 if picture.width > 500 else picture.width
        small = picture.convert("RGB").resize(
            (width, round(picture.height * width / picture.width)), Image.Resampling.LANCZOS
        )
    for quality in range(86, 20, -6):
        out = io.BytesIO()
        small.save(out, "WEBP", quality=quality, method=6)
        if out.tell() <= MAX_BYTES:
            break
    (PICTURES / f"view-{name}.webp").write_bytes(out.getvalue())


def draw(page: Page) -> None:
    """Draw the views on a wide screen."""
    page.goto("/")
    keep(page, "photos")
    page.locator(".tile .photo-link").nth(1).click()
    page.locator("[data-viewer] dl.facts").wait_for()
    keep(page, "viewer")
    page.goto("/places")
    page.locator("[data-world][data-ready]").wait_for()
    page.wait_for_timeout(4000)  # the land is made simpler at first use
    keep(page, "places")
    page.goto("/map")
    page.locator("canvas[data-ready]").wait_for()
    keep(page, "similarity")
    for name, address in (
        ("albums", "/albums"),
        ("album", "/album?name=Summer"),
        ("labels", "/labels"),
        ("duplicates", "/duplicates?kind=alike"),
        ("indexing", "/index"),
        ("failures", "/failures"),
        ("help", "/help"),
    ):
        page.goto(address)
        keep(page, name)
    page.goto("/duplicates")
    page.get_by_role("button", name="Keep what is proposed").click()
    page.get_by_role("button", name="To the trash").click()
    keep(page, "trash")


def draw_small(page: Page) -> None:
    """Draw some of them on a phone."""
    page.goto("/?q=a+cup+of+coffee")
    for number in range(2):
        page.locator(".tick input").nth(number).check(force=True)
    keep(page, "phone-search")
    page.goto("/places#3.2/47/8")
    page.locator("[data-world][data-ready]").wait_for()
    keep(page, "phone-places")


def main() -> None:
    """Write the pictures."""
    with tempfile.TemporaryDirectory() as temporary, sync_playwright() as playwright:
        photos = Path(temporary) / "photos"
        make_collection(photos)
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        with serving(photos, ServeSettings(key=KEY, allow_delete=True)) as address:
            for viewport, drawing in ((WIDE, draw), (PHONE, draw_small)):
                with browser.new_context(base_url=address, viewport=viewport) as context:
                    context.request.get(f"/?key={KEY}", headers={"Accept": "text/html"})
                    drawing(context.new_page())
        with (
            serving(photos, ServeSettings(key=KEY, token="a token of sixteen")) as address,
            browser.new_context(base_url=address, viewport=PHONE) as context,
        ):
            page = context.new_page()
            page.goto("/")
            keep(page, "phone-token")
        others = Path(temporary) / "Garden"
        others.mkdir()
        for file in sorted(photos.glob("[fg]*-[0-2].jpg")):
            file.rename(others / file.name)
        for folder in (others, photos):
            index_folder(folder, encoder="mini")
        with (
            announced(others, photos) as (_, address),
            browser.new_context(viewport=WIDE) as context,
        ):
            page = context.new_page()
            page.goto(address)
            keep(page, "collections")
            page.get_by_role("searchbox").fill("a flower")
            page.get_by_role("searchbox").press("Enter")
            page.locator(".tile").first.wait_for()
            keep(page, "all-collections")
        browser.close()


if __name__ == "__main__":
    main()
