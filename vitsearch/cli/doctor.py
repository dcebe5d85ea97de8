"""`vitsearch doctor` and `vitsearch completion`: what is installed and works, and completion of
commands by the shell.
"""

import importlib
import importlib.metadata
import os
import platform
import sqlite3
import sys
import warnings
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import click
from click.shell_completion import get_completion_class

from vitsearch._version import __version__
from vitsearch.cli.options import JSON
from vitsearch.cli.output import fitting_here, print_json, print_line, printable
from vitsearch.encoders import SOURCES, package_sources
from vitsearch.encoders.checkpoints import hub_cache
from vitsearch.paths import cache_dir
from vitsearch.photos.formats import FORMATS, VIDEO

_CORE = ("numpy", "pillow", "onnxruntime", "tokenizers", "safetensors")
_MODELS = {
    **dict.fromkeys(("torch", "torchvision", "open_clip_torch", "transformers"), "clip"),
    "sentence-transformers": "st",
}
_FAISS = ("faiss-cpu", "faiss-gpu", "faiss-gpu-cuvs")


@dataclass(frozen=True, slots=True)
class Fact:
    """One finding; ``hint`` says what to do about it, None where all is well."""

    name: str
    value: str
    hint: str | None = None


@click.command()
@JSON
def doctor(as_json: bool) -> int:
    """Print versions, processor, GPU (or why there is none), FAISS and where models
    are looked for.
    """
    facts = diagnose()
    if as_json:
        for item in facts:
            print_json(asdict(item))
    else:
        width = max(len(item.name) for item in facts)
        for item in facts:
            print_line(f"{item.name.ljust(width)}  {printable(item.value)}")
            if item.hint:
                print_line(f"{' ' * width}  ({fitting_here(printable(item.hint))})")
    return 0


def diagnose() -> list[Fact]:
    """Return what matters to vitsearch about this machine and its packages; takes seconds where
    PyTorch is installed.
    """
    return [
        *_software(),
        *_machine(),
        *_packages(),
        _faiss(),
        _onnx_runtime(),
        _gpu(),
        *_formats(),
        *_folders(),
    ]


def _software() -> Iterator[Fact]:
    yield Fact("vitsearch", __version__)
    yield Fact(
        "python",
        f"{platform.python_version()} ({platform.python_implementation()}, {sys.executable})",
    )
    yield Fact("platform", platform.platform())
    encoding = sys.getfilesystemencoding()
    yield Fact(
        "file names",
        encoding,
        None if encoding == "utf-8" else "start Python with -X utf8, or set a UTF-8 locale",
    )
    yield Fact("sqlite", sqlite3.sqlite_version)


def _machine() -> Iterator[Fact]:
    cores = os.cpu_count() or 1
    usable = len(os.sched_getaffinity(0)) if sys.platform == "linux" else cores
    yield Fact("cores", f"{cores}" if usable == cores else f"{usable} of {cores}")
    yield Fact("memory", _memory())
    yield _vector_instructions()


def _memory() -> str:
    try:
        total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):
        return "unknown"
    limit = _first_line("/sys/fs/cgroup/memory.max")
    limited = ""
    if limit.isdigit() and int(limit) < total:
        limited = f", limited to {int(limit) / 2**30:.1f} GiB"
    return f"{total / 2**30:.1f} GiB{limited}"


def _first_line(path: str) -> str:
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return file.readline().strip()
    except OSError:
        return ""


def _vector_instructions() -> Fact:
    name, machine = "vector instructions", platform.machine().lower()
    if machine not in ("x86_64", "amd64", "i686", "x86"):
        return Fact(name, f"those of {machine or 'an unknown processor'}")
    try:
        flags = set(Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").split())
    except OSError:
        return Fact(name, "unknown (the system does not list them)")
    extensions = [
        name for flag, name in (("avx2", "AVX2"), ("avx512f", "AVX-512")) if flag in flags
    ]
    return Fact(
        name,
        ", ".join(extensions) or "no AVX2",
        None if "AVX2" in extensions else "encoding and FAISS will be slow on this processor",
    )


def _packages() -> Iterator[Fact]:
    for name in _CORE:
        version = _version(name)
        yield Fact(
            name,
            version or "missing",
            None if version else "the core needs it: pip install --force-reinstall vitsearch",
        )
    for name, extra in _MODELS.items():
        version = _version(name)
        hint = f"only for {_sources_of(extra)} models: pip install 'vitsearch[{extra}]'"
        yield Fact(name, version or "not installed", None if version else hint)
    for source, package in package_sources().items():
        yield Fact(f"encoders {source}", f"from the package {package}")


def _sources_of(extra: str) -> str:
    """Return the sources of encoders that need an extra, as a message names them."""
    *names, last = (f"{each.name}:" for each in SOURCES.values() if each.extra == extra)
    return f"{', '.join(names)} and {last}" if names else last


def _version(distribution: str) -> str | None:
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return None


def _imported(module: str) -> Any:
    """Return the module, or the one-line reason why it cannot be imported; a broken package must
    not end the diagnosis.
    """
    try:
        return importlib.import_module(module)
    except Exception as error:
        return f"cannot be imported: {' '.join(str(error).split())[:200]}"


def _faiss() -> Fact:
    installed = [name for name in _FAISS if _version(name)]
    if len(installed) > 1:
        hint = (
            "both give the module faiss and overwrite each other: pip uninstall "
            f"{' '.join(installed)}, then install one"
        )
        return Fact("faiss", " and ".join(installed), hint)
    faiss = _imported("faiss")
    if isinstance(faiss, str):
        if not installed:
            return Fact(
                "faiss",
                "not installed (exact search is used)",
                "for more than some ten thousand photos: pip install 'vitsearch[faiss]'",
            )
        return Fact(
            "faiss", f"{installed[0]} {faiss}", f"pip install --force-reinstall {installed[0]}"
        )
    origin = installed[0] if installed else "of unknown origin"
    options = faiss.get_compile_options().split()
    gpu_count = int(faiss.get_num_gpus()) if hasattr(faiss, "get_num_gpus") else 0
    value = f"{faiss.__version__} ({origin}; {' '.join(options)}; GPUs: {gpu_count})"
    blind = origin.startswith("faiss-gpu") and gpu_count == 0
    return Fact(
        "faiss",
        value,
        "the GPU build sees no GPU: it searches on the CPU, as faiss-cpu does" if blind else None,
    )


def _onnx_runtime() -> Fact:
    runtime = _imported("onnxruntime")
    if isinstance(runtime, str):
        return Fact(
            "onnxruntime providers",
            runtime,
            "mini runs on it: pip install --force-reinstall onnxruntime",
        )
    return Fact("onnxruntime providers", ", ".join(runtime.get_available_providers()))


def _gpu() -> Fact:
    if _version("torch") is None:
        return Fact(
            "gpu",
            "not looked for: PyTorch is not installed",
            "mini and colour need no GPU; for other models: pip install 'vitsearch[clip]'",
        )
    torch = _imported("torch")
    if isinstance(torch, str):
        return Fact("gpu", f"not looked for: torch {torch}", "pip install --force-reinstall torch")
    # PyTorch warns of an old or broken driver
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        is_available = bool(torch.cuda.is_available())
    if is_available:
        names = [_gpu_name(torch, number) for number in range(torch.cuda.device_count())]
        return Fact("gpu", "; ".join(names))
    if torch.backends.mps.is_available():
        return Fact("gpu", "Apple GPU (mps)")
    return _no_gpu(torch, " ".join(str(warned[0].message).split())[:200] if warned else "")


def _gpu_name(torch: Any, number: int) -> str:
    facts = torch.cuda.get_device_properties(number)
    return f"cuda:{number} {facts.name}, {facts.total_memory / 2**30:.0f} GiB"


def _no_gpu(torch: Any, warning: str) -> Fact:
    built_for = torch.version.cuda or getattr(torch.version, "hip", None)
    if built_for is None:
        return Fact(
            "gpu",
            "none: this build of PyTorch is for the CPU only",
            "with an NVIDIA GPU, install the CUDA build of torch",
        )
    if os.environ.get("CUDA_VISIBLE_DEVICES") in ("", "-1"):
        return Fact(
            "gpu", "none: CUDA_VISIBLE_DEVICES hides every GPU", "unset CUDA_VISIBLE_DEVICES"
        )
    has_driver = sys.platform != "linux" or os.path.exists("/proc/driver/nvidia/version")
    if torch.version.cuda and not has_driver:
        return Fact(
            "gpu",
            f"none: no NVIDIA driver is loaded (PyTorch is built for CUDA {built_for})",
            "without an NVIDIA GPU all is well: models run on the CPU",
        )
    return Fact(
        "gpu",
        f"none: {warning or 'PyTorch finds no GPU'} (built for {built_for})",
        "update the GPU's driver, or install a torch built for an older CUDA",
    )


def _formats() -> Iterator[Fact]:
    of_pillow = [photo_format for photo_format in FORMATS if photo_format.extra is None]
    missing = [each.name for each in of_pillow if not each.is_supported()]
    supported = [each.name for each in of_pillow if each.name not in missing]
    hint = f"this Pillow cannot read {', '.join(missing)}; pip install pillow brings a full one"
    yield Fact("photo formats", ", ".join(supported), hint if missing else None)
    for photo_format in (*FORMATS, VIDEO):
        if (extra := photo_format.extra) is not None:
            version = _version(extra.distribution)
            yield Fact(
                "videos" if photo_format is VIDEO else f"{photo_format.name} photos",
                f"yes ({extra.distribution} {version})" if version else "no",
                None if version else f"for {extra.purpose}: {extra.install}",
            )


def _folders() -> Iterator[Fact]:
    models = hub_cache()
    count = len(list(models.glob("models--*"))) if models.is_dir() else 0
    yield Fact("downloaded models", f"{models} ({count} models)", None)
    for name in ("HF_HOME", "HF_HUB_CACHE", "VITSEARCH_HOME"):
        yield Fact(name, os.environ.get(name) or "not set")
    offline = os.environ.get("HF_HUB_OFFLINE", "").upper() in ("1", "ON", "YES", "TRUE")
    yield Fact(
        "HF_HUB_OFFLINE",
        "set: nothing is downloaded" if offline else "not set: a model you name may be downloaded",
    )
    yield Fact("vitsearch's own cache", str(cache_dir()))


# -- completion ------------------------------------------------------------------------------------


SHELLS = ("bash", "zsh", "fish")


@click.command()
@click.argument("shell", type=click.Choice(SHELLS))
def completion(shell: str) -> int:
    """Print what makes SHELL complete commands and options of vitsearch at the Tab key.

    \b
    bash:  echo 'eval "$(vitsearch completion bash)"' >> ~/.bashrc
    zsh:   echo 'eval "$(vitsearch completion zsh)"' >> ~/.zshrc
    fish:  vitsearch completion fish > ~/.config/fish/completions/vitsearch.fish
    """
    from vitsearch.cli import cli

    made = get_completion_class(shell)
    assert made is not None  # click has these three
    print_line(made(cli, {}, "vitsearch", "_VITSEARCH_COMPLETE").source())
    return 0
