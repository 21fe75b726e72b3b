"""From a Gymnasium id to vectorised environments, and to the spec of the task."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from contextlib import closing
from functools import partial
from typing import Any

import gymnasium
import numpy as np
from gymnasium.envs.registration import EnvSpec
from gymnasium.spaces import Box, Discrete
from gymnasium.vector import VectorEnv

from tipl.core.options import at_least
from tipl.core.trust import trust_own
from tipl.envs.batched_mujoco import BatchedMujocoEnv
from tipl.envs.gymnasium_vec import GymnasiumVec
from tipl.envs.mujoco_tasks import MUJOCO_TASKS, MujocoTask, find_mujoco_task
from tipl.envs.physics import Redraw
from tipl.envs.registry import registered_spec
from tipl.envs.variants import Variant, described, make_one, variant_of, written
from tipl.errors import TiplError, shown
from tipl.policies.tasks import TaskSpec, get_task, known_tasks

OBSERVATION_STD_FLOOR = 1e-3
"""A dimension that random actions hardly move is divided by this at least, so that it cannot
dwarf the others once a policy moves it."""
MEASURED_STEPS = 2_000
"""Steps of each copy by which a task is measured that ships with no statistics."""

_EXACT = 2.0**53  # integers below it are exact in the float64 of a TaskSpec

_SHIPPED = frozenset(MUJOCO_TASKS)
_NEW_TO_GYMNASIUM: set[str] = set()


def make_vec(
    env: str | TaskSpec,
    num_envs: int,
    *,
    num_threads: int = 1,
    physics: Mapping[str, np.ndarray] | None = None,
    redraw: Redraw | None = None,
) -> VectorEnv[np.ndarray, np.ndarray, np.ndarray]:
    """Makes copies of an environment that are stepped together and reset in the same step.

    The tasks of `tipl.envs.mujoco_tasks.MUJOCO_TASKS` run batched
    (`tipl.envs.BatchedMujocoEnv`, which explains `num_threads`, `physics` and `redraw`). Any other
    Gymnasium id with Box observations, and one-dimensional Box or Discrete actions, runs in
    Gymnasium's own vector environment, one copy after another
    (`tipl.envs.gymnasium_vec.GymnasiumVec`). Both have `state()` and `set_state()`, and
    `metadata["autoreset_mode"]` SAME_STEP.

    Args:
        env: a Gymnasium id, for the environment as it is registered; or a task, for the environment
            as it was made, which runs in Gymnasium's own vector environment if its arguments, its
            limit of steps or its wrappers are not as registered. The physics of a task are not
            applied: give them; what it observes of them is.
        num_envs: number of copies, E.
        num_threads: see `BatchedMujocoEnv`.
        physics: see `BatchedMujocoEnv`.
        redraw: see `BatchedMujocoEnv`.

    Raises:
        TiplError: the id is unknown, the environment cannot be made, has other spaces or is not the
            one that a task was made for, a number is below 1, or physics are not as expected or not
            for a batched task; or a task names what is not trusted (`tipl.trust`).
    """
    if isinstance(env, str):
        trust_own(env)
        return _make_vec(env, None, num_envs, num_threads, physics, redraw)
    envs = _make_vec(
        env.env_id, variant_of(env), num_envs, num_threads, physics, redraw, env.observed
    )
    try:
        _check_made_for(env, envs)
    except TiplError:
        envs.close()
        raise
    return envs


def _make_vec(
    env_id: str,
    variant: Variant | None,
    num_envs: int,
    num_threads: int = 1,
    physics: Mapping[str, np.ndarray] | None = None,
    redraw: Redraw | None = None,
    observed: Sequence[str] = (),
) -> VectorEnv[np.ndarray, np.ndarray, np.ndarray]:
    registered_spec(env_id)  # from here on the module of the id has been imported
    if variant is None and find_mujoco_task(env_id) is not None:
        return BatchedMujocoEnv(
            env_id, num_envs, num_threads=num_threads, physics=physics, redraw=redraw,
            observed=observed,
        )  # fmt: skip
    if physics or redraw is not None or observed:
        whose = env_id if variant is None else f"{env_id} ({variant.words})"
        raise TiplError(
            f"physics were given for {shown(whose)}, which does not run on mujoco.batch: expected "
            f"one of {', '.join(MUJOCO_TASKS)}, as registered; leave the physics out"
        )
    at_least(1, num_envs=num_envs)
    first = make_one(env_id, variant)
    _check_spaces(env_id, first)
    others = [partial(make_one, env_id, variant)] * (num_envs - 1)
    return GymnasiumVec([lambda: first, *others])


def check_physics(env: str | TaskSpec, names: Iterable[str]) -> None:
    """Raises a TiplError unless copies of an environment can have physics of these names."""
    if physics := {name: np.ones(1) for name in names}:
        make_vec(env, 1, physics=physics).close()


def register_task(env_id: str, task: MujocoTask) -> None:
    """Adds a task of your own: from now on every part of tipl runs it under its id.

    Gymnasium learns the id as well (`gymnasium.make_vec`), unless it knows it. Where no file of
    yours has been imported, as on the command line, its name goes in front of the id, as in
    Gymnasium: `python -m tipl collect my_tasks:MyHopper-v0`.

    What was registered under the id before is replaced.

    Raises:
        TiplError: the id is that of a task that ships with tipl, it has no version, or nobody says
            after how many steps an episode is truncated.
    """
    if env_id in _SHIPPED:
        raise TiplError(
            f"{shown(env_id)} ships with tipl; register your task under an id of its own"
        )
    if env_id in _NEW_TO_GYMNASIUM or env_id not in gymnasium.registry:
        if task.max_episode_steps is None or not env_id.rpartition("-v")[2].isdecimal():
            raise TiplError(
                f"{shown(env_id)}, which Gymnasium does not know, was given with max_episode_steps="
                f"{task.max_episode_steps}; expected an id with a version, such as 'MyHopper-v0', "
                "and the number of steps after which an episode is truncated"
            )
        gymnasium.registry.pop(env_id, None)
        gymnasium.register(
            env_id,
            vector_entry_point="tipl.envs.batched_mujoco:BatchedMujocoEnv",
            max_episode_steps=task.max_episode_steps,
            kwargs={"env_id": env_id},
        )
        _NEW_TO_GYMNASIUM.add(env_id)
    MUJOCO_TASKS[env_id] = task


def make_task(env: str | EnvSpec) -> TaskSpec:
    """Returns the spec of a task: the shipped one, or `measure_task`'s.

    Args:
        env: a Gymnasium id, for the environment as it is registered; or the Gymnasium spec of an
            environment as it was made (`env.spec`), whose arguments, limit of steps and wrappers
            of `gymnasium.wrappers` the task then has. `tipl.envs.make_vec` makes it again.

    Raises:
        TiplError: as `measure_task`.
    """
    if isinstance(env, EnvSpec) and described(env) is None:
        env = env.id
    if isinstance(env, str):
        if env in known_tasks():
            return get_task(env)
        trust_own(env)
    return measure_task(env, num_steps=MEASURED_STEPS)


def measure_task(
    env: str | EnvSpec, *, num_envs: int = 8, num_steps: int = MEASURED_STEPS, seed: int = 0
) -> TaskSpec:
    """Measures the observations under actions drawn uniformly.

    Mean and standard deviation are taken in float64 over all observations that a policy would
    act on (first observations of episodes included, last ones not), and the standard deviation
    is at least `OBSERVATION_STD_FLOOR`. The seed is that of the actions and of the copies, each of
    which makes `num_steps` steps. Of a shipped task with other arguments or another limit, but as
    many observed values, the statistics are the shipped ones, so that one normaliser does for all.

    Raises:
        TiplError: as `make_vec`; or an action is unbounded, an episode may last forever,
            an observation is not finite, or the environment cannot be written down as text.
    """
    if isinstance(env, str):
        trust_own(env)
    env_id, variant = (env, None) if isinstance(env, str) else (env.id, described(env))
    with closing(_make_vec(env_id, variant, num_envs)) as envs:
        limit = (variant or registered_spec(env_id)).max_episode_steps
        if limit is None:
            raise TiplError(
                f"{shown(env_id)} has no limit of episode steps: expected one; register the "
                "environment under an id of its own with max_episode_steps"
            )
        actions: Any = envs.single_action_space
        _check_bounds(env_id, actions)
        mean, std = _shipped_statistics(env_id, variant, envs) or _measured_statistics(
            env_id, envs, num_steps, seed
        )
    discrete = isinstance(actions, Discrete)
    return TaskSpec(
        env_id=env_id,
        observation_size=mean.size,
        action_size=int(actions.n) if discrete else actions.shape[0],
        action_low=() if discrete else tuple(actions.low.astype(np.float64).tolist()),
        action_high=() if discrete else tuple(actions.high.astype(np.float64).tolist()),
        max_episode_steps=limit,
        observation_mean=tuple(mean.tolist()),
        observation_std=tuple(std.tolist()),
        gymnasium_spec=written(env_id, variant),
        first_action=int(actions.start) if discrete else None,
        action_dtype="float32" if discrete else str(actions.dtype),
        variant="" if variant is None else variant.words,
    )


def _shipped_statistics(
    env_id: str, variant: Variant | None, envs: VectorEnv[Any, Any, Any]
) -> tuple[np.ndarray, np.ndarray] | None:
    """Those of a shipped task that is made with other arguments or another limit alone."""
    if variant is None or variant.wrappers or env_id not in known_tasks():
        return None
    mean, std = get_task(env_id).observation_statistics
    return (mean, std) if mean.shape == envs.single_observation_space.shape else None


def _measured_statistics(
    env_id: str, envs: VectorEnv[Any, Any, Any], num_steps: int, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    observations = _observe_random_actions(env_id, envs, num_steps, seed)
    std = np.maximum(observations.std(axis=(0, 1)), OBSERVATION_STD_FLOOR)
    return observations.mean(axis=(0, 1)), std


def _observe_random_actions(
    env_id: str, envs: VectorEnv[np.ndarray, np.ndarray, np.ndarray], num_steps: int, seed: int
) -> np.ndarray:
    """Returns the observations that the random actions were taken on, [num_steps, E, O]."""
    space: Any = envs.single_action_space
    rng = np.random.default_rng((seed, 1))  # the first copy's own generator has the bare seed
    observation, _ = envs.reset(seed=seed)
    observations = np.empty((num_steps, *observation.shape), dtype=np.float64)
    for step in range(num_steps):
        observations[step] = observation
        observation, *_ = envs.step(_random_actions(space, envs.num_envs, rng))
    if not np.isfinite(observations).all():
        raise TiplError(
            f"{shown(env_id)} gave observations that are not finite under random actions: expected "
            "finite ones; mend the environment"
        )
    return observations


def _random_actions(space: Any, count: int, rng: np.random.Generator) -> np.ndarray:
    """Elements of an action space, drawn uniformly."""
    if isinstance(space, Discrete):
        return rng.integers(space.start, space.start + space.n, count).astype(space.dtype)
    shape = (count, *space.shape)
    if space.dtype.kind == "f":
        return rng.uniform(space.low, space.high, shape).astype(space.dtype)
    return rng.integers(space.low, space.high, shape, space.dtype, endpoint=True)


def _check_bounds(env_id: str, space: Any) -> None:
    """Raises a TiplError unless actions are Discrete or between bounds that tell them apart."""
    if isinstance(space, Discrete):
        return
    advice = (
        "give the environment a bounded action space, without what never changes, and register it "
        "under an id of its own"
    )
    low, high = space.low.astype(np.float64), space.high.astype(np.float64)
    with np.errstate(over="ignore", invalid="ignore"):
        finite = np.isfinite(high - low).all()  # False as well where a range has no number
    exact = space.dtype.kind == "f" or (np.maximum(abs(low), abs(high)) < _EXACT).all()
    if not (finite and exact):
        raise TiplError(
            f"{shown(env_id)} has the actions {space}: expected finite bounds; {advice}"
        )
    if not (low < high).all():
        fixed = np.flatnonzero(~(low < high)).tolist()
        raise TiplError(
            f"{shown(env_id)} has the actions {space}, of which the values {fixed} are fixed: "
            f"expected each lowest value below its highest; {advice}"
        )


def _check_made_for(task: TaskSpec, envs: VectorEnv[Any, Any, Any]) -> None:
    """Raises a TiplError unless environments have the sizes that a task, from a file, says."""
    observations = envs.single_observation_space
    actions: Any = envs.single_action_space
    discrete = isinstance(actions, Discrete)
    sizes = observations.shape, int(actions.n) if discrete else (actions.shape or (0,))[0]
    said = (task.observation_size,), task.action_size
    if sizes != said or discrete != task.discrete:
        raise TiplError(
            f"the task {shown(task.label)} has {said[0][0]} observed values and {said[1]} "
            f"{'discrete ' * task.discrete}actions, but the environment made for it has the "
            f"observations {observations} and the actions {actions}: expected as many; make the "
            "task again by tipl.envs.make_task"
        )


def _check_spaces(env_id: str, env: gymnasium.Env[Any, Any]) -> None:
    observations, actions = env.observation_space, env.action_space
    advice = "and register it under an id of its own, or choose another"
    if not isinstance(observations, Box):
        raise TiplError(
            f"{shown(env_id)} has the observations {observations}: expected a Box; wrap the "
            f"environment (gymnasium.wrappers.FlattenObservation) {advice}"
        )
    one_dimensional = isinstance(actions, Box) and len(actions.shape) == 1
    if not one_dimensional and not isinstance(actions, Discrete):
        raise TiplError(
            f"{shown(env_id)} has the actions {actions}: expected a one-dimensional Box or "
            f"Discrete actions; wrap the environment {advice}"
        )
