import hashlib
import json
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from helpers.paths import DATA, ROOT
from vitsearch.encoders import load_encoder, mini
from vitsearch.encoders.base import Encoder, fingerprint_of
from vitsearch.encoders.checkpoints import ONE_QUERY
from vitsearch.encoders.colour import ColourEncoder
from vitsearch.encoders.mini import (
    FOLDER,
    MiniEncoder,
    choose_providers,
    fingerprint_facts,
    load_mini,
    padded,
    read_config,
)
from vitsearch.encoders.onnx import usable_cores
from vitsearch.errors import EncoderError

TEXTS = [
    "a dog runs on the beach",
    "cat",
    "",
    "two people sit at a table in front of a large window and talk " * 30,
    "ünïcödé 🐕\n\t",
]


@pytest.fixture(scope="module")
def encoder() -> MiniEncoder:
    return load_mini()


def picture(width: int, height: int, seed: int = 0) -> Image.Image:
    coarse = np.random.default_rng(seed).integers(
        0, 256, (min(height, 12), min(width, 12), 3), dtype=np.uint8
    )
    return Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)


@pytest.mark.slow
def test_a_stored_vector_does_not_depend_on_its_batch() -> None:
    throughput = load_encoder("mini", throughput=True)
    pictures = [throughput.prepare(picture(300, 200, seed)) for seed in range(5)]
    together = throughput.encode_prepared(pictures)
    for size in (1, 2, 3, 4):
        parts = [
            throughput.encode_prepared(pictures[start : start + size])
            for start in range(0, 5, size)
        ]
        assert np.concatenate(parts).tobytes() == together.tobytes()


def test_contract(encoder: MiniEncoder) -> None:
    assert isinstance(encoder, Encoder)
    assert (encoder.name, encoder.dim, encoder.logit_bias) == ("mini", 640, None)
    assert 1 < encoder.logit_scale <= 100
    assert (
        encoder.fingerprint
        == load_mini().fingerprint
        == fingerprint_of(fingerprint_facts(read_config()))
    )


def test_none_in_none_out(encoder: MiniEncoder) -> None:
    for rows in (encoder.encode_images([]), encoder.encode_texts([]), encoder.encode_prepared([])):
        assert rows.shape == (0, 640)
        assert rows.dtype == np.float32


def test_stored_hash_is_the_files() -> None:
    digest = hashlib.sha256((FOLDER / "mini.safetensors").read_bytes()).hexdigest()
    assert read_config()["weights_sha256"] == digest


def test_fingerprint_follows_the_weights() -> None:
    other = read_config() | {"weights_sha256": "0" * 64}
    assert fingerprint_of(fingerprint_facts(other)) != fingerprint_of(
        fingerprint_facts(read_config())
    )


def test_everything_fits_in_45_megabytes() -> None:
    assert sum(path.stat().st_size for path in FOLDER.iterdir() if path.is_file()) <= 45_000_000


def test_graphs_hold_no_weights_of_their_own() -> None:
    assert max((FOLDER / f"{tower}.onnx").stat().st_size for tower in ("image", "text")) < 400_000


@pytest.mark.parametrize("size", [(1, 1), (4000, 2), (2, 4000), (260, 260), (33, 517), (1200, 800)])
def test_any_size_gives_a_unit_vector(encoder: MiniEncoder, size: tuple[int, int]) -> None:
    prepared = encoder.prepare(picture(*size))
    assert prepared.shape == (260, 260, 3)
    assert prepared.dtype == np.uint8
    rows = encoder.encode_prepared([prepared])
    np.testing.assert_allclose(np.linalg.norm(rows, axis=1), 1, atol=1e-5)
    np.testing.assert_array_equal(rows, encoder.encode_images([picture(*size)]))


def test_prepare_takes_the_middle_square(encoder: MiniEncoder) -> None:
    wide = picture(600, 300)
    np.testing.assert_array_equal(
        encoder.prepare(wide), encoder.prepare(wide.crop((150, 0, 450, 300)))
    )


def test_prepare_takes_a_grey_picture_as_rgb(encoder: MiniEncoder) -> None:
    grey = picture(300, 300).convert("L")
    np.testing.assert_array_equal(encoder.prepare(grey), encoder.prepare(grey.convert("RGB")))


@pytest.mark.slow
def test_supervised_head_gives_the_logits_of_the_torch_form(encoder: MiniEncoder) -> None:
    torch = pytest.importorskip("torch")
    from vitsearch.encoders.mini.network import MiniConfig, load_network

    images = [picture(300, 260, seed=i) for i in range(18)]
    network = load_network(FOLDER / "mini.safetensors", MiniConfig(**read_config()["network"]))
    with torch.no_grad():
        expected = network.encode_and_classify(
            torch.from_numpy(np.stack([encoder.prepare(image) for image in images]))
        )[1].numpy()
    logits = encoder.class_logits(images)
    assert (logits.shape, logits.dtype) == ((18, 1000), np.float32)
    np.testing.assert_allclose(logits, expected, atol=1e-3)
    np.testing.assert_allclose(
        np.concatenate([encoder.class_logits([image]) for image in images]), logits, atol=1e-4
    )
    assert encoder.class_logits([]).shape == (0, 1000)


def test_class_names_are_those_of_imagenet(encoder: MiniEncoder) -> None:
    assert len(encoder.class_names) == 1000
    assert [encoder.class_names[place] for place in (0, 217, 497, 574)] == [
        "tench",
        "English springer",
        "church",
        "golf ball",
    ]
    assert {name for name in encoder.class_names if encoder.class_names.count(name) > 1} == {
        "crane",
        "maillot",
    }


@pytest.mark.slow
@pytest.mark.parametrize("threads", [1, 3])
def test_vectors_do_not_depend_on_the_number_of_threads(encoder: MiniEncoder, threads: int) -> None:
    other = load_mini(threads=threads)
    images = [picture(300 + 7 * i, 280, seed=i) for i in range(3)]
    np.testing.assert_allclose(
        other.encode_images(images), encoder.encode_images(images), atol=1e-5
    )
    np.testing.assert_allclose(other.encode_texts(TEXTS), encoder.encode_texts(TEXTS), atol=1e-5)


@pytest.mark.slow
def test_an_encoder_for_many_pictures_gives_the_same_vectors_from_all_its_callers(
    encoder: MiniEncoder,
) -> None:
    throughput = load_encoder("mini", throughput=True)
    callers, size = throughput.parallel_calls, throughput.pictures_per_call
    assert (callers, size) == (usable_cores(), 4 if usable_cores() > 1 else None)
    assert (encoder.parallel_calls, encoder.pictures_per_call) == (1, None)
    batches = [
        [encoder.prepare(picture(300 + 7 * i + j, 280, seed=i)) for j in range(1 + i % 4)]
        for i in range(9)
    ]
    with ThreadPoolExecutor(max(3, callers)) as pool:
        rows = list(pool.map(throughput.encode_prepared, batches))
    for batch, found in zip(batches, rows, strict=True):
        np.testing.assert_allclose(found, encoder.encode_prepared(batch), atol=1e-5)


@pytest.mark.slow
def test_a_released_image_tower_opens_again(encoder: MiniEncoder) -> None:
    fresh, image = load_mini(), picture(300, 280, seed=1)
    before = fresh.encode_images([image])
    fresh.free_image_tower()
    np.testing.assert_array_equal(fresh.encode_images([image]), before)
    ColourEncoder().free_image_tower()  # has nothing to give back


@pytest.mark.slow
def test_image_does_not_depend_on_its_neighbours(encoder: MiniEncoder) -> None:
    images = [picture(300 + 7 * i, 280, seed=i) for i in range(18)]
    alone = np.concatenate([encoder.encode_images([image]) for image in images])
    np.testing.assert_allclose(encoder.encode_images(images), alone, atol=1e-5)


@pytest.mark.slow
def test_text_does_not_depend_on_its_neighbours(encoder: MiniEncoder) -> None:
    alone = np.concatenate([encoder.encode_texts([text]) for text in TEXTS])
    np.testing.assert_allclose(encoder.encode_texts(TEXTS), alone, atol=1e-5)
    np.testing.assert_allclose(
        encoder.encode_texts(TEXTS * 20), np.concatenate([alone] * 20), atol=1e-5
    )


def test_text_beyond_the_context_is_cut(encoder: MiniEncoder) -> None:
    np.testing.assert_array_equal(
        encoder.encode_texts(["dog " * 200]), encoder.encode_texts(["dog " * 5000])
    )


@pytest.mark.slow
def test_weights_unpacked_once_or_in_each_run_give_the_same_vectors(encoder: MiniEncoder) -> None:
    token = ONE_QUERY.set(True)
    try:
        once = load_mini().encode_texts(TEXTS)
    finally:
        ONE_QUERY.reset(token)
    assert np.abs(encoder.encode_texts(TEXTS) - once).max() < 1e-6


def test_same_input_same_vector_also_from_threads() -> None:
    fresh = load_mini()
    with ThreadPoolExecutor(4) as pool:
        texts = list(pool.map(lambda _: fresh.encode_texts(TEXTS[:2]), range(8)))
        images = list(pool.map(lambda _: fresh.encode_images([picture(300, 300)]), range(4)))
    for rows in texts:
        np.testing.assert_array_equal(rows, texts[0])
    for rows in images:
        np.testing.assert_array_equal(rows, images[0])


@pytest.mark.slow
def test_both_towers_may_be_opened_at_once(encoder: MiniEncoder) -> None:
    fresh, image = load_mini(), Image.new("RGB", (40, 30), "teal")
    with ThreadPoolExecutor(4) as pool:
        asked = [
            pool.submit(fresh.encode_texts, ["a teal wall"]),
            pool.submit(fresh.encode_images, [image]),
        ] * 2
        texts, images = asked[0].result(), asked[1].result()
    np.testing.assert_array_equal(images, encoder.encode_images([image]))
    np.testing.assert_array_equal(texts, encoder.encode_texts(["a teal wall"]))


def test_padding_is_masked() -> None:
    rows = padded([[5, 6, 7], [8]])
    assert rows["ids"].tolist() == [[5, 6, 7], [8, 0, 0]]
    assert rows["mask"].tolist() == [[1, 1, 1], [1, 0, 0]]


@pytest.mark.slow
def test_words_search_loads_neither_torch_nor_the_image_tower() -> None:
    code = (
        "import sys\nfrom vitsearch.encoders.mini import load_mini\ne = "
        "load_mini()\ne.encode_texts(['a dog'])\n"
        "print(sorted(name for name, _ in e._sessions), "
        "[m for m in ('torch', 'transformers', 'faiss') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "['text'] []"


def test_refusals() -> None:
    with pytest.raises(EncoderError, match=r"^mini computes in float32, not 'float16'"):
        load_mini(dtype="float16")
    with pytest.raises(EncoderError, match=r"^mini cannot run on 'mps'"):
        choose_providers("mps")


def test_missing_file_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "config.json").write_text(json.dumps(read_config()))
    monkeypatch.setattr(mini, "FOLDER", tmp_path)
    with pytest.raises(
        EncoderError, match=r"^mini: .*mini\.safetensors is missing: install vitsearch again$"
    ):
        load_mini()


def test_damaged_config_is_named(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(EncoderError, match=r"^mini: .*config\.json cannot be read"):
        read_config(tmp_path)


@pytest.mark.slow
def test_torch_form_gives_the_same_vectors(encoder: MiniEncoder) -> None:
    torch = pytest.importorskip("torch")
    from vitsearch.encoders.mini.network import MiniConfig, load_network

    network = load_network(FOLDER / "mini.safetensors", MiniConfig(**read_config()["network"]))
    images = [encoder.prepare(picture(300, 260, seed=i)) for i in range(3)]
    rows = padded([[101, 1037, 3899, 102], [101, 4937, 102]])
    with torch.no_grad():
        seen = network.encode_and_classify(torch.from_numpy(np.stack(images)))[0].numpy()
        read = network.encode_texts(
            torch.from_numpy(rows["ids"]), torch.from_numpy(rows["mask"])
        ).numpy()
    np.testing.assert_allclose(encoder.encode_prepared(images), seen, atol=1e-4)
    np.testing.assert_allclose(encoder.encode_texts(["a dog", "cat"]), read, atol=1e-4)


@pytest.mark.skipif(
    not (DATA / "flickr8k-dev.tar").exists(), reason="the Flickr8k dev set is not here"
)
@pytest.mark.slow
def test_flickr8k_floor(encoder: MiniEncoder) -> None:
    """Among 100 photos; the benchmark runs on all 1,000, which takes ten times as long."""
    text_to_image, image_to_text = load_benchmark().flickr8k(encoder, DATA, every=10)
    assert text_to_image[5] >= 0.88
    assert image_to_text[5] >= 0.89


@pytest.mark.skipif(
    not (DATA / "imagenette-dev.tar").exists(), reason="the imagenette dev set is not here"
)
@pytest.mark.slow
def test_imagenette_floor(encoder: MiniEncoder) -> None:
    assert load_benchmark().imagenette(encoder, DATA, every=10) >= 0.93
    assert load_benchmark().supervised(encoder, DATA, every=10) >= 0.97


def load_benchmark():  # type: ignore[no-untyped-def]
    import importlib.util

    path = ROOT / "benchmarks" / "evaluate.py"
    spec = importlib.util.spec_from_file_location("evaluate", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
