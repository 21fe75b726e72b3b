"""PathTransformer: a causal Transformer that reads a policy learning path (the paper's model).

One token is one checkpoint. The network sees tokens up to checkpoint t and predicts the token of
checkpoint t + 1, for every t at once; training minimises the mean squared error.
"""

from __future__ import annotations

import dataclasses
from typing import Annotated

import msgspec
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from tipl.forecast.description import PathLength
from tipl.models import MAX_COORDINATES, Depth, Width, check_heads
from tipl.models.network import Scale, causal_attention, mlp, register_scale


@dataclasses.dataclass(frozen=True)
class PathTransformerConfig:
    """Size of a PathTransformer."""

    num_coordinates: Annotated[int, msgspec.Meta(ge=1, le=MAX_COORDINATES)]
    """coordinates K of a token"""
    max_checkpoints: PathLength
    """checkpoints T of a whole path: later ones share the last position"""
    width: Width = 64
    """width D of the residual stream"""
    depth: Depth = 2
    """Transformer blocks"""
    heads: Width = 4
    """attention heads in each block"""
    condition_on_return: bool = False
    """tell the model the return that the path ends with"""

    def __post_init__(self) -> None:
        check_heads(self.width, self.heads)


class Block(nn.Module):
    """Pre-norm causal self-attention, then a GELU MLP."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.attention_norm = nn.LayerNorm(width)
        self.query_key_value = nn.Linear(width, 3 * width)
        self.attention_out = nn.Linear(width, width)
        self.mlp_norm = nn.LayerNorm(width)
        self.mlp = mlp(width, 4 * width, width)

    def forward(self, x: Float[Tensor, "B L D"]) -> Float[Tensor, "B L D"]:
        """The residual stream after the block; position l has seen positions up to l."""
        mixed = causal_attention(self.query_key_value(self.attention_norm(x)), self.heads)
        x = x + self.attention_out(mixed.flatten(-2))  # [B, L, H, D / H] -> [B, L, D]
        out: Tensor = x + self.mlp(self.mlp_norm(x))
        return out


class PathTransformer(nn.Module):
    """Predicts the next token of a path at every position, from the tokens up to it.

    An untrained PathTransformer predicts that the weights stand still: its last layer starts at
    zero and gives the *change* of the token.

    Examples:
        >>> import torch
        >>> from tipl.models.path_transformer.net import PathTransformerConfig
        >>> net = tipl.PathTransformer(PathTransformerConfig(num_coordinates=2, max_checkpoints=9))
        >>> net(torch.ones(1, 3, 2), torch.arange(3)[None]).tolist()
        [[[1.0, 1.0], [1.0, 1.0], [1.0, 1.0]]]
    """

    token_scale: Float[Tensor, " K"]
    """typical size of each coordinate, which divides the inputs"""
    change_scale: Float[Tensor, " K"]
    """typical one-step change of each coordinate, which multiplies the outputs"""

    def __init__(
        self,
        config: PathTransformerConfig,
        token_scale: Scale = None,
        change_scale: Scale = None,
    ) -> None:
        super().__init__()
        self.config = config
        register_scale(self, "token_scale", token_scale, (config.num_coordinates,))
        register_scale(self, "change_scale", change_scale, (config.num_coordinates,))
        self.token_in = nn.Linear(config.num_coordinates, config.width)
        self.position = nn.Embedding(config.max_checkpoints, config.width)
        nn.init.normal_(self.position.weight, std=0.02)
        if config.condition_on_return:
            self.return_in = nn.Linear(1, config.width)
            self.unknown_return = nn.Parameter(torch.zeros(config.width))
        self.blocks = nn.ModuleList(Block(config.width, config.heads) for _ in range(config.depth))
        self.norm = nn.LayerNorm(config.width)
        self.change_out = nn.Linear(config.width, config.num_coordinates)
        nn.init.zeros_(self.change_out.weight)
        nn.init.zeros_(self.change_out.bias)

    def forward(
        self,
        tokens: Float[Tensor, "B L K"],
        positions: Int[Tensor, "B L"],
        final_return: Float[Tensor, " B"] | None = None,
    ) -> Float[Tensor, "B L K"]:
        """The predicted next token at each position.

        Positions are indices of checkpoints in their paths, from 0. The scaled return that each
        path ends with (or is wished to) is unknown if NaN or None, and ignored by a model that does
        not condition on it.
        """
        x = self.token_in(tokens / self.token_scale)  # [B, L, D]
        x = x + self.position(positions.clamp(max=self.config.max_checkpoints - 1))
        if self.config.condition_on_return:
            x = x + self._return_embedding(tokens, final_return)[:, None]
        for block in self.blocks:
            x = block(x)
        predicted: Tensor = tokens + self.change_out(self.norm(x)) * self.change_scale
        return predicted

    def _return_embedding(
        self, tokens: Tensor, final_return: Tensor | None
    ) -> Float[Tensor, "B D"]:
        if final_return is None:
            final_return = tokens.new_full((len(tokens),), torch.nan)
        unknown: Bool[Tensor, "B 1"] = final_return.isnan()[:, None]
        known = self.return_in(final_return.nan_to_num()[:, None])
        return torch.where(unknown, self.unknown_return, known)
