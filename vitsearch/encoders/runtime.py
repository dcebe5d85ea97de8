"""Which library runs a CLIP or SigLIP model, PyTorch or ONNX Runtime, and the export that the second one needs."""

import ctypes
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vitsearch.encoders import exports
from vitsearch.encoders.model_files import one_line
from vitsearch.errors import EncoderError

if TYPE_CHECKING:
    from vitsearch.encoders.onnx_runtime import OnnxEncoder
    from vitsearch.encoders.torch_encoder import TorchEncoder

RUNTIMES = ("auto", "onnx", "torch")
PRECISIONS = ("float32", "int8")
_STALE_S = 86_400
InTorch = Callable[[str, str], "TorchEncoder"]  # from a device and a dtype
Tell = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Prepared:
    """An export: its folder, the bytes in it, whether it was made just now, and how far its vectors are from those of PyTorch in float32.

    ``difference`` is the largest of a number of a unit vector, ``cosine`` the least between two vectors, on fixed pictures and texts.
    """

    name: str
    dtype: str
    folder: str
    size_bytes: int
    made: bool
    difference: float
    cosine: float


def check_runtime(runtime: str, device: str, dtype: str) -> None:
    """Raise EncoderError for an unknown runtime and for one that cannot do what is asked."""
    if runtime not in RUNTIMES:
        raise EncoderError(f"unknown runtime {runtime!r}: use {', '.join(RUNTIMES)}")
    if runtime == "torch" and dtype == "int8":
        raise EncoderError("int8 runs on ONNX Runtime alone: use runtime auto, or another dtype")
    on_cpu = device in ("auto", "cpu")
    if (runtime == "onnx" or dtype == "int8") and not (on_cpu and dtype in ("auto", *PRECISIONS)):
        raise EncoderError(
            f"ONNX Runtime runs this model on the CPU in {' or '.join(PRECISIONS)}, not on {device!r} in {dtype!r}: use runtime torch"
        )


def find_encoder(name: str, device: str, dtype: str, runtime: str, in_torch: InTorch, *, bulk: bool = False) -> "OnnxEncoder | None":
    """Return the exported encoder where it is to be used and is there, else None; torch is not imported."""
    if not _is_for_onnx(device, dtype, runtime):
        return None
    precision = "int8" if dtype == "int8" else "float32"
    folder = exports.expected_folder(name, precision)
    facts = exports.read_facts(folder) if folder else None
    return _opened(name, folder, facts, in_torch, bulk) if folder and facts else None


def make_encoder(name: str, device: str, dtype: str, runtime: str, in_torch: InTorch, *, tell: Tell, bulk: bool = False) -> Any:
    """Return the encoder on ONNX Runtime, its export made now; with runtime auto, where that cannot be, on PyTorch, and ``tell`` why.

    Raises EncoderError where ONNX Runtime was asked for and the export cannot be made.
    """
    if not _is_for_onnx(device, dtype, runtime):
        return in_torch(device, dtype)
    encoder = in_torch("cpu", "float32")
    precision = "int8" if dtype == "int8" else "float32"
    must = runtime == "onnx" or dtype == "int8"
    try:
        folder = _made(encoder, precision, again=must)
    except EncoderError as error:
        if must:
            raise
        tell(f"{error} (it runs on torch now)")
        return encoder
    return _opened(encoder.name, folder, exports.read_facts(folder) or {}, in_torch, bulk)


def prepare_model(name: str, in_torch: InTorch, *, dtype: str = "float32") -> Prepared:
    """Make the export of a model in one number format where there is none that is whole, and return what is there.

    Raises EncoderError for a model that cannot be exported or loaded, or where the home of vitsearch cannot be written.
    """
    if dtype not in PRECISIONS:
        raise EncoderError(f"a model is exported in {' or '.join(PRECISIONS)}, not in {dtype!r}")
    folder = exports.expected_folder(name, dtype)
    facts = exports.read_facts(folder) if folder else None
    made = facts is None
    if folder is None or facts is None:
        folder = _made(in_torch("cpu", "float32"), dtype, again=True)
        facts = exports.read_facts(folder) or {}
    size = sum(file.stat().st_size for file in folder.iterdir())
    return Prepared(name, dtype, str(folder), size, made, **facts["measured"])


def _is_for_onnx(device: str, dtype: str, runtime: str) -> bool:
    if runtime == "torch" or device not in ("auto", "cpu") or dtype not in ("auto", *PRECISIONS):
        return False
    return runtime == "onnx" or dtype == "int8" or device == "cpu" or not has_gpu()


def _opened(name: str, folder: Path, facts: dict[str, Any], in_torch: InTorch, bulk: bool) -> "OnnxEncoder":
    from vitsearch.encoders.onnx_runtime import OnnxEncoder
    from vitsearch.encoders.sessions import share_cores

    shown = f"local-dir:{Path(name.partition(':')[2]).expanduser().resolve()}" if name.startswith("local-dir:") else facts["name"]
    return OnnxEncoder(shown, folder, facts, lambda: in_torch("cpu", "float32"), share_cores(bulk))


def _made(encoder: "TorchEncoder", dtype: str, *, again: bool) -> Path:
    """Return the folder of a whole export, written aside and renamed where there is none; ``again``: also where it was refused before."""
    final = exports.export_folder(encoder.name, dtype, encoder.towers.files)
    if final.is_dir() and exports.read_facts(final) is not None:
        return final
    refused = final.with_name(f"{final.name}-{exports.REFUSED}")
    if refused.is_file() and not again:
        raise EncoderError(refused.read_text(encoding="utf-8"))
    try:
        final.parent.mkdir(parents=True, exist_ok=True)
        _sweep(final.parent)
        aside = Path(tempfile.mkdtemp(dir=final.parent, prefix="new-"))
    except OSError as error:
        raise EncoderError(_unwritable(final, error)) from error
    try:
        _write(encoder, aside, dtype, refused)
        _put(aside, final)
    except OSError as error:
        raise EncoderError(_unwritable(final, error)) from error
    finally:
        shutil.rmtree(aside, ignore_errors=True)
    return final


def _write(encoder: "TorchEncoder", aside: Path, dtype: str, refused: Path) -> None:
    """Write an export; what speaks against it is kept, so that the next run need not try."""
    try:
        from vitsearch.encoders.onnx_export import write_export

        exports.write_facts(aside, write_export(encoder, aside, dtype))
    except ImportError as error:
        raise EncoderError(
            f"the export of {encoder.name} needs more packages ({one_line(error)}): pip install 'vitsearch[clip]'"
        ) from error
    except EncoderError as error:
        refused.write_text(str(error), encoding="utf-8")
        raise
    refused.unlink(missing_ok=True)


def _put(aside: Path, final: Path) -> None:
    """Rename a new export to its place; a damaged one that is there goes, a whole one, which another process made meanwhile, stays."""
    if final.exists():
        if exports.read_facts(final) is not None:
            return
        old = Path(tempfile.mkdtemp(dir=final.parent, prefix="old-"))
        os.replace(final, old / "export")
        shutil.rmtree(old, ignore_errors=True)
    aside.chmod(0o755)
    os.replace(aside, final)


def _sweep(folder: Path) -> None:
    """Take away what exports that were stopped left behind."""
    for left in [*folder.glob("new-*"), *folder.glob("old-*")]:
        if time.time() - left.stat().st_mtime > _STALE_S:
            shutil.rmtree(left, ignore_errors=True)


def _unwritable(final: Path, error: OSError) -> str:
    return f"no export can be written to {final.parent} ({error.strerror or one_line(error)}): set VITSEARCH_HOME to another folder"


def has_gpu() -> bool:
    """Tell whether PyTorch might find a GPU here, by its driver: torch itself takes seconds to import."""
    if os.path.exists("/dev/kfd"):  # AMD's
        return True
    try:
        driver = ctypes.CDLL("nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1")
        count = ctypes.c_int(0)
        return driver.cuInit(0) == 0 and driver.cuDeviceGetCount(ctypes.byref(count)) == 0 and count.value > 0
    except (OSError, AttributeError):
        return False
