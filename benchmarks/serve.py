"""Milliseconds and requests per second of `vitsearch serve`: python benchmarks/serve.py [--clients
1 2 8 32] [--seconds 30].

A collection of 10,000 vectors with `mini` (as in benchmarks/latency.py) is served by a process of
its own on loopback, and so many clients ask `GET /api/search` for ten results, each its next
question as soon as it has an answer. Every question has other words than all before it, so nothing
can be remembered. Clients and server share the machine's cores; the clients are one process that
only writes requests and reads answers. First comes the same search in a process without a server,
asked the same way. Memory is the server's, after the first round of clients and at the end.
"""

import argparse
import asyncio
import itertools
import os
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import quote

from latency import SCENES, make
from machine import machine

from vitsearch import Collection

RESULTS = 10


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
    """Yield queries without end, each with words of its own."""
    for number in itertools.count():
        yield f"{SCENES[number % len(SCENES)]} number {seed} {number}"


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
def served(root: Path) -> Iterator[tuple[int, int]]:
    """Run the server and yield its process and port."""
    command = [
        sys.executable,
        "-c",
        "from vitsearch.cli.main import main; main()",
        "serve",
        str(root),
        "--port",
        "0",
    ]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    try:
        assert process.stderr is not None
        line = process.stderr.readline()
        yield process.pid, int(line.partition("http://")[2].partition("/")[0].rpartition(":")[2])
    finally:
        process.terminate()
        process.wait()


async def client(port: int, seed: int, end: float, load: Load) -> None:
    """Ask one question after the other on one connection until the end."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    for query in questions(seed):
        if time.perf_counter() > end:
            break
        began = time.perf_counter()
        writer.write(
            f"GET /api/search?k={RESULTS}&q={quote(query)} HTTP/1.1\r\n"
            "Host: 127.0.0.1\r\n\r\n".encode()
        )
        head = await reader.readuntil(b"\r\n\r\n")
        length = int(head.lower().partition(b"content-length:")[2].partition(b"\r\n")[0])
        await reader.readexactly(length)
        load.times.append(time.perf_counter() - began)
        load.errors += not head.startswith(b"HTTP/1.1 200 ")
    writer.close()


async def clients(port: int, count: int, seconds: float, round_number: int) -> Load:
    """Run so many clients at once and return what they saw."""
    load = Load()
    end = time.perf_counter() + seconds
    await asyncio.gather(
        *(client(port, 1000 * round_number + number + 1, end, load) for number in range(count))
    )
    return load


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
    with served(root) as (pid, port):
        asyncio.run(clients(port, 2, 2, 0))  # the first requests load what later ones find
        print(f"memory before: {memory(pid):.0f} MB", file=sys.stderr)
        for number, count in enumerate(counts, 1):
            load = asyncio.run(clients(port, count, seconds, number))
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


def main() -> None:
    """Make the collection where there is none, and measure."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rows", type=int, default=10_000)
    parser.add_argument("--clients", type=int, nargs="*", default=[1, 2, 8, 32])
    parser.add_argument("--seconds", type=float, default=30)
    parser.add_argument(
        "--keep", type=Path, help="folder for the collection; one that is there is taken as it is"
    )
    chosen = parser.parse_args()
    print(
        f"{machine()}; `mini`, {chosen.rows:,} photos, {RESULTS} results a request, "
        f"{chosen.seconds:g} s a row\n"
    )
    with tempfile.TemporaryDirectory() as scratch:
        root = (chosen.keep or Path(scratch)) / f"serve-{chosen.rows}"
        if not root.exists():
            make(root, chosen.rows, "auto")
        measure(root, chosen.clients, chosen.seconds)


if __name__ == "__main__":
    main()
