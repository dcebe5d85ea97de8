"""A small collection of real photographs and a real server of it, for tests in a browser."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from PIL import Image

from vitsearch import Collection, index_folder
from vitsearch.cli.demo import copy_samples
from vitsearch.web import ServeSettings
from vitsearch.web.app import bind, make_server
from vitsearch.web.service import PhotoService

KEY = "the-key-of-these-tests"  # of the person at this machine
MAKE, MODEL, EXIF, GPS, ORIGINAL = 0x010F, 0x0110, 0x8769, 0x8825, 0x9003
LABELS = (
    "cat",
    "flower",
    "temple",
    "rocket",
    "motorcycle",
    "cup of coffee",
    "astronaut",
    "printed text",
    "brick wall",
    "moon",
)
PHOTOS = 72  # that are indexed, so that there is more than one page of them
OTHERS = 3  # beside the samples, which differ in number by version, and pieces cut out of them


def make_photos(folder: Path) -> Path:
    """Fill a folder with photographs in folders, one of them with EXIF, one twice, one again in
    another size, and one that is none.
    """
    samples = sorted(copy_samples(folder / "samples").iterdir())
    for number in range(PHOTOS - OTHERS - len(samples)):
        cut_out(
            samples[number % len(samples)], folder / "pieces" / f"piece-{number:02}.jpg", number
        )
    with_exif(folder / "samples" / "china.jpg", folder / "china" / "temple.jpg")
    (folder / "copies").mkdir()
    (folder / "copies" / "cat.png").write_bytes((folder / "samples" / "chelsea.png").read_bytes())
    with Image.open(folder / "samples" / "flower.jpg") as flower:
        flower.resize((400, 267)).save(folder / "copies" / "small flower.jpg", quality=88)
    (folder / "broken.jpg").write_bytes(b"\xff\xd8\xff\xe0 cut off")
    return folder


def cut_out(source: Path, target: Path, number: int) -> None:
    """Write a part of a photograph."""
    target.parent.mkdir(exist_ok=True)
    with Image.open(source) as photo:
        width, height = photo.size
        left, top = (number * 37 % 40) / 100 * width, (number * 53 % 40) / 100 * height
        wide = 0.35 + number % 3 * 0.1
        photo.convert("RGB").crop(
            (int(left), int(top), int(left + wide * width), int(top + 0.45 * height))
        ).save(target, quality=85)


def with_exif(source: Path, target: Path) -> None:
    """Write a photograph that says when, where and with what it was taken."""
    tags = Image.Exif()
    tags.update({MAKE: "Canon", MODEL: "Canon EOS 5D"})
    tags.get_ifd(EXIF)[ORIGINAL] = "2019:07:14 18:30:00"
    tags.get_ifd(GPS).update({1: "N", 2: (39.0, 59.0, 30.0), 3: "E", 4: (116.0, 16.0, 15.0)})
    target.parent.mkdir(exist_ok=True)
    with Image.open(source) as photo:
        photo.save(target, quality=95, exif=tags.tobytes())


def make_collection(folder: Path) -> Path:
    """Make the photos, index them with `mini`, and store their labels."""
    make_photos(folder)
    index_folder(folder, encoder="mini")
    with Collection.open(folder) as found:
        found.store_labels(found.label(LABELS))
    return folder


@contextmanager
def serving(photos: Path, settings: ServeSettings | None = None) -> Iterator[str]:
    """Serve a collection in a thread for the block, and give its address."""
    chosen = settings or ServeSettings(key=KEY)
    service = PhotoService.open(photos, settings=chosen)
    bound = bind(chosen.host, 0)
    server = make_server(service, replace(chosen, port=bound.getsockname()[1]))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [bound]})
    thread.start()
    try:
        while not server.started:
            assert thread.is_alive(), "the server has not started"
            time.sleep(0.01)
        yield f"http://localhost:{bound.getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join()
        bound.close()
