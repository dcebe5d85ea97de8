"""The relevance of each patch for an encoder: finds its transformer and runs it with attention."""

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from vitsearch.encoders.base import ImageEncoder, Vectors
from vitsearch.encoders.mini.encoder import FOLDER, MiniEncoder, read_config
from vitsearch.encoders.mini.network import MiniConfig, MiniNetwork, load_network
from vitsearch.encoders.onnx.encoder import OnnxEncoder
from vitsearch.encoders.torch_encoder import TorchEncoder
from vitsearch.errors import EncoderError
from vitsearch.explain.attention import patch_relevance, patch_rollout, trace

# -- `mini`, whose score has two paths: through its transformer, and past it -----------------------

STEPS = 16  # of the integral; its sum is then right to about one part in a thousand


@lru_cache(maxsize=1)
def mini_network() -> MiniNetwork:
    """Return the torch form of `mini`, loaded once."""
    return load_network(FOLDER / "mini.safetensors", MiniConfig(**read_config()["network"]))


def explain_mini(
    network: MiniNetwork, prepared: NDArray[np.uint8], text: Tensor | None
) -> tuple[Tensor, Tensor]:
    """Return a prepared picture's vector ``(dim,)`` and its cells' relevance ``(rows, columns)``.

    The picture is ``(h, w, 3)``, the cells are those of the stem's feature map. With a text's
    vector ``(dim,)`` the relevance for their cosine, without one the attention rollout of the
    transformer alone.
    """
    pixels = (torch.from_numpy(prepared).permute(2, 0, 1)[None].float() - 127) / 128
    with torch.no_grad():
        grid = network.stem(pixels)[0]
        features = network.stem.last(grid)
    traced = trace(network.vit, grid)
    vector = join(network, features.mean(dim=(2, 3)), traced.output)[0]
    if text is None:
        return vector.detach(), patch_rollout(network.vit, traced)
    through = patch_relevance(network.vit, traced, vector @ text) * network.vit.config.heads
    return vector.detach(), through + shares_beside(network, grid, features, text).clamp(min=0)


def shares_beside(network: MiniNetwork, grid: Tensor, features: Tensor, text: Tensor) -> Tensor:
    """Return what each cell adds to a text's cosine past the transformer, ``(rows, columns)``.

    The cells add up to the whole contribution (integrated gradients). ``grid`` is the stem's map
    ``(1, 352, rows, columns)``, ``features`` its last layer ``(1, 1280, rows, columns)``.
    """
    with torch.no_grad():
        output = network.vit(grid)
    steps = (torch.arange(STEPS) + 0.5) / STEPS
    pooled = (steps[:, None] * features.mean(dim=(2, 3))).requires_grad_()
    vectors = join(network, pooled, output.expand(STEPS, -1))
    (gradients,) = torch.autograd.grad((vectors @ text).sum(), pooled)
    return (gradients.mean(dim=0)[:, None, None] * features[0]).sum(dim=0) / features[0, 0].numel()


def join(network: MiniNetwork, pooled: Tensor, output: Tensor) -> Tensor:
    """Return image vectors ``(n, dim)`` of pooled features and transformer outputs.

    They are ``(n, 1280)`` and ``(n, d)``.
    """
    return network.join_image(output, pooled, network.stem.classifier(pooled))


# -- All encoders ----------------------------------------------------------------------------------

# the largest 1 - cosine of the rebuilt tower's vector and the encoder's own: number formats differ
TOLERANCE = {"float32": 1e-4, "float16": 2e-3, "bfloat16": 2e-2}


@dataclass(frozen=True, slots=True)
class Relevance:
    """A picture's unit vector ``(dim,)``, its patches' relevance, and the box that they cover."""

    vector: Vectors
    relevance: NDArray[np.float32]
    box: tuple[float, float, float, float]


def find_relevance(encoder: ImageEncoder, image: Image.Image, text: Vectors | None) -> Relevance:
    """Return the relevance of each patch of an RGB picture for a text's unit vector ``(dim,)``.

    Without a text it is attention rollout. Raises EncoderError for an encoder without attention, or
    one whose transformer, as rebuilt here, gives another vector than the encoder.
    """
    if isinstance(encoder, OnnxEncoder):
        encoder = encoder.in_torch()  # a graph shows no attention
    if not isinstance(encoder, MiniEncoder | TorchEncoder):
        raise EncoderError(
            f"encoder {encoder.name} has no attention that can be shown: explain needs a Vision "
            "Transformer, such as mini or open_clip:ViT-B-32/laion2b_s34b_b79k"
        )
    prepared = encoder.prepare(image)
    words = None if text is None else torch.from_numpy(text)
    with torch.enable_grad():
        if isinstance(encoder, MiniEncoder):
            rebuilt, relevance = explain_mini(mini_network(), prepared, words)
        else:
            rebuilt, relevance = explain_tower(encoder, prepared, words)
    vector = encoder.encode_prepared([prepared])[0]
    _check_same(encoder, vector, rebuilt.cpu().numpy())
    left, top, right, bottom = encoder.seen_region(image)
    return Relevance(vector, relevance.cpu().numpy(), (left, top, right, bottom))


def explain_tower(
    encoder: TorchEncoder, prepared: NDArray[Any], text: Tensor | None
) -> tuple[Tensor, Tensor]:
    """Return a prepared picture's vector ``(dim,)`` and its patches' relevance ``(rows, columns)``.

    The vector is not normalised.
    """
    tower = encoder.image_tower
    traced = trace(tower, encoder.normalise(np.stack([prepared])).float())
    output = traced.output[0]
    if text is None:
        return output.detach(), patch_rollout(tower, traced)
    score = output @ text.to(output.device) / output.norm()
    return output.detach(), patch_relevance(tower, traced, score)


def _check_same(encoder: ImageEncoder, expected: Vectors, rebuilt: Vectors) -> None:
    cosine = float(expected @ rebuilt / np.linalg.norm(rebuilt))
    if not cosine > 1 - TOLERANCE[encoder.dtype]:
        raise EncoderError(
            f"{encoder.name} cannot be explained: its transformer, as rebuilt, gives another "
            f"vector (cosine {cosine:.4f} to its own); take another model, and report this one"
        )
