"""Files of tensors that appear whole or not at all."""

from pathlib import Path

import torch


def save(state: dict[str, object], path: Path) -> None:
    """Write a file aside and rename it."""
    aside = path.with_suffix(".part")
    torch.save(state, aside)
    aside.replace(path)
