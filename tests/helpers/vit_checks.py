"""What the tests of the Vision Transformer share: a tiny shape, pictures, random weights, and how
close is close.
"""

import torch

from vitsearch.vit.model import ViTConfig

TINY = ViTConfig(image_size=32, patch_size=8, width=24, depth=2, heads=3, mlp_width=96, out_dim=5)


def pictures(size: int = 32, count: int = 3) -> torch.Tensor:
    """Return random pictures, the same each time."""
    return torch.randn(count, 3, size, size, generator=torch.Generator().manual_seed(1))


def scrambled(module: torch.nn.Module) -> torch.nn.Module:
    """Give every weight, norms and zero-initialised ones too, a random value, so that a mix-up
    shows.
    """
    generator = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for weight in module.parameters():
            weight.copy_(
                torch.randn(weight.shape, generator=generator) * 0.2
                + (1.0 if weight.ndim == 1 else 0.0)
            )
    return module.eval()


def assert_close(actual: torch.Tensor, expected: torch.Tensor) -> None:
    """Assert that two tensors differ by at most 1e-5 of the expected one's greatest value."""
    assert actual.shape == expected.shape
    scale = max(1.0, float(expected.abs().max()))
    assert float((actual - expected).abs().max()) <= 1e-5 * scale
