"""How somebody's training run normalises its observations, and what a jump does about it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from jaxtyping import Float

from tipl.core.arrays import Array
from tipl.errors import TiplError

FEW = 1000
"""Observations up to which statistics are too wild to say anything of the weights."""

SETTLED = 1e6
"""Observations that a jump's statistics count as: what comes after it moves them little."""


class RunNormaliser:
    """The running mean and variance by which a run normalises observations, if it does so.

    Found through all wrappers in stable-baselines3's `VecNormalize` (unless `norm_obs` is off) and
    in Gymnasium's `NormalizeObservation`, of one environment or of a vector.

    Args:
        env: the run's environment, with its wrappers.
        size: observed values, O.

    Raises:
        TiplError: several things normalise, or something does in another process.
    """

    def __init__(self, env: Any, size: int) -> None:
        self.size = size
        self.moments: Any = None
        self.epsilon = 0.0
        self.clip = np.inf
        found = [wrapper for wrapper in all_wrappers(env) if _normalises(wrapper)]
        if len(found) > 1:
            raise TiplError(
                f"{len(found)} wrappers were found that each normalise observations by statistics "
                "of their own, so that no weights fit them all; use one around the whole vector: "
                "VecNormalize, or gymnasium.wrappers.vector.NormalizeObservation"
            )
        for wrapper in found:
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

    def snapshot(self) -> tuple[Array, Array, float] | None:
        """The statistics, for `restore`."""
        if self.moments is None:
            return None
        moments = self.moments
        return np.copy(moments.mean), np.copy(moments.var), float(moments.count)

    def restore(self, snapshot: tuple[Array, Array, float] | None) -> None:
        """Sets the statistics back to those of `snapshot`."""
        if self.moments is not None and snapshot is not None:
            self.moments.mean, self.moments.var = np.copy(snapshot[0]), np.copy(snapshot[1])
            self.moments.count = snapshot[2]


def _normalises(wrapper: Any) -> bool:
    """Whether a wrapper normalises observations by running statistics that can be reached."""
    if hasattr(wrapper, "remotes"):  # a vector whose members are in processes of their own
        try:
            wrapper.get_attr("obs_rms")
        except AttributeError:
            return False
        raise TiplError(
            "observations are normalised by environments in other processes, whose statistics "
            "cannot be set; use VecNormalize around the vector"
        )
    return getattr(wrapper, "obs_rms", None) is not None and getattr(wrapper, "norm_obs", True)


def all_wrappers(env: Any) -> list[Any]:
    """All wrappers of an environment, and those of each member of a vector."""
    found = list(wrappers(env))
    members = [member for wrapper in found for member in _members(wrapper)[1:]]
    return found + [wrapper for member in members for wrapper in wrappers(member)]


def _members(env: Any) -> list[Any]:
    """The environments of a vector that are in this process."""
    return list(env.__dict__.get("envs", ()))  # a wrapper would hand on its inner one's


def wrappers(env: Any) -> Iterator[Any]:
    """An environment and all that it wraps, from the outside in; of a vector its first member."""
    while env is not None:
        yield env
        inner = getattr(env, "venv", None) or getattr(env, "env", None)
        if inner is None and getattr(env, "envs", None):
            inner = env.envs[0]
        env = inner if inner is not env else None
