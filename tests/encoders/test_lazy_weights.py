"""Weights that wait in their files: which tower is read when, and that every vector is that of the
model read whole.
"""

import shutil
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from vitsearch.encoders import load_local_dir
from vitsearch.errors import EncoderError

torch = pytest.importorskip("torch", reason="needs the extra vitsearch[clip]")
pytest.importorskip("open_clip", reason="needs the extra vitsearch[clip]")
pytest.importorskip("transformers", reason="needs the extra vitsearch[clip]")

from safetensors.torch import load_file, save_file  # noqa: E402

from helpers import tiny_models as tiny  # noqa: E402
from vitsearch.encoders.lazy_weights import without_weights  # noqa: E402

pytestmark = pytest.mark.slow

OPEN_CLIP = {
    "open_clip": tiny.OPEN_CLIP_CONFIG,
    "custom_text": {**tiny.OPEN_CLIP_CONFIG, "custom_text": True},
    "resnet": {
        **tiny.OPEN_CLIP_CONFIG,
        "vision_cfg": {"image_size": 32, "layers": [1, 1, 1, 1], "width": 8, "head_width": 16},
    },
    "timm": {
        **tiny.OPEN_CLIP_CONFIG,
        "custom_text": True,
        "vision_cfg": {
            "timm_model_name": "test_vit",
            "timm_pool": "",
            "timm_proj": "linear",
            "image_size": 160,
        },
    },
}
FORMATS = [(layout, "float32") for layout in (*OPEN_CLIP, "clip", "siglip", "shards", "half")]
FORMATS += [(layout, "bfloat16") for layout in ("open_clip", "resnet", "clip", "half")]
FORMATS += [(layout, "float16") for layout in ("clip", "half")]


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("models")
    nets = {kind: tiny.save_open_clip(root / kind, config) for kind, config in OPEN_CLIP.items()}
    tiny.save_clip(root / "clip", nets["open_clip"])
    tiny.save_siglip(root / "siglip").save_pretrained(
        shutil.copytree(root / "siglip", root / "shards"), max_shard_size="30KB"
    )
    (root / "shards" / "model.safetensors").unlink()
    batch_norms = weights_of(root / "resnet")  # what is counted while learning is random too
    save_file(
        {
            name: tensor + 0.5 if "running" in name else tensor
            for name, tensor in load_file(batch_norms).items()
        },
        batch_norms,
    )
    half = weights_of(shutil.copytree(root / "open_clip", root / "half"))
    save_file({name: tensor.half() for name, tensor in load_file(half).items()}, half)
    return root


def weights_of(folder: Path) -> Path:
    return next(folder.glob("*.safetensors"))


def load(folder: Path, dtype: str = "auto") -> Any:
    return load_local_dir(str(folder), device="cpu", dtype=dtype)


def load_whole(folder: Path, copy: Path, dtype: str = "auto") -> Any:
    """The same model from a file that is not safetensors, which is read whole."""
    shutil.copytree(folder, copy)
    state = {
        name: tensor
        for file in sorted(copy.glob("*.safetensors"))
        for name, tensor in load_file(file).items()
    }
    for file in [*copy.glob("*.safetensors"), *copy.glob("*.index.json")]:
        file.unlink()
    torch.save(
        state,
        copy
        / (
            "open_clip_pytorch_model.bin"
            if (copy / "open_clip_config.json").exists()
            else "pytorch_model.bin"
        ),
    )
    return load(copy, dtype)


def waiting(encoder: Any) -> set[str]:
    """The names of the weights that have not been read."""
    return {name for name, tensor in encoder.towers.model.named_parameters() if tensor.is_meta}


def weights(encoder: Any) -> set[str]:
    return {name for name, _ in encoder.towers.model.named_parameters()}


def of_images(encoder: Any) -> set[str]:
    return {name for name in weights(encoder) if name.startswith(("visual", "vision_model."))}


@pytest.mark.parametrize(("layout", "dtype"), FORMATS)
def test_each_tower_is_read_when_it_is_used_and_every_vector_is_the_same(
    models: Path, tmp_path: Path, layout: str, dtype: str
) -> None:
    lazy, whole = (
        load(models / layout, dtype),
        load_whole(models / layout, tmp_path / "whole", dtype),
    )
    images, everything = of_images(lazy), weights(lazy)
    assert (whole.towers.waiting, waiting(whole)) == (None, set())
    assert waiting(lazy) == everything - {"logit_scale", "logit_bias"}
    assert (lazy.logit_scale, lazy.logit_bias, lazy.dim) == (
        whole.logit_scale,
        whole.logit_bias,
        whole.dim,
    )
    np.testing.assert_array_equal(
        lazy.encode_texts(tiny.SENTENCES), whole.encode_texts(tiny.SENTENCES)
    )
    assert waiting(lazy) == images
    np.testing.assert_array_equal(
        lazy.encode_images(tiny.photos()), whole.encode_images(tiny.photos())
    )
    assert waiting(lazy) == set()
    for tensors in (lambda net: net.named_parameters(), lambda net: net.named_buffers()):
        mine, theirs = dict(tensors(lazy.model)), dict(tensors(whole.model))
        assert {name: (one.dtype, one.requires_grad) for name, one in mine.items()} == {
            name: (one.dtype, one.requires_grad) for name, one in theirs.items()
        }
        assert [name for name in theirs if not torch.equal(mine[name], theirs[name])] == []


@pytest.mark.parametrize("layout", ["open_clip", "clip", "siglip"])
def test_pictures_alone_leave_the_words_in_the_file(models: Path, layout: str) -> None:
    encoder = load(models / layout)
    encoder.encode_images(tiny.photos())
    assert waiting(encoder) == weights(encoder) - of_images(encoder) - {"logit_scale", "logit_bias"}


def test_nothing_encoded_reads_nothing(models: Path) -> None:
    encoder = load(models / "clip")
    before = waiting(encoder)
    assert (
        encoder.encode_texts([]).shape,
        encoder.encode_images([]).shape,
        encoder.tokenize(["a"])["input_ids"].shape[0],
    ) == (
        (0, 16),
        (0, 16),
        1,
    )
    assert waiting(encoder) == before


@pytest.mark.parametrize("layout", ["open_clip", "clip", "siglip"])
def test_what_shows_attention_is_read_and_can_be_learnt_from(models: Path, layout: str) -> None:
    encoder = load(models / layout)
    with torch.inference_mode():
        encoder.encode_images(tiny.photos())
    tower = encoder.image_tower
    pixels = encoder.normalise(np.stack([encoder.prepare(image) for image in tiny.photos()]))
    output = tower(pixels)
    output.sum().backward()
    own = encoder.encode_images(tiny.photos())
    found = torch.nn.functional.normalize(output.detach()).numpy()
    np.testing.assert_allclose(found, own, atol=1e-5)
    assert waiting(encoder) & of_images(encoder) == set()


def test_the_whole_model_can_be_had(models: Path) -> None:
    encoder = load(models / "siglip")
    assert [name for name, tensor in encoder.model.state_dict().items() if tensor.is_meta] == []


def test_many_threads_read_a_tower_once(models: Path, tmp_path: Path) -> None:
    encoder, start = load(models / "open_clip"), threading.Barrier(8)
    prepared = [encoder.prepare(image) for image in tiny.photos()]

    def encode(number: int) -> Any:
        start.wait(30)
        return (
            encoder.encode_prepared(prepared)
            if number % 2
            else encoder.encode_texts(tiny.SENTENCES)
        )

    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(encode, range(8)))
    whole = load_whole(models / "open_clip", tmp_path / "whole")
    for number, vectors in enumerate(found):
        np.testing.assert_array_equal(
            vectors,
            whole.encode_prepared(prepared) if number % 2 else whole.encode_texts(tiny.SENTENCES),
        )


@pytest.mark.parametrize("layout", ["open_clip", "clip"])
def test_a_file_changed_meanwhile_is_not_mixed_in(
    models: Path, tmp_path: Path, layout: str
) -> None:
    folder = shutil.copytree(models / layout, tmp_path / "model")
    encoder, file = load(folder), weights_of(folder)
    texts = encoder.encode_texts(tiny.SENTENCES)
    save_file(
        {name: tensor + 1 for name, tensor in load_file(file).items()},
        file,
        metadata={"format": "pt"},
    )
    for _ in range(2):
        with pytest.raises(EncoderError) as caught:
            encoder.encode_images(tiny.photos())
        assert str(caught.value) == (
            f"the weights {file.resolve()} were changed while the model was in use: open it again"
        )
    np.testing.assert_array_equal(encoder.encode_texts(tiny.SENTENCES), texts)
    file.unlink()
    with pytest.raises(EncoderError, match="cannot be read any more"):
        encoder.encode_images(tiny.photos())


def test_names_that_do_not_tell_the_towers_apart_are_read_whole(
    models: Path, tmp_path: Path
) -> None:
    folder = shutil.copytree(models / "open_clip", tmp_path / "model")
    file, expected = weights_of(folder), load(models / "open_clip").encode_texts(tiny.SENTENCES)
    save_file({f"module.{name}": tensor for name, tensor in load_file(file).items()}, file)
    encoder = load(folder)
    assert encoder.towers.waiting is None
    np.testing.assert_array_equal(encoder.encode_texts(tiny.SENTENCES), expected)


@pytest.mark.parametrize(
    ("layout", "name"),
    [
        ("clip", "text_model.embeddings.position_ids"),
        ("clip", "vision_model.embeddings.position_ids"),
    ],
)
def test_old_files_with_positions_are_read_by_tower(
    models: Path, tmp_path: Path, layout: str, name: str
) -> None:
    folder = shutil.copytree(models / layout, tmp_path / "model")
    file, expected = weights_of(folder), load(models / layout)
    save_file(load_file(file) | {name: torch.arange(77)[None]}, file, metadata={"format": "pt"})
    encoder = load(folder)
    np.testing.assert_array_equal(
        encoder.encode_texts(tiny.SENTENCES), expected.encode_texts(tiny.SENTENCES)
    )
    assert waiting(encoder) == of_images(encoder)


def test_other_threads_build_with_weights(models: Path) -> None:
    with without_weights(), ThreadPoolExecutor(1) as pool:
        there = pool.submit(torch.nn.Linear, 2, 3).result()
        here = torch.nn.Linear(2, 3)
    assert (there.weight.is_meta, here.weight.is_meta, here.weight.requires_grad) == (
        False,
        True,
        True,
    )
    assert not torch.nn.Linear(2, 3).weight.is_meta
