"""Where the Hugging Face libraries keep downloaded models, found without importing them."""

import os
from pathlib import Path

from vitsearch.encoders.model_files import Groups, missing_from


def hub_cache() -> Path:
    """Return the cache folder of the Hugging Face hub: ``$HF_HUB_CACHE``, else ``$HF_HOME/hub``, else ``~/.cache/huggingface/hub``."""
    chosen = os.environ.get("HF_HUB_CACHE") or os.environ.get("HUGGINGFACE_HUB_CACHE")
    if chosen:
        return Path(chosen).expanduser()
    home = os.environ.get("HF_HOME") or Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache") / "huggingface"
    return Path(home).expanduser() / "hub"


def cached_snapshot(repo: str) -> Path | None:
    """Return the folder of the newest downloaded state of a repository's main branch, or None."""
    folder = hub_cache() / f"models--{repo.replace('/', '--')}"
    try:
        revision = (folder / "refs" / "main").read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError):
        return None
    snapshot = folder / "snapshots" / revision
    return snapshot if revision and snapshot.is_dir() else None


def is_cached(repo: str, needed: Groups) -> bool:
    """Tell whether every needed group of a repository is on this machine."""
    snapshot = cached_snapshot(repo)
    return snapshot is not None and missing_from(snapshot, needed) is None
