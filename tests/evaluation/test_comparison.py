"""Zero-shot, supervised and probe on the same photos: through the library and the command line."""

import csv
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image

from helpers.cli import vitsearch
from helpers.photos import paint
from vitsearch import Collection, ImageClassifier, compare, index_folder
from vitsearch.arrays import Vectors, to_probabilities
from vitsearch.collection.training import cross_validated
from vitsearch.encoders.colour import ColourEncoder
from vitsearch.errors import CollectionError, QueryError
from vitsearch.evaluation import ClassMap, Comparison, evaluate_model, labelled_vectors
from vitsearch.evaluation.class_map import label_logits
from vitsearch.evaluation.comparison import _MIN_SECONDS, _seconds
from vitsearch.labels import LinearClassifier
from vitsearch.labels.probe import probe_classifier
from vitsearch.types import Activation

pytest.importorskip("sklearn", reason="needs the extra vitsearch[probe]")

LABELS = ("red", "green", "blue")


class ColourHead:
    """A supervised model of colours: its classes are told by their colour words."""

    def __init__(self, *classes: str, activation: Activation = "softmax") -> None:
        self.classes = classes
        self.activation = activation
        self._encoder = ColourEncoder()
        self._weight = self._encoder.encode_texts(classes)

    def prepare(self, image: Image.Image) -> NDArray[np.uint8]:
        return self._encoder.prepare(image)

    def logits(self, batch: Sequence[Any]) -> NDArray[np.float32]:
        return 8 * self._encoder.encode_prepared(batch) @ self._weight.T


def model(*classes: str, activation: Activation = "softmax") -> ImageClassifier:
    return ImageClassifier("colours", ColourHead(*classes, activation=activation))


@pytest.fixture
def folders(tmp_path: Path) -> Path:
    """Three photos each of red, green and blue, in folders; one green photo is in the folder red;
    and one lies in no folder.
    """
    for colour in LABELS:
        for number in range(3):
            paint(tmp_path / "photos" / colour / f"{number}.png", colour, *["black"] * number)
    paint(tmp_path / "photos/red/odd.png", "green")
    paint(tmp_path / "photos/loose.png", "blue")
    index_folder(tmp_path / "photos", encoder=ColourEncoder())
    return tmp_path / "photos"


def compared(folder: Path, labels: Sequence[str] = LABELS, **options: Any) -> Comparison:
    with Collection.open(folder, encoder=ColourEncoder()) as found:
        return compare(found, labels, **{"model": model("red", "green", "blue")} | options)


def said(result: Comparison, way: int) -> list[str | None]:
    return [answer and answer[0] for answer in result.methods[way].answers]


def test_three_ways_are_measured_on_the_photos_whose_label_is_known(folders: Path) -> None:
    done: list[int] = []
    result = compared(folders, truth="folders", progress=lambda step: done.append(step.done))
    assert [(way.name, way.model, way.photo_count) for way in result.methods] == [
        ("zero-shot", "words", 10),
        ("supervised", "colours", 10),
        ("probe", "logistic regression", 10),
    ]
    assert result.photos[0] == "blue/0.png"
    assert result.truth == ("blue",) * 3 + ("green",) * 3 + ("red",) * 4
    assert (
        said(result, 0) == said(result, 1) == ["blue"] * 3 + ["green"] * 3 + ["red"] * 3 + ["green"]
    )
    for way in result.methods[:2]:
        assert way.accuracy is not None
        assert way.confusion is not None
        assert (way.accuracy.right, way.accuracy.total) == (9, 10)
        assert way.accuracy.interval == pytest.approx((0.5958, 0.9821), abs=1e-3)
        assert {
            name: (share.right, share.total) for name, share in (way.per_class or {}).items()
        } == {
            "red": (3, 4),
            "green": (3, 3),
            "blue": (3, 3),
        }
        assert way.confusion.tolist() == [[3, 1, 0], [0, 3, 0], [0, 0, 3]]
        scores = np.array([answer[1] for answer in way.answers if answer])
        assert 0 < (way.calibration_error or 0) < 1
        assert (scores > 1 / 3).all()
        assert way.photos_per_second > 0
    assert done[-1] == 10
    assert {pair: (share.right, share.total) for pair, share in result.agreement.items()}[
        ("zero-shot", "supervised")
    ] == (10, 10)
    assert list(result.agreement) == [
        ("zero-shot", "supervised"),
        ("zero-shot", "probe"),
        ("supervised", "probe"),
    ]
    assert result.notes == ("1 of 11 photos have no true label and are left out",)


@given(
    st.lists(st.sampled_from("abc"), min_size=4, max_size=30).filter(
        lambda truth: len(set(truth)) > 1
    )
)
def test_each_photo_is_judged_once_by_who_saw_all_others_of_its_folds(truth: list[str]) -> None:
    rows = np.arange(len(truth), dtype=np.float32)[:, None]
    folds = cross_validated(
        lambda vectors, names: (vectors[:, 0].astype(int).tolist(), names), rows, truth
    )  # type: ignore[type-var,return-value]
    fewest = min(truth.count(name) for name in set(truth))
    assert len(folds) == (min(5, fewest) if fewest > 1 else 0)
    assert sorted(place for here, _ in folds for place in here) == (
        list(range(len(truth))) if folds else []
    )
    for here, (seen, names) in folds:  # type: ignore[misc]
        assert sorted([*here, *seen]) == list(range(len(truth)))
        assert names == [truth[place] for place in seen]
        assert set(names) == set(truth)


@pytest.mark.slow
def test_the_probes_answers_are_those_of_the_folds(folders: Path) -> None:
    result = compared(folders, truth="folders")
    with Collection.open(folders, encoder=ColourEncoder()) as found:
        _, vectors, truth = labelled_vectors(found, "folders")
    for here, classifier in cross_validated(probe_classifier, vectors, truth):
        chances = classifier.predict_proba(vectors[here])
        answers = [result.methods[2].answers[place] for place in here]
        assert [answer and answer[0] for answer in answers] == classifier.predict(vectors[here])
        assert [answer and answer[1] for answer in answers] == pytest.approx(
            chances.max(axis=1).tolist(), abs=1e-6
        )


def test_probabilities_of_a_labels_classes_are_summed_and_divided_among_the_labels(
    folders: Path,
) -> None:
    shades = model("red", "green", "blue", "cyan", "yellow")
    classes = ClassMap(shades.classes, ("warm", "cold", None, "cold", "warm"))
    result = compared(
        folders, ("warm = red | yellow", "cold = blue | green"), model=shades, class_map=classes
    )
    files = [Image.open(folders / path).convert("RGB") for path in result.photos]
    chances = to_probabilities(shades.logits(files), "softmax")
    sums = np.stack([chances[:, [0, 4]].sum(axis=1), chances[:, [1, 3]].sum(axis=1)], axis=1)
    sums /= sums.sum(axis=1, keepdims=True)
    assert said(result, 1) == [("warm", "cold")[best] for best in sums.argmax(axis=1)]
    assert [answer[1] for answer in result.methods[1].answers if answer] == pytest.approx(
        sums.max(axis=1).tolist()
    )
    assert result.class_map == classes


@pytest.mark.slow
@pytest.mark.parametrize("activation", ["softmax", "sigmoid"])
def test_comparison_and_evaluation_measure_the_same(folders: Path, activation: Activation) -> None:
    os.remove(folders / "loose.png")
    index_folder(folders, encoder=ColourEncoder())
    shades = model("cyan", "blue", "red", "yellow", "green", activation=activation)
    supervised = compared(folders, ("blue", "green", "red"), model=shades, truth="folders").methods[
        1
    ]
    with Collection.open(folders, encoder=ColourEncoder()) as found:
        accuracy = evaluate_model(found, shades)
    assert (supervised.accuracy, supervised.per_class) == (accuracy.top1, accuracy.per_class)
    assert supervised.calibration_error == pytest.approx(accuracy.calibration_error, rel=1e-12)
    assert 0.01 < accuracy.calibration_error < 0.99


def test_scores_among_labels_hold_where_all_their_probabilities_vanish() -> None:
    logits = np.array([[2000.0, 1.0, 0.0, 0.0]])
    found = to_probabilities(label_logits(logits, [[1], [], [2, 3]], "softmax"), "softmax")
    assert found == pytest.approx(np.array([[np.e, 0, 2]]) / (np.e + 2))


def test_of_classes_that_stand_by_themselves_the_surest_counts(folders: Path) -> None:
    shades = model("red", "green", "blue", activation="sigmoid")
    result = compared(
        folders,
        ("warm = red", "cold"),
        model=shades,
        class_map=ClassMap(shades.classes, ("warm", "cold", "cold")),
    )
    chances = to_probabilities(
        shades.logits([Image.open(folders / path).convert("RGB") for path in result.photos]),
        "sigmoid",
    )
    assert [answer[1] for answer in result.methods[1].answers if answer] == pytest.approx(
        chances.max(axis=1).tolist()
    )


def test_without_truth_there_are_agreement_and_disagreements_alone(folders: Path) -> None:
    result = compared(
        folders, class_map=ClassMap(LABELS, ("red", "blue", "green"))
    )  # it takes green for blue, and blue for green
    assert [
        (way.accuracy, way.per_class, way.calibration_error, way.confusion)
        for way in result.methods
    ] == [(None, None, None, None)] * 2
    assert [result.photos[place] for place in result.disagreements] == [
        *(
            "blue/0.png",
            "blue/1.png",
            "blue/2.png",
            "green/0.png",
            "green/1.png",
            "green/2.png",
            "loose.png",
            "red/odd.png",
        )
    ]
    [share] = result.agreement.values()
    assert (share.right, share.total, result.truth) == (3, 11, None)


@pytest.mark.slow
def test_disagreements_with_a_right_answer_come_first(folders: Path) -> None:
    result = compared(
        folders, truth="folders", class_map=ClassMap(LABELS, ("red", "blue", "green"))
    )
    shown = [result.photos[place] for place in result.disagreements]
    assert shown[:6] == [
        f"{colour}/{number}.png" for colour in ("blue", "green") for number in range(3)
    ]
    assert "red/odd.png" in shown


class CountingClassifier(LinearClassifier):
    """A classifier that counts how often it is asked."""

    asked: ClassVar[int] = 0

    def logits(self, vectors: Vectors) -> NDArray[np.float32]:
        CountingClassifier.asked += 1
        return super().logits(vectors)


def test_seconds_are_the_mean_of_warm_runs_that_take_long_enough_together() -> None:
    words = ColourEncoder().encode_texts(LABELS)
    CountingClassifier.asked = 0
    seconds = _seconds(CountingClassifier(LABELS, words, np.zeros(3, dtype=np.float32)), words)
    assert CountingClassifier.asked >= 2
    assert seconds * (CountingClassifier.asked - 1) >= 0.999 * _MIN_SECONDS


@pytest.mark.slow
def test_a_photo_that_cannot_be_read_counts_as_failed(folders: Path) -> None:
    (folders / "blue/0.png").write_bytes(b"no photo any more")
    os.remove(folders / "red/odd.png")
    result = compared(folders, truth="folders")
    assert [path for path, _ in result.methods[1].failed] == ["blue/0.png", "red/odd.png"]
    assert said(result, 1) == [None, "blue", "blue", *["green"] * 3, *["red"] * 3, None]
    accuracy, per_class = result.methods[1].accuracy, result.methods[1].per_class
    assert accuracy is not None
    assert per_class is not None
    assert (accuracy.right, accuracy.total, per_class["blue"].right, per_class["blue"].total) == (
        8,
        10,
        2,
        3,
    )
    share = result.agreement["zero-shot", "supervised"]
    assert (share.right, share.total) == (8, 8)


def test_a_probe_of_few_photos_is_of_prototypes_or_left_out(folders: Path) -> None:
    truth = folders.parent / "truth.csv"
    rows = [
        "path,label",
        "red/0.png,red",
        "red/1.png,red",
        "green/0.png,Greens",
        "green/1.png,green",
        "blue/0.png,blue",
    ]
    truth.write_text("\n".join(rows))
    result = compared(folders, truth=str(truth))
    assert (result.methods[2].model, result.methods[2].photo_count, said(result, 2)) == (
        "prototypes",
        4,
        [None, "green", "green", "red", "red"],
    )
    assert result.methods[2].accuracy is not None
    assert (result.methods[2].accuracy.right, result.methods[2].accuracy.total) == (4, 4)
    assert set(result.methods[2].per_class or {}) == {"red", "green"}
    assert result.notes[1:] == (
        "the probe leaves out blue: there is one photo of it, and none to train on",
        (
            "the probe is nearest prototypes: some label has two photos only, and logistic "
            "regression "
            "needs three"
        ),
    )
    truth.write_text("\n".join(rows[:4]))
    result = compared(folders, truth=str(truth))
    assert [way.name for way in result.methods] == ["zero-shot", "supervised"]
    assert (
        result.notes[-1]
        == "there is no probe: it needs two labels or more with two photos or more each"
    )


def test_without_scikit_learn_the_probe_is_of_prototypes(
    folders: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "vitsearch.labels.probe", None)
    result = compared(folders, truth="folders")
    assert (result.methods[2].model, said(result, 2)[:9]) == (
        "prototypes",
        ["blue"] * 3 + ["green"] * 3 + ["red"] * 3,
    )
    assert result.notes[1:] == (
        (
            "the probe is nearest prototypes: logistic regression needs scikit-learn (pip install "
            "'vitsearch[probe]')"
        ),
    )


@pytest.mark.slow
def test_labels_without_a_class_and_truth_that_is_no_label_are_noted(folders: Path) -> None:
    result = compared(folders, ("red", "green", "violet"), truth="folders")
    assert result.notes == (
        (
            "colours has no class of violet, so it never answers so: give them synonyms (label = "
            "word "
            "| word), or edit the class map"
        ),
        "3 photos are left out: blue is no label here",
        "1 of 11 photos have no true label and are left out",
    )
    assert len(result.photos) == 7


@pytest.mark.parametrize(
    ("labels", "options", "reason"),
    [
        (("red",), {}, "there is one label, 'red': a comparison needs two or more"),
        (
            ("cow", "ox"),
            {},
            (
                "colours has no class of any label (cow, ox): give them synonyms (label = word | "
                "word), or edit the class map"
            ),
        ),
        (
            LABELS,
            {"class_map": ClassMap(("a",), ("red",))},
            "the class map is of other classes than those of colours: derive it anew",
        ),
        (
            ("red ", "yellow", "white"),
            {"class_map": ClassMap(LABELS, ("red", "cow", None))},
            "the class map gives 'green' the label 'cow', which is none: make it anew",
        ),
        (
            ("yellow", "teal = red"),
            {"truth": "{}/truth.csv"},
            "no photo's true label (green) is one of the labels (yellow, teal)",
        ),
    ],
)
def test_what_cannot_be_compared_is_refused(
    folders: Path, labels: tuple[str, ...], options: dict[str, Any], reason: str
) -> None:
    (folders.parent / "truth.csv").write_text("path,label\nred/0.png,green\n")
    filled = {
        name: value.format(folders.parent) if isinstance(value, str) else value
        for name, value in options.items()
    }
    with pytest.raises(QueryError) as caught:
        compared(folders, labels, **filled)
    assert str(caught.value) == reason


def test_an_empty_collection_is_refused(tmp_path: Path) -> None:
    (tmp_path / "red.png").write_bytes(b"no photo")
    with pytest.raises(CollectionError, match="none of the 1 files"):
        index_folder(tmp_path, encoder=ColourEncoder())
    with pytest.raises(
        QueryError, match="there is no photo in the collection: index a folder of photos"
    ):
        compared(tmp_path)


# -- the command line ------------------------------------------------------------------------------


ASKED = ("--labels", "red = tench,green = goldfish,blue = cock")


@pytest.mark.slow
def test_command_prints_tables_and_writes_files(folders: Path, tmp_path: Path) -> None:
    files = (
        "--confusion",
        tmp_path / "c.png",
        "--sheet",
        tmp_path / "s.html",
        "--class-map",
        tmp_path / "map.txt",
    )
    done = vitsearch(
        "compare", folders, *ASKED, "--truth", "folders", *files, "--output", tmp_path / "rows.csv"
    )
    assert done.returncode == 0, done.stderr
    lines = done.stdout.decode().splitlines()
    assert lines[0].split()[:3] == ["way", "model", "photos"]
    assert [line.split()[0] for line in lines[1:4]] == ["zero-shot", "supervised", "probe"]
    assert lines[1].split()[2:7] == ["10", "0.9000", "(0.5958", "to", "0.9821)"]
    assert next(line for line in lines if line.startswith("red ")).split()[1:3] == [
        "0.750",
        "(3/4)",
    ]
    notes = done.stderr.decode().splitlines()
    assert notes[0] == (
        f"vitsearch: wrote {tmp_path / 'map.txt'}: 3 of 1,000 classes are a label; edit it and "
        "run this again"
    )
    assert notes[1:4] == [
        "vitsearch: red: 1 class (tench)",
        "vitsearch: green: 1 class (goldfish)",
        "vitsearch: blue: 1 class (cock)",
    ]
    assert "vitsearch: 1 of 11 photos have no true label and are left out" in notes
    assert (tmp_path / "map.txt").read_text().splitlines()[1:3] == [
        "tench = red",
        "goldfish = green",
    ]
    with open(tmp_path / "rows.csv", encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 30
    assert [rows[0][name] for name in ("path", "way", "label", "truth", "right")] == [
        "blue/0.png",
        "zero-shot",
        "blue",
        "blue",
        "1",
    ]
    sheet = (tmp_path / "s.html").read_text(encoding="utf-8")
    assert "<title>Photos on which zero-shot, supervised and probe differ</title>" in sheet
    assert "<table>" in sheet
    with Image.open(tmp_path / "c.png") as page:
        assert page.format == "PNG"


@pytest.mark.slow
def test_command_says_which_classes_stand_for_a_label(folders: Path, tmp_path: Path) -> None:
    labels = ("--labels", "car,Bank = piggy bank,zzz")
    done = vitsearch("compare", folders, *labels)
    assert (done.returncode, done.stderr.decode().splitlines()[:4]) == (
        0,
        [
            (
                "vitsearch: car: 10 classes (ambulance, beach wagon, cab, ...); --class-map FILE "
                "to "
                "edit"
            ),
            "vitsearch: Bank: 1 class (piggy bank); --class-map FILE to edit",
            (
                "vitsearch: the probability of a label is the sum of its classes', shared out "
                "among the labels: car (10 classes) has an advantage over Bank (1)"
            ),
            (
                "vitsearch: mini has no class of zzz, so it never answers so: give them synonyms "
                "(label = word | word), or edit the class map"
            ),
        ],
    )
    (tmp_path / "map.txt").write_text("cab = car\n")
    read, as_json = (
        vitsearch("compare", folders, *labels, *more)
        for more in (("--class-map", tmp_path / "map.txt"), ("--json",))
    )
    assert (read.returncode, as_json.returncode) == (0, 0)
    assert b"classes (" not in read.stderr + as_json.stderr
    assert b"1 class (" not in read.stderr + as_json.stderr


def test_command_reads_an_edited_class_map(folders: Path, tmp_path: Path) -> None:
    (tmp_path / "map.txt").write_text("tench = red\ngoldfish = redd\n")
    done = vitsearch("compare", folders, *ASKED, "--class-map", tmp_path / "map.txt")
    assert (done.returncode, done.stdout) == (1, b"")
    reason = (
        f"{tmp_path / 'map.txt'}, line 2: there is no label 'redd': write one of blue, "
        "green, red, or - for none; "
    )
    reason += "if the file was made for other labels, name a new file"
    assert done.stderr.decode().splitlines() == [f"vitsearch: {reason}"]


@pytest.mark.slow
def test_command_as_json_without_truth(folders: Path, tmp_path: Path) -> None:
    done = vitsearch(
        "compare",
        folders,
        *ASKED,
        "--json",
        "--output",
        tmp_path / "rows.jsonl",
        "--sheet",
        tmp_path / "s.png",
    )
    assert done.returncode == 0, done.stderr
    facts = [json.loads(line) for line in done.stdout.splitlines()]
    assert [(one["way"], one["model"], one["photos"], one["accuracy"]) for one in facts[:2]] == [
        ("zero-shot", "words", 11, None),
        ("supervised", "mini", 11, None),
    ]
    assert facts[2]["ways"] == ["zero-shot", "supervised"]
    rows = [json.loads(line) for line in (tmp_path / "rows.jsonl").read_text().splitlines()]
    answers = {one["path"]: {} for one in rows}
    for one in rows:
        answers[one["path"]][one["way"]] = one["label"]
    apart = [path for path, two in answers.items() if two["zero-shot"] != two["supervised"]]
    assert [one["disagreement"] for one in facts[3:]] == apart
    assert facts[2] == {"ways": ["zero-shot", "supervised"], "photos": 11, "agree": 11 - len(apart)}


@pytest.mark.parametrize(
    ("options", "code", "reason"),
    [
        (("--labels", "red,green", "--confusion", "c.png"), 2, "--confusion needs --truth"),
        ((), 2, "give the labels with either --labels or --labels-file"),
        ((*ASKED, "--output", "rows.txt"), 1, "cannot write rows.txt: name it .csv or .jsonl"),
        (
            (*ASKED, "--sheet", "s.pdf"),
            1,
            "a contact sheet is a .png, .jpg or .html file, not 's.pdf'; name it so",
        ),
        ((*ASKED, "--sheet", "no/s.png"), 1, "cannot write no/s.png: there is no folder no"),
        (
            (*ASKED, "--truth", "folders", "--confusion", "c.gif"),
            1,
            "a confusion matrix is a .png file, not 'c.gif'; name it so",
        ),
        (
            (*ASKED, "--model", "vit"),
            1,
            (
                "there is no classifier 'vit': write mini, hf:ORG/NAME, timm:NAME or "
                "local-dir:/path/to/model"
            ),
        ),
    ],
)
def test_command_says_in_one_line_what_is_wrong(
    folders: Path, tmp_path: Path, options: tuple[str, ...], code: int, reason: str
) -> None:
    done = vitsearch("compare", folders, *options, cwd=tmp_path)
    assert (done.returncode, done.stdout) == (code, b"")
    assert reason in done.stderr.decode().splitlines()[-1]
