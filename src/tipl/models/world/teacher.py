"""From what is known of a world to the weights of its teacher."""

from __future__ import annotations

import dataclasses
from typing import Annotated

import msgspec
import torch
from jaxtyping import Float
from torch import Tensor, nn

from tipl.core.schemas import Count, Natural
from tipl.models import Width

SLOWLY = 0.15
"""Rate of learning of the mean change and the directions, which have a good start, beside that of
what chooses among them."""


@dataclasses.dataclass(frozen=True)
class TeacherConfig:
    """Sizes of a `WorldTeacher`."""

    num_parameters: Count
    """weights of a teacher, P"""
    num_factors: Count
    """factors that worlds differ in, V"""
    directions: Natural
    """directions in which teachers differ, K; none of a universal policy, whose slopes do it all"""
    width: Width
    """units of the hidden layers"""
    noise: Annotated[float, msgspec.Meta(gt=0, le=1)]
    """uncertainty, in units of the prior's, of a factor that is known"""


class WorldTeacher(nn.Module):
    """The elite's weights and a change, which a belief about the world sets.

    `theta = elite + mean + slopes^T o(belief) + directions^T (scale * h(belief))`. The slopes are
    what a universal policy has learned to make of the physics o that it observes, or what a student
    of it has; 0 for a lineage. Of trials in worlds of their own the mean and the directions are
    learned: all teachers of a lineage stay near one ancestor, so what lies between two of them is a
    policy as well. Factors that are not known are read as their prior mean, with an uncertainty of
    1 beside them; so one network serves every state of knowledge.
    """

    elite: Float[Tensor, " P"]
    """the weights that the lineage starts from"""
    prior_mean: Float[Tensor, " V"]
    """of the factors' logarithms over the training worlds"""
    prior_std: Float[Tensor, " V"]
    scale: Float[Tensor, " K"]
    """how far the training worlds' teachers differ in each direction"""
    reversible: Float[Tensor, " V"]
    """1 where the factor less 1 is observed, and 0 where its logarithm is"""

    def __init__(self, config: TeacherConfig) -> None:
        super().__init__()
        self.config = config
        P, V, K = config.num_parameters, config.num_factors, config.directions
        shapes = {
            "elite": (P,), "prior_mean": (V,), "prior_std": (V,), "scale": (K,),
            "reversible": (V,),
        }  # fmt: skip
        for name, shape in shapes.items():
            self.register_buffer(name, torch.zeros(shape))
        # in units of `SLOWLY`, so that Adam's steps in them are so much smaller
        self.mean = nn.Parameter(torch.zeros(P))
        self.directions = nn.Parameter(torch.zeros(K, P))
        self.slopes = nn.Parameter(torch.zeros(V, P), requires_grad=False)  # but of a student
        H = config.width
        self.chooser = nn.Sequential()
        if K:
            layers = nn.Linear(2 * V, H), nn.Tanh(), nn.Linear(H, H), nn.Tanh(), nn.Linear(H, K)
            self.chooser.extend(layers)

    def forward(
        self, mean: Float[Tensor, "B V"], std: Float[Tensor, "B V"]
    ) -> Float[Tensor, "B P"]:
        """Weights of the teachers for beliefs: mean and deviation of the factors' logarithms."""
        observed = torch.where(self.reversible > 0, torch.expm1(mean), mean)
        weights: Tensor = self.elite + SLOWLY * self.mean + observed @ self.slopes
        if self.config.directions:
            told = (mean - self.prior_mean) / self.prior_std
            unsure = (std / self.prior_std).clamp(self.config.noise, 1.0)
            chosen = self.chooser(torch.cat([told, unsure], dim=-1)) * self.scale  # [B, K]
            weights = weights + SLOWLY * (chosen @ self.directions)
        return weights

    def begin(
        self,
        mean: Float[Tensor, " P"],
        directions: Float[Tensor, "K P"],
        scale: Float[Tensor, " K"],
    ) -> None:
        """Begins at a mean change, and at the directions in which teachers differ most."""
        with torch.no_grad():
            self.mean.copy_(mean / SLOWLY)
            self.directions.copy_(directions / SLOWLY)
            self.scale.copy_(scale)

    def told(
        self, factors: Float[Tensor, "B V"], rng: torch.Generator
    ) -> tuple[Float[Tensor, "B V"], Float[Tensor, "B V"]]:
        """Beliefs, as in `forward`, about worlds of these logarithms: from sure to ignorant.

        Half of the worlds are known as well as any; of the others each factor is known so well, not
        at all, or something between. A belief is what an observation leaves of the prior: the true
        factor is about its mean, as far as its deviation says.
        """
        lowest = self.config.noise
        unsure = torch.rand(factors.shape, generator=rng) * 3  # a third each
        unsure = lowest + (unsure - 1).clamp(0, 1) * (1 - lowest)
        sure = torch.rand(len(factors), 1, generator=rng) < 0.5
        unsure = torch.where(sure, lowest, unsure)
        away = (factors - self.prior_mean) / self.prior_std
        drawn = torch.randn(factors.shape, generator=rng)
        # what is left of the prior's variance, 1, is that of the mean
        share = 1 - unsure.square()
        mean = share * away + unsure * share.sqrt() * drawn
        return self.prior_mean + mean * self.prior_std, unsure * self.prior_std
