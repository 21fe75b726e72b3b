"""Another environment like a run's, in which the run's policy can be tested beside it."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.wrappers import OrderEnforcing, PassiveEnvChecker, TimeLimit
from gymnasium.wrappers import vector as vector_wrappers

from tipl.core.arrays import Array
from tipl.errors import TiplError
from tipl.integrations.environment.description import RunDescription
from tipl.integrations.environment.members import (
    LIKE_IT,
    all_layers,
    first_member,
    quiet,
    sb3_class,
    unwrapped_layers,
)
from tipl.integrations.environment.normaliser import (
    RunNormaliser,
    normaliser_classes,
    normalisers_in,
)
from tipl.policies.actions import inside

LONGEST = 20_000
"""Steps after which an episode of a test is given up, if it has no higher limit: it may have no
end."""

Act = Callable[[Array], Array]
"""Actions `[E, ...]` for observations `[E, ...]` as the run's networks are fed them."""


class GateEnvironment:
    """A vector of environments that a run's policy acts in as it does in the run's own.

    Its observations are normalised by the run's statistics at the time, its rewards are not.

    Args:
        vector: of Gymnasium or of stable-baselines3, with all of the run's wrappers; the policy is
            tested in the first of its environments.
        normaliser: the run's.
        normalises: whether the vector itself does so, or what it gives is still to be normalised.
    """

    def __init__(self, vector: Any, normaliser: RunNormaliser, normalises: bool) -> None:
        self.vector, self.normaliser, self.normalises = vector, normaliser, normalises
        self.observation_space, self.action_space = single_spaces(vector)

    @property
    def first(self) -> gym.Env[Any, Any] | None:
        """The first of its environments, with its wrappers; None if it is in another process."""
        return first_member(self.vector)

    @property
    def spec(self) -> Any:
        """The Gymnasium spec of its first environment; None if it is not known."""
        return None if self.first is None else self.first.spec

    @property
    def bare(self) -> gym.Env[Any, Any]:
        """The first of its environments without what changes what is seen, done or rewarded.

        Raises:
            TiplError: it is in another process.
        """
        if self.first is None:
            raise TiplError(
                "the environment for tests is in another process, where nobody can look into it; "
                "give an eval_env of one environment in this process"
            )
        found: gym.Env[Any, Any]
        *wrappers, found = unwrapped_layers(self.first)
        for wrapper in reversed(wrappers):
            if type(wrapper) not in (TimeLimit, OrderEnforcing, PassiveEnvChecker):
                break
            found = wrapper
        return found

    def episode(self, act: Act, seed: int) -> tuple[float, int]:
        """Runs the policy for an episode from a seeded start: its return, and the steps it took.

        Raises:
            TiplError: the episode did not end.
        """
        longest = max(LONGEST, getattr(self.spec, "max_episode_steps", None) or 0)
        with quiet(), self.frozen():
            observations = self._reset(seed)
            total, length, done = 0.0, 0, False
            while not done:
                if self.normalises or self.normaliser.moments is None:
                    inputs = observations
                else:
                    inputs = self.normaliser.normalise(np.asarray(observations))
                actions = np.asarray(act(inputs))
                if isinstance(self.action_space, gym.spaces.Box):
                    actions = inside(actions, self.action_space.low, self.action_space.high)
                observations, reward, done = self._step(actions)
                total, length = total + reward, length + 1
                if length >= longest and not done:
                    raise TiplError(
                        f"an episode of a test had not ended after {length:,} steps; give an "
                        "eval_env whose episodes end, such as by gymnasium.wrappers.TimeLimit"
                    )
        return total, length * self.vector.num_envs

    def _reset(self, seed: int) -> Any:
        if isinstance(self.vector, gym.vector.VectorEnv):
            return self.vector.reset(seed=seed)[0]
        with contextlib.suppress(NotImplementedError, AttributeError):
            self.vector.seed(seed)  # which one's own vector need not know
        return self.vector.reset()

    def _step(self, actions: Array) -> tuple[Any, float, bool]:
        """Observations of all environments, reward of the first, and whether that one is done."""
        if isinstance(self.vector, gym.vector.VectorEnv):
            observations, rewards, terminated, truncated, _ = self.vector.step(actions)
            return observations, float(rewards[0]), bool(terminated[0] or truncated[0])
        observations, rewards, dones, _ = self.vector.step(actions)
        return observations, float(rewards[0]), bool(dones[0])

    @contextlib.contextmanager
    def frozen(self) -> Iterator[None]:
        """Lets the vector's own normaliser take the run's statistics, and learn nothing."""
        found = normalisers_in(self.vector)
        names = ("obs_rms", "training", "norm_reward", "_update_running_mean")
        before = [{n: vars(one)[n] for n in names if n in vars(one)} for one in found]
        try:
            for one, own in zip(found, before, strict=True):
                for name in own:
                    setattr(one, name, self.normaliser.moments if name == "obs_rms" else False)
            yield
        finally:
            for one, own in zip(found, before, strict=True):
                for name, value in own.items():
                    setattr(one, name, value)


def single_spaces(vector: Any) -> tuple[gym.Space[Any], gym.Space[Any]]:
    """Spaces of one environment's observations and actions."""
    if isinstance(vector, gym.vector.VectorEnv):
        return vector.single_observation_space, vector.single_action_space
    return vector.observation_space, vector.action_space


# --- making another one ----------------------------------------------------------------------


def another_environment(
    description: RunDescription, normaliser: RunNormaliser, sb3: bool
) -> GateEnvironment:
    """Makes another environment like the one described, of Gymnasium's or of stable-baselines3's.

    Raises:
        TiplError: one sentence that says why it cannot be made.
    """
    spec = description.spec
    own = [wrapper.name for wrapper in spec.additional_wrappers if wrapper.kwargs is None]
    if own:
        raise TiplError(
            f"the wrapper {own[0]} of the run's environment cannot be made again from its spec; "
            f"{LIKE_IT}"
        )
    try:
        with quiet():
            env = gym.make(spec, disable_env_checker=True)
    except Exception as error:  # whatever an environment of somebody's raises
        raise TiplError(
            f"no other environment like the run's {spec.id} could be made: "
            f"{type(error).__name__}: {error}; {LIKE_IT}"
        ) from error
    vector = as_vector(env, sb3)
    for wrapper in description.around:
        vector = _wrapped_alike(vector, wrapper)
    return GateEnvironment(vector, normaliser, normalises=True)


def as_vector(env: gym.Env[Any, Any], sb3: bool) -> Any:
    """One environment as a vector."""
    if sb3:
        from stable_baselines3.common.vec_env import DummyVecEnv

        return DummyVecEnv([lambda: env])
    return gym.vector.SyncVectorEnv([lambda: env])


def _wrapped_alike(vector: Any, wrapper: Any) -> Any:
    """A vector of one environment in a wrapper like one of the run's vector."""
    kind = type(wrapper)
    if isinstance(vector, gym.vector.VectorEnv):
        return _wrapped_in_gymnasium(vector, wrapper)
    if kind in sb3_class("VecNormalize"):
        names = ("norm_obs", "clip_obs", "epsilon", "norm_obs_keys")
        settings = {name: getattr(wrapper, name) for name in names}
        return kind(vector, training=False, norm_reward=False, **settings)
    if kind in sb3_class("VecFrameStack") and hasattr(wrapper.stacked_obs, "channels_first"):
        order = "first" if wrapper.stacked_obs.channels_first else "last"
        return kind(vector, wrapper.stacked_obs.n_stack, channels_order=order)
    if kind in sb3_class("VecTransposeImage"):
        return kind(vector, skip=wrapper.skip)
    if kind in sb3_class("VecExtractDictObs"):
        return kind(vector, wrapper.key)
    raise _unknown(wrapper)


def _wrapped_in_gymnasium(vector: Any, wrapper: Any) -> Any:
    kind = type(wrapper)
    if kind in (vector_wrappers.NormalizeObservation, vector_wrappers.ClipAction):
        return kind(vector)
    if kind in (vector_wrappers.NormalizeReward, vector_wrappers.ClipReward):
        return vector  # for the sake of training
    if kind is vector_wrappers.TransformObservation:
        space = wrapper.single_observation_space
        return kind(vector, wrapper.func, single_observation_space=space)
    if kind is vector_wrappers.TransformAction:
        return kind(vector, wrapper.func, single_action_space=wrapper.single_action_space)
    raise _unknown(wrapper)


def _unknown(wrapper: Any) -> TiplError:
    return TiplError(
        f"the wrapper {type(wrapper).__name__} around the run's vector of environments is not "
        f"known, so that no other one can be made; {LIKE_IT}"
    )


# --- somebody's own --------------------------------------------------------------------------


def given_environment(
    eval_env: Any, run_env: Any, around: Sequence[Any], normaliser: RunNormaliser, sb3: bool
) -> GateEnvironment:
    """An environment for tests that somebody gave: an Env, a VectorEnv or a VecEnv.

    It may be as the run's environments are, without the wrappers `around` their vector; or as the
    run's vector is, with or without what normalises observations.

    Raises:
        TiplError: it is nothing of the kind, or its observations or actions are not the run's.
    """
    vector = as_vector(eval_env, sb3) if isinstance(eval_env, gym.Env) else eval_env
    if not isinstance(vector, (gym.vector.VectorEnv, *sb3_class("VecEnv"))):
        raise TiplError(
            f"an eval_env of type {type(eval_env).__name__} was given; expected a Gymnasium Env or "
            "VectorEnv, or a VecEnv of stable-baselines3"
        )
    if {*map(id, all_layers(vector))} & {*map(id, all_layers(run_env))}:
        raise TiplError(
            "the eval_env is the run's own environment, which tests would step in the middle of an "
            "episode; give another one like it"
        )
    normalises = bool(normalisers_in(vector))
    if normalises and normaliser.moments is None:
        raise TiplError(
            "the eval_env normalises observations and the run's environment does not; give one "
            "that does not either"
        )
    seen, acted = single_spaces(run_env)
    inner = [one for one in around if not isinstance(one, normaliser_classes())]
    if inner and not normalises and single_spaces(vector)[0].shape != seen.shape:
        for wrapper in around:
            vector = _wrapped_alike(vector, wrapper)
        normalises = True
    gate = GateEnvironment(vector, normaliser, normalises)
    _check_spaces(gate, seen, acted)
    return gate


def _check_spaces(gate: GateEnvironment, seen: Any, acted: Any) -> None:
    """Raises a TiplError unless an environment for tests shows and takes what the run's does."""
    given: Any = gate.observation_space
    if type(given) is not type(seen) or given.shape != seen.shape:
        raise TiplError(
            f"the policy sees {seen}, and the environment for tests gives {given}; give an "
            "eval_env whose observations are of the same shape"
        )
    given = gate.action_space
    alike = type(given) is type(acted) and given.shape == acted.shape
    if alike and isinstance(acted, gym.spaces.Box):
        # ClipAction lets a policy do anything
        bounds = ((acted.low, given.low), (acted.high, given.high))
        alike = all(
            np.allclose(own[np.isfinite(own)], its[np.isfinite(own)]) for own, its in bounds
        )
    elif alike:
        alike = bool(given == acted)
    if not alike:
        raise TiplError(
            f"the run's actions are {acted}, and those of the environment for tests {given}; give "
            "an eval_env with the same ones"
        )
