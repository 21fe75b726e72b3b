"""What worlds are in the simulator: read back from environments that have been stepped in them."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from typing import Any, NamedTuple

import numpy as np

from tipl.core.arrays import Array
from tipl.envs.batched_mujoco import BatchedMujocoEnv
from tipl.envs.factory import make_vec
from tipl.envs.physics import find_targets, model_fields, object_names
from tipl.envs.world_presets import HOME_FACTORS
from tipl.envs.worlds import World
from tipl.errors import TiplError, shown

NUM_STEPS = 10
"""Environment steps after which models are read."""

_TOTAL = "body_subtreemass"
"""What MuJoCo derives from the masses of bodies: the first is the mass of all of them."""

_TOLERANCE = 1e-9  # relative, of sums; products of floats are equal


class Reading(NamedTuple):
    """One row of a field of the model, as an environment has it in a world."""

    world: str
    """name of the world"""
    field: str
    """of `mujoco.MjModel`"""
    owner: str
    """the body, joint, geom or actuator that the row belongs to; empty if that has no name"""
    home: tuple[float, ...]
    """at home, in an environment that was made without physics"""
    here: tuple[float, ...]
    """in the world"""
    expected: tuple[float, ...]
    """its factors times those at home"""

    @property
    def right(self) -> bool:
        """Whether the world is as expected."""
        return bool(np.allclose(self.here, self.expected, rtol=_TOLERANCE, atol=0))


def read_back(env_id: str, worlds: Sequence[World]) -> list[Reading]:
    """Steps an environment in each world, and one at home, and reads what their models are.

    Args:
        env_id: Gymnasium id of the task.
        worlds: of one file, which have the same names; or one without any, home.

    Returns:
        Rows of fields that a world names, in its order, and of any that are not as at home.

    Raises:
        TiplError: the task has no such physics.
    """
    physics = {name: np.array([one.factors[name] for one in worlds]) for name in worlds[0].factors}
    with (
        closing(_stepped(env_id, 1, {})) as at_home,
        closing(_stepped(env_id, len(worlds), physics)) as stepped,
    ):
        home = at_home.model(0)
        return [
            reading
            for i, world in enumerate(worlds)
            for reading in _readings(world, home, stepped.model(i))
        ]


def home_world(env_id: str) -> World:
    """Home, with those of the usual factors that a task has.

    Raises:
        TiplError: the task has none of them.
    """
    with closing(_batched(env_id, 1, {})) as envs:
        model = envs.model(0)
    factors = {}
    for name in HOME_FACTORS:
        with contextlib.suppress(TiplError):  # all 0 in this model
            find_targets(model, name)
            factors[name] = 1.0
    return World("home", factors)


def _batched(env_id: str, num_envs: int, physics: Mapping[str, Array]) -> BatchedMujocoEnv:
    envs: Any = make_vec(env_id, num_envs, physics=physics)
    if not isinstance(envs, BatchedMujocoEnv):
        envs.close()
        raise TiplError(
            f"{shown(env_id)} does not run on mujoco.batch, so that it has no physics but its own; "
            "give a task that does"
        )
    return envs


def _stepped(env_id: str, num_envs: int, physics: Mapping[str, Array]) -> BatchedMujocoEnv:
    """Environments after some steps, of the same actions in all of them."""
    envs = _batched(env_id, num_envs, physics)
    envs.reset(seed=0)
    rng = np.random.default_rng(0)
    space: Any = envs.single_action_space
    for _ in range(NUM_STEPS):
        action = rng.uniform(space.low, space.high).astype(np.float32)
        envs.step(np.tile(action, (num_envs, 1)))  # [A] -> [E, A]
    return envs


def _readings(world: World, home: Any, here: Any) -> Iterator[Reading]:
    """What a world names, and what is not as at home."""
    before, after = model_fields(home), model_fields(here)
    expected = {field: values.copy() for field, values in before.items()}
    named = {field: np.zeros(values.shape, np.bool_) for field, values in before.items()}
    order: list[str] = []
    for name, factor in world.factors.items():
        for field, _, scaled in find_targets(home, name):
            expected[field] = expected[field] * np.where(scaled, factor, 1.0)
            named[field] |= scaled
            order.append(field)
    for field in dict.fromkeys([*order, *sorted(before)]):
        owners = _owners(home, field)
        rows = [array.reshape(len(owners), -1) for array in (before[field], after[field])]
        wanted = expected[field].reshape(len(owners), -1)
        chosen = named[field] & (before[field] != 0) | (after[field] != before[field])
        for i in np.flatnonzero(chosen.reshape(len(owners), -1).any(axis=1)):
            values = (tuple(array[i].tolist()) for array in (*rows, wanted))
            yield Reading(world.name, field, owners[i], *values)
        if field == "body_mass" and chosen.any():
            masses = (getattr(home, _TOTAL)[0], getattr(here, _TOTAL)[0], wanted.sum())
            yield Reading(world.name, _TOTAL, "all bodies", *((float(one),) for one in masses))


def _owners(model: Any, field: str) -> list[str]:
    """Whom the rows of a field belong to."""
    kind = field.partition("_")[0]
    if field.startswith("opt."):
        return [""]
    names = object_names(model, kind)
    return [names[i] for i in model.dof_jntid] if kind == "dof" else names
