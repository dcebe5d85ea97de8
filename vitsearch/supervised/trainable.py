"""A supervised model as training needs it, whatever its source: a network, its layers in order, its head, and the way to disk."""

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image
from torch import Tensor, nn

from vitsearch.errors import EncoderError

_NUMBERED = re.compile(r"(?:^|\.)(?:blocks|layers?|stages)\.(\d+)\.")


@dataclass(frozen=True, slots=True, eq=False)
class Trainable:
    """A network whose head has the classes that are to be learned.

    ``logits`` reads ``(n, 3, side, side)`` pictures, 0..1 less ``mean`` by ``std``, and gives ``(n, classes)``; ``head`` is the network's
    last, linear layer. ``layers`` are the names of the weights to train, a group a layer, from the picture to the head; all others are
    frozen. ``prepare`` makes the input of one RGB picture as the saved model will, and ``save`` writes the folder that `load_classifier`
    reads.
    """

    net: nn.Module
    logits: Callable[[Tensor], Tensor]
    head: nn.Linear
    layers: tuple[tuple[str, ...], ...]
    side: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    prepare: Callable[[Image.Image], Tensor]
    save: Callable[[Path], None]


def layers_of(names: Iterable[str]) -> tuple[tuple[str, ...], ...]:
    """Return a network's weights in layers: those before the first numbered block, each block, and those after the last."""
    numbered: dict[int, list[str]] = {}
    before: list[str] = []
    after: list[str] = []
    for name in names:
        found = _NUMBERED.search(name)
        if found:
            numbered.setdefault(int(found[1]), []).append(name)
        else:
            (after if numbered else before).append(name)
    groups = [before, *(numbered[number] for number in sorted(numbered)), after]
    return tuple(tuple(group) for group in groups if group)


def linear_head(head: object, name: str) -> nn.Linear:
    """Return a model's head; raises EncoderError for one that is not a single linear layer."""
    if not isinstance(head, nn.Linear):
        raise EncoderError(f"{name} cannot be fine-tuned: its head is no linear layer; choose a plain ViT, or mini")
    return head


def square(size: Sequence[int], name: str) -> int:
    """Return the side of the pictures that a model reads; raises EncoderError where they are not square."""
    if len(set(size)) != 1:
        raise EncoderError(f"{name} cannot be fine-tuned: it reads pictures of {' x '.join(map(str, size))}, not squares")
    return int(size[0])
