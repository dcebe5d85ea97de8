"""Zero-shot heads against those of open_clip, and their probabilities against transformers'
pipeline, with random weights, offline.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

torch = pytest.importorskip("torch", reason="needs the extra vitsearch[clip]")
open_clip = pytest.importorskip("open_clip", reason="needs the extra vitsearch[clip]")
transformers = pytest.importorskip("transformers", reason="needs the extra vitsearch[clip]")

from helpers import tiny_models as tiny  # noqa: E402
from helpers.tiny_models import siglip_like  # noqa: E402
from vitsearch import load_encoder  # noqa: E402
from vitsearch.encoders import Encoder  # noqa: E402
from vitsearch.labels import zero_shot_classifier  # noqa: E402

pytestmark = pytest.mark.slow

NAMES = ["cat", "dog on a beach", "two red chairs", "sea at night", "bed and a beach"] + [
    f"chair {letter}" for letter in "abcdefg"
]
TEMPLATES = {"simple": "SIMPLE_IMAGENET_TEMPLATES", "imagenet": "OPENAI_IMAGENET_TEMPLATES"}
HYPOTHESIS = "this is a photo of {}."


@pytest.fixture(scope="module", autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Keep hashes of these throw-away files out of the user's cache, and arithmetic
    on two threads.
    """
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("VITSEARCH_HOME", str(tmp_path_factory.mktemp("home")))
        threads = torch.get_num_threads()
        torch.set_num_threads(min(2, threads))
        yield
        torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A random CLIP and a random SigLIP, as open_clip and as transformers save them."""
    root = tmp_path_factory.mktemp("models")
    tiny.save_clip(root / "clip", tiny.save_open_clip(root / "open_clip"))
    tiny.save_siglip(
        root / "siglip", length=64
    )  # what transformers' pipeline pads to, whatever the model reads
    tiny.save_open_clip(root / "open_clip_siglip", siglip_like())
    tiny.tiny_tokenizer(16).save_pretrained(root / "open_clip_siglip")
    return {name: root / name for name in ("open_clip", "clip", "siglip", "open_clip_siglip")}


def load(folder: Path) -> Encoder:
    return load_encoder(f"local-dir:{folder}", "cpu")


def open_clips_head(folder: Path, templates: Any) -> NDArray[np.float32]:
    """The unit rows ``(classes, dim)`` that open_clip makes of the names."""
    name = f"local-dir:{folder}"
    model, _, _ = open_clip.create_model_and_transforms(name)
    options = {"local_files_only": True} if "siglip" in folder.name else {}
    tokenizer = open_clip.get_tokenizer(name, **options)
    weights = open_clip.build_zero_shot_classifier(
        model.eval(), tokenizer, NAMES, templates, num_classes_per_batch=5
    )
    return np.asarray(weights.T)


def assert_rows_differ(rows: NDArray[np.float32]) -> None:
    """Parity of constant vectors would prove nothing."""
    assert (rows @ rows.T - 2 * np.eye(len(rows))).max() < 0.9999


@pytest.mark.parametrize("model", ["open_clip", "open_clip_siglip"])
@pytest.mark.parametrize("templates", list(TEMPLATES))
def test_the_head_is_open_clips(folders: dict[str, Path], model: str, templates: str) -> None:
    encoder = load(folders[model])
    ours = zero_shot_classifier(encoder, NAMES, templates=templates)
    theirs = open_clips_head(folders[model], getattr(open_clip, TEMPLATES[templates]))
    assert_rows_differ(theirs)
    np.testing.assert_allclose(
        ours.weight / np.float32(encoder.logit_scale), theirs, rtol=0, atol=1e-5
    )
    wanted = ("softmax", 0.0) if model == "open_clip" else ("sigmoid", -10.0)
    assert (ours.activation, set(ours.bias.tolist())) == (wanted[0], {wanted[1]})


def test_own_templates_give_open_clips_head(folders: dict[str, Path]) -> None:
    templates = ["a photo of a {}.", "{}", "the {} and a {}"]
    ours = zero_shot_classifier(load(folders["open_clip"]), NAMES, templates=templates)
    theirs = open_clips_head(
        folders["open_clip"], [lambda name, one=one: one.replace("{}", name) for one in templates]
    )
    np.testing.assert_allclose(ours.weight * 0.07, theirs, rtol=0, atol=1e-5)


def test_the_same_weights_give_the_same_head_whoever_saved_them(folders: dict[str, Path]) -> None:
    one, other = (
        zero_shot_classifier(load(folders[name]), NAMES, templates="simple")
        for name in ("open_clip", "clip")
    )
    np.testing.assert_allclose(
        one.weight, other.weight, rtol=0, atol=1e-4
    )  # the scale of the cosines is 14
    np.testing.assert_array_equal(one.bias, other.bias)


@pytest.mark.parametrize(
    ("model", "processor"),
    [("clip", "CLIPImageProcessorPil"), ("siglip", "SiglipImageProcessorPil")],
)
def test_probabilities_are_those_of_transformers_pipeline(
    folders: dict[str, Path], model: str, processor: str
) -> None:
    """The processors on Pillow give our pictures bit by bit; SigLIP's texts are padded to the
    length that it was trained with.
    """
    folder = folders[model]
    names = (
        {"model_input_names": ["input_ids"]} if model == "siglip" else {}
    )  # as published: SigLIP was trained without a mask of padding
    pipeline = transformers.pipeline(
        "zero-shot-image-classification",
        model=str(folder),
        image_processor=getattr(transformers, processor).from_pretrained(folder),
        tokenizer=transformers.AutoTokenizer.from_pretrained(folder, **names),
        device="cpu",
    )
    theirs = pipeline(tiny.photos(), candidate_labels=NAMES, hypothesis_template=HYPOTHESIS)
    encoder = load(folder)
    classifier = zero_shot_classifier(encoder, NAMES, templates=HYPOTHESIS)
    ours = classifier.predict_proba(encoder.encode_images(tiny.photos()))
    assert classifier.activation == ("sigmoid" if model == "siglip" else "softmax")
    assert len(theirs) == len(ours) == 5
    for row, answers in zip(ours, theirs, strict=True):
        scores = {answer["label"]: answer["score"] for answer in answers}
        wanted = np.array([scores[name] for name in NAMES])
        assert np.ptp(wanted) > 1e-3
        np.testing.assert_allclose(row, wanted, rtol=0, atol=1e-5)
        assert [NAMES[place] for place in np.argsort(-row, kind="stable")[:1]] == [
            answers[0]["label"]
        ]
