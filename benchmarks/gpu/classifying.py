"""The pipeline of transformers and `load_classifier`, side by side on one model and device."""

import argparse
import tempfile
import time
from pathlib import Path

import torch
import transformers

from benchmarks.gpu.models import pictures, save_classifier
from benchmarks.gpu.report import Report
from vitsearch import load_classifier


def measure(report: Report, chosen: argparse.Namespace) -> None:
    """Write pictures a second of both, and how far their answers are apart."""
    is_cuda = chosen.device.startswith("cuda")
    dtype = torch.float16 if is_cuda else torch.float32
    count, batch = (8, 4) if chosen.tiny else (1024, 64)
    few = pictures(min(count, 64))
    images = [few[number % len(few)] for number in range(count)]
    with tempfile.TemporaryDirectory() as scratch:
        name = save_classifier(Path(scratch) / "model", chosen.tiny)
        pipe = transformers.pipeline(
            "image-classification",
            model=name.partition(":")[2],
            dtype=dtype,
            device=0 if is_cuda else "cpu",
        )
        classifier = load_classifier(name, device=0 if is_cuda else "cpu", dtype=dtype)
        theirs, ours = [], []
        for _ in range(2):  # the first warms up
            began = time.perf_counter()
            theirs = list(pipe(images, batch_size=batch, top_k=5))
            their_rate = count / (time.perf_counter() - began)
            began = time.perf_counter()
            ours = classifier(images, 5, batch_size=batch)
            our_rate = count / (time.perf_counter() - began)
    beside = f"{dtype}, batch {batch}".removeprefix("torch.")
    report.add("pipeline of transformers", their_rate, "pictures/s", beside)
    report.add("load_classifier", our_rate, "pictures/s", beside)
    first = [(a[0]["label"], b[0].label) for a, b in zip(theirs, ours, strict=True)]
    report.add("the same best label", sum(a == b for a, b in first) / count, "share")
    apart = [abs(a[0]["score"] - b[0].score) for a, b in zip(theirs, ours, strict=True)]
    report.add("probability of the best label", max(apart), "largest difference")
