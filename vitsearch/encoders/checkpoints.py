"""The files of a model: which are required, the small ones read with errors that name the file, and
the Hugging Face cache, looked up without importing its libraries.
"""

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from vitsearch.errors import EncoderError

RequiredFiles = Sequence[
    Sequence[str]
]  # of each group one file is needed, the first names preferred

TRANSFORMERS_FILES: RequiredFiles = [
    ["config.json"],
    ["model.safetensors", "model.safetensors.index.json", "pytorch_model.bin"],
    ["preprocessor_config.json", "processor_config.json"],
    ["tokenizer.json", "vocab.json", "spiece.model", "tokenizer.model"],
]
_TEXTS = {".json", ".txt", ".model"}
_WEIGHTS = {".safetensors", ".bin", ".pth"}


def open_clip_files(weights: str | None = None) -> RequiredFiles:
    """Return the files of an open_clip repository: its weights, under the usual name or another,
    safetensors preferred.
    """
    if not weights:
        return [["open_clip_model.safetensors", "open_clip_pytorch_model.bin"]]
    return [[str(Path(weights).with_suffix(".safetensors")), weights]]


def fingerprint_files(folder: Path, *, weights: bool = True) -> list[Path]:
    """Return the files of a model's folder that can move a vector, by name: settings, vocabularies
    and, if wanted, weights.
    """
    kinds = _TEXTS | (_WEIGHTS if weights else set())
    return sorted(file for file in folder.glob("*") if file.suffix in kinds and file.is_file())


def missing_from(folder: Path, needed: RequiredFiles) -> str | None:
    """Return the first name of the first group of which the folder has no file, or None where every
    group has one.
    """
    for group in needed:
        if not any((folder / name).is_file() for name in group):
            return group[0]
    return None


def check_saved(folder: Path, needed: RequiredFiles, name: str) -> None:
    """Raise EncoderError naming the first file that a folder of transformers lacks."""
    missing = missing_from(folder, needed)
    if missing:
        raise EncoderError(
            f"{name} lacks the file {folder / missing}: save the model again with its "
            "processor (save_pretrained)"
        )


def local_folder(path: str) -> Path:
    """Return the folder of a model named by its path; raises EncoderError where there is none."""
    folder = Path(path).expanduser().resolve()
    if not folder.is_dir():
        raise EncoderError(
            f"there is no folder {folder}: local-dir: takes the folder of a model, as in "
            "local-dir:/path/to/model"
        )
    return folder


def read_json(file: Path, name: str) -> dict[str, Any]:
    """Return the object in a JSON file; raises EncoderError where it is damaged."""
    try:
        value = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise EncoderError(
            f"{name}: the file {file} is damaged ({one_line(error)}): fetch it again"
        ) from error
    if not isinstance(value, dict):
        raise EncoderError(f"{name}: the file {file} is damaged (no object in it): fetch it again")
    return value


def one_line(error: BaseException) -> str:
    """Return an error's text in one line, at most 200 letters, without a full stop."""
    text = " ".join(str(error).split()) or type(error).__name__
    return text[:200].rstrip(".")


def hub_cache() -> Path:
    """Return the cache folder of the Hugging Face hub: ``$HF_HUB_CACHE``, else ``$HF_HOME/hub``,
    else ``~/.cache/huggingface/hub``.
    """
    chosen = os.environ.get("HF_HUB_CACHE") or os.environ.get("HUGGINGFACE_HUB_CACHE")
    if chosen:
        return Path(chosen).expanduser()
    cache_dir = (
        os.environ.get("HF_HOME")
        or Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache") / "huggingface"
    )
    return Path(cache_dir).expanduser() / "hub"


def cached_snapshot(repo: str) -> Path | None:
    """Return the folder of the newest downloaded state of a repository's main branch, or None."""
    folder = hub_cache() / f"models--{repo.replace('/', '--')}"
    try:
        revision = (folder / "refs" / "main").read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError):
        return None
    snapshot = folder / "snapshots" / revision
    return snapshot if revision and snapshot.is_dir() else None


def is_cached(repo: str, needed: RequiredFiles) -> bool:
    """Return whether every needed group of a repository is on this machine."""
    snapshot = cached_snapshot(repo)
    return snapshot is not None and missing_from(snapshot, needed) is None
