"""The files of a model: which are required, their hash (kept by path, size and time), what their
settings may ask for, and the Hugging Face cache, looked up without importing its libraries.

Libraries build what the settings say before they read the weights, so that ten million layers take
for ever and one huge one takes all memory.
"""

import contextlib
import hashlib
import json
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import Any

from vitsearch.errors import EncoderError
from vitsearch.paths import cache_dir
from vitsearch.records import atomic_write
from vitsearch.untrusted import guarded, parse_json, read_bounded, reason

_CACHE_NAME = "weights.json"
MAX_SIDE = 2048  # pixels of a model's input
MAX_LAYERS = 1024
MAX_POSITIONS = 8192
MAX_WIDTH = 32_768
MAX_WORDS = 4_194_304
MAX_GROWTH = 64  # of a text in a tokenizer's replacements
SPARE_PARAMETERS = 16_777_216  # that may be missing in the files: a head, position tables

_LIMITS = (  # the first that fits the last part of a setting's name
    (re.compile(r"vocab|token|_id$|index|label"), MAX_WORDS),
    (re.compile(r"layer|depth|block|head|group|stage|expert|num_channels"), MAX_LAYERS),
    (re.compile(r"position|context|length|seq"), MAX_POSITIONS),
    (re.compile(r"image|img|input_size|crop|patch|grid|window|kernel|stride"), MAX_SIDE),
    (re.compile(r"size|width|dim|hidden|intermediate|mlp|ratio|rank|channels"), MAX_WIDTH),
)
_WIDTHS = ("hidden_size", "width")
_NAMES = ("label2id", "id2label", "label_names")  # of classes, whose names mean nothing here
_ROWS = ("vocab_size", "max_position_embeddings", "context_length")


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
    [
        "tokenizer.json",
        "vocab.json",
        "spiece.model",
        "tokenizer.model",
        "sentencepiece.bpe.model",
        "vocab.txt",
    ],
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


SENTENCE_TRANSFORMERS_MODULES = "modules.json"
_ROUTES = "router_config.json"  # of a part that has parts itself
_PARTS_WITH_WEIGHTS = (".Transformer", ".CLIPModel", ".Dense")
_WEIGHTS_OF_PART = ("model.safetensors", "model.safetensors.index.json")


def sentence_transformers_files(snapshot: Path | None) -> RequiredFiles:
    """Return the files of a model of sentence-transformers: the list of its parts and, as far as
    those on this machine tell, the settings and weights of each.
    """
    needed: list[list[str]] = [[SENTENCE_TRANSFORMERS_MODULES]]
    modules = _settings(snapshot, SENTENCE_TRANSFORMERS_MODULES)
    types = {
        str(each.get("path", "")): str(each.get("type", ""))
        for each in (modules if isinstance(modules, list) else [])
        if isinstance(each, dict)
    }
    for path, kind in list(types.items()):
        if kind.endswith(".Router"):
            routes = _settings(snapshot, _in(path, _ROUTES))
            needed.append([_in(path, _ROUTES)])
            inner = routes.get("types") if isinstance(routes, dict) else None
            for name, of in inner.items() if isinstance(inner, dict) else ():
                types[_in(path, name)] = str(of)
    for path, kind in types.items():
        if not kind.endswith(_PARTS_WITH_WEIGHTS):
            continue
        needed.append([_in(path, "config.json")])
        needed.append([_in(path, file) for file in _WEIGHTS_OF_PART])
        shards = _settings(snapshot, _in(path, _WEIGHTS_OF_PART[1]))
        files = shards.get("weight_map") if isinstance(shards, dict) else None
        if isinstance(files, dict):
            needed += [[_in(path, file)] for file in sorted(set(map(str, files.values())))]
    return needed


def is_plain_transformers(folder: Path) -> bool:
    """Return whether a folder of sentence-transformers holds a CLIP or SigLIP model as transformers
    saves it, without further parts and prompts: the vectors are those of transformers, as which
    such folders were always read.
    """
    config, modules = (
        _settings(folder, name) for name in ("config.json", SENTENCE_TRANSFORMERS_MODULES)
    )
    if not isinstance(config, dict) or config.get("model_type") not in ("clip", "siglip"):
        return False
    if not isinstance(modules, list) or not all(isinstance(each, dict) for each in modules):
        return False
    parts = [str(each.get("type")) for each in modules if each.get("path") == ""]
    others = [str(each.get("type")) for each in modules if each.get("path") != ""]
    if not parts or not all(each.endswith(".Normalize") for each in others):
        return False
    more = _settings(folder, "config_sentence_transformers.json")
    prompts = more.get("prompts") if isinstance(more, dict) else None
    return not any(prompts.values()) if isinstance(prompts, dict) else not prompts


def _in(path: str, name: str) -> str:
    return f"{path}/{name}" if path else name


def _settings(snapshot: Path | None, name: str) -> Any:
    """Return what a JSON file holds, None where it is not there or cannot be read."""
    try:
        return None if snapshot is None else parse_json(read_bounded(snapshot / name))
    except (OSError, ValueError):
        return None


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
# whether a model is opened for one query alone: then its weights are used as they lie in their
# files, which opens it in half the time and makes every later query slower
ONE_QUERY: ContextVar[bool] = ContextVar("one query", default=False)


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


# -- Bounds of a model's settings ------------------------------------------------------------------


def check_settings(settings: Mapping[str, Any], files: Sequence[Path], name: str) -> None:
    """Raise EncoderError where the settings of a model ask for more than a model has, or for tables
    larger than its weights in ``files``.
    """
    for key, number in _numbers(settings):
        limit = next((limit for kind, limit in _LIMITS if kind.search(key)), None)
        if limit is not None and not -limit <= number <= limit:
            raise EncoderError(
                f"{name} says that its {key} is {number:,}, more than {limit:,}: fetch it again"
            )
    stored = _bytes(files)
    for part in _parts(settings):
        width = max((part[key] for key in _WIDTHS if _is_count(part.get(key))), default=1)
        rows = max((part[key] for key in _ROWS if _is_count(part.get(key))), default=1)
        side, patch = part.get("image_size"), part.get("patch_size")
        if isinstance(side, int) and isinstance(patch, int) and patch > 0:
            rows = max(rows, (side // patch) ** 2)
        if rows * width > stored + SPARE_PARAMETERS:
            raise EncoderError(
                f"{name} says that it has a table of {rows:,} x {width:,} numbers, more than its "
                f"weights hold ({stored:,} bytes): fetch it again"
            )


def check_parameters(count: int, files: Sequence[Path], name: str) -> None:
    """Raise EncoderError where a model has far more parameters than its files have bytes."""
    stored = _bytes(files)
    if count > stored + SPARE_PARAMETERS:
        raise EncoderError(
            f"{name} says that it has {count:,} parameters, more than its weights hold "
            f"({stored:,} bytes): fetch it again"
        )


def check_sides(values: object, name: str) -> None:
    """Raise EncoderError where a saved processor makes pictures larger than any model reads."""
    if not isinstance(values, Mapping):
        return
    for key, number in _numbers(values):
        if re.search(r"size|crop|height|width|edge|resize|pad", key) and number > MAX_SIDE:
            raise EncoderError(
                f"{name} says that pictures become {number:,} pixels wide or high, more than "
                f"{MAX_SIDE:,} ({key}): fetch it again"
            )


def check_tokenizer(tokenizer: Any, name: str) -> None:
    """Raise EncoderError for a tokenizer of `tokenizers` whose replacements, one after the other,
    make a text many times longer.
    """
    check_growth(growth_of(tokenizer), name)


def growth_of(tokenizer: Any) -> float:
    """Return how many times longer the replacements of a tokenizer may make a text."""
    normalizer = getattr(tokenizer, "normalizer", None)
    return _growth(json.loads(normalizer.__getstate__()) if normalizer is not None else None)


def check_growth(growth: float, name: str) -> None:
    """Raise EncoderError for a tokenizer that makes a text many times longer."""
    if growth > MAX_GROWTH:
        raise EncoderError(
            f"{name}: the tokenizer makes a text {growth:,.0f} times longer before it reads it: "
            "fetch it again"
        )


def _growth(step: Any) -> float:
    """Return how many times longer a normalizer may make a text."""
    if not isinstance(step, dict):
        return 1.0
    growth = 1.0
    for inner in step.get("normalizers") or ():
        growth *= _growth(inner)
    if step.get("type") == "Prepend":
        growth *= 1.0 + len(str(step.get("prepend", "")))
    if step.get("type") == "Replace":
        pattern, content = step.get("pattern"), str(step.get("content", ""))
        literal = pattern.get("String") if isinstance(pattern, dict) else None
        # a pattern may match between any two letters
        growth *= max(1.0, len(content) / len(literal) if literal else 1.0 + len(content))
    return growth


def _numbers(settings: Any, key: str = "") -> Iterator[tuple[str, int]]:
    """Yield every whole number of settings, with the last name on its way."""
    if isinstance(settings, Mapping):
        for name, value in settings.items():
            if name not in _NAMES:
                yield from _numbers(value, str(name))
    elif isinstance(settings, list | tuple):
        for value in settings:
            yield from _numbers(value, key)
    elif _is_count(settings):
        yield key, settings


def _parts(settings: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    yield settings
    for value in settings.values():
        if isinstance(value, Mapping):
            yield from _parts(value)


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _bytes(files: Sequence[Path]) -> int:
    return sum(file.stat().st_size for file in files if file.is_file())
