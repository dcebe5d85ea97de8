"""One photo through a Vision Transformer, step by step.

python examples/vit_step_by_step.py [PHOTO] [--weights FOLDER] [-o FILE.png]

Prints every step with its shape and draws the patches, how similar the positions are (figure 7 of
Dosovitskiy et al. 2020), what [CLS] attends to in each head, and attention rollout (Abnar & Zuidema
2020, arXiv:2005.00928).

Without --weights the steps are those of an untrained ViT-B/16 and the attention is that of `mini`,
the small model in the package, whose transformer reads the feature map of a convolutional stem.
FOLDER is a ViT of transformers, for example a download of google/vit-base-patch16-224. Needs
vitsearch[clip,examples].
"""

import argparse
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

try:
    import matplotlib
    import torch
except ModuleNotFoundError as error:
    raise SystemExit(f"this needs {error.name}: pip install '.[clip,examples]'") from None

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import numpy as np
import torch.nn.functional as F
from matplotlib.figure import Figure, SubFigure
from PIL import Image, ImageOps
from torch import Tensor

from vitsearch.encoders.mini import FOLDER, read_config
from vitsearch.encoders.mini.network import MiniConfig, load_network
from vitsearch.vit.model import Block, VisionTransformer, ViTConfig, sincos_positions
from vitsearch.vit.weights import load_vit_folder

Step = tuple[str, Tensor | None]


@dataclass(frozen=True, slots=True)
class Seen:
    """What a transformer attended to: its name, the photo it saw, each block's weights ``(1, h, t,
    t)``, its table of positions.
    """

    name: str
    photo: Image.Image
    attention: list[Tensor]
    positions: Tensor  # (grid * grid, width)
    prefix: int


def open_square(path: Path | None, side: int) -> Image.Image:
    """Return the centre square of a photo (without a path, of scikit-image's cat)
    with this side.
    """
    if path is None:
        from skimage import data

        photo = Image.fromarray(data.chelsea())
    else:
        photo = ImageOps.exif_transpose(Image.open(path)).convert("RGB")
    return ImageOps.fit(photo, (side, side), Image.Resampling.BICUBIC)


def as_tensor(photo: Image.Image, mean: list[float], std: list[float]) -> Tensor:
    """Return the pixels, ``(1, 3, side, side)``, as a model wants them: ``(pixel / 255 - mean) /
    std``.
    """
    pixels = torch.from_numpy(np.array(photo, dtype=np.float32) / 255).permute(2, 0, 1)[None]
    return (pixels - torch.tensor(mean).view(1, 3, 1, 1)) / torch.tensor(std).view(1, 3, 1, 1)


def steps(model: VisionTransformer, image: Tensor) -> Iterator[Step]:
    """Yield each step of the transformer in words and what it gives."""
    patch, grid, first = model.config.patch_size, model.config.grid, model.blocks[0]
    yield "the photo: colours, rows, columns", image
    patches = F.unfold(image, patch, stride=patch).transpose(1, 2)
    yield (
        (
            f"cut into {grid} x {grid} = {grid**2} patches of {patch} x {patch} x 3 = "
            f"{patches.shape[-1]} values"
        ),
        patches,
    )
    projected = F.linear(
        patches, model.patch_embedding.weight.flatten(1), model.patch_embedding.bias
    )
    yield "linear projection of each patch (a convolution with the patch as its stride)", projected
    tokens = "[CLS] put in front, " if model.class_token is not None else ""
    yield f"{tokens}position embeddings added: the tokens", model.embed(image)
    x = model.embed(image)
    yield from inside(first, x)
    for number, block in enumerate(model.blocks, start=1):
        x = block(x)[0]
        yield (
            (
                f"block {number:2} of {len(model.blocks)}: x + attention(norm(x)), then x + "
                "MLP(norm(x))"
            ),
            x,
        )
    tokens = x if model.config.norm_after_pool else model.norm(x)
    yield "final norm", tokens
    yield f"pooled ({model.config.pool}): one vector for the photo", model.pool(tokens)
    yield (
        "head: one score for each class" if model.config.out_dim else "no head: the vector itself",
        model.classify(tokens),
    )


def inside(block: Block, x: Tensor) -> Iterator[Step]:
    """Yield the steps inside a block."""
    heads, (_, tokens, width) = block.attention.heads, x.shape
    yield "inside the first block:", None
    normed = block.norm1(x)
    yield "  norm", normed
    q = (
        block.attention.qkv(normed)[..., :width]
        .view(1, tokens, heads, width // heads)
        .transpose(1, 2)
    )
    yield f"  queries, and so keys and values: {heads} heads of {width // heads} values", q
    mixed, weights = block.attention(normed, with_weights=True)
    yield "  attention weights = softmax(queries x keys / sqrt(d)): each token over all", weights
    yield "  weighted values, heads side by side, projected", mixed
    hidden = block.mlp.activation(block.mlp.fc1(block.norm2(x + mixed)))
    yield "  added to x, norm, MLP: first layer and activation", hidden
    yield "  MLP: second layer, added", x + mixed + block.mlp.fc2(hidden)


def shape(tensor: Tensor | None) -> str:
    """Return the shape as text, ``1 x 197 x 768``."""
    return "" if tensor is None else " x ".join(map(str, tensor.shape))


def rollout(attention: list[Tensor]) -> Tensor:
    """Return ``(t, t)``: how much of each input token reaches each output token, half of a block's
    way being the skip connection.
    """
    reach = torch.eye(attention[0].shape[-1])
    for weights in attention:
        reach = (weights[0].mean(dim=0) + torch.eye(len(reach))) / 2 @ reach
    return reach


def mini_sees(path: Path | None) -> Seen:
    """Return what the transformer of `mini` attends to."""
    network = load_network(FOLDER / "mini.safetensors", MiniConfig(**read_config()["network"]))
    photo = open_square(path, read_config()["side"])
    feature_map = network.stem(as_tensor(photo, [127 / 255] * 3, [128 / 255] * 3))[0]
    attention = network.vit.forward_with_attention(feature_map)[1]
    return Seen(
        "mini",
        photo,
        attention,
        network.vit.position_embedding[0, 1:],
        network.vit.config.prefix_tokens,
    )


def model_sees(model: VisionTransformer, photo: Image.Image, image: Tensor, name: str) -> Seen:
    """Return what a model from a folder attends to."""
    prefix = model.config.prefix_tokens
    return Seen(
        name,
        photo,
        model.forward_with_attention(image)[1],
        model.position_embedding[0, prefix:],
        prefix,
    )


def heat(panel: plt.Axes, seen: Seen, row: Tensor, title: str = "") -> None:
    """Draw a row of weights, ``(t,)``, over the grey photo."""
    cells = row[seen.prefix :]
    side = round(len(cells) ** 0.5)
    cells = (cells - cells.min()) / (cells.max() - cells.min() + 1e-12)
    smooth = F.interpolate(
        cells.view(1, 1, side, side), size=(seen.photo.height, seen.photo.width), mode="bicubic"
    ).clamp(0, 1)[0, 0]
    panel.imshow(seen.photo.convert("L"), cmap="gray", vmin=-40, vmax=270)
    panel.imshow(smooth, cmap="inferno", alpha=(0.85 * smooth**0.7).numpy(), vmin=0, vmax=1)
    panel.set_title(title, fontsize=10)
    panel.axis("off")


def draw_patches(panel: plt.Axes, photo: Image.Image, patch: int) -> None:
    """Draw the photo cut into its patches, with gaps between them."""
    pixels, grid, gap = np.array(photo), photo.width // patch, max(2, patch // 5)
    canvas = np.full((grid * (patch + gap) - gap,) * 2 + (3,), 255, dtype=np.uint8)
    for row, column in np.ndindex(grid, grid):
        y, x = row * (patch + gap), column * (patch + gap)
        canvas[y : y + patch, x : x + patch] = pixels[
            row * patch : (row + 1) * patch, column * patch : (column + 1) * patch
        ]
    panel.imshow(canvas)
    panel.set_title(f"{grid} x {grid} = {grid**2} patches of {patch} x {patch} pixels")
    panel.axis("off")


def draw_positions(panel: plt.Axes, positions: Tensor, title: str) -> None:
    """Draw, at the place of each patch, how alike its position embedding is to that
    of every patch.
    """
    alike = F.normalize(positions, dim=-1) @ F.normalize(positions, dim=-1).T
    others = alike[
        ~torch.eye(len(alike), dtype=torch.bool)
    ]  # with itself each is 1, which would drown the rest
    low, high = others.min().item(), others.max().item()
    side, gap = round(len(alike) ** 0.5), 1
    tiles = F.pad(alike.view(side, side, side, side), (0, gap, 0, gap), value=float("nan"))
    canvas = tiles.permute(0, 2, 1, 3).reshape(side * (side + gap), -1)[:-gap, :-gap]
    picture = panel.imshow(canvas, cmap="viridis", vmin=low, vmax=high, interpolation="nearest")
    panel.set_title(title)
    panel.axis("off")
    colours = panel.figure.colorbar(
        picture, ax=panel, fraction=0.046, pad=0.02, ticks=[low, high], format="%.1f"
    )
    colours.outline.set_visible(False)


def draw_attention(figure: SubFigure, seen: Seen) -> None:
    """Draw [CLS]'s attention: a row for each of up to four blocks, a column for each of up to eight
    heads and for their mean.
    """
    depth, heads = len(seen.attention), min(8, seen.attention[0].shape[1])
    shown = sorted({round(number) for number in np.linspace(0, depth - 1, min(4, depth))})
    panels = figure.subplots(len(shown), heads + 1, squeeze=False)
    for row, number in zip(panels, shown, strict=True):
        weights = seen.attention[number][0, :, 0]
        for head in range(heads):
            heat(row[head], seen, weights[head], f"head {head + 1}" if number == shown[0] else "")
        heat(row[heads], seen, weights.mean(dim=0), "mean" if number == shown[0] else "")
        row[0].text(
            -0.08,
            0.5,
            f"block {number + 1}",
            transform=row[0].transAxes,
            rotation=90,
            ha="center",
            va="center",
            fontsize=10,
        )
    figure.suptitle(f"What [CLS] attends to in {seen.name}", weight="bold")


def draw(photo: Image.Image, config: ViTConfig, seen: Seen, file: Path) -> None:
    """Draw everything in one picture."""
    plt.rcParams.update({"font.size": 11, "axes.titlesize": 11})
    rows = min(4, len(seen.attention))
    figure: Figure = plt.figure(figsize=(16, 5.1 + 1.85 * rows), dpi=100, layout="constrained")
    top, bottom = figure.subfigures(2, 1, height_ratios=[4.5, 1.85 * rows + 0.6])
    panels = top.subplots(1, 4)
    draw_patches(panels[0], photo, config.patch_size)
    draw_positions(
        panels[1],
        sincos_positions(config.grid, config.grid, config.width),
        "fixed positions (2-D sine-cosine)",
    )
    draw_positions(panels[2], seen.positions, f"learned positions of {seen.name}")
    heat(panels[3], seen, rollout(seen.attention)[0])
    panels[3].set_title(f"attention rollout of {seen.name}")
    top.suptitle(
        "A Vision Transformer: patches, cosine similarity of positions, what reaches [CLS]",
        weight="bold",
    )
    draw_attention(bottom, seen)
    figure.savefig(file)


def read_model(
    folder: Path | None,
) -> tuple[VisionTransformer, list[float], list[float], list[str]]:
    """Return a transformer, the mean and standard deviation of its pixels, and the names of its
    classes.
    """
    half = [0.5, 0.5, 0.5]
    if folder is None:
        torch.manual_seed(0)
        return VisionTransformer(ViTConfig(positions="sincos", out_dim=1000)).eval(), half, half, []
    names: dict[str, str] = json.loads((folder / "config.json").read_text(encoding="utf-8")).get(
        "id2label", {}
    )
    file = folder / "preprocessor_config.json"
    settings = json.loads(file.read_text(encoding="utf-8")) if file.exists() else {}
    labels = [names[str(number)] for number in range(len(names))]
    return (
        load_vit_folder(folder),
        settings.get("image_mean", half),
        settings.get("image_std", half),
        labels,
    )


@torch.inference_mode()
def main() -> None:
    """Walk, print, draw."""
    parser = argparse.ArgumentParser(
        description="One photo through a Vision Transformer, step by step."
    )
    parser.add_argument("photo", type=Path, nargs="?", help="a photo (default: scikit-image's cat)")
    parser.add_argument(
        "--weights", type=Path, metavar="FOLDER", help="a ViT of transformers in a local folder"
    )
    parser.add_argument(
        "-o",
        "--output",
        type=Path,
        default=Path("vit_step_by_step.png"),
        help="the picture (default: %(default)s)",
    )
    options = parser.parse_args()
    model, mean, std, labels = read_model(options.weights)
    photo = open_square(options.photo, model.config.image_size)
    image = as_tensor(photo, mean, std)
    for words, result in steps(model, image):
        print(f"{words:82} {shape(result)}".rstrip())
    print(
        f"the same as model(image): greatest difference {(model(image) - result).abs().max():.0e}"
    )
    for number in result[0].topk(min(5, len(labels))).indices.tolist():
        print(f"  {result[0].softmax(dim=-1)[number]:6.1%}  {labels[number]}")
    seen = (
        mini_sees(options.photo)
        if options.weights is None
        else model_sees(model, photo, image, options.weights.name)
    )
    draw(photo, model.config, seen, options.output)
    print(f"drawn: {options.output}")


if __name__ == "__main__":
    main()
