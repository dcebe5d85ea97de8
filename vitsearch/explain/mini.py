"""The relevance of each cell of the feature map of `mini`, whose score flows on two ways.

One way is the transformer over the cells, explained as any other. The other goes round it: the mean over the cells of the stem's last
layer becomes class probabilities and a part of the vector. There is no attention in it, but a mean is a sum over the cells, so integrated
gradients (Sundararajan et al. 2017, arXiv:1703.01365) split what it adds to the score, compared with an empty photo, among them: the plain
gradient would not do, since it is near 0 where a class is sure. Both ways then measure shares of one score and are added without a weight;
for this the attention's heads, of which the rule takes the mean, count as their sum.
"""

from functools import lru_cache

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from vitsearch.encoders.mini.encoder import FOLDER, read_config
from vitsearch.encoders.mini.network import MiniConfig, MiniNetwork, load_network
from vitsearch.explain.transformer import patch_relevance, patch_rollout, trace

STEPS = 16  # of the integral; its sum is then right to about one part in a thousand


@lru_cache(maxsize=1)
def mini_network() -> MiniNetwork:
    """Return the torch form of `mini`, loaded once."""
    return load_network(FOLDER / "mini.safetensors", MiniConfig(**read_config()["network"]))


def explain_mini(network: MiniNetwork, prepared: NDArray[np.uint8], text: Tensor | None) -> tuple[Tensor, Tensor]:
    """Return the vector ``(dim,)`` of a prepared picture ``(h, w, 3)`` and the relevance of the map's cells ``(rows, columns)``.

    With a text's vector ``(dim,)`` the relevance for their cosine, without one the attention rollout of the transformer alone.
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
    """Return what each cell adds to the cosine with a text beside the transformer, ``(rows, columns)``; the cells' sum is what all add.

    ``grid`` is the stem's map ``(1, 352, rows, columns)``, ``features`` its last layer ``(1, 1280, rows, columns)``.
    """
    with torch.no_grad():
        output = network.vit(grid)
    steps = (torch.arange(STEPS) + 0.5) / STEPS
    pooled = (steps[:, None] * features.mean(dim=(2, 3))).requires_grad_()
    vectors = join(network, pooled, output.expand(STEPS, -1))
    (gradients,) = torch.autograd.grad((vectors @ text).sum(), pooled)
    return (gradients.mean(dim=0)[:, None, None] * features[0]).sum(dim=0) / features[0, 0].numel()


def join(network: MiniNetwork, pooled: Tensor, output: Tensor) -> Tensor:
    """Return the image vectors ``(n, dim)`` of pooled features ``(n, 1280)`` and outputs of the transformer ``(n, d)``."""
    return network.join_image(output, pooled, network.stem.classifier(pooled))
