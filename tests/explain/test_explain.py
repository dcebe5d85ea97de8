"""Explanations: the two rules by hand, the encoders of every source, the drawing, the command, and
where relevance falls.
"""

import importlib
import io
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from helpers.cli import environment
from helpers.odd_files import encoded
from helpers.paths import DATA, ROOT
from helpers.photos import paint
from vitsearch import EncoderError, QueryError, VitsearchError, index_folder, load_encoder
from vitsearch.cli import run
from vitsearch.encoders.colour import ColourEncoder
from vitsearch.encoders.preprocess import Preprocess, prepare, seen_region
from vitsearch.explain import (
    Explanation,
    draw_explanation,
    explain,
    heat_colours,
    overlay,
    write_explanation,
)

torch = pytest.importorskip("torch", reason="explanations need PyTorch")

from vitsearch.encoders.mini.network import MAP_CHANNELS  # noqa: E402
from vitsearch.explain.attribution import (  # noqa: E402  # noqa: E402
    attention_relevance,
    attention_rollout,
    explain_mini,
    join,
    mini_network,
    patch_relevance,
    patch_rollout,
    shares_beside,
    trace,
)
from vitsearch.vit.model import VisionTransformer, ViTConfig  # noqa: E402

BENCHMARKS = ROOT / "benchmarks"


def picture(width: int, height: int, seed: int = 0) -> Image.Image:
    coarse = np.random.default_rng(seed).integers(0, 256, (6, 6, 3), dtype=np.uint8)
    return Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)


# -- the two rules ---------------------------------------------------------------------------------

FIRST = [[[[0.2, 0.8], [0.6, 0.4]], [[0.4, 0.6], [1.0, 0.0]]]]  # one picture, two heads, two tokens
SECOND = [[[[0.5, 0.5], [0.1, 0.9]], [[0.7, 0.3], [0.3, 0.7]]]]


def test_rollout_by_hand() -> None:
    # heads averaged, half identity: [[.65, .35], [.4, .6]] and [[.8, .2], [.1, .9]]; then second @
    # first
    rolled = attention_rollout([torch.tensor(FIRST), torch.tensor(SECOND)])
    expected = [
        [
            [0.8 * 0.65 + 0.2 * 0.4, 0.8 * 0.35 + 0.2 * 0.6],
            [0.1 * 0.65 + 0.9 * 0.4, 0.1 * 0.35 + 0.9 * 0.6],
        ]
    ]
    torch.testing.assert_close(rolled, torch.tensor(expected))
    torch.testing.assert_close(rolled.sum(dim=-1), torch.ones(1, 2))


def test_relevance_by_hand() -> None:
    gradients = [
        torch.tensor([[[[1.0, -1.0], [0.0, 2.0]], [[-5.0, 1.0], [1.0, 1.0]]]]),
        torch.tensor([[[[2.0, 0.0], [1.0, -1.0]]] * 2]),
    ]
    # positive parts, heads averaged: [[.1, .3], [.5, .4]] and [[1.2, 0], [.2, 0]]; then R = R +
    # part @ R from the identity
    after_first = np.array([[1.1, 0.3], [0.5, 1.4]])
    expected = after_first + np.array([[1.2, 0.0], [0.2, 0.0]]) @ after_first
    found = attention_relevance([torch.tensor(FIRST), torch.tensor(SECOND)], gradients)
    np.testing.assert_allclose(found[0].numpy(), expected, atol=1e-6)


def tiny_vit(**changes: Any) -> VisionTransformer:
    torch.manual_seed(3)
    sizes = {
        "image_size": 12,
        "patch_size": 4,
        "width": 8,
        "depth": 2,
        "heads": 2,
        "mlp_width": 16,
        "out_dim": 5,
    }
    vit = VisionTransformer(ViTConfig(**(sizes | changes))).double().eval()
    with torch.no_grad():
        for weight in vit.parameters():
            weight.add_(torch.randn(weight.shape, dtype=torch.float64) * 0.3)
    return vit


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"pool": "mean"},
        {"pool": "mean", "class_token": False, "norm_after_pool": True},
        {"pool": "attention", "class_token": False},
        {"pool": "attention", "class_token": False, "norm_after_pool": True},
        {"distillation_token": True, "distillation_head": True},
    ],
)
def test_a_trace_gives_the_transformers_own_output(changes: dict[str, Any]) -> None:
    vit = tiny_vit(**changes)
    pixels = torch.randn(1, 3, 12, 12, dtype=torch.float64)
    traced = trace(vit, pixels)
    torch.testing.assert_close(traced.output, vit(pixels))
    for one, other in zip(traced.blocks, vit.forward_with_attention(pixels)[1], strict=True):
        torch.testing.assert_close(one, other)
    assert (traced.pooling is not None) == (vit.config.pool == "attention")
    rolled, relevance = (
        patch_rollout(vit, traced),
        patch_relevance(vit, traced, traced.output[0, 1]),
    )
    assert (rolled.shape, relevance.shape) == ((3, 3), (3, 3))
    assert bool((rolled > 0).all())
    assert bool((relevance >= 0).all())


def test_relevance_of_one_block_against_finite_differences() -> None:
    vit = tiny_vit(depth=1)
    pixels = torch.randn(1, 3, 12, 12, dtype=torch.float64)
    block, tokens = vit.blocks[0], vit.embed(pixels).detach()
    values = block.attention.qkv(block.norm1(tokens)).view(1, 10, 3, 2, 4).permute(2, 0, 3, 1, 4)[2]

    @torch.no_grad()
    def score(weights: Any) -> float:
        x = tokens + block.attention.out((weights @ values).transpose(1, 2).reshape(1, 10, 8))
        return float(vit.head(vit.norm(x + block.mlp(block.norm2(x))))[0, 0, 2])

    traced = trace(vit, pixels)
    weights, expected = traced.blocks[0].detach(), np.zeros(9)
    for head in range(2):
        for patch in range(9):
            step = torch.zeros_like(weights)
            step[0, head, 0, 1 + patch] = 1e-5
            slope = (score(weights + step) - score(weights - step)) / 2e-5
            expected[patch] += max(slope * float(weights[0, head, 0, 1 + patch]), 0) / 2
    found = patch_relevance(vit, traced, traced.output[0, 2])
    assert expected.max() > 1e-4
    np.testing.assert_allclose(found.numpy().ravel(), expected, atol=1e-8)


def test_pooling_takes_its_own_rows() -> None:
    pixels = torch.randn(1, 3, 12, 12, dtype=torch.float64)
    for changes in ({}, {"pool": "mean"}, {"pool": "attention", "class_token": False}):
        vit = tiny_vit(**changes)
        traced = trace(vit, pixels)
        rolled = attention_rollout(traced.blocks)[0]
        if vit.config.pool == "cls":
            expected = rolled[0, 1:]
        elif vit.config.pool == "mean":
            expected = rolled[1:, 1:].mean(dim=0)
        else:
            assert traced.pooling is not None
            expected = traced.pooling[0, :, 0].mean(dim=0) @ rolled
        torch.testing.assert_close(patch_rollout(vit, traced), expected.detach().view(3, 3))


# -- encoders --------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Tiny models in folders: CLIP as open_clip and as transformers save it, SigLIP,
    and a ResNet.
    """
    pytest.importorskip("open_clip")
    pytest.importorskip("transformers")
    from helpers import tiny_models

    root = tmp_path_factory.mktemp("models")
    clip = tiny_models.save_open_clip(root / "open_clip")
    tiny_models.save_clip(root / "transformers", clip)
    tiny_models.save_siglip(root / "siglip")
    resnet = tiny_models.OPEN_CLIP_CONFIG | {
        "vision_cfg": {"image_size": 32, "layers": [1, 1, 1, 1], "width": 8}
    }
    tiny_models.save_open_clip(root / "resnet", resnet)
    return {name: root / name for name in ("open_clip", "transformers", "siglip", "resnet")}


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["open_clip", "transformers", "siglip"])
def test_every_source_of_transformers(folders: dict[str, Path], kind: str) -> None:
    encoder = load_encoder(f"local-dir:{folders[kind]}")
    image = picture(48, 32)
    looked, spoken = explain(encoder, image), explain(encoder, image, "a cat")
    cosine = float(encoder.encode_images([image])[0] @ encoder.encode_texts(["a cat"])[0])
    box = (0, 0, 48, 32) if kind == "siglip" else (8, 0, 40, 32)
    assert (looked.method, looked.text, looked.score, looked.encoder, looked.box) == (
        "attention rollout",
        None,
        None,
        encoder.name,
        box,
    )
    assert (spoken.method, spoken.text, spoken.box) == ("relevance for the text", "a cat", box)
    assert spoken.score == pytest.approx(cosine, abs=1e-6)
    for one in (looked, spoken):
        assert (one.relevance.shape, one.relevance.dtype) == ((4, 4), np.float32)
        assert (one.relevance.min(), one.relevance.max()) == (0, 1)
    assert not np.allclose(looked.relevance, spoken.relevance, atol=0.05)


@pytest.mark.slow
def test_equal_weights_give_equal_explanations(folders: dict[str, Path]) -> None:
    both = [load_encoder(f"local-dir:{folders[kind]}") for kind in ("open_clip", "transformers")]
    for text in (None, "a dog on a beach"):
        ours, theirs = (explain(encoder, picture(32, 32), text) for encoder in both)
        np.testing.assert_allclose(ours.relevance, theirs.relevance, atol=1e-3)


def test_an_encoder_without_attention_is_refused_in_one_line(folders: dict[str, Path]) -> None:
    for encoder in (load_encoder(f"local-dir:{folders['resnet']}"), ColourEncoder()):
        with pytest.raises(
            EncoderError,
            match=(
                r"has no attention that can be shown.*explain needs a Vision Transformer, such "
                r"as mini"
            ),
        ) as caught:
            explain(encoder, picture(32, 32))
        assert encoder.name in str(caught.value)
        assert "\n" not in str(caught.value)


@pytest.mark.slow
def test_a_tower_that_gives_another_vector_is_refused(folders: dict[str, Path]) -> None:
    encoder, other = (load_encoder(f"local-dir:{folders['open_clip']}") for _ in range(2))
    with torch.no_grad():
        other.image_tower.position_embedding.mul_(3.0)  # type: ignore[attr-defined]
    encoder.__dict__["image_tower"] = other.image_tower  # type: ignore[attr-defined]
    with pytest.raises(
        EncoderError,
        match=r"its transformer, as rebuilt, gives another vector \(cosine -?0\.\d+ to its own\)",
    ):
        explain(encoder, picture(32, 32), "a cat")


def test_texts_that_cannot_be_explained() -> None:
    with pytest.raises(QueryError, match="is empty"):
        explain(load_encoder("mini"), picture(32, 32), "  ")


@pytest.mark.slow
def test_without_torch_the_extra_is_named(tmp_path: Path) -> None:
    paint(tmp_path / "red.png", "red")
    index_folder(tmp_path, encoder=load_encoder("mini"))
    arguments = ["explain", str(tmp_path), "red.png"]
    code = (
        "import sys; sys.modules['torch'] = None\nfrom vitsearch.cli import "
        f"run\nsys.exit(run({arguments!r}))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, env=environment(), cwd=tmp_path
    )
    assert (done.returncode, done.stdout) == (1, b"")
    assert (
        done.stderr
        == b"vitsearch: explain needs the package torch: pip install 'vitsearch[clip]'\n"
    )


# -- mini ------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_mini_explains_the_vector_that_it_searches_with() -> None:
    encoder, image = load_encoder("mini"), picture(400, 300)
    found = explain(encoder, image, "a dog")
    assert found.score == pytest.approx(
        float(encoder.encode_images([image])[0] @ encoder.encode_texts(["a dog"])[0]), abs=1e-6
    )
    assert (found.relevance.shape, found.box) == ((9, 9), (50, 0, 350, 300))
    assert (found.relevance.min(), found.relevance.max()) == (0, 1)
    assert mini_network().vit._forward_hooks == {}
    np.testing.assert_array_equal(explain(encoder, image, "a dog").relevance, found.relevance)


@pytest.mark.slow
def test_the_shares_of_the_cells_add_up_to_what_goes_round_the_transformer() -> None:
    encoder, network = load_encoder("mini"), mini_network()
    prepared = encoder.prepare(picture(260, 260))
    text = torch.from_numpy(encoder.encode_texts(["a dog on a beach"])[0])
    with torch.no_grad():
        grid, pooled, _ = network.stem(
            (torch.from_numpy(prepared).permute(2, 0, 1)[None].float() - 127) / 128
        )
        features, output = network.stem.last(grid[:, :MAP_CHANNELS]), network.vit(grid)
        whole, empty = (
            float(join(network, part, output)[0] @ text)
            for part in (pooled, torch.zeros_like(pooled))
        )
    shares = shares_beside(network, grid, features, text)
    assert abs(whole - empty) > 1e-3
    assert float(shares.sum()) == pytest.approx(whole - empty, rel=0.02)
    assert bool((explain_mini(network, prepared, text)[1] >= shares.clamp(min=0)).all())


@pytest.mark.slow
def test_a_photo_is_explained_upright() -> None:
    encoder, image = load_encoder("mini"), picture(300, 200)
    exif = Image.Exif()
    exif[0x0112] = 6
    turned = Image.open(
        io.BytesIO(encoded(image.transpose(Image.Transpose.ROTATE_90), "PNG", exif=exif))
    )
    np.testing.assert_array_equal(
        explain(encoder, turned).relevance, explain(encoder, image).relevance
    )


@pytest.mark.skipif(
    not (DATA / "imagenette-dev.tar").exists(), reason="the imagenette dev set is not here"
)
@pytest.mark.slow
def test_relevance_falls_on_the_right_half_of_collages(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    benchmark = importlib.import_module("explain")
    collages = list(benchmark.make_collages(DATA / "imagenette-dev.tar", 50, 0))
    assert 15 <= sum(collage.on_left for collage in collages) <= 35
    assert benchmark.right_halves(load_encoder("mini"), collages) >= 45


# -- what the encoder sees -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("size", "how", "box"),
    [
        ((200, 100), Preprocess(size=(50, 50)), (50, 0, 150, 100)),
        ((100, 200), Preprocess(size=(50, 50)), (0, 50, 100, 150)),
        ((200, 100), Preprocess(size=(40, 40), resize_to=50, half_pixel="down"), (60, 10, 140, 90)),
        ((200, 100), Preprocess(size=(50, 50), resize_mode="squash"), (0, 0, 200, 100)),
        ((200, 100), Preprocess(size=(50, 50), resize_mode="longest"), (0, -48, 200, 152)),
    ],
)
def test_the_seen_region_is_what_prepare_keeps(
    size: tuple[int, int], how: Preprocess, box: tuple[int, ...]
) -> None:
    image = picture(*size)
    assert seen_region(image, how) == box
    alike = image.crop(tuple(map(int, seen_region(image, how)))).resize(
        how.size, Image.Resampling.BICUBIC
    )
    inside = slice(16, 34) if how.resize_mode == "longest" else slice(2, -2)
    difference = np.asarray(alike).astype(int) - prepare(image, how)
    assert np.abs(difference[inside, 2:-2]).max() < 12


# -- the drawing -----------------------------------------------------------------------------------


def explanation(
    box: tuple[float, float, float, float], relevance: Any = ((0.0, 1.0),), **facts: Any
) -> Explanation:
    return Explanation(
        np.array(relevance, dtype=np.float32),
        box,
        "relevance for the text",
        "mini",
        **({"text": "a cat", "score": 0.25} | facts),
    )


def test_heat_rises_in_lightness() -> None:
    colours = heat_colours(np.linspace(0, 1, 101, dtype=np.float32))
    assert bool((np.diff(colours @ [0.2126, 0.7152, 0.0722]) > 0).all())


def test_overlay_is_hot_where_relevance_is_and_grey_where_nothing_was_seen() -> None:
    photo = Image.new("RGB", (40, 20), (0, 0, 255))
    drawn = np.asarray(
        overlay(photo, np.array([[0.0, 1.0]], dtype=np.float32), (10, 0, 30, 20))
    ).astype(int)
    assert drawn[10, 10].tolist() == [7, 4, 152]  # half the coldest colour, half the photo
    assert drawn[10, 29].tolist() == [190, 189, 199]  # three quarters of the hottest
    assert drawn[10, 5].tolist() == drawn[10, 35].tolist()
    assert np.ptp(drawn[10, 5]) < 10


@pytest.mark.parametrize("size", [(300, 200), (200, 300), (2000, 2), (2, 2000), (1, 1)])
@pytest.mark.parametrize("outside", [0, 50])
def test_any_shape_can_be_drawn(size: tuple[int, int], outside: int) -> None:
    box = (-outside, -outside, size[0] + outside, size[1] + outside)
    page = draw_explanation(picture(*size), explanation(box), name="photo.jpg")
    longest = max(size)
    width, height = (max(1, round(side * 640 / longest)) for side in size)
    assert page.size == (max(2 * width + 20, 640) + 72, height + 152)


def test_the_photo_stands_upright_beside_its_heat_map(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    (tmp_path / "turned.png").write_bytes(
        encoded(
            Image.new("RGB", (320, 640), (0, 200, 0)).transpose(Image.Transpose.ROTATE_90),
            "PNG",
            exif=exif,
        )
    )
    for name, format_name in (("a.png", "PNG"), ("b.jpg", "JPEG")):
        with Image.open(tmp_path / "turned.png") as image:
            write_explanation(tmp_path / name, image, explanation((0, 160, 320, 480)))
        with Image.open(tmp_path / name) as page:
            assert (page.format, page.size) == (format_name, (732, 792))
            pixels = np.asarray(page.convert("RGB")).astype(int)
    assert np.abs(pixels[36 + 5 : 676 - 5, 36 + 5 : 356 - 5] - (0, 200, 0)).max() < 8
    assert np.abs(pixels[60, 500] - pixels[60, 600]).max() < 8  # above the square that was seen
    assert (
        pixels[356, 690].sum() > pixels[356, 380].sum() + 200
    )  # hot on the right, cold on the left


@pytest.mark.slow
def test_errors_are_one_line_and_leave_the_old_file(tmp_path: Path) -> None:
    (tmp_path / "old.png").write_bytes(b"old")
    reasons = []
    for path in (tmp_path / "x.gif", tmp_path / "none" / "x.png"):
        with pytest.raises(VitsearchError) as caught:
            write_explanation(path, picture(30, 20), explanation((0, 0, 30, 20)))
        reasons.append(str(caught.value))
    assert reasons == [
        "an explanation is a .png or .jpg file, not 'x.gif'; name it so",
        (
            f"cannot write {str(tmp_path / 'none' / 'x.png')!r}: No such file or directory; name "
            "another place for the picture"
        ),
    ]
    assert [path.name for path in tmp_path.iterdir()] == ["old.png"]


# -- the command -----------------------------------------------------------------------------------


@pytest.fixture
def collection(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder indexed with `mini`, and an empty working folder beside it."""
    (tmp_path / "photos" / "sub").mkdir(parents=True)
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    picture(300, 200).save(tmp_path / "photos" / "sub" / "one.png")
    index_folder(tmp_path / "photos")
    return tmp_path / "photos"


@pytest.mark.slow
def test_command_draws_and_prints_the_score(
    collection: Path, capfdbinary: pytest.CaptureFixture[bytes]
) -> None:
    assert run(["explain", str(collection), "sub/one.png", "--text", "a dog", "-o", "out.jpg"]) == 0
    encoder = load_encoder("mini")
    score = explain(encoder, picture(300, 200), "a dog").score
    assert capfdbinary.readouterr().out == f"{score:.4f}\tout.jpg\n".encode()
    with Image.open("out.jpg") as page:
        assert page.size == (1372, 579)
    assert run(["explain", str(collection), str(collection / "sub" / "one.png")]) == 0
    assert capfdbinary.readouterr().out == b"-\texplanation.png\n"
    assert sorted(path.name for path in Path().iterdir()) == ["explanation.png", "out.jpg"]


@pytest.mark.slow
def test_command_prints_json(collection: Path, capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    assert run(["explain", str(collection), "sub/one.png", "--text", "a dog", "--json"]) == 0
    facts = json.loads(capfdbinary.readouterr().out.decode("ascii"))
    found = explain(load_encoder("mini"), picture(300, 200), "a dog")
    np.testing.assert_allclose(facts.pop("patches"), found.relevance, atol=1e-4)
    assert found.score is not None
    assert facts == {
        "path": "sub/one.png",
        "score": round(found.score, 6),
        "file": str(collection / "sub" / "one.png"),
        "photo": "sub/one.png",
        "text": "a dog",
        "method": "relevance for the text",
        "encoder": "mini",
        "box": [50, 0, 250, 200],
        "output": None,
    }
    assert list(Path().iterdir()) == []


@pytest.mark.slow
def test_command_refuses_in_one_line(
    collection: Path, capfdbinary: pytest.CaptureFixture[bytes]
) -> None:
    photo = collection / "sub" / "one.png"
    before = photo.read_bytes()
    for arguments, reason in (
        (["none.png"], "the photo 'none.png': cannot be opened: No such file or directory"),
        (
            ["sub/one.png", "-o", "out.gif"],
            "an explanation is a .png or .jpg file, not 'out.gif'; name it so",
        ),
        (
            ["sub/one.png", "-o", str(photo)],
            (
                f"cannot write {str(photo)!r}: it is the photo itself; name another place with "
                "--output"
            ),
        ),
        (
            ["sub/one.png", "--text", ""],
            "the text to explain is empty: give some words, or none at all for attention rollout",
        ),
    ):
        assert run(["explain", str(collection), *arguments]) == 1
        assert capfdbinary.readouterr() == (b"", f"vitsearch: {reason}\n".encode())
    assert photo.read_bytes() == before
    assert list(Path().iterdir()) == []
