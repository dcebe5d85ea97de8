"""Loads weights that other libraries trained into our ``VisionTransformer``, by renaming the entries of their state dicts.

Three families of names are known: timm's ``VisionTransformer``, transformers' ViT (and the vision tower of its CLIP),
and open_clip's visual tower. Equal weights give equal outputs; what differs between models is named in ``ViTConfig``.
"""

import re
from collections.abc import Mapping, Sequence
from math import isqrt

import torch
from torch import Tensor

from vitsearch.vit import ViTConfig

State = Mapping[str, Tensor]
Renames = Sequence[tuple[str, str]]

_TIMM: Renames = [
    (r"cls_token", "class_token"),
    (r"pos_embed", "position_embedding"),
    (r"patch_embed\.proj\.(.*)", r"patch_embedding.\1"),
    (r"norm_pre\.(.*)", r"pre_norm.\1"),
    (r"blocks\.(\d+)\.attn\.qkv\.(.*)", r"blocks.\1.attention.qkv.\2"),
    (r"blocks\.(\d+)\.attn\.proj\.(.*)", r"blocks.\1.attention.out.\2"),
    (r"blocks\.(\d+)\.(norm1|norm2|mlp\.fc1|mlp\.fc2)\.(.*)", r"blocks.\1.\2.\3"),
    (r"(?:fc_)?norm\.(.*)", r"norm.\1"),
    (r"attn_pool\.latent", "attention_pool.query"),
    (r"attn_pool\.proj\.(.*)", r"attention_pool.out.\1"),
    (r"attn_pool\.(q|kv|norm|mlp\.fc1|mlp\.fc2)\.(.*)", r"attention_pool.\1.\2"),
    (r"head\.(.*)", r"head.\1"),
]

_LAYER = r"(?:encoder\.)?layers?\.(\d+)\."
_TRANSFORMERS: Renames = [
    (r"embeddings\.(?:cls_token|class_embedding)", "class_token"),
    (r"embeddings\.(?:position_embeddings|position_embedding\.weight)", "position_embedding"),
    (r"embeddings\.(?:patch_embeddings\.projection|patch_embedding)\.(.*)", r"patch_embedding.\1"),
    (r"pre_layrnorm\.(.*)", r"pre_norm.\1"),
    (_LAYER + r"(?:layernorm_before|layer_norm1)\.(.*)", r"blocks.\1.norm1.\2"),
    (_LAYER + r"(?:layernorm_after|layer_norm2)\.(.*)", r"blocks.\1.norm2.\2"),
    (_LAYER + r"(?:self_attn|attention|attention\.attention)\.(q|k|v)(?:_proj|uery|ey|alue)\.(.*)", r"blocks.\1.attention.\2.\3"),
    (_LAYER + r"(?:self_attn\.out_proj|attention\.o_proj|attention\.output\.dense)\.(.*)", r"blocks.\1.attention.out.\2"),
    (_LAYER + r"(?:mlp\.fc1|intermediate\.dense)\.(.*)", r"blocks.\1.mlp.fc1.\2"),
    (_LAYER + r"(?:mlp\.fc2|output\.dense)\.(.*)", r"blocks.\1.mlp.fc2.\2"),
    (r"(?:layernorm|post_layernorm)\.(.*)", r"norm.\1"),
    (r"(?:classifier|visual_projection)\.(.*)", r"head.\1"),
]
_TRANSFORMERS_UNUSED = r"pooler\..*|embeddings\.(mask_token|position_ids)"

_OPEN_CLIP: Renames = [
    (r"class_embedding", "class_token"),
    (r"positional_embedding", "position_embedding"),
    (r"conv1\.(.*)", r"patch_embedding.\1"),
    (r"ln_pre\.(.*)", r"pre_norm.\1"),
    (r"transformer\.resblocks\.(\d+)\.ln_(1|2)\.(.*)", r"blocks.\1.norm\2.\3"),
    (r"transformer\.resblocks\.(\d+)\.attn\.in_proj_(weight|bias)", r"blocks.\1.attention.qkv.\2"),
    (r"transformer\.resblocks\.(\d+)\.attn\.out_proj\.(.*)", r"blocks.\1.attention.out.\2"),
    (r"transformer\.resblocks\.(\d+)\.mlp\.c_fc\.(.*)", r"blocks.\1.mlp.fc1.\2"),
    (r"transformer\.resblocks\.(\d+)\.mlp\.c_proj\.(.*)", r"blocks.\1.mlp.fc2.\2"),
    (r"ln_post\.(.*)", r"norm.\1"),
    (r"proj", "head.weight"),
]


def from_timm(state: State) -> dict[str, Tensor]:
    """Return our state dict for one of timm's ``VisionTransformer`` (ViT, DeiT without distillation, attention pooling).

    Raises ValueError for an entry that has no place here (register tokens, layer scale, a distillation token).
    """
    return _shaped(_renamed(state, _TIMM))


def from_transformers(state: State) -> dict[str, Tensor]:
    """Return our state dict for transformers' ``ViTModel``, ``ViTForImageClassification`` or CLIP vision tower.

    Knows the names of transformers 4 and 5, with or without the ``vit.`` or ``vision_model.`` in front; the pooler is left out.
    Raises ValueError for an entry that has no place here.
    """
    bare = {re.sub(r"^(vit|vision_model)\.", "", name): tensor for name, tensor in state.items()}
    used = {name: tensor for name, tensor in bare.items() if not re.fullmatch(_TRANSFORMERS_UNUSED, name)}
    return _shaped(_fused(_renamed(used, _TRANSFORMERS)))


def from_open_clip(state: State) -> dict[str, Tensor]:
    """Return our state dict for open_clip's visual tower, a ``VisionTransformer`` (names with or without ``visual.`` in front).

    Raises ValueError for an entry that has no place here (layer scale, an attentional pooler).
    """
    renamed = _renamed({name.removeprefix("visual."): tensor for name, tensor in state.items()}, _OPEN_CLIP)
    if "head.weight" in renamed:
        renamed["head.weight"] = renamed["head.weight"].T.contiguous()  # open_clip multiplies from the right
    return _shaped(renamed)


def infer_config(state: State, *, heads: int) -> ViTConfig:
    """Return the configuration that fits one of our state dicts, for a square picture.

    The weights do not tell the number of heads, the activation, the norm's epsilon, or how tokens are pooled (except attention
    pooling): give the first, change the others with ``dataclasses.replace``.
    """
    width, channels, patch, _ = state["patch_embedding.weight"].shape
    class_token = "class_token" in state
    grid = isqrt(state["position_embedding"].shape[1] - int(class_token))
    attention = "attention_pool.query" in state
    return ViTConfig(
        image_size=grid * patch,
        patch_size=patch,
        channels=channels,
        width=width,
        depth=sum(name.endswith("norm1.weight") for name in state),
        heads=heads,
        mlp_width=state["blocks.0.mlp.fc1.weight"].shape[0],
        out_dim=state["head.weight"].shape[0] if "head.weight" in state else 0,
        pool="attention" if attention else "cls" if class_token else "mean",
        class_token=class_token,
        pre_norm="pre_norm.weight" in state,
        patch_bias="patch_embedding.bias" in state,
        head_bias="head.bias" in state,
    )


def _renamed(state: State, renames: Renames) -> dict[str, Tensor]:
    result: dict[str, Tensor] = {}
    for name, tensor in state.items():
        for pattern, replacement in renames:
            match = re.fullmatch(pattern, name)
            if match:
                result[match.expand(replacement)] = tensor
                break
        else:
            raise ValueError(f"no place for the weight {name!r} in this Vision Transformer")
    return result


def _fused(state: State) -> dict[str, Tensor]:
    """Join the separate query, key and value matrices of each block into one."""
    result = {name: tensor for name, tensor in state.items() if not re.search(r"attention\.[qkv]\.", name)}
    for name in state:
        if ".attention.q." in name:
            parts = [state[name.replace(".q.", f".{letter}.")] for letter in "qkv"]
            result[name.replace(".q.", ".qkv.")] = torch.cat(parts)
    return result


def _shaped(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Give the class token, the position embedding and the pooling query their leading dimensions of 1."""
    for name in ("class_token", "position_embedding", "attention_pool.query"):
        if name in state:
            width = state[name].shape[-1]
            state[name] = state[name].reshape(1, -1, width)
    return state
