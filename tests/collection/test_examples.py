"""What a person says about labels, and what is learned from it: in the database, and by command."""

import csv
from pathlib import Path

import pytest

from helpers.cli import vitsearch
from helpers.photos import paint
from vitsearch import Collection, QueryError, index_folder
from vitsearch.collection.training import (
    can_restore_labels,
    classifier_folder,
    corrected,
    label_with_examples,
    put_with_undo,
    restore_labels,
    right_labels,
    stored_examples,
    train_examples,
)
from vitsearch.encoders.colour import ColourEncoder
from vitsearch.errors import ClassifierError, CollectionLocked
from vitsearch.storage.filesystem import writer_lock
from vitsearch.storage.user_data import (
    MAX_UNDO,
    Example,
    can_undo,
    examples,
    put_examples,
    trained,
    undo,
    writing,
)
from vitsearch.types import Prediction


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    root = tmp_path / "photos"
    for number in range(4):
        paint(root / f"red{number}.png", (200 + 10 * number, 10, 10))
        paint(root / f"blue{number}.png", (10, 10, 200 + 10 * number))
    index_folder(root, encoder=ColourEncoder())
    return root


def opened(folder: Path) -> Collection:
    return Collection.open(folder, encoder=ColourEncoder())


def ids_of(folder: Path) -> dict[str, int]:
    with opened(folder) as found:
        return {photo.path: photo.photo_id for photo in found.photos()}


def say(folder: Path, *said: Example) -> None:
    with writing(folder / ".vitsearch") as store:
        put_examples(store, said)


def test_each_change_of_examples_is_undone(folder: Path) -> None:
    first = Example(1, "warm")
    second = Example(2).without("warm").without("cold")
    assert second == Example(2, "", ("warm", "cold"))
    assert second.with_label("cold") == Example(2, "cold", ("warm",))
    assert first.without("warm") == Example(1, "", ("warm",))
    say(folder, first, second)
    say(folder, second.with_label("cold"), Example(1))
    with writing(folder / ".vitsearch") as store:
        assert examples(store) == {2: Example(2, "cold", ("warm",))}
        assert (undo(store), examples(store)) == ([2, 1], {1: first, 2: second})
        assert (undo(store), examples(store), can_undo(store)) == ([1, 2], {}, False)
        assert undo(store) == []
        for number in range(MAX_UNDO + 5):
            put_examples(store, [Example(1, str(number))])
        for _ in range(MAX_UNDO + 5):
            undo(store)
        assert examples(store) == {1: Example(1, "4")}
        for label in ("x" * 201, " x", "a\u202eb"):
            with pytest.raises(QueryError, match="at most 200 characters"):
                put_examples(store, [Example(3, label)])


def test_labels_of_before_come_back_until_others_are_stored(folder: Path) -> None:
    ids = ids_of(folder)
    first = Prediction("", "warm", 0.5, ids["red0.png"])
    both = [Prediction("", "cold", 1.0, ids[name]) for name in ("red0.png", "red1.png")]

    def labels() -> dict[str, tuple[str | None, float | None]]:
        with opened(folder) as found:
            assert found.store.check() == []
            return {
                photo.path: (photo.label, photo.label_score)
                for photo in found.photos()
                if photo.label is not None or photo.label_score is not None
            }

    with opened(folder) as found:
        found.store_labels([first])
    with writing(folder / ".vitsearch") as store:
        put_with_undo(store, both)
    assert labels() == {"red0.png": ("cold", 1.0), "red1.png": ("cold", 1.0)}
    with writing(folder / ".vitsearch") as store:
        restore_labels(store)
        assert not can_restore_labels(store)
    assert labels() == {"red0.png": ("warm", 0.5)}
    with writing(folder / ".vitsearch") as store:
        put_with_undo(store, both)
    with opened(folder) as found:
        found.store_labels([first])
    with writing(folder / ".vitsearch") as store:
        restore_labels(store)
    assert labels() == {"red0.png": ("warm", 0.5), "red1.png": ("cold", 1.0)}


def test_the_label_of_another_picture_does_not_come_back(folder: Path) -> None:
    ids = ids_of(folder)
    names = ("red0.png", "red1.png")
    with opened(folder) as found:
        found.store_labels([Prediction("", "warm", 0.5, ids[name]) for name in names])
    with writing(folder / ".vitsearch") as store:
        put_with_undo(store, [Prediction("", "cold", 1.0, ids[name]) for name in names])
    paint(folder / "red1.png", "green", size=(30, 20))
    index_folder(folder, encoder=ColourEncoder())
    with writing(folder / ".vitsearch") as store:
        restore_labels(store)
    with opened(folder) as found:
        labels = {photo.path: photo.label for photo in found.photos() if photo.label}
    assert labels == {"red0.png": "warm"}


def test_what_was_said_is_in_every_label() -> None:
    predictions = [
        Prediction("a", "cat", 0.9, 1),
        Prediction("a", "dog", 0.1, 1),
        Prediction("b", "cat", 0.8, 2),
        Prediction("b", "dog", 0.2, 2),
        Prediction("c", "cat", 0.7, 3),
        Prediction("c", "dog", 0.3, 3),
        Prediction("d", "dog", 0.6, 4),
    ]
    said = {
        1: Example(1, "horse", ("cat",)),
        2: Example(2, "", ("cat",)),
        3: Example(3, "", ("dog", "cat")),
    }
    assert corrected(predictions, said) == [
        Prediction("a", "horse", 1.0, 1),
        Prediction("b", "dog", 0.2, 2),
        Prediction("d", "dog", 0.6, 4),
    ]


@pytest.mark.parametrize("method", ["prototype", "tip", "probe"])
def test_examples_train_a_classifier_that_stays(folder: Path, method: str) -> None:
    if method == "probe":
        pytest.importorskip("sklearn")
    ids = ids_of(folder)
    with opened(folder) as found, pytest.raises(QueryError, match="has no examples"):
        train_examples(found, "prototype")
    say(
        folder,
        *(Example(ids[f"red{number}.png"], "red") for number in (0, 1, 2)),
        *(Example(ids[f"blue{number}.png"], "blue") for number in (0, 1, 2)),
        Example(ids["blue3.png"], "", ("blue",)),
        Example(9999, "red"),  # of a photo that is gone
    )
    with opened(folder) as found:
        report = train_examples(found, method)  # type: ignore[arg-type]
        assert (report.classes, report.photos, report.right, report.validated) == (2, 6, 6, 6)
    expected = {name: name[:-5] for name in ids} | {"blue3.png": "red"}
    with opened(folder) as found:  # as another process sees it
        assert {photo.path: photo.label for photo in found.photos()} == expected
        again = label_with_examples(found)
        assert {each.path: each.label for each in again} == expected
        assert {each.path for each in again if each.score == 1.0} >= {"red0.png", "blue1.png"}
        with writing(folder / ".vitsearch") as store:
            facts = trained(store) or {}
        assert {key: facts[key] for key in ("method", "photos", "right", "validated")} == {
            "method": method,
            "photos": 6,
            "right": 6,
            "validated": 6,
        }
        assert (classifier_folder(found) / "classifier.safetensors").is_file()


def test_training_does_all_or_nothing(folder: Path) -> None:
    """While another process writes nothing changes; nor where the classifier cannot be stored."""
    ids = ids_of(folder)
    say(folder, Example(ids["red0.png"], "red"), Example(ids["blue0.png"], "blue"))

    def labels(found: Collection) -> set[str | None]:
        return {photo.label for photo in found.photos()}

    with opened(folder) as found:
        before = labels(found)
        with writer_lock(folder / ".vitsearch"), pytest.raises(CollectionLocked):
            train_examples(found, "prototype")
        assert not classifier_folder(found).exists()
        classifier_folder(found).write_text("in the way")
        with pytest.raises(ClassifierError):
            train_examples(found, "prototype")
    with opened(folder) as found:
        assert labels(found) == before
        with writing(folder / ".vitsearch") as store:
            assert trained(store) is None
        classifier_folder(found).unlink()
        train_examples(found, "prototype")
        assert labels(found) == {"red", "blue"}


def test_labels_without_an_example_stay_with_tip(folder: Path) -> None:
    ids = ids_of(folder)
    say(folder, Example(ids["red0.png"], "warm"), Example(ids["red1.png"], "warm"))
    with opened(folder) as found:
        report = train_examples(found, "tip", ["blue", "green"])
        assert (report.classes, report.right, report.validated) == (3, 2, 2)
        labels = {photo.path: photo.label for photo in found.photos()}
    assert labels == {name: "warm" if name.startswith("red") else "blue" for name in ids}
    with opened(folder) as found, pytest.raises(QueryError, match="two classes or more"):
        train_examples(found, "prototype")


@pytest.mark.slow
def test_examples_on_the_command_line(folder: Path, tmp_path: Path) -> None:
    index_folder(folder, collection=tmp_path / "mini", encoder="mini")
    where = ["--collection", str(tmp_path / "mini")]
    with Collection.open(folder, collection=tmp_path / "mini") as found:
        ids = {photo.path: photo.photo_id for photo in found.photos()}
        assert stored_examples(found) == {}
        with writing(found.folder) as store:
            put_examples(
                store,
                [
                    Example(ids["red0.png"], "warm"),
                    Example(ids["red1.png"], "warm"),
                    Example(ids["blue0.png"], "cold"),
                    Example(ids["blue1.png"], "cold"),
                    Example(ids["blue2.png"], "", ("cold",)),
                ],
            )
        assert right_labels(found) == {
            "blue0.png": "cold",
            "blue1.png": "cold",
            "red0.png": "warm",
            "red1.png": "warm",
        }
    missing = vitsearch("label", folder, "--examples", *where)
    assert (missing.returncode, b"nothing was trained" in missing.stderr) == (1, True)
    exported = tmp_path / "examples.csv"
    done = vitsearch("export", folder, exported, "--format", "examples", *where)
    assert done.returncode == 0
    with exported.open(newline="") as file:
        rows = {row["path"]: row["label"] for row in csv.DictReader(file)}
    assert rows == {
        "blue0.png": "cold",
        "blue1.png": "cold",
        "red0.png": "warm",
        "red1.png": "warm",
    }
    lines = [
        vitsearch(
            "train", folder, "--labels-from", source, "--method", "prototype",
            "-o", tmp_path / "out", *where,
        ).stdout.decode().partition(";")[0]
        for source in ("examples", str(exported))
    ]  # fmt: skip
    assert lines[0] == lines[1]
    assert lines[0].startswith("2 classes from 4 photos, accuracy 1.000")
    with Collection.open(folder, collection=tmp_path / "mini") as found:
        train_examples(found, "prototype")
    printed = vitsearch("label", folder, "--examples", *where)
    labels = dict(line.split("\t")[2:0:-1] for line in printed.stdout.decode().splitlines())
    assert labels == {
        name: "warm" if name.startswith("red") or name == "blue2.png" else "cold" for name in ids
    }
    both = vitsearch("label", folder, "--examples", "--top", "2", *where)
    assert (both.returncode, b"leave out --top" in both.stderr) == (2, True)
