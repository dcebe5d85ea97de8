"""Files of a model on the Hugging Face hub: from the cache without a network, else downloaded."""

import logging
from collections.abc import Sequence
from fnmatch import fnmatch
from pathlib import Path

from huggingface_hub import HfApi, constants, snapshot_download
from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError

from vitsearch.encoders.checkpoints import (
    RequiredFiles,
    cached_snapshot,
    check_download,
    hub_cache,
    missing_from,
    one_line,
)
from vitsearch.errors import EncoderError

LIST_TIMEOUT_S = 10.0
log = logging.getLogger("vitsearch")


def hub_folder(repo: str, needed: RequiredFiles, *, also: Sequence[str] = ()) -> Path:
    """Return a folder that holds one file of each needed group (first names preferred) and what
    matches the patterns in ``also``.

    A complete copy in the cache is used as it is, without asking the network; ``HF_HOME``,
    ``HF_HUB_CACHE`` and ``HF_HUB_OFFLINE`` are honoured. Raises EncoderError with the file, the
    folder that was searched, and what to do, also where a file and not the user names the model.
    """
    snapshot = cached_snapshot(repo)
    if snapshot is not None and missing_from(snapshot, needed) is None:
        return snapshot
    check_download(repo)
    missing = needed[0][0] if snapshot is None else missing_from(snapshot, needed)
    if constants.HF_HUB_OFFLINE:
        raise EncoderError(
            _missing(repo, missing, "HF_HUB_OFFLINE is set", "unset it to download the model")
        )
    return _download(repo, needed, also)


def _download(repo: str, needed: RequiredFiles, also: Sequence[str]) -> Path:
    names = _files_of(repo, needed[0][0])
    chosen = [name for name in names if any(fnmatch(name, pattern) for pattern in also)]
    for group in needed:
        present = [name for name in group if name in names]
        if not present:
            raise EncoderError(
                f"the model {repo} on the Hugging Face hub has no file {group[0]}: it is not of "
                "a kind that vitsearch reads"
            )
        chosen.append(present[0])
    log.warning("downloading %d files of the model %s to %s", len(chosen), repo, hub_cache())
    try:
        return Path(snapshot_download(repo, allow_patterns=chosen + _shards(chosen)))
    except Exception as error:  # the hub client raises errors of several libraries
        raise EncoderError(
            _missing(repo, chosen[-1], f"the download failed ({one_line(error)})", "try again")
        ) from error


def _files_of(repo: str, missing: str) -> list[str]:
    """Return the names in a repository; one request with a time limit, so that a machine without
    a network fails at once.
    """
    log.warning(
        "asking the Hugging Face hub for the model %s, at most %.0f s a try",
        repo,
        LIST_TIMEOUT_S,
    )
    try:
        info = HfApi().model_info(repo, timeout=LIST_TIMEOUT_S)
    except GatedRepoError as error:
        raise EncoderError(
            f"the model {repo} wants its terms accepted: do so at "
            f"https://huggingface.co/{repo}, then `hf auth login`"
        ) from error
    except RepositoryNotFoundError as error:
        raise EncoderError(
            f"the Hugging Face hub has no public model {repo}: check the spelling, ORG/NAME"
        ) from error
    except Exception as error:  # the hub client raises errors of several libraries
        reason = f"the Hugging Face hub cannot be reached ({one_line(error)})"
        raise EncoderError(
            _missing(repo, missing, reason, "connect once to download the model")
        ) from error
    return [sibling.rfilename for sibling in info.siblings or []]


def _shards(chosen: Sequence[str]) -> list[str]:
    return [
        name.removesuffix(".index.json").replace(".safetensors", "-*.safetensors")
        for name in chosen
        if name.endswith(".index.json")
    ]


def _missing(repo: str, name: str | None, reason: str, what_next: str) -> str:
    return (
        f"{name} of the model {repo} is not on this machine (looked in {hub_cache()}) and "
        f"{reason}: {what_next}, or copy its folder here and use local-dir:/path"
    )
