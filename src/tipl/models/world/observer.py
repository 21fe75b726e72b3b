"""From transitions in a world to what is known of it."""

from __future__ import annotations

import dataclasses

import numpy as np
import torch
from jaxtyping import Float, Float32
from torch import Tensor, nn

from tipl.core.arrays import Array
from tipl.core.schemas import Count
from tipl.evaluation.behaviour import action_unit
from tipl.models import Width
from tipl.policies.actions import executable, normalise_observations
from tipl.policies.tasks import TaskSpec

CLIP = 8.0
"""Standard deviations beyond which what is seen in a transition counts for no more."""

MOST_TRANSITIONS = 400
"""Of a world, from which it learns; of more it is no surer than of so many."""

SUREST, UNSUREST = 0.03, 1.0
"""Bounds of the deviation that is believed, in units of the prior's."""


@dataclasses.dataclass(frozen=True)
class ObserverConfig:
    """Sizes of a `WorldObserver`."""

    num_features: Count
    """values of a transition, F: an observation, an action, and the change of the observation"""
    num_factors: Count
    """factors that worlds differ in, V"""
    width: Width
    """units of the hidden layers"""


def transition_features(
    task: TaskSpec, observations: Array, actions: Array, next_observations: Array
) -> Float32[np.ndarray, "*batch F"]:
    """What is seen of transitions: normalised observations, actions, and how the former change.

    Arrays are `[*batch, O]`, `[*batch, A]` and `[*batch, O]`. Actions outside of their bounds
    count as those at them.
    """
    seen, following = (
        normalise_observations(one, *task.observation_statistics)
        for one in (observations, next_observations)
    )
    acted = executable(task, actions) / action_unit(task).astype(np.float64)
    return np.concatenate([seen, acted, following - seen], axis=-1).astype(np.float32)


class WorldObserver(nn.Module):
    """What transitions in one world say of its factors, in any order and any number.

    A network reads each transition; the mean and the deviation of what it finds in all of them are
    read by another, which gives a mean and a deviation of each factor's logarithm. Learned by the
    likelihood of the true factors, so the deviations say how much is not known.
    """

    feature_mean: Float[Tensor, " F"]
    feature_std: Float[Tensor, " F"]
    prior_mean: Float[Tensor, " V"]
    """of the factors' logarithms over the worlds that it has seen"""
    prior_std: Float[Tensor, " V"]

    def __init__(self, config: ObserverConfig) -> None:
        super().__init__()
        self.config = config
        F, V, H = config.num_features, config.num_factors, config.width
        for name, size in {"feature": F, "prior": V}.items():
            self.register_buffer(f"{name}_mean", torch.zeros(size))
            self.register_buffer(f"{name}_std", torch.ones(size))
        self.each = nn.Sequential(
            nn.Linear(F, H), nn.GELU(), nn.Linear(H, H), nn.GELU(), nn.Linear(H, H)
        )
        self.all = nn.Sequential(
            nn.Linear(2 * H + 1, H), nn.GELU(), nn.Linear(H, H), nn.GELU(), nn.Linear(H, 2 * V)
        )

    def forward(
        self, features: Float[Tensor, "B S F"]
    ) -> tuple[Float[Tensor, "B V"], Float[Tensor, "B V"]]:
        """Mean and standard deviation of the factors' logarithms."""
        seen = ((features - self.feature_mean) / self.feature_std).clamp(-CLIP, CLIP)
        found = self.each(seen)  # [B, S, H]
        count = min(found.shape[1], MOST_TRANSITIONS)
        spread = (found.var(dim=1, correction=0) + 1e-5).sqrt()
        number = torch.full((len(found), 1), float(np.log(count) / np.log(MOST_TRANSITIONS)))
        told = self.all(torch.cat([found.mean(dim=1), spread, number], dim=-1))
        mean, surely = told.chunk(2, dim=-1)  # [B, 2 V] -> 2 of [B, V]
        # between the bounds, from each of which it can still be learned to leave
        std = SUREST + (UNSUREST - SUREST) * (surely + 1).sigmoid()
        return self.prior_mean + mean * self.prior_std, std * self.prior_std

    def loss(
        self, features: Float[Tensor, "B S F"], factors: Float[Tensor, "B V"]
    ) -> Float[Tensor, ""]:
        """Negative logarithm of the likelihood of the logarithms of the true factors, on average.

        In units of the prior's deviation, without the constant.
        """
        mean, std = self(features)
        away = (factors - mean) / std
        loss: Tensor = (away.square() / 2 + (std / self.prior_std).log()).mean()
        return loss
