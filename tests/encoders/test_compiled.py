"""The image tower compiled: batches of one size, the way that is measured to be the fastest, and
what happens where none works.
"""

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from helpers.cli import environment
from helpers.compiled import SIZE, pictures
from vitsearch.encoders import load_local_dir

torch = pytest.importorskip("torch", reason="needs the extra vitsearch[clip]")
pytest.importorskip("open_clip", reason="needs the extra vitsearch[clip]")
pytest.importorskip("transformers", reason="needs the extra vitsearch[clip]")

from helpers import tiny_models as tiny  # noqa: E402
from vitsearch.encoders.torch_encoder import TunedTower, in_fixed_batches  # noqa: E402

pytestmark = pytest.mark.slow

WITH_COMPILER = pytest.mark.skipif(
    not shutil.which("g++") and not os.environ.get("CXX"),
    reason="no C++ compiler for torch.compile",
)
WITH_CUDA = pytest.mark.skipif(not torch.cuda.is_available(), reason="PyTorch sees no GPU")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("compiled") / "model"
    tiny.save_open_clip(folder, tiny.SHALLOW_CONFIG)
    return folder


@given(count=st.integers(1, 20), size=st.integers(1, 9))
@settings(max_examples=40, deadline=None)
def test_batches_have_one_size_and_the_rows_are_those_of_the_pictures(
    count: int, size: int
) -> None:
    seen, pixels = [], torch.rand(count, 3, 2, 2)

    def run(batch: Any) -> Any:
        seen.append(tuple(batch.shape))
        return batch.flatten(1) * 2

    assert torch.equal(in_fixed_batches(run, pixels, size), pixels.flatten(1) * 2)
    assert seen == [(size, 3, 2, 2)] * -(-count // size)


def logged(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.message for record in caplog.records if record.name == "vitsearch"]


def test_one_answer_written_over_another_is_not_lost() -> None:
    kept, pixels = torch.empty(2, 12), torch.rand(6, 3, 2, 2)
    rows = in_fixed_batches(lambda batch: kept.copy_(batch.flatten(1)), pixels, 2)
    assert torch.equal(rows, pixels.flatten(1))


@WITH_COMPILER
def test_a_compiled_tower_gives_the_same_vectors(
    model: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setenv("VITSEARCH_HOME", str(tmp_path))
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", "")  # so that it is put back afterwards
    monkeypatch.delenv("TORCHINDUCTOR_CACHE_DIR")
    plain = load_local_dir(str(model), device="cpu")
    encoder = load_local_dir(str(model), device="cpu")
    tower = encoder.tune(SIZE, methods=["default"])
    np.testing.assert_array_equal(
        encoder.encode_prepared(pictures(1)), plain.encode_prepared(pictures(1))
    )
    assert tower.method is None  # nothing is compiled for a picture or two
    for count in (SIZE, 1, 3, SIZE + 1):
        np.testing.assert_allclose(
            encoder.encode_prepared(pictures(count)),
            plain.encode_prepared(pictures(count)),
            atol=1e-5,
        )
    assert (tower.method, logged(caplog)) == ("default", [])
    assert encoder.fingerprint == plain.fingerprint
    assert any((tmp_path / "compiled").iterdir())


def test_without_a_compiler_the_tower_runs_as_it_is_and_that_is_told_once(
    model: Path, tmp_path: Path
) -> None:
    code = f"""
import logging
import numpy as np
from helpers.compiled import SIZE, pictures
from vitsearch.encoders import load_local_dir
notes = []
handler = logging.Handler()
handler.emit = lambda record: notes.append(record.getMessage())
logging.getLogger("vitsearch").addHandler(handler)
plain, encoder = (load_local_dir({str(model)!r}, device="cpu") for _ in range(2))
tower = encoder.tune(SIZE, methods=["default"])
for count in (SIZE, 1, SIZE + 1):
    batch = pictures(count)
    np.testing.assert_array_equal(encoder.encode_prepared(batch), plain.encode_prepared(batch))
uncompiled = notes[0].startswith("the image tower runs uncompiled: ")
print(tower.method, len(notes), notes[0].count("\\n"), uncompiled)
"""
    bare = environment() | {
        "CXX": str(tmp_path / "none"),
        "VITSEARCH_HOME": str(tmp_path),
        "TORCHINDUCTOR_CACHE_DIR": str(tmp_path / "own"),
    }
    result = subprocess.run(
        [sys.executable, "-c", code], env=bare, check=True, capture_output=True, text=True
    )
    assert result.stdout == "eager 1 0 True\n"
    assert not (tmp_path / "compiled").exists()


def test_eager_is_measured_and_runs_unfilled(caplog: pytest.LogCaptureFixture) -> None:
    seen: list[int] = []

    def run(pixels: Any) -> Any:
        seen.append(len(pixels))
        return pixels.flatten(1)

    tower = TunedTower(run, SIZE, methods=["eager"])
    tower(torch.rand(SIZE, 3, 2, 2))
    assert (tower.method, set(seen)) == ("eager", {SIZE})
    assert len(tower(torch.rand(1, 3, 2, 2))) == 1
    assert seen[-1] == 1
    assert logged(caplog) == []


@pytest.mark.gpu
@WITH_CUDA
@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
def test_a_gpu_gives_the_same_vectors_in_the_way_it_chose(model: Path, dtype: str) -> None:
    plain, encoder = (load_local_dir(str(model), device="cuda", dtype=dtype) for _ in range(2))
    tower = encoder.tune(SIZE)
    for count in (SIZE, 1, 3, SIZE + 1):
        assert (
            (encoder.encode_prepared(pictures(count)) * plain.encode_prepared(pictures(count))).sum(
                axis=1
            )
            >= 0.999
        ).all()
    assert tower.method in ("eager", "default", "reduce-overhead")
