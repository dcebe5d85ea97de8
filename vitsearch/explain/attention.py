"""Attention rollout and relevance: how much each patch counts in a Vision Transformer's output."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

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
