"""The files of a model: which are required, their hash (kept by path, size and time), and
the Hugging Face cache, looked up without importing its libraries.
"""

import contextlib
import hashlib
import json
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import Any

from vitsearch.errors import EncoderError
from vitsearch.paths import cache_dir
from vitsearch.records import atomic_write
from vitsearch.untrusted import guarded, parse_json, read_bounded, reason

_CACHE_NAME = "weights.json"


def weights_hash(files: Sequence[Path]) -> str:
    """Return 32 hex digits that change with the name or the content of any of the files, whatever
    their order.

    Raises OSError for a file that cannot be read.
    """
    known = _read_cache()
    digests = {str(file.resolve()): _digest(file, known) for file in files}
    fresh = {path: entry for path, entry in digests.items() if known.get(path) != entry}
    if fresh:
        _write_cache({**_read_cache(), **fresh})  # another process may have added to it meanwhile
    lines = sorted(f"{file.name}\0{digests[str(file.resolve())][2]}" for file in files)
    return hashlib.blake2b("\n".join(lines).encode(), digest_size=16).hexdigest()


Entry = list[int | str]  # size, mtime_ns, digest


def _digest(file: Path, known: dict[str, Entry]) -> Entry:
    stat = file.stat()
    entry = known.get(str(file.resolve()))
    if entry is not None and entry[:2] == [stat.st_size, stat.st_mtime_ns]:
        return entry
    with file.open("rb") as stream:
        digest = hashlib.file_digest(stream, "blake2b").hexdigest()
    return [stat.st_size, stat.st_mtime_ns, digest]


def _read_cache() -> dict[str, Entry]:
    """Return the kept hashes; none where the file is missing or not ours, since each can be
    computed again.
    """
    try:
        cached = parse_json(read_bounded(cache_dir() / _CACHE_NAME))
    except (OSError, ValueError):
        return {}
    if not isinstance(cached, dict):
        return {}
    return {
        path: entry for path, entry in cached.items() if isinstance(entry, list) and len(entry) == 3
    }


def _write_cache(entries: dict[str, Entry]) -> None:
    """Write aside, then rename; a folder that cannot be written costs only the time of hashing
    again.
    """
    with contextlib.suppress(OSError):
        folder = cache_dir()
        folder.mkdir(parents=True, exist_ok=True)
        atomic_write(folder / _CACHE_NAME, json.dumps(entries), sync=False)


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
    with guarded(EncoderError, f"{name}: the file {file}", "fetch it again"):
        value = parse_json(read_bounded(file))
        if not isinstance(value, dict):
            raise ValueError("no object in it")
        return value


def one_line(error: BaseException) -> str:
    """Return an error's text in one line, at most 200 letters, without a full stop."""
    if isinstance(error, MemoryError | RecursionError):
        return reason(error)
    text = " ".join(str(error).split()) or type(error).__name__
    return text[:200].rstrip(".")


# who names the model that is being loaded, where that is a file and not the user
_NAMED_BY: ContextVar[str] = ContextVar("named by", default="")
_ALLOWED: ContextVar[bool] = ContextVar("downloads allowed", default=False)


@contextmanager
def named_by(where: str) -> Iterator[None]:
    """Have models loaded in the block come from this machine or not at all, since it is not the
    user but a file that names them; in `downloads_allowed` they may be downloaded.
    """
    token = _NAMED_BY.set(where)
    try:
        yield
    finally:
        _NAMED_BY.reset(token)


@contextmanager
def downloads_allowed() -> Iterator[None]:
    """Have models downloaded in the block that files name."""
    token = _ALLOWED.set(True)
    try:
        yield
    finally:
        _ALLOWED.reset(token)


def check_download(repo: str) -> None:
    """Raise EncoderError where the user has not named the model that would be downloaded."""
    if (where := _NAMED_BY.get()) and not _ALLOWED.get():
        raise EncoderError(
            f"{where} names the model {repo}, which is not on this machine, and the hub is not "
            "asked because a file says so: give --allow-download if you trust it, or name it "
            "yourself (--encoder NAME, or load_encoder(NAME) in Python)"
        )


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
