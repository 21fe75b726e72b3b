"""What a training run acts in, and another one for tests: what jumps ask for."""

from __future__ import annotations

from typing import Any, NamedTuple

import gymnasium as gym
import mujoco  # type: ignore[import-untyped]
import numpy as np

from tipl.envs.physics import model_fields
from tipl.errors import TiplError
from tipl.integrations.environment.description import describe, wrappers_around
from tipl.integrations.environment.gate_environment import (
    GateEnvironment,
    another_environment,
    given_environment,
    single_spaces,
)
from tipl.integrations.environment.members import first_member, sb3_class
from tipl.integrations.environment.normaliser import RunNormaliser
from tipl.integrations.environment.plain import plain_id


class RunEnvironment(NamedTuple):
    """What a run acts in."""

    normaliser: RunNormaliser
    env_id: str | None  # of the task, if its policies see and do what that says; else None
    test_env: GateEnvironment  # another one for tests
    differing: tuple[str, ...]  # fields of MuJoCo in which their physics differ, as far as is known


def run_environment(env: Any, eval_env: Any = None) -> RunEnvironment:
    """Describes the environment of a run, and makes another one like it, or takes the `eval_env`.

    Args:
        env: a vector of Gymnasium or of stable-baselines3, or one environment.
        eval_env: an Env, a VectorEnv or a VecEnv; see `given_environment`.

    Raises:
        TiplError: as `RunNormaliser`, `describe` and `another_environment`, or observations have
            several parts: one sentence, which asks for an eval_env where that helps.
    """
    seen = single_spaces(env)[0]
    if isinstance(seen, gym.spaces.Dict | gym.spaces.Tuple):
        raise TiplError(
            f"the run's observations have several parts: {seen}; expected an array: wrap the "
            "environment in gymnasium.wrappers.FlattenObservation"
        )
    normaliser = RunNormaliser(env, int(np.prod(seen.shape or ())))
    sb3 = isinstance(env, sb3_class("VecEnv"))
    around = wrappers_around(env)
    if eval_env is None:
        test_env = another_environment(describe(env), normaliser, sb3)
    else:
        test_env = given_environment(eval_env, env, around, normaliser, sb3)
    differing = _differing(first_member(env), test_env.first)
    return RunEnvironment(normaliser, plain_id(test_env, around), test_env, differing)


def _differing(*envs: gym.Env[Any, Any] | None) -> tuple[str, ...]:
    """Fields of MuJoCo's models that are not the same in two environments; none if unknown."""
    try:
        models = [getattr(getattr(env, "unwrapped", None), "model", None) for env in envs]
    except Exception:  # of somebody's property
        return ()
    if not all(isinstance(model, mujoco.MjModel) for model in models):
        return ()
    here, there = map(model_fields, models)
    return tuple(name for name in here if not np.array_equal(here[name], there[name]))
