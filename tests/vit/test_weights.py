"""Models of timm, open_clip and transformers, with random weights, against our transformer with the
same weights.
"""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch", reason="needs the extra vitsearch[clip]")

from safetensors.torch import load_file, save_file  # noqa: E402

from helpers.vit_checks import TINY, assert_close, pictures, scrambled  # noqa: E402
from vitsearch.vit.model import Pooling, VisionTransformer, ViTConfig  # noqa: E402
from vitsearch.vit.weights import (  # noqa: E402
    State,
    from_open_clip,
    from_timm,
    from_transformers,
    infer_config,
    load_vit_folder,
    vit_from_open_clip,
    vit_from_timm,
    vit_from_transformers,
)

pytestmark = pytest.mark.slow

TOWER = {
    "hidden_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 3,
    "intermediate_size": 96,
    "image_size": 32,
    "patch_size": 8,
}


def ours(state: State, config: ViTConfig) -> VisionTransformer:
    model = VisionTransformer(config)
    model.load_state_dict(state, strict=True)
    return model.eval()


@pytest.mark.parametrize(
    ("global_pool", "pool"), [("token", "cls"), ("avg", "mean"), ("map", "attention")]
)
def test_timm_weights_give_timm_outputs(global_pool: str, pool: Pooling) -> None:
    timm = pytest.importorskip("timm")
    theirs = scrambled(
        timm.models.VisionTransformer(
            img_size=32,
            patch_size=8,
            embed_dim=24,
            depth=2,
            num_heads=3,
            num_classes=5,
            global_pool=global_pool,
            class_token=global_pool != "map",
            pre_norm=global_pool == "avg",
        )
    )
    state = from_timm(theirs.state_dict())
    config = replace(infer_config(state, heads=3), pool=pool, norm_after_pool=global_pool == "avg")
    with torch.no_grad():
        assert_close(ours(state, config)(pictures()), theirs(pictures()))


def transformers_vit(size: int = 32) -> "torch.nn.Module":
    transformers = pytest.importorskip("transformers")
    config = transformers.ViTConfig(
        hidden_size=24,
        num_hidden_layers=2,
        num_attention_heads=3,
        intermediate_size=96,
        image_size=size,
        patch_size=8,
        num_labels=5,
    )
    return scrambled(transformers.ViTForImageClassification(config))


def transformers_names_of_version_4(state: State) -> dict[str, "torch.Tensor"]:
    """Return the state with the names that most weight files on disk still have."""
    old = {
        "attention.o_proj": "attention.output.dense",
        "mlp.fc1": "intermediate.dense",
        "mlp.fc2": "output.dense",
    }
    old |= {
        f"attention.{letter}_proj": f"attention.attention.{word}"
        for letter, word in (("q", "query"), ("k", "key"), ("v", "value"))
    }
    renamed = {}
    for name, tensor in state.items():
        for new, before in old.items():
            name = name.replace(new, before)
        renamed[name.replace("vit.layers.", "vit.encoder.layer.")] = tensor
    return renamed


@pytest.mark.parametrize("version", [4, 5])
def test_transformers_weights_give_the_logits_of_transformers(version: int) -> None:
    theirs = transformers_vit()
    state = (
        theirs.state_dict()
        if version == 5
        else transformers_names_of_version_4(theirs.state_dict())
    )
    mine = from_transformers(state)
    config = replace(infer_config(mine, heads=3), norm_eps=1e-12)
    assert config == replace(TINY, norm_eps=1e-12)
    with torch.no_grad():
        assert_close(ours(mine, config)(pictures()), theirs(pictures()).logits)


def test_transformers_vit_model_gives_the_same_tokens_and_attention() -> None:
    theirs = transformers_vit().vit
    state = from_transformers(theirs.state_dict())
    model = ours(state, replace(infer_config(state, heads=3), norm_eps=1e-12))
    theirs.config._attn_implementation = "eager"
    with torch.no_grad():
        expected = theirs(pictures(), output_attentions=True)
        assert_close(model.tokens(pictures()), expected.last_hidden_state)
        for mine, other in zip(
            model.forward_with_attention(pictures())[1], expected.attentions, strict=True
        ):
            assert_close(mine, other)


def test_a_picture_of_another_size_interpolates_the_positions_like_transformers() -> None:
    theirs = transformers_vit()
    state = from_transformers(theirs.state_dict())
    model = ours(state, replace(infer_config(state, heads=3), norm_eps=1e-12))
    with torch.no_grad():
        assert_close(
            model(pictures(48)), theirs(pictures(48), interpolate_pos_encoding=True).logits
        )


def test_the_vision_tower_of_transformers_clip() -> None:
    transformers = pytest.importorskip("transformers")
    config = transformers.CLIPVisionConfig(
        hidden_size=24,
        num_hidden_layers=2,
        num_attention_heads=3,
        intermediate_size=96,
        image_size=32,
        patch_size=8,
        projection_dim=5,
    )
    theirs = scrambled(transformers.CLIPVisionModelWithProjection(config))
    state = from_transformers(theirs.state_dict())
    config = replace(infer_config(state, heads=3), norm_eps=1e-5, activation="quick_gelu")
    with torch.no_grad():
        assert_close(ours(state, config)(pictures()), theirs(pictures()).image_embeds)


@pytest.mark.parametrize(
    ("quick_gelu", "pool_type"), [(False, "tok"), (True, "tok"), (True, "avg")]
)
def test_open_clip_visual_tower(quick_gelu: bool, pool_type: str) -> None:
    open_clip = pytest.importorskip("open_clip")
    activation = open_clip.transformer.QuickGELU if quick_gelu else torch.nn.GELU
    theirs = scrambled(
        open_clip.transformer.VisionTransformer(
            image_size=32,
            patch_size=8,
            width=24,
            layers=2,
            heads=3,
            mlp_ratio=4,
            output_dim=16,
            act_layer=activation,
            pool_type=pool_type,
        )
    )
    state = from_open_clip(
        {f"visual.{name}": tensor for name, tensor in theirs.state_dict().items()}
    )
    config = replace(
        infer_config(state, heads=3),
        norm_eps=1e-5,
        activation="quick_gelu" if quick_gelu else "gelu",
        pool="mean" if pool_type == "avg" else "cls",
    )
    with torch.no_grad():
        assert_close(ours(state, config)(pictures()), theirs(pictures()))


def test_an_unknown_weight_is_named() -> None:
    with pytest.raises(ValueError, match=r"no place for the weight 'reg_token'"):
        from_timm({"reg_token": torch.ones(3)})


def timm_vit(**changes: Any) -> "torch.nn.Module":
    timm = pytest.importorskip("timm")
    kind = (
        timm.models.deit.VisionTransformerDistilled
        if changes.pop("distilled", False)
        else timm.models.VisionTransformer
    )
    return scrambled(
        kind(
            **(
                {
                    "img_size": 32,
                    "patch_size": 8,
                    "embed_dim": 24,
                    "depth": 2,
                    "num_heads": 3,
                    "num_classes": 5,
                }
                | changes
            )
        )
    )


def siglip_trunk(**changes: Any) -> "torch.nn.Module":
    return timm_vit(
        **{
            "global_pool": "map",
            "class_token": False,
            "num_classes": 0,
            "act_layer": "gelu_tanh",
            "mlp_ratio": 3.7,
        }
        | changes
    )


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, TINY),
        (
            {"num_classes": 0, "act_layer": "quick_gelu", "num_heads": 2},
            replace(TINY, out_dim=0, activation="quick_gelu", heads=2),
        ),
        ({"global_pool": "avg"}, replace(TINY, pool="mean", norm_after_pool=True)),
        (
            {"global_pool": "avg", "fc_norm": False, "class_token": False},
            replace(TINY, pool="mean", class_token=False),
        ),
        (
            {"global_pool": "map", "class_token": False},
            replace(TINY, pool="attention", class_token=False),
        ),
        ({"distilled": True}, replace(TINY, distillation_token=True, distillation_head=True)),
        (
            {"distilled": True, "num_classes": 0},
            replace(TINY, out_dim=0, distillation_token=True, distillation_head=True),
        ),
        ({"no_embed_class": True, "init_values": 1e-6}, TINY),
        ({"qkv_bias": False}, TINY),
        ({"pre_norm": True}, replace(TINY, pre_norm=True, patch_bias=False)),
        ({"img_size": 35, "dynamic_img_size": True}, replace(TINY, image_size=35)),
    ],
    ids=[
        "vit",
        "no head",
        "mean",
        "mean, no class token",
        "attention",
        "DeiT",
        "DeiT, no head",
        "DeiT III",
        "no bias",
        "pre-norm",
        "35",
    ],
)
def test_a_live_model_of_timm(changes: dict[str, Any], expected: ViTConfig) -> None:
    theirs = timm_vit(**changes)
    model = vit_from_timm(theirs)
    assert (model.config, model.training) == (expected, False)
    with torch.no_grad():
        assert_close(model(pictures()), theirs(pictures()))


def test_timm_models_in_half_precision_become_float32() -> None:
    theirs = timm_vit().to(torch.bfloat16)
    model = vit_from_timm(theirs)
    assert {weight.dtype for weight in model.parameters()} == {torch.float32}
    with torch.no_grad():
        assert_close(model(pictures()), theirs.float()(pictures()))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"reg_tokens": 2}, "the weight 'reg_token'"),
        ({"qk_norm": True}, r"the weight 'blocks\.0\.attn\.q_norm\.weight'"),
        ({"act_layer": "silu"}, "a SiLU in"),
        ({"img_size": (32, 40)}, "32 x 40: only squares"),
        (
            {"global_pool": "avg", "pool_include_prefix": True},
            "global_pool='avg' with 1 prefix tokens",
        ),
        ({"global_pool": "map"}, "global_pool='map' with 1 prefix tokens"),
        ({"global_pool": "max"}, "global_pool='max'"),
        ({"pos_embed": "none"}, "absolute positions: no position_embedding"),
        ({"final_norm": False}, "do not fit.*norm.weight"),
    ],
)
def test_what_timm_has_and_we_have_not_is_named(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=f"(?s){message}"):
        vit_from_timm(timm_vit(**changes))


def test_timm_classes_that_compute_something_else_are_refused() -> None:
    timm = pytest.importorskip("timm")
    vit = timm.models.vision_transformer
    with pytest.raises(ValueError, match="no place for a ResPostBlock"):
        vit_from_timm(timm_vit(block_fn=vit.ResPostBlock))
    with pytest.raises(ValueError, match="no place for a Eva"):
        vit_from_timm(
            timm.models.Eva(
                img_size=32, patch_size=8, embed_dim=24, depth=1, num_heads=3, num_classes=5
            )
        )


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"act_layer": "QuickGELU"}, replace(TINY, activation="quick_gelu")),
        ({"pool_type": "avg"}, replace(TINY, pool="mean")),
        (
            {"pool_type": "avg", "final_ln_after_pool": True},
            replace(TINY, pool="mean", norm_after_pool=True),
        ),
        ({"no_ln_pre": True, "ls_init_value": 0.1}, replace(TINY, pre_norm=False)),
        ({"pos_embed_type": "sin_cos_2d"}, TINY),
        ({"block_type": "custom"}, TINY),
    ],
)
def test_a_live_image_tower_of_open_clip(changes: dict[str, Any], expected: ViTConfig) -> None:
    transformer = pytest.importorskip("open_clip.transformer")
    settings = {
        "image_size": 32,
        "patch_size": 8,
        "width": 24,
        "layers": 2,
        "heads": 3,
        "mlp_ratio": 4,
        "output_dim": 16,
    } | changes
    if "act_layer" in changes:
        settings["act_layer"] = transformer.QuickGELU
    theirs = scrambled(transformer.VisionTransformer(**settings))
    model = vit_from_open_clip(theirs)
    pre_norm = not changes.get("no_ln_pre", False)
    assert model.config == replace(
        expected, out_dim=16, pre_norm=pre_norm, patch_bias=False, head_bias=False, norm_eps=1e-5
    )
    with torch.no_grad():
        assert_close(model(pictures()), theirs(pictures()))


def test_a_tower_of_open_clip_from_timm_with_a_projection() -> None:
    timm_model = pytest.importorskip("open_clip.timm_model")
    theirs = scrambled(
        timm_model.TimmModel("test_vit", embed_dim=7, image_size=160, pool="token", proj="linear")
    )
    model = vit_from_open_clip(theirs)
    assert (model.config.out_dim, model.config.head_bias, model.config.heads) == (7, False, 2)
    with torch.no_grad():
        assert_close(model(pictures(160)), theirs(pictures(160)))
    theirs.head = torch.nn.Sequential(
        torch.nn.Linear(64, 64), torch.nn.GELU(), torch.nn.Linear(64, 7)
    )
    with pytest.raises(ValueError, match="no place for a head of Linear, GELU, Linear"):
        vit_from_open_clip(theirs)


def test_a_tower_of_open_clip_shaped_like_siglip() -> None:
    timm_model = pytest.importorskip("open_clip.timm_model")
    theirs = timm_model.TimmModel("test_vit", embed_dim=24, image_size=32, pool="", proj="none")
    theirs.trunk = siglip_trunk()
    model = vit_from_open_clip(theirs.eval())
    assert model.config == replace(
        TINY, out_dim=0, pool="attention", class_token=False, activation="gelu_tanh", mlp_width=88
    )
    with torch.no_grad():
        assert_close(model(pictures()), theirs(pictures()))


def test_what_open_clip_has_and_we_have_not_is_named() -> None:
    open_clip = pytest.importorskip("open_clip")
    settings: dict[str, Any] = {
        "image_size": 32,
        "patch_size": 8,
        "width": 24,
        "layers": 2,
        "heads": 3,
        "mlp_ratio": 4,
        "output_dim": 24,
        "attn_pooler_heads": 3,
    }
    with pytest.raises(ValueError, match=r"no place for the weight 'attn_pool\.query'"):
        vit_from_open_clip(
            open_clip.transformer.VisionTransformer(**settings, attentional_pool=True)
        )
    with pytest.raises(
        ValueError, match=r"no place for the weight 'transformer\.resblocks\.0\.attn\.logit_scale'"
    ):
        vit_from_open_clip(
            open_clip.transformer.VisionTransformer(
                **settings, block_type="custom", scaled_cosine_attn=True
            )
        )
    with pytest.raises(ValueError, match="no place for pool_type='none'"):
        vit_from_open_clip(open_clip.transformer.VisionTransformer(**settings, pool_type="none"))
    with pytest.raises(ValueError, match="no place for a ModifiedResNet"):
        vit_from_open_clip(
            open_clip.modified_resnet.ModifiedResNet(
                [1, 1, 1, 1], output_dim=8, heads=2, image_size=64, width=8
            )
        )


def transformers_model(kind: str) -> "torch.nn.Module":
    transformers = pytest.importorskip("transformers")
    configs = {
        "V": transformers.ViTConfig,
        "D": transformers.DeiTConfig,
        "C": transformers.CLIPVisionConfig,
        "S": transformers.SiglipVisionConfig,
    }
    extra = {
        "V": {"num_labels": 5, "hidden_act": "gelu_new"},
        "D": {"num_labels": 5, "layer_norm_eps": 1e-3},
        "C": {"projection_dim": 5},
        "S": {},
    }
    return scrambled(getattr(transformers, kind)(configs[kind[0]](**TOWER, **extra[kind[0]])))


def output(theirs: "torch.nn.Module", images: "torch.Tensor") -> "torch.Tensor":
    """Return what our transformer gives too: logits, embeddings, or the pooled vector without ViT's
    tanh pooler.
    """
    out = theirs(images)
    if "logits" in out:
        return out.logits
    if "image_embeds" in out:
        return out.image_embeds
    return (
        out.last_hidden_state[:, 0]
        if type(theirs).__name__ in ("ViTModel", "DeiTModel")
        else out.pooler_output
    )


KINDS = {
    "ViTForImageClassification": replace(TINY, norm_eps=1e-12, activation="gelu_tanh"),
    "ViTModel": replace(TINY, norm_eps=1e-12, activation="gelu_tanh", out_dim=0),
    "DeiTForImageClassification": replace(TINY, norm_eps=1e-3, distillation_token=True),
    "DeiTForImageClassificationWithTeacher": replace(
        TINY, norm_eps=1e-3, distillation_token=True, distillation_head=True
    ),
    "DeiTModel": replace(TINY, norm_eps=1e-3, distillation_token=True, out_dim=0),
    "CLIPVisionModel": replace(
        TINY, norm_eps=1e-5, activation="quick_gelu", pre_norm=True, patch_bias=False, out_dim=0
    ),
    "CLIPVisionModelWithProjection": replace(
        TINY,
        norm_eps=1e-5,
        activation="quick_gelu",
        pre_norm=True,
        patch_bias=False,
        head_bias=False,
    ),
    "SiglipVisionModel": replace(
        TINY, activation="gelu_tanh", pool="attention", class_token=False, out_dim=0
    ),
}


@pytest.mark.parametrize("kind", KINDS)
def test_a_live_model_of_transformers_and_its_folder(kind: str, tmp_path: Path) -> None:
    theirs = transformers_model(kind)
    theirs.save_pretrained(tmp_path)
    with torch.no_grad():
        expected = output(theirs, pictures())
        for model in (vit_from_transformers(theirs), load_vit_folder(tmp_path)):
            assert (model.config, model.training) == (KINDS[kind], False)
            if (
                kind == "DeiTModel"
            ):  # headless, and without the second head whose output would be averaged
                assert_close(model.pool(model.tokens(pictures())), expected)
            assert_close(model(pictures()), expected)


@pytest.mark.parametrize("kind", ["CLIP", "Siglip"])
def test_the_image_tower_of_a_folder_with_two_towers(kind: str, tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    config = getattr(transformers, f"{kind}Config")(
        vision_config=TOWER,
        text_config={
            name: value
            for name, value in TOWER.items()
            if "_size" in name[-5:] and "image" not in name and "patch" not in name
        }
        | {
            "num_hidden_layers": 1,
            "num_attention_heads": 3,
            "vocab_size": 50,
            "max_position_embeddings": 8,
        },
    )
    whole = scrambled(getattr(transformers, f"{kind}Model")(config))
    whole.save_pretrained(tmp_path, max_shard_size="50KB")
    assert (tmp_path / "model.safetensors.index.json").exists()
    live = vit_from_transformers(
        whole.vision_model, projection=getattr(whole, "visual_projection", None)
    )
    with torch.no_grad():
        found = whole.get_image_features(pixel_values=pictures())
        expected = found if isinstance(found, torch.Tensor) else found.pooler_output
        assert_close(live(pictures()), expected)
        assert_close(load_vit_folder(tmp_path)(pictures()), expected)
    with pytest.raises(ValueError, match=f"model of type '{kind.lower()}'"):
        vit_from_transformers(whole)


def test_settings_that_a_folder_leaves_out_are_those_of_transformers(tmp_path: Path) -> None:
    theirs = transformers_model("SiglipVisionModel")
    theirs.save_pretrained(tmp_path)
    told = {"model_type": "siglip", "vision_config": {"image_size": 32, "num_attention_heads": 3}}
    (tmp_path / "config.json").write_text(json.dumps(told), encoding="utf-8")
    state = load_file(tmp_path / "model.safetensors")
    save_file(
        {
            f"vision_model.{name.removeprefix('vision_model.')}": tensor
            for name, tensor in state.items()
        },
        tmp_path / "model.safetensors",
    )
    assert load_vit_folder(tmp_path).config == KINDS["SiglipVisionModel"]


def test_folders_that_cannot_be_loaded_say_why(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"config\.json"):
        load_vit_folder(tmp_path)
    config = tmp_path / "config.json"
    config.write_text('{"model_type": "vit"}')
    with pytest.raises(FileNotFoundError, match=r"model\.safetensors"):
        load_vit_folder(tmp_path)
    (tmp_path / "model.safetensors").write_bytes(b"no weights")
    with pytest.raises(ValueError, match="cannot be read as safetensors"):
        load_vit_folder(tmp_path)
    save_file({"vit.layernorm.weight": torch.ones(3)}, tmp_path / "model.safetensors")
    with pytest.raises(ValueError, match=r"no patch_embedding\.weight"):
        load_vit_folder(tmp_path)
    config.write_text('{"model_type": "dinov2"}')
    with pytest.raises(
        ValueError,
        match="no place for a model of type 'dinov2'; known are vit, deit, clip_vision_model",
    ):
        load_vit_folder(tmp_path)
    config.write_text('{"model_type": "vit", "hidden_act": "relu"}')
    with pytest.raises(ValueError, match="no place for the activation 'relu'"):
        load_vit_folder(tmp_path)
    (tmp_path / "model.safetensors.index.json").write_text(
        '{"weight_map": {"a": "../elsewhere.safetensors"}}'
    )
    with pytest.raises(ValueError, match=r"outside the folder: \.\./elsewhere"):
        load_vit_folder(tmp_path)


def test_weights_of_another_size_than_the_config_tells_are_refused() -> None:
    theirs = transformers_model("ViTModel")
    theirs.config.image_size = 48
    with pytest.raises(ValueError, match="these weights do not fit"):
        vit_from_transformers(theirs)
    with pytest.raises(ValueError, match="has a head already"):
        vit_from_transformers(
            transformers_model("ViTForImageClassification"), projection=torch.nn.Linear(24, 5)
        )


def test_weights_of_the_original_jax_code_come_by_timm(tmp_path: Path) -> None:
    """Its ``.npz`` files (Dosovitskiy et al. 2020), which we do not read and timm does."""
    timm = pytest.importorskip("timm")
    np = pytest.importorskip("numpy")
    width, heads, side = 24, 3, 24 // 3
    rng = np.random.default_rng(5)

    def kernel(*shape: int) -> Any:
        return rng.normal(0, 0.2, shape).astype(np.float32)

    def norm(name: str) -> dict[str, Any]:
        return {f"{name}/scale": kernel(width), f"{name}/bias": kernel(width)}

    def dense(name: str, *shape: int, bias: tuple[int, ...]) -> dict[str, Any]:
        return {f"{name}/kernel": kernel(*shape), f"{name}/bias": kernel(*bias)}

    arrays = {
        "cls": kernel(1, 1, width),
        **dense("embedding", 8, 8, 3, width, bias=(width,)),
        "Transformer/posembed_input/pos_embedding": kernel(1, 17, width),
        **norm("Transformer/encoder_norm"),
        **dense("head", width, 5, bias=(5,)),
    }
    for number in range(2):
        block = f"Transformer/encoderblock_{number}"
        attention = f"{block}/MultiHeadDotProductAttention_1"
        arrays |= {**norm(f"{block}/LayerNorm_0"), **norm(f"{block}/LayerNorm_2")}
        for name in ("query", "key", "value"):
            arrays |= dense(f"{attention}/{name}", width, heads, side, bias=(heads, side))
        arrays |= dense(f"{attention}/out", heads, side, width, bias=(width,))
        arrays |= dense(f"{block}/MlpBlock_3/Dense_0", width, 4 * width, bias=(4 * width,))
        arrays |= dense(f"{block}/MlpBlock_3/Dense_1", 4 * width, width, bias=(width,))
    np.savez(tmp_path / "ViT-tiny.npz", **arrays)
    sizes = {"img_size": 32, "patch_size": 8, "embed_dim": width, "depth": 2, "num_heads": heads}
    theirs = timm.models.VisionTransformer(**sizes, num_classes=5)
    timm.models.load_checkpoint(theirs, str(tmp_path / "ViT-tiny.npz"))
    theirs.eval()
    assert_close(theirs.head.weight.detach().T, torch.from_numpy(arrays["head/kernel"]))
    assert_close(vit_from_timm(theirs)(pictures()), theirs(pictures()))
