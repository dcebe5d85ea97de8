"""Every adapter on the device in each number format, beside its own float32 vectors by the CPU."""

import argparse
import copy
import tempfile
from pathlib import Path

import numpy as np
import torch

from benchmarks.gpu.models import CLASSIFIERS, SENTENCES, TWO_TOWERS, pictures
from benchmarks.gpu.report import Report
from vitsearch import load_classifier, load_encoder
from vitsearch.encoders.checkpoints import one_line
from vitsearch.encoders.torch_encoder import TorchEncoder

DTYPES = ("float32", "bfloat16", "float16")
COUNT = 16


def measure(report: Report, chosen: argparse.Namespace) -> None:
    """Write the least cosine of pictures and of texts, and the largest difference of a
    probability.
    """
    images = pictures(COUNT)
    with tempfile.TemporaryDirectory() as scratch:
        for number, (name, save) in enumerate(TWO_TOWERS.items()):
            try:
                model = save(Path(scratch) / str(number), chosen.tiny)
                compare_towers(report, name, model, images, chosen.device)
            except Exception as error:  # the next adapter is measured all the same
                report.add(name, f"failed: {one_line(error)}")
        for name, save in CLASSIFIERS.items():
            try:
                model = save(Path(scratch) / name.partition(" ")[0], chosen.tiny)
                compare_classifiers(report, name, model, images, chosen.device)
            except Exception as error:
                report.add(name, f"failed: {one_line(error)}")


def compare_towers(report: Report, name: str, model: str, images: list, device: str) -> None:
    """Compare both towers, and the picture tower as our own transformer."""
    plain = load_encoder(model, "cpu", "float32", runtime="torch")
    expected = plain.encode_images(images), plain.encode_texts(SENTENCES)
    for dtype in DTYPES:
        encoder = load_encoder(model, device, dtype, runtime="torch")
        for kind, rows, own in zip(
            ("pictures", "texts"),
            (encoder.encode_images(images), encoder.encode_texts(SENTENCES)),
            expected,
            strict=True,
        ):
            report.add(f"{name}, {kind}", least_cosine(rows, own), "least cosine", dtype)
    exact = load_encoder(model, device, "float32", runtime="torch")
    assert isinstance(exact, TorchEncoder)
    try:
        tower = exact.image_tower
    except Exception as error:  # a tower of another kind
        report.add(f"{name}, vit.py", f"none: {one_line(error)}")
        return
    pixels = exact.normalise(np.stack([exact.prepare(image) for image in images])).float()
    for dtype in (torch.float32, torch.bfloat16, torch.float16):
        with torch.inference_mode():
            rows = copy.deepcopy(tower).to(dtype)(pixels.to(dtype)).float().cpu().numpy()
        word = str(dtype).removeprefix("torch.")
        report.add(f"{name}, vit.py", least_cosine(rows, expected[0]), "least cosine", word)


def compare_classifiers(report: Report, name: str, model: str, images: list, device: str) -> None:
    """Compare the probabilities of all classes."""
    expected = load_classifier(model, device="cpu", dtype="float32")(images, 10)
    for dtype in DTYPES:
        answers = load_classifier(model, device=device, dtype=dtype)(images, 10)
        largest = max(
            abs(score - {each.label: each.score for each in other}[label])
            for own, other in zip(answers, expected, strict=True)
            for label, score in ((each.label, each.score) for each in own)
        )
        report.add(name, float(largest), "largest difference of a probability", dtype)


def least_cosine(rows: np.ndarray, expected: np.ndarray) -> float:
    """Return the least cosine of rows with those that were expected; NaN shows as it is."""
    lengths = np.linalg.norm(rows, axis=1) * np.linalg.norm(expected, axis=1)
    return float(((rows * expected).sum(axis=1) / lengths).min())
