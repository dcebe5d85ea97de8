"""The encode stage of `vitsearch index` beside a bare forward loop with the best settings, on the
CPU.

python benchmarks/encode_stage.py mini local-dir:/path/to/model [--dtype float32 int8] [--photos 64]
[--rounds 5]

Bare is ONNX Runtime's ``session.run`` on tensors that are there already, nothing before or after
it: a thread a core on each batch, or a thread a batch and a batch a core, in batches of 4 to 32;
the best of all of them counts (int8 takes one picture at a time, since its numbers depend on what
is computed together). The stage is `encode_prepared` on resized uint8 pictures, called as the
pipeline calls it: stacking, normalising and scaling to unit length are in it. All settings take
turns in each round; medians of photos a second.
"""

import argparse
import statistics
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from machine import machine
from PIL import Image

from vitsearch import load_encoder
from vitsearch.encoders.onnx import open_graph, usable_cores
from vitsearch.encoders.preprocess import normalise

BATCHES = (4, 8, 16, 32)


def bare(encoder: Any, pictures: list[np.ndarray]) -> dict[str, Callable[[], object]]:
    """Return the bare loops by setting."""
    if encoder.name == "mini":
        from vitsearch.encoders.mini import FOLDER

        file, outputs, tensors = FOLDER / "image.onnx", ["vectors"], np.stack(pictures)
    else:
        file, outputs, tensors = (
            Path(encoder.folder) / "image.onnx",
            None,
            normalise(pictures, encoder.preprocess),
        )
    cores, loops = usable_cores(), {}
    for callers, threads in ((1, cores), (cores, 1)):
        session = open_graph(file, threads)
        for batch in (1,) if encoder.name != "mini" and encoder.dtype == "int8" else BATCHES:
            parts = [tensors[start : start + batch] for start in range(0, len(tensors), batch)]
            loops[f"{callers} x {threads} threads, batches of {batch}"] = in_turns(
                lambda part, session=session: session.run(outputs, {"pixels": part}), parts, callers
            )
    return loops


def stage(encoder: Any, pictures: list[np.ndarray]) -> Callable[[], object]:
    """Return the pipeline's way to encode."""
    callers, size = encoder.parallel_calls, encoder.pictures_per_call
    batch = size or len(pictures)
    return in_turns(
        encoder.encode_prepared,
        [pictures[start : start + batch] for start in range(0, len(pictures), batch)],
        callers,
    )


def in_turns(work: Callable[[Any], object], parts: list[Any], callers: int) -> Callable[[], object]:
    """Return a call that works on all parts, so many at once."""

    def all_parts() -> None:
        with ThreadPoolExecutor(callers) as pool:
            list(pool.map(work, parts))

    return all_parts


def seconds(call: Callable[[], object]) -> float:
    """Return the seconds of one call."""
    began = time.perf_counter()
    call()
    return time.perf_counter() - began


def main() -> None:
    """Print a line for each model and number format."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("models", nargs="+")
    parser.add_argument("--dtype", nargs="*", default=["float32"])
    parser.add_argument("--photos", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=5)
    chosen = parser.parse_args()
    print(f"{machine()}; {chosen.photos} pictures, medians of {chosen.rounds} rounds\n")
    print(
        (
            "| model | best bare loop | photos/s | encode stage, photos/s | share "
            "|\n|---|---|---|---|---|"
        ),
        flush=True,
    )
    noise = np.random.default_rng(0).integers(0, 256, (chosen.photos, 300, 400, 3), dtype=np.uint8)
    for model in chosen.models:
        for dtype in ["float32"] if model == "mini" else chosen.dtype:
            encoder = load_encoder(
                model, "cpu", dtype, runtime="auto" if model == "mini" else "onnx", throughput=True
            )
            pictures = [encoder.prepare(Image.fromarray(pixels)) for pixels in noise]
            calls = {"stage": stage(encoder, pictures), **bare(encoder, pictures)}
            for call in calls.values():
                call()
            times = {name: [] for name in calls}
            for _ in range(chosen.rounds):
                for name, call in calls.items():
                    times[name].append(seconds(call))
            rates = {
                name: chosen.photos / statistics.median(spent) for name, spent in times.items()
            }
            ours, best = rates.pop("stage"), max(rates, key=rates.__getitem__)
            print(
                (
                    f"| {model}, {dtype} | {best} | {rates[best]:.1f} | {ours:.1f} | "
                    f"{100 * ours / rates[best]:.0f} % |"
                ),
                flush=True,
            )


if __name__ == "__main__":
    main()
