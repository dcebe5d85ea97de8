"""The relevance of each patch: an encoder's transformer is found and run with its attention, which
rollout (Abnar and Zuidema 2020) or gradients (Chefer et al. 2021) turn into relevance.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from vitsearch.encoders.base import ImageEncoder, Vectors
from vitsearch.encoders.mini import FOLDER, MiniEncoder, read_config
from vitsearch.encoders.mini.network import MAP_CHANNELS, MiniConfig, MiniNetwork, load_network
from vitsearch.encoders.onnx import OnnxEncoder
from vitsearch.encoders.torch_encoder import TorchImageEncoder
from vitsearch.errors import EncoderError
from vitsearch.vit.model import VisionTransformer

# -- How much each token counts in a transformer's output ------------------------------------------


def attention_rollout(weights: Sequence[Tensor]) -> Tensor:
    """Return the share of each input token in each output token, ``(n, t, t)``; rows sum to 1.

    ``weights`` are each block's ``(n, h, t, t)``, first block first. The heads are averaged, half
    of each step is the residual path (the identity), and the steps are multiplied (Abnar and
    Zuidema 2020, arXiv:2005.00928).
    """
    rollout = _identity(weights[0])
    for block in weights:
        rollout = (0.5 * block.mean(dim=1) + 0.5 * _identity(block)) @ rollout
    return rollout


def attention_relevance(weights: Sequence[Tensor], gradients: Sequence[Tensor]) -> Tensor:
    """Return the relevance of each input token to each output token for one score, ``(n, t, t)``.

    ``gradients`` are the score's with respect to ``weights``. Each block adds the positive part of
    gradient times weight, averaged over the heads, to what came before it: ``R = R + mean((dA *
    A)+) R`` (Chefer et al. 2021, arXiv:2103.15679, equations 5 and 6).
    """
    relevance = _identity(weights[0])
    for block, gradient in zip(weights, gradients, strict=True):
        relevance = relevance + positive_part(block, gradient) @ relevance
    return relevance


def positive_part(weights: Tensor, gradient: Tensor) -> Tensor:
    """Return the positive part of gradient times weight, averaged over the heads.

    Both are ``(n, h, s, t)``, the result is ``(n, s, t)``.
    """
    return (gradient * weights).clamp(min=0).mean(dim=1)


def _identity(weights: Tensor) -> Tensor:
    return torch.eye(weights.shape[-1], dtype=weights.dtype, device=weights.device)


# -- How much each patch counts in the pooled vector, by [CLS], mean or attention ------------------


@dataclass(frozen=True, slots=True)
class Trace:
    """A forward pass: the output ``(1, dim)`` and all attention weights, in one graph."""

    output: Tensor
    blocks: list[Tensor]
    pooling: Tensor | None


def trace(vit: VisionTransformer, pixels: Tensor) -> Trace:
    """Run the transformer and return its output with all attention weights."""
    x = vit.embed(pixels)
    blocks = []
    for block in vit.blocks:
        x, weights = block(x, with_weights=True)
        blocks.append(weights)
    tokens = x if vit.config.norm_after_pool else vit.norm(x)
    if vit.attention_pool is None:
        return Trace(vit.classify(tokens), blocks, None)
    pooled, pooling = vit.attention_pool(tokens, with_weights=True)
    normed = vit.norm(pooled) if vit.config.norm_after_pool else pooled
    return Trace(vit.head(normed), blocks, pooling)


def patch_rollout(vit: VisionTransformer, traced: Trace) -> Tensor:
    """Return each patch's share in the pooled vector by attention rollout, ``(rows, columns)``."""
    pooling = None if traced.pooling is None else traced.pooling.mean(dim=1)
    return _patches(vit, attention_rollout(traced.blocks), pooling)


def patch_relevance(vit: VisionTransformer, traced: Trace, score: Tensor) -> Tensor:
    """Return each patch's relevance for a score of the traced output, ``(rows, columns)``."""
    attention = traced.blocks if traced.pooling is None else [*traced.blocks, traced.pooling]
    gradients = torch.autograd.grad(score, attention, retain_graph=True)
    pooling = None if traced.pooling is None else positive_part(traced.pooling, gradients[-1])
    return _patches(
        vit, attention_relevance(traced.blocks, gradients[: len(traced.blocks)]), pooling
    )


def _patches(vit: VisionTransformer, flow: Tensor, pooling: Tensor | None) -> Tensor:
    """Return the patches' share of the pooled vector: the rows of the flow that pooling uses.

    ``flow`` is ``(1, t, t)``, the result ``(rows, columns)``.
    """
    prefix = vit.config.prefix_tokens
    if pooling is not None:
        row = (pooling @ flow)[0, 0]
    elif vit.config.pool == "mean":
        row = flow[0, prefix:].mean(dim=0)
    else:
        row = flow[0, 0]
    side = round((row.shape[0] - prefix) ** 0.5)  # every picture that an encoder prepares is square
    return row[prefix:].detach().reshape(side, -1)


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
        features = network.stem.last(grid[:, :MAP_CHANNELS])
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
    if not isinstance(encoder, MiniEncoder | TorchImageEncoder):
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
    encoder: TorchImageEncoder, prepared: NDArray[Any], text: Tensor | None
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
