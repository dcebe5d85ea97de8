"""The list of known encoders: spellings, figures, and what is on this machine."""

import subprocess
import sys
from pathlib import Path

import pytest

from helpers.paths import ROOT
from vitsearch.encoders.catalogue import (
    MAX_HOURS,
    EncoderListing,
    list_encoders,
    pictures_per_second,
    recommend,
)
from vitsearch.encoders.colour import ColourEncoder
from vitsearch.encoders.mini import MiniEncoder


@pytest.fixture(autouse=True)
def empty_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty Hugging Face cache, wherever the user's is."""
    monkeypatch.delenv("HF_HUB_CACHE", raising=False)
    monkeypatch.delenv("HUGGINGFACE_HUB_CACHE", raising=False)
    monkeypatch.setenv("HF_HOME", str(tmp_path))
    return tmp_path / "hub"


def names(pattern: str | None = None) -> list[str]:
    return [listing.name for listing in list_encoders(pattern)]


def download(cache: Path, repo: str, *files: str) -> None:
    """Lay files out as the hub's library does after a download."""
    folder = cache / f"models--{repo.replace('/', '--')}"
    (folder / "refs").mkdir(parents=True)
    (folder / "refs" / "main").write_text("0123abc")
    (folder / "snapshots" / "0123abc").mkdir(parents=True)
    for file in files:
        (folder / "snapshots" / "0123abc" / file).write_bytes(b"")


def test_figures_are_as_published() -> None:
    assert list_encoders("open_clip:ViT-B-32/laion2b_s34b_b79k") == [
        EncoderListing(
            name="open_clip:ViT-B-32/laion2b_s34b_b79k",
            dim=512,
            mparams=151.28,
            gflops=14.78,
            imagenet_top1=66.6,
            coco_r1=39.3,
            spanish_r1=24.9,
            r1_by_language={},
            licence="MIT",
            commercial=True,
            languages=("en",),
            reads_text=True,
            on_this_machine=False,
        )
    ]
    (nllb,) = list_encoders("open_clip:nllb-clip-large-siglip/mrl")
    figures = (nllb.gigabytes, nllb.spanish_r1, nllb.recall_in("de"), nllb.recall_in("en"))
    assert figures == (pytest.approx(4.782), 63.9, 75.7, None)
    assert (nllb.licence, nllb.commercial, nllb.languages) == ("CC-BY-NC-4.0", False, ())


def test_the_encoders_of_the_package_come_first_and_are_here() -> None:
    first, second = list_encoders()[:2]
    assert (first.name, first.on_this_machine, first.languages) == (
        "mini",
        True,
        MiniEncoder.languages,
    )
    assert (second.name, second.dim) == ("colour", ColourEncoder.dim)
    assert (second.on_this_machine, second.licence) == (True, "Apache-2.0")


def test_licences_and_languages_are_of_the_first_rule_that_fits() -> None:
    known = {each.name: each for each in list_encoders()}
    forbidden = {each.licence for each in known.values() if each.commercial is False}
    assert forbidden == {"CC-BY-NC-4.0", "apple-amlr"}
    assert known["open_clip:ViT-H-14-378/dfn5b"].licence == "apple-amlr"
    same_weights = ("hf:openai/clip-vit-base-patch32", "open_clip:ViT-B-32/openai")
    assert {known[name].licence for name in same_weights} == {"MIT"}
    assert known["hf:kakaobrain/align-base"].licence is None
    assert known["hf:BAAI/AltCLIP"].languages == ("en", "zh")
    assert known["open_clip:ViT-B-16-SigLIP-i18n-256/webli"].languages == ()
    assert known["open_clip:ViT-B-16-SigLIP-256/webli"].languages == ("en",)
    assert not known["hf:facebook/dinov2-base"].reads_text
    assert {each.licence for each in known.values() if "siglip2" in each.name.lower()} == {
        "CC-BY-4.0"
    }


def test_every_name_is_listed_once_and_has_a_dimension() -> None:
    listed = list_encoders()
    assert len({one.name for one in listed}) == len(listed)
    assert [one.name for one in listed if one.dim is None] == []


@pytest.mark.slow
def test_what_is_recommended_suits_photos_language_and_machine() -> None:
    def best(photos: int, language: str, *, cores: int = 2, gpu: bool = False) -> list[str]:
        answers = recommend(photos, language=language, cores=cores, gpu=gpu)
        hours = [answer.hours for answer in answers if answer.hours is not None]
        assert all(0 < each <= MAX_HOURS for each in hours)
        return [answer.encoder.name for answer in answers]

    small, large = best(1000, "en"), best(1_000_000, "en", cores=4)
    assert (small[1:], large) == (["mini"], ["mini"])
    coco = {each.name: each.coco_r1 or 0 for each in list_encoders()}
    assert best(100_000, "en") != small
    assert max(coco.values()) == coco[best(1_000_000, "en", gpu=True)[0]]
    spanish = {each.name: each.spanish_r1 or 0 for each in list_encoders()}
    assert max(spanish.values()) == spanish[best(1_000_000, "es", gpu=True)[0]]
    assert "mini" not in best(1000, "de")
    assert best(1000, "es")[1:] == ["mini"]
    german = {each.name: each.recall_in("de") or 0 for each in list_encoders()}
    assert max(german.values()) == german[best(1_000_000, "de", gpu=True)[0]]
    known = {each.name: each for each in list_encoders()}
    many = max(each.spanish_r1 or 0 for each in known.values() if not each.languages)
    (other,) = best(1000, "xx", gpu=True)  # no figure is published: as for Spanish
    assert (known[other].languages, known[other].spanish_r1) == ((), many)
    (last,) = recommend(10**9, language="xx", cores=1, gpu=False)
    assert last.encoder.name == "mini"
    assert last.reason.endswith("4 hours; it reads English and Spanish only")


def test_what_is_recommended_for_commercial_use_allows_it() -> None:
    (free, *_), (best, *_) = (
        recommend(1000, language="de", cores=2, gpu=True, commercial=commercial)
        for commercial in (True, False)
    )
    assert (free.encoder.commercial, best.encoder.commercial) == (True, False)
    assert free.reason.endswith("Crossmodal-3600 in German; MIT")
    assert best.reason.endswith("Crossmodal-3600 in German; CC-BY-NC-4.0, non-commercial")


def test_speed_is_measured() -> None:
    assert pictures_per_second(ColourEncoder()) > 0


def test_patterns_match_a_part_or_with_wildcards_the_whole() -> None:
    assert names("siglip2-base") == [
        "hf:google/siglip2-base-patch16-224",
        "hf:google/siglip2-base-patch16-naflex",
    ]
    assert names("*/DFNDR2B") == names("mobileclip2")
    assert "open_clip:PE-Core-B-16/meta" in names("*PE-Core*")
    assert names("siglip2-base*") == []
    assert names("no such model") == []


def test_every_open_clip_name_is_spelled_as_open_clip_spells_it() -> None:
    open_clip = pytest.importorskip("open_clip", reason="needs the extra vitsearch[clip]")
    theirs = {
        f"open_clip:{architecture}/{tag}" for architecture, tag in open_clip.list_pretrained()
    }
    ours = names("open_clip:*")
    assert [name for name in ours if name not in theirs] == []
    for listing in list_encoders("open_clip:*"):
        architecture = listing.name.removeprefix("open_clip:").rpartition("/")[0]
        assert listing.dim == open_clip.get_model_config(architecture)["embed_dim"], listing.name


def test_a_model_in_the_cache_is_on_this_machine(empty_cache: Path) -> None:
    download(empty_cache, "laion/CLIP-ViT-B-32-laion2B-s34B-b79K", "open_clip_model.safetensors")
    download(empty_cache, "timm/ViT-B-16-SigLIP2", "config.json")
    download(
        empty_cache,
        "openai/clip-vit-base-patch32",
        "config.json",
        "pytorch_model.bin",
        "preprocessor_config.json",
        "tokenizer.json",
    )
    pictures = ("config.json", "model.safetensors", "preprocessor_config.json")
    download(empty_cache, "facebook/dinov2-base", *pictures)
    download(empty_cache, "BAAI/AltCLIP", *pictures)  # without its tokenizer
    download(empty_cache, "timm/vit_small_patch14_dinov2.lvd142m", "model.safetensors")
    here = [one.name for one in list_encoders() if one.on_this_machine]
    assert here == [
        "mini",
        "colour",
        "hf:openai/clip-vit-base-patch32",
        "hf:facebook/dinov2-base",
        "timm:vit_small_patch14_dinov2.lvd142m",
        "open_clip:ViT-B-32/laion2b_s34b_b79k",
    ]


@pytest.mark.slow
def test_listing_imports_no_heavy_library() -> None:
    program = (
        "import sys; from vitsearch.encoders.catalogue import list_encoders; list_encoders();"
        "print(sorted({'torch', 'open_clip', 'transformers', 'huggingface_hub', 'onnxruntime'} & "
        "set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        check=True,
        cwd=ROOT,
    )
    assert done.stdout.strip() == "[]"
