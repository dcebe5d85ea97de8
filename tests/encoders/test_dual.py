"""Models of two towers that transformers has, beside CLIP and SigLIP, against transformers' own
processor and model.
"""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="needs the extra vitsearch[clip]")
pytest.importorskip("open_clip", reason="needs the extra vitsearch[clip]")
pytest.importorskip("transformers", reason="needs the extra vitsearch[clip]")

from helpers import tiny_models as tiny  # noqa: E402
from vitsearch.encoders import load_encoder, load_local_dir  # noqa: E402
from vitsearch.errors import EncoderError  # noqa: E402

pytestmark = pytest.mark.slow

KINDS = ("metaclip_2", "chinese_clip", "altclip", "siglip2", "tipsv2", "align", "blip", "aimv2")
TEXTS = [*tiny.SENTENCES, "A CAT, a dog!", "中文的猫", "a cat " * 60]


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VITSEARCH_HOME", str(tmp_path / "home"))


def unit(rows: Any) -> Any:
    return rows / rows.norm(dim=-1, keepdim=True)


@pytest.mark.parametrize("kind", KINDS)
def test_vectors_are_those_of_transformers_own_processor_and_model(
    tmp_path: Path, kind: str
) -> None:
    net, processor = tiny.save_dual(tmp_path, kind)
    encoder = load_local_dir(str(tmp_path), device="cpu")
    photos = tiny.photos()[:4]
    length = 64 if kind in ("siglip2", "tipsv2") else encoder.towers.portable().rules.length
    how = {"padding": "max_length" if length == 64 else True, "truncation": True}
    read = [text for text in TEXTS if text or kind != "tipsv2"]  # which has no vector of no word
    words = processor.tokenizer(read, max_length=length, return_tensors="pt", **how)
    if kind == "blip":  # whose processor leaves them out
        words.pop("token_type_ids")
    if kind == "tipsv2":  # its processor resizes with torchvision, a level or two apart
        pictures = {
            "pixel_values": encoder.normalise(np.stack([encoder.prepare(each) for each in photos]))
        }
        theirs = processor.image_processor(photos, return_tensors="pt")["pixel_values"]
        assert float((pictures["pixel_values"] - theirs).abs().max()) < 2.01 / 255
    else:
        pictures = processor.image_processor(photos, return_tensors="pt")
    with torch.no_grad():
        expected = unit(net.get_image_features(**pictures).pooler_output)
        texts = unit(net.get_text_features(**words).pooler_output)
        both = net(**pictures, **words).logits_per_image
    rows, text_rows = encoder.encode_images(photos), encoder.encode_texts(read)
    np.testing.assert_allclose(rows, expected, rtol=0, atol=1e-5)
    np.testing.assert_allclose(text_rows, texts, rtol=0, atol=1e-5)
    scores = encoder.logit_scale * rows @ text_rows.T + (encoder.logit_bias or 0)
    np.testing.assert_allclose(scores, both, rtol=1e-4, atol=1e-3)
    assert [encoder.is_cut(text) for text in ("a cat", TEXTS[-1])] == [False, True]
    assert encoder.fingerprint == load_local_dir(str(tmp_path), device="cpu").fingerprint
    for one, row in zip(photos, rows, strict=True):  # neighbours change nothing
        np.testing.assert_allclose(encoder.encode_images([one])[0], row, rtol=0, atol=1e-6)
    if kind in ("metaclip_2", "chinese_clip", "altclip"):
        tower = encoder.image_tower
        with torch.no_grad():
            shown = tower(encoder.normalise(np.stack([encoder.prepare(each) for each in photos])))
        np.testing.assert_allclose(unit(shown), expected, rtol=0, atol=1e-5)
    if kind == "siglip2":
        assert len({encoder.prepare(each).shape for each in photos}) > 1
        with pytest.raises(EncoderError, match=r"takes pictures of any shape.*use runtime torch"):
            load_encoder(encoder.name, runtime="onnx")
