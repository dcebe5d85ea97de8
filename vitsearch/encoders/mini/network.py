"""The torch form of `mini`, for training and explanations; the rest runs the same weights as ONNX.

An image vector has two parts side by side, a text vector the same two:

    known   image: class probabilities of the stem x vectors of the class names
            text: the sentence vector itself
    seen    image: a small Vision Transformer over the stem's feature map
            text: a small MLP on the sentence vector

Gates, learned from both sides, say how much each part weighs: names of things lean on ``known``,
scenes on ``seen``.

The stem is EfficientNet-Lite2 (Tan and Le 2019, arXiv:1905.11946), its batch normalisation folded
into the convolutions; the Lite form has no squeeze-and-excitation and uses ReLU6.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from safetensors import safe_open
from torch import Tensor, nn

from vitsearch.vit.model import VisionTransformer, ViTConfig

TAPS = {3: 24, 6: 48}  # shallow blocks whose output `Surface` takes, and their channels
COLOURS = {  # as sRGB; the shares of a cell's pixels near each are told apart
    **{"black": (20, 20, 20), "grey": (128, 128, 128), "white": (238, 238, 238)},
    **{"red": (195, 30, 40), "brown": (110, 65, 40), "beige": (220, 180, 150)},
    **{"orange": (235, 125, 30), "yellow": (240, 215, 50), "light green": (150, 195, 90)},
    **{"green": (50, 110, 50), "light blue": (130, 185, 230), "blue": (40, 80, 190)},
    **{"navy": (25, 35, 80), "purple": (115, 60, 150), "pink": (240, 150, 180)},
}
SURFACE_CHANNELS = len(COLOURS) + 4 + sum(TAPS.values())


class Surface(nn.Module):
    """What a network trained on ImageNet learns to ignore: each cell's colours, light and texture.

    The shares of its pixels near each of `COLOURS`, their mean in RGB, the spread of their
    brightness, and the mean of what the stem's shallow blocks give.
    """

    SHARPNESS = 25.0  # of the choice of a colour
    colours: Tensor

    def __init__(self, side: int) -> None:
        super().__init__()
        self.side = side
        colours = opponent(torch.tensor(list(COLOURS.values())).T[None, :, :, None] / 127.0 - 1)
        self.register_buffer("colours", colours[0, :, :, 0], persistent=False)

    def forward(self, pixels: Tensor, taps: list[Tensor]) -> Tensor:
        """``(n, 3, 260, 260)`` in -1..1 and the shallow maps to ``(n, 91, side, side)``."""
        small = F.avg_pool2d(pixels, 4)
        light = small.mean(dim=1, keepdim=True)
        points = opponent(small)
        distance = (
            points.pow(2).sum(dim=1, keepdim=True)
            + self.colours.pow(2).sum(dim=0)[None, :, None, None]
            - 2 * torch.einsum("nchw,ck->nkhw", points, self.colours)
        )
        near = (-self.SHARPNESS * distance).softmax(dim=1)
        mean, square = self.cells(light), self.cells(light.pow(2))
        spread = (square - mean.pow(2)).clamp(min=1e-6).sqrt()
        shallow = [self.cells(tap) / 4 for tap in taps]  # so that all are of about one size
        return torch.cat([3 * self.cells(near), self.cells(small), 2 * spread, *shallow], dim=1)

    def cells(self, grid: Tensor) -> Tensor:
        """Return the mean of a map over each cell; cells share the rows that they cut."""
        rows = cell_shares(int(grid.shape[-2]), self.side).to(grid)
        columns = cell_shares(int(grid.shape[-1]), self.side).to(grid)
        result: Tensor = rows @ grid @ columns.T
        return result


def opponent(pixels: Tensor) -> Tensor:
    """Return brightness, red against green and yellow against blue of ``(n, 3, h, w)``."""
    red, green, blue = pixels.unbind(dim=1)
    light = (red + green + blue) / 3
    return torch.stack([0.6 * light, 0.8 * (red - green), 0.8 * ((red + green) / 2 - blue)], dim=1)


def cell_shares(length: int, side: int) -> Tensor:
    """Return ``(side, length)``: how much of each cell is of each row of a map."""
    edges = torch.arange(side + 1) * (length / side)
    places = torch.arange(length)
    overlap = torch.minimum(edges[1:, None], places + 1.0) - torch.maximum(
        edges[:-1, None], places + 0.0
    )
    return overlap.clamp(min=0) * (side / length)


# (repeats, kernel, stride, expansion, channels) of each stage of Lite2: width 1.1, depth 1.2, first
# and last stage not deepened
LITE2_STAGES = (
    (1, 3, 1, 1, 16),
    (3, 3, 2, 6, 24),
    (3, 5, 2, 6, 48),
    (4, 3, 2, 6, 88),
    (4, 5, 1, 6, 120),
    (5, 5, 2, 6, 208),
    (1, 3, 1, 6, 352),
)
STEM_CHANNELS = 32
MIDDLE_CHANNELS = 208
MAP_CHANNELS = 352
POOLED_CHANNELS = 1280
CLASSES = 1000
TAIL_BLOCKS = 5  # the blocks on the 9 x 9 map after its first one
SENTENCE_WIDTH = 384
NORM_EPS = 1e-6


# -- Stem ------------------------------------------------------------------------------------------


class ConvUnit(nn.Module):
    """A convolution with TensorFlow's "same" padding and, if asked, ReLU6: ``(n, c, h, w)`` to
    ``(n, out, ceil(h / stride), ...)``.
    """

    def __init__(
        self,
        inner: int,
        outer: int,
        kernel: int,
        *,
        stride: int = 1,
        depthwise: bool = False,
        active: bool = True,
    ) -> None:
        super().__init__()
        self.kernel, self.stride, self.active = kernel, stride, active
        self.conv = nn.Conv2d(inner, outer, kernel, stride=stride, groups=inner if depthwise else 1)

    def forward(self, pixels: Tensor) -> Tensor:
        top, bottom = same_padding(int(pixels.shape[-2]), self.kernel, self.stride)
        left, right = same_padding(int(pixels.shape[-1]), self.kernel, self.stride)
        if (top, left) != (
            bottom,
            right,
        ):  # what is even on both sides the convolution adds by itself, without a copy
            pixels = F.pad(pixels, (left, right, top, bottom))
            top, left = 0, 0
        conv = self.conv
        result = F.conv2d(
            pixels, conv.weight, conv.bias, conv.stride, (top, left), conv.dilation, conv.groups
        )
        return F.relu6(result) if self.active else result


def same_padding(length: int, kernel: int, stride: int) -> tuple[int, int]:
    """Return the zeros that TensorFlow adds before and after ``length`` pixels."""
    total = max((-(-length // stride) - 1) * stride + kernel - length, 0)
    return total // 2, total - total // 2


class InvertedResidual(nn.Module):
    """Expand, filter each channel, project; added to the input where the shapes agree (MobileNetV2,
    arXiv:1801.04381).
    """

    def __init__(self, inner: int, outer: int, *, kernel: int, stride: int, expansion: int) -> None:
        super().__init__()
        wide = inner * expansion
        units = [ConvUnit(inner, wide, 1)] if expansion > 1 else []
        units.append(ConvUnit(wide, wide, kernel, stride=stride, depthwise=True))
        units.append(ConvUnit(wide, outer, 1, active=False))
        self.units = nn.Sequential(*units)
        self.residual = stride == 1 and inner == outer

    def forward(self, pixels: Tensor) -> Tensor:
        result: Tensor = self.units(pixels)
        return result + pixels if self.residual else result


class LiteStem(nn.Module):
    """EfficientNet-Lite2: pixels in, a feature map, pooled features and ImageNet
    class logits out; with ``surface`` the map goes on with what `Surface` sees.
    """

    def __init__(self, surface: Surface | None = None) -> None:
        super().__init__()
        self.surface = surface
        self.first = ConvUnit(3, STEM_CHANNELS, 3, stride=2)
        blocks: list[nn.Module] = []
        inner = STEM_CHANNELS
        for repeats, kernel, stride, expansion, outer in LITE2_STAGES:
            for i in range(repeats):
                blocks.append(
                    InvertedResidual(
                        inner,
                        outer,
                        kernel=kernel,
                        stride=stride if i == 0 else 1,
                        expansion=expansion,
                    )
                )
                inner = outer
        self.blocks = nn.Sequential(*blocks)
        self.last = ConvUnit(MAP_CHANNELS, POOLED_CHANNELS, 1)
        self.classifier = nn.Linear(POOLED_CHANNELS, CLASSES)

    def forward(self, pixels: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """``(n, 3, 260, 260)`` in -1..1 to the map ``(n, 352, 9, 9)``, or ``(n, 443, 9, 9)`` with
        the surface, pooled ``(n, 1280)`` and logits ``(n, 1000)``.
        """
        return self.tail(self.until_tail(pixels))

    def until_tail(self, pixels: Tensor) -> Tensor:
        """Return what enters the tail, ``(n, 208, 9, 9)``, followed by the surface where there is
        one: training keeps it, since only the tail's weights change.
        """
        x, taps = self.first(pixels), []
        for number, block in enumerate(self.blocks[:-TAIL_BLOCKS]):
            x = block(x)
            if number in TAPS:
                taps.append(x)
        return x if self.surface is None else torch.cat([x, self.surface(pixels, taps)], dim=1)

    def tail(self, middle: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Run the last blocks and the classifier on what ``until_tail`` gave: the same three as
        ``forward``.
        """
        grid = self.blocks[-TAIL_BLOCKS:](middle[:, :MIDDLE_CHANNELS])
        pooled = self.last(grid).mean(dim=(2, 3))
        return (
            torch.cat([grid, middle[:, MIDDLE_CHANNELS:]], dim=1),
            pooled,
            self.classifier(pooled),
        )

    def tail_parameters(self) -> dict[str, nn.Parameter]:
        """Return the weights of the tail by their names in the stem."""
        first = len(self.blocks) - TAIL_BLOCKS
        names = (*(f"blocks.{i}." for i in range(first, len(self.blocks))), "last.", "classifier.")
        return {name: weight for name, weight in self.named_parameters() if name.startswith(names)}


# -- Transformer -----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class MiniConfig:
    """The shape of the network; the stem's and the text tower's shapes are those of the weights
    they start from.
    """

    vocabulary: int = 30522
    context: int = 128
    text_depth: int = 6
    text_heads: int = 12
    width: int = 256
    depth: int = 2
    heads: int = 8
    seen_dim: int = 256
    text_hidden: int = 768
    map_side: int = 9
    surface: bool = False
    class_temperature: float = 2.0
    dropout: float = 0.0

    @property
    def dim(self) -> int:
        """Length of a vector."""
        return SENTENCE_WIDTH + self.seen_dim


@dataclass(frozen=True, eq=False)
class TokenLayout:
    """Where the tokens of ``n`` padded rows of ``t`` are: ``shown`` ``(tokens,)`` in the rows one
    after the other, ``places`` ``(n * t,)`` of each place's token among them (any where there is
    none), and ``bias`` ``(n, 1, 1, t)``, which is added to attention logits and hides padding.
    """

    shown: Tensor
    places: Tensor
    bias: Tensor


class TextBlock(nn.Module):
    """A post-norm transformer block of BERT (Devlin et al. 2018)."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)
        self.norm1 = nn.LayerNorm(width, eps=1e-12)
        self.fc1 = nn.Linear(width, 4 * width)
        self.fc2 = nn.Linear(4 * width, width)
        self.norm2 = nn.LayerNorm(width, eps=1e-12)

    def forward(self, x: Tensor, layout: TokenLayout) -> Tensor:
        """Return ``(tokens, width)``; only attention is computed over the padded rows."""
        n, t, width = layout.bias.shape[0], layout.bias.shape[3], x.shape[1]
        q, k, v = (
            self.qkv(x)
            .index_select(0, layout.places)
            .view(n, t, 3, self.heads, width // self.heads)
            .permute(2, 0, 3, 1, 4)
            .unbind(0)
        )
        mixed = F.scaled_dot_product_attention(q, k, v, attn_mask=layout.bias.to(q.dtype))
        mixed = mixed.transpose(1, 2).reshape(n * t, width).index_select(0, layout.shown)
        x = self.norm1(x + self.out(mixed))
        result: Tensor = self.norm2(x + self.fc2(F.gelu(self.fc1(x))))
        return result


class TextTower(nn.Module):
    """The sentence encoder: MiniLM's shape (Wang et al. 2020, arXiv:2002.10957), mean of the token
    states.
    """

    def __init__(self, config: MiniConfig) -> None:
        super().__init__()
        self.words = nn.Embedding(config.vocabulary, SENTENCE_WIDTH)
        self.positions = nn.Embedding(config.context, SENTENCE_WIDTH)
        self.norm = nn.LayerNorm(SENTENCE_WIDTH, eps=1e-12)
        self.blocks = nn.ModuleList(
            TextBlock(SENTENCE_WIDTH, config.text_heads) for _ in range(config.text_depth)
        )

    def forward(self, ids: Tensor, mask: Tensor) -> Tensor:
        """Token ids and mask ``(n, t)``, int64 and 1 for tokens, to unit sentence vectors ``(n,
        384)``.
        """
        shown, flat = mask.to(torch.float32), mask.flatten()
        layout = TokenLayout(
            shown=flat.nonzero().squeeze(1),
            places=(flat.cumsum(0) - 1).clamp(min=0),
            bias=((1.0 - shown) * -1e4)[:, None, None, :],
        )
        words = self.words(ids.flatten().index_select(0, layout.shown))
        x = self.norm(words + self.positions(layout.shown % ids.shape[1]))
        for block in self.blocks:
            x = block(x, layout)
        states = x.float().index_select(0, layout.places).view(*ids.shape, -1)
        summed = (states * shown[:, :, None]).sum(dim=1)
        return unit(summed / shown.sum(dim=1, keepdim=True))


class MiniNetwork(nn.Module):
    """Both towers of `mini`."""

    def __init__(self, config: MiniConfig) -> None:
        super().__init__()
        self.config = config
        self.stem = LiteStem(Surface(config.map_side) if config.surface else None)
        self.vit = VisionTransformer(vit_config(config))
        self.pooled_projection = nn.Linear(POOLED_CHANNELS, config.seen_dim)
        self.class_vectors = nn.Parameter(torch.zeros(CLASSES, SENTENCE_WIDTH))
        self.sentence_mean = nn.Parameter(torch.zeros(SENTENCE_WIDTH), requires_grad=False)
        self.image_gate = nn.Linear(POOLED_CHANNELS, 1)
        self.text = TextTower(config)
        self.text_mlp = nn.Sequential(
            nn.Linear(SENTENCE_WIDTH, config.text_hidden),
            nn.GELU(),
            nn.Dropout(config.dropout),
            nn.Linear(config.text_hidden, config.seen_dim),
        )
        self.text_gate = nn.Linear(SENTENCE_WIDTH, 1)
        self.log_scale = nn.Parameter(torch.tensor(3.0))
        self.pooled_dropout = nn.Dropout(config.dropout)

    def encode_and_classify(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        """uint8 pixels ``(n, 260, 260, 3)`` to unit vectors ``(n, dim)`` and ImageNet-1k logits
        ``(n, 1000)``.
        """
        grid, pooled, logits = self.stem((pixels.permute(0, 3, 1, 2).float() - 127.0) / 128.0)
        return self.encode_maps(grid, pooled, logits), logits

    def encode_maps(self, grid: Tensor, pooled: Tensor, logits: Tensor) -> Tensor:
        """What the stem gave for ``n`` photos to their unit vectors ``(n, dim)``."""
        return self.join_image(self.vit(grid), pooled, logits)

    def join_image(self, tokens: Tensor, pooled: Tensor, logits: Tensor) -> Tensor:
        """The transformer's output, the pooled features and the class logits to unit vectors."""
        probabilities = (logits / self.config.class_temperature).softmax(dim=-1)
        known = unit(probabilities @ self.class_vectors)
        seen = unit((tokens + self.pooled_projection(self.pooled_dropout(pooled))).float())
        return gated(known, seen, self.image_gate(pooled))

    def encode_texts(self, ids: Tensor, mask: Tensor) -> Tensor:
        """Token ids and mask ``(n, t)`` to unit vectors ``(n, dim)``."""
        return self.encode_sentences(self.text(ids, mask))

    def encode_sentences(self, sentences: Tensor) -> Tensor:
        """Unit sentence vectors ``(n, 384)`` to unit vectors ``(n, dim)``."""
        known = unit(sentences - self.sentence_mean)
        return gated(known, unit(self.text_mlp(sentences).float()), self.text_gate(sentences))


def vit_config(config: MiniConfig) -> ViTConfig:
    """Return the shape of the transformer over the stem's map: every cell is a token."""
    return ViTConfig(
        image_size=config.map_side,
        patch_size=1,
        channels=MAP_CHANNELS + (SURFACE_CHANNELS if config.surface else 0),
        width=config.width,
        depth=config.depth,
        heads=config.heads,
        mlp_width=4 * config.width,
        out_dim=config.seen_dim,
        dropout=config.dropout,
    )


def unit(rows: Tensor) -> Tensor:
    """Scale rows to length 1."""
    return rows / (rows.pow(2).sum(dim=-1, keepdim=True) + NORM_EPS**2).sqrt()


def gated(known: Tensor, seen: Tensor, gate: Tensor) -> Tensor:
    """Put two unit parts side by side so that the whole has length 1; ``gate`` is the logit of the
    first part's share of it.
    """
    share = torch.sigmoid(gate.float())
    return torch.cat([known * share.sqrt(), seen * (1 - share).sqrt()], dim=-1)


def load_network(path: Path, config: MiniConfig) -> MiniNetwork:
    """Return the network with the weights of ``mini.safetensors``, float32, to be evaluated."""
    network = MiniNetwork(config).eval()
    with safe_open(path, framework="numpy") as file:
        names = set(file.keys())
        state = {
            name: dequantise(
                file.get_tensor(name),
                file.get_tensor(f"{name}.scale") if f"{name}.scale" in names else None,
            )
            for name in names
            if not name.endswith(".scale")
        }
    network.load_state_dict(state)
    return network


def dequantise(values: np.ndarray, scale: np.ndarray | None) -> Tensor:
    """Return stored float16 or int8 weights as float32; int8 rows are multiplied by
    their scales.
    """
    wide = values.astype(np.float32)
    return torch.from_numpy(
        wide if scale is None else wide * scale.reshape(-1, *[1] * (wide.ndim - 1))
    )
