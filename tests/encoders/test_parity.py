"""The adapters against the libraries whose models they run, and against each other, with random
weights and no network.
"""

import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from helpers.tiny_models import siglip_like

torch = pytest.importorskip("torch", reason="needs the extra vitsearch[clip]")
open_clip = pytest.importorskip("open_clip", reason="needs the extra vitsearch[clip]")
transformers = pytest.importorskip("transformers", reason="needs the extra vitsearch[clip]")

from helpers import tiny_models as tiny  # noqa: E402
from vitsearch.encoders import load_encoder, load_local_dir  # noqa: E402
from vitsearch.encoders.open_clip import load_open_clip  # noqa: E402
from vitsearch.encoders.torch_encoder import TorchEncoder  # noqa: E402

pytestmark = pytest.mark.slow

BPE_GOLDEN = {
    "a photo of a cat": [320, 1125, 539, 320, 2368],
    "a photo of a dog": [320, 1125, 539, 320, 1929],
    "a diagram": [320, 22697],
    "hello world!": [3306, 1002, 256],
    "Two  dogs\tin the snow": [1237, 3255, 530, 518, 2583],
    "": [],
    "una foto de un gato en la montaña": [
        6385,
        12823,
        654,
        2271,
        44492,
        576,
        1210,
        749,
        648,
        17753,
    ],
    "日本語の猫": [39121, 44353, 34002, 252, 21575, 163, 234, 360],
    "a photo of a 🐶": [320, 1125, 539, 320, 10631],
    "xa\u0303y x\xe3y": [87, 19339, 344, 87, 19339, 344],
    "&lt;b&gt;bold&amp;": [283, 321, 285, 8911, 261],
}
# fmt: off
BPE_GOLDEN["it's 11p223RF☆ho!!to?'d'd''d of a cat to-$''d."] = [
    585, 568, 272, 272, 335, 273, 273, 274, 16368, 13439, 2971, 748,
    531, 13610, 323, 1896, 8445, 323, 539, 320, 2368, 531, 12, 3,
    8445, 323, 269,
]
# fmt: on


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
    """The same random CLIP as open_clip and as transformers save it, and a random SigLIP."""
    root = tmp_path_factory.mktemp("models")
    theirs = tiny.save_open_clip(root / "open_clip")
    tiny.save_clip(root / "clip", theirs)
    tiny.save_siglip(root / "siglip")
    return {name: root / name for name in ("open_clip", "clip", "siglip")}


def load(folder: Path, **options: str) -> TorchEncoder:
    return load_local_dir(str(folder), device="cpu", **options)


def assert_close(actual: Any, expected: Any, tolerance: float = 1e-5) -> None:
    np.testing.assert_allclose(np.asarray(actual), np.asarray(expected), rtol=0, atol=tolerance)


def test_open_clip_and_transformers_give_equal_vectors_for_equal_weights(
    folders: dict[str, Path],
) -> None:
    one, other = load(folders["open_clip"]), load(folders["clip"])
    assert_close(one.encode_images(tiny.photos()), other.encode_images(tiny.photos()))
    assert_close(one.encode_texts(tiny.SENTENCES), other.encode_texts(tiny.SENTENCES))
    assert (one.dim, one.logit_bias) == (other.dim, other.logit_bias) == (16, None)
    assert one.logit_scale == pytest.approx(1 / 0.07, rel=1e-6)
    assert other.logit_scale == pytest.approx(1 / 0.07, rel=1e-6)


@pytest.mark.slow
def test_many_threads_encode_at_once(folders: dict[str, Path]) -> None:
    """Tokenizers and weights that wait are shared by the threads."""
    batches = [[" ".join(tiny.SENTENCES[0].split()[:length])] * 2 for length in range(1, 5)] * 8
    for name in folders:
        expected = [load(folders[name]).encode_texts(batch) for batch in batches[:4]] * 8
        encoder = load(folders[name])
        with ThreadPoolExecutor(16) as threads:
            pictures = [threads.submit(encoder.encode_images, tiny.photos()) for _ in range(8)]
            for actual, rows in zip(
                threads.map(encoder.encode_texts, batches), expected, strict=True
            ):
                np.testing.assert_array_equal(actual, rows)
            for rows in pictures[1:]:
                np.testing.assert_array_equal(rows.result(), pictures[0].result())


def test_vectors_tell_pictures_and_texts_apart(folders: dict[str, Path]) -> None:
    """Parity of constant vectors would prove nothing."""
    for name in folders:
        encoder = load(folders[name])
        for rows in (encoder.encode_images(tiny.photos()), encoder.encode_texts(tiny.SENTENCES)):
            assert rows.dtype == np.float32
            np.testing.assert_allclose(np.linalg.norm(rows, axis=1), 1, atol=1e-6)
            cosines = rows @ rows.T - np.eye(len(rows))
            assert cosines.max() < 0.99, name


def test_the_open_clip_adapter_gives_open_clip_s_own_vectors(folders: dict[str, Path]) -> None:
    encoder = load(folders["open_clip"])
    name = f"local-dir:{folders['open_clip']}"
    model, _, transform = open_clip.create_model_and_transforms(name)
    tokens = open_clip.get_tokenizer(name)(tiny.SENTENCES)
    with torch.no_grad():
        images = model.eval().encode_image(
            torch.stack([transform(photo) for photo in tiny.photos()]), normalize=True
        )
        texts = model.encode_text(tokens, normalize=True)
    assert_close(encoder.encode_images(tiny.photos()), images)
    assert_close(encoder.encode_texts(tiny.SENTENCES), texts)


def test_the_clip_adapter_gives_transformers_own_logits(folders: dict[str, Path]) -> None:
    encoder = load(folders["clip"])
    model = transformers.CLIPModel.from_pretrained(folders["clip"]).eval()
    pixels = transformers.CLIPImageProcessorPil.from_pretrained(folders["clip"])(
        tiny.photos(), return_tensors="pt"
    )["pixel_values"]
    words = tiny.clip_tokenizer()(tiny.SENTENCES, padding=True, return_tensors="pt")
    with torch.no_grad():
        logits = model(pixel_values=pixels, **words).logits_per_image
    ours = (
        encoder.logit_scale
        * encoder.encode_images(tiny.photos())
        @ encoder.encode_texts(tiny.SENTENCES).T
    )
    assert_close(ours, logits, 1e-4)


def test_the_siglip_adapter_gives_transformers_own_sigmoid_scores(folders: dict[str, Path]) -> None:
    encoder = load(folders["siglip"])
    model = transformers.SiglipModel.from_pretrained(folders["siglip"]).eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(folders["siglip"])
    words = tokenizer(tiny.SENTENCES, padding="max_length", max_length=16, return_tensors="pt")[
        "input_ids"
    ]
    pixels = encoder.normalise(np.stack([encoder.prepare(photo) for photo in tiny.photos()]))
    with torch.no_grad():
        probabilities = torch.sigmoid(model(pixel_values=pixels, input_ids=words).logits_per_image)
    assert encoder.logit_bias == pytest.approx(-3.5)
    cosines = encoder.encode_images(tiny.photos()) @ encoder.encode_texts(tiny.SENTENCES).T
    ours = 1 / (1 + np.exp(-(encoder.logit_scale * cosines + encoder.logit_bias)))
    assert_close(ours, probabilities)


def test_siglip_pictures_are_one_level_from_transformers_own(folders: dict[str, Path]) -> None:
    encoder = load(folders["siglip"])
    theirs = transformers.SiglipImageProcessor.from_pretrained(folders["siglip"])(
        tiny.photos()[:4], return_tensors="np"
    )["pixel_values"]
    ours = encoder.normalise(np.stack([encoder.prepare(photo) for photo in tiny.photos()[:4]]))
    assert_close(ours, theirs, 1.001 / 255 / 0.5)


def test_siglip_text_is_lower_cased_and_padded_to_its_full_length(folders: dict[str, Path]) -> None:
    encoder = load(folders["siglip"])
    tokens = encoder.tokenize(["A Photo of a CAT", "a photo of a cat", ""])
    assert set(tokens) == {"input_ids"}
    ids = tokens["input_ids"].tolist()
    assert [len(row) for row in ids] == [16, 16, 16]
    assert ids[0] == ids[1]
    assert ids[2] == [1] + [0] * 15
    long = encoder.tokenize(["a photo of a cat " * 9])["input_ids"].tolist()[0]
    assert (len(long), long[-1]) == (16, 1)


def test_the_first_siglip_s_own_tokenizer(folders: dict[str, Path], tmp_path: Path) -> None:
    """SigLIP 1 brings a SentencePiece file; its authors drop punctuation as well."""
    sentencepiece = pytest.importorskip(
        "sentencepiece", reason="SigLIP 1 tokenizers need the package sentencepiece"
    )
    tiny.save_siglip(tmp_path)
    for file in tmp_path.glob("*token*"):
        file.unlink()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(tiny.SENTENCES[:5] * 20),
        model_prefix=str(tmp_path / "spiece"),
        vocab_size=60,
        hard_vocab_limit=False,
        pad_id=0,
        eos_id=1,
        unk_id=2,
        bos_id=-1,
        minloglevel=2,
    )
    authors = transformers.SiglipTokenizer(str(tmp_path / "spiece.model"), model_max_length=16)
    authors.save_pretrained(tmp_path)
    expected = authors(
        ["A photo of a CAT!", "Two, red chairs."],
        padding="max_length",
        max_length=16,
        return_tensors="pt",
    )["input_ids"]
    encoder = load(tmp_path)
    assert (
        encoder.tokenize(["A photo of a CAT!", "Two, red chairs."])["input_ids"].tolist()
        == expected.tolist()
    )
    assert encoder.tokenize(["a  photo of a cat"])["input_ids"].tolist()[0] == expected.tolist()[0]


def test_an_open_clip_siglip_lower_cases_pads_and_has_a_bias(tmp_path: Path) -> None:
    tiny.save_open_clip(tmp_path, siglip_like())
    tiny.tiny_tokenizer(16).save_pretrained(tmp_path)
    encoder = load(tmp_path)
    assert encoder.logit_bias == -10
    ids = encoder.tokenize(["A Photo, of a CAT!", "a photo of a cat"])["input_ids"].tolist()
    assert ids[0] == ids[1]
    assert [len(row) for row in ids] == [16, 16]
    assert_close(encoder.encode_texts(["A CAT."]), encoder.encode_texts(["a cat"]), 0)


def test_clip_byte_pairs_of_open_clip(folders: dict[str, Path]) -> None:
    ids = load(folders["open_clip"]).tokenize(list(BPE_GOLDEN))["input_ids"].tolist()
    width = max(map(len, BPE_GOLDEN.values())) + 2
    for text, row in zip(BPE_GOLDEN, ids, strict=True):
        wanted = [49406, *BPE_GOLDEN[text], 49407]
        assert row == wanted + [0] * (width - len(wanted)), text


@pytest.mark.parametrize("runtime", ["torch", "onnx"])
@pytest.mark.parametrize("custom", [False, True])
def test_padding_is_not_computed_where_nothing_reads_it(
    tmp_path: Path, custom: bool, runtime: str
) -> None:
    theirs = tiny.save_open_clip(tmp_path, {**tiny.OPEN_CLIP_CONFIG, "custom_text": custom}).eval()
    encoder = load_encoder(f"local-dir:{tmp_path}", "cpu", runtime=runtime)
    texts = ["two", "", "a photo of a cat", "<end_of_text> a dog", "a long text about dogs " * 40]
    with torch.no_grad():
        expected = theirs.encode_text(open_clip.tokenize(texts), normalize=True)
    assert_close(encoder.encode_texts(texts), expected)
    assert encoder.tokenize(texts)["input_ids"].shape == (5, 77)
    for text, row in zip(texts[:3], expected, strict=False):
        assert encoder.tokenize([text])["input_ids"].shape == (1, len(text.split()) + 2)
        assert_close(encoder.encode_texts([text])[0], row)
    assert encoder.encode_texts([]).shape == (0, encoder.dim)


@pytest.mark.parametrize(
    "reads",
    [{"no_causal_mask": True}, {"pool_type": "last"}, {"embed_cls": True}],
    ids=lambda reads: next(iter(reads)),
)
def test_padding_is_computed_where_it_is_read(tmp_path: Path, reads: dict[str, Any]) -> None:
    config = {**tiny.OPEN_CLIP_CONFIG, "custom_text": True}
    config["text_cfg"] = {**config["text_cfg"], **reads}
    theirs = tiny.save_open_clip(tmp_path, config).eval()
    encoder = load(tmp_path)
    with torch.no_grad():
        expected = theirs.encode_text(open_clip.tokenize(["two"]), normalize=True)
    assert_close(encoder.encode_texts(["two"]), expected)
    assert encoder.tokenize(["two"])["input_ids"].shape == (1, 77)


def test_clip_byte_pairs_of_transformers(folders: dict[str, Path]) -> None:
    encoder = load(folders["clip"])
    for text, golden in BPE_GOLDEN.items():
        if "&" not in text:  # transformers leaves HTML as it is
            assert encoder.tokenize([text])["input_ids"].tolist() == [[49406, *golden, 49407]], text


def test_a_long_text_is_cut_and_keeps_its_end_mark(folders: dict[str, Path]) -> None:
    for name in ("open_clip", "clip"):
        ids = load(folders[name]).tokenize(["a cat " * 99])["input_ids"].tolist()[0]
        assert (len(ids), ids[-1]) == (77, 49407)


def test_an_architecture_and_tag_takes_the_tag_s_activation_and_preprocessing(
    folders: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A tiny architecture and tag are added to open_clip's own lists, its weights to a Hugging Face
    cache; no network is asked.
    """
    config = {**tiny.OPEN_CLIP_CONFIG, "quick_gelu": False}
    monkeypatch.setitem(open_clip.factory._MODEL_CONFIGS, "Tiny-8", config)
    tag = {
        "hf_hub": "acme/tiny/",
        "quick_gelu": True,
        "mean": (0.5, 0.5, 0.5),
        "std": (0.25, 0.25, 0.25),
    }
    tag |= {"interpolation": "bilinear", "resize_mode": "squash"}
    monkeypatch.setitem(open_clip.pretrained._PRETRAINED, "Tiny-8", {"seed_5": tag})
    snapshot = tmp_path / "models--acme--tiny" / "snapshots" / "abc"
    snapshot.mkdir(parents=True)
    (tmp_path / "models--acme--tiny" / "refs").mkdir()
    (tmp_path / "models--acme--tiny" / "refs" / "main").write_text("abc")
    os.link(
        folders["open_clip"] / "open_clip_model.safetensors",
        snapshot / "open_clip_model.safetensors",
    )
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))

    encoder = load_open_clip("Tiny-8/seed-5", device="cpu")
    assert encoder.name == "open_clip:Tiny-8/seed_5"
    assert (
        encoder.preprocess.resize_mode,
        encoder.preprocess.interpolation,
        encoder.preprocess.mean,
    ) == ("squash", "bilinear", (0.5,) * 3)
    quick = load(folders["open_clip"])
    assert_close(encoder.encode_texts(tiny.SENTENCES), quick.encode_texts(tiny.SENTENCES))
    assert encoder.fingerprint == load_open_clip("Tiny-8/seed_5", device="cpu").fingerprint


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_half_precision_stays_close_and_has_its_own_fingerprint(
    folders: dict[str, Path], dtype: str
) -> None:
    for folder in folders.values():
        full, half = load(folder, dtype="float32"), load(folder, dtype=dtype)
        for rows, others in (
            (full.encode_images(tiny.photos()), half.encode_images(tiny.photos())),
            (full.encode_texts(tiny.SENTENCES), half.encode_texts(tiny.SENTENCES)),
        ):
            assert (rows * others).sum(axis=1).min() > (0.999 if dtype == "float16" else 0.99)
            np.testing.assert_allclose(np.linalg.norm(others, axis=1), 1, atol=1e-6)
        assert full.fingerprint != half.fingerprint


def test_batches_of_any_size_give_the_same_rows(folders: dict[str, Path]) -> None:
    encoder = load(folders["clip"])
    many = tiny.photos() * 8
    assert_close(
        encoder.encode_images(many),
        np.concatenate([encoder.encode_images([photo]) for photo in many]),
        1e-6,
    )
    assert_close(
        encoder.encode_prepared([encoder.prepare(photo) for photo in many]),
        encoder.encode_images(many),
        1e-6,
    )
    assert (
        encoder.encode_images([]).shape
        == encoder.encode_texts([]).shape
        == encoder.encode_prepared([]).shape
        == (0, 16)
    )


def test_an_overflow_is_an_error_and_not_a_vector(folders: dict[str, Path]) -> None:
    from vitsearch.errors import EncoderError

    encoder = load(folders["clip"])
    with torch.no_grad():
        encoder.model.visual_projection.weight.fill_(float("inf"))
    with pytest.raises(EncoderError, match="overflows in float32"):
        encoder.encode_images(tiny.photos())


WEIGHTS = os.environ.get("VITSEARCH_TEST_WEIGHTS")
needs_weights = pytest.mark.skipif(
    not WEIGHTS,
    reason="set VITSEARCH_TEST_WEIGHTS to a folder with the published models and cats.jpg",
)
PUBLISHED = {
    "clip-vit-base-patch32": (["a photo of a cat", "a photo of a dog"], [24.5701, 19.3049]),
    "siglip-base-patch16-224": (["a photo of 2 cats", "a photo of 2 dogs"], [-0.7567, -10.3354]),
}


@needs_weights
@pytest.mark.parametrize("model", PUBLISHED)
def test_published_logits_of_two_cats(model: str) -> None:
    """COCO 000000039769 as ``cats.jpg`` beside folders with transformers' files; a processor's
    one-level difference is allowed for.
    """
    from PIL import Image

    folder = Path(WEIGHTS or "") / model
    if not folder.is_dir():
        pytest.skip(f"no folder {model} in VITSEARCH_TEST_WEIGHTS")
    texts, logits = PUBLISHED[model]
    encoder = load(folder)
    cosines = (
        encoder.encode_images([Image.open(folder.parent / "cats.jpg").convert("RGB")])
        @ encoder.encode_texts(texts).T
    )
    assert_close(encoder.logit_scale * cosines[0] + (encoder.logit_bias or 0), logits, 0.05)


@needs_weights
def test_the_published_diagram_is_a_diagram() -> None:
    """open_clip's ViT-B-32/laion2b_s34b_b79k as a folder, and CLIP.png of the CLIP repository."""
    from PIL import Image

    folder = Path(WEIGHTS or "") / "CLIP-ViT-B-32-laion2B-s34B-b79K"
    if not folder.is_dir():
        pytest.skip(f"no folder {folder.name} in VITSEARCH_TEST_WEIGHTS")
    encoder = load(folder)
    texts = encoder.encode_texts(["a diagram", "a dog", "a cat"])
    logits = (
        encoder.logit_scale
        * encoder.encode_images([Image.open(folder.parent / "CLIP.png").convert("RGB")])
        @ texts.T
    )
    assert_close(
        np.exp(logits - logits.max()) / np.exp(logits - logits.max()).sum(), [[1, 0, 0]], 1e-3
    )
