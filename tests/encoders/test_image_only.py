"""Image towers that read no text: DINOv2 and DINOv3 of transformers, and timm's, against their own
libraries, and a collection of one.
"""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="needs the extra vitsearch[clip]")
pytest.importorskip("open_clip", reason="needs the extra vitsearch[clip]")
timm = pytest.importorskip("timm", reason="needs the extra vitsearch[clip]")
transformers = pytest.importorskip("transformers", reason="needs the extra vitsearch[clip]")

from helpers import tiny_models as tiny  # noqa: E402
from vitsearch import Collection, QueryError, index_folder, load_encoder  # noqa: E402
from vitsearch.encoders import Encoder, load_local_dir  # noqa: E402
from vitsearch.errors import EncoderError  # noqa: E402

pytestmark = pytest.mark.slow


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VITSEARCH_HOME", str(tmp_path / "home"))


def assert_rows(folder: Path, expected: Any) -> None:
    encoder = load_local_dir(str(folder), device="cpu")
    rows = encoder.encode_images(tiny.photos())
    expected = expected / expected.norm(dim=-1, keepdim=True)
    np.testing.assert_allclose(rows, expected, rtol=0, atol=1e-5)
    assert not isinstance(encoder, Encoder)
    assert encoder.dim == expected.shape[1]
    assert encoder.fingerprint == load_local_dir(str(folder), device="cpu").fingerprint


@pytest.mark.parametrize("kind", ["Dinov2", "Dinov2WithRegisters", "DINOv3ViT"])
def test_vectors_are_those_of_transformers(tmp_path: Path, kind: str) -> None:
    tower = {"num_hidden_layers": 2, "num_attention_heads": 2, "image_size": 32, "patch_size": 8}
    config = getattr(transformers, f"{kind}Config")(hidden_size=32, intermediate_size=64, **tower)
    net = tiny.scramble(getattr(transformers, f"{kind}Model")(config))
    net.save_pretrained(tmp_path)
    processor = transformers.BitImageProcessorPil(
        size={"shortest_edge": 40}, crop_size={"height": 32, "width": 32}
    )
    processor.save_pretrained(tmp_path)
    with torch.no_grad():
        pixels = processor(tiny.photos(), return_tensors="pt")
        assert_rows(tmp_path, net(**pixels).pooler_output)


def save_timm(folder: Path, name: str) -> Any:
    net = tiny.scramble(timm.create_model(name, pretrained=False, num_classes=3))
    timm.models.save_for_hf(net, str(folder), safe_serialization=True)
    return net


def test_vectors_are_those_of_timm_without_its_head(tmp_path: Path) -> None:
    net = save_timm(tmp_path, "test_vit")
    net.reset_classifier(0)
    transform = timm.data.create_transform(**timm.data.resolve_data_config({}, model=net))
    with torch.no_grad():
        assert_rows(tmp_path, net(torch.stack([transform(each) for each in tiny.photos()])))


def test_a_collection_without_words(tmp_path: Path) -> None:
    model, photos = tmp_path / "model", tmp_path / "photos"
    save_timm(model, "test_vit")
    photos.mkdir()
    for number, photo in enumerate(tiny.photos()):
        photo.save(photos / f"{number}.png")
    name = f"local-dir:{model}"
    index_folder(photos, encoder=name, runtime="torch")
    with Collection.open(photos) as collection:
        assert [hit.path for hit in collection.search(tiny.photos()[3], top_k=1)] == ["3.png"]
        with pytest.raises(QueryError, match="reads no text: search with a photo, or"):
            collection.search("a cat")
    with pytest.raises(EncoderError, match="reads no text, and is not exported: use runtime torch"):
        load_encoder(name, runtime="onnx")


@pytest.mark.parametrize(
    ("model", "told"),
    [
        ("vit_smal_patch14_dinov2", "timm has no model 'vit_smal_patch14_dinov2': try vit_small"),
        (
            "vit_small_patch14_dinov2.nobody",
            "timm has no trained weights for 'vit_small_patch14_dinov2.nobody': "
            "try vit_small_patch14_dinov2.lvd142m",
        ),
        (
            "vit_tiny_patch16_384.nobody",
            "timm has no trained weights for 'vit_tiny_patch16_384.nobody': try vit_tiny",
        ),
    ],
)
def test_a_name_that_timm_has_not_is_told(model: str, told: str) -> None:
    with pytest.raises(EncoderError) as caught:
        load_encoder(f"timm:{model}")
    assert str(caught.value).startswith(told)
