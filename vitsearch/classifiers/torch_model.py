"""A PyTorch model with classes, as classification and as training need it."""

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor, nn

from vitsearch.errors import EncoderError
from vitsearch.types import Activation
from vitsearch.untrusted import guarded

Prepare = Callable[[Image.Image], Tensor]
Forward = Callable[[Any, Tensor], Tensor]


class TorchHead:
    """A network on one device and in one number format, with what prepares its input.

    ``prepare`` makes the input of a picture, ``forward`` computes logits ``(n, classes)``.
    """

    def __init__(
        self,
        net: nn.Module,
        prepare: Prepare,
        forward: Forward,
        *,
        classes: tuple[str, ...],
        activation: Activation = "softmax",
    ) -> None:
        self._net, self._prepare, self._forward = net.eval(), prepare, forward
        self.classes = classes
        self.activation = activation
        first = next(net.parameters())
        self._device, self._dtype = first.device, first.dtype

    def prepare(self, image: Image.Image) -> Tensor:
        """Return ``(channels, height, width)`` float32, as the model's authors make it."""
        return self._prepare(image)

    @torch.inference_mode()
    def logits(self, batch: Sequence[Any]) -> NDArray[np.float32]:
        """Return ``(n, classes)`` float32 logits; raises EncoderError where it has no such."""
        with guarded(
            EncoderError,
            "the model",
            "fetch it again",
            problem="does not fit its settings",
            passing=(torch.OutOfMemoryError, MemoryError),
        ):
            pixels = torch.stack(list(batch)).to(device=self._device, dtype=self._dtype)
            result: NDArray[np.float32] = self._forward(self._net, pixels).float().cpu().numpy()
            if result.shape != (len(batch), len(self.classes)):
                raise ValueError(f"{result.shape} logits for {len(self.classes)} classes")
            return result


_NUMBERED = re.compile(r"(?:^|\.)(?:blocks|layers?|stages)\.(\d+)\.")


@dataclass(frozen=True, slots=True, eq=False)
class Trainable:
    """A network whose head has the classes that are to be learned.

    ``logits`` maps pictures ``(n, 3, side, side)``, values in 0..1 normalised with ``mean`` and
    ``std``, to ``(n, classes)``; ``head`` is the network's last, linear layer. ``layers`` are the
    names of the weights to train, one group per layer, from the picture to the head; all others are
    frozen. ``prepare`` makes the input of one RGB picture as the saved model will, and ``save``
    writes the folder that `load_classifier` reads.
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
    """Return a network's weights in layers.

    These are the weights before the first numbered block, those of each block, and those after.
    """
    numbered: dict[int, list[str]] = {}
    before: list[str] = []
    after: list[str] = []
    for name in names:
        match = _NUMBERED.search(name)
        if match:
            numbered.setdefault(int(match[1]), []).append(name)
        else:
            (after if numbered else before).append(name)
    groups = [before, *(numbered[number] for number in sorted(numbered)), after]
    return tuple(tuple(group) for group in groups if group)


def linear_head(head: object, name: str) -> nn.Linear:
    """Return a model's head; raises EncoderError for one that is not a single linear layer."""
    if not isinstance(head, nn.Linear):
        raise EncoderError(
            f"{name} cannot be fine-tuned: its head is no linear layer; choose a plain ViT, or mini"
        )
    return head


def square(size: Sequence[int], name: str) -> int:
    """Return the side of a model's input; raises EncoderError where it is not square."""
    if len(set(size)) != 1:
        raise EncoderError(
            f"{name} cannot be fine-tuned: it reads pictures of "
            f"{' x '.join(map(str, size))}, not squares"
        )
    return int(size[0])
