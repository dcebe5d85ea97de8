"""The Vision Transformer by itself; test_weights.py holds it against the libraries whose
weights it loads.
"""

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="needs the extra vitsearch[clip]")

from helpers.vit_checks import TINY, assert_close, pictures, scrambled  # noqa: E402
from vitsearch.vit.model import Pooling, VisionTransformer, ViTConfig, sincos_positions  # noqa: E402


def test_the_base_model_has_the_published_number_of_weights() -> None:
    with torch.device("meta"):
        model = VisionTransformer(ViTConfig(out_dim=1000))
    assert sum(weight.numel() for weight in model.parameters()) == 86_567_656


def test_fixed_positions_are_the_formula_on_a_tiny_grid() -> None:
    x, y = [0, 1, 2, 0, 1, 2], [0, 0, 0, 1, 1, 1]
    waves = [[math.sin(c), math.sin(c / 100), math.cos(c), math.cos(c / 100)] for c in range(3)]
    expected = torch.tensor([waves[column] + waves[row] for column, row in zip(x, y, strict=True)])
    assert_close(sincos_positions(2, 3, 8), expected)


def test_fixed_positions_have_one_length_and_only_their_distance_counts() -> None:
    table = sincos_positions(6, 6, 32).reshape(6, 6, 32)
    products = torch.einsum("abw,cdw->abcd", table, table)
    assert_close(
        products[range(6), :, range(6), :].diagonal(dim1=1, dim2=2), torch.full((6, 6), 16.0)
    )
    assert_close(products[0, 0, :5, :5], products[1, 1, 1:, 1:])
    assert_close(table.transpose(0, 1), torch.cat([table[..., 16:], table[..., :16]], dim=-1))
    assert len(table.reshape(36, 32).unique(dim=0)) == 36


def test_fixed_positions_are_those_of_mae_and_of_timm() -> None:
    mae = pytest.importorskip("open_clip.pos_embed")
    layers = pytest.importorskip("timm.layers")
    theirs = torch.from_numpy(mae.get_2d_sincos_pos_embed(24, 5, cls_token=True)).float()
    model = VisionTransformer(replace(TINY, image_size=40, positions="sincos"))
    assert_close(model.position_embedding[0], theirs)
    parts = layers.build_sincos2d_pos_embed([4, 7], 24).reshape(
        28, 2, 2, 6
    )  # sine and cosine, each of row and column
    assert_close(sincos_positions(4, 7, 24), parts.flip(2).transpose(1, 2).reshape(28, 24))


def test_fixed_positions_are_no_weights_and_are_computed_for_another_size() -> None:
    config = replace(TINY, positions="sincos", distillation_token=True)
    model = scrambled(VisionTransformer(config))
    assert [
        name
        for name in [*model.state_dict(), *dict(model.named_parameters())]
        if "position" in name
    ] == []
    positions = model.positions(6, 4)
    assert_close(positions, torch.cat([torch.zeros(2, 24), sincos_positions(6, 4, 24)])[None])
    with torch.no_grad():
        large = VisionTransformer(replace(config, image_size=48)).eval()
        large.load_state_dict(model.state_dict())
        assert_close(model(pictures(48)), large(pictures(48)))
        assert model.tokens(pictures()[..., :24]).shape == (3, 2 + 12, 24)


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
        ({"distillation_head": True}, "needs the distillation token"),
        (
            {"pool": "mean", "class_token": False, "distillation_token": True},
            "needs the distillation token, and this the class token",
        ),
        ({"positions": "sincos", "width": 6}, "multiple of 4, not 6"),
    ],
)
def test_shapes_that_cannot_be_built_are_refused(change: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        replace(TINY, **change)


@pytest.mark.slow
def test_onnx_gives_the_same_vectors_for_any_batch(tmp_path: Path) -> None:
    onnxruntime = pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    model = scrambled(VisionTransformer(TINY))
    file = str(tmp_path / "vit.onnx")
    shapes = {"images": {0: torch.export.Dim("batch")}}
    torch.onnx.export(
        model,
        (pictures(),),
        file,
        input_names=["images"],
        dynamic_shapes=shapes,
        dynamo=True,
        verbose=False,
    )
    session = onnxruntime.InferenceSession(file)
    with torch.no_grad():
        expected = model(pictures(count=5)).numpy()
    np.testing.assert_allclose(
        session.run(None, {"images": pictures(count=5).numpy()})[0], expected, rtol=1e-4, atol=1e-4
    )
