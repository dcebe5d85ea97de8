"""Our ``VisionTransformer`` with the weights of other libraries' models, live ones or folders, and
the names that those libraries give the weights.

Four families are known: timm's ``VisionTransformer``, transformers' ViT and DeiT, transformers'
vision towers of CLIP and SigLIP, and open_clip's visual tower. Equal weights give equal outputs.
The libraries themselves are not imported: their models are read by attribute, their files by
safetensors. What has no place, or what our transformer cannot compute exactly, is a ValueError that
names it, so nothing is left out unsaid.
"""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from vitsearch.untrusted import guarded, parse_json, read_bounded
from vitsearch.vit.model import Activation, Pooling, VisionTransformer, infer_config

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


T = TypeVar("T")

_TIMM_POOLS: dict[str, Pooling] = {"token": "cls", "avg": "mean", "map": "attention"}
_ACTIVATIONS: dict[str, Activation] = {  # transformers' names
    "gelu": "gelu",
    "gelu_new": "gelu_tanh",
    "gelu_pytorch_tanh": "gelu_tanh",
    "quick_gelu": "quick_gelu",
}
_VIT = {"num_attention_heads": 12, "hidden_act": "gelu", "layer_norm_eps": 1e-12, "image_size": 224}
_CLIP = _VIT | {"hidden_act": "quick_gelu", "layer_norm_eps": 1e-5}
_SETTINGS: dict[str, dict[str, Any]] = {  # what transformers takes where config.json is silent
    "vit": _VIT,
    "deit": _VIT,
    "clip_vision_model": _CLIP,
    "metaclip_2_vision_model": _CLIP,
    "chinese_clip_vision_model": _CLIP,
    "altclip_vision_model": _CLIP,
    "siglip_vision_model": _VIT | {"hidden_act": "gelu_pytorch_tanh", "layer_norm_eps": 1e-6},
}


def vit_from_timm(model: Any, *, projection: nn.Linear | None = None) -> VisionTransformer:
    """Return our transformer with the weights of one of timm's.

    It is a ``VisionTransformer`` or ``VisionTransformerDistilled``. Float32, evaluation mode, on
    the model's device, for square pictures; float32 weights are shared with ``model``, not copied.
    ``projection`` becomes the head of a model without one. Raises ValueError for another class and
    for parts that have no place here.
    """
    _expect(model, "VisionTransformer", "VisionTransformerDistilled")
    _expect(model.patch_embed, "PatchEmbed")
    for block in model.blocks:
        _expect(block, "Block")
        _expect(block.attn, "Attention")
        _expect(block.mlp, "Mlp")
    pool = _TIMM_POOLS.get(model.global_pool)
    if pool is None or (
        pool != "cls"
        and model.num_prefix_tokens
        and (model.pool_include_prefix or pool == "attention")
    ):
        raise ValueError(
            f"no place for global_pool={model.global_pool!r} with "
            f"{model.num_prefix_tokens} prefix tokens"
        )
    state = from_timm(model.state_dict())
    if model.no_embed_class and "position_embedding" in state:  # DeiT III: [CLS] has no position
        state["position_embedding"] = nn.functional.pad(
            state["position_embedding"], (0, 0, model.num_prefix_tokens, 0)
        )
    pooling = [model.attn_pool] if pool == "attention" else []
    return _built(
        state,
        projection,
        image_size=_side(model.patch_embed.img_size),
        heads=_only(
            (part.num_heads for part in [*(block.attn for block in model.blocks), *pooling]),
            "numbers of heads",
        ),
        activation=_only(
            (_activation(part.mlp.act) for part in [*model.blocks, *pooling]), "activations"
        ),
        norm_eps=_norm_eps(model),
        pool=pool,
        norm_after_pool=isinstance(model.fc_norm, nn.LayerNorm),
        distillation_head=type(model).__name__ == "VisionTransformerDistilled",
    )


def vit_from_open_clip(visual: Any) -> VisionTransformer:
    """Return our transformer with the weights of open_clip's image tower, ``model.visual``.

    The tower is open_clip's own ViT or one of timm's (SigLIP). As ``vit_from_timm``; the tower's
    projection is the head.
    """
    if hasattr(visual, "trunk"):
        return vit_from_timm(visual.trunk, projection=_projection(visual.head))
    _expect(visual, "VisionTransformer")
    if visual.pool_type not in ("tok", "avg"):
        raise ValueError(f"no place for pool_type={visual.pool_type!r}")
    blocks = visual.transformer.resblocks
    return _built(
        from_open_clip(visual.state_dict()),
        image_size=_side(visual.image_size),
        heads=_only((block.attn.num_heads for block in blocks), "numbers of heads"),
        activation=_only((_activation(block.mlp.gelu) for block in blocks), "activations"),
        norm_eps=_norm_eps(visual),
        pool="mean" if visual.pool_type == "avg" else "cls",
        norm_after_pool=visual.final_ln_after_pool,
    )


def vit_from_transformers(model: Any, *, projection: nn.Linear | None = None) -> VisionTransformer:
    """Return our transformer with the weights of transformers' ViT, DeiT, or vision tower.

    ViT and DeiT may have a classifier; the tower is that of CLIP or SigLIP. As ``vit_from_timm``.
    For a complete CLIP pass ``clip.vision_model`` and
    ``projection=clip.visual_projection``. Our output without a head is the normed [CLS] (SigLIP:
    the pooling head's); the tanh pooler of a bare ViT is left out.
    """
    return _from_settings(model.state_dict(), model.config.to_dict(), projection)


def load_vit_folder(folder: Path | str) -> VisionTransformer:
    """Return the Vision Transformer of a local folder of transformers.

    It holds ``config.json`` and ``model.safetensors``, which may be in shards. Takes what
    ``vit_from_transformers`` takes, and of a complete CLIP or SigLIP the vision tower.
    Raises FileNotFoundError for a missing file and ValueError for one that cannot be read or has no
    place here. Nothing is unpickled.
    """
    folder = Path(folder)
    with guarded(
        ValueError, f"the model in {folder}", "fetch it again", passing=(FileNotFoundError,)
    ):
        return _read_folder(folder)


def _read_folder(folder: Path) -> VisionTransformer:
    settings = parse_json(read_bounded(folder / "config.json"))
    if not isinstance(settings, dict):
        raise ValueError("no object in config.json")
    two_towers = settings.get("model_type") in ("clip", "siglip")
    if two_towers:
        settings = {"model_type": f"{settings['model_type']}_vision_model"} | settings.get(
            "vision_config", {}
        )
    state: dict[str, Tensor] = {}
    for file in _weight_files(folder):
        try:
            with safe_open(file, framework="pt") as tensors:
                names = set(tensors.keys())
                seeing = {
                    name
                    for name in names
                    if name.startswith(("vision_model.", "visual_projection."))
                }
                state |= {
                    name: tensors.get_tensor(name) for name in (seeing if two_towers else names)
                }
        except SafetensorError as error:
            raise ValueError(f"{file} cannot be read as safetensors: {error}") from error
    return _from_settings(state, settings)


def _from_settings(
    state: State, settings: Mapping[str, Any], projection: nn.Linear | None = None
) -> VisionTransformer:
    kind = settings.get("model_type")
    if kind not in _SETTINGS:
        raise ValueError(f"no place for a model of type {kind!r}; known are {', '.join(_SETTINGS)}")
    settings = _SETTINGS[kind] | dict(settings)
    if settings["hidden_act"] not in _ACTIVATIONS:
        raise ValueError(
            f"no place for the activation {settings['hidden_act']!r}; known are "
            f"{', '.join(_ACTIVATIONS)}"
        )
    renamed = from_transformers(state)
    if kind == "siglip_vision_model" and "attention_pool.query" not in renamed:
        raise ValueError("no place for a SigLIP tower without its pooling head")
    return _built(
        renamed,
        projection,
        image_size=_side(settings["image_size"]),
        heads=settings["num_attention_heads"],
        activation=_ACTIVATIONS[settings["hidden_act"]],
        norm_eps=settings["layer_norm_eps"],
    )


def _built(
    state: dict[str, Tensor], projection: nn.Linear | None = None, *, heads: int, **known: Any
) -> VisionTransformer:
    """Return the transformer with these weights; they determine its shape, settings the rest."""
    if projection is not None:
        if "head.weight" in state:
            raise ValueError("no place for a projection: the model has a head already")
        state |= {f"head.{name}": tensor for name, tensor in projection.state_dict().items()}
    config = replace(infer_config(state, heads=heads), **known)
    for number in range(config.depth):  # qkv_bias=False
        state.setdefault(
            f"blocks.{number}.attention.qkv.bias",
            state["patch_embedding.weight"].new_zeros(3 * config.width),
        )
    with torch.device("meta"):  # no time is spent on weights that are replaced
        model = VisionTransformer(config)
    try:
        model.load_state_dict({name: tensor.float() for name, tensor in state.items()}, assign=True)
    except RuntimeError as error:
        raise ValueError(f"these weights do not fit: {error}") from error
    return model.eval()


def _expect(module: nn.Module, *names: str) -> None:
    """Raise ValueError unless the module's class has one of these names.

    Other classes compute something else with the same weights.
    """
    if type(module).__name__ not in names:
        raise ValueError(
            f"no place for a {type(module).__name__} in this Vision Transformer (known: "
            f"{', '.join(names)})"
        )


def _only(values: Iterable[T], what: str) -> T:
    """Return the value that all parts of a model share; raises ValueError where they differ."""
    distinct = set(values)
    if len(distinct) != 1:
        raise ValueError(f"no place for different {what}: {sorted(map(str, distinct))}")
    return distinct.pop()


def _norm_eps(model: nn.Module) -> float:
    return _only(
        (part.eps for part in model.modules() if isinstance(part, nn.LayerNorm)),
        "epsilons of the norms",
    )


def _side(size: Any) -> int:
    height, width = size if isinstance(size, list | tuple) else (size, size)
    if not isinstance(height, int) or height != width:
        raise ValueError(f"no place for pictures of {height} x {width}: only squares")
    return height


def _activation(module: nn.Module) -> Activation:
    _expect(module, "GELU", "GELUTanh", "QuickGELU")
    if isinstance(module, nn.GELU):
        return "gelu_tanh" if module.approximate == "tanh" else "gelu"
    names: dict[str, Activation] = {
        "GELU": "gelu",
        "GELUTanh": "gelu_tanh",
        "QuickGELU": "quick_gelu",
    }
    return names[type(module).__name__]


def _projection(head: nn.Module) -> nn.Linear | None:
    """Return the linear layer of the adapter around a timm model, or None."""
    layers = [layer for layer in head.children() if not isinstance(layer, nn.Dropout)]
    if not layers:
        return None
    if len(layers) > 1 or not isinstance(layers[0], nn.Linear):
        raise ValueError(
            f"no place for a head of {', '.join(type(layer).__name__ for layer in layers)}"
        )
    return layers[0]


def _weight_files(folder: Path) -> Iterator[Path]:
    index = folder / "model.safetensors.index.json"
    if not index.exists():
        yield folder / "model.safetensors"
        return
    for name in sorted(set(parse_json(read_bounded(index))["weight_map"].values())):
        if Path(name).name != name:
            raise ValueError(f"{index} names a file outside the folder: {name}")
        yield folder / name
