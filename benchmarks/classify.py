"""Measure classification on a folder of classes: zero-shot, supervised, from 1, 5 and 20 examples a
class, fine-tuned, with calibration.

    python benchmarks/classify.py --data DIR [--seeds 5] [--finetune]

DIR holds ``imagenette-dev.tar``, one folder a class. All ways are judged on the same photos: those
that are no example for any of them (20 a class are, drawn anew with each seed). The table gives the
mean over the seeds and the 95 % interval of the first.
"""

import argparse
import csv
import tarfile
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from machine import machine
from numpy.typing import NDArray
from PIL import Image

from vitsearch import Collection, finetune, index_folder, load_classifier
from vitsearch.classifiers.finetune import FinetuneSettings
from vitsearch.encoders.mini import MiniEncoder
from vitsearch.evaluation import labelled_vectors
from vitsearch.labels import LabelClassifier, calibrate, prototype_classifier, tip_classifier
from vitsearch.labels.metrics import accuracy_interval, expected_calibration_error
from vitsearch.labels.probe import probe_classifier

SHOTS = (1, 5, 20)
Ids = NDArray[np.int64]


def draw_examples(right: Ids, seed: int) -> list[Ids]:
    """Return for each class the places of its photos in an order of the seed."""
    rng = np.random.default_rng(seed)
    return [rng.permutation(np.flatnonzero(right == number)) for number in range(right.max() + 1)]


def judge(
    classifier: LabelClassifier, vectors: NDArray[np.float32], truth: Sequence[str]
) -> tuple[int, float]:
    """Return how many are right and the calibration error."""
    chances = classifier.predict_proba(vectors)
    right = np.array([classifier.classes.index(label) for label in truth])
    return int((chances.argmax(axis=1) == right).sum()), expected_calibration_error(chances, right)


def supervised(
    collection: Collection, paths: Sequence[str], truth: Sequence[str]
) -> NDArray[np.bool_]:
    """Return which photos the supervised head of `mini` gets right among its own classes of these
    names.
    """
    encoder = collection.encoder
    assert isinstance(encoder, MiniEncoder)
    names = sorted(set(truth))
    columns = [encoder.class_names.index(name) for name in names]
    best: list[int] = []
    for start in range(0, len(paths), 64):
        images = [
            Image.open(collection.root / path).convert("RGB") for path in paths[start : start + 64]
        ]
        best.extend(encoder.class_logits(images)[:, columns].argmax(axis=1).tolist())
    return np.array([names[index] == label for index, label in zip(best, truth, strict=True)])


def main() -> None:
    """Print one line a way."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--data", type=Path, required=True, help="folder with imagenette-dev.tar")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument(
        "--finetune",
        action="store_true",
        help="also fine-tune mini on 20 photos a class, for each seed (minutes)",
    )
    chosen = parser.parse_args()
    print(machine())
    with tempfile.TemporaryDirectory() as folder:
        with tarfile.open(chosen.data / "imagenette-dev.tar") as tar:
            tar.extractall(folder, filter="data")
        index_folder(folder, encoder="mini")
        with Collection.open(folder) as collection:
            measure(collection, chosen.seeds, finetuning=chosen.finetune)


def fine_tuned(
    collection: Collection, paths: Sequence[str], truth: Sequence[str], chosen_rows: Ids, rest: Ids
) -> tuple[int, float]:
    """Fine-tune `mini` on some of the photos, no others, and return how many of the rest are right
    and the calibration error.
    """
    with tempfile.TemporaryDirectory() as folder:
        examples = Path(folder) / "examples.csv"
        with open(examples, "w", encoding="utf-8", newline="") as file:
            csv.writer(file).writerows(
                [("path", "label"), *((paths[i], truth[i]) for i in chosen_rows)]
            )
        settings = FinetuneSettings(validation=0.0)
        report = finetune(collection.root, str(examples), Path(folder) / "model", settings=settings)
        print(
            f"fine-tuned on {report.photos} photos, {report.epochs[-1].epoch} epochs, in "
            f"{report.seconds:.0f} s"
        )
        classifier = load_classifier(f"local-dir:{folder}/model")
        chances = np.empty((len(rest), len(classifier.classes)), dtype=np.float32)
        for row, labels in enumerate(
            classifier([collection.root / paths[i] for i in rest], len(classifier.classes))
        ):
            for prediction in labels:
                chances[row, classifier.classes.index(prediction.label)] = prediction.score
    right = np.array([classifier.classes.index(truth[i]) for i in rest])
    return int((chances.argmax(axis=1) == right).sum()), expected_calibration_error(chances, right)


def measure(collection: Collection, seeds: int, *, finetuning: bool = False) -> None:
    """Print the table of a collection whose folders are its classes."""
    paths, vectors, truth = labelled_vectors(collection, "folders")
    names = sorted(set(truth))
    right = np.array([names.index(label) for label in truth])
    zero_shot = collection.zero_shot(names)
    head = supervised(collection, paths, truth)
    few: dict[str, Callable[[NDArray[np.float32], list[str]], LabelClassifier]] = {
        "prototype": prototype_classifier,
        "tip": lambda rows, labels: tip_classifier(zero_shot, rows, labels),
        "probe": probe_classifier,
    }
    results: dict[str, list[tuple[int, int, float]]] = {}
    for seed in range(seeds):
        order = draw_examples(right, seed)
        rest = np.sort(np.concatenate([places[max(SHOTS) :] for places in order]))
        test_labels = [truth[index] for index in rest]
        results.setdefault("zero-shot", []).append(
            (*judge(zero_shot, vectors[rest], test_labels), len(rest))
        )
        results.setdefault("supervised head", []).append(
            (int(head[rest].sum()), float("nan"), len(rest))
        )
        for count in SHOTS:
            chosen_rows = np.concatenate([places[:count] for places in order])
            labels = [truth[index] for index in chosen_rows]
            for name, make in few.items():
                if name != "probe" or count > 1:
                    measures = judge(make(vectors[chosen_rows], labels), vectors[rest], test_labels)
                    results.setdefault(f"{name}, {count} a class", []).append(
                        (*measures, len(rest))
                    )
        if finetuning:
            name = f"fine-tuned mini, {max(SHOTS)} a class"
            results.setdefault(name, []).append(
                (*fine_tuned(collection, paths, truth, chosen_rows, rest), len(rest))
            )
        calibrated, _ = calibrate(zero_shot, vectors[chosen_rows], labels)  # on the most examples
        results.setdefault("zero-shot, calibrated on these", []).append(
            (*judge(calibrated, vectors[rest], test_labels), len(rest))
        )
    for name, runs in results.items():
        low, high = accuracy_interval(runs[0][0], runs[0][2])
        share = float(np.mean([hits / total for hits, _, total in runs]))
        error = float(np.mean([wrong for _, wrong, _ in runs]))
        print(
            f"{name:32} accuracy {share:.3f}  ({low:.3f} to {high:.3f})  "
            f"calibration error {error:.3f}"
        )


if __name__ == "__main__":
    main()
