"""The relevance of each patch in a Vision Transformer that pools its tokens by [CLS], by their mean or by attention."""

from dataclasses import dataclass

import torch
from torch import Tensor

from vitsearch.explain.rollout import attention_relevance, attention_rollout, positive_part
from vitsearch.vit import VisionTransformer


@dataclass(frozen=True, slots=True)
class Trace:
    """One pass of a picture: the output ``(1, dim)`` and, as parts of its graph, the weights of the blocks and of attention pooling."""

    output: Tensor
    blocks: list[Tensor]
    pooling: Tensor | None


def trace(vit: VisionTransformer, pixels: Tensor) -> Trace:
    """Run the transformer and keep all its attention weights."""
    x = vit.embed(pixels)
    blocks = []
    for block in vit.blocks:
        x, weights = block(x, with_weights=True)
        blocks.append(weights)
    tokens = x if vit.config.norm_after_pool else vit.norm(x)
    if vit.attention_pool is None:
        return Trace(vit.classify(tokens), blocks, None)
    pooled, pooling = vit.attention_pool(tokens, with_weights=True)
    return Trace(vit.head(vit.norm(pooled) if vit.config.norm_after_pool else pooled), blocks, pooling)


def patch_rollout(vit: VisionTransformer, traced: Trace) -> Tensor:
    """Return each patch's share in the pooled vector by attention rollout, ``(rows, columns)``."""
    pooling = None if traced.pooling is None else traced.pooling.mean(dim=1)
    return _patches(vit, attention_rollout(traced.blocks), pooling)


def patch_relevance(vit: VisionTransformer, traced: Trace, score: Tensor) -> Tensor:
    """Return each patch's relevance for a score that was computed from the traced output, ``(rows, columns)``."""
    wanted = traced.blocks if traced.pooling is None else [*traced.blocks, traced.pooling]
    gradients = torch.autograd.grad(score, wanted, retain_graph=True)
    pooling = None if traced.pooling is None else positive_part(traced.pooling, gradients[-1])
    return _patches(vit, attention_relevance(traced.blocks, gradients[: len(traced.blocks)]), pooling)


def _patches(vit: VisionTransformer, flow: Tensor, pooling: Tensor | None) -> Tensor:
    """Return the patches' part in the pooled vector: of the flow ``(1, t, t)`` the row, or rows, that pooling takes."""
    prefix = vit.config.prefix_tokens
    if pooling is not None:
        row = (pooling @ flow)[0, 0]
    elif vit.config.pool == "mean":
        row = flow[0, prefix:].mean(dim=0)
    else:
        row = flow[0, 0]
    side = round((row.shape[0] - prefix) ** 0.5)  # every picture that an encoder prepares is square
    return row[prefix:].detach().reshape(side, -1)
