"""Embedding: what the image tower does alone, and what an index of JPEGs reaches of that."""

import argparse
import os
import tempfile
import time
from pathlib import Path

import numpy as np
import torch

from benchmarks.gpu.models import capped, pictures, save_jpegs, save_open_clip
from benchmarks.gpu.report import Report
from benchmarks.gpu.tower import ceiling, opened
from vitsearch import index_folder
from vitsearch.encoders.batching import OomSafeEncoder
from vitsearch.encoders.checkpoints import one_line
from vitsearch.encoders.torch_encoder import METHODS, TorchEncoder

FIRST = "ViT-B-32"
MODELS = {FIRST: (64, 128, 256, 512), "ViT-B-16": (256,), "ViT-L-14": (256,)}
SIDE = 480  # of the photos, 640 high


def measure(report: Report, chosen: argparse.Namespace) -> None:
    """Write ceilings, the rates of whole runs, what memory that runs out does, and the second start
    of a compiled tower.
    """
    dtype = "bfloat16" if chosen.device.startswith("cuda") else "float32"
    with tempfile.TemporaryDirectory() as scratch:
        models = {
            name: save_open_clip(Path(scratch) / name, chosen.tiny, name)
            for name in ([FIRST] if chosen.tiny else MODELS)
        }
        count = 24 if chosen.tiny else 4000
        photos = save_jpegs(Path(scratch) / "photos", count, 64 if chosen.tiny else SIDE)
        encoder = opened(models[FIRST], chosen.device, dtype)
        batches = (4,) if chosen.tiny else MODELS[FIRST]
        best = ceilings(report, FIRST, encoder, batches, chosen.tiny)
        whole_runs(report, encoder, photos, best, batches[-1])
        try:
            out_of_memory(report, encoder, 8 if chosen.tiny else 2048)
        except Exception as error:  # the other figures do not depend on it
            report.add("out of memory", f"failed: {one_line(error)}")
        if not chosen.tiny:
            second_start(report, models[FIRST], dtype, chosen.device, batches[-1])
        for name in [*models][1:]:
            tower = opened(models[name], chosen.device, dtype)
            ceilings(report, name, tower, MODELS[name], chosen.tiny)


def ceilings(
    report: Report, name: str, encoder: TorchEncoder, batches: tuple[int, ...], tiny: bool
) -> float:
    """Write the rates of the tower alone and return the best."""
    best = 0.0
    for batch in batches:
        for method in METHODS[:1] if tiny else METHODS:
            try:
                rate, cosine = ceiling(encoder, method, batch, 2 if tiny else 10)
            except Exception as error:  # the compilers behind torch.compile each raise their own
                report.add(f"{name}, {method}", f"failed: {one_line(error)}", "", f"batch {batch}")
                continue
            beside = f"{encoder.dtype}, batch {batch}, least cosine to eager {cosine:.5f}"
            report.add(f"{name}, {method}", rate, "pictures/s", beside)
            best = max(best, rate)
    return best


def whole_runs(
    report: Report, encoder: TorchEncoder, photos: Path, best: float, batch: int
) -> None:
    """Write the rate of an index made from nothing, its share of the tower's, where its time went,
    and the memory that it took on the card.
    """
    if encoder.device.startswith("cuda"):
        torch.cuda.reset_peak_memory_stats()
    workers: dict[str, int | None] = {"cpu": None, "device": 64}  # which wait for the device
    for where, threads in workers.items():
        with tempfile.TemporaryDirectory() as folder:
            began = time.perf_counter()
            run = index_folder(
                photos,
                collection=folder,
                encoder=encoder,
                batch_size=batch,
                decode=where,
                workers=threads,
            )
            seconds = time.perf_counter() - began
        stages = {
            name: getattr(run.stages, name) for name in ("read", "decode", "prepare", "encode")
        }
        split = ", ".join(f"{name} {value:.2f} s" for name, value in stages.items())
        name, rate = f"index of JPEGs, decoded by the {where}", run.indexed / seconds
        report.add(name, rate, "photos/s", f"bound by {run.stages.bound}; {split}")
        report.add(name, rate / best, "of the best tower")
    if encoder.device.startswith("cuda"):
        report.add("memory on the card", torch.cuda.max_memory_allocated() / 2**20, "MiB")


def out_of_memory(report: Report, encoder: TorchEncoder, count: int) -> None:
    """Write whether a batch that is too large for the card gives the vectors of small ones."""
    batch = [encoder.prepare(picture) for picture in pictures(min(count, 64))]
    batch = [batch[number % len(batch)] for number in range(count)]
    expected = encoder.encode_prepared(batch[: min(count, 64)])
    with capped(encoder.device, 2**30):
        rows = OomSafeEncoder(encoder).encode(batch)
    lost = sum(row is None for row in rows)
    pairs = zip(rows, np.resize(expected, (count, encoder.dim)), strict=True)
    least = min((float(row @ other) for row, other in pairs if row is not None), default=0.0)
    report.add("out of memory", least, "least cosine", f"{count} pictures at once, {lost} lost")


def second_start(report: Report, model: str, dtype: str, device: str, batch: int) -> None:
    """Write the seconds in which the tower finds its fastest way, twice: the second time what the
    compiler made is there.
    """
    with tempfile.TemporaryDirectory() as made:  # nothing is there the first time
        os.environ["TORCHINDUCTOR_CACHE_DIR"] = os.environ["TRITON_CACHE_DIR"] = made
        for time_of in ("first", "second"):
            torch.compiler.reset()
            encoder = opened(model, device, dtype)
            tuned = encoder.tune(batch)
            picture = encoder.prepare(pictures(1)[0])
            began = time.perf_counter()
            encoder.encode_prepared([picture] * batch)
            seconds = time.perf_counter() - began
            report.add(f"tuned, {time_of} time", seconds, "s", str(tuned.method))
