"""Fine-tuning: a model learns, is saved as others read it, goes on where it stopped, and never
trains on what judges it.
"""

import csv
import json
import re
import shutil
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from helpers.cli import full_disk, vitsearch
from vitsearch import Prediction, finetune, load_classifier
from vitsearch.classifiers.finetune import FinetuneReport, FinetuneSettings, FinetuneStep
from vitsearch.classifiers.finetune.settings import Example, labelled_photos, split
from vitsearch.errors import ClassifierError, EncoderError, PhotoError, QueryError

torch = pytest.importorskip("torch", reason="needs the extra vitsearch[clip]")
transformers = pytest.importorskip("transformers", reason="needs the extra vitsearch[clip]")
timm = pytest.importorskip("timm", reason="timm is not installed")

from vitsearch.classifiers import load_trainable  # noqa: E402
from vitsearch.classifiers.finetune.loop import (  # noqa: E402  # noqa: E402  # noqa: E402
    RIDGE,
    AugmentedPhotos,
    fit_head,
    layer_rates,
    mixed,
    rate_at,
    trained_weights,
)

pytestmark = pytest.mark.slow

COLOURS = {"blue": (30, 40, 200), "red": (200, 40, 30), "white": (230, 230, 230)}
SHAPE = {
    "image_size": 32,
    "patch_size": 8,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
}
QUICK = FinetuneSettings(epochs=3, batch_size=8, learning_rate=3e-3, validation=0.25)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Eight photos of each of three colours, each a little different, in folders of these names,
    and one that is cut.
    """
    place = tmp_path_factory.mktemp("colours")
    rng = np.random.default_rng(2)
    for name, colour in COLOURS.items():
        (place / name).mkdir()
        for number in range(8):
            pixels = np.clip(np.array(colour) + rng.normal(0, 30, (40, 48, 3)), 0, 255)
            Image.fromarray(pixels.astype(np.uint8)).save(place / name / f"{number}.png")
    (place / "red" / "cut.png").write_bytes((place / "red" / "0.png").read_bytes()[:300])
    return place


@pytest.fixture(scope="module")
def vit(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A tiny random ViT of transformers, with two classes of its own."""
    place = tmp_path_factory.mktemp("vit")
    torch.manual_seed(7)
    transformers.ViTForImageClassification(transformers.ViTConfig(**SHAPE)).save_pretrained(place)
    transformers.ViTImageProcessor(size={"height": 32, "width": 32}).save_pretrained(place)
    return f"local-dir:{place}"


@pytest.fixture(scope="module")
def timm_vit(tmp_path_factory: pytest.TempPathFactory) -> str:
    place = tmp_path_factory.mktemp("timm")
    torch.manual_seed(7)
    options = {"img_size": 32, "patch_size": 8, "embed_dim": 32, "depth": 2, "num_heads": 2}
    net = timm.create_model("vit_tiny_patch16_224", num_classes=5, **options)
    timm.models.save_for_hf(net, str(place), model_args=options, safe_serialization=True)
    return f"local-dir:{place}"


@pytest.fixture(scope="module")
def whole(
    folder: Path, vit: str, tmp_path_factory: pytest.TempPathFactory
) -> tuple[FinetuneReport, Path]:
    """The report of a run that was not stopped, and its folder."""
    place = tmp_path_factory.mktemp("whole")
    return finetune(folder, "folders", place, model=vit, settings=QUICK), place


def best(name: str, folder: Path) -> dict[str, str]:
    """The label of each photo, by its path below the folder."""
    files = [file for file in sorted(folder.rglob("*.png")) if file.name != "cut.png"]
    found: list[list[Prediction]] = load_classifier(name)(files, 1)
    return {
        file.relative_to(folder).as_posix(): row[0].label
        for file, row in zip(files, found, strict=True)
    }


def weights(place: Path) -> dict[str, bytes]:
    from safetensors.numpy import load_file

    return {name: array.tobytes() for name, array in load_file(place / "model.safetensors").items()}


# -- it learns -------------------------------------------------------------------------------------


def test_a_vit_learns_and_is_what_transformers_reads(
    folder: Path, whole: tuple[FinetuneReport, Path]
) -> None:
    report, out = whole
    assert (report.classes, report.photos) == (("blue", "red", "white"), 18)
    assert [(path, bool(reason)) for path, reason in report.unreadable] == [("red/cut.png", True)]
    assert (report.best.right, report.best.validated) == (6, 6)
    assert [result.epoch for result in report.epochs] == [0, 1, 2, 3]
    assert sorted(file.name for file in out.iterdir()) == [
        "config.json",
        "model.safetensors",
        "preprocessor_config.json",
    ]
    found = best(f"local-dir:{out}", folder)
    assert found == {path: path.split("/")[0] for path in found}
    theirs = transformers.pipeline("image-classification", model=str(out), device="cpu")
    [mine] = load_classifier(f"local-dir:{out}")(folder / "red" / "1.png", 3)
    other = theirs(Image.open(folder / "red" / "1.png"), top_k=3)
    assert [(one.label, pytest.approx(one.score, abs=1e-5)) for one in mine] == [
        (one["label"], one["score"]) for one in other
    ]


def test_a_model_of_timm_learns_and_is_what_timm_reads(
    folder: Path, timm_vit: str, tmp_path: Path
) -> None:
    report = finetune(
        folder,
        "folders",
        tmp_path / "out",
        model=timm_vit,
        settings=replace(QUICK, learning_rate=3e-4),
    )
    assert report.best.right == 6
    found = best(f"local-dir:{tmp_path / 'out'}", folder)
    assert found == {path: path.split("/")[0] for path in found}
    assert timm.create_model(f"local-dir:{tmp_path / 'out'}", pretrained=True).num_classes == 3


def test_mini_learns_and_keeps_what_is_frozen(folder: Path, tmp_path: Path) -> None:
    few = shutil.copytree(folder, tmp_path / "few", ignore=shutil.ignore_patterns("[4-9].png"))
    report = finetune(
        few,
        "folders",
        tmp_path / "out",
        settings=FinetuneSettings(epochs=1, batch_size=4, validation=0.0),
    )
    name = f"local-dir:{tmp_path / 'out'}"
    assert (report.best.epoch, report.best.share, report.best.validated, report.photos) == (
        1,
        0.5,
        0,
        12,
    )
    assert (
        sum(path.split("/")[0] == label for path, label in best(name, folder).items()) >= 20
    )  # of 24
    before, after = load_trainable("mini", ["a", "b"]), load_trainable(name, ["a", "b", "c"])
    trained = {name for layer in before.layers for name in layer} - {"head.weight", "head.bias"}
    was, now = before.net.state_dict(), after.net.state_dict()
    changed = {
        name
        for name in was
        if name not in ("head.weight", "head.bias") and not torch.equal(was[name], now[name])
    }
    assert changed == trained - {
        name for name in trained if name.startswith("tower.stem.classifier")
    } | (changed & {"tower.stem.classifier.weight", "tower.stem.classifier.bias"})
    assert not any(name.startswith("tower.stem.first") for name in changed)
    assert not any(name.startswith("tower.text.") for name in now)


def test_the_labels_may_come_from_a_file(folder: Path, vit: str, tmp_path: Path) -> None:
    with open(tmp_path / "truth.csv", "w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["path", "label"])
        rows.writerows(
            [f"{name}/{number}.png", "warm" if name == "red" else "cold"]
            for name in COLOURS
            for number in range(4)
        )
    report = finetune(
        folder, str(tmp_path / "truth.csv"), tmp_path / "out", model=vit, settings=QUICK
    )
    assert (report.classes, report.photos, report.best.validated) == (("cold", "warm"), 9, 3)


# -- it goes on ------------------------------------------------------------------------------------


class Stopped(Exception):
    pass


def stop_after(epoch: int, stage: str = "judged", done: int = 0) -> object:
    def tell(step: FinetuneStep) -> None:
        if (step.stage, step.epoch) == (stage, epoch) and step.done >= done:
            raise Stopped

    return tell


@pytest.mark.parametrize(
    "stop",
    [stop_after(0), stop_after(2), stop_after(2, "training", 8)],
    ids=["after 0", "after 2", "in 2"],
)
def test_a_stopped_run_ends_as_if_it_had_not_been(
    folder: Path, vit: str, tmp_path: Path, whole: tuple[FinetuneReport, Path], stop: object
) -> None:
    report, place = whole
    with pytest.raises(Stopped):
        finetune(folder, "folders", tmp_path / "parts", model=vit, settings=QUICK, progress=stop)
    with pytest.raises(ClassifierError, match="holds a run that was stopped: say --resume"):
        finetune(folder, "folders", tmp_path / "parts", model=vit, settings=QUICK)
    told: list[FinetuneStep] = []
    parts = finetune(
        folder,
        "folders",
        tmp_path / "parts",
        model=vit,
        settings=QUICK,
        resume=True,
        progress=told.append,
    )
    assert parts.epochs == report.epochs
    assert (parts.best, parts.unreadable, parts.photos) == (
        report.best,
        report.unreadable,
        report.photos,
    )
    assert weights(tmp_path / "parts") == weights(place)
    assert {step.stage for step in told} == {"training", "judged"}


def test_a_run_is_not_resumed_as_another(folder: Path, vit: str, tmp_path: Path) -> None:
    with pytest.raises(Stopped):
        finetune(
            folder, "folders", tmp_path / "out", model=vit, settings=QUICK, progress=stop_after(1)
        )
    other = FinetuneSettings(epochs=9)
    with pytest.raises(ClassifierError, match="was begun with other settings"):
        finetune(folder, "folders", tmp_path / "out", model=vit, settings=other, resume=True)
    checkpoint = tmp_path / "out" / "checkpoint.safetensors"
    checkpoint.write_bytes(checkpoint.read_bytes()[:-5000])
    with pytest.raises(ClassifierError, match=r"checkpoint.* (is damaged|does not fit)"):
        finetune(folder, "folders", tmp_path / "out", model=vit, settings=QUICK, resume=True)


def test_a_photo_that_goes_away_is_named(
    folder: Path, vit: str, tmp_path: Path, whole: tuple[FinetuneReport, Path]
) -> None:
    photos = tmp_path / "photos"
    shutil.copytree(folder, photos)

    def remove(step: FinetuneStep) -> None:
        if (step.stage, step.epoch) == ("judged", 1):
            (photos / "red" / "0.png").unlink()

    with pytest.raises(PhotoError) as caught:
        finetune(photos, "folders", tmp_path / "out", model=vit, settings=QUICK, progress=remove)
    assert str(caught.value).startswith("red/0.png: ")
    assert str(caught.value).endswith(
        ": it could be read at the beginning; put it back and --resume, or begin anew in "
        "another "
        "folder"
    )
    assert "Traceback" not in str(caught.value)
    shutil.copy(folder / "red" / "0.png", photos / "red" / "0.png")
    again = finetune(photos, "folders", tmp_path / "out", model=vit, settings=QUICK, resume=True)
    report, place = whole
    assert again.epochs == report.epochs
    assert weights(tmp_path / "out") == weights(place)


def test_a_full_disk_is_one_line_and_loses_nothing(folder: Path, vit: str, tmp_path: Path) -> None:
    out, options = tmp_path / "out", ("--model", vit, "--epochs", "1")
    with full_disk(50_000):
        done = vitsearch("finetune", folder, "--labels-from", "folders", "-o", out, *options)
    *_, last = done.stderr.decode().splitlines()
    assert (done.returncode, done.stdout) == (1, b"")
    assert re.fullmatch(
        (
            r"vitsearch: cannot write .*checkpoint.safetensors \(.*\): free some space; --resume "
            r"goes "
            r"on from the last"
        ),
        last,
    )
    assert list(out.iterdir()) == []


def test_where_a_model_may_not_go(folder: Path, vit: str, tmp_path: Path) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "model.safetensors").write_bytes(b"of another")
    for place, words in (
        (tmp_path / "full", "holds other files"),
        (folder / "new", "is inside the photo folder"),
    ):
        with pytest.raises(ClassifierError, match=words):
            finetune(folder, "folders", place, model=vit, settings=QUICK)
    assert (tmp_path / "full" / "model.safetensors").read_bytes() == b"of another"
    assert not (folder / "new").exists()
    with pytest.raises(EncoderError):
        finetune(folder, "folders", tmp_path / "out", model="local-dir:nowhere")
    assert not (tmp_path / "out").exists()


def test_a_finished_model_is_not_overwritten(folder: Path, vit: str, tmp_path: Path) -> None:
    finetune(folder, "folders", tmp_path / "out", model=vit, settings=FinetuneSettings(epochs=1))
    for resume in (False, True):
        with pytest.raises(ClassifierError, match="holds a model already"):
            finetune(folder, "folders", tmp_path / "out", model=vit, settings=QUICK, resume=resume)


def test_training_stops_when_nothing_improves(folder: Path, vit: str, tmp_path: Path) -> None:
    still = FinetuneSettings(
        epochs=9,
        learning_rate=1e-8,
        patience=2,
        validation=0.25,
        warmup_epochs=0.0,
        weight_decay=0.0,
    )
    report = finetune(folder, "folders", tmp_path / "out", model=vit, settings=still)
    assert report.epochs[-1].epoch < 9
    assert report.epochs[-1].epoch - report.best.epoch == 2


# -- its parts -------------------------------------------------------------------------------------


@given(st.lists(st.integers(0, 4), min_size=1, max_size=60), st.floats(0, 0.9), st.integers(0, 100))
def test_every_class_keeps_a_photo_to_learn_from(
    labels: list[int], share: float, seed: int
) -> None:
    examples = [Example(f"{place}.jpg", label) for place, label in enumerate(labels)]
    training, judging = split(examples, share, seed)
    assert sorted([*training, *judging], key=lambda one: int(one.path[:-4])) == examples
    assert (training, judging) == split(examples, share, seed)
    every, out = Counter(labels), Counter(one.label for one in judging)
    assert all(out[label] == min(round(share * count), count - 1) for label, count in every.items())


@pytest.mark.parametrize("name", ["mini", "vit", "timm_vit"])
def test_lower_layers_learn_more_slowly(name: str, request: pytest.FixtureRequest) -> None:
    model = load_trainable(
        "mini" if name == "mini" else request.getfixturevalue(name), ["a", "b", "c"]
    )
    groups = layer_rates(model, FinetuneSettings(layer_decay=0.5, weight_decay=0.1))
    every = [id(weight) for group in groups for weight in group["params"]]
    assert sorted(every) == sorted(id(weight) for weight in trained_weights(model).values())
    assert len(set(every)) == len(every)
    assert all(
        (weight.ndim > 1) == (group["weight_decay"] == 0.1)
        for group in groups
        for weight in group["params"]
    )
    shares = [group["share"] for group in groups]
    assert shares == sorted(shares)
    assert {id(model.head.weight)} <= {
        id(weight) for group in groups if group["share"] == 1.0 for weight in group["params"]
    }
    assert shares[0] == 0.5 ** (len(model.layers) - 1)


def test_a_vits_layers_are_its_blocks(vit: str) -> None:
    layers = load_trainable(vit, ["a", "b"]).layers
    assert [re.findall(r"layers?[.](\d+)[.]", layer[0]) for layer in layers] == [
        [],
        ["0"],
        ["1"],
        [],
    ]
    assert all("embeddings" in name for name in layers[0])
    assert layers[-1][-2:] == ("classifier.weight", "classifier.bias")


def test_the_rate_rises_and_falls() -> None:
    settings = FinetuneSettings(epochs=11, warmup_epochs=1.0, learning_rate=1.0)
    rates = [rate_at(epochs, settings) for epochs in (0.0, 0.5, 1.0, 6.0, 11.0)]
    assert rates == pytest.approx([0.001, 0.501, 1.0, 0.505, 0.01])


def test_mixed_labels_are_shares() -> None:
    pixels, labels = torch.rand(6, 3, 4, 4), torch.tensor([0, 1, 2, 0, 1, 2])
    same, plain = mixed(pixels, labels, classes=3, alpha=0.0)
    assert torch.equal(same, pixels)
    assert plain.tolist() == torch.eye(3)[labels].tolist()
    torch.manual_seed(1)
    images, shares = mixed(pixels.clone(), labels, classes=3, alpha=1.0)
    share = float(shares.max(dim=1).values[0])
    assert shares.sum(dim=1).tolist() == pytest.approx([1.0] * 6)
    strong = float(shares[1, 1])
    torch.testing.assert_close(images[1], strong * pixels[1] + (1 - strong) * pixels[0])
    assert 0.5 <= share < 1


def test_what_is_drawn_for_a_photo_is_fixed_by_seed_epoch_and_place(folder: Path) -> None:
    examples, _ = labelled_photos(folder, "folders")

    def see(epoch: int, place: int, seed: int = 0) -> bytes:
        photos = AugmentedPhotos(
            folder, examples, side=32, settings=FinetuneSettings(seed=seed), epoch=epoch
        )
        pixels, _ = photos[place]
        assert (pixels.dtype, tuple(pixels.shape)) == (torch.uint8, (3, 32, 32))
        return pixels.numpy().tobytes()

    torch.manual_seed(5)
    state = torch.random.get_rng_state()
    assert see(1, 3) == see(1, 3)
    assert torch.equal(torch.random.get_rng_state(), state)
    assert len({see(1, 3), see(2, 3), see(1, 3, seed=1)}) == 3


def test_the_head_starts_as_logistic_regression() -> None:
    sklearn = pytest.importorskip("sklearn.linear_model")
    generator = torch.Generator().manual_seed(3)
    labels = torch.randint(0, 3, (60,), generator=generator)
    rows = torch.randn(60, 5, generator=generator) + labels[:, None]
    head = torch.nn.Linear(5, 3)
    fit_head(head, rows, labels)
    spread = float(rows.pow(2).mean().sqrt())
    theirs = sklearn.LogisticRegression(C=1 / (RIDGE * 60), tol=1e-8, max_iter=5000).fit(
        rows.numpy() / spread, labels.numpy()
    )
    chances = head(rows).softmax(dim=1).detach().numpy()
    np.testing.assert_allclose(chances, theirs.predict_proba(rows.numpy() / spread), atol=2e-3)


# -- bad input -------------------------------------------------------------------------------------


def test_settings_have_ranges() -> None:
    for name, value in (
        ("epochs", 0),
        ("crop", 0.0),
        ("magnitude", 31),
        ("validation", 0.95),
        ("learning_rate", float("nan")),
    ):
        with pytest.raises(QueryError, match=f"^{name} must be from "):
            FinetuneSettings(**{name: value})


def test_what_cannot_be_learned_from(folder: Path, vit: str, tmp_path: Path) -> None:
    for name, colours in (("one", ["red"]), ("broken", ["red"])):
        (tmp_path / name).mkdir()
        for colour in colours:
            (tmp_path / name / colour).symlink_to(folder / colour)
    with pytest.raises(QueryError, match="there are no labels"):
        finetune(folder / "red", "folders", tmp_path / "out", model=vit)
    photos = tmp_path / "one-class"
    (photos / "red").mkdir(parents=True)
    (photos / "red" / "a.png").write_bytes((folder / "red" / "0.png").read_bytes())
    with pytest.raises(
        QueryError, match="all labelled photos are 'red': give photos of at least two classes"
    ):
        finetune(photos, "folders", tmp_path / "out", model=vit)
    (photos / "blue").mkdir()
    (photos / "blue" / "a.png").write_bytes(b"no picture")
    with pytest.raises(QueryError, match="no photo of 'blue' can be read"):
        finetune(photos, "folders", tmp_path / "out", model=vit)
    assert not (tmp_path / "out" / "config.json").exists()


def test_models_that_cannot_be_trained(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(EncoderError, match="there is no folder"):
        finetune(folder, "folders", tmp_path / "out", model=f"local-dir:{tmp_path / 'none'}")
    with pytest.raises(EncoderError, match="there is no classifier 'nonsense'"):
        finetune(folder, "folders", tmp_path / "out", model="nonsense")
    with pytest.raises(EncoderError, match="cpu, cuda"):
        finetune(folder, "folders", tmp_path / "out", device="cuda:77")
    (tmp_path / "file").write_text("x")
    with pytest.raises(ClassifierError, match="cannot write the classifier"):
        finetune(folder, "folders", tmp_path / "file" / "out", model="mini")


def test_a_damaged_finetuned_mini(tmp_path: Path) -> None:
    load_trainable("mini", ["a", "b"]).save(tmp_path)
    assert load_classifier(f"local-dir:{tmp_path}").classes == ("a", "b")
    file = tmp_path / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-100])
    with pytest.raises(EncoderError, match=r"the model in .* is damaged .*: fine-tune it again"):
        load_classifier(f"local-dir:{tmp_path}")


# -- the command -----------------------------------------------------------------------------------


def test_the_command(folder: Path, vit: str, tmp_path: Path) -> None:
    options = (
        "--labels-from",
        "folders",
        "--model",
        vit,
        "-o",
        tmp_path / "out",
        "--learning-rate",
        "0.003",
        "--batch-size",
        "8",
    )
    done = vitsearch(
        "finetune", folder, *options, "--epochs", "2", "--validation", "0.25", "--json"
    )
    assert done.returncode == 0, done.stderr
    facts = json.loads(done.stdout)
    assert (facts["classes"], facts["photos"], facts["best"]["judged"]) == (
        ["blue", "red", "white"],
        18,
        6,
    )
    assert [row["path"] for row in facts["unreadable"]] == ["red/cut.png"]
    assert [line.split(":")[1].strip() for line in done.stderr.decode().splitlines()] == [
        "red/cut.png"
    ]
    again = vitsearch("finetune", folder, *options)
    assert (again.returncode, again.stdout) == (1, b"")
    assert re.fullmatch(
        rb"vitsearch: .* holds a model already: name another folder with -o\n", again.stderr
    )
    answers = vitsearch(
        "classify", folder / "blue", "--model", f"local-dir:{tmp_path / 'out'}", "--json"
    )
    assert {json.loads(line)["label"] for line in answers.stdout.splitlines()} == {"blue"}


def test_the_help_names_the_defaults() -> None:
    from vitsearch.cli.train import finetune as command

    told = {option.name: option.help for option in command.params if getattr(option, "help", None)}
    defaults = FinetuneSettings()
    shown = [name for name in FinetuneSettings.__dataclass_fields__ if name in told]
    assert len(shown) == 10
    assert [name for name in shown if f"({getattr(defaults, name):g}" not in told[name]] == []
