"""Exported models on ONNX Runtime against the same models on PyTorch, and the exports themselves:
random weights, no network.
"""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

torch = pytest.importorskip("torch", reason="needs the extra vitsearch[clip]")
open_clip = pytest.importorskip("open_clip", reason="needs the extra vitsearch[clip]")
transformers = pytest.importorskip("transformers", reason="needs the extra vitsearch[clip]")
pytest.importorskip("onnxscript", reason="needs the extra vitsearch[clip]")
onnx = pytest.importorskip("onnx", reason="needs the extra vitsearch[clip]")
ir = pytest.importorskip("onnx_ir", reason="needs the extra vitsearch[clip]")

from helpers import tiny_models as tiny  # noqa: E402
from helpers.cli import environment, vitsearch  # noqa: E402
from helpers.photos import paint  # noqa: E402
from vitsearch import Collection, index_folder  # noqa: E402
from vitsearch.encoders import load_encoder, onnx_export, prepare_model  # noqa: E402
from vitsearch.encoders import onnx_cache as exports  # noqa: E402
from vitsearch.encoders.base import EncoderIdentity  # noqa: E402
from vitsearch.encoders.checkpoints import ONE_QUERY  # noqa: E402
from vitsearch.encoders.language import readable  # noqa: E402
from vitsearch.encoders.onnx import IMAGE, TEXT, OnnxEncoder, usable_cores  # noqa: E402
from vitsearch.encoders.onnx_cache import OnnxExport  # noqa: E402
from vitsearch.encoders.open_clip_text import portable_open_clip  # noqa: E402
from vitsearch.encoders.tokenizer import PortableTokenizer, TextReader, rules_from  # noqa: E402
from vitsearch.encoders.torch_encoder import TorchEncoder  # noqa: E402
from vitsearch.errors import EncoderError  # noqa: E402
from vitsearch.explain import explain  # noqa: E402

pytestmark = pytest.mark.slow

LAYOUTS = ("open_clip", "clip", "siglip")
ODD_TEXTS = [
    *tiny.SENTENCES,
    "a long text about 7 dogs " * 40,
    "It's A&amp;B, isn't it?! \U0001f415 \udcff \u201cx\u201d",
    "日本語の猫  и\tсобака",
    "<start_of_text> !<end_of_text> </s>",
]


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random CLIP in each layout, and a random SigLIP, which nothing changes."""
    root = tmp_path_factory.mktemp("models")
    net = tiny.save_open_clip(root / "open_clip", tiny.SHALLOW_CONFIG)
    tiny.save_clip(root / "clip", net)
    tiny.save_siglip(root / "siglip", layers=1)
    return root


@pytest.fixture(scope="module", autouse=True)
def cache_dir(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A home where the exports of this module are shared."""
    with pytest.MonkeyPatch.context() as patch:
        folder = tmp_path_factory.mktemp("home")
        patch.setenv("VITSEARCH_HOME", str(folder))
        yield folder


@pytest.fixture(scope="module", autouse=True)
def first_use(cache_dir: Path, models: Path) -> tuple[type, list[Path], OnnxExport]:
    """The encoder of the open_clip folder before it has an export, the files that came of that, and
    what was said when the export was made.
    """
    before = type(load_encoder(name_of(models, "open_clip"), "cpu"))
    files = sorted(cache_dir.glob("onnx/*"))
    return before, files, prepare_model(name_of(models, "open_clip"))


@pytest.fixture
def own_home(
    cache_dir: Path, models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Path:
    """A home of this test's own with the export of the open_clip folder, and that
    export's folder.
    """
    made = Path(prepare_model(name_of(models, "open_clip")).folder)
    folder = tmp_path / "home" / "onnx" / made.name
    shutil.copytree(made, folder)
    monkeypatch.setenv("VITSEARCH_HOME", str(tmp_path / "home"))
    return folder


def name_of(models: Path, layout: str) -> str:
    return f"local-dir:{models / layout}"


def in_torch(models: Path, layout: str) -> TorchEncoder:
    encoder = load_encoder(name_of(models, layout), "cpu", runtime="torch")
    assert isinstance(encoder, TorchEncoder)
    return encoder


def in_onnx(models: Path, layout: str, dtype: str = "float32") -> OnnxEncoder:
    encoder = load_encoder(name_of(models, layout), "cpu", dtype, runtime="onnx")
    assert isinstance(encoder, OnnxEncoder)
    return encoder


def test_a_model_that_answers_one_query_uses_its_weights_as_they_lie_in_the_file(
    models: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[str] = []

    class Session(onnxruntime.InferenceSession):  # type: ignore[misc]
        def __init__(self, file: str, options: Any, **others: Any) -> None:
            opened.append(options.get_session_config_entry("session.disable_prepacking"))
            super().__init__(file, options, **others)

    usual = in_onnx(models, "open_clip").encode_texts(ODD_TEXTS)
    monkeypatch.setattr(onnxruntime, "InferenceSession", Session)
    token = ONE_QUERY.set(True)
    try:
        once = in_onnx(models, "open_clip").encode_texts(ODD_TEXTS)
    finally:
        ONE_QUERY.reset(token)
    assert opened == ["1"]
    assert np.abs(usual - once).max() < 1e-5


def assert_close(actual: Any, expected: Any, tolerance: float = 1e-5) -> None:
    np.testing.assert_allclose(actual, expected, rtol=0, atol=tolerance)


def python(code: str, *arguments: str) -> str:
    """What a new Python prints."""
    command = [sys.executable, "-c", code, *arguments]
    return subprocess.run(
        command, check=True, capture_output=True, text=True, env=environment(), timeout=120
    ).stdout.strip()


# -- the same vectors ------------------------------------------------------------------------------


@pytest.mark.parametrize("layout", LAYOUTS)
def test_float32_is_the_same_encoder_as_on_torch(models: Path, layout: str) -> None:
    one, other = in_torch(models, layout), in_onnx(models, layout)
    assert_close(other.encode_images(tiny.photos()), one.encode_images(tiny.photos()))
    assert_close(other.encode_texts(ODD_TEXTS), one.encode_texts(ODD_TEXTS))
    facts = (
        "name",
        "dim",
        "logit_scale",
        "logit_bias",
        "fingerprint",
        "dtype",
        "device",
        "preprocess",
        "decode_at_least",
    )
    assert [getattr(other, fact) for fact in facts] == [getattr(one, fact) for fact in facts]
    np.testing.assert_array_equal(other.prepare(tiny.photos()[3]), one.prepare(tiny.photos()[3]))
    assert other.seen_region(tiny.photos()[3]) == one.seen_region(tiny.photos()[3])
    EncoderIdentity.of(one).check_golden(other)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_the_tokens_are_the_same(models: Path, layout: str) -> None:
    one, other = (
        in_torch(models, layout).tokenize(ODD_TEXTS),
        in_onnx(models, layout).tokenize(ODD_TEXTS),
    )
    assert {name: tensor.tolist() for name, tensor in one.items()} == {
        name: array.tolist() for name, array in other.items()
    }


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("dtype", ["float32", "int8"])
def test_batches_of_any_size_give_the_same_rows(models: Path, layout: str, dtype: str) -> None:
    encoder = in_onnx(models, layout, dtype)
    many, texts = tiny.photos() * 7, ODD_TEXTS * 7
    tolerance = 1e-6 if dtype == "float32" else 0
    assert_close(
        encoder.encode_images(many),
        np.concatenate([encoder.encode_images([photo]) for photo in many]),
        tolerance,
    )
    assert_close(
        encoder.encode_texts(texts),
        np.concatenate([encoder.encode_texts([text]) for text in texts]),
        tolerance,
    )
    assert (
        encoder.encode_images([]).shape
        == encoder.encode_texts([]).shape
        == encoder.encode_prepared([]).shape
        == (0, encoder.dim)
    )


@pytest.mark.parametrize("layout", LAYOUTS)
def test_one_token_is_chosen_early_where_the_vector_is_made_of_one(
    models: Path, layout: str
) -> None:
    folder = in_onnx(models, layout, "float32").folder
    names = {each.name for each in onnx.load(folder / "image.onnx").graph.initializer}
    assert ("token_left" in names) is (layout != "siglip")  # which pools all by attention


# of h and w, each with the number of tokens that are left to ``y`` where one is chosen
GRAPHS = {
    "to the first node": ("y = Relu(x)\n r = Gather<axis=1>(y, two)", 1),
    "through a turn": (
        "t = Transpose<perm=[1, 0, 2]>(x)\n u = Relu(t)\n"
        "y = Transpose<perm=[1, 0, 2]>(u)\n r = Gather<axis=1>(y, two)",
        1,
    ),
    "along two ways": (
        "a = Relu(x)\n m = MatMul(a, w)\n n = Add(m, b)\n y = Add(a, n)\n"
        "r = Gather<axis=1>(y, two)",
        1,
    ),
    "not over a node that others need": (
        "y = Relu(x)\n s = Softmax<axis=1>(y)\n h = Gather<axis=1>(s, two)\n"
        "g = Gather<axis=1>(y, two)\n r = Mul(g, h)",
        5,
    ),
    "not over tokens that meet": ("y = Softmax<axis=1>(x)\n r = Gather<axis=1>(y, two)", 5),
    "not over tokens that are multiplied": (
        "t = Transpose<perm=[0, 2, 1]>(x)\ny = MatMul(x, t)\n r = Gather<axis=1>(y, two)",
        5,
    ),
    "not over the last axis": ("y = MatMul(x, w)\n r = Gather<axis=2>(y, two)", 5),
}


@pytest.mark.parametrize("name", GRAPHS)
def test_a_token_is_chosen_as_early_as_the_others_are_not_needed(name: str) -> None:
    steps, left = GRAPHS[name]
    plain = onnx.parser.parse_model(
        '<ir_version: 9, opset_import: ["" : 20]> tower (float[n,5,4] x) => (float[n,k] r, y) '
        "<int64 two = {2}, float[4,4] w = {1,2,3,4,5,6,7,8,9,8,7,6,5,4,3,2}, "
        f"float[4] b = {{1,2,3,4}}> {{ {steps} }}"
    )
    del plain.graph.output[1]
    early = ir.from_proto(onnx.shape_inference.infer_shapes(plain))
    onnx_export.choose_token_early(early.graph)
    pixels = {"x": np.random.default_rng(0).standard_normal((3, 5, 4), dtype=np.float32)}
    (expected,), (row, y) = (
        onnxruntime.InferenceSession(each.SerializeToString()).run(None, pixels)
        for each in (plain, with_output(ir.to_proto(early), "y"))
    )
    np.testing.assert_array_equal(row, expected)
    assert y.shape[1] == left


@pytest.mark.parametrize("graph", [IMAGE, TEXT])
def test_attention_is_one_operation_where_pytorchs_own_module_computes_it(
    models: Path, graph: str
) -> None:
    exported = ir.load(in_onnx(models, "open_clip").folder / graph)
    operations = [node.op_type for node in exported.graph]
    model = in_torch(models, "open_clip").model
    layers = (model.visual if graph == IMAGE else model).transformer.resblocks
    assert operations.count("MultiHeadAttention") == len(layers)
    assert "Softmax" not in operations


def with_output(model: onnx.ModelProto, name: str) -> onnx.ModelProto:
    model.graph.output.append(onnx.helper.make_empty_tensor_value_info(name))
    return model


@pytest.mark.parametrize("dtype", ["float32", "int8"])
def test_an_encoder_for_many_pictures_gives_the_same_vectors_from_all_its_callers(
    models: Path, dtype: str
) -> None:
    one, throughput = (
        in_onnx(models, "open_clip", dtype),
        load_encoder(name_of(models, "open_clip"), "cpu", dtype, runtime="onnx", throughput=True),
    )
    assert [(each.parallel_calls, each.pictures_per_call) for each in (one, throughput)] == [
        (1, None),
        (usable_cores(), 8 if usable_cores() > 1 else None),
    ]
    batches = [
        [one.prepare(photo) for photo in tiny.photos()[: 1 + i]] for i in range(len(tiny.photos()))
    ]
    with ThreadPoolExecutor(max(3, throughput.parallel_calls)) as pool:
        rows = list(pool.map(throughput.encode_prepared, batches * 3))
    for batch, found in zip(batches * 3, rows, strict=True):
        assert_close(found, one.encode_prepared(batch), 1e-6 if dtype == "float32" else 0)
    throughput.free_image_tower()
    assert_close(throughput.encode_prepared(batches[-1]), rows[-1], 0)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_int8_is_near_and_has_its_own_fingerprint(models: Path, layout: str) -> None:
    full, small = in_onnx(models, layout), in_onnx(models, layout, "int8")
    rng = np.random.default_rng(0)
    noise = [full.prepare(photo) for photo in tiny.photos()] + list(
        rng.integers(0, 256, (20, 32, 32, 3), dtype=np.uint8)
    )
    one, other = full.encode_prepared(noise), small.encode_prepared(noise)
    assert (one * other).sum(axis=1).min() >= 0.99
    assert not np.allclose(one, other, atol=1e-4)
    assert (full.encode_texts(ODD_TEXTS) * small.encode_texts(ODD_TEXTS)).sum(axis=1).min() >= 0.99
    assert small.dtype == "int8"
    assert small.fingerprint != full.fingerprint
    assert sum(file.stat().st_size for file in small.folder.iterdir()) < sum(
        file.stat().st_size for file in full.folder.iterdir()
    )


def clip_reader() -> tuple[Any, TextReader]:
    theirs = open_clip.SimpleTokenizer()
    portable = portable_open_clip(theirs)
    assert portable is not None
    kept = PortableTokenizer(
        portable.json, rules_from(json.loads(json.dumps(portable.rules.facts())))
    )
    return theirs, TextReader(kept)


THEIRS, OURS = clip_reader()
SNIPPETS = [
    "'s",
    "'ſ",
    "'LL",
    "<start_of_text>",
    "<END_OF_TEXT>",
    " ",
    "\t",
    "\x85",
    "!",
    "&amp;",
    "&lt;",
    "é",
    "ß",
    "İ",
    "\u0345",
    "１",
    "½",
]


@settings(max_examples=400, deadline=None)
@given(st.one_of(st.text(), st.lists(st.sampled_from(SNIPPETS)).map("".join)))
def test_byte_pairs_without_open_clip_are_open_clip_s(text: str) -> None:
    text = readable(text)
    assert OURS.tokenize([text])["input_ids"].tolist() == THEIRS([text]).tolist()


@pytest.mark.parametrize("cleaning", ["lower", "whitespace", "canonicalize"])
def test_the_cleanings_of_open_clip(cleaning: str) -> None:
    theirs = open_clip.SimpleTokenizer(clean=cleaning, context_length=12)
    portable = portable_open_clip(theirs)
    assert portable is not None
    texts = [
        readable(text) for text in [*ODD_TEXTS, "snake_case, 'and' (more)", "<START_OF_TEXT> A"]
    ]
    assert TextReader(portable).tokenize(texts)["input_ids"].tolist() == theirs(texts).tolist()


def test_a_tokenizer_that_draws_lots_is_not_taken_over() -> None:
    assert portable_open_clip(open_clip.SimpleTokenizer(reduction_mask="random")) is None


def test_an_open_clip_siglip_with_a_tokenizer_of_the_hub(tmp_path: Path) -> None:
    tiny.save_open_clip(tmp_path / "siglip", tiny.siglip_like())
    tiny.tiny_tokenizer(16).save_pretrained(tmp_path / "siglip")
    encoder = in_torch(tmp_path, "siglip")
    theirs = encoder.tokenize(ODD_TEXTS)["input_ids"].tolist()
    reader = TextReader(encoder.towers.portable())
    assert reader.tokenize(ODD_TEXTS)["input_ids"].tolist() == theirs


# -- which runtime ---------------------------------------------------------------------------------


def test_auto_takes_an_export_that_is_there_and_makes_none(
    own_home: Path, models: Path, cache_dir: Path, first_use: tuple[type, list[Path], OnnxExport]
) -> None:
    before, files, prepared = first_use
    assert (before, files) == (TorchEncoder, [])
    assert prepared.folder == str(cache_dir / "onnx" / own_home.name)
    name = name_of(models, "open_clip")
    assert (prepared.made, prepare_model(name).made) == (True, False)
    assert prepared.difference < 1e-5
    assert prepared.size_bytes == sum(file.stat().st_size for file in own_home.iterdir())
    assert isinstance(load_encoder(name, "cpu"), OnnxEncoder)
    assert isinstance(load_encoder(name, "cpu", runtime="torch"), TorchEncoder)
    assert isinstance(load_encoder(name, "cpu", "float16"), TorchEncoder)
    assert os.listdir(own_home.parent) == [own_home.name]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"runtime": "tensorrt"}, "unknown runtime 'tensorrt': use auto, onnx, torch"),
        ({"runtime": "torch", "dtype": "int8"}, "int8 runs on ONNX Runtime alone"),
        ({"runtime": "onnx", "dtype": "float16"}, "float32 or int8, not on 'auto' in 'float16'"),
        ({"runtime": "onnx", "device": "cuda"}, "not on 'cuda'"),
        ({"dtype": "int8", "device": "cuda:1"}, "not on 'cuda:1'"),
        ({"dtype": "int3", "device": "cpu"}, "unknown dtype 'int3'"),
    ],
)
def test_what_cannot_be_is_said(models: Path, options: dict[str, str], words: str) -> None:
    with pytest.raises(EncoderError, match=words):
        load_encoder(name_of(models, "open_clip"), **options)  # type: ignore[arg-type]


def test_a_light_model_needs_no_preparation() -> None:
    with pytest.raises(EncoderError, match="'mini' needs no preparation"):
        prepare_model("mini")
    with pytest.raises(EncoderError, match="float32 or int8, not in 'float16'"):
        prepare_model("local-dir:nowhere", dtype="float16")


def test_a_copy_of_the_model_elsewhere_has_the_same_export(
    own_home: Path, models: Path, tmp_path: Path
) -> None:
    shutil.copytree(models / "open_clip", tmp_path / "copy")
    encoder = load_encoder(name_of(tmp_path, "copy"), "cpu")
    assert isinstance(encoder, OnnxEncoder)
    assert (encoder.folder, encoder.name) == (own_home, f"local-dir:{tmp_path.resolve() / 'copy'}")


def test_other_files_have_another_export(own_home: Path, models: Path, tmp_path: Path) -> None:
    shutil.copytree(models / "open_clip", tmp_path / "copy")
    config = tmp_path / "copy" / "open_clip_config.json"
    config.write_text(config.read_text() + " ")
    assert isinstance(load_encoder(name_of(tmp_path, "copy"), "cpu"), TorchEncoder)


def test_an_architecture_and_tag(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A tiny architecture and tag are added to open_clip's own lists, its weights to a Hugging Face
    cache; no network is asked.
    """
    monkeypatch.setitem(open_clip.factory._MODEL_CONFIGS, "Tiny-8", tiny.SHALLOW_CONFIG)
    monkeypatch.setitem(
        open_clip.pretrained._PRETRAINED,
        "Tiny-8",
        {"seed_5": {"hf_hub": "acme/tiny/", "quick_gelu": True}},
    )
    repo = tmp_path / "models--acme--tiny"
    (repo / "snapshots" / "abc").mkdir(parents=True)
    (repo / "refs").mkdir()
    (repo / "refs" / "main").write_text("abc")
    tiny.save_open_clip(tmp_path / "model", tiny.SHALLOW_CONFIG)
    shutil.copy(tmp_path / "model" / "open_clip_model.safetensors", repo / "snapshots" / "abc")
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    made = load_encoder("open_clip:Tiny-8/seed-5", "cpu", runtime="onnx")
    found = load_encoder("open_clip:Tiny-8/seed_5", "cpu")
    assert isinstance(made, OnnxEncoder)
    assert isinstance(found, OnnxEncoder)
    assert found.folder == made.folder
    assert found.name == made.name == "open_clip:Tiny-8/seed_5"
    assert_close(
        found.encode_texts(ODD_TEXTS),
        load_encoder(made.name, "cpu", runtime="torch").encode_texts(ODD_TEXTS),
    )
    code = (
        "import sys; from vitsearch.encoders import load_encoder; e = "
        "load_encoder(sys.argv[1], 'cpu'); e.encode_texts(['a cat'])"
    )
    assert (
        python(code + "; print(type(e).__name__, 'torch' in sys.modules)", made.name)
        == "OnnxEncoder False"
    )
    (repo / "refs" / "main").write_text(
        "newer"
    )  # downloaded again: the export is of the state before
    assert exports.expected_folder(made.name, "float32") is None


# -- whole, damaged, or not to be written ----------------------------------------------------------


def damage(file: Path, how: str) -> None:
    content = bytearray(file.read_bytes())
    if how == "gone":
        file.unlink()
        return
    content[len(content) // 2] ^= 1
    file.write_bytes(bytes(content) if how == "one bit" else content[: len(content) // 2])


@pytest.mark.parametrize(
    "name", ["image.onnx", "image.onnx.data", "text.onnx.data", "tokenizer.json", "export.json"]
)
@pytest.mark.parametrize("how", ["half", "one bit", "gone"])
def test_a_damaged_export_is_not_used(own_home: Path, models: Path, name: str, how: str) -> None:
    assert exports.read_facts(own_home) is not None
    damage(own_home / name, how)
    assert exports.read_facts(own_home) is None
    assert isinstance(load_encoder(name_of(models, "open_clip"), "cpu"), TorchEncoder)


def test_a_home_that_cannot_be_written(
    models: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    (tmp_path / "a file").write_text("")
    monkeypatch.setenv("VITSEARCH_HOME", str(tmp_path / "a file"))
    encoder = load_encoder(name_of(models, "open_clip"), "cpu", export=True)
    assert isinstance(encoder, TorchEncoder)
    notes = [record.message for record in caplog.records if record.name == "vitsearch"]
    assert len(notes) == 1
    assert notes[0].startswith(f"no export can be written to {tmp_path / 'a file' / 'onnx'} (")
    assert notes[0].endswith("set VITSEARCH_HOME to another folder (it runs on torch now)")
    with pytest.raises(EncoderError, match="no export can be written"):
        load_encoder(name_of(models, "open_clip"), "cpu", "int8")


def test_a_model_that_cannot_be_exported_is_not_tried_twice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("VITSEARCH_HOME", str(tmp_path / "home"))
    tiny.save_dual(tmp_path / "any shape", "siglip2")
    for _ in range(2):
        encoder = load_encoder(name_of(tmp_path, "any shape"), "cpu", export=True)
        assert isinstance(encoder, TorchEncoder)
    notes = [record.message for record in caplog.records if record.name == "vitsearch"]
    assert len(notes) == 2
    assert notes[0] == notes[1]
    (refusal,) = (tmp_path / "home" / "onnx").iterdir()
    assert refusal.name.endswith("-refused.txt")
    assert refusal.read_text() in notes[0]


@pytest.mark.parametrize(
    ("factor", "words"), [(-1.0, "gives other vectors as an ONNX graph"), (np.nan, "overflows")]
)
def test_graphs_that_give_other_vectors_are_not_taken(
    own_home: Path, models: Path, tmp_path: Path, factor: float, words: str
) -> None:
    from safetensors.torch import load_file, save_file

    other = Path(shutil.copytree(models / "open_clip", tmp_path / "other"))
    weights = load_file(other / "open_clip_model.safetensors")
    weights["visual.proj"] *= factor
    save_file(weights, other / "open_clip_model.safetensors")
    (tmp_path / "out").mkdir()
    with pytest.raises(EncoderError, match=words):
        onnx_export.write_export(in_torch(tmp_path, "other"), tmp_path / "out", "float32", own_home)


# -- a collection ----------------------------------------------------------------------------------


def test_a_collection_opens_with_either_runtime(models: Path, tmp_path: Path) -> None:
    for colour in ("red", "green", "blue"):
        paint(tmp_path / "photos" / f"{colour}.png", colour)
    index_folder(
        tmp_path / "photos", encoder=name_of(models, "clip"), device="cpu", runtime="torch"
    )
    in_onnx(models, "clip")
    with Collection.open(tmp_path / "photos", device="cpu") as found:
        assert isinstance(found.encoder, OnnxEncoder)
        hits = [(hit.path, round(hit.score, 4)) for hit in found.search("a cat")]
    paint(tmp_path / "photos" / "yellow.png", "yellow")
    report = index_folder(
        tmp_path / "photos", device="cpu"
    )  # the golden vectors of torch are held against ONNX Runtime's
    assert (report.indexed, report.total) == (1, 4)
    with Collection.open(tmp_path / "photos", encoder=in_torch(models, "clip")) as found:
        again = [
            (hit.path, round(hit.score, 4))
            for hit in found.search("a cat")
            if hit.path != "yellow.png"
        ]
    assert [path for path, _ in again] == [path for path, _ in hits]
    assert_close([score for _, score in again], [score for _, score in hits], 1e-4)


def test_index_makes_a_damaged_export_again_and_search_starts_without_torch(
    own_home: Path, models: Path, tmp_path: Path
) -> None:
    damage(own_home / "text.onnx.data", "half")
    folder = tmp_path / "photos"
    for colour in ("red", "green"):
        paint(folder / f"{colour}.png", colour)
    index_folder(folder, encoder=name_of(models, "open_clip"), device="cpu")
    assert exports.read_facts(own_home) is not None
    assert os.listdir(own_home.parent) == [own_home.name]
    encoder = load_encoder(name_of(models, "open_clip"), "cpu")
    assert isinstance(encoder, OnnxEncoder)
    assert_close(
        encoder.encode_texts(ODD_TEXTS), in_torch(models, "open_clip").encode_texts(ODD_TEXTS)
    )
    code = """
import sys
from vitsearch import Collection
with Collection.open(sys.argv[1], device="cpu") as found:
    heavy = {"torch", "open_clip", "transformers"} & set(sys.modules)
    count = len(found.search("a photo of a cat", min_relevance=0))
    print(count, *(name for name, _ in found.encoder._sessions), *heavy)
"""
    assert python(code, str(folder)) == "2 text.onnx"


def test_int8_is_made_of_the_float32_export_that_is_there(
    own_home: Path, models: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stored = {file.name: file.read_bytes() for file in own_home.iterdir()}
    monkeypatch.setattr(torch.onnx, "export", None)  # the model is not exported again
    prepared = prepare_model(name_of(models, "open_clip"), dtype="int8")
    assert prepared.made
    assert prepared.cosine >= 0.99
    assert {file.name: file.read_bytes() for file in own_home.iterdir()} == stored


def test_an_int8_collection_is_another_one(models: Path, tmp_path: Path) -> None:
    small, full = in_onnx(models, "siglip", "int8"), in_onnx(models, "siglip")
    paint(tmp_path / "photos" / "red.png", "red")
    result = vitsearch(
        "index",
        tmp_path / "photos",
        "--encoder",
        name_of(models, "siglip"),
        "--dtype",
        "int8",
        "--device",
        "cpu",
    )
    assert result.returncode == 0, result.stderr
    with Collection.open(tmp_path / "photos", device="cpu") as found:
        assert found.config.dtype == "int8"
        assert found.config.encoder_fingerprint == small.fingerprint != full.fingerprint
        assert isinstance(found.encoder, OnnxEncoder)
        assert [hit.path for hit in found.search("a cat")] == ["red.png"]


def test_an_exported_model_is_explained_by_torch(models: Path) -> None:
    one, other = (
        explain(encoder, tiny.photos()[3])
        for encoder in (in_torch(models, "clip"), in_onnx(models, "clip"))
    )
    np.testing.assert_array_equal(one.relevance, other.relevance)


# -- the command line ------------------------------------------------------------------------------


def test_prepare_model(cache_dir: Path, models: Path) -> None:
    in_onnx(models, "open_clip", "int8")
    result = vitsearch("prepare-model", name_of(models, "open_clip"), "--dtype", "int8", "--json")
    assert result.returncode == 0, result.stderr
    row = json.loads(result.stdout)
    assert (row["name"], row["dtype"], row["made"]) == (name_of(models, "open_clip"), "int8", False)
    assert Path(row["folder"]).parent == cache_dir / "onnx"
    assert row["cosine"] >= 0.99
    text = vitsearch(
        "prepare-model", name_of(models, "open_clip"), "--dtype", "int8"
    ).stdout.decode()
    assert (
        f"in int8: was there already, {row['size_bytes'] / 1e6:.1f} MB in {row['folder']}\n" in text
    )
    ready = vitsearch("prepare-model", "mini")
    assert (ready.returncode, ready.stderr) == (0, b"")
    assert ready.stdout == b"mini needs no preparation: it runs without PyTorch as it is\n"


def test_an_export_of_before_is_used_and_made_again_when_it_is_asked_for(
    own_home: Path, models: Path
) -> None:
    name = name_of(models, "open_clip")
    encoder = load_encoder(name, "cpu", runtime="onnx")
    facts = exports.read_facts(encoder.folder)
    assert facts is not None
    assert facts.pop("revision") == exports.REVISION
    exports.write_facts(encoder.folder, facts)
    assert load_encoder(name, "cpu", runtime="onnx").folder == encoder.folder
    assert "revision" not in (exports.read_facts(encoder.folder) or {})
    assert [prepare_model(name).made for _ in range(2)] == [True, False]
    assert (exports.read_facts(encoder.folder) or {})["revision"] == exports.REVISION
    np.testing.assert_allclose(
        load_encoder(name, "cpu", runtime="onnx").encode_texts(["a cat"]),
        encoder.encode_texts(["a cat"]),
        atol=1e-6,
    )


# -- graphs that are optimised already -------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["float32", "int8"])
def test_a_graph_opens_as_it_was_optimised(
    models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, dtype: str
) -> None:
    made = Path(prepare_model(name_of(models, "open_clip"), dtype=dtype).folder)
    folder = tmp_path / "home" / "onnx" / made.name
    shutil.copytree(made, folder)
    monkeypatch.setenv("VITSEARCH_HOME", str(tmp_path / "home"))
    optimised = [folder / f"optimised-{graph}" for graph in ("image.onnx", "text.onnx")]
    assert all(len(onnx.load(file).graph.node) for file in optimised)
    assert {
        entry.value
        for file in optimised
        for tensor in onnx.load(file, load_external_data=False).graph.initializer
        for entry in tensor.external_data
        if entry.key == "location"
    } == {"image.onnx.data", "text.onnx.data"}

    def vectors() -> list[Any]:
        encoder = in_onnx(models, "open_clip", dtype)
        assert encoder.folder == folder
        rows = [encoder.encode_images(tiny.photos()), encoder.encode_texts(ODD_TEXTS)]
        return [row.tolist() for row in rows]

    expected = vectors()
    optimised[0].write_bytes(b"altered")  # the graph itself is opened then
    optimised[1].unlink()
    assert vectors() == expected
    assert prepare_model(name_of(models, "open_clip"), dtype=dtype).made
    facts = exports.read_facts(folder)
    assert facts is not None
    exports.write_facts(folder, {**facts, "optimised": {**facts["optimised"], "for": {}}})
    assert vectors() == expected  # of another version of ONNX Runtime
    assert prepare_model(name_of(models, "open_clip"), dtype=dtype).made
    assert not prepare_model(name_of(models, "open_clip"), dtype=dtype).made
    for file in optimised:  # and so it is the optimised graph that was opened
        (folder / file.name.removeprefix("optimised-")).write_bytes(b"not opened")
    monkeypatch.setattr(exports, "read_facts", lambda _: exports._read(folder)["facts"])
    assert vectors() == expected
