"""The Vision Transformer, readable from top to bottom.

Dosovitskiy et al., "An Image is Worth 16x16 Words", ICLR 2021:

picture (n, 3, h, w) -> [stem] -> patches (n, p, width) -> [CLS] in front, position added -> blocks
-> norm -> pool -> head (n, out_dim)

Shapes in the comments use n pictures, t tokens, h heads, d numbers a head; width = h x d. This is
the only module of its floor that imports torch, so import it only where torch is wanted.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from math import isqrt
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Activation = Literal["gelu", "gelu_tanh", "quick_gelu"]
Pooling = Literal["cls", "mean", "attention"]
Positions = Literal["learned", "sincos"]


@dataclass(frozen=True, slots=True)
class ViTConfig:
    """The shape of a Vision Transformer; the defaults are ViT-B/16 at 224 pixels, without a head.

    With a stem, ``image_size``, ``patch_size`` and ``channels`` describe the stem's feature map: a
    7x7x320 map whose cells become tokens is ``image_size=7, patch_size=1, channels=320``.
    ``out_dim`` 0 leaves the head out. ``positions`` are learned, or the fixed ``sincos_positions``.
    ``pre_norm`` is CLIP's norm before the first block. ``norm_after_pool`` norms the pooled vector
    instead of every token. ``distillation_token`` is DeiT's second token and ``distillation_head``
    its second head, whose output is averaged with the first's (Touvron et al. 2021).
    """

    image_size: int = 224
    patch_size: int = 16
    channels: int = 3
    width: int = 768
    depth: int = 12
    heads: int = 12
    mlp_width: int = 3072
    out_dim: int = 0
    pool: Pooling = "cls"
    activation: Activation = "gelu"
    positions: Positions = "learned"
    class_token: bool = True
    distillation_token: bool = False
    distillation_head: bool = False
    pre_norm: bool = False
    norm_after_pool: bool = False
    patch_bias: bool = True
    head_bias: bool = True
    norm_eps: float = 1e-6
    dropout: float = 0.0

    def __post_init__(self) -> None:
        """Raise ValueError for a shape that cannot be built."""
        if self.width % self.heads:
            raise ValueError(f"width {self.width} is not a multiple of {self.heads} heads")
        if self.image_size < self.patch_size:
            raise ValueError(
                f"a patch of {self.patch_size} does not fit in a picture of {self.image_size}"
            )
        if self.pool == "cls" and not self.class_token:
            raise ValueError("pool='cls' needs class_token=True")
        if (
            self.distillation_head > self.distillation_token
            or self.distillation_token > self.class_token
        ):
            raise ValueError(
                "a distillation head needs the distillation token, and this the class token"
            )
        if self.positions == "sincos" and self.width % 4:
            raise ValueError(
                f"positions='sincos' needs a width that is a multiple of 4, not {self.width}"
            )

    @property
    def grid(self) -> int:
        """Patches on one side of the picture."""
        return self.image_size // self.patch_size

    @property
    def prefix_tokens(self) -> int:
        """Tokens in front of the patches: [CLS] and the distillation token."""
        return int(self.class_token) + int(self.distillation_token)


def sincos_positions(rows: int, columns: int, width: int) -> Tensor:
    """Return fixed 2-D sine-cosine position embeddings ``(rows * columns, width)``, row by row.

    A quarter of the width each is the sine and cosine of the column and the sine and cosine of the
    row, times falling frequencies 10000^(-i / (width / 4)), as in MoCo v3 (Chen et al. 2021,
    arXiv:2104.02057) and MAE (He et al. 2022, arXiv:2111.06377).
    """
    frequencies = 10000.0 ** (-torch.arange(width // 4, dtype=torch.float64) * 4 / width)
    y, x = torch.meshgrid(torch.arange(rows), torch.arange(columns), indexing="ij")
    angles = [axis.flatten()[:, None] * frequencies for axis in (x, y)]
    return torch.cat(
        [wave(angle) for angle in angles for wave in (torch.sin, torch.cos)], dim=1
    ).float()


class QuickGELU(nn.Module):
    """The sigmoid approximation of GELU that OpenAI's CLIP uses: ``x * sigmoid(1.702 x)``."""

    def forward(self, x: Tensor) -> Tensor:
        """Return an activation of the same shape."""
        return x * torch.sigmoid(1.702 * x)


def activation_layer(name: Activation) -> nn.Module:
    """Return the activation of that name; raises ValueError for another."""
    if name == "gelu":
        return nn.GELU()
    if name == "gelu_tanh":
        return nn.GELU(approximate="tanh")
    if name == "quick_gelu":
        return QuickGELU()
    raise ValueError(f"unknown activation {name!r}: use gelu, gelu_tanh or quick_gelu")


def attend(
    q: Tensor, k: Tensor, v: Tensor, with_weights: bool = False
) -> tuple[Tensor, Tensor | None]:
    """Return scaled dot-product attention ``(n, h, t, d)`` and, on request, its weights.

    The weights are ``(n, h, t, s)``, and their rows sum to 1. Queries are ``(n, h, t, d)``, keys
    and values ``(n, h, s, d)`` (Vaswani et al. 2017). The weights take part in the graph, so a
    gradient with respect to them can be asked for.
    """
    if not with_weights:
        return F.scaled_dot_product_attention(q, k, v), None
    weights = (q @ k.transpose(-2, -1) * q.shape[-1] ** -0.5).softmax(dim=-1)
    return weights @ v, weights


class Attention(nn.Module):
    """Multi-head self-attention with one matrix for queries, keys and values."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)

    def forward(self, x: Tensor, with_weights: bool = False) -> tuple[Tensor, Tensor | None]:
        """Return ``(n, t, width)`` and the weights ``(n, h, t, t)`` or None."""
        n, t, width = x.shape
        q, k, v = (
            self.qkv(x)
            .view(n, t, 3, self.heads, width // self.heads)
            .permute(2, 0, 3, 1, 4)
            .unbind(0)
        )
        mixed, weights = attend(q, k, v, with_weights)
        return self.out(mixed.transpose(1, 2).reshape(n, t, width)), weights


class MLP(nn.Module):
    """Two linear layers with an activation between them, applied to each token separately."""

    def __init__(
        self, width: int, hidden: int, activation: Activation, dropout: float = 0.0
    ) -> None:
        super().__init__()
        self.fc1 = nn.Linear(width, hidden)
        self.activation = activation_layer(activation)
        self.dropout = nn.Dropout(dropout)
        self.fc2 = nn.Linear(hidden, width)

    def forward(self, x: Tensor) -> Tensor:
        """Return a tensor of the same shape."""
        y: Tensor = self.fc2(self.dropout(self.activation(self.fc1(x))))
        return y


class Block(nn.Module):
    """One pre-norm encoder block: ``x + attention(norm(x))``, then ``x + mlp(norm(x))``."""

    def __init__(self, config: ViTConfig) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(config.width, eps=config.norm_eps)
        self.attention = Attention(config.width, config.heads)
        self.norm2 = nn.LayerNorm(config.width, eps=config.norm_eps)
        self.mlp = MLP(config.width, config.mlp_width, config.activation, config.dropout)
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, x: Tensor, with_weights: bool = False) -> tuple[Tensor, Tensor | None]:
        """Return ``(n, t, width)`` and the attention weights ``(n, h, t, t)`` or None."""
        mixed, weights = self.attention(self.norm1(x), with_weights)
        x = x + self.dropout(mixed)
        return x + self.dropout(self.mlp(self.norm2(x))), weights


class AttentionPool(nn.Module):
    """Pools tokens with a learned query and an MLP: SigLIP's "MAP" head (Zhai et al. 2022)."""

    def __init__(self, config: ViTConfig) -> None:
        super().__init__()
        width = config.width
        self.heads = config.heads
        self.query = nn.Parameter(torch.empty(1, 1, width))
        self.q = nn.Linear(width, width)
        self.kv = nn.Linear(width, 2 * width)
        self.out = nn.Linear(width, width)
        self.norm = nn.LayerNorm(width, eps=config.norm_eps)
        self.mlp = MLP(width, config.mlp_width, config.activation)

    def forward(self, x: Tensor, with_weights: bool = False) -> tuple[Tensor, Tensor | None]:
        """Return ``(n, width)`` and the query's weights on the tokens ``(n, h, 1, t)`` or None."""
        n, t, width = x.shape
        q = self.q(self.query).expand(n, -1, -1).view(n, 1, self.heads, -1).transpose(1, 2)
        k, v = (
            self.kv(x)
            .view(n, t, 2, self.heads, width // self.heads)
            .permute(2, 0, 3, 1, 4)
            .unbind(0)
        )
        mixed, weights = attend(q, k, v, with_weights)
        pooled = self.out(mixed.transpose(1, 2).reshape(n, 1, width))
        return (pooled + self.mlp(self.norm(pooled)))[:, 0], weights


class VisionTransformer(nn.Module):
    """The Vision Transformer, from pictures ``(n, channels, h, w)`` to ``(n, out_dim)``.

    The output is vectors or logits. ``stem``, any module that gives a feature map, makes it a
    hybrid: the cells of the map become the tokens (section 3.1 of the paper). A picture of another
    size than ``config.image_size`` is taken too: learned position embeddings are interpolated for
    it.
    """

    def __init__(self, config: ViTConfig, stem: nn.Module | None = None) -> None:
        super().__init__()
        width, patch = config.width, config.patch_size
        self.config = config
        self.stem = stem if stem is not None else nn.Identity()
        self.patch_embedding = nn.Conv2d(
            config.channels, width, kernel_size=patch, stride=patch, bias=config.patch_bias
        )
        self.class_token = nn.Parameter(torch.empty(1, 1, width)) if config.class_token else None
        self.distillation_token = (
            nn.Parameter(torch.empty(1, 1, width)) if config.distillation_token else None
        )
        self.position_embedding: Tensor
        if config.positions == "learned":
            self.position_embedding = nn.Parameter(
                torch.empty(1, config.prefix_tokens + config.grid**2, width)
            )
        else:
            self.register_buffer(
                "position_embedding",
                self._fixed_positions(config.grid, config.grid),
                persistent=False,
            )
        self.pre_norm = (
            nn.LayerNorm(width, eps=config.norm_eps) if config.pre_norm else nn.Identity()
        )
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.depth))
        self.norm = nn.LayerNorm(width, eps=config.norm_eps)
        self.attention_pool = AttentionPool(config) if config.pool == "attention" else None
        self.head = (
            nn.Linear(width, config.out_dim, bias=config.head_bias)
            if config.out_dim
            else nn.Identity()
        )
        self.distillation_head = (
            nn.Linear(width, config.out_dim)
            if config.distillation_head and config.out_dim
            else nn.Identity()
        )
        self._initialise()

    def _initialise(self) -> None:
        stem_parts = set(self.stem.modules())  # the stem may bring learned weights
        for part in self.modules():
            if isinstance(part, nn.Linear) and part not in stem_parts:
                nn.init.trunc_normal_(part.weight, std=0.02)
                if part.bias is not None:
                    nn.init.zeros_(part.bias)
        for token in (self.position_embedding, self.class_token, self.distillation_token):
            if isinstance(token, nn.Parameter):
                nn.init.trunc_normal_(token, std=0.02)
        if self.attention_pool is not None:
            nn.init.trunc_normal_(self.attention_pool.query, std=self.config.width**-0.5)

    def embed(self, images: Tensor) -> Tensor:
        """Return the tokens that enter the first block, ``(n, t, width)``.

        [CLS], if there is one, comes first; the patches, row by row, come last.
        """
        patches = self.patch_embedding(self.stem(images))  # (n, width, rows, columns)
        rows, columns = patches.shape[-2:]
        x = patches.flatten(2).transpose(1, 2)
        prefix = [
            token.expand(x.shape[0], -1, -1)
            for token in (self.class_token, self.distillation_token)
            if token is not None
        ]
        x = torch.cat([*prefix, x], dim=1)
        normed: Tensor = self.pre_norm(x + self.positions(rows, columns))
        return normed

    def positions(self, rows: int, columns: int) -> Tensor:
        """Return the position embedding ``(1, t, width)`` for a grid of patches.

        Learned ones are resized (bicubic), fixed ones are computed.
        """
        grid, prefix = self.config.grid, self.config.prefix_tokens
        if rows == grid and columns == grid:
            return self.position_embedding
        if self.config.positions == "sincos":
            return self._fixed_positions(rows, columns).to(self.position_embedding)
        learned = self.position_embedding[:, prefix:].reshape(1, grid, grid, -1).permute(0, 3, 1, 2)
        resized = F.interpolate(learned, size=(rows, columns), mode="bicubic", align_corners=False)
        return torch.cat(
            [self.position_embedding[:, :prefix], resized.flatten(2).transpose(1, 2)], dim=1
        )

    def _fixed_positions(self, rows: int, columns: int) -> Tensor:
        """Return sine-cosine positions ``(1, t, width)``; tokens without a position get zeros."""
        positions = sincos_positions(rows, columns, self.config.width)
        return F.pad(positions, (0, 0, self.config.prefix_tokens, 0))[None]

    def tokens(self, images: Tensor) -> Tensor:
        """Return the tokens after the last block, ``(n, t, width)``.

        They are normalised unless ``norm_after_pool``.
        """
        return self._run(images, with_weights=False)[0]

    def _run(self, images: Tensor, with_weights: bool) -> tuple[Tensor, list[Tensor]]:
        x = self.embed(images)
        weights = []
        for block in self.blocks:
            x, block_weights = block(x, with_weights)
            if block_weights is not None:
                weights.append(block_weights)
        return (x if self.config.norm_after_pool else self.norm(x)), weights

    def pool(self, tokens: Tensor) -> Tensor:
        """Return a vector per picture ``(n, width)``: [CLS], patch mean or attention pooling."""
        if self.attention_pool is not None:
            pooled: Tensor = self.attention_pool(tokens)[0]
        elif self.config.pool == "mean":
            pooled = tokens[:, self.config.prefix_tokens :].mean(dim=1)
        else:
            pooled = tokens[:, 0]
        return self.norm(pooled) if self.config.norm_after_pool else pooled

    def classify(self, tokens: Tensor) -> Tensor:
        """Return the head's output ``(n, out_dim)`` of the tokens after the last block.

        Without a head it is ``(n, width)``.
        """
        out: Tensor = self.head(self.pool(tokens))
        return (
            (out + self.distillation_head(tokens[:, 1])) / 2
            if self.config.distillation_head
            else out
        )

    def forward(self, images: Tensor) -> Tensor:
        """Return ``(n, out_dim)``, or ``(n, width)`` without a head."""
        return self.classify(self.tokens(images))

    def forward_with_attention(self, images: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Return the output and each block's attention weights ``(n, h, t, t)``.

        The first block comes first; all are parts of the graph.
        """
        tokens, weights = self._run(images, with_weights=True)
        return self.classify(tokens), weights


def infer_config(state: Mapping[str, Tensor], *, heads: int) -> ViTConfig:
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
