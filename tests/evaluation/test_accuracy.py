"""Accuracy on one folder a class, and retrieval by captions, against scikit-learn's and
CLIP_benchmark's definitions.
"""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image
from scipy.stats import binomtest
from sklearn.metrics import accuracy_score, balanced_accuracy_score, top_k_accuracy_score

from helpers.cli import vitsearch
from helpers.photos import paint
from helpers.remarks import logged_remarks
from vitsearch import Collection, ImageClassifier, evaluate, index_folder
from vitsearch.arrays import unit_rows
from vitsearch.encoders.colour import ColourEncoder
from vitsearch.errors import ClassifierError, EncoderMismatch, PhotoError, QueryError
from vitsearch.evaluation import Evaluation, evaluate_model
from vitsearch.evaluation.datasets import _ranks
from vitsearch.labels import LinearClassifier
from vitsearch.labels.metrics import (
    Share,
    accuracy_interval,
    expected_calibration_error,
    recall_at_k,
)
from vitsearch.storage.store import PhotoStore

CLASSES = ("black", "blue", "green", "red", "white", "yellow")


@pytest.fixture
def dataset(tmp_path: Path) -> Path:
    """Six folders named for colours with photos of mixed colours, some in the wrong folder, and one
    photo in none.
    """
    folder = tmp_path / "set"
    for place, name in enumerate(CLASSES):
        other = CLASSES[(place + 1) % 6]
        paint(folder / name / "1.png", name)
        paint(folder / name / "2.png", name, name, other)
        if place % 2:
            paint(folder / name / "3.png", other)
    paint(folder / "4.png", "red")
    index_folder(folder, encoder=ColourEncoder())
    return folder


def measured(folder: Path, *arguments: Any, **options: Any) -> tuple[Evaluation, list[str]]:
    with logged_remarks() as lines, Collection.open(folder, encoder=ColourEncoder()) as found:
        return evaluate(found, *arguments, **options), lines


def caption(folder: Path, *lines: str) -> Path:
    file = folder / "captions.tsv"
    file.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    return file


def test_zero_shot_accuracy_is_scikit_learns(dataset: Path) -> None:
    result, notes = measured(dataset)
    with Collection.open(dataset, encoder=ColourEncoder()) as found:
        photos, vectors = found.vectors()
        kept = [place for place, photo in enumerate(photos) if "/" in photo.path]
        truth = [photos[place].path.split("/")[0] for place in kept]
        classifier = found.zero_shot(CLASSES)
    logits, numbers = (
        classifier.logits(vectors[kept]),
        np.array([CLASSES.index(name) for name in truth]),
    )
    best = logits.argmax(axis=1)
    assert (result.photos, result.left_out, result.retrieval, notes) == (16, 1, None, [])
    assert result.accuracy is not None
    accuracy = result.accuracy
    assert (accuracy.classifier, accuracy.classes, accuracy.top1, accuracy.top5) == (
        "zero-shot",
        6,
        Share(12, 15),
        Share(14, 15),
    )
    assert (
        accuracy.top1.value
        == accuracy_score(numbers, best)
        == top_k_accuracy_score(numbers, logits, k=1, labels=range(6))
    )
    assert accuracy.top1.interval == pytest.approx(
        tuple(binomtest(12, 15).proportion_ci(method="wilson")), abs=1e-6
    )
    assert accuracy.mean_per_class == pytest.approx(balanced_accuracy_score(numbers, best))
    chances = classifier.predict_proba(vectors[kept])
    assert accuracy.calibration_error == pytest.approx(
        expected_calibration_error(chances, numbers), abs=1e-6
    )
    two, three = Share(2, 2), Share(2, 3)
    assert accuracy.per_class == {
        "black": two,
        "blue": three,
        "green": two,
        "red": three,
        "white": two,
        "yellow": three,
    }


def test_templates_change_the_prompts(dataset: Path) -> None:
    result, _ = measured(dataset, templates=["black {}"])
    assert result.accuracy is not None
    assert result.accuracy.top1 != Share(12, 15)


def test_fewer_than_five_classes_have_no_top_five(indexed: Path) -> None:
    for colour in ("red", "green"):
        (indexed / f"{colour}.png").rename(paint(indexed / colour / "1.png", colour))
    index_folder(indexed, encoder=ColourEncoder())
    result, _ = measured(indexed, labels=["green", "red", "sub := blue"])
    assert result.accuracy is not None
    assert (result.left_out, result.accuracy.top1, result.accuracy.top5) == (1, Share(3, 3), None)


def test_labels_say_what_the_folders_show(tmp_path: Path) -> None:
    for name, colour in (("n01", "red"), ("n02", "blue"), ("n03", "green")):
        paint(tmp_path / name / "a.png", colour)
    index_folder(tmp_path, encoder=ColourEncoder())
    right, _ = measured(tmp_path, labels=["n03 := green", "n01 := red", "n02 := blue"])
    wrong, _ = measured(tmp_path, labels=["n03 := red", "n01 := green", "n02 := blue"])
    assert right.accuracy is not None
    assert wrong.accuracy is not None
    assert (right.accuracy.top1, wrong.accuracy.top1) == (Share(3, 3), Share(1, 3))
    assert list(right.accuracy.per_class) == ["n01", "n02", "n03"]
    for labels, words in (
        (
            ["n01 := red", "n02 := blue"],
            "there is no label for the folder n03: write n03 := what its photos show",
        ),
        (
            ["n01", "n02", "n03", "n04 := pink"],
            "there is no folder for the label n04: a label's name must be a folder's",
        ),
        (["n01", "n02", "n03", "n01"], "a label is given twice: n01"),
    ):
        with pytest.raises(QueryError, match=words):
            measured(tmp_path, labels=labels)


def test_equal_scores_rank_in_order_of_class(dataset: Path) -> None:
    """A classifier that knows nothing is right on the photos of its first class alone."""
    blind = LinearClassifier(
        CLASSES, np.zeros((6, 27), dtype=np.float32), np.zeros(6, dtype=np.float32)
    )
    result, _ = measured(dataset, blind)
    assert result.accuracy is not None
    assert (result.accuracy.classifier, result.accuracy.top1, result.accuracy.top5) == (
        "classifier",
        Share(2, 15),
        Share(12, 15),
    )
    assert result.accuracy.mean_per_class == pytest.approx(1 / 6)
    assert result.accuracy.calibration_error == pytest.approx(abs(1 / 6 - 2 / 15))


def test_a_classifier_may_have_more_classes_and_must_have_all(dataset: Path) -> None:
    words = ColourEncoder().encode_texts([*CLASSES, "pink"])
    more = LinearClassifier(
        (*CLASSES, "pink"),
        words,
        np.zeros(7, dtype=np.float32),
        fingerprint=ColourEncoder.fingerprint,
    )
    result, _ = measured(dataset, more)
    assert result.accuracy is not None
    assert (result.accuracy.classes, list(result.accuracy.per_class)) == (7, list(CLASSES))
    few = LinearClassifier(CLASSES[2:], words[2:6], np.zeros(4, dtype=np.float32))
    with pytest.raises(
        QueryError,
        match=(
            "the classifier has no class for the folder black, blue: it has green, red, white, "
            "yellow"
        ),
    ):
        measured(dataset, few)
    foreign = LinearClassifier(
        CLASSES, words[:6], np.zeros(6, dtype=np.float32), fingerprint="0" * 32
    )
    with pytest.raises(
        EncoderMismatch,
        match="the classifier was made for the vectors of another encoder than colour",
    ):
        measured(dataset, foreign)


def test_sets_without_two_classes_are_refused(tmp_path: Path, photos: Path) -> None:
    index_folder(photos, encoder=ColourEncoder())
    with pytest.raises(
        QueryError,
        match="all photos lie in one folder, 'sub': an evaluation needs two classes or more",
    ):
        measured(photos)
    shutil.rmtree(photos / "sub")
    index_folder(photos, encoder=ColourEncoder())
    with pytest.raises(
        QueryError, match="there are no labels: no photo lies in a folder of its own"
    ):
        measured(photos)
    (tmp_path / "empty").mkdir()
    done = vitsearch("eval", tmp_path / "empty", "--encoder", "colour")
    assert (done.returncode, done.stdout, done.stderr.count(b"\n")) == (1, b"", 1)
    assert b"no photos found in" in done.stderr


# -- a model that reads photos ---------------------------------------------------------------------


class ColourHead:
    """A model whose classes are colour words, one of them named twice."""

    activation: Any = "softmax"
    classes: tuple[str, ...] = (
        "pink",
        "red",
        "blue",
        "brown",
        "green",
        "black",
        "white",
        "red",
        "yellow",
    )
    words = ("pink", "red", "blue", "brown", "green", "black", "white", "crimson", "yellow")

    def __init__(self) -> None:
        self.encoder = ColourEncoder()

    def prepare(self, image: Any) -> Any:
        return self.encoder.prepare(image)

    def logits(self, batch: Any) -> NDArray[np.float32]:
        return (
            np.float32(20)
            * self.encoder.encode_prepared(batch)
            @ self.encoder.encode_texts(self.words).T
        )


def model_accuracy(folder: Path, head: Any, **options: Any) -> Any:
    with Collection.open(folder, encoder=ColourEncoder()) as found:
        return evaluate_model(found, ImageClassifier("colours", head), **options)


def test_a_model_chooses_among_the_folders_classes(dataset: Path) -> None:
    done: list[int] = []
    accuracy = model_accuracy(dataset, ColourHead(), progress=lambda step: done.append(step.done))
    with Collection.open(dataset, encoder=ColourEncoder()) as found:
        classed = [photo.path for photo in found.photos() if "/" in photo.path]
        vectors = found.encoder.encode_images([Image.open(found.root / path) for path in classed])
        truth = [path.split("/")[0] for path in classed]
    logits = (
        20
        * vectors.astype(np.float64)
        @ ColourEncoder().encode_texts([*CLASSES, "crimson"]).T.astype(np.float64)
    )
    powers = np.exp(logits)
    powers[:, 3] += powers[:, 6]  # both classes named red
    chances = powers[:, :6] / powers[:, :6].sum(axis=1, keepdims=True)
    numbers = np.array([CLASSES.index(name) for name in truth])
    assert (accuracy.classifier, accuracy.classes, done[-1]) == ("colours", 6, 15)
    assert accuracy.top1.value == pytest.approx(accuracy_score(numbers, chances.argmax(axis=1)))
    early = chances - 1e-9 * np.arange(6)  # scikit-learn ranks equal scores from the last class
    assert accuracy.top5.value == pytest.approx(
        top_k_accuracy_score(numbers, early, k=5, labels=range(6))
    )
    assert accuracy.calibration_error == pytest.approx(
        expected_calibration_error(chances, numbers), abs=1e-5
    )


def test_a_models_class_is_the_folders_name_or_one_of_its_labels_words(dataset: Path) -> None:
    head = ColourHead()
    head.classes = tuple(name.upper() for name in head.classes)
    with pytest.raises(
        QueryError,
        match=(
            "colours has no class black, blue, green, red, white and 1 more: it has PINK, RED, "
            "BLUE, ...; say"
        ),
    ):
        model_accuracy(dataset, head)
    labels = [f"{name} := a {name} thing | {name.upper()}" for name in CLASSES]
    assert model_accuracy(dataset, head, labels=labels) == model_accuracy(dataset, ColourHead())


def test_a_sigmoid_model_is_judged_by_each_class_by_itself(dataset: Path) -> None:
    head = ColourHead()
    head.activation = "sigmoid"
    accuracy = model_accuracy(dataset, head)
    assert accuracy.top1 == model_accuracy(dataset, ColourHead()).top1
    assert accuracy.calibration_error != pytest.approx(
        model_accuracy(dataset, ColourHead()).calibration_error, abs=1e-3
    )


def test_a_photo_that_is_gone_is_named(dataset: Path) -> None:
    (dataset / "red" / "2.png").unlink()
    with pytest.raises(PhotoError, match=r"red/2\.png: "):
        model_accuracy(dataset, ColourHead())


# -- captions --------------------------------------------------------------------------------------


def benchmark_recall(scores: NDArray[np.float64], own: list[set[int]], k: int) -> float:
    """CLIP_benchmark's recall@k said again: the share of rows with at least one right column among
    their k best.
    """
    hits = [
        bool(own[row] & set(sorted(range(scores.shape[1]), key=lambda i: (-scores[row, i], i))[:k]))
        for row in range(len(scores))
    ]
    return sum(hits) / len(hits)


@settings(deadline=None)
@given(st.integers(1, 7), st.integers(0, 10), st.integers(0, 10_000))
def test_recall_is_that_of_clip_benchmark(photos: int, more: int, seed: int) -> None:
    """Vectors of few values, so that many scores are equal; each photo has a caption, some have
    several.
    """
    rng = np.random.default_rng(seed)
    images, texts = (
        unit_rows(rng.integers(0, 2, (n, 4)) + 0.5 * np.eye(4)[0]) for n in (photos, photos + more)
    )
    photo = rng.permutation(np.concatenate([np.arange(photos), rng.integers(0, photos, more)]))
    scores = np.round(texts.astype(np.float64) @ images.astype(np.float64).T, 10)
    places = np.arange(photos)
    for k in (1, 2, 5):
        wanted = benchmark_recall(scores, [{int(one)} for one in photo], k)
        assert recall_at_k(_ranks(texts, images, photo, places), k) == pytest.approx(wanted)
        wanted = benchmark_recall(
            scores.T, [set(np.flatnonzero(photo == one).tolist()) for one in places], k
        )
        assert recall_at_k(_ranks(images, texts, places, photo), k) == pytest.approx(wanted)


def test_captions_give_retrieval_recall(dataset: Path) -> None:
    lines = [
        "red/1.png\ta red page",
        "red/1.png\tblue",
        "blue/1.png\tthe blue\tone",
        "",
        "green/1.png\twhite",
        "gone.png\tpink",
        "4.png\tred",
    ]
    caption(dataset, *lines)
    result, notes = measured(dataset)
    with Collection.open(dataset, encoder=ColourEncoder()) as found:
        images = {photo.path: row for photo, row in zip(*found.vectors(), strict=True)}
    shown = ["4.png", "blue/1.png", "green/1.png", "red/1.png"]
    scores = (
        ColourEncoder().encode_texts(["red", "blue", "blue", "white", "red"])
        @ np.stack([images[path] for path in shown]).T
    )
    own = [{3}, {3}, {1}, {2}, {0}]
    of_photo = [{4}, {2}, {3}, {0, 1}]
    scores = np.round(scores.astype(np.float64), 5)
    retrieval = result.retrieval
    assert retrieval is not None
    assert (retrieval.photos, retrieval.captions, retrieval.unknown) == (4, 5, 1)
    assert retrieval.image_recall == {k: benchmark_recall(scores, own, k) for k in (1, 5, 10)}
    assert retrieval.text_recall == {k: benchmark_recall(scores.T, of_photo, k) for k in (1, 5, 10)}
    assert (retrieval.image_recall[1], retrieval.image_recall[5]) == (0.4, 1.0)
    assert notes == ["1 of 6 captions are of photos that are not in the set, such as 'gone.png'"]


def test_captions_alone_are_enough(indexed: Path) -> None:
    caption(indexed, "red.png\tred", "sub/blue.png\tblue")
    result, notes = measured(indexed)
    assert (result.photos, result.left_out, result.accuracy) == (4, 4, None)
    assert result.retrieval is not None
    assert (
        result.retrieval.image_recall == result.retrieval.text_recall == {1: 1.0, 5: 1.0, 10: 1.0}
    )
    assert [note[:56] for note in notes] == [
        "no classes to tell: all photos lie in one folder, 'sub':"
    ]


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"red/1.png\tred\nblue/1.png blue\n", "line 2: there is no tab in it"),
        (b"red/1.png\tred\r\n\r\nblue/1.png\t  \r\n", "line 3: the path or the caption is empty"),
        (b"\tred\n", "line 1: the path or the caption is empty"),
        (b"red/1.png\tred\nblue/1.png\t\xff\xfe\n", "line 2: it is not UTF-8 text"),
        ("red/1.png\tred\n".encode("utf-16"), "line 1: it is not UTF-8 text"),
        (
            b"set/red/1.png\tred\n",
            r"no path in .*captions.tsv is a photo of the set \(the first is 'set/red/1.png'\)",
        ),
        (b"", "no path in .*captions.tsv is a photo of the set: write path<TAB>caption"),
    ],
)
def test_a_damaged_line_of_captions_is_named(dataset: Path, content: bytes, words: str) -> None:
    (dataset / "captions.tsv").write_bytes(content)
    with pytest.raises(QueryError, match=words):
        measured(dataset)


def test_a_captions_file_may_lie_elsewhere(dataset: Path, tmp_path: Path) -> None:
    (tmp_path / "other.tsv").write_bytes(b"\xef\xbb\xbfred/1.png\tred\r\n")
    result, notes = measured(dataset, captions=tmp_path / "other.tsv")
    assert result.retrieval is not None
    assert (result.retrieval.captions, notes) == (1, [])
    with pytest.raises(
        QueryError,
        match=(
            r"cannot read the captions in .*none.tsv \(No such file or directory\): check the "
            r"path"
        ),
    ):
        measured(dataset, captions=tmp_path / "none.tsv")


# -- the command -----------------------------------------------------------------------------------


def rows(output: bytes) -> list[dict[str, Any]]:
    return [json.loads(line) for line in output.decode("ascii").splitlines()]


def test_the_command_indexes_and_prints(dataset: Path, tmp_path: Path) -> None:
    caption(dataset, "red/1.png\tred", "blue/1.png\tblue")
    place = tmp_path / "elsewhere"
    done = vitsearch("eval", dataset, "--encoder", "colour", "--collection", place, "--json")
    assert (done.returncode, done.stderr) == (
        0,
        b"vitsearch: 1 of 16 photos lie in no folder and are left out\n",
    )
    first, *classes, retrieval = rows(done.stdout)
    assert (place / "collection.json").is_file()
    assert {key: first[key] for key in ("classifier", "photos", "classes", "top1", "top5")} == {
        "classifier": "zero-shot", "photos": 15, "classes": 6, "top1": 0.8, "top5": 14 / 15,
    }  # fmt: skip
    assert (first["top1_low"], first["top1_high"]) == pytest.approx((0.548146, 0.929525), abs=1e-5)
    assert classes[1] == {"classifier": "zero-shot", "class": "blue", "photos": 3, "right": 2}
    names = [f"{kind}_retrieval_recall@{k}" for kind in ("image", "text") for k in (1, 5, 10)]
    low, high = accuracy_interval(2, 2)
    assert retrieval == {
        "photos": 2, "captions": 2, "unknown_captions": 0,
        **dict.fromkeys(names, 1.0),
        **dict.fromkeys((f"{name}_low" for name in names), low),
        **dict.fromkeys((f"{name}_high" for name in names), high),
    }  # fmt: skip
    said = vitsearch("eval", dataset, "--template", "{}").stdout.decode().splitlines()
    assert said[0].split("  ")[0] == "classifier"
    assert said[1].split() == [
        "zero-shot",
        "15",
        "6",
        "0.8000",
        "(0.5481",
        "to",
        "0.9295)",
        "0.9333",
        "(0.7018",
        "to",
        "0.9881)",
        "0.8333",
        said[1].split()[-1],
    ]
    assert said[3].split() == ["zero-shot:", "classes", "photos", "right", "share"]
    assert said[4].split() == ["blue", "3", "2", "0.6667"]
    whole = ["1.0000", f"({low:.4f}", "to", f"{high:.4f})"]
    assert said[-2].split() == ["text", "to", "photo", "2", "2", *whole, *whole, *whole]


def test_the_photos_own_descriptions_are_captions(dataset: Path) -> None:
    with pytest.raises(QueryError, match="no photo of the collection has a description: name a"):
        measured(dataset, captions="descriptions")
    described = {"red/1.png": "red", "blue/1.png": "the  blue\none", "4.png": "red"}
    store = PhotoStore(dataset / ".vitsearch" / "photos.db")
    with store.writing():
        for photo in list(store.photos()):
            text = described.get(photo.path)
            store._rows.update(store._db, photo.photo_id, "description = ?", (text,))
    store.close()
    result, _ = measured(dataset, captions="descriptions")
    lines = [f"{path}\t{' '.join(text.split())}" for path, text in described.items()]
    caption(dataset, *lines)
    expected, _ = measured(dataset)
    assert expected.retrieval is not None
    assert result.retrieval == expected.retrieval
    assert expected.retrieval.image_interval(5) == accuracy_interval(3, 3)
    done = vitsearch("eval", dataset, "--captions", "descriptions", "--json")
    assert rows(done.stdout)[-1]["captions"] == 3


def test_the_command_judges_what_was_trained(dataset: Path, tmp_path: Path) -> None:
    trained = tmp_path / "trained"
    done = vitsearch(
        "train", dataset, "--labels-from", "folders", "--method", "prototype", "-o", trained
    )
    assert done.returncode == 0, done.stderr
    found = vitsearch("eval", dataset, "--classifier", trained, "--json")
    assert (
        found.returncode,
        rows(found.stdout)[0]["classifier"],
        rows(found.stdout)[0]["photos"],
    ) == (0, "classifier", 15)
    with pytest.raises(ClassifierError, match="there is no classifier in"):
        LinearClassifier.load(tmp_path / "none")


def test_the_command_says_what_is_wrong(dataset: Path, tmp_path: Path) -> None:
    (tmp_path / "labels.txt").write_text("red\nblue\n")
    for code, words, arguments in (
        (
            1,
            "there is no label for the folder black, green, white, yellow",
            ["--labels-file", tmp_path / "labels.txt"],
        ),
        (1, "there is no classifier in", ["--classifier", tmp_path / "none"]),
        (1, "template 'photo' has no {} for the label", ["--template", "photo"]),
        (1, "there is no classifier 'resnet'", ["--model", "resnet"]),
        (
            1,
            "mini has no class black, blue, green, red, white and 1 more: it has tench, ",
            ["--model", "mini"],
        ),
        (2, "--template goes with zero-shot", ["--classifier", tmp_path, "--template", "{}"]),
        (
            2,
            "--labels-file goes with zero-shot",
            ["--classifier", tmp_path, "--labels-file", tmp_path / "labels.txt"],
        ),
    ):
        done = vitsearch("eval", dataset, *arguments)
        assert (done.returncode, done.stdout, done.stderr.count(b"\n")) == (code, b"", 1), (
            done.stderr
        )
        assert words in done.stderr.decode()


@pytest.mark.slow
def test_the_command_judges_a_model_beside_zero_shot(tmp_path: Path) -> None:
    """Noise and plain pictures: what `mini` says of them does not matter, that both are judged
    does.
    """
    rng = np.random.default_rng(1)
    for name in ("n01", "n02"):
        (tmp_path / "set" / name).mkdir(parents=True)
        for number in range(2):
            Image.fromarray(rng.integers(0, 256, (40, 40, 3), dtype=np.uint8)).save(
                tmp_path / "set" / name / f"{number}.png"
            )
    (tmp_path / "labels.txt").write_text("n01 := tench\nn02 := goldfish\n")
    done = vitsearch(
        "eval",
        tmp_path / "set",
        "--labels-file",
        tmp_path / "labels.txt",
        "--model",
        "mini",
        "--json",
    )
    assert done.returncode == 0, done.stderr
    facts = [row for row in rows(done.stdout) if "top1" in row]
    assert [(row["classifier"], row["photos"], row["classes"], row["top5"]) for row in facts] == [
        ("zero-shot", 4, 2, None),
        ("mini", 4, 2, None),
    ]
