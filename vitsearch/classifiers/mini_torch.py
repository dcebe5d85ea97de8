"""`mini` with new classes: what fine-tuning trains, and how the result is saved and read again."""

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from vitsearch.classifiers.classifier import ImageClassifier
from vitsearch.classifiers.torch_model import TorchHead, Trainable
from vitsearch.encoders.checkpoints import check_settings, one_line, read_json
from vitsearch.encoders.mini import FOLDER, MiniEncoder, load_mini, read_config
from vitsearch.encoders.mini.network import POOLED_CHANNELS, MiniConfig, MiniNetwork, load_network
from vitsearch.encoders.torch_encoder import choose_device, choose_dtype
from vitsearch.errors import EncoderError

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
