"""A PyTorch model with classes, on one device, in one number format."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor, nn

from vitsearch.types import Activation

Prepare = Callable[[Image.Image], Tensor]
Forward = Callable[[Any, Tensor], Tensor]


class TorchHead:
    """A network, what makes its input of a picture, and what reads logits ``(n, classes)`` from it."""

    def __init__(
        self, net: nn.Module, prepare: Prepare, forward: Forward, *, classes: tuple[str, ...], activation: Activation = "softmax"
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
        """Return ``(n, classes)`` float32 logits."""
        pixels = torch.stack(list(batch)).to(device=self._device, dtype=self._dtype)
        result: NDArray[np.float32] = self._forward(self._net, pixels).float().cpu().numpy()
        return result
