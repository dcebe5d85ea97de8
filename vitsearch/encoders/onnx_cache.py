"""Where exported models are kept, whether one is complete, and which library runs a CLIP or SigLIP
model.

An export is ``$VITSEARCH_HOME/onnx/KEY/`` with ``export.json`` and the graphs. KEY is made of the
hash of the files that the model came from, the number format and `EXPORTER`; a collection holds
none of it.
"""

import ctypes
import json
import logging
import os
import shutil
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vitsearch.encoders.base import fingerprint_of
from vitsearch.encoders.checkpoints import (
    cached_snapshot,
    fingerprint_files,
    one_line,
    weights_hash,
)
from vitsearch.errors import EncoderError
from vitsearch.paths import cache_dir
from vitsearch.records import atomic_folder, atomic_write
from vitsearch.untrusted import parse_json, read_bounded

if TYPE_CHECKING:
    from vitsearch.encoders.onnx import OnnxEncoder
    from vitsearch.encoders.torch_encoder import TorchEncoder

log = logging.getLogger("vitsearch")

EXPORTER = 1  # raised when exports made before are no longer usable
# of the graphs: since 2 the last layers compute one token alone where that is enough, since 3
# attention is one operation, since 4 open_clip's text towers take texts without padding
REVISION = 4
FACTS = "export.json"
_DERIVED = ("optimised-", ".")  # begin the names of what an export does not need
REFUSED = "refused.txt"  # why a model cannot be exported, so that it is not tried at each run
RUNTIMES = ("auto", "onnx", "torch")
PRECISIONS = ("float32", "int8")
_STALE_S = 86_400
InTorch = Callable[[str, str], "TorchEncoder"]  # from a device and a dtype


def exports_folder() -> Path:
    """Return the folder of all exports."""
    return cache_dir() / "onnx"


def export_folder(name: str, dtype: str, files: Sequence[Path]) -> Path:
    """Return the folder of one model's export in one number format; raises OSError for a file that
    cannot be read.

    A model in a folder is known by its files alone, one of open_clip's list also by its name, which
    brings the architecture.
    """
    known_by = name if name.startswith("open_clip:") else ""
    # exports of NLLB-CLIP made before 2 take every text for English
    exporter = EXPORTER + 1 if "nllb" in known_by.lower() else EXPORTER
    key = fingerprint_of(
        {"name": known_by, "files": weights_hash(files), "dtype": dtype, "exporter": exporter}
    )
    return exports_folder() / key


def expected_folder(name: str, dtype: str) -> Path | None:
    """Return where the export of a named model is or would be, found without torch; None where the
    model is not on this machine.
    """
    source, _, model = name.partition(":")
    if source == "open_clip":
        return _open_clip_folder(f"open_clip:{canonical(model)}", dtype)
    folder = Path(model).expanduser().resolve() if source == "local-dir" else cached_snapshot(model)
    files = fingerprint_files(folder) if folder is not None and folder.is_dir() else []
    try:
        return export_folder(name, dtype, files) if files else None
    except OSError:
        return None


def canonical(model: str) -> str:
    """Return ARCH/TAG as open_clip spells it; ``ViT-B/32/openai`` is understood too."""
    architecture, _, tag = model.rpartition("/")
    return f"{architecture.replace('/', '-')}/{tag.lower().replace('-', '_')}"


def write_facts(folder: Path, facts: Mapping[str, Any]) -> None:
    """Write ``export.json`` with the hash of the facts and of every file beside it."""
    content = {"facts": dict(facts), "files": weights_hash(_parts(folder))}
    text = json.dumps({**content, "checksum": fingerprint_of(content)}, indent=1)
    atomic_write(folder / FACTS, text + "\n")


def read_facts(folder: Path) -> dict[str, Any] | None:
    """Return the facts of an export, or None where there is none, or where it is cut or altered,
    or takes every text for English since it was made before its model was told languages.

    A file is read again only when its size or its time changed.
    """
    stored = _read(folder)
    if stored is None:
        return None
    try:
        is_complete = stored["files"] == weights_hash(_parts(folder))
    except OSError:
        return None
    facts: dict[str, Any] = stored["facts"]
    return facts if is_complete and not _lacks_languages(folder, facts) else None


def _lacks_languages(folder: Path, facts: Mapping[str, Any]) -> bool:
    rules = facts.get("tokens")
    if rules is None or "languages" in rules:
        return False
    from vitsearch.encoders.onnx import TOKENIZER

    try:
        return b"eng_Latn" in (folder / TOKENIZER).read_bytes()
    except OSError:
        return True


def _read(folder: Path) -> dict[str, Any] | None:
    """Return ``export.json`` where it is as it was written."""
    try:
        stored = parse_json(read_bounded(folder / FACTS))
        checksum = stored.pop("checksum")
    except (OSError, ValueError, LookupError, AttributeError, TypeError):
        return None
    return stored if checksum == fingerprint_of(stored) else None


def _parts(folder: Path) -> list[Path]:
    """Return the files that an export needs; optimised graphs have hashes of their own."""
    files = (file for file in folder.iterdir() if not file.name.startswith(_DERIVED))
    return sorted(file for file in files if file.name != FACTS)


def _refresh_optimised(folder: Path, facts: dict[str, Any]) -> bool:
    """Write the graphs of an export as ONNX Runtime optimises them here, where they are of another
    version or machine, and return whether that was done; without the packages that make exports,
    or where nothing can be written, they stay as they are.
    """
    from vitsearch.encoders.onnx import is_optimised

    if is_optimised(folder, facts.get("optimised") or {}):
        return False
    with suppress(ImportError, OSError, EncoderError):
        from vitsearch.encoders.onnx_export import write_optimised

        facts["optimised"] = write_optimised(folder)
        write_facts(folder, facts)
        return True
    return False


def _open_clip_folder(name: str, dtype: str) -> Path | None:
    """Return the export that says it was made from this model, if the files that it was made from
    are still there, and the newest.
    """
    for folder, stored in _all_exports():
        facts = stored["facts"]
        if (facts.get("name"), facts.get("dtype")) != (name, dtype):
            continue
        files = [Path(file) for file in facts["sources"]]
        if all(map(_is_current, files)) and export_folder(name, dtype, files) == folder:
            return folder
    return None


def _all_exports() -> Iterator[tuple[Path, dict[str, Any]]]:
    for file in sorted(exports_folder().glob(f"*/{FACTS}")):
        stored = _read(file.parent)
        if stored is not None:
            yield file.parent, stored


def _is_current(file: Path) -> bool:
    """Return whether a file is there and, in a cache of the hub, of the newest downloaded state."""
    if not file.is_file():
        return False
    snapshots = file.parent.parent
    if snapshots.name != "snapshots":
        return True
    try:
        return (snapshots.parent / "refs" / "main").read_text(
            encoding="utf-8"
        ).strip() == file.parent.name
    except OSError:
        return False


@dataclass(frozen=True, slots=True)
class OnnxExport:
    """An export: its folder, the bytes in it, whether it was made just now, and how far its vectors
    are from those of PyTorch in float32.

    ``difference`` is the largest of a number of a unit vector, ``cosine`` the least between two
    vectors, on fixed pictures and texts.
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
            f"ONNX Runtime runs this model on the CPU in {' or '.join(PRECISIONS)}, not on "
            f"{device!r} in {dtype!r}: use runtime torch"
        )


def find_encoder(
    name: str,
    device: str,
    dtype: str,
    runtime: str,
    in_torch: InTorch,
    *,
    throughput: bool = False,
    refresh: bool = False,
) -> "OnnxEncoder | None":
    """Return the exported encoder where it is to be used and is there, else None; torch is not
    imported but, with ``refresh``, to optimise its graphs for another version of ONNX Runtime.
    """
    if not _is_for_onnx(device, dtype, runtime):
        return None
    precision = "int8" if dtype == "int8" else "float32"
    folder = expected_folder(name, precision)
    facts = read_facts(folder) if folder else None
    if folder is None or facts is None:
        return None
    if refresh:
        _refresh_optimised(folder, facts)
    return _opened(name, folder, facts, in_torch, throughput)


def make_encoder(
    name: str,
    device: str,
    dtype: str,
    runtime: str,
    in_torch: InTorch,
    *,
    throughput: bool = False,
) -> Any:
    """Return the encoder on ONNX Runtime, its export made now; with runtime auto, where that cannot
    be, on PyTorch, and log why.

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
        log.warning(f"{error} (it runs on torch now)")
        return encoder
    return _opened(encoder.name, folder, read_facts(folder) or {}, in_torch, throughput)


def prepare_model(name: str, in_torch: InTorch, *, dtype: str = "float32") -> OnnxExport:
    """Make the export of a model in one number format where there is none that is complete, or one
    in float32 that a newer version makes faster, and return what is there.

    Raises EncoderError for a model that cannot be exported or loaded, or where the home of
    vitsearch cannot be written.
    """
    if dtype not in PRECISIONS:
        raise EncoderError(f"a model is exported in {' or '.join(PRECISIONS)}, not in {dtype!r}")
    folder = expected_folder(name, dtype)
    facts = read_facts(folder) if folder else None
    made = facts is None or _is_slower(facts)
    if folder is None or facts is None or made:
        folder = _made(in_torch("cpu", "float32"), dtype, again=True, newest=True)
        facts = read_facts(folder) or {}
    made = _refresh_optimised(folder, facts) or made
    size = sum(file.stat().st_size for file in folder.iterdir())
    return OnnxExport(name, dtype, str(folder), size, made, **facts["measured"])


def _is_for_onnx(device: str, dtype: str, runtime: str) -> bool:
    if runtime == "torch" or device not in ("auto", "cpu") or dtype not in ("auto", *PRECISIONS):
        return False
    return runtime == "onnx" or dtype == "int8" or device == "cpu" or not has_gpu()


def _opened(
    name: str, folder: Path, facts: dict[str, Any], in_torch: InTorch, throughput: bool
) -> "OnnxEncoder":
    from vitsearch.encoders.onnx import OnnxEncoder, thread_plan

    shown = (
        f"local-dir:{Path(name.partition(':')[2]).expanduser().resolve()}"
        if name.startswith("local-dir:")
        else facts["name"]
    )
    return OnnxEncoder(
        shown, folder, facts, lambda: in_torch("cpu", "float32"), thread_plan(throughput)
    )


def _is_slower(facts: Mapping[str, Any]) -> bool:
    """Return whether an export is made faster now, with the same vectors: in int8 these would move,
    since values are rounded by the range of all that is computed together.
    """
    return facts["dtype"] == "float32" and facts.get("revision", 1) < REVISION


def _made(encoder: "TorchEncoder", dtype: str, *, again: bool, newest: bool = False) -> Path:
    """Return the folder of a complete export, written aside and renamed where there is none;
    ``again``: also where it was refused before; ``newest``: also where it is made faster now.
    """
    if not hasattr(encoder, "towers"):
        raise EncoderError(f"{encoder.name} has no export for ONNX Runtime: use runtime torch")
    final = export_folder(encoder.name, dtype, encoder.towers.files)

    def is_there() -> bool:
        facts = read_facts(final) if final.is_dir() else None
        return facts is not None and not (newest and _is_slower(facts))

    if is_there():
        return final
    refused = final.with_name(f"{final.name}-{REFUSED}")
    if refused.is_file() and not again:
        raise EncoderError(refused.read_text(encoding="utf-8"))
    try:
        final.parent.mkdir(parents=True, exist_ok=True)
        _sweep(final.parent)
        with atomic_folder(
            final, prefix="new-", unless=is_there
        ) as aside:  # a damaged export goes, a whole one that another process made meanwhile stays
            _write(encoder, aside, dtype, refused)
    except OSError as error:
        raise EncoderError(_unwritable(final, error)) from error
    return final


def _write(encoder: "TorchEncoder", aside: Path, dtype: str, refused: Path) -> None:
    """Write an export; what speaks against it is kept, so that the next run need not try."""
    try:
        from vitsearch.encoders.onnx_export import write_export

        float32 = export_folder(encoder.name, "float32", encoder.towers.files)
        stored = read_facts(float32) if dtype == "int8" and float32.is_dir() else None
        is_newest = stored is not None and not _is_slower(stored)
        facts = write_export(encoder, aside, dtype, float32 if is_newest else None)
        facts["revision"] = REVISION
        write_facts(aside, facts)
        _refresh_optimised(aside, facts)
    except ImportError as error:
        raise EncoderError(
            f"the export of {encoder.name} needs more packages ({one_line(error)}): pip "
            "install 'vitsearch[clip]'"
        ) from error
    except EncoderError as error:
        refused.write_text(str(error), encoding="utf-8")
        raise
    refused.unlink(missing_ok=True)


def _sweep(folder: Path) -> None:
    """Take away what exports that were stopped left behind."""
    for left in folder.glob("new-*"):
        if time.time() - left.stat().st_mtime > _STALE_S:
            shutil.rmtree(left, ignore_errors=True)


def _unwritable(final: Path, error: OSError) -> str:
    return (
        f"no export can be written to {final.parent} ({error.strerror or one_line(error)}): "
        "set VITSEARCH_HOME to another folder"
    )


def has_gpu() -> bool:
    """Return whether PyTorch might find a GPU here, by its driver: torch itself takes seconds to
    import.
    """
    if os.path.exists("/dev/kfd"):  # AMD's
        return True
    try:
        driver = ctypes.CDLL("nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1")
        count = ctypes.c_int(0)
        return (
            driver.cuInit(0) == 0
            and driver.cuDeviceGetCount(ctypes.byref(count)) == 0
            and count.value > 0
        )
    except (OSError, AttributeError):
        return False
