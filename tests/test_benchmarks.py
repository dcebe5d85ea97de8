"""The measurements on a GPU run, here on the CPU with tiny models."""

import argparse
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from helpers.cli import environment
from helpers.paths import ROOT

torch = pytest.importorskip("torch", reason="needs the extra vitsearch[clip]")
pytest.importorskip("open_clip", reason="needs the extra vitsearch[clip]")
pytest.importorskip("transformers", reason="needs the extra vitsearch[clip]")

from benchmarks.gpu import tower, training  # noqa: E402
from benchmarks.gpu.report import Report, Result, read_results  # noqa: E402
from benchmarks.gpu.run import PARTS, run_part  # noqa: E402
from helpers import tiny_models as tiny  # noqa: E402

pytestmark = pytest.mark.slow


@pytest.fixture
def measured(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., str]:
    """What the measurement of a tower prints."""

    def run(*arguments: str) -> str:
        monkeypatch.setattr(sys, "argv", ["tower", *arguments])
        tower.main()
        return capsys.readouterr().out

    return run


def test_a_tiny_model_on_the_cpu(measured: Callable[..., str], tmp_path: Path) -> None:
    tiny.save_open_clip(tmp_path)
    few = [
        "--ways",
        "eager",
        "--dtypes",
        "float32",
        "bfloat16",
        "--batch",
        "4",
        "--rounds",
        "2",
        "--count",
        "6",
    ]
    said = measured("--model", f"local-dir:{tmp_path}", "--device", "cpu", *few)
    # 16 patches of 3 x 8 x 8 to 32; two blocks of 17 tokens: 12 x 32 x 32 weights and attention of
    # 17 x 17; 32 to 16
    flops = 2 * (16 * 192 * 32 + 2 * (17 * 12 * 32 * 32 + 2 * 17 * 17 * 32) + 32 * 16)
    assert f"one picture: {flops:,} operations, 3,072 bytes to the device" in said
    assert re.findall(
        r"^\| (\w+) \| (\w+) \| [\d,]+ \| [\d.]+ \| ([\d.]+) \|$", said, re.MULTILINE
    ) == [
        ("float32", "eager", "1.000000"),
        ("bfloat16", "eager", "1.000000"),
    ]
    assert re.search(
        (
            r"^index: [\d,]+ photos/s in float32, \d+% of the best of it in float32; [\d,.]+ MB/s "
            r"to "
            r"the device$"
        ),
        said,
        re.MULTILINE,
    )


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_a_gpu_one_line_says_so(measured: Callable[..., str]) -> None:
    assert (
        measured("--model", "mini")
        == "PyTorch sees no GPU here: nothing is measured (--device cpu measures the CPU)\n"
    )


def run_all(out: Path, *arguments: str) -> list[Result]:
    command = ["benchmarks/gpu/run.sh", str(out), *arguments]
    env = {**environment(), "PYTHON": sys.executable}
    subprocess.run(command, cwd=ROOT, env=env, check=True, capture_output=True)
    return read_results(out / "results.jsonl")


@pytest.mark.engines
@pytest.mark.skipif(torch.cuda.is_available(), reason="PyTorch sees a GPU")
def test_without_a_gpu_every_part_is_skipped(tmp_path: Path) -> None:
    parts = {each.part: each.value for each in run_all(tmp_path) if each.name == "part"}
    assert parts == dict.fromkeys(PARTS, "skipped: no GPU")
    assert "| search | part | skipped: no GPU |  |" in (tmp_path / "table.md").read_text()


@pytest.mark.engines
def test_every_part_measures_on_the_cpu(tmp_path: Path) -> None:
    tiny_run = ("--device", "cpu", "--tiny", "--seconds", "600", "--only")
    results = run_all(tmp_path, *tiny_run, "parity", "search", "embedding", "classifying")
    done = {each.part: each.value for each in results if each.name == "part"}
    assert done == dict.fromkeys(("parity", "search", "embedding", "classifying"), "done")
    failed = [each.name for each in results if str(each.value).startswith("failed")]
    assert failed == ["gpu-cagra"]  # which a CPU does not build
    cosines = [each.value for each in results if each.unit == "least cosine"]
    assert min(float(value) for value in cosines) > 0.999
    recalls = {each.name: each.value for each in results if each.unit == "recall@10"}
    assert min(float(value) for value in recalls.values()) > 0.95
    assert len(recalls) == 2 + 2 * (2 + 4) + 1


@pytest.mark.engines
def test_a_part_that_fails_or_hangs_is_a_result(tmp_path: Path) -> None:
    chosen = argparse.Namespace(out=tmp_path, device="nowhere", tiny=True, vectors=None)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(ROOT))
        patch.chdir(ROOT)
        assert run_part("embedding", chosen, 600).startswith("failed with 1: ")
        assert run_part("embedding", chosen, 0.2) == "cut off after 0 s"


def test_training_is_resumed_and_a_photo_explained(tmp_path: Path) -> None:
    chosen = argparse.Namespace(device="cpu", tiny=True)
    report = Report(tmp_path / "results.jsonl", "training")
    training.resumed(report, tmp_path / "resumed", chosen)
    training.explained(report, tmp_path / "explained", chosen)
    values = {each.name: each.value for each in read_results(tmp_path / "results.jsonl")}
    assert values == {
        "fine-tuning": "broken off in the second epoch",
        "fine-tuning, resumed and not": 0.0,
        "fine-tuning, best epoch": 1.0,
        "relevance for a text": 0.0,
    }
