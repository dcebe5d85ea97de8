"""Models of strangers: settings that would take all memory or for ever are one line."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tokenizers import Regex, Tokenizer, models, normalizers

from helpers.lazy import library
from vitsearch.encoders import load_encoder
from vitsearch.encoders.checkpoints import check_settings, check_sides, check_tokenizer
from vitsearch.encoders.preprocess import Preprocess
from vitsearch.encoders.tokenizer import (
    PortableTokenizer,
    TextReader,
    TokenRules,
    check_tokenizer_files,
)
from vitsearch.errors import EncoderError

tiny = library("helpers.tiny_models")
Change = Callable[[dict[str, Any]], None]


def set_in(*names: str, to: Any) -> Change:
    def change(values: dict[str, Any]) -> None:
        for name in names[:-1]:
            values = values[name]
        values[names[-1]] = to

    return change


@pytest.fixture(name="model", scope="module")
def saved_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("model")
    tiny.save_siglip(folder)
    return folder


HOSTILE: dict[str, tuple[str, Change | str]] = {
    "layers": ("config.json", set_in("vision_config", "num_hidden_layers", to=10**7)),
    "more layers than weights": (
        "config.json",
        set_in("vision_config", "num_hidden_layers", to=60),
    ),
    "heads": ("config.json", set_in("text_config", "num_attention_heads", to=0)),
    "width": ("config.json", set_in("text_config", "hidden_size", to=2**40)),
    "wide": ("config.json", set_in("vision_config", "hidden_size", to=32_768)),
    "positions": ("config.json", set_in("text_config", "max_position_embeddings", to=10**9)),
    "words": ("config.json", set_in("text_config", "vocab_size", to=2**31)),
    "table": ("config.json", set_in("text_config", "vocab_size", to=4_000_000)),
    "pixels": ("config.json", set_in("vision_config", "image_size", to=200_000)),
    "patches": ("config.json", set_in("vision_config", "patch_size", to=0)),
    "no tower": ("config.json", set_in("vision_config", to=None)),
    "a list": ("config.json", "[]"),
    "deep": ("config.json", "[" * 20_000),
    "half a pair": ("config.json", '{"model_type": "\\ud800"}'),
    "crop": (
        "preprocessor_config.json",
        set_in("size", to={"height": 200_000, "width": 200_000}),
    ),
    "resize": ("preprocessor_config.json", set_in("size", to={"shortest_edge": 200_000})),
    "no resize": ("preprocessor_config.json", set_in("size", to={"height": 0, "width": 0})),
    "endless": ("preprocessor_config.json", set_in("size", to={"height": 1e999, "width": 1})),
    "a deviation of 0": ("preprocessor_config.json", set_in("image_std", to=[0, 1, 1])),
    "deep tokenizer": ("tokenizer.json", "[" * 20_000),
}


@pytest.mark.parametrize("case", HOSTILE)
@pytest.mark.slow
def test_settings_of_any_numbers_are_one_line(model: Path, tmp_path: Path, case: str) -> None:
    name, change = HOSTILE[case]
    folder = tmp_path / "model"
    folder.mkdir()
    for file in model.iterdir():
        (folder / file.name).symlink_to(file)
    text = (folder / name).read_text()
    (folder / name).unlink()
    if isinstance(change, str):
        (folder / name).write_text(change)
    else:
        values = json.loads(text)
        change(values)
        (folder / name).write_text(json.dumps(values))
    with pytest.raises(EncoderError) as caught:
        load_encoder(f"local-dir:{folder}", "cpu", runtime="torch")
    assert str(caught.value).startswith(f"local-dir:{folder}")
    assert "\n" not in str(caught.value)


def test_replacements_that_make_a_text_longer_and_longer_are_refused() -> None:
    tokenizer = Tokenizer(models.BPE())
    growing = [normalizers.Replace("a", "a" * 10) for _ in range(9)]
    tokenizer.normalizer = normalizers.Sequence(growing)
    with pytest.raises(EncoderError, match=r"makes a text 1,000,000,000 times longer"):
        check_tokenizer(tokenizer, "x")
    rules = TokenRules("none", 8, 0, full=False, mask=False)
    with pytest.raises(EncoderError, match="times longer"):
        TextReader(PortableTokenizer(tokenizer.to_str(), rules))
    for often in (
        [normalizers.Replace(Regex(""), "b" * 64)],
        [normalizers.Prepend("c" * 64)],
        [normalizers.Sequence([normalizers.Replace("a", "b" * 9)] * 2)],
    ):
        tokenizer.normalizer = normalizers.Sequence(often)
        with pytest.raises(EncoderError, match="times longer"):
            check_tokenizer(tokenizer, "x")


def saved(folder: Path, tokenizer: Tokenizer) -> Path:
    tokenizer.save(str(folder / "tokenizer.json"))
    return folder


@pytest.mark.slow
def test_a_tokenizer_is_tried_in_a_process_of_its_own(tmp_path: Path) -> None:
    good = Tokenizer(models.WordLevel({"a": 0, "[UNK]": 1}, unk_token="[UNK]"))
    check_tokenizer_files(saved(tmp_path, good), "x")
    (tmp_path / "tokenizer.json").write_text('{"model": {}}')
    with pytest.raises(EncoderError, match=r"^x: the tokenizer .*tokenizer\.json cannot be read"):
        check_tokenizer_files(tmp_path, "x")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("normalizer", "reason"),
    [
        (normalizers.Sequence([normalizers.Replace("a", "a" * 10)] * 9), "times longer"),
        # catastrophic in the library of regular expressions, which takes years or gives up
        (normalizers.Replace(Regex(r"(a|aa)+(?=b)$|((a+)+)+b"), "x"), "cannot be read"),
    ],
    ids=["growing", "backtracking"],
)
def test_a_tokenizer_that_does_not_end_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, normalizer: Any, reason: str
) -> None:
    monkeypatch.setattr("vitsearch.encoders.tokenizer.PROBE_SECONDS", 5.0)
    tokenizer = Tokenizer(models.WordLevel({"a": 0, "[UNK]": 1}, unk_token="[UNK]"))
    tokenizer.normalizer = normalizer
    with pytest.raises(EncoderError, match=reason):
        check_tokenizer_files(saved(tmp_path, tokenizer), "x")


@pytest.mark.slow
def test_what_is_no_sentencepiece_model_is_refused(tmp_path: Path) -> None:
    pytest.importorskip("sentencepiece")
    for data in (b"", b"\x0a\xff\xff\xff\xff\x0f", bytes(1000), b"\x0a\x04\x0a\x02aa" * 50):
        (tmp_path / "spiece.model").write_bytes(data)
        with pytest.raises(EncoderError, match=r"^x: the tokenizer .*spiece\.model cannot be read"):
            check_tokenizer_files(tmp_path, "x")


def test_the_replacements_of_real_tokenizers_are_taken() -> None:
    tokenizer = Tokenizer(models.BPE())
    check_tokenizer(tokenizer, "x")
    tokenizer.normalizer = normalizers.Sequence(
        [
            normalizers.NFC(),
            normalizers.Replace(Regex(r"\s+"), " "),
            normalizers.Prepend("\u2581"),
            normalizers.Replace(" ", "\u2581"),
            normalizers.Lowercase(),
        ]
    )
    check_tokenizer(tokenizer, "x")


def test_names_of_classes_are_no_settings(tmp_path: Path) -> None:
    labels = {"num_labels": 21_841, "label2id": {"block plane": 21_000, "window shade": 9_000}}
    check_settings(labels, [tmp_path / "none"], "x")
    check_sides({"do_resize": True, "size": {"height": 384}, "max_pixels": 12_845_056}, "x")
    with pytest.raises(EncoderError, match=r"200,000 pixels wide or high, more than 2,048"):
        check_sides({"crop_size": 200_000}, "x")


@pytest.mark.parametrize(
    "values",
    [{"size": (0, 9)}, {"size": (9, 200_000)}, {"resize_to": 10**9}, {"std": (1.0, 0.0, 1.0)}],
    ids=str,
)
def test_preprocessing_has_bounds(values: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"pixels, beyond 1 to 2,048|a mean or a deviation"):
        Preprocess(**values)
