"""Fine-tuning resumed in the middle, a photo explained, and actors of Ray, on the device."""

import argparse
import importlib.util
import tempfile
from pathlib import Path

import numpy as np
from PIL import Image

from benchmarks.gpu.models import pictures, save_classifier, save_jpegs, save_open_clip
from benchmarks.gpu.report import Report
from vitsearch import finetune, load_classifier, load_encoder
from vitsearch.classifiers.finetune.settings import FinetuneSettings
from vitsearch.encoders.checkpoints import one_line
from vitsearch.explain import explain

COLOURS = {"red": (200, 30, 30), "green": (30, 180, 40), "blue": (30, 40, 200)}


class Stopped(Exception):
    """The run was broken off on purpose."""


def measure(report: Report, chosen: argparse.Namespace) -> None:
    """Run the three, each whether or not the one before it went well."""
    with tempfile.TemporaryDirectory() as scratch:
        for number, step in enumerate((resumed, explained, by_ray)):
            try:
                step(report, Path(scratch) / str(number), chosen)
            except Exception as error:
                report.add(step.__name__, f"failed: {one_line(error)}")


def resumed(report: Report, folder: Path, chosen: argparse.Namespace) -> None:
    """Train for two epochs, once through and once broken off after the first."""
    count = 6 if chosen.tiny else 60
    for name, colour in COLOURS.items():
        (folder / "photos" / name).mkdir(parents=True)
        for number, noise in enumerate(pictures(count, 128)):
            picture = Image.blend(noise, Image.new("RGB", noise.size, colour), 0.6)
            picture.putpixel((0, 0), (number, 0, 0))
            picture.save(folder / "photos" / name / f"{number}.png")
    model = save_classifier(folder / "model", chosen.tiny)
    settings = FinetuneSettings(epochs=2, batch_size=4 if chosen.tiny else 32, warmup_epochs=0.5)
    photos, steps = folder / "photos", {"model": model, "settings": settings}

    def stop(step: object) -> None:
        if getattr(step, "epoch", 0) >= 2:
            raise Stopped

    whole = finetune(photos, "folders", folder / "whole", device=chosen.device, **steps)
    try:
        finetune(photos, "folders", folder / "parts", device=chosen.device, progress=stop, **steps)
    except Stopped:
        report.add("fine-tuning", "broken off in the second epoch")
    finetune(photos, "folders", folder / "parts", device=chosen.device, resume=True, **steps)
    images = [Image.new("RGB", (128, 128), colour) for colour in COLOURS.values()]
    answers = [
        [
            {each.label: each.score for each in scores}
            for scores in load_classifier(f"local-dir:{folder / part}", device="cpu")(images, 3)
        ]
        for part in ("whole", "parts")
    ]
    apart = max(abs(a[name] - b[name]) for a, b in zip(*answers, strict=True) for name in COLOURS)
    report.add("fine-tuning, resumed and not", float(apart), "largest difference of a probability")
    report.add(
        "fine-tuning, best epoch",
        whole.best.right / whole.best.validated,
        "of the photos held out",
    )


def explained(report: Report, folder: Path, chosen: argparse.Namespace) -> None:
    """Explain a photo on the device and on the CPU."""
    model = save_open_clip(folder, chosen.tiny)
    picture = pictures(1)[0]
    maps = [
        explain(load_encoder(model, device, "float32", runtime="torch"), picture, "a red chair")
        for device in (chosen.device, "cpu")
    ]
    apart = float(np.abs(maps[0].relevance - maps[1].relevance).max())
    report.add("relevance for a text", apart, "largest difference to the CPU's")


def by_ray(report: Report, folder: Path, chosen: argparse.Namespace) -> None:
    """Embed photos with an actor of Ray that has a card."""
    if importlib.util.find_spec("ray") is None:
        report.add("actors of Ray", "skipped: ray is not installed")
        return
    from vitsearch.cluster import embed

    model = save_open_clip(folder / "model", chosen.tiny)
    count = 8 if chosen.tiny else 500
    photos = save_jpegs(folder / "photos", count, 64 if chosen.tiny else 480)
    is_cuda = chosen.device.startswith("cuda")
    done = embed(str(photos), str(folder / "shards"), encoder=model, gpus_per_actor=float(is_cuda))
    report.add("actors of Ray", done.embedded, "photos", f"of {count}")
