"""Labels and classifiers that cannot be: one clear line through the library and through the command
line, and nothing lost.
"""

import json
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from helpers.cli import vitsearch
from helpers.collections import content
from helpers.photos import paint
from vitsearch import Collection, evaluate, index_folder, train_classifier
from vitsearch.encoders.colour import ColourEncoder
from vitsearch.errors import ClassifierError, EncoderMismatch, QueryError
from vitsearch.evaluation import calibrate_on, load_trained
from vitsearch.labels import NOTHING, LinearClassifier

MANY = 10_000


def refused(*arguments: Any) -> str:
    """Run a command that must fail with one line on stderr and nothing on stdout, and return the
    line.
    """
    done = vitsearch(*arguments)
    assert (done.returncode, done.stdout, done.stderr.count(b"\n"), done.stderr[:11]) == (
        1,
        b"",
        1,
        b"vitsearch: ",
    ), done.stderr
    return done.stderr.decode().strip()


def opened(folder: Path) -> Collection:
    return Collection.open(folder, encoder=ColourEncoder())


def paths_of(folder: Path) -> list[str]:
    with opened(folder) as found:
        return [photo.path for photo in found.photos()]


@pytest.fixture
def classed(tmp_path: Path) -> Path:
    """An indexed folder of two photos of each of three colours, in a folder for each."""
    for name in ("red", "green", "blue"):
        paint(tmp_path / "photos" / name / "1.png", name)
        paint(tmp_path / "photos" / name / "2.png", name, name, "white")
    index_folder(tmp_path / "photos", encoder=ColourEncoder())
    return tmp_path / "photos"


@pytest.fixture
def trained(classed: Path, tmp_path: Path) -> Path:
    """The folder of a classifier that was trained on the photos."""
    with opened(classed) as found:
        train_classifier(found, "folders", "prototype")[0].save(tmp_path / "trained")
    return tmp_path / "trained"


# -- labels ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("labels", "words"),
    [
        (
            "red",
            "one label alone, 'red', would fit every photo: give at least two, or add --background",
        ),
        ("red,blue, red ", "a label is given twice: red: give each once"),
        ("red,,blue", "a label is empty: take out the doubled comma or the blank entry"),
        ("", "a label is empty: take out the doubled comma or the blank entry"),
        (
            "red,blue = | navy",
            "the label 'blue = | navy' has an empty part: write 'animal > cat = kitten | tabby'",
        ),
        (
            "red,none of these",
            "the label 'none of these' is kept for the background class: name yours otherwise",
        ),
    ],
)
def test_labels_that_cannot_be(indexed: Path, labels: str, words: str) -> None:
    before = content(indexed)
    with opened(indexed) as found, pytest.raises(QueryError) as caught:
        found.label(labels.split(","))
    assert str(caught.value) == words
    assert refused("label", indexed, "--labels", labels) == f"vitsearch: {words}"
    assert content(indexed) == before


def test_multi_with_background_is_refused(indexed: Path) -> None:
    done = vitsearch("label", indexed, "--labels", "red,blue", "--multi", "--background")
    words = b"--multi judges each label against the background already: leave out --background"
    assert (done.returncode, done.stdout, done.stderr) == (
        2,
        b"",
        b"vitsearch: " + words + b" (see `vitsearch label --help`)\n",
    )


@pytest.mark.parametrize("text", [b"", b"\xef\xbb\xbf\r\n\n  \n"])
def test_a_file_without_a_label(indexed: Path, tmp_path: Path, text: bytes) -> None:
    (tmp_path / "labels.txt").write_bytes(text)
    line = refused("label", indexed, "--labels-file", tmp_path / "labels.txt")
    assert line == "vitsearch: there is no label: give at least two, such as --labels 'cat,dog'"
    with (
        opened(indexed) as found,
        pytest.raises(QueryError, match="there is no label: give at least two"),
    ):
        found.label([])


def test_a_file_that_is_no_text(indexed: Path, tmp_path: Path) -> None:
    (tmp_path / "labels.txt").write_bytes("red\nblue\n".encode("utf-16"))
    assert "are not UTF-8 text" in refused(
        "label", indexed, "--labels-file", tmp_path / "labels.txt"
    )
    (tmp_path / "labels.txt").write_bytes(b"red\nblue\nred\n")
    assert "a label is given twice: red" in refused(
        "label", indexed, "--labels-file", tmp_path / "labels.txt"
    )


@pytest.mark.slow
def test_ten_thousand_labels_are_many_and_work(indexed: Path, tmp_path: Path) -> None:
    """A word of no colour is all colours alike, so that the one of the photo's own colour wins."""
    names = [f"thing {number}" for number in range(MANY - 1)]
    names.insert(4321, "red")
    with opened(indexed) as found:
        best = {one.path: one.label for one in found.label(names)}
        ranked = [one.label for one in found.label(names, top=3) if one.path == "red.png"]
    assert (best["red.png"], best["green.png"], ranked) == (
        "red",
        "thing 0",
        ["red", "thing 0", "thing 1"],
    )
    (tmp_path / "labels.txt").write_text("\n".join(names))
    done = vitsearch("label", indexed, "--labels-file", tmp_path / "labels.txt", "--json")
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    assert (done.returncode, done.stderr) == (0, b"")
    assert {row["path"]: row["label"] for row in rows} == best
    (tmp_path / "labels.txt").write_text("\n".join([*names, names[77]]))
    assert f"a label is given twice: {names[77]}" in refused(
        "label", indexed, "--labels-file", tmp_path / "labels.txt"
    )


@pytest.mark.slow
def test_labels_longer_than_the_encoder_reads_are_named(
    photos: Path, tmp_path: Path, remarks: list[str]
) -> None:
    index_folder(photos, encoder="mini")
    long = " ".join(["a very long walk along the beach"] * 40)
    with Collection.open(photos) as found:
        rows = found.label([long, "a red wall"])
        assert remarks == [
            (
                "mini reads only the beginning of what is too long for it: 'a very long walk along "
                "the beach a very long walk along the...'"
            )
        ]
    assert {row.label for row in rows} <= {long, "a red wall"}
    done = vitsearch("label", photos, "--labels", f"{long},a red wall", "--json")
    assert (done.returncode, len(done.stdout.splitlines())) == (0, 4)
    assert done.stderr.decode().splitlines() == [f"vitsearch: {remarks[0]}"]


# -- training --------------------------------------------------------------------------------------


def test_a_class_without_an_example(classed: Path, tmp_path: Path) -> None:
    labels = ["red", "green", "blue", "pink", "gold"]
    with (
        opened(classed) as found,
        pytest.raises(
            QueryError,
            match="there is no example of pink, gold: label some photos so, or take it out",
        ),
    ):
        train_classifier(found, "folders", "tip", labels=labels)
    (tmp_path / "labels.txt").write_text("\n".join(labels))
    output = tmp_path / "out"
    arguments = (
        "--labels-from",
        "folders",
        "--method",
        "tip",
        "--labels-file",
        tmp_path / "labels.txt",
        "-o",
        output,
    )
    assert "there is no example of pink, gold" in refused("train", classed, *arguments)
    (tmp_path / "labels.txt").write_text("red\ngreen\n")
    assert "photos are labelled blue, which the classifier does not have" in refused(
        "train", classed, *arguments
    )
    assert not output.exists()


def test_examples_of_one_class(photos: Path, tmp_path: Path) -> None:
    index_folder(photos, encoder=ColourEncoder())
    for method in ("prototype", "probe"):
        line = refused(
            "train", photos, "--labels-from", "folders", "--method", method, "-o", tmp_path / "out"
        )
        assert "all examples are labelled 'sub': give examples of two classes or more" in line
    assert "one label alone, 'sub'" in refused(
        "train", photos, "--labels-from", "folders", "--method", "tip", "-o", tmp_path / "out"
    )
    assert not (tmp_path / "out").exists()


def test_the_answer_none_of_these_is_trained_as_the_background(
    classed: Path, tmp_path: Path
) -> None:
    """What `label --background` wrote, corrected, is the truth of each method."""
    rows = vitsearch(
        "label", classed, "--labels", "red,green", "--background", "--output", tmp_path / "rows.csv"
    )
    assert rows.returncode == 0
    text = (tmp_path / "rows.csv").read_text()
    lines = [
        ",".join([path, NOTHING if path.startswith("blue") else path.split("/")[0]])
        for path in paths_of(classed)
    ]
    assert NOTHING in text
    (tmp_path / "corrected.csv").write_text("\n".join(["path,label", *lines]) + "\n")
    for method, classes in (
        ("tip", ("green", "red", NOTHING)),
        ("prototype", ("green", NOTHING, "red")),
    ):
        arguments = (
            "--labels-from",
            tmp_path / "corrected.csv",
            "--method",
            method,
            "-o",
            tmp_path / method,
        )
        done = vitsearch("train", classed, *arguments)
        assert (done.returncode, done.stderr) == (0, b"")
        assert load_trained(tmp_path / method).classes == classes
        with opened(classed) as found:
            best = {one.path: one.label for one in found.label(load_trained(tmp_path / method))}
        assert best == dict(line.split(",") for line in lines)


# -- classifiers on disk ---------------------------------------------------------------------------


def cut(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-9])


def rewrite(file: Path, **facts: object) -> None:
    file.write_text(json.dumps(json.loads(file.read_text()) | facts))


DAMAGES: dict[str, Any] = {
    "no facts": lambda folder: (folder / "classifier.json").unlink(),
    "no numbers": lambda folder: (folder / "classifier.safetensors").unlink(),
    "facts cut": lambda folder: cut(folder / "classifier.json"),
    "numbers cut": lambda folder: cut(folder / "classifier.safetensors"),
    "numbers empty": lambda folder: (folder / "classifier.safetensors").write_bytes(b""),
    "facts no text": lambda folder: (folder / "classifier.json").write_bytes(b"\xff\xfe\x00"),
    "facts no object": lambda folder: (folder / "classifier.json").write_text("[]"),
    "another format": lambda folder: rewrite(folder / "classifier.json", format=2),
    "a class less": lambda folder: rewrite(folder / "classifier.json", classes=["red", "blue"]),
    "a folder for a file": lambda folder: (
        cut(folder / "classifier.json"),
        (folder / "classifier.json").unlink(),
        (folder / "classifier.json").mkdir(),
    ),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_classifier(classed: Path, trained: Path, damage: str) -> None:
    DAMAGES[damage](trained)
    before = content(classed)
    with pytest.raises(
        ClassifierError,
        match="there is no classifier in|the classifier in .* (is damaged|has format 2, newer)",
    ) as caught:
        load_trained(trained)
    assert "\n" not in str(caught.value)
    assert refused("label", classed, "--classifier", trained) == f"vitsearch: {caught.value}"
    assert content(classed) == before


def test_numbers_of_another_training_are_told_from_the_facts(
    classed: Path, trained: Path, tmp_path: Path
) -> None:
    shutil.copytree(trained, tmp_path / "other")
    paint(classed / "gold" / "1.png", "gold")
    index_folder(classed, encoder=ColourEncoder())
    with opened(classed) as found:
        train_classifier(found, "folders", "prototype")[0].save(tmp_path / "other")
    shutil.copy(tmp_path / "other" / "classifier.safetensors", trained)
    assert "its numbers 'weight' have another shape than classes, dim" in refused(
        "label", classed, "--classifier", trained
    )


class OtherColour(ColourEncoder):
    """The same vectors under another fingerprint."""

    fingerprint = "f" * 32


def test_a_classifier_of_another_encoders_vectors(
    classed: Path, trained: Path, tmp_path: Path
) -> None:
    other = tmp_path / "other"
    index_folder(classed, encoder=OtherColour(), collection=other)
    words = (
        "the classifier was made for the vectors of another encoder than colour: train it "
        "again here"
    )
    with Collection.open(classed, collection=other, encoder=OtherColour()) as found:
        for use in (found.label, lambda classifier: evaluate(found, classifier)):
            with pytest.raises(EncoderMismatch) as caught:
                use(load_trained(trained))
            assert str(caught.value) == words
    rewrite(trained / "classifier.json", fingerprint="0" * 32)
    assert refused("label", classed, "--classifier", trained) == f"vitsearch: {words}"
    assert refused("eval", classed, "--classifier", trained) == f"vitsearch: {words}"


def test_a_classifier_that_does_not_say_whose_vectors_it_reads(
    classed: Path, tmp_path: Path
) -> None:
    """Without a fingerprint the length of the vectors still has to fit."""
    LinearClassifier(
        ("a", "b"), np.eye(2, 9, dtype=np.float32), np.zeros(2, dtype=np.float32)
    ).save(tmp_path / "nine")
    assert (
        refused("label", classed, "--classifier", tmp_path / "nine")
        == "vitsearch: expected (n, 9) vectors, got shape (6, 27)"
    )


# -- supervised models -----------------------------------------------------------------------------


@pytest.mark.slow
def test_a_folder_of_the_other_kind_of_classifier_names_its_command(
    classed: Path, trained: Path, tmp_path: Path
) -> None:
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "config.json").write_text("{}")
    words = (
        f"{tmp_path}/model holds a model of photos, not a classifier of vectors: vitsearch "
        "classify PHOTOS --model local-dir:"
    )
    assert (
        refused("label", classed, "--classifier", tmp_path / "model")
        == f"vitsearch: {words}{tmp_path}/model uses it"
    )
    for load in (load_trained, LinearClassifier.load):
        with pytest.raises(ClassifierError, match=f"^{re.escape(words)}"):
            load(tmp_path / "model")
    pytest.importorskip("transformers", reason="needs the extra vitsearch[clip]")
    words = (
        f"{trained} is a classifier of vectors: vitsearch label PHOTOS --classifier {trained} "
        "uses it"
    )
    assert refused("classify", classed, "--model", f"local-dir:{trained}") == f"vitsearch: {words}"


def damaged_models(folder: Path) -> dict[str, Path]:
    """Folders of a small ViT with one thing wrong in each."""
    from helpers.classifiers import save_classifier

    made = {}
    for kind in (
        "weights cut",
        "weights empty",
        "config cut",
        "no processor",
        "no weights",
        "nothing in it",
    ):
        place = made[kind] = folder / kind.replace(" ", "-")
        place.mkdir()
        if kind == "nothing in it":
            continue
        save_classifier(place)
        weights, config = place / "model.safetensors", place / "config.json"
        if kind == "weights cut":
            weights.write_bytes(weights.read_bytes()[:-100])
        elif kind == "weights empty":
            weights.write_bytes(b"")
        elif kind == "config cut":
            config.write_bytes(config.read_bytes()[:50])
        else:
            (weights if kind == "no weights" else place / "preprocessor_config.json").unlink()
    return made


@pytest.mark.slow
def test_a_damaged_supervised_model(photos: Path, tmp_path: Path, capfd: Any) -> None:
    pytest.importorskip("transformers", reason="needs the extra vitsearch[clip]")
    from vitsearch.cli import run

    (tmp_path / "models").mkdir()
    for kind, folder in damaged_models(tmp_path / "models").items():
        for command in ("classify", "eval"):
            capfd.readouterr()
            code = run([command, str(photos), "--model", f"local-dir:{folder}"])
            out, err = capfd.readouterr()
            assert (code, out, err.count("\n")) == (1, "", 1), (kind, err)
            assert err.startswith("vitsearch: "), kind
            assert str(folder) in err, kind
    assert not (
        photos / ".vitsearch"
    ).exists()  # the model is looked at before the photos are indexed


def test_a_classifier_of_another_encoder_is_not_calibrated(indexed: Path, tmp_path: Path) -> None:
    foreign = LinearClassifier(
        ("a", "b"), np.zeros((2, 27), np.float32), np.zeros(2, np.float32), fingerprint="of another"
    )
    (tmp_path / "truth.csv").write_text("path,label\nred.png,a\n", encoding="utf-8")
    with (
        Collection.open(indexed, encoder=ColourEncoder()) as found,
        pytest.raises(EncoderMismatch, match="another encoder than colour"),
    ):
        calibrate_on(found, foreign, str(tmp_path / "truth.csv"))
