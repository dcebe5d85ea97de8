import importlib.metadata
import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import vitsearch
from helpers.paths import ROOT
from vitsearch.cli import doctor
from vitsearch.cli.doctor import Fact, diagnose

PRINT = """
import json
from dataclasses import astuple
from vitsearch.cli.doctor import diagnose
print(json.dumps([astuple(fact) for fact in diagnose()]))
"""


def elsewhere(program: str, *options: str, **environment: str) -> dict[str, Fact]:
    """The diagnosis of another Python process."""
    kept = {
        key: value
        for key, value in os.environ.items()
        if not key.startswith(("HF_", "VITSEARCH_", "CUDA_", "PYTHON"))
    }
    done = subprocess.run(
        [sys.executable, *options, "-c", program],
        capture_output=True,
        text=True,
        env=kept | environment,
        cwd=ROOT,
        check=True,
    )
    facts = [Fact(*fact) for fact in json.loads(done.stdout)]
    return {fact.name: fact for fact in facts}


@pytest.fixture(scope="module")
def here() -> dict[str, Fact]:
    facts = diagnose()
    assert len({fact.name for fact in facts}) == len(facts)
    return {fact.name: fact for fact in facts}


@pytest.mark.slow
def test_facts_are_lines_of_text(here: dict[str, Fact]) -> None:
    for fact in here.values():
        assert fact.name
        assert fact.value
        assert "\n" not in fact.name + fact.value + (fact.hint or "")


def test_versions_are_those_installed(here: dict[str, Fact]) -> None:
    assert here["vitsearch"] == Fact("vitsearch", vitsearch.__version__)
    for name in ("numpy", "pillow", "onnxruntime", "tokenizers", "safetensors"):
        assert here[name] == Fact(name, importlib.metadata.version(name))
    assert here["python"].value.startswith(f"{sys.version_info.major}.{sys.version_info.minor}.")


def test_the_processor_runs_onnx(here: dict[str, Fact]) -> None:
    assert "CPUExecutionProvider" in here["onnxruntime providers"].value


def test_faiss_says_which_build(here: dict[str, Fact]) -> None:
    faiss = pytest.importorskip("faiss")
    assert here["faiss"].value.startswith(f"{faiss.__version__} (faiss-")
    assert faiss.get_compile_options().split()[0] in here["faiss"].value


def test_the_gpu_or_why_not(here: dict[str, Fact]) -> None:
    torch = pytest.importorskip("torch")
    if torch.cuda.is_available():
        assert torch.cuda.get_device_name(0) in here["gpu"].value
    elif not torch.backends.mps.is_available():
        assert here["gpu"].value.startswith("none: ")
        assert here["gpu"].hint


@pytest.mark.slow
def test_the_environment_is_told(tmp_path: Path) -> None:
    (tmp_path / "hf/hub/models--a--b").mkdir(parents=True)
    block_torch = "import sys; sys.modules['torch'] = None\n" + PRINT
    facts = elsewhere(
        block_torch,
        HF_HOME=str(tmp_path / "hf"),
        VITSEARCH_HOME=str(tmp_path / "own"),
        HF_HUB_OFFLINE="1",
    )
    assert {
        name: facts[name].value
        for name in (
            "HF_HOME",
            "VITSEARCH_HOME",
            "HF_HUB_OFFLINE",
            "downloaded models",
            "vitsearch's own cache",
        )
    } == {
        "HF_HOME": str(tmp_path / "hf"),
        "VITSEARCH_HOME": str(tmp_path / "own"),
        "HF_HUB_OFFLINE": "set: nothing is downloaded",
        "downloaded models": f"{tmp_path / 'hf/hub'} (1 models)",
        "vitsearch's own cache": str(tmp_path / "own"),
    }


@pytest.mark.slow
def test_broken_packages_do_not_end_the_diagnosis() -> None:
    pytest.importorskip("torch")
    pytest.importorskip("faiss")
    facts = elsewhere(
        "import sys; sys.modules.update(torch=None, faiss=None, onnxruntime=None)\n" + PRINT
    )
    assert facts["gpu"].value.startswith("not looked for: torch cannot be imported: ")
    assert "cannot be imported" in facts["faiss"].value
    assert facts["onnxruntime providers"].value.startswith("cannot be imported: ")
    assert None not in {facts[name].hint for name in ("gpu", "faiss", "onnxruntime providers")}


@pytest.mark.slow
def test_a_light_installation_says_which_extra_brings_what(tmp_path: Path) -> None:
    """Only the core is on the path of this process."""
    site = Path(importlib.metadata.distribution("numpy").locate_file("")).resolve()
    for name in ("numpy", "pil", "onnxruntime", "tokenizers", "safetensors", "click", "tqdm"):
        for folder in [
            path
            for path in site.iterdir()
            if path.name.lower().startswith(name)
            and "heif" not in path.name
            and "jxl" not in path.name
        ]:
            (tmp_path / folder.name).symlink_to(folder)
    facts = elsewhere(
        f"import sys; sys.path[:0] = [{str(tmp_path)!r}, {str(ROOT)!r}]\n" + PRINT, "-S", "-I"
    )
    hints = {name: facts[name].hint for name in ("torch", "faiss", "gpu", "HEIC photos")}
    assert {name: facts[name].value for name in hints} == {
        "torch": "not installed",
        "faiss": "not installed (exact search is used)",
        "gpu": "not looked for: PyTorch is not installed",
        "HEIC photos": "no",
    }
    assert {
        name: (hint or "")[(hint or "").find("pip install") :] for name, hint in hints.items()
    } == {
        "torch": "pip install 'vitsearch[clip]'",
        "faiss": "pip install 'vitsearch[faiss]'",
        "gpu": "pip install 'vitsearch[clip]'",
        "HEIC photos": "pip install 'vitsearch[heif]'",
    }
    assert facts["numpy"] == Fact("numpy", importlib.metadata.version("numpy"))


def pytorch(*, gpus: int = 0, cuda: str | None = "13.0", mps: bool = False) -> Any:
    """What `doctor` asks of PyTorch on machines that are not here."""
    facts = SimpleNamespace(name="Test GPU", total_memory=24 * 2**30)
    return SimpleNamespace(
        cuda=SimpleNamespace(
            is_available=lambda: gpus > 0,
            device_count=lambda: gpus,
            get_device_properties=lambda number: facts,
        ),
        backends=SimpleNamespace(mps=SimpleNamespace(is_available=lambda: mps)),
        version=SimpleNamespace(cuda=cuda),
    )


@pytest.mark.parametrize(
    ("torch", "environment", "told"),
    [
        (pytorch(gpus=2), {}, "cuda:0 Test GPU, 24 GiB; cuda:1 Test GPU, 24 GiB"),
        (pytorch(cuda=None, mps=True), {}, "Apple GPU (mps)"),
        (pytorch(cuda=None), {}, "none: this build of PyTorch is for the CPU only"),
        (
            pytorch(),
            {"CUDA_VISIBLE_DEVICES": ""},
            "none: CUDA_VISIBLE_DEVICES hides every GPU",
        ),
        ("cannot be imported (broken)", {}, "not looked for: torch cannot be imported (broken)"),
    ],
)
def test_gpus_of_other_machines(
    torch: Any, environment: dict[str, str], told: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(doctor, "_version", lambda name: "2.9")
    monkeypatch.setattr(doctor, "_imported", lambda name: torch)
    assert doctor._gpu().value == told


def test_two_builds_of_faiss_and_a_limit_of_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "_version", lambda name: "1.15")
    assert "pip uninstall" in (doctor._faiss().hint or "")
    monkeypatch.setattr(doctor, "_first_line", lambda path: str(2**30))
    assert doctor._memory().endswith(", limited to 1.0 GiB")
    monkeypatch.setattr(doctor.platform, "machine", lambda: "arm64")
    assert doctor._vector_instructions() == Fact("vector instructions", "those of arm64")
