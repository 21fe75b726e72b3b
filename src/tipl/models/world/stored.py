"""The teachers that a model of worlds has learned from: what to try where its own may fail."""

from __future__ import annotations

import dataclasses

import numpy as np
import torch
from jaxtyping import Float, Float16
from torch import Tensor, nn

from tipl.core.arrays import Array
from tipl.core.schemas import Count, Natural
from tipl.models.world.belief import Belief


@dataclasses.dataclass(frozen=True)
class StoredConfig:
    """Sizes of `StoredTeachers`."""

    num_worlds: Count
    """W"""
    num_parameters: Natural
    """weights of a teacher, P; 0 of a universal policy, whose teachers follow from the factors"""
    num_factors: Count
    """factors that worlds differ in, V"""


class StoredTeachers(nn.Module):
    """The factors of training worlds, and their last policies in half precision, if it has any."""

    factors: Float[Tensor, "W V"]
    """their logarithms"""
    params: Float16[Tensor, "W P"]

    def __init__(self, config: StoredConfig) -> None:
        super().__init__()
        self.config = config
        W, P, V = config.num_worlds, config.num_parameters, config.num_factors
        self.register_buffer("factors", torch.zeros(W, V))
        self.register_buffer("params", torch.zeros(W, P, dtype=torch.float16))

    def nearest(self, belief: Belief, prior: Belief) -> list[int]:
        """The worlds by their distance from one that is believed in, the nearest first.

        A factor counts for as much as it is known, in units of the prior's deviation.
        """
        sure = 1 - np.minimum(belief.std / prior.std, 1) ** 2
        away = (self.factors.numpy() - belief.mean) / prior.std
        order: list[int] = np.argsort((sure * away**2).sum(axis=1), kind="stable").tolist()
        return order

    def weights(self, world: int) -> Array:
        """Of the teacher of a world, `[P]` in float32."""
        return self.params[world].float().numpy()
