"""Models of the Hugging Face hub: the cache is used without a network; a missing model says so at
once, in one line.
"""

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("torch", reason="needs the extra vitsearch[clip]")
pytest.importorskip("open_clip", reason="needs the extra vitsearch[clip]")
pytest.importorskip("transformers", reason="needs the extra vitsearch[clip]")

import numpy as np

from helpers import tiny_models as tiny
from helpers.paths import ROOT
from vitsearch.encoders import load_local_dir
from vitsearch.encoders.huggingface import load_hf
from vitsearch.encoders.open_clip import load_open_clip
from vitsearch.errors import EncoderError

pytestmark = pytest.mark.slow


def test_a_model_in_the_cache_needs_no_network(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VITSEARCH_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    folder = tmp_path / "models--acme--tiny"
    tiny.save_siglip(folder / "snapshots" / "abc")
    (folder / "refs").mkdir()
    (folder / "refs" / "main").write_text("abc")
    encoder = load_hf("acme/tiny", device="cpu")
    plain = load_local_dir(str(folder / "snapshots" / "abc"), device="cpu")
    assert (encoder.name, encoder.fingerprint) == ("hf:acme/tiny", plain.fingerprint)
    np.testing.assert_array_equal(
        encoder.encode_texts(tiny.SENTENCES), plain.encode_texts(tiny.SENTENCES)
    )


MISSING = {
    "hf:openai/clip-vit-base-patch32": "config.json of the model openai/clip-vit-base-patch32",
    "open_clip:ViT-B-32/laion2b_s34b_b79k": "open_clip_model.safetensors of the model "
    "laion/CLIP-ViT-B-32-laion2B-s34B-b79K",
}


def test_offline_a_missing_model_is_one_line(tmp_path: Path) -> None:
    """In a process, since the hub's client reads the environment when it is imported."""
    program = f"""
from vitsearch import errors
from vitsearch.encoders import load_encoder
for name in {[*MISSING]!r}:
    try:
        load_encoder(name)
    except errors.EncoderError as error:
        print(error)
"""
    environment = os.environ | {"HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path)}
    environment.pop("HF_HUB_CACHE", None)
    done = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        check=True,
        env=environment,
        cwd=ROOT,
    )
    assert done.stdout.splitlines() == [
        f"{file} is not on this machine (looked in {tmp_path / 'hub'}) and HF_HUB_OFFLINE is set: "
        "unset it to download the model, or copy its folder here and use local-dir:/path"
        for file in MISSING.values()
    ]


def test_an_unreachable_hub_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, remarks: list[str]
) -> None:
    import huggingface_hub

    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    with pytest.raises(
        EncoderError,
        match=r"the Hugging Face hub cannot be reached .*connect once to download the model",
    ) as caught:
        load_hf("acme/nowhere")
    assert "\n" not in str(caught.value)
    assert remarks == ["asking the Hugging Face hub for the model acme/nowhere, at most 10 s a try"]


@pytest.mark.parametrize("name", ["x", "a/b/c", "/b", "a/"])
def test_a_malformed_hub_name(name: str) -> None:
    with pytest.raises(EncoderError, match="it is hf:ORG/NAME"):
        load_hf(name)


@pytest.mark.parametrize(
    ("name", "suggested"),
    [
        ("ViT-B-32/laion2b", "open_clip:ViT-B-32/laion2b_s34b_b79k"),
        ("ViT-B-32", "open_clip:ViT-B-32/openai"),
        ("vit-b-16-siglip2/webli", "open_clip:ViT-B-16-SigLIP2/webli"),
        ("MobileCLIP2/dfndr2b", "open_clip:MobileCLIP2-B/dfndr2b"),
    ],
)
def test_an_unknown_open_clip_name_lists_the_closest(name: str, suggested: str) -> None:
    with pytest.raises(EncoderError) as caught:
        load_open_clip(name)
    assert f"open_clip has no model {name!r}: try " in str(caught.value)
    assert suggested in str(caught.value)
    assert "\n" not in str(caught.value)
