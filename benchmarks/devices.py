"""What it costs to encode in the processes of devices: the way of a batch there and back, and two
processes beside one on the CPU.

python benchmarks/devices.py [--encoder mini] [--side 224] [--batch 32] [--rounds 15]

"Way" is a batch of side x side x 3 uint8 sent through a pipe to a process that reads it and answers
with rows, by itself and by two processes at once; beside it the same bytes copied in memory.
"Encoding" is `encode_prepared` by as many threads as the encoder's ``parallel_calls``, on "cpu" and
on "cpu,cpu", which share the same cores: what differs is the cost of the processes. All settings
take turns; medians.
"""

import argparse
import statistics
import subprocess
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
from machine import machine
from PIL import Image

from vitsearch import load_encoder
from vitsearch.encoders.devices import receive, send, shapes_of
from vitsearch.photos.isolated import widen_pipe
from vitsearch.untrusted import python_command

CHILD = """
import os
import numpy as np
from vitsearch.encoders.devices import receive, send, unpacked
requests, answers = open(0, "rb", buffering=0), os.fdopen(1, "wb", buffering=0)
rows = np.zeros((1024, 512), dtype=np.float32)
try:
    while True:
        header, body = receive(requests)
        send(answers, {}, [rows[: len(unpacked(header["layout"], body))]])
except EOFError:
    pass
"""


class Child:
    """A process that takes batches and does nothing with them."""

    def __init__(self) -> None:
        self.process = subprocess.Popen(
            python_command(CHILD), bufsize=0, stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        widen_pipe(self.process.stdin.fileno())

    def send(self, batch: list[np.ndarray]) -> None:
        """Send a batch and wait for its rows."""
        send(self.process.stdin, {"shapes": shapes_of(batch)}, batch)
        receive(self.process.stdout)

    def close(self) -> None:
        """End the process."""
        self.process.stdin.close()
        self.process.wait()
        self.process.stdout.close()


def seconds(call: Callable[[], Any]) -> float:
    """Return the seconds of one call."""
    began = time.perf_counter()
    call()
    return time.perf_counter() - began


def in_turns(calls: dict[str, Callable[[], Any]], rounds: int) -> dict[str, float]:
    """Return the median seconds of each call, all in turns."""
    took: dict[str, list[float]] = {name: [] for name in calls}
    for turn in range(rounds + 1):
        for name, call in calls.items():
            spent = seconds(call)
            if turn:  # the first warms up
                took[name].append(spent)
    return {name: statistics.median(each) for name, each in took.items()}


def ways(side: int, count: int, rounds: int) -> None:
    """Print what a batch's way takes."""
    rng = np.random.default_rng(0)
    batch = list(rng.integers(0, 256, (count, side, side, 3), dtype=np.uint8))
    size = sum(each.nbytes for each in batch)
    children = [Child(), Child()]
    with ThreadPoolExecutor(2) as pool:
        took = in_turns(
            {
                "copied in memory": lambda: np.stack(batch),
                "to a process and back": lambda: children[0].send(batch),
                "to two at once": lambda: [*pool.map(lambda child: child.send(batch), children)],
            },
            rounds,
        )
    for child in children:
        child.close()
    print(f"a batch of {count} pictures, {size / 1e6:.1f} MB\n\n| way | ms | MB/s | pictures/s |")
    print("|---|---|---|---|")
    for name, spent in took.items():
        times = 2 if "two" in name else 1
        print(
            f"| {name} | {1e3 * spent:.2f} | {times * size / spent / 1e6:,.0f} | "
            f"{times * count / spent:,.0f} |"
        )


def encoding(name: str, count: int, rounds: int) -> None:
    """Print pictures a second of one process and of two."""
    picture = Image.fromarray(
        np.random.default_rng(1).integers(0, 256, (480, 640, 3), dtype=np.uint8)
    )
    encoders = {each: load_encoder(name, each, throughput=True) for each in ("cpu", "cpu,cpu")}
    prepared = [encoders["cpu"].prepare(picture)] * count

    def encode(encoder: Any) -> None:
        size = encoder.pictures_per_call or 32
        parts = [prepared[start : start + size] for start in range(0, count, size)]
        with ThreadPoolExecutor(encoder.parallel_calls) as pool:
            list(pool.map(encoder.encode_prepared, parts))

    took = in_turns(
        {each: lambda each=each: encode(encoders[each]) for each in encoders}, max(3, rounds // 5)
    )
    print(f"\n| {name} on | pictures/s |\n|---|---|")
    for each, spent in took.items():
        print(f"| {each} | {count / spent:,.0f} |")
    encoders["cpu,cpu"].free_image_tower()


def main() -> None:
    """Print both tables."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--encoder", default="mini")
    parser.add_argument("--side", type=int, default=224)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--count", type=int, default=64, help="pictures encoded in a round")
    parser.add_argument("--rounds", type=int, default=15)
    options = parser.parse_args()
    print(machine())
    ways(options.side, options.batch, options.rounds)
    encoding(options.encoder, options.count, options.rounds)


if __name__ == "__main__":
    main()
