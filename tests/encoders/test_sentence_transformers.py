"""Models of sentence-transformers that read pictures and texts, against the library itself."""

import json
import shutil
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("torch", reason="needs the extra vitsearch[clip]")
pytest.importorskip("transformers", reason="needs the extra vitsearch[clip]")
pytest.importorskip("sentence_transformers", reason="needs the extra vitsearch[st]")

from sentence_transformers import SentenceTransformer

from helpers import tiny_models as tiny
from helpers.cli import vitsearch
from vitsearch import Collection, index_folder
from vitsearch.encoders import load_encoder, load_local_dir
from vitsearch.encoders.checkpoints import missing_from, sentence_transformers_files
from vitsearch.errors import EncoderError

pytestmark = pytest.mark.slow

PROMPT = "a picture that shows "


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder `clip` with a CLIP model with random weights, and one `model` with the same as
    sentence-transformers saved it in a folder of its part before version 5, and reads it still.
    """
    tmp_path = tmp_path_factory.mktemp("saved")
    tiny.save_clip(tmp_path / "clip", tiny.save_open_clip(tmp_path / "open_clip"))
    model = SentenceTransformer(str(tmp_path / "clip"), device="cpu", local_files_only=True)
    model.save(str(tmp_path / "model"))
    folder, part = tmp_path / "model", tmp_path / "model" / "0_Transformer"
    part.mkdir()
    for file in [each for each in folder.iterdir() if each.is_file()]:
        if file.name not in ("modules.json", "config_sentence_transformers.json"):
            file.rename(part / file.name)
    modules = json.loads((folder / "modules.json").read_text())
    modules[0]["path"] = part.name
    (folder / "modules.json").write_text(json.dumps(modules))
    return tmp_path


@pytest.fixture
def folder(saved: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the model of sentence-transformers to change."""
    monkeypatch.setenv("VITSEARCH_HOME", str(tmp_path / "home"))
    return Path(shutil.copytree(saved / "model", tmp_path / "model"))


def change(file: Path, **values: Any) -> None:
    content = json.loads(file.read_text())
    file.write_text(json.dumps({**content, **values}))


def part_of(folder: Path) -> Path:
    return folder / "0_Transformer"


def theirs(folder: Path, items: list[Any]) -> Any:
    model = SentenceTransformer(str(folder), device="cpu", local_files_only=True)
    return model.encode(items, normalize_embeddings=True)


def test_vectors_are_those_of_the_library(folder: Path) -> None:
    encoder = load_encoder(f"local-dir:{folder}", "cpu")
    rows = encoder.encode_images(tiny.photos())
    np.testing.assert_allclose(rows, theirs(folder, tiny.photos()), rtol=0, atol=1e-5)
    texts = [*tiny.SENTENCES[:3], "a cat " * 100]
    np.testing.assert_allclose(
        encoder.encode_texts(texts), theirs(folder, texts), rtol=0, atol=1e-5
    )
    assert (encoder.dim, encoder.dtype, encoder.device) == (rows.shape[1], "float32", "cpu")
    assert encoder.encode_images([]).shape == encoder.encode_texts([]).shape == (0, encoder.dim)
    large = encoder.prepare(Image.new("RGB", (4000, 1000)))
    assert large.shape == (256, 1024, 3)
    with ThreadPoolExecutor(4) as pool:  # as a server asks
        for row in pool.map(lambda text: encoder.encode_texts([text])[0], texts[:3] * 8):
            assert np.abs(encoder.encode_texts(texts[:3]) @ row).max() > 0.999
    again = load_encoder(encoder.name, "cpu")
    assert (again.fingerprint, again.logit_scale) == (encoder.fingerprint, encoder.logit_scale)


def test_texts_get_the_prefix_of_queries(folder: Path) -> None:
    plain = load_encoder(f"local-dir:{folder}", "cpu")
    change(folder / "config_sentence_transformers.json", prompts={"query": PROMPT})
    encoder = load_encoder(f"local-dir:{folder}", "cpu")
    np.testing.assert_allclose(
        encoder.encode_texts(["a cat"]), plain.encode_texts([f"{PROMPT}a cat"]), rtol=0, atol=1e-6
    )
    np.testing.assert_allclose(
        encoder.encode_images(tiny.photos()), plain.encode_images(tiny.photos()), rtol=0, atol=1e-6
    )
    assert encoder.fingerprint != plain.fingerprint


def test_a_folder_is_indexed_and_searched(folder: Path, tmp_path: Path) -> None:
    photos = tmp_path / "photos"
    photos.mkdir()
    for number, picture in enumerate(tiny.photos()):
        picture.save(photos / f"{number}.png")
    index_folder(photos, encoder=f"local-dir:{folder}", device="cpu")
    with Collection.open(photos) as collection:
        expected = theirs(folder, tiny.photos()) @ theirs(folder, ["a cat"])[0]
        hits = collection.search("a cat", min_relevance=0)
        assert [hit.path for hit in hits] == [f"{each}.png" for each in np.argsort(-expected)]
        np.testing.assert_allclose(
            [hit.score for hit in hits], sorted(expected)[::-1], rtol=0, atol=1e-3
        )


def test_what_is_a_model_of_transformers_and_no_more_is_read_as_before(
    saved: Path, tmp_path: Path
) -> None:
    plain = tmp_path / "plain"
    SentenceTransformer(str(saved / "clip"), device="cpu").save(str(plain))
    encoder = load_encoder(f"local-dir:{plain}", "cpu", runtime="torch")
    np.testing.assert_allclose(
        encoder.encode_texts(tiny.SENTENCES), theirs(plain, tiny.SENTENCES), rtol=0, atol=1e-5
    )
    config, modules = plain / "config_sentence_transformers.json", plain / "modules.json"
    change(config, prompts={"query": PROMPT})
    assert load_encoder(encoder.name, "cpu").fingerprint != encoder.fingerprint
    modules.unlink()
    assert load_encoder(encoder.name, "cpu").fingerprint == encoder.fingerprint


def test_code_and_pickles_are_refused(folder: Path) -> None:
    name = f"local-dir:{folder}"
    part = part_of(folder)
    (part / "model.safetensors").rename(part / "pytorch_model.bin")
    with pytest.raises(EncoderError, match=r"the weights .*pytorch_model\.bin are pickled"):
        load_encoder(name)
    modules = json.loads((folder / "modules.json").read_text())
    modules[0]["type"] = "modeling_acme.Acme"
    (folder / "modules.json").write_text(json.dumps(modules))
    with pytest.raises(EncoderError, match=r"comes with code of its own \(modeling_acme\.Acme\)"):
        load_encoder(name)
    (folder / "modules.json").write_text("{}")
    tiny.photos()[0].save(folder / "photo.png")
    done = vitsearch("index", folder, "--encoder", name)
    assert done.returncode == 1
    assert b"no list of modules in it" in done.stderr


def test_what_a_model_may_not_ask_of_the_library_is_refused(folder: Path) -> None:
    name = f"local-dir:{folder}"
    part = part_of(folder)
    kernel = {"attn_implementation": "acme/kernel"}
    for asked in (
        {"model_kwargs": kernel},
        {"model_args": {"allow_all_kernels": True}},
        {"config_kwargs": {"dtype": ["float32"]}},
        {"tokenizer_args": "acme"},
    ):
        (part / "sentence_bert_config.json").write_text(json.dumps(asked))
        with pytest.raises(EncoderError, match=r"sentence_bert_config\.json asks for .* in "):
            load_encoder(name)


def test_what_cannot_be_imported_is_one_line(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    name = f"local-dir:{folder}"
    modules = json.loads((folder / "modules.json").read_text())
    modules[0]["type"] = "sentence_transformers.models.Nope"
    (folder / "modules.json").write_text(json.dumps(modules))
    with pytest.raises(EncoderError, match=r"cannot read the model in .*Nope"):
        load_encoder(name)
    monkeypatch.delitem(sys.modules, "vitsearch.encoders.sentence_transformers")
    monkeypatch.setitem(sys.modules, "sentence_transformers", None)
    for load in (load_encoder, lambda name: load_local_dir(name.partition(":")[2])):
        with pytest.raises(EncoderError, match=r"pip install 'vitsearch\[st\]'"):
            load(name)


def test_pickles_below_a_router_are_refused(folder: Path) -> None:
    part = folder / "1_Router" / "query_0"
    part.mkdir(parents=True)
    (part.parent / "router_config.json").write_text("{}")
    (part / "pytorch_model.bin").write_bytes(b"")
    (part / "other.safetensors").write_bytes(b"")
    modules = json.loads((folder / "modules.json").read_text())
    router = {"path": "1_Router", "type": "sentence_transformers.models.Router"}
    (folder / "modules.json").write_text(json.dumps([*modules, router]))
    with pytest.raises(EncoderError, match=r"the weights .*pytorch_model\.bin are pickled"):
        load_encoder(f"local-dir:{folder}")


def test_a_download_that_was_interrupted_lacks_its_weights(folder: Path) -> None:
    needed = sentence_transformers_files(folder)
    assert missing_from(folder, needed) is None
    part = part_of(folder)
    (part / "model.safetensors").rename(part / "model.safetensors.incomplete")
    lacking = str((part / "model.safetensors").relative_to(folder))
    assert missing_from(folder, needed) == lacking
    shards = {"weight_map": {"a": "model-1.safetensors", "b": "model-2.safetensors"}}
    (part / "model.safetensors.index.json").write_text(json.dumps(shards))
    (part / "model-1.safetensors").write_bytes(b"")
    lacking = str((part / "model-2.safetensors").relative_to(folder))
    assert missing_from(folder, sentence_transformers_files(folder)) == lacking
    (folder / "modules.json").unlink()
    assert missing_from(folder, sentence_transformers_files(folder)) == "modules.json"


def test_names_that_are_none() -> None:
    with pytest.raises(EncoderError, match="st:clip is not the name of a model: it is st:ORG/NAME"):
        load_encoder("st:clip")
