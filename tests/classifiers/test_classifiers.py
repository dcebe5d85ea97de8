"""Supervised classifiers: the same answers as the libraries they come from, whatever is given to
them.
"""

import http.server
import json
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from helpers.classifiers import NAMES, save_classifier, torch, transformers
from helpers.lazy import library
from vitsearch import ImageClassifier, Prediction, load_classifier
from vitsearch.encoders.mini import load_mini
from vitsearch.errors import EncoderError, PhotoError, QueryError

timm = library("timm")


def photos() -> list[Image.Image]:
    rng = np.random.default_rng(3)
    sizes = [(32, 32), (64, 32), (32, 48), (200, 100), (9, 9), (41, 37), (50, 50)]
    return [
        Image.fromarray(rng.integers(0, 256, (height, width, 3), dtype=np.uint8))
        for width, height in sizes
    ]


@pytest.mark.parametrize("kind", ["ViT", "DeiT"])
@pytest.mark.parametrize(("dtype", "close"), [("float32", 1e-4), ("bfloat16", 2e-2)])
def test_answers_are_those_of_transformers_pipeline(
    tmp_path: Path, kind: str, dtype: str, close: float
) -> None:
    folder = save_classifier(tmp_path / "model", kind)
    theirs = transformers.pipeline(
        "image-classification", model=str(folder), dtype=getattr(torch, dtype), device="cpu"
    )
    wanted = theirs(photos(), top_k=6)
    ours = load_classifier(f"local-dir:{folder}", device="cpu", dtype=dtype)
    found = ours(photos(), top_k=6, batch_size=3)
    assert len(found) == len(wanted) == 7
    for mine, other in zip(found, wanted, strict=True):
        assert {one.label: one.score for one in mine} == pytest.approx(
            {one["label"]: one["score"] for one in other}, abs=close
        )
        if dtype == "float32":
            assert [one.label for one in mine] == [one["label"] for one in other]
    same = load_classifier(f"local-dir:{folder}", dtype=getattr(torch, dtype), device=-1)(
        photos()[0], 1
    )[0][0]
    assert (same.label, same.score) == (
        found[0][0].label,
        pytest.approx(found[0][0].score, abs=close),
    )


def test_a_model_of_several_labels_gives_each_by_itself(tmp_path: Path) -> None:
    folder = save_classifier(tmp_path / "model", problem_type="multi_label_classification")
    wanted = transformers.pipeline("image-classification", model=str(folder), device="cpu")(
        photos(), top_k=6
    )
    for mine, other in zip(
        load_classifier(f"local-dir:{folder}")(photos(), 6), wanted, strict=True
    ):
        assert [(one.label, round(one.score, 4)) for one in mine] == [
            (one["label"], round(one["score"], 4)) for one in other
        ]


def test_answers_are_those_of_timm(tmp_path: Path) -> None:
    torch.manual_seed(5)
    options = {"img_size": 32, "patch_size": 8, "embed_dim": 32, "depth": 2, "num_heads": 2}
    net = timm.create_model("vit_tiny_patch16_224", num_classes=6, **options).eval()
    net.pretrained_cfg["label_names"] = list(NAMES.values())
    timm.models.save_for_hf(
        net, tmp_path, model_config={"label_names": list(NAMES.values())}, model_args=options
    )
    classifier = load_classifier(f"local-dir:{tmp_path}")
    assert classifier.classes == tuple(NAMES.values())
    same = timm.create_model(f"local-dir:{tmp_path}", pretrained=True).eval()
    transform = timm.data.create_transform(**timm.data.resolve_data_config({}, model=same))
    with torch.inference_mode():
        wanted = same(torch.stack([transform(image) for image in photos()])).numpy()
    np.testing.assert_allclose(classifier.logits(photos()), wanted, rtol=1e-4, atol=1e-5)


@pytest.fixture(scope="module")
def mini() -> ImageClassifier:
    return load_classifier("mini")


@pytest.mark.slow
def test_mini_names_imagenets_classes(mini: ImageClassifier) -> None:
    encoder = load_mini()
    logits = encoder.class_logits(photos()).astype(np.float64)
    chances = np.exp(logits - logits.max(axis=1, keepdims=True))
    chances /= chances.sum(axis=1, keepdims=True)
    assert (len(mini.classes), mini.classes[0]) == (1000, "tench")
    found = mini(photos(), top_k=3, batch_size=2)
    for row, answers in zip(chances, found, strict=True):
        places = np.argsort(-row, kind="stable")[:3]
        assert [one.label for one in answers] == [mini.classes[place] for place in places]
        assert [one.score for one in answers] == pytest.approx(row[places].tolist(), abs=1e-5)


@pytest.mark.slow
def test_what_may_be_given(mini: ImageClassifier, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    for i, image in enumerate(photos()[:3]):
        image.save(tmp_path / ("in" if i else "") / f"{i}.png")
    (tmp_path / "notes.txt").write_text("no photo")
    first = mini(photos()[0], 1)[0][0]
    assert mini(tmp_path / "0.png", 1) == [
        [Prediction(str(tmp_path / "0.png"), first.label, pytest.approx(first.score, abs=1e-5))]
    ]  # type: ignore[arg-type]
    assert [answers[0].path for answers in mini(tmp_path, 1)] == [
        str(tmp_path / name) for name in ("0.png", "in/1.png", "in/2.png")
    ]
    mixed = mini([photos()[1], str(tmp_path / "in")], 1)
    assert [answers[0].path for answers in mixed] == [
        "",
        str(tmp_path / "in/1.png"),
        str(tmp_path / "in/2.png"),
    ]
    assert mixed[0][0].label == mixed[1][0].label
    assert mini([]) == []
    assert len(mini(photos()[0], 5000)[0]) == 1000


def test_a_photo_that_cannot_be_read_is_said_and_the_others_are_answered(
    mini: ImageClassifier, tmp_path: Path
) -> None:
    for i, image in enumerate(photos()[:2]):
        image.save(tmp_path / f"{2 * i}.png")
    (tmp_path / "1.png").write_bytes(b"no picture")
    with pytest.raises(
        PhotoError, match=r"1\.png: not a photo: its content is of no picture format"
    ):
        mini(tmp_path)
    found = list(mini.stream(tmp_path, 1, batch_size=1))
    assert [Path(path).name for path, _ in found] == ["0.png", "1.png", "2.png"]
    assert [isinstance(answer, PhotoError) for _, answer in found] == [False, True, False]
    with pytest.raises(PhotoError, match=r"gone\.png: "):
        mini(tmp_path / "gone.png")
    for wrong in ({"top_k": 0}, {"batch_size": 0}):
        with pytest.raises(QueryError, match="must be at least 1"):
            mini(photos()[0], **wrong)  # type: ignore[arg-type]


def test_logits_come_in_batches_and_in_order_with_what_could_not_be_read(
    mini: ImageClassifier, tmp_path: Path
) -> None:
    for i, image in enumerate(photos()[:3]):
        image.save(tmp_path / f"{i}.png")
    files = [
        tmp_path / "0.png",
        tmp_path,
        tmp_path / "1.png",
        tmp_path / "2.png",
        tmp_path / "gone.png",
    ]
    batches = list(mini.logits_of(files, batch_size=2))
    assert [[Path(path) for path, _ in batch] for batch in batches] == [
        files[:2],
        files[2:4],
        files[4:],
    ]
    rows = [row for batch in batches for _, row in batch]
    assert [isinstance(row, PhotoError) for row in rows] == [False, True, False, False, True]
    np.testing.assert_allclose(
        np.stack([rows[0], rows[2], rows[3]]), mini.logits(photos()[:3]), atol=1e-4
    )  # type: ignore[arg-type]
    with pytest.raises(QueryError, match="batch_size must be at least 1, not 0"):
        next(mini.logits_of(files, batch_size=0))


@pytest.fixture
def address(tmp_path: Path) -> Iterator[str]:
    """The address of a web server on this machine with one photo."""
    photos()[0].save(tmp_path / "0.png")

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def __init__(self, *arguments: object) -> None:
            super().__init__(*arguments, directory=str(tmp_path))  # type: ignore[arg-type]

        def log_message(self, *_: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Quiet) as server:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def test_addresses_are_fetched_only_when_allowed(mini: ImageClassifier, address: str) -> None:
    with pytest.raises(
        QueryError, match=r"0\.png is an address on the network: say allow_urls=True to fetch it"
    ):
        mini(f"{address}/0.png")
    (answers,) = mini(f"{address}/0.png", 2, allow_urls=True)
    assert [(one.path, one.label) for one in answers] == [
        (f"{address}/0.png", one.label) for one in mini(photos()[0], 2)[0]
    ]
    with pytest.raises(PhotoError, match="none.png: cannot be fetched"):
        mini(f"{address}/none.png", allow_urls=True)


@pytest.mark.parametrize(
    "name", ["", "resnet", "hf:", "timm:", "local-dir:", "open_clip:ViT-B-32/x"]
)
def test_other_names_are_refused(name: str) -> None:
    with pytest.raises(
        EncoderError,
        match="there is no classifier .*: write mini, hf:ORG/NAME, timm:NAME or local-dir",
    ):
        load_classifier(name)


def test_damaged_models_are_refused(tmp_path: Path) -> None:
    with pytest.raises(EncoderError, match="there is no folder"):
        load_classifier(f"local-dir:{tmp_path / 'none'}")
    folder = save_classifier(tmp_path / "model")
    weights = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(weights[:-100])
    with pytest.raises(EncoderError, match="cannot read the model in"):
        load_classifier(f"local-dir:{folder}")
    (folder / "model.safetensors").write_bytes(weights)
    facts = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(facts | {"hidden_size": 64}))
    with pytest.raises(
        EncoderError, match=r"the weights in .* lack \d+ tensors|cannot read the model"
    ):
        load_classifier(f"local-dir:{folder}")
    (folder / "config.json").write_text(json.dumps(facts | {"architectures": ["ViTModel"]}))
    with pytest.raises(
        EncoderError,
        match="is a ViTModel, which has no classes: a classifier is a ...ForImageClassification",
    ):
        load_classifier(f"local-dir:{folder}")
    (folder / "preprocessor_config.json").unlink()
    with pytest.raises(EncoderError, match="lacks the file .*preprocessor_config.json"):
        load_classifier(f"local-dir:{folder}")
    with pytest.raises(EncoderError, match="timm has no model 'vit_tinny': try "):
        load_classifier("timm:vit_tinny")
    with pytest.raises(EncoderError, match="device 'warp' cannot be used here"):
        load_classifier(f"local-dir:{save_classifier(tmp_path / 'other')}", device="warp")
