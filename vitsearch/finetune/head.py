"""The head's start: logistic regression on what the frozen network sees, so that the first steps do not spoil the layers below.

Linear probing before fine-tuning: Kumar et al. 2022, arXiv:2202.10054.
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

RIDGE = 1e-3
STEPS = 200


class FeatureTap:
    """Catches what enters a network's head."""

    def __init__(self, head: nn.Linear) -> None:
        self.rows: list[Tensor] = []
        self._handle = head.register_forward_pre_hook(lambda _, given: self.rows.append(given[0].detach().float().cpu()))

    def taken(self) -> Tensor:
        """Return the features ``(n, width)`` of all pictures since the tap was set, and take it off."""
        self._handle.remove()
        return torch.cat(self.rows)


def fit_head(head: nn.Linear, features: Tensor, labels: Tensor) -> None:
    """Set a linear head to the logistic regression of ``(n, width)`` features on their classes ``(n,)``, found by L-BFGS."""
    spread = features.pow(2).mean().sqrt().clamp(min=1e-6)  # one number: the ridge means the same for every network
    rows, right = features / spread, labels.cpu()
    weight = torch.zeros(head.weight.shape, requires_grad=True)
    bias = torch.zeros(len(head.weight), requires_grad=True)
    optimizer = torch.optim.LBFGS([weight, bias], max_iter=STEPS, line_search_fn="strong_wolfe")

    def loss() -> Tensor:
        optimizer.zero_grad()
        value = F.cross_entropy(rows @ weight.T + bias, right) + RIDGE / 2 * weight.pow(2).sum()
        torch.autograd.backward(value)
        return value

    step: Callable[[Callable[[], Tensor]], Tensor] = optimizer.step  # carries no types
    step(loss)
    with torch.no_grad():
        head.weight.copy_(weight / spread)
        if head.bias is not None:
            head.bias.copy_(bias)
