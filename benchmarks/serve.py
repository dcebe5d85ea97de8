"""Milliseconds and requests per second of `vitsearch serve`: python benchmarks/serve.py [--clients
1 2 8 32] [--seconds 30] [--photos DIR | --vectors PHOTOS.npy WORDS.npy] [--beside-index
[FOLDER]].

A collection of 10,000 vectors with `mini` (as in benchmarks/latency.py) is served by a process of
its own on loopback, and so many clients ask `GET /api/search` for ten results, each its next
question as soon as it has an answer, for what people look for. The vectors are like those of an
indexed folder, or else of some sample photos: where nothing fits, a question is read twice. Clients
and server share the machine's cores; the clients are one process that only writes requests and
reads answers. First comes the same search in a process without a server, asked the same way.
Memory is the server's, after the first round of clients and at the end.

With ``--beside-index`` the photos are JPEG files, those of FOLDER or drawn ones; half of them are
in the collection, `vitsearch index` adds the others while the clients ask, and each row has a
server of its own that is asked from the moment at which it says that it is ready. A client asks for
searches, pages of results and thumbnails, the run begins anew where it ends before the clients do,
and memory is read at the first moment and ten seconds after the last answer.
"""

import argparse
import asyncio
import itertools
import json
import os
import random
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import quote, urlsplit

import vectors
from indexing import make_photos
from latency import make
from machine import machine

from vitsearch import Collection

RESULTS = 10
LOOKS = (
    "a", "the", "my", "one", "a small", "a big", "an old", "a black", "a white", "a brown", "a red",
    "a blue", "a happy", "a wet", "a sleeping", "a beautiful", "some", "another",
)  # fmt: skip
THINGS = (
    "dog", "cat", "bird", "horse", "car", "bicycle", "boat", "train", "child", "girl", "man",
    "woman", "tree", "house", "flower", "cake", "table", "mountain", "bridge", "guitar",
)  # fmt: skip
PLACES = (
    "on a beach", "in the snow", "in a street", "by a lake", "at night", "in a garden", "in a park",
    "on grass", "in a kitchen", "in a room", "near water", "in a field", "in a city", "on a road",
    "in the mountains", "in a forest", "under a blue sky", "at a market", "in the rain",
    "in front of a house", "with people", "with a ball", "in black and white", "from above",
)  # fmt: skip
REST = 10  # seconds after the last answer until memory is read
VITSEARCH = (sys.executable, "-c", "from vitsearch.cli import main; main()")
QUIET = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}


@dataclass
class Load:
    """What the clients of one round saw."""

    times: list[float] = field(default_factory=list)
    errors: int = 0

    def milliseconds(self, share: float) -> float:
        """Return the time within which this share of the answers came."""
        ordered = sorted(self.times)
        return 1000 * ordered[min(len(ordered) - 1, int(share * len(ordered)))]


def questions(seed: int) -> Iterator[str]:
    """Yield what people may look for, 8,640 questions in an order of this seed, again and again."""
    every = [" ".join(words) for words in itertools.product(LOOKS, THINGS, PLACES)]
    random.Random(seed).shuffle(every)
    yield from itertools.cycle(every)


def in_process(root: Path, seconds: float) -> float:
    """Return the median milliseconds of `Collection.search`."""
    times = []
    with Collection.open(root) as collection:
        end = time.perf_counter() + seconds
        for query in questions(0):
            began = time.perf_counter()
            collection.search(query, RESULTS)
            times.append(time.perf_counter() - began)
            if began > end:
                return 1000 * statistics.median(times[len(times) // 4 :])
    raise AssertionError


@contextmanager
def served(root: Path) -> Iterator[tuple[int, str]]:
    """Run the server and yield its process and the address of its first page, with its key."""
    command = [*VITSEARCH, "serve", str(root), "--port", "0"]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    try:
        assert process.stderr is not None
        for line in process.stderr:
            if "http://" in line:
                yield process.pid, "http://" + line.partition("http://")[2].split()[0]
                break
    finally:
        process.terminate()
        process.wait()


def port_of(entrance: str) -> int:
    """Return the port in the address of a server."""
    return urlsplit(entrance).port or 80


async def client(port: int, paths: Iterator[str], end: float, load: Load) -> None:
    """Ask for one path after the other on one connection until the end."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    for path in paths:
        if time.perf_counter() > end:
            break
        began = time.perf_counter()
        writer.write(f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n".encode())
        head = await reader.readuntil(b"\r\n\r\n")
        length = int(head.lower().partition(b"content-length:")[2].partition(b"\r\n")[0])
        await reader.readexactly(length)
        load.times.append(time.perf_counter() - began)
        load.errors += not head.startswith(b"HTTP/1.1 200 ")
    writer.close()


async def clients(
    port: int, paths: Callable[[int], Iterator[str]], count: int, seconds: float
) -> Load:
    """Run so many clients at once, each with paths of its own, and return what they saw."""
    load = Load()
    end = time.perf_counter() + seconds
    await asyncio.gather(*(client(port, paths(number), end, load) for number in range(count)))
    return load


def searches(seed: int) -> Iterator[str]:
    """Yield the addresses of searches without end."""
    for query in questions(seed):
        yield f"/api/search?k={RESULTS}&q={quote(query)}"


def visits(seed: int, photos: int) -> Iterator[str]:
    """Yield what a visitor asks for, without end and in any order: of five requests one is a
    search, one a page of results, and three are thumbnails.
    """
    chance = random.Random(seed)
    for query in questions(seed):
        kind = chance.randrange(5)
        if kind == 0:
            yield f"/api/search?k={RESULTS}&q={quote(query)}"
        elif kind == 1:
            yield f"/?q={quote(query)}"
        else:
            yield f"/api/photos/{chance.randint(1, photos)}/thumbnail?size=320"


def memory(pid: int) -> float:
    """Return the resident memory of a process in MB."""
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


def largest_batch(port: int) -> str:
    """Return the most searches that were computed together."""
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics") as response:
        lines = response.read().decode().splitlines()
    return next(
        line.rpartition(" ")[2] for line in lines if line.startswith("vitsearch_largest_batch ")
    )


def measure(root: Path, counts: list[int], seconds: float) -> None:
    """Print the table."""
    print(f"in process: median {in_process(root, min(seconds, 10)):.1f} ms\n")
    print(
        "| clients | median | p95 | requests/s | errors | largest batch so "
        "far | memory of the server |"
    )
    print("|---|---|---|---|---|---|---|", flush=True)
    with served(root) as (pid, entrance):
        port = port_of(entrance)
        # the first requests load what later ones find
        asyncio.run(clients(port, lambda number: searches(number + 1), 2, 2))
        print(f"memory before: {memory(pid):.0f} MB", file=sys.stderr)
        for row, count in enumerate(counts, 1):
            load = asyncio.run(
                clients(port, lambda number, row=row: searches(1000 * row + number), count, seconds)
            )
            figures = (
                f"{load.milliseconds(0.5):.1f} ms | {load.milliseconds(0.95):.1f} ms | "
                f"{len(load.times) / seconds:.0f}"
            )
            print(
                (
                    f"| {count} | {figures} | {load.errors} | {largest_batch(port)} | "
                    f"{memory(pid):.0f} MB |"
                ),
                flush=True,
            )


# -- beside an index run ---------------------------------------------------------------------------


def halves(folder: Path, scratch: Path) -> tuple[Path, list[Path]]:
    """Return a folder with half of the photos, indexed, and the files of the others."""
    files = sorted(file for file in folder.rglob("*.jpg") if file.is_file())
    root = scratch / "photos"
    root.mkdir()
    for file in files[::2]:
        shutil.copyfile(file, root / file.name)
    subprocess.run([*VITSEARCH, "index", str(root)], check=True, stdout=subprocess.DEVNULL)
    return root, files[1::2]


@contextmanager
def indexing(root: Path, more: list[Path]) -> Iterator[list[int]]:
    """Have `vitsearch index` add photos, which are new ones each time, until the block ends; yield
    the exit codes of the runs that have ended.
    """
    ended: list[int] = []
    running: list[subprocess.Popen[bytes]] = []
    stopped = threading.Event()

    def run() -> None:
        while not stopped.is_set():
            folder = Path(tempfile.mkdtemp(dir=root))
            for number, file in enumerate(more):
                # bytes after a picture make another photo of it
                data = file.read_bytes() + os.urandom(8)
                (folder / f"{number}.jpg").write_bytes(data)
            running.append(subprocess.Popen([*VITSEARCH, "index", str(root)], **QUIET))
            ended.append(running[-1].wait())

    thread = threading.Thread(target=run)
    thread.start()
    try:
        while not running:
            time.sleep(0.01)
        yield ended
    finally:
        stopped.set()
        running[-1].terminate()
        thread.join()


def measure_beside_index(folder: Path, counts: list[int], seconds: float) -> None:
    """Print the table of servers that are asked while `vitsearch index` adds photos."""
    print(
        "| clients | median | p99 | longest | requests/s | errors | photos added | memory before |"
        " at most | after |"
    )
    print("|---|---|---|---|---|---|---|---|---|---|", flush=True)
    with tempfile.TemporaryDirectory() as scratch:
        root, more = halves(folder, Path(scratch))
        for count in counts:
            with Collection.open(root) as collection:
                photos = len(collection)
            with indexing(root, more) as ended, served(root) as (pid, entrance):
                print(row(pid, port_of(entrance), count, photos, seconds), flush=True)
            assert not any(ended[:-1]), f"runs of the index ended with {ended}"


def row(pid: int, port: int, count: int, photos: int, seconds: float) -> str:
    """Return the row of so many clients of one server."""
    before = memory(pid)
    load = asyncio.run(clients(port, lambda number: visits(number + 1, photos), count, seconds))
    highest = peak(pid)
    time.sleep(REST)
    added = photos_served(port) - photos
    return (
        f"| {count} | {load.milliseconds(0.5):.0f} ms | {load.milliseconds(0.99):.0f} ms | "
        f"{load.milliseconds(1):.0f} ms | {len(load.times) / seconds:.0f} | {load.errors} | "
        f"{added:,} | {before:.0f} MB | {highest:.0f} MB | {memory(pid):.0f} MB |"
    )


def peak(pid: int) -> float:
    """Return the most resident memory that a process had in MB."""
    status = Path(f"/proc/{pid}/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) * 1024 / 1e6


def photos_served(port: int) -> int:
    """Return how many photos a server's collection holds."""
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/api/info") as response:
        return int(json.load(response)["photos"])


def main() -> None:
    """Make the collection where there is none, and measure."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    vectors.add_arguments(parser)
    parser.add_argument("--rows", type=int, default=10_000)
    parser.add_argument("--clients", type=int, nargs="*", default=[1, 2, 8, 32])
    parser.add_argument("--seconds", type=float, default=30)
    parser.add_argument(
        "--keep", type=Path, help="folder for the collection; one that is there is taken as it is"
    )
    parser.add_argument(
        "--beside-index",
        nargs="?",
        const="",
        metavar="FOLDER",
        help="ask while `vitsearch index` adds photos; 4,000 drawn ones unless a folder is named",
    )
    chosen = parser.parse_args()
    if chosen.beside_index is not None:
        print(f"{machine()}; `mini`, {chosen.seconds:g} s a row, beside `vitsearch index`\n")
        with tempfile.TemporaryDirectory() as scratch:
            named = Path(chosen.beside_index) if chosen.beside_index else None
            folder = named or make_photos(Path(scratch) / "drawn", 4000)
            measure_beside_index(folder, chosen.clients, chosen.seconds)
        return
    print(
        f"{machine()}; `mini`, {chosen.rows:,} photos, {RESULTS} results a request, "
        f"{chosen.seconds:g} s a row\n"
    )
    with tempfile.TemporaryDirectory() as scratch:
        root = (chosen.keep or Path(scratch)) / f"serve-{chosen.rows}"
        if not root.exists():
            make(root, chosen.rows, "auto", vectors.real_vectors(chosen))
        measure(root, chosen.clients, chosen.seconds)


if __name__ == "__main__":
    main()
