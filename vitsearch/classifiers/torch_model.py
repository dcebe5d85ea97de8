"""A PyTorch model with classes, as classification and as training need it; and `mini` with new
classes: what fine-tuning trains, and how the result is saved and read again.
"""

import json
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from PIL import Image
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from vitsearch.classifiers.classifier import ImageClassifier
from vitsearch.encoders.checkpoints import check_settings, one_line, read_json
from vitsearch.encoders.mini import FOLDER, MiniEncoder, load_mini, read_config
from vitsearch.encoders.mini.network import POOLED_CHANNELS, MiniConfig, MiniNetwork, load_network
from vitsearch.encoders.torch_encoder import choose_device, choose_dtype
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


# -- mini ------------------------------------------------------------------------------------------


MODEL_TYPE = "vitsearch-mini"
MEAN, STD = (127 / 255,) * 3, (128 / 255,) * 3
_TEXT_SIDE = ("text", "text_mlp", "text_gate")  # a classifier reads no text


class MiniClassifierNetwork(nn.Module):
    """`mini`'s image tower under a linear head of its vector and the stem's pooled features.

    The pooled features keep fine distinctions that the vector, trained to match words, leaves out;
    both are scaled to a mean square of 1.
    """

    def __init__(self, tower: MiniNetwork, classes: int) -> None:
        super().__init__()
        self.tower = tower
        for part in _TEXT_SIDE:
            setattr(tower, part, nn.Identity())
        self.head = nn.Linear(tower.config.dim + POOLED_CHANNELS, classes)

    def forward(self, pixels: Tensor) -> Tensor:
        """Return logits ``(n, classes)`` of pixels ``(n, 3, 260, 260)`` in -1..1.

        The stem below its tail gets no gradient.
        """
        with torch.no_grad():
            middle = self.tower.stem.until_tail(pixels)
        grid, pooled, logits = self.tower.stem.tail(middle)
        vector = self.tower.encode_maps(grid, pooled, logits)
        parts = [F.normalize(part.float()) * part.shape[1] ** 0.5 for part in (vector, pooled)]
        result: Tensor = self.head(torch.cat(parts, dim=1))
        return result

    def layers(self) -> tuple[tuple[str, ...], ...]:
        """Return the names of the weights to train, in layers from the picture to the head.

        They are the stem's tail, the transformer's parts, and what joins them to the head.
        """
        tail = [f"tower.stem.{name}" for name in self.tower.stem.tail_parameters()]
        vit = [name for name, _ in self.named_parameters() if name.startswith("tower.vit.")]
        blocks = [
            [name for name in vit if name.startswith(f"tower.vit.blocks.{i}.")]
            for i in range(self.tower.config.depth)
        ]
        rest = [name for name in vit if not name.startswith("tower.vit.blocks.")]
        joins = [
            f"tower.{part}.{kind}"
            for part in ("pooled_projection", "image_gate")
            for kind in ("weight", "bias")
        ]
        return tuple(map(tuple, [tail, rest, *blocks, [*joins, "head.weight", "head.bias"]]))


def load_mini_trainable(name: str, folder: Path | None, classes: Sequence[str]) -> Trainable:
    """Return `mini`, or what was fine-tuned from it in a folder, with a new head of these classes.

    Raises EncoderError.
    """
    if folder is None:
        tower = load_network(FOLDER / "mini.safetensors", MiniConfig(**read_config()["network"]))
    else:
        tower = read_finetuned(name, folder)[0].tower
    net, encoder = MiniClassifierNetwork(tower, len(classes)), load_mini()

    def prepare(image: Image.Image) -> Tensor:
        return _pixels(encoder, image)

    def save(folder: Path) -> None:
        facts = {
            "model_type": MODEL_TYPE,
            "format": 1,
            "network": asdict(net.tower.config),
            "classes": list(classes),
        }
        save_file(
            {name: weight.detach().cpu().contiguous() for name, weight in net.state_dict().items()},
            folder / "model.safetensors",
        )
        (folder / "config.json").write_text(json.dumps(facts, indent=2) + "\n", encoding="utf-8")

    return Trainable(net, net, net.head, net.layers(), encoder.side, MEAN, STD, prepare, save)


def _pixels(encoder: MiniEncoder, image: Image.Image) -> Tensor:
    """Return ``(3, 260, 260)`` float32 as the stem reads it."""
    pixels = torch.from_numpy(encoder.prepare(image).astype(np.float32))
    return (pixels.permute(2, 0, 1) - 127.0) / 128.0


def load_finetuned_mini(name: str, folder: Path, *, device: str, dtype: str) -> ImageClassifier:
    """Return the classifier of a folder that `Trainable.save` wrote for `mini`.

    Raises EncoderError where it is damaged.
    """
    net, classes = read_finetuned(name, folder)
    target = choose_device(device)
    encoder = load_mini()
    head = TorchHead(
        net.to(device=target, dtype=choose_dtype(dtype, target)),
        lambda image: _pixels(encoder, image),
        lambda model, pixels: model(pixels),
        classes=classes,
    )
    return ImageClassifier(name, head)


def read_finetuned(name: str, folder: Path) -> tuple[MiniClassifierNetwork, tuple[str, ...]]:
    """Return the network of a folder and its classes; raises EncoderError."""
    facts = read_json(folder / "config.json", name)
    try:
        classes = tuple(map(str, facts["classes"]))
        weights = folder / "model.safetensors"
        check_settings(facts["network"], [weights], name)
        net = MiniClassifierNetwork(MiniNetwork(MiniConfig(**facts["network"])), len(classes))
        net.load_state_dict(load_file(weights))
    except EncoderError:
        raise
    except Exception as error:  # a missing key, a tensor of another shape, a truncated file
        raise EncoderError(
            f"{name}: the model in {folder} is damaged ({one_line(error)}): fine-tune it again"
        ) from error
    return net.eval(), classes
