"""Models in a folder: both layouts, and what is said when one is incomplete or damaged."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from helpers.lazy import library
from vitsearch.encoders import load_local_dir
from vitsearch.errors import EncoderError

torch = library("torch", reason="needs the extra vitsearch[clip]")
library("open_clip", reason="needs the extra vitsearch[clip]")
library("transformers", reason="needs the extra vitsearch[clip]")
tiny = library("helpers.tiny_models")


@pytest.fixture(scope="module")
def originals(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("originals")
    tiny.save_clip(root / "clip", tiny.save_open_clip(root / "open_clip"))
    tiny.save_siglip(root / "siglip")
    return root


@pytest.fixture
def models(originals: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the folders to damage, and a home of their own for hashes."""
    monkeypatch.setenv("VITSEARCH_HOME", str(tmp_path / "home"))
    return Path(shutil.copytree(originals, tmp_path / "models"))


def failure(folder: Path, **options: str) -> str:
    with pytest.raises(EncoderError) as caught:
        load_local_dir(str(folder), **{"device": "cpu", **options})
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.slow
@pytest.mark.parametrize("layout", ["open_clip", "clip", "siglip"])
def test_name_and_fingerprint_are_the_same_on_every_load(models: Path, layout: str) -> None:
    one, two = (load_local_dir(str(models / layout), device="cpu") for _ in range(2))
    assert one.name == two.name == f"local-dir:{models.resolve() / layout}"
    assert one.fingerprint == two.fingerprint
    np.testing.assert_array_equal(
        one.encode_texts(tiny.SENTENCES), two.encode_texts(tiny.SENTENCES)
    )


@pytest.mark.slow
@pytest.mark.parametrize("layout", ["open_clip", "clip"])
def test_a_copy_elsewhere_has_the_same_fingerprint_and_other_weights_another(
    models: Path, originals: Path, layout: str
) -> None:
    mine, original = (
        load_local_dir(str(root / layout), device="cpu") for root in (models, originals)
    )
    assert mine.fingerprint == original.fingerprint
    other = tiny.save_open_clip(models / "open_clip", seed=6)
    if layout == "clip":
        tiny.save_clip(models / "clip", other)
    assert load_local_dir(str(models / layout), device="cpu").fingerprint != original.fingerprint


@pytest.mark.slow
def test_other_preprocessing_has_another_fingerprint(models: Path) -> None:
    file = models / "clip" / "preprocessor_config.json"
    before = load_local_dir(str(models / "clip"), device="cpu").fingerprint
    file.write_text(json.dumps(json.loads(file.read_text()) | {"image_mean": [0.5, 0.5, 0.5]}))
    assert load_local_dir(str(models / "clip"), device="cpu").fingerprint != before


def test_weights_in_a_bin_file_load_without_unpickling_code(models: Path) -> None:
    from safetensors.torch import load_file

    folder = models / "open_clip"
    expected = load_local_dir(str(folder), device="cpu").encode_images(tiny.photos())
    torch.save(
        load_file(folder / "open_clip_model.safetensors"), folder / "open_clip_pytorch_model.bin"
    )
    (folder / "open_clip_model.safetensors").unlink()
    np.testing.assert_array_equal(
        load_local_dir(str(folder), device="cpu").encode_images(tiny.photos()), expected
    )


class Trap:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return (exec, ("open('trap was sprung', 'w')",))


@pytest.mark.parametrize(
    ("layout", "name"),
    [("open_clip", "open_clip_pytorch_model.bin"), ("clip", "pytorch_model.bin")],
)
def test_a_pickle_with_code_is_refused(
    models: Path, layout: str, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(models)
    next((models / layout).glob("*.safetensors")).unlink()
    torch.save({"logit_scale": Trap()}, models / layout / name)
    assert name in failure(models / layout) or "cannot load" in failure(models / layout)
    assert not (models / "trap was sprung").exists()


@pytest.mark.slow
def test_processor_saved_whole(models: Path) -> None:
    folder = models / "clip"
    expected = load_local_dir(str(folder), device="cpu")
    values = json.loads((folder / "preprocessor_config.json").read_text())
    (folder / "processor_config.json").write_text(json.dumps({"image_processor": values}))
    (folder / "preprocessor_config.json").unlink()
    assert load_local_dir(str(folder), device="cpu").fingerprint == expected.fingerprint


def test_a_folder_that_is_no_model(tmp_path: Path) -> None:
    assert "there is no folder" in failure(tmp_path / "nothing")
    assert "neither open_clip_config.json (open_clip) nor config.json (transformers)" in failure(
        tmp_path
    )


@pytest.mark.parametrize(
    ("layout", "name"),
    [
        ("open_clip", "open_clip_model.safetensors"),
        ("clip", "model.safetensors"),
        ("clip", "preprocessor_config.json"),
        ("clip", "tokenizer.json"),
    ],
)
def test_a_missing_file_is_named(models: Path, layout: str, name: str) -> None:
    (models / layout / name).unlink()
    assert f"lacks the file {models.resolve() / layout / name}" in failure(models / layout)


@pytest.mark.parametrize(
    ("layout", "name"),
    [
        ("open_clip", "open_clip_model.safetensors"),
        ("open_clip", "open_clip_config.json"),
        ("clip", "model.safetensors"),
        ("clip", "config.json"),
        ("clip", "preprocessor_config.json"),
    ],
)
@pytest.mark.parametrize("keep", [0, 100])
def test_a_cut_file_is_named(models: Path, layout: str, name: str, keep: int) -> None:
    file = models / layout / name
    file.write_bytes(file.read_bytes()[:keep])
    assert name in failure(models / layout)


@pytest.mark.slow
def test_a_cut_tokenizer_is_an_error(models: Path) -> None:
    file = models / "clip" / "tokenizer.json"
    file.write_bytes(file.read_bytes()[:1000])
    assert f"the tokenizer {file.resolve()} cannot be read (EOF" in failure(models / "clip")


@pytest.mark.parametrize("layout", ["open_clip", "clip"])
def test_weights_that_lack_a_tensor_are_refused(models: Path, layout: str) -> None:
    from safetensors.torch import load_file, save_file

    file = next((models / layout).glob("*.safetensors"))
    tensors = load_file(file)
    del tensors["text_projection" if layout == "open_clip" else "text_projection.weight"]
    save_file(tensors, file, metadata={"format": "pt"})
    assert "text_projection" in failure(models / layout)


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        ("clap", "kind 'clap', which has no vectors of pictures and texts to compare"),
        ("flava", "kind 'flava', which has no vectors of pictures and texts to compare"),
        ("llava", "kind 'llava', which has no vectors of pictures and texts to compare"),
        ("jina_clip", "kind 'jina_clip', which transformers"),
    ],
)
def test_another_kind_of_model_is_refused(models: Path, kind: str, words: str) -> None:
    file = models / "clip" / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"model_type": kind}))
    assert words in failure(models / "clip")


def test_preprocessing_that_we_do_not_do_is_refused(models: Path) -> None:
    file = models / "clip" / "preprocessor_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"do_center_crop": False}))
    assert "not cropped to a fixed size" in failure(models / "clip")


def test_a_device_or_dtype_that_is_not_there(models: Path) -> None:
    assert "unknown dtype 'int3': use auto, float32, float16, bfloat16" in failure(
        models / "clip", dtype="int3"
    )
    assert "device 'nonsense' cannot be used here" in failure(models / "clip", device="nonsense")
    if not torch.cuda.is_available():
        assert "device 'cuda' cannot be used here" in failure(models / "clip", device="cuda")
