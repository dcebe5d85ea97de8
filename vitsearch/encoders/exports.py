"""Where exported models are kept, and whether one is whole: ``$VITSEARCH_HOME/onnx/KEY/`` with ``export.json`` and the graphs.

KEY is made of the hash of the files that the model came from, the number format and `EXPORTER`; a collection holds none of it.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from vitsearch.encoders.hf_cache import cached_snapshot
from vitsearch.encoders.model_files import decisive_files
from vitsearch.encoders.protocol import fingerprint_of
from vitsearch.encoders.weights_hash import home, weights_hash

EXPORTER = 1  # raised when an export of before would not do any more
FACTS = "export.json"
REFUSED = "refused.txt"  # why a model cannot be exported, so that it is not tried at each run


def exports_folder() -> Path:
    """Return the folder of all exports."""
    return home() / "onnx"


def export_folder(name: str, dtype: str, files: Sequence[Path]) -> Path:
    """Return the folder of one model's export in one number format; raises OSError for a file that cannot be read.

    A model in a folder is known by its files alone, one of open_clip's list also by its name, which brings the architecture.
    """
    known_by = name if name.startswith("open_clip:") else ""
    key = fingerprint_of({"name": known_by, "files": weights_hash(files), "dtype": dtype, "exporter": EXPORTER})
    return exports_folder() / key


def expected_folder(name: str, dtype: str) -> Path | None:
    """Return where the export of a named model is or would be, found without torch; None where the model is not on this machine."""
    source, _, model = name.partition(":")
    if source == "open_clip":
        return _open_clip_folder(f"open_clip:{canonical(model)}", dtype)
    folder = Path(model).expanduser().resolve() if source == "local-dir" else cached_snapshot(model)
    files = decisive_files(folder) if folder is not None and folder.is_dir() else []
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
    whole = {"facts": dict(facts), "files": weights_hash(_parts(folder))}
    text = json.dumps({**whole, "checksum": fingerprint_of(whole)}, indent=1)
    (folder / FACTS).write_text(text + "\n", encoding="utf-8")


def read_facts(folder: Path) -> dict[str, Any] | None:
    """Return the facts of an export, or None where there is none, or where it is cut or altered.

    A file is read again only when its size or its time changed.
    """
    kept = _read(folder)
    if kept is None:
        return None
    try:
        whole = kept["files"] == weights_hash(_parts(folder))
    except OSError:
        return None
    facts: dict[str, Any] = kept["facts"]
    return facts if whole else None


def _read(folder: Path) -> dict[str, Any] | None:
    """Return ``export.json`` where it is as it was written."""
    try:
        kept = json.loads((folder / FACTS).read_text(encoding="utf-8"))
        checksum = kept.pop("checksum")
    except (OSError, ValueError, LookupError, AttributeError, TypeError):
        return None
    return kept if checksum == fingerprint_of(kept) else None


def _parts(folder: Path) -> list[Path]:
    return sorted(file for file in folder.iterdir() if file.name != FACTS)


def _open_clip_folder(name: str, dtype: str) -> Path | None:
    """Return the export that says it was made from this model, if the files that it was made from are still there, and the newest."""
    for folder, kept in _all_exports():
        facts = kept["facts"]
        if (facts.get("name"), facts.get("dtype")) != (name, dtype):
            continue
        files = [Path(file) for file in facts["sources"]]
        if all(map(_is_current, files)) and export_folder(name, dtype, files) == folder:
            return folder
    return None


def _all_exports() -> Iterator[tuple[Path, dict[str, Any]]]:
    for file in sorted(exports_folder().glob(f"*/{FACTS}")):
        kept = _read(file.parent)
        if kept is not None:
            yield file.parent, kept


def _is_current(file: Path) -> bool:
    """Tell whether a file is there and, in a cache of the hub, of the newest downloaded state."""
    if not file.is_file():
        return False
    snapshots = file.parent.parent
    if snapshots.name != "snapshots":
        return True
    try:
        return (snapshots.parent / "refs" / "main").read_text(encoding="utf-8").strip() == file.parent.name
    except OSError:
        return False
