"""The running mean and variance by which a training run normalises observations, if it does so."""

from __future__ import annotations

import copy
from typing import Any

import gymnasium as gym
import numpy as np
from jaxtyping import Float

from tipl.core.arrays import Array
from tipl.errors import TiplError
from tipl.integrations.environment.members import (
    all_layers,
    normalises_elsewhere,
    sb3_class,
    unwrapped_layers,
)

FEW = 1000
"""Observations up to which statistics are too wild to say anything of the weights."""

SETTLED = 1e6
"""Observations that a jump's statistics count as: what comes after it moves them little."""


class RunNormaliser:
    """The running mean and variance of a run's observations, of O = `size` values.

    Found through all wrappers in stable-baselines3's `VecNormalize` (unless `norm_obs` is off) and
    in Gymnasium's `NormalizeObservation`, of one environment or of a vector; an environment of None
    normalises nothing.

    Attributes:
        moments: what keeps the statistics, with `mean`, `var` and `count`; None if nothing
            normalises.
        clip: normalised observations are clipped to +- this: as `VecNormalize` does it; infinity
            where nothing clips.

    Raises:
        TiplError: several things normalise, something does in another process, or it is of a kind
            that cannot be read.
    """

    def __init__(self, env: Any, size: int) -> None:
        self.size, self.clip = size, np.inf
        self.moments: Any = None
        self.epsilon = 0.0
        for wrapper in _only_normaliser(env):
            self.moments, self.epsilon = wrapper.obs_rms, float(wrapper.epsilon)
            self.clip = float(getattr(wrapper, "clip_obs", np.inf))

    @property
    def statistics(self) -> tuple[Float[np.ndarray, " O"], Float[np.ndarray, " O"]]:
        """Mean and standard deviation at present; 0 and 1 where the run does not normalise."""
        if self.moments is None:
            return np.zeros(self.size), np.ones(self.size)
        mean, variance = np.asarray(self.moments.mean), np.asarray(self.moments.var)
        # one environment's wrapper may keep a leading axis of 1
        return mean.reshape(-1), np.sqrt(variance.reshape(-1) + self.epsilon)

    @property
    def unsettled(self) -> bool:
        """Whether the run normalises, and has seen next to nothing."""
        return self.moments is not None and float(self.moments.count) < FEW

    def normalise(self, observations: Float[np.ndarray, "*batch O"]) -> Array:
        """Raw observations as the run's networks are fed them."""
        mean, std = self.statistics
        scaled = np.clip((observations - mean) / std, -self.clip, self.clip)
        return np.asarray(scaled, np.float32)

    def settle(self, mean: Float[np.ndarray, " O"], std: Float[np.ndarray, " O"]) -> None:
        """Sets the statistics, so firmly that what the run sees next moves them little.

        A jump at the start would otherwise be lost: the statistics of a run that has seen nothing
        change all observations within a few steps.
        """
        if self.moments is not None:
            shape = np.shape(self.moments.mean)
            self.moments.mean = np.asarray(mean, np.float64).reshape(shape)
            self.moments.var = np.asarray(std**2 - self.epsilon, np.float64).reshape(shape)
            self.moments.count = max(float(self.moments.count), SETTLED)

    def snapshot(self) -> dict[str, Any]:
        """The statistics, for `restore`."""
        return {} if self.moments is None else copy.deepcopy(vars(self.moments))

    def restore(self, snapshot: dict[str, Any]) -> None:
        """Sets the statistics back to those of `snapshot`."""
        for name, value in copy.deepcopy(snapshot).items():
            setattr(self.moments, name, value)


def normaliser_classes() -> tuple[type, ...]:
    """The wrappers that normalise observations by statistics which can be read and set."""
    of_gymnasium = (
        gym.wrappers.NormalizeObservation,
        gym.wrappers.vector.NormalizeObservation,
    )
    return (*of_gymnasium, *sb3_class("VecNormalize"))


def normalisers_in(env: Any) -> list[Any]:
    """All wrappers that normalise observations in an environment or vector, from the outside in.

    Raises:
        TiplError: one of them cannot be read.
    """
    found = []
    for layer in all_layers(env):
        if "obs_rms" not in vars(layer) or not getattr(layer, "norm_obs", True):
            continue
        known = isinstance(layer, normaliser_classes())
        if not known or not hasattr(layer.obs_rms, "mean"):  # or of observations of several parts
            raise TiplError(
                f"the wrapper {type(layer).__name__} normalises observations in a way that cannot "
                "be read; use VecNormalize around the vector, or Gymnasium's NormalizeObservation, "
                "of observations that are vectors"
            )
        found.append(layer)
    return found


def _only_normaliser(env: Any) -> list[Any]:
    """The one wrapper that normalises a run's observations, or none."""
    found = normalisers_in(env)
    if env is not None and normalises_elsewhere(unwrapped_layers(env)[-1]):
        raise TiplError(
            "observations are normalised by environments in other processes, whose statistics "
            "cannot be set; use VecNormalize around the vector"
        )
    if len(found) > 1:
        raise TiplError(
            f"{len(found)} wrappers were found that each normalise observations by statistics "
            "of their own, so that no weights fit them all; use one around the whole vector: "
            "VecNormalize, or gymnasium.wrappers.vector.NormalizeObservation"
        )
    return found
