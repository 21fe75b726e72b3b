"""The paper's model: a causal Transformer whose tokens are checkpoints; here, its options."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, get_args

from tipl.core.lazy import lazy_names
from tipl.core.options import at_least, at_most, one_of
from tipl.models import MAX_COORDINATES, MAX_DEPTH, TrainConfig, TrainOptions, check_heads
from tipl.paths.svd import Basis, Center

__all__ = ["PathTrainConfig", "PathTrainOptions", "PathTransformer", "PathTransformerConfig"]


@dataclasses.dataclass(frozen=True)
class PathTrainConfig(TrainConfig):
    """How a PathTransformer is trained."""

    model: str = "path"
    num_steps: int = 800
    learning_rate: float = 1e-3
    heads: int = 4
    """attention heads"""
    condition_on_return: bool = False
    """tell the model the return that each path ends with"""
    basis: Basis = "joint"
    """one SVD basis for all training paths, or a basis for each path (finds no basis, and so no
    forecast, from an untrained policy alone)"""
    center: Center = "initial"
    """what is subtracted before the SVD: nothing, the path's first checkpoint, or the mean"""
    rank: int = 16
    """coordinates of a token, K"""
    depth: int = 2
    """Transformer blocks"""

    def __post_init__(self) -> None:
        super().__post_init__()
        at_least(1, rank=self.rank, depth=self.depth)
        at_most(MAX_COORDINATES, rank=self.rank)
        at_most(MAX_DEPTH, depth=self.depth)
        check_heads(self.width, self.heads)
        one_of(get_args(Basis), basis=self.basis)
        one_of(get_args(Center), center=self.center)


class PathTrainOptions(TrainOptions, total=False):
    """The fields of `PathTrainConfig` as options of `tipl.train`, for type checkers."""

    heads: int
    condition_on_return: bool
    basis: Basis
    center: Center
    rank: int
    depth: int


if TYPE_CHECKING:
    from tipl.models.path_transformer.net import PathTransformer, PathTransformerConfig
else:
    __getattr__, __dir__ = lazy_names(__name__)
