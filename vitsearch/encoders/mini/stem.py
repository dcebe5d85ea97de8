"""The convolutional stem of `mini`: EfficientNet-Lite2 with its batch normalisation folded into the
convolutions.

Tan and Le, "EfficientNet", 2019 (arXiv:1905.11946); the Lite form has no squeeze-and-excitation and
uses ReLU6.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

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
MAP_CHANNELS = 352
POOLED_CHANNELS = 1280
CLASSES = 1000
TAIL_BLOCKS = 5  # the blocks on the 9 x 9 map after its first one


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
    class logits out.
    """

    def __init__(self) -> None:
        super().__init__()
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
        """``(n, 3, 260, 260)`` in -1..1 to the map ``(n, 352, 9, 9)``, pooled ``(n, 1280)`` and
        logits ``(n, 1000)``.
        """
        return self.tail(self.until_tail(pixels))

    def until_tail(self, pixels: Tensor) -> Tensor:
        """Return what enters the tail, ``(n, 208, 9, 9)``: training keeps it, since only the tail's
        weights change.
        """
        result: Tensor = self.blocks[:-TAIL_BLOCKS](self.first(pixels))
        return result

    def tail(self, middle: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Run the last blocks and the classifier on ``(n, 208, 9, 9)``: the same three as
        ``forward``.
        """
        grid = self.blocks[-TAIL_BLOCKS:](middle)
        pooled = self.last(grid).mean(dim=(2, 3))
        return grid, pooled, self.classifier(pooled)

    def tail_parameters(self) -> dict[str, nn.Parameter]:
        """Return the weights of the tail by their names in the stem."""
        first = len(self.blocks) - TAIL_BLOCKS
        names = (*(f"blocks.{i}." for i in range(first, len(self.blocks))), "last.", "classifier.")
        return {name: weight for name, weight in self.named_parameters() if name.startswith(names)}


def fold_lite_weights(state: dict[str, Tensor], stem: LiteStem) -> None:
    """Copy an EfficientNet-Lite2 state dict into the stem, each batch normalisation folded into the
    convolution before it.

    Both list their convolutions in the order of the forward pass, so names are not needed.
    """
    weights = [value for name, value in state.items() if not name.endswith("num_batches_tracked")]
    convs = [module for module in stem.modules() if isinstance(module, nn.Conv2d)]
    for i, conv in enumerate(convs):
        kernel, gain, offset, mean, variance = weights[5 * i : 5 * i + 5]
        scale = gain / torch.sqrt(variance + 1e-3)
        conv.weight.data.copy_(kernel * scale[:, None, None, None])
        assert conv.bias is not None
        conv.bias.data.copy_(offset - mean * scale)
    stem.classifier.weight.data.copy_(weights[-2])
    stem.classifier.bias.data.copy_(weights[-1])
