"""What a network trained on ImageNet learns to ignore of a photo: colours, light and texture."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

TAPS = {3: 24, 6: 48}  # shallow blocks whose output `Surface` takes, and their channels
COLOURS = {  # as sRGB; the shares of a cell's pixels near each are told apart
    "black": (20, 20, 20),
    "grey": (128, 128, 128),
    "white": (238, 238, 238),
    "red": (195, 30, 40),
    "brown": (110, 65, 40),
    "beige": (220, 180, 150),
    "orange": (235, 125, 30),
    "yellow": (240, 215, 50),
    "light green": (150, 195, 90),
    "green": (50, 110, 50),
    "light blue": (130, 185, 230),
    "blue": (40, 80, 190),
    "navy": (25, 35, 80),
    "purple": (115, 60, 150),
    "pink": (240, 150, 180),
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
