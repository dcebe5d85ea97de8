"""Finds the transformer in an encoder and runs it with its attention in the graph."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from vitsearch.encoders.mini.encoder import MiniEncoder
from vitsearch.encoders.onnx_runtime import OnnxEncoder
from vitsearch.encoders.protocol import ImageEncoder, Vectors
from vitsearch.encoders.torch_encoder import TorchEncoder
from vitsearch.errors import EncoderError
from vitsearch.explain.mini import explain_mini, mini_network
from vitsearch.explain.transformer import patch_relevance, patch_rollout, trace

# how far 1 - cosine of the rebuilt tower's vector and the encoder's own may be from 0: the number formats differ
TOLERANCE = {"float32": 1e-4, "float16": 2e-3, "bfloat16": 2e-2}


@dataclass(frozen=True, slots=True)
class Found:
    """The encoder's unit vector ``(dim,)`` of a picture, the relevance ``(rows, columns)`` and the part of the picture that it covers."""

    vector: Vectors
    relevance: NDArray[np.float32]
    box: tuple[float, float, float, float]


def find_relevance(encoder: ImageEncoder, image: Image.Image, text: Vectors | None) -> Found:
    """Return the relevance of each patch of an RGB picture for a text's unit vector ``(dim,)``, or, for None, by attention rollout.

    Raises EncoderError for an encoder without attention, or whose transformer, as rebuilt here, gives another vector than its own.
    """
    if isinstance(encoder, OnnxEncoder):
        encoder = encoder.in_torch()  # a graph shows no attention
    if not isinstance(encoder, MiniEncoder | TorchEncoder):
        raise EncoderError(
            f"encoder {encoder.name} has no attention that can be shown: explain needs a Vision Transformer, "
            "such as mini or open_clip:ViT-B-32/laion2b_s34b_b79k"
        )
    prepared = encoder.prepare(image)
    words = None if text is None else torch.from_numpy(text)
    with torch.enable_grad():
        if isinstance(encoder, MiniEncoder):
            vector, relevance = explain_mini(mini_network(), prepared, words)
        else:
            vector, relevance = explain_tower(encoder, prepared, words)
    own = encoder.encode_prepared([prepared])[0]
    _check_same(encoder, own, vector.cpu().numpy())
    left, top, right, bottom = encoder.seen_region(image)
    return Found(own, relevance.cpu().numpy(), (left, top, right, bottom))


def explain_tower(encoder: TorchEncoder, prepared: NDArray[Any], text: Tensor | None) -> tuple[Tensor, Tensor]:
    """Return the vector ``(dim,)`` of a prepared picture, of any length, and the relevance of the patches ``(rows, columns)``."""
    tower = encoder.image_tower
    traced = trace(tower, encoder.normalise(np.stack([prepared])).float())
    output = traced.output[0]
    if text is None:
        return output.detach(), patch_rollout(tower, traced)
    score = output @ text.to(output.device) / output.norm()
    return output.detach(), patch_relevance(tower, traced, score)


def _check_same(encoder: ImageEncoder, own: Vectors, rebuilt: Vectors) -> None:
    cosine = float(own @ rebuilt / np.linalg.norm(rebuilt))
    if not cosine > 1 - TOLERANCE[getattr(encoder, "dtype", "float32")]:
        raise EncoderError(
            f"{encoder.name} cannot be explained: its transformer, as rebuilt, gives another vector (cosine {cosine:.4f} to its own); "
            "take another model, and report this one"
        )
