"""The two kinds of loss that the terms of training are made of."""

import torch
import torch.nn.functional as F
from torch import Tensor


def contrast(scores: Tensor, captions: int, others: Tensor | None = None) -> Tensor:
    """Return InfoNCE both ways (CLIP, arXiv:2103.00020) for ``(n, captions * n)`` scores: caption i
    of photo k is column i * n + k; ``others`` ``(n, m)`` are scores of texts that fit no photo.
    """
    photos = len(scores)
    wide = scores if others is None else torch.cat([scores, others], dim=1)
    chances = wide.log_softmax(dim=1)[:, : scores.shape[1]]
    right = chances.reshape(photos, captions, photos).diagonal(dim1=0, dim2=2)
    return (F.cross_entropy(scores.T, torch.arange(photos).repeat(captions)) - right.mean()) / 2


def like(scores: Tensor, target: Tensor) -> Tensor:
    """Return the mean KL divergence of rows of scores from wanted log-probabilities."""
    return F.kl_div(scores.log_softmax(dim=1), target, log_target=True, reduction="batchmean")


def log_shares(amounts: Tensor) -> Tensor:
    """Return the logarithms of each row's shares of its sum, none of them nought."""
    amounts = amounts + 1e-4
    return (amounts / amounts.sum(dim=1, keepdim=True)).log()
