"""Our ``VisionTransformer`` with the weights of other libraries' models, live ones or folders.

Equal weights give equal outputs. The libraries themselves are not imported: their models are read
by attribute, their files by safetensors. What our transformer cannot compute exactly is a
ValueError that names it.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from math import isqrt
from pathlib import Path
from typing import Any, TypeVar

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from vitsearch.untrusted import guarded, parse_json, read_bounded
from vitsearch.vit.model import Activation, Pooling, VisionTransformer, ViTConfig
from vitsearch.vit.state_dicts import State, from_open_clip, from_timm, from_transformers

__all__ = [
    "State",
    "from_open_clip",
    "from_timm",
    "from_transformers",
    "infer_config",
    "load_vit_folder",
    "vit_from_open_clip",
    "vit_from_timm",
    "vit_from_transformers",
]

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


def infer_config(state: State, *, heads: int) -> ViTConfig:
    """Return the configuration that fits one of our state dicts, for a square picture.

    The weights do not tell the number of heads, the activation, the norm's epsilon, or how tokens
    are pooled (except attention pooling): give the first, change the others with
    ``dataclasses.replace``. Raises ValueError where a weight is missing.
    """
    missing = [
        name
        for name in ("patch_embedding.weight", "position_embedding", "blocks.0.mlp.fc1.weight")
        if name not in state
    ]
    if missing:
        raise ValueError(
            f"not the weights of a Vision Transformer with absolute positions: no {missing[0]}"
        )
    width, channels, patch, _ = state["patch_embedding.weight"].shape
    class_token, distillation_token = "class_token" in state, "distillation_token" in state
    grid = isqrt(state["position_embedding"].shape[1] - class_token - distillation_token)
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
        distillation_token=distillation_token,
        distillation_head="distillation_head.weight" in state,
        pre_norm="pre_norm.weight" in state,
        patch_bias="patch_embedding.bias" in state,
        head_bias="head.weight" not in state or "head.bias" in state,
    )


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
