"""The names that other libraries give the weights of a Vision Transformer, and ours.

Four families are known: timm's ``VisionTransformer``, transformers' ViT and DeiT, transformers'
vision towers of CLIP and SigLIP, and open_clip's visual tower. Each function takes a state dict and
gives ours; what has no place raises, so nothing is left out unsaid.
"""

import re
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

State = Mapping[str, Tensor]
Renames = Sequence[tuple[str, str]]

_TIMM: Renames = [
    (r"cls_token", "class_token"),
    (r"dist_token", "distillation_token"),
    (r"pos_embed", "position_embedding"),
    (r"patch_embed\.proj\.(.*)", r"patch_embedding.\1"),
    (r"norm_pre\.(.*)", r"pre_norm.\1"),
    (r"blocks\.(\d+)\.attn\.qkv\.(.*)", r"blocks.\1.attention.qkv.\2"),
    (r"blocks\.(\d+)\.attn\.proj\.(.*)", r"blocks.\1.attention.out.\2"),
    (r"blocks\.(\d+)\.(norm1|norm2|mlp\.fc1|mlp\.fc2)\.(.*)", r"blocks.\1.\2.\3"),
    (r"blocks\.(\d+)\.ls(1|2)\.gamma", r"blocks.\1.layer_scale\2"),
    (r"(?:fc_)?norm\.(.*)", r"norm.\1"),
    (r"attn_pool\.latent", "attention_pool.query"),
    (r"attn_pool\.proj\.(.*)", r"attention_pool.out.\1"),
    (r"attn_pool\.(q|kv|norm|mlp\.fc1|mlp\.fc2)\.(.*)", r"attention_pool.\1.\2"),
    (r"head\.(.*)", r"head.\1"),
    (r"head_dist\.(.*)", r"distillation_head.\1"),
]

_LAYER = r"(?:encoder\.)?layers?\.(\d+)\."
_TRANSFORMERS: Renames = [
    (r"embeddings\.(?:cls_token|class_embedding)", "class_token"),
    (r"embeddings\.distillation_token", "distillation_token"),
    (r"embeddings\.(?:position_embeddings|position_embedding\.weight)", "position_embedding"),
    (r"embeddings\.(?:patch_embeddings\.projection|patch_embedding)\.(.*)", r"patch_embedding.\1"),
    (r"pre_layrnorm\.(.*)", r"pre_norm.\1"),
    (_LAYER + r"(?:layernorm_before|layer_norm1)\.(.*)", r"blocks.\1.norm1.\2"),
    (_LAYER + r"(?:layernorm_after|layer_norm2)\.(.*)", r"blocks.\1.norm2.\2"),
    (
        _LAYER
        + r"(?:self_attn|attention|attention\.attention)\.(q|k|v)(?:_proj|uery|ey|alue)\.(.*)",
        r"blocks.\1.attention.\2.\3",
    ),
    (
        _LAYER + r"(?:self_attn\.out_proj|attention\.o_proj|attention\.output\.dense)\.(.*)",
        r"blocks.\1.attention.out.\2",
    ),
    (_LAYER + r"(?:mlp\.fc1|intermediate\.dense)\.(.*)", r"blocks.\1.mlp.fc1.\2"),
    (_LAYER + r"(?:mlp\.fc2|output\.dense)\.(.*)", r"blocks.\1.mlp.fc2.\2"),
    (r"(?:layernorm|post_layernorm)\.(.*)", r"norm.\1"),
    (r"head\.probe", "attention_pool.query"),
    (r"head\.attention\.in_proj_(weight|bias)", r"attention_pool.qkv.\1"),
    (r"head\.attention\.out_proj\.(.*)", r"attention_pool.out.\1"),
    (r"head\.layernorm\.(.*)", r"attention_pool.norm.\1"),
    (r"head\.(mlp\.fc1|mlp\.fc2)\.(.*)", r"attention_pool.\1.\2"),
    (r"(?:classifier|cls_classifier|visual_projection)\.(.*)", r"head.\1"),
    (r"distillation_classifier\.(.*)", r"distillation_head.\1"),
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
    (r"transformer\.resblocks\.(\d+)\.ls_(1|2)\.gamma", r"blocks.\1.layer_scale\2"),
    (r"ln_post\.(.*)", r"norm.\1"),
    (r"proj", "head.weight"),
]


def from_timm(state: State) -> dict[str, Tensor]:
    """Return our state dict for one of timm's ``VisionTransformer``.

    It may be a ViT, a DeiT with or without distillation, or have attention pooling. Layer scale
    (CaiT, DeiT III) is multiplied into the layers it follows. Raises ValueError for an entry that
    has no place here (register tokens, norms of queries and keys).
    """
    return _shaped(_without_layer_scale(_renamed(state, _TIMM)))


def from_transformers(state: State) -> dict[str, Tensor]:
    """Return our state dict for transformers' ViT, DeiT, or CLIP or SigLIP vision tower.

    ViT and DeiT may have a classifier. Knows the names of transformers 4 and 5, with or without the
    ``vit.``, ``deit.`` or ``vision_model.`` in front; the pooler of ViT is left out. Raises
    ValueError for an entry that has no place here.
    """
    bare = {
        re.sub(r"^(vit|deit|vision_model)\.", "", name): tensor for name, tensor in state.items()
    }
    used = {
        name: tensor
        for name, tensor in bare.items()
        if not re.fullmatch(_TRANSFORMERS_UNUSED, name)
    }
    return _shaped(_split_pool(_fused(_renamed(used, _TRANSFORMERS))))


def from_open_clip(state: State) -> dict[str, Tensor]:
    """Return our state dict for open_clip's visual tower, a ``VisionTransformer``.

    The names may begin with ``visual.``. Layer scale is multiplied into the layers it follows.
    Raises ValueError for an entry that has no place here (an attentional pooler).
    """
    renamed = _renamed(
        {name.removeprefix("visual."): tensor for name, tensor in state.items()}, _OPEN_CLIP
    )
    if "head.weight" in renamed:
        renamed["head.weight"] = renamed[
            "head.weight"
        ].T.contiguous()  # open_clip multiplies from the right
    return _shaped(_without_layer_scale(renamed))


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
    result = {
        name: tensor for name, tensor in state.items() if not re.search(r"attention\.[qkv]\.", name)
    }
    for name in state:
        if ".attention.q." in name:
            parts = [state[name.replace(".q.", f".{letter}.")] for letter in "qkv"]
            result[name.replace(".q.", ".qkv.")] = torch.cat(parts)
    return result


def _without_layer_scale(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Multiply the scale of each branch of a block into its last layer; outputs stay the same."""
    for name in [name for name in state if ".layer_scale" in name]:
        block, _, number = name.partition("layer_scale")
        scale, layer = state.pop(name), block + ("attention.out" if number == "1" else "mlp.fc2")
        state[f"{layer}.weight"] = state[f"{layer}.weight"] * scale[:, None]
        state[f"{layer}.bias"] = state[f"{layer}.bias"] * scale
    return state


def _split_pool(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Split the pooling head's joint matrix into the query's and that of key and value."""
    for kind in ("weight", "bias"):
        if f"attention_pool.qkv.{kind}" in state:
            q, k, v = state.pop(f"attention_pool.qkv.{kind}").chunk(3)
            state |= {f"attention_pool.q.{kind}": q, f"attention_pool.kv.{kind}": torch.cat([k, v])}
    return state


def _shaped(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Add the leading dimensions of 1 to tokens, position embedding and pooling query."""
    for name in ("class_token", "distillation_token", "position_embedding", "attention_pool.query"):
        if name in state:
            width = state[name].shape[-1]
            state[name] = state[name].reshape(1, -1, width)
    return state
