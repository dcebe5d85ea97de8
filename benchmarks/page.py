"""The page with many photos, and its memory in an hour of clicks: python benchmarks/page.py
[--rows 100000] [--rounds 7] [--hour] [--clicks 3600] [--keep FOLDER].

A collection of 1,000 drawn photos that `vitsearch index` read with `mini`, and as many rows without
a file as are missing to ``--rows``, with vectors like theirs, dates over 15 years, positions around
forty towns, cameras, folders, labels, and albums of 5 to 20,000 photos, is served by `vitsearch
serve` as a process of its own, to the person at this machine. Each view is asked for over HTTP once
after the server says that it is ready, and then ``--rounds`` times: the table has the first, the
median and the longest of the others.

With ``--hour`` a person's hour is clicked through as fast as the server answers: searches, photos,
thumbnails, months, maps, labels, albums that are changed, photos like one and like an uploaded one.
The table has the resident memory of the server and of its decoders at each twentieth. Each tenth
of the clicks the collection changes as well, so that what is remembered of it is made anew.
"""

import argparse
import io
import itertools
import math
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import closing
from datetime import datetime, timedelta
from http.client import HTTPConnection
from pathlib import Path
from urllib.parse import urlencode

import numpy as np
from indexing import draw, make_photos
from latency import SCENES
from machine import machine
from serve import VITSEARCH, memory, served
from vectors import LikeReal

from vitsearch import Collection, load_encoder
from vitsearch.collection.local import put_predictions
from vitsearch.index.recipe import load_recipe
from vitsearch.storage.indexes import IndexMaintainer
from vitsearch.storage.store import PhotoStore
from vitsearch.storage.user_data import Album, put_album, put_search, writing
from vitsearch.types import Found, PhotoInfo, Prediction

PICTURES = 1000  # photos with a file
FIRST_DAY, DAYS = datetime(2010, 1, 1), 15 * 365
ALBUMS = {"Walks": 5, "Summer": 500, "Family": 3000, "Travels": 8000, "Everything": 20_000}
SMALL_ALBUMS = 60
CAMERAS = ("Canon EOS 80D", "NIKON D750", "Apple iPhone 12", "Google Pixel 6", None)
WORDS = ("beach", "street", "mountains", "people", "food", "boats")
STEPS = 20  # at which memory is read


# -- the collection --------------------------------------------------------------------------------


def make(root: Path, rows: int) -> None:
    """Make the collection, its index, albums and saved searches."""
    make_photos(root / "drawn", min(PICTURES, rows))
    subprocess.run(
        [*VITSEARCH, "index", str(root), "--encoder", "mini"],
        check=True,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    folder, encoder = root / ".vitsearch", load_encoder("mini")
    with Collection.open(root, encoder=encoder) as collection:
        drawn = collection.vectors()[1].astype(np.float32)
    words = encoder.encode_texts([f"{scene} {word}" for scene in SCENES for word in WORDS])
    data = LikeReal(max(0, rows - PICTURES), drawn, words)
    chance = random.Random(0)
    with closing(PhotoStore(folder / "photos.db")) as store:
        first = int(store.ids().max()) + 1
        for block in data.rows():
            with store.writing():
                for number, row in enumerate(block, first):
                    path = f"{number // 5000:03}/{number // 200:05}/IMG_{number:07}.jpg"
                    store.put_photo(
                        Found(path, 2_000_000 + number, 1_500_000_000 * 10**9 + number),
                        number.to_bytes(16, "big"),
                        PhotoInfo(4000, 3000, details(chance)),
                        vector=row,
                        generation=1,
                    )
                store.raise_generation(True)
            first += len(block)
        ids = store.ids().tolist()
        with store.writing():
            store.put_labels([(each, chance.choice(WORDS), chance.random()) for each in ids[::2]])
    texts = data.queries(200, words=True, tuning=True)
    with closing(PhotoStore(folder / "photos.db", read_only=True)) as store:
        IndexMaintainer(
            folder,
            store,
            encoder.dim,
            encoder.fingerprint,
            load_recipe("auto"),
            texts=lambda: texts,
        ).update()
    keep(folder, ids, chance)


def details(chance: random.Random) -> dict[str, str | float | None]:
    """Return the facts of a photo: of ten one has no date, and four no position."""
    facts: dict[str, str | float | None] = {"camera": chance.choice(CAMERAS)}
    if chance.random() < 0.9:
        taken = FIRST_DAY + timedelta(days=chance.random() * DAYS)
        facts["taken_at"] = taken.isoformat(timespec="seconds")
    if chance.random() < 0.6:
        town = chance.randrange(40)
        angle = town * 2.4
        facts["latitude"] = 40 + 14 * math.sin(angle) + chance.gauss(0, 0.1)
        facts["longitude"] = 10 + 4 * town * math.cos(angle) + chance.gauss(0, 0.1)
        facts["city"], facts["country"] = f"Town {town}", f"Country {town % 12}"
    return facts


def keep(folder: Path, ids: Sequence[int], chance: random.Random) -> None:
    """Store albums and saved searches."""
    sizes = ALBUMS | {f"Album {number:02}": 40 for number in range(SMALL_ALBUMS)}
    with writing(folder) as store:
        for name, size in sizes.items():
            put_album(store, Album(name, tuple(chance.sample(ids, min(size, len(ids))))))
        put_search(store, "Beaches", "/?q=beach")
        put_search(store, "In Italy", "/?where=country+%3D+%27Country+3%27")


class Person:
    """A browser of the person at this machine, on one connection; it follows no redirection."""

    def __init__(self, entrance: str) -> None:
        base, _, key = entrance.partition("?")
        self._connection = HTTPConnection(base.removeprefix("http://").rstrip("/"))
        self._origin = base.rstrip("/")
        self._headers: dict[str, str] = {}
        self.ask(f"/?{key}")
        self._headers = {"Cookie": self._cookie}

    def ask(
        self, path: str, body: bytes | None = None, kind: str = "application/x-www-form-urlencoded"
    ) -> tuple[int, bytes]:
        """Return status and body of an answer; with a ``body`` of a POST."""
        headers = self._headers | {"Accept-Encoding": "gzip", "Accept": "text/html, */*"}
        if body is not None:
            headers |= {"Content-Type": kind, "Origin": self._origin}
        self._connection.request("GET" if body is None else "POST", path, body, headers)
        answer = self._connection.getresponse()
        if cookie := answer.getheader("Set-Cookie"):
            self._cookie = cookie.partition(";")[0]
        return answer.status, answer.read()


# -- the views -------------------------------------------------------------------------------------


def views(rows: int) -> dict[str, str]:
    """Return the addresses of the views by what they are."""
    pages = rows // 60
    view = "west=-10&south=35&east=30&north=60"
    return {
        "months: the newest, with the scrubber": "/",
        "months: in the middle": f"/?page={pages // 2}",
        "months: at the end": f"/?page={pages - 1}",
        "by name, in the middle": f"/?sort=name&page={pages // 2}",
        "by date added": "/?sort=added",
        "filter: a camera": "/?camera=NIKON+D750",
        "filter: a condition": "/?where=country+%3D+%27Country+3%27+and+year+%3E+2015",
        "search": "/?q=a+dog+on+a+beach",
        "search with a filter": "/?q=boats+by+a+lake&where=year+%3D+2015",
        "search, best 500 by date": "/?q=a+red+car&sort=taken",
        "photos like one": "/?w17=1",
        "a photo's page": "/photos/17",
        "a photo from a search": "/photos/17?q=a+dog+on+a+beach",
        "similarity: the page": "/map",
        "similarity: the map": "/map/places",
        "similarity: the list": "/map/list",
        "places: the page": "/places",
        "places: clusters of Europe": f"/places/clusters?{view}&zoom=4",
        "places: photos in Europe": f"/places/photos?{view}",
        "places: the list": "/places/list",
        "albums": "/albums",
        "album of 20,000": "/album?name=Everything",
        "album of 20,000, at the end": "/album?name=Everything&page=333",
        "labels": "/labels",
        "not indexed": "/failures",
        "API: search": "/api/search?q=a+dog+on+a+beach",
        "API: info": "/api/info",
    }


def measure(root: Path, rows: int, rounds: int) -> None:
    """Print the table of the views."""
    print("| view | first | again, median | longest | kB |")
    print("|---|---|---|---|---|", flush=True)
    with served(root) as (pid, entrance):
        person = Person(entrance)
        for title, path in views(rows).items():
            times = []
            for _ in range(rounds + 1):
                began = time.perf_counter()
                status, body = person.ask(path)
                times.append(1000 * (time.perf_counter() - began))
                assert status == 200, f"{path}: {status}"
            again = f"{statistics.median(times[1:]):.0f} ms | {max(times[1:]):.0f} ms"
            print(f"| {title} | {times[0]:.0f} ms | {again} | {len(body) / 1000:.0f} |", flush=True)
        print(f"\nmemory of the server: {memory(pid):.0f} MB")


# -- an hour of clicks -----------------------------------------------------------------------------


def clicks(rows: int) -> Iterator[tuple[str, bytes | None, str]]:
    """Yield what a person's browser asks for, without end: path, body and its kind."""
    chance, form = random.Random(1), "application/x-www-form-urlencoded"
    for number in itertools.count():
        words = f"{SCENES[number % len(SCENES)]} {number}"
        some = chance.randint(1, rows)
        for _ in range(12):
            yield f"/api/photos/{chance.randint(1, PICTURES)}/thumbnail?size=320", None, ""
        yield f"/?{urlencode({'q': words})}", None, ""
        yield f"/photos/{some}?{urlencode({'q': words})}", None, ""
        yield f"/?w{some}=1", None, ""
        yield f"/?page={chance.randint(1, rows // 60)}", None, ""
        yield f"/?where=year+%3D+{chance.randint(2010, 2024)}", None, ""
        yield ("/map/places", "/map/list")[number % 2], None, ""
        west, south = chance.uniform(-100, 100), chance.uniform(-50, 50)
        box = f"west={west}&south={south}&east={west + 30}&north={south + 20}"
        yield f"/places/clusters?{box}&zoom={chance.randint(2, 9)}", None, ""
        yield f"/places/photos?{box}", None, ""
        yield f"/labels?{urlencode({'labels': ','.join(chance.sample(WORDS, 2))})}", None, ""
        yield "/albums", None, ""
        yield f"/album?name=Everything&page={chance.randint(1, 333)}", None, ""
        change = {"do": "add", "album": f"Album {number % SMALL_ALBUMS:02}", "id": str(some)}
        yield "/albums", urlencode(change).encode(), form
        out = io.BytesIO()
        draw(10_000 + number).save(out, "JPEG")
        head = (
            b"--cut\r\nContent-Disposition: form-data; name=photo; filename=a.jpg\r\n"
            b"Content-Type: image/jpeg\r\n\r\n"
        )
        body = head + out.getvalue() + b"\r\n--cut--\r\n"
        yield "/photo", body, "multipart/form-data; boundary=cut"


def change(root: Path, rows: int, step: int) -> None:
    """Store other labels, and a new state of the collection."""
    with writing(root / ".vitsearch") as store:
        put_predictions(store, [Prediction("", WORDS[step % len(WORDS)], 0.5, rows - step)])
        store.raise_generation(True)


def children(pid: int) -> float:
    """Return the resident memory of the processes of a server in MB."""
    listed = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return sum(memory(int(each)) for each in listed)


def hour(root: Path, rows: int, count: int) -> None:
    """Print memory in an hour of clicks."""
    print("| clicks | server | its decoders | errors |\n|---|---|---|---|", flush=True)
    wrong = 0
    with served(root) as (pid, entrance):
        person = Person(entrance)
        began = time.perf_counter()
        print(f"| 0 | {memory(pid):.0f} MB | {children(pid):.0f} MB | 0 |", flush=True)
        for number, (path, body, kind) in enumerate(itertools.islice(clicks(rows), count), 1):
            status, _ = person.ask(path, body, kind)
            if status not in (200, 303):
                wrong += 1
                print(f"{status} {path}", file=sys.stderr)
            if number % (count // 10) == 0:
                change(root, rows, number // (count // 10))
            if number % (count // STEPS) == 0:
                used = f"{memory(pid):.0f} MB | {children(pid):.0f} MB"
                print(f"| {number:,} | {used} | {wrong} |", flush=True)
        print(f"\n{count:,} clicks in {time.perf_counter() - began:.0f} s", flush=True)
        time.sleep(30)
        print(f"after 30 s of rest: {memory(pid):.0f} MB, decoders {children(pid):.0f} MB")


def main() -> None:
    """Make the collection where there is none, and measure."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--hour", action="store_true", help="measure memory instead of time")
    parser.add_argument("--clicks", type=int, default=3600)
    parser.add_argument(
        "--keep", type=Path, help="folder for the collection; one that is there is taken as it is"
    )
    chosen = parser.parse_args()
    print(f"{machine()}; `mini`, {chosen.rows:,} photos\n", flush=True)
    with tempfile.TemporaryDirectory() as scratch:
        root = (chosen.keep or Path(scratch)) / f"page-{chosen.rows}"
        if not (root / ".vitsearch").exists():
            make(root, chosen.rows)
        if chosen.hour:
            hour(root, chosen.rows, chosen.clicks)
        else:
            measure(root, chosen.rows, chosen.rounds)


if __name__ == "__main__":
    main()
