"""How much each token counts in a transformer's output, from its attention weights alone or weighted by their gradients."""

from collections.abc import Sequence

import torch
from torch import Tensor


def attention_rollout(weights: Sequence[Tensor]) -> Tensor:
    """Return the share of each input token in each output token, ``(n, t, t)``; rows sum to 1.

    ``weights`` are each block's ``(n, h, t, t)``, first block first. The heads are averaged, half of each step is the residual path
    (the identity), and the steps are multiplied (Abnar and Zuidema 2020, arXiv:2005.00928).
    """
    rollout = _identity(weights[0])
    for block in weights:
        rollout = (0.5 * block.mean(dim=1) + 0.5 * _identity(block)) @ rollout
    return rollout


def attention_relevance(weights: Sequence[Tensor], gradients: Sequence[Tensor]) -> Tensor:
    """Return the relevance of each input token to each output token for one score, ``(n, t, t)``.

    ``gradients`` are the score's with respect to ``weights``. Each block adds the positive part of gradient times weight, averaged
    over the heads, to what came before it: ``R = R + mean((dA * A)+) R`` (Chefer et al. 2021, arXiv:2103.15679, equations 5 and 6).
    """
    relevance = _identity(weights[0])
    for block, gradient in zip(weights, gradients, strict=True):
        relevance = relevance + positive_part(block, gradient) @ relevance
    return relevance


def positive_part(weights: Tensor, gradient: Tensor) -> Tensor:
    """Return the positive part of gradient times weight averaged over the heads: ``(n, h, s, t)`` twice to ``(n, s, t)``."""
    return (gradient * weights).clamp(min=0).mean(dim=1)


def _identity(weights: Tensor) -> Tensor:
    return torch.eye(weights.shape[-1], dtype=weights.dtype, device=weights.device)
