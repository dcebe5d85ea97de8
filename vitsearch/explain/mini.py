"""The relevance of each cell of the feature map of `mini`, whose score flows on two ways.

One way is the transformer over the cells, explained as any other. The other goes round it: the mean over the cells of the stem's last
layer becomes class probabilities and a part of the vector. There attention says nothing, but a mean is a sum over cells, so gradient
times activation gives each cell's share of the score (the last layer's Grad-CAM, Selvaraju et al. 2017, arXiv:1610.02391, without its
average of the gradient, which is the same in every cell here). Both ways measure a first-order share of one score, so they add up
without a weight between them.
"""

from functools import lru_cache

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from vitsearch.encoders.mini.encoder import FOLDER, read_config
from vitsearch.encoders.mini.network import MiniConfig, MiniNetwork, load_network
from vitsearch.explain.transformer import Trace, patch_relevance, patch_rollout, trace


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
    features.requires_grad_()
    pooled = features.mean(dim=(2, 3))
    traced = trace(network.vit, grid)
    vector = _encode(network, grid, pooled, traced)[0]
    if text is None:
        return vector.detach(), patch_rollout(network.vit, traced)
    score = vector @ text
    (gradient,) = torch.autograd.grad(score, features, retain_graph=True)
    beside = (gradient * features).sum(dim=1)[0].clamp(min=0).detach()
    return vector.detach(), patch_relevance(network.vit, traced, score) + beside


def _encode(network: MiniNetwork, grid: Tensor, pooled: Tensor, traced: Trace) -> Tensor:
    """Return the image vector ``(1, dim)`` with the traced pass of the transformer in its graph."""
    handle = network.vit.register_forward_hook(lambda *_: traced.output)
    try:
        return network.encode_maps(grid, pooled, network.stem.classifier(pooled))
    finally:
        handle.remove()
