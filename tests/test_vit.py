"""The Vision Transformer against the libraries whose weights it loads, and by itself."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="needs the extra vitsearch[clip]")

from vitsearch.vit import Pooling, VisionTransformer, ViTConfig  # noqa: E402
from vitsearch.vit_weights import State, from_open_clip, from_timm, from_transformers, infer_config  # noqa: E402

TINY = ViTConfig(image_size=32, patch_size=8, width=24, depth=2, heads=3, mlp_width=96, out_dim=5)


def pictures(size: int = 32, count: int = 3) -> "torch.Tensor":
    return torch.randn(count, 3, size, size, generator=torch.Generator().manual_seed(1))


def scrambled(module: "torch.nn.Module") -> "torch.nn.Module":
    """Give every weight, norms and zero-initialised ones too, a random value, so that a mix-up shows."""
    generator = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for weight in module.parameters():
            weight.copy_(torch.randn(weight.shape, generator=generator) * 0.2 + (1.0 if weight.ndim == 1 else 0.0))
    return module.eval()


def ours(state: State, config: ViTConfig) -> VisionTransformer:
    model = VisionTransformer(config)
    model.load_state_dict(state, strict=True)
    return model.eval()


def assert_close(actual: "torch.Tensor", expected: "torch.Tensor") -> None:
    assert actual.shape == expected.shape
    scale = max(1.0, float(expected.abs().max()))
    assert float((actual - expected).abs().max()) <= 1e-5 * scale


@pytest.mark.parametrize(("global_pool", "pool"), [("token", "cls"), ("avg", "mean"), ("map", "attention")])
def test_timm_weights_give_timm_outputs(global_pool: str, pool: Pooling) -> None:
    timm = pytest.importorskip("timm")
    theirs = scrambled(
        timm.models.VisionTransformer(
            img_size=32, patch_size=8, embed_dim=24, depth=2, num_heads=3, num_classes=5,
            global_pool=global_pool, class_token=global_pool != "map", pre_norm=global_pool == "avg",
        )
    )  # fmt: skip
    state = from_timm(theirs.state_dict())
    config = replace(infer_config(state, heads=3), pool=pool, norm_after_pool=global_pool == "avg")
    with torch.no_grad():
        assert_close(ours(state, config)(pictures()), theirs(pictures()))


def transformers_vit(size: int = 32) -> "torch.nn.Module":
    transformers = pytest.importorskip("transformers")
    config = transformers.ViTConfig(
        hidden_size=24, num_hidden_layers=2, num_attention_heads=3, intermediate_size=96, image_size=size, patch_size=8, num_labels=5
    )
    return scrambled(transformers.ViTForImageClassification(config))


def transformers_names_of_version_4(state: State) -> dict[str, "torch.Tensor"]:
    """Return the state with the names that most weight files on disk still have."""
    old = {"attention.o_proj": "attention.output.dense", "mlp.fc1": "intermediate.dense", "mlp.fc2": "output.dense"}
    old |= {f"attention.{letter}_proj": f"attention.attention.{word}" for letter, word in (("q", "query"), ("k", "key"), ("v", "value"))}
    renamed = {}
    for name, tensor in state.items():
        for new, before in old.items():
            name = name.replace(new, before)
        renamed[name.replace("vit.layers.", "vit.encoder.layer.")] = tensor
    return renamed


@pytest.mark.parametrize("version", [4, 5])
def test_transformers_weights_give_the_logits_of_transformers(version: int) -> None:
    theirs = transformers_vit()
    state = theirs.state_dict() if version == 5 else transformers_names_of_version_4(theirs.state_dict())
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
        for mine, other in zip(model.forward_with_attention(pictures())[1], expected.attentions, strict=True):
            assert_close(mine, other)


def test_a_picture_of_another_size_interpolates_the_positions_like_transformers() -> None:
    theirs = transformers_vit()
    state = from_transformers(theirs.state_dict())
    model = ours(state, replace(infer_config(state, heads=3), norm_eps=1e-12))
    with torch.no_grad():
        assert_close(model(pictures(48)), theirs(pictures(48), interpolate_pos_encoding=True).logits)


def test_the_vision_tower_of_transformers_clip() -> None:
    transformers = pytest.importorskip("transformers")
    config = transformers.CLIPVisionConfig(
        hidden_size=24, num_hidden_layers=2, num_attention_heads=3, intermediate_size=96, image_size=32, patch_size=8, projection_dim=5
    )
    theirs = scrambled(transformers.CLIPVisionModelWithProjection(config))
    state = from_transformers(theirs.state_dict())
    config = replace(infer_config(state, heads=3), norm_eps=1e-5, activation="quick_gelu")
    with torch.no_grad():
        assert_close(ours(state, config)(pictures()), theirs(pictures()).image_embeds)


@pytest.mark.parametrize(("quick_gelu", "pool_type"), [(False, "tok"), (True, "tok"), (True, "avg")])
def test_open_clip_visual_tower(quick_gelu: bool, pool_type: str) -> None:
    open_clip = pytest.importorskip("open_clip")
    activation = open_clip.transformer.QuickGELU if quick_gelu else torch.nn.GELU
    theirs = scrambled(
        open_clip.transformer.VisionTransformer(
            image_size=32, patch_size=8, width=24, layers=2, heads=3, mlp_ratio=4, output_dim=16, act_layer=activation, pool_type=pool_type
        )
    )
    state = from_open_clip({f"visual.{name}": tensor for name, tensor in theirs.state_dict().items()})
    config = replace(
        infer_config(state, heads=3),
        norm_eps=1e-5,
        activation="quick_gelu" if quick_gelu else "gelu",
        pool="mean" if pool_type == "avg" else "cls",
    )
    with torch.no_grad():
        assert_close(ours(state, config)(pictures()), theirs(pictures()))


def test_an_unknown_weight_is_named() -> None:
    with pytest.raises(ValueError, match=r"no place for the weight 'blocks\.0\.ls1\.gamma'"):
        from_timm({"blocks.0.ls1.gamma": torch.ones(3)})


def test_the_base_model_has_the_published_number_of_weights() -> None:
    with torch.device("meta"):
        model = VisionTransformer(ViTConfig(out_dim=1000))
    assert sum(weight.numel() for weight in model.parameters()) == 86_567_656


@pytest.mark.parametrize("pool", ["cls", "mean", "attention"])
def test_asking_for_attention_does_not_change_the_output(pool: Pooling) -> None:
    model = scrambled(VisionTransformer(replace(TINY, pool=pool)))
    with torch.no_grad():
        plain = model(pictures())
        out, weights = model.forward_with_attention(pictures())
    assert_close(out, plain)
    assert [tuple(w.shape) for w in weights] == [(3, 3, 17, 17)] * 2
    for w in weights:
        assert torch.allclose(w.sum(dim=-1), torch.ones(3, 3, 17), atol=1e-5)


def test_a_gradient_reaches_the_attention_weights() -> None:
    out, weights = scrambled(VisionTransformer(TINY)).forward_with_attention(pictures())
    gradients = torch.autograd.grad(out[:, 2].sum(), weights)
    assert [tuple(g.shape) for g in gradients] == [(3, 3, 17, 17)] * 2
    assert all(float(g.abs().max()) > 0 for g in gradients)


def test_a_stem_turns_the_cells_of_its_map_into_tokens() -> None:
    stem = torch.nn.Conv2d(3, 8, kernel_size=16, stride=16)
    learned = stem.weight.detach().clone()
    model = VisionTransformer(replace(TINY, image_size=4, patch_size=1, channels=8), stem).eval()
    assert torch.equal(stem.weight, learned)
    with torch.no_grad():
        tokens = model.tokens(pictures(64))
        cells = model.patch_embedding(stem(pictures(64)))
        embedded = model.embed(pictures(64))[:, 1:] - model.position_embedding[:, 1:]
    assert tokens.shape == (3, 17, 24)
    assert_close(embedded, cells.flatten(2).transpose(1, 2))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"heads": 5}, "width 24 is not a multiple of 5 heads"),
        ({"patch_size": 64}, "does not fit"),
        ({"class_token": False}, "class_token"),
    ],
)
def test_shapes_that_cannot_be_built_are_refused(change: dict[str, int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        replace(TINY, **change)


def test_onnx_gives_the_same_vectors_for_any_batch(tmp_path: Path) -> None:
    onnxruntime = pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    model = scrambled(VisionTransformer(TINY))
    file = str(tmp_path / "vit.onnx")
    shapes = {"images": {0: torch.export.Dim("batch")}}
    torch.onnx.export(model, (pictures(),), file, input_names=["images"], dynamic_shapes=shapes, dynamo=True, verbose=False)
    session = onnxruntime.InferenceSession(file)
    with torch.no_grad():
        expected = model(pictures(count=5)).numpy()
    np.testing.assert_allclose(session.run(None, {"images": pictures(count=5).numpy()})[0], expected, rtol=1e-4, atol=1e-4)
