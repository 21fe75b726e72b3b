"""What somebody's training run acts in, how that normalises observations, and another one."""

from __future__ import annotations

import contextlib
import copy
import warnings
from collections.abc import Iterator
from typing import Any, NamedTuple

import gymnasium as gym
import numpy as np
from jaxtyping import Float

from tipl.core.arrays import Array
from tipl.envs import make_task
from tipl.envs.batched_mujoco import silent_mujoco
from tipl.errors import TiplError
from tipl.policies.tasks import TaskSpec

FEW = 1000
"""Observations up to which statistics are too wild to say anything of the weights."""

SETTLED = 1e6
"""Observations that a jump's statistics count as: what comes after it moves them little."""


class RunNormaliser:
    """The running mean and variance by which a run normalises observations, if it does so.

    Found through all wrappers in stable-baselines3's `VecNormalize` (unless `norm_obs` is off) and
    in Gymnasium's `NormalizeObservation`, of one environment or of a vector, of O = `size` values.

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

    def snapshot(self) -> dict[str, Any]:
        """The statistics, for `restore`."""
        return {} if self.moments is None else copy.deepcopy(vars(self.moments))

    def restore(self, snapshot: dict[str, Any]) -> None:
        """Sets the statistics back to those of `snapshot`."""
        for name, value in copy.deepcopy(snapshot).items():
            setattr(self.moments, name, value)


def spec_of(env: Any, otherwise: str = "") -> Any:
    """The Gymnasium spec of a run's environment, or of the first of a vector.

    Raises:
        TiplError: it has none; `otherwise` says what that would be for, and what to do.
    """
    if hasattr(env, "env_method"):  # stable-baselines3's vector, whose members may be elsewhere
        spec = env.get_attr("spec")[0]
    else:
        spec = next((w.spec for w in wrappers(env) if getattr(w, "spec", None)), None)
    if spec is None:
        raise TiplError(f"the run has no environment with a Gymnasium spec {otherwise}")
    return spec


LEFT_OUT = ("Monitor", "RecordEpisodeStatistics", "NormalizeObservation", "NormalizeReward")
"""Wrappers that an environment for tests goes without: its observations and rewards are raw."""


class RunEnvironment(NamedTuple):
    """What a run acts in."""

    normaliser: RunNormaliser
    task: TaskSpec | None  # what the run is trained on; None if tipl's models could not know it
    test_env: gym.Env[Any, Any]  # another one for tests: observations and rewards are raw


def run_environment(
    env: Any, caller: str, eval_env: gym.Env[Any, Any] | None = None, wrapped: bool = True
) -> RunEnvironment:
    """Describes the environment of a run, and makes another one like it, or takes the `eval_env`.

    What is made has the run's wrappers, but those `LEFT_OUT`, if it is to be `wrapped`.

    Raises:
        TiplError: as `RunNormaliser`; or the run's has no spec, or a wrapper that its spec cannot
            make again: it says that the `caller` takes an `eval_env`.
    """
    test_env = _another_environment(env, caller, wrapped) if eval_env is None else eval_env
    size = int(np.prod(test_env.observation_space.shape or ()))
    task = None
    with contextlib.suppress(TiplError):
        task = make_task(spec_of(env).id)
    return RunEnvironment(RunNormaliser(env, size), task, test_env)


def _another_environment(env: Any, caller: str, wrapped: bool) -> gym.Env[Any, Any]:
    """An environment for tests like a run's, but with raw observations and rewards."""
    where = f"by which another one could be made for tests; give {caller} an eval_env like it"
    spec, arguments = copy.deepcopy(spec_of(env, where)), {}
    if wrapped:
        own = tuple(w for w in spec.additional_wrappers if w.name not in LEFT_OUT)
        spec.additional_wrappers = own
        lost = [wrapper.name for wrapper in own if wrapper.kwargs is None]
        if lost:
            raise TiplError(
                f"the wrappers {', '.join(lost)} of the run's environment cannot be made again "
                f"from its spec; give {caller} an eval_env with them"
            )
    else:
        spec, arguments = spec.id, spec.kwargs
    return make_silently(spec, **arguments)


def make_silently(spec: Any, **arguments: Any) -> gym.Env[Any, Any]:
    """`gymnasium.make` for somebody who has been told that their version of a task is old."""
    with warnings.catch_warnings(), silent_mujoco():
        warnings.filterwarnings("ignore", ".*is out of date", DeprecationWarning)
        return gym.make(spec, **arguments)


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
    # the members of a vector in this process; a wrapper would hand on its inner one's
    others = [env for wrapper in found for env in list(vars(wrapper).get("envs", ()))[1:]]
    return found + [wrapper for env in others for wrapper in wrappers(env)]


def wrappers(env: Any) -> Iterator[Any]:
    """An environment and all that it wraps, from the outside in; of a vector its first member."""
    while env is not None:
        yield env
        inner = getattr(env, "venv", None) or getattr(env, "env", None)
        if inner is None and getattr(env, "envs", None):
            inner = env.envs[0]
        env = inner if inner is not env else None
