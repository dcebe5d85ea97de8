"""The measurement of the image tower runs, here on the CPU with a tiny model."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from helpers.cli import environment
from helpers.paths import ROOT

torch = pytest.importorskip("torch", reason="needs the extra vitsearch[clip]")
pytest.importorskip("open_clip", reason="needs the extra vitsearch[clip]")
pytest.importorskip("transformers", reason="needs the extra vitsearch[clip]")

from helpers import tiny_models as tiny  # noqa: E402

pytestmark = pytest.mark.slow


def measured(*arguments: str) -> str:
    command = [sys.executable, "benchmarks/gpu.py", *arguments]
    return subprocess.run(
        command, cwd=ROOT, env=environment(), check=True, capture_output=True, text=True
    ).stdout


def test_a_tiny_model_on_the_cpu(tmp_path: Path) -> None:
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
def test_without_a_gpu_one_line_says_so() -> None:
    assert (
        measured("--model", "mini")
        == "PyTorch sees no GPU here: nothing is measured (--device cpu measures the CPU)\n"
    )
