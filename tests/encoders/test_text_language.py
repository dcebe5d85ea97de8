"""Models that are told the language of a text: a tiny one with NLLB's tokenizer."""

import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="needs the extra vitsearch[clip]")
pytest.importorskip("open_clip", reason="needs the extra vitsearch[clip]")
transformers = pytest.importorskip("transformers", reason="needs the extra vitsearch[clip]")

from open_clip.tokenizer import HFTokenizer  # noqa: E402

from helpers import tiny_models as tiny  # noqa: E402
from helpers.cli import vitsearch  # noqa: E402
from vitsearch import index_folder  # noqa: E402
from vitsearch.encoders import load_encoder, prepare_model  # noqa: E402
from vitsearch.encoders.language import likeliest_language, texts_in  # noqa: E402
from vitsearch.encoders.onnx_cache import read_facts, write_facts  # noqa: E402
from vitsearch.encoders.tokenizer import TextReader  # noqa: E402
from vitsearch.errors import EncoderError  # noqa: E402

pytestmark = pytest.mark.slow

TEXTS = {  # and the mark that each bears
    "a cat on a mat": "eng_Latn",
    "ein Hund mit einem roten Ball am Strand": "deu_Latn",
    "собака на пляже": "rus_Cyrl",
    "海辺の犬": "jpn_Jpan",
    "": "eng_Latn",
}


def nllb_tokenizer() -> Any:
    """NLLB's tokenizer with the letters of the texts alone."""
    letters = sorted({*"".join(TEXTS), "\u2581"} - {" "})
    names = ["<s>", "<pad>", "</s>", "<unk>", *letters]
    return transformers.NllbTokenizer(
        vocab={name: number for number, name in enumerate(names)}, model_max_length=48
    )


@pytest.fixture(scope="module")
def name(tmp_path_factory: pytest.TempPathFactory) -> str:
    tmp_path = tmp_path_factory.mktemp("models")
    tokenizer = nllb_tokenizer()
    config: dict[str, Any] = tiny.siglip_like()
    config["text_cfg"] |= {
        "hf_tokenizer_name": "acme/tiny-nllb",
        "context_length": 48,
        "vocab_size": len(tokenizer),
        "tokenizer_kwargs": {},
    }
    tiny.save_open_clip(tmp_path / "nllb", config)
    tokenizer.save_pretrained(tmp_path / "nllb")
    return f"local-dir:{tmp_path / 'nllb'}"


@pytest.mark.parametrize(
    ("text", "language"),
    [
        ("a dog on the beach", None),
        ("ein Hund am Strand", "de"),
        ("un chien sur la plage", "fr"),
        ("dos perros en la playa", "es"),
        ("собака на пляже", "ru"),
        ("собака їсть на пляжі", "uk"),
        ("سگ در ساحل پارک", "fa"),
        ("كلب على الشاطئ", "ar"),
        ("海滩上的狗", "zh"),
        ("浜辺の犬", "ja"),
        ("해변의 개", "ko"),
        ("Lago di Como", None),  # a name that English borrows
        ("", None),
    ],
)
def test_the_language_of_a_text(text: str, language: str | None) -> None:
    assert likeliest_language(text) == language


def test_each_text_bears_the_mark_of_its_language(name: str) -> None:
    encoder = load_encoder(name, "cpu", runtime="torch")
    theirs = HFTokenizer(name.removeprefix("local-dir:"), context_length=48)
    for text, mark in TEXTS.items():
        theirs.tokenizer.src_lang = mark  # set_language lasts until the next call
        assert encoder.tokenize([text])["input_ids"].tolist() == theirs([text]).tolist(), text
    marks = encoder.tokenize([*TEXTS])["input_ids"][:, 0]
    vocabulary = theirs.tokenizer.get_vocab()
    assert marks.tolist() == [vocabulary[mark] for mark in TEXTS.values()]
    with texts_in("yue_Hant"):
        assert set(encoder.tokenize([*TEXTS])["input_ids"][:, 0].tolist()) == {
            vocabulary["yue_Hant"]
        }
    with texts_in("xx"), pytest.raises(EncoderError, match=r"knows no language 'xx': it knows af,"):
        encoder.encode_texts(["a cat"])


def test_an_export_that_takes_all_for_english_is_made_anew(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = Path(prepare_model(name).folder)
    folder = Path(shutil.copytree(made, tmp_path / "home" / "onnx" / made.name))
    monkeypatch.setenv("VITSEARCH_HOME", str(tmp_path / "home"))
    facts = read_facts(folder)
    assert facts is not None
    assert facts["tokens"].pop("languages")
    write_facts(folder, facts)
    assert read_facts(folder) is None
    again = prepare_model(name)
    assert (again.folder, again.made) == (str(folder), True)
    assert not prepare_model(name).made


def test_a_model_of_transformers_is_told_the_language_too(tmp_path: Path) -> None:
    tokenizer = nllb_tokenizer()
    tower = {
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
    }
    text = {**tower, "vocab_size": len(tokenizer), "max_position_embeddings": 48}
    text |= {"pad_token_id": 1, "eos_token_id": 2, "projection_dim": 16}
    config = transformers.MetaClip2Config(
        text_config=text, vision_config={**tower, "image_size": 32, "patch_size": 8}
    )
    tiny.scramble(transformers.MetaClip2Model(config)).save_pretrained(tmp_path)
    size = {"size": {"shortest_edge": 32}, "crop_size": {"height": 32, "width": 32}}
    transformers.CLIPImageProcessorPil(**size).save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    encoder = load_encoder(f"local-dir:{tmp_path}", "cpu", runtime="torch")
    vocabulary = tokenizer.get_vocab()
    ids = encoder.tokenize([*TEXTS])["input_ids"]
    assert ids[:, 0].tolist() == [vocabulary[mark] for mark in TEXTS.values()]
    reader = TextReader(encoder.towers.portable())
    assert reader.tokenize([*TEXTS])["input_ids"].tolist() == ids.tolist()


def test_onnx_runtime_gives_the_same_vectors(name: str) -> None:
    ours, torchs = (load_encoder(name, "cpu", runtime=each) for each in ("onnx", "torch"))
    np.testing.assert_allclose(
        ours.encode_texts([*TEXTS]), torchs.encode_texts([*TEXTS]), rtol=0, atol=1e-5
    )
    with texts_in("fr"):
        french = ours.encode_texts(["chat"])
        np.testing.assert_allclose(french, torchs.encode_texts(["chat"]), rtol=0, atol=1e-5)
    assert ours.logit_bias == torchs.logit_bias == -10
    assert (ours.folder / "tokenizer.json").is_file()
    assert float((french @ ours.encode_texts(["chat"]).T).item()) < 0.9999


def test_a_search_says_the_language(name: str, tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    for number, picture in enumerate(tiny.photos()):
        picture.save(tmp_path / "photos" / f"{number}.png")
    index_folder(tmp_path / "photos", encoder=load_encoder(name, "cpu", runtime="torch"))

    def scores(*options: str) -> list[bytes]:
        options = ("--min-relevance", "0", *options)
        done = vitsearch("search", tmp_path / "photos", "chat", *options)
        assert done.returncode == 0, done.stderr
        return re.findall(rb"^\S+", done.stdout, re.MULTILINE)

    assert scores("--language", "eng_Latn") == scores()
    assert scores("--language", "fr") != scores()
    done = vitsearch("search", tmp_path / "photos", "chat", "--language", "xx")
    assert (done.returncode, done.stdout) == (1, b"")
    assert b"the model knows no language 'xx'" in done.stderr
