from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from typing import Any

import gymnasium
import mujoco
import numpy as np
import pytest
from gymnasium.vector import AutoresetMode, SyncVectorEnv

from tipl.envs import BatchedMujocoEnv, make_vec
from tipl.envs.physics import find_targets
from tipl.errors import TiplError

PENDULUM, CHEETAH = "InvertedPendulum-v4", "HalfCheetah-v4"

Change = Callable[[Any, float], None]  # of one model, by a factor


def scale_gravity(model: Any, factor: float) -> None:
    model.opt.gravity *= factor


def scale_density(model: Any, factor: float) -> None:
    model.opt.density *= factor


def scale(field: str, *rows: int) -> Change:
    """Scale these rows of a field, or all of it."""

    def change(model: Any, factor: float) -> None:
        getattr(model, field)[list(rows) or slice(None)] *= factor

    return change


def scale_mass(model: Any, factor: float) -> None:
    model.body_mass *= factor
    model.body_inertia *= factor


def scale_torso(model: Any, factor: float) -> None:
    model.body_mass[1] *= factor
    model.body_inertia[1] *= factor


@pytest.fixture(autouse=True)
def _in_an_empty_directory(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)  # Gymnasium's own HalfCheetah writes MUJOCO_LOG.TXT


def changed_gymnasium(
    env_id: str, changes: Mapping[str, Change], physics: Mapping[str, np.ndarray]
) -> SyncVectorEnv:
    """Gymnasium's environments, each with its model changed in place by its factors."""
    num_envs = len(next(iter(physics.values())))
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".*is out of date", DeprecationWarning)
        envs = SyncVectorEnv(
            [lambda: gymnasium.make(env_id)] * num_envs, autoreset_mode=AutoresetMode.SAME_STEP
        )
    for i, env in enumerate(envs.envs):
        inner: Any = env.unwrapped
        for name, factors in physics.items():
            changes[name](inner.model, factors[i])
        mujoco.mj_setConst(inner.model, inner.data)
    return envs


def run(env: Any, actions: np.ndarray) -> list[bytes]:
    """The bytes of all that the steps return."""
    result = []
    for action in actions:
        *arrays, info = env.step(action)
        arrays += [obs for obs in info.get("final_obs", ()) if obs is not None]
        result += [np.asarray(array).tobytes() for array in arrays]
    return result


def random_actions(env: Any, num_steps: int) -> np.ndarray:
    space = env.action_space
    rng = np.random.default_rng(0)
    return rng.uniform(space.low, space.high, (num_steps, *space.shape)).astype("f4")


# By hand from the models: the bodies, joints, geoms and actuators behind the names.
CHANGES: dict[str, dict[str, Change]] = {
    PENDULUM: {"gravity": scale_gravity, "body_mass:pole": scale("body_mass", 2)},
    CHEETAH: {
        "geom_friction": scale("geom_friction"),
        "body_mass:torso": scale("body_mass", 1),
        "actuator_gear:bshin": scale("actuator_gear", 1),
        "actuator_gear": scale("actuator_gear"),  # multiplies with the one before
    },
    "Walker2d-v4": {"mass": scale_mass, "mass:torso": scale_torso},
    "Hopper-v4": {
        "actuator_gear:leg_joint": scale("actuator_gear", 1),  # a motor without a name
        "dof_damping": scale("dof_damping"),
        "dof_damping:foot_joint": scale("dof_damping", 5),
    },
    "Swimmer-v5": {"density": scale_density},
    "Ant-v5": {
        "dof_armature:ankle_1": scale("dof_armature", 7),
        "geom_friction:floor": scale("geom_friction", 0),
    },
}


def some_physics(env_id: str, num_envs: int, seed: int = 0) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    physics = {name: rng.uniform(0.3, 3.0, num_envs) for name in CHANGES[env_id]}
    for name in {"actuator_gear", "actuator_gear:leg_joint"} & {*physics}:
        physics[name][1] *= -1  # reversed
    return physics


@pytest.mark.parametrize("env_id", CHANGES)
def test_bit_identical_to_gymnasium_with_a_changed_model(env_id: str) -> None:
    physics = some_physics(env_id, 3)
    ours = BatchedMujocoEnv(env_id, 3, physics=physics)
    theirs = changed_gymnasium(env_id, CHANGES[env_id], physics)
    unchanged = BatchedMujocoEnv(env_id, 3)
    for env in (ours, theirs, unchanged):
        env.reset(seed=1)
    # An episode of HalfCheetah has 1,000 steps; the others fall or matter less here.
    actions = random_actions(ours, 1_005 if env_id == CHEETAH else 150)
    got = run(ours, actions)
    assert got == run(theirs, actions)
    assert got != run(unchanged, actions)


@pytest.mark.parametrize("env_id", CHANGES)
def test_factors_of_one_change_no_byte(env_id: str) -> None:
    physics = dict.fromkeys(CHANGES[env_id], np.ones(2))
    one, plain = make_vec(env_id, 2, physics=physics), make_vec(env_id, 2)
    for env in (one, plain):
        env.reset(seed=1)
    actions = random_actions(one, 200)
    assert run(one, actions) == run(plain, actions)


def test_new_physics_are_of_the_given_environments_alone() -> None:
    old, new = some_physics(CHEETAH, 4), some_physics(CHEETAH, 2, seed=1)
    ids = np.array([3, 1])  # any order
    env = BatchedMujocoEnv(CHEETAH, 4, physics=old)
    undisturbed = BatchedMujocoEnv(CHEETAH, 4, physics=old)
    mixed = {name: factors.copy() for name, factors in old.items()}
    for name in mixed:
        mixed[name][ids] = new[name]
    wanted = BatchedMujocoEnv(CHEETAH, 4, physics=mixed)
    actions = random_actions(env, 60)
    for one in (env, undisturbed, wanted):
        one.reset(seed=2)
    before = run(env, actions[:30])
    assert before == run(undisturbed, actions[:30])

    env.set_physics(ids, new)
    mask = np.isin(np.arange(4), ids)
    env.reset(seed=[0, 1, 2, 3], options={"reset_mask": mask})
    wanted.reset(seed=[0, 1, 2, 3])
    for action in actions[30:]:
        (got, got_rewards, *_), (kept, kept_rewards, *_), (fresh, fresh_rewards, *_) = (
            one.step(action) for one in (env, undisturbed, wanted)
        )
        assert np.array_equal(got, np.where(mask[:, None], fresh, kept))
        assert np.array_equal(got_rewards, np.where(mask, fresh_rewards, kept_rewards))


def test_a_factor_replaces_the_one_before() -> None:
    env = BatchedMujocoEnv(PENDULUM, 2, physics={"gravity": np.array([2.0, 3.0])})
    env.set_physics(np.array([0, 1]), {"gravity": np.array([1, 1])})
    plain = BatchedMujocoEnv(PENDULUM, 2)
    for one in (env, plain):
        one.reset(seed=0)
    actions = random_actions(env, 50)
    assert run(env, actions) == run(plain, actions)


def test_a_name_finds_the_rows_of_its_object() -> None:
    model = BatchedMujocoEnv("Ant-v5", 1)._batch.model
    (free,) = find_targets(model, "dof_armature:hip_1")
    assert (free.field, np.flatnonzero(free.scaled).tolist()) == ("dof_armature", [6])
    (floor,) = find_targets(model, "geom_friction:floor")
    assert np.array_equal(floor.values, model.geom_friction)
    assert np.array_equal(np.argwhere(floor.scaled), [[0, 0], [0, 1], [0, 2]])
    (gravity,) = find_targets(model, "gravity")
    mass, inertia = find_targets(model, "mass:torso")
    assert (mass.field, np.flatnonzero(mass.scaled).tolist()) == ("body_mass", [1])
    assert inertia.field == "body_inertia"
    assert np.array_equal(np.argwhere(inertia.scaled), [[1, 0], [1, 1], [1, 2]])
    assert (gravity.field, gravity.scaled.tolist()) == ("opt.gravity", [True] * 3)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("gravty", "no physics 'gravty': expected .*did you mean gravity"),
        ("body_mas:pole", "no physics 'body_mas:pole'.*did you mean body_mass"),
        ("gravity:pole", "no physics 'gravity:pole'"),
        ("timestep", "no physics 'timestep'"),
        ("opt.gravity", "no physics 'opt.gravity'"),
        ("body_parentid", "no physics 'body_parentid'"),  # integers
        ("geom_rgba", "no physics 'geom_rgba'"),  # no physics
        ("dof_invweight0", "no physics 'dof_invweight0'"),  # derived from others
        ("body_mass:pol", "no object 'pol'.*expected one of world, cart, pole; did you mean pole"),
        ("dof_damping:pole", "no object 'pole'.*expected one of slider, hinge; check its spelling"),
        ("body_mass:", "no object ''"),
        ("mas", "no physics 'mas'.*did you mean mass"),
        ("mass:pol", "no object 'pol'.*did you mean pole"),
        ("mass:world", "'mass:world' are all 0 in this model"),
        ("wind", "'wind' are all 0 in this model"),
        ("body_mass:world", "'body_mass:world' are all 0 in this model"),
    ],
)
def test_a_name_that_scales_nothing_is_explained(name: str, message: str) -> None:
    with pytest.raises(TiplError, match=message):
        make_vec(PENDULUM, 2, physics={name: np.ones(2)})


@pytest.mark.parametrize(
    "factors",
    [[1.0], [[1.0, 1.0]], [1.0, 0.0], [1.0, -1.0], [1.0, np.nan], [1.0, np.inf], ["1", "1"]],
)
def test_factors_are_positive_finite_and_one_each(factors: list[Any]) -> None:
    with pytest.raises(TiplError, match=r"'gravity' have the factors .* expected 2 positive"):
        make_vec(PENDULUM, 2, physics={"gravity": np.array(factors)})


@pytest.mark.parametrize("name", ["actuator_gear", "actuator_gear:slide"])
@pytest.mark.parametrize("factor", [0.0, np.nan, -np.inf])
def test_a_gear_may_be_reversed_but_never_lost(name: str, factor: float) -> None:
    with pytest.raises(TiplError, match="expected 1 finite numbers other than 0"):
        make_vec(PENDULUM, 1, physics={name: np.array([factor])})


def test_a_reversed_motor_does_what_the_opposite_action_does() -> None:
    """Rewards of InvertedPendulum do not see actions, so that all is equal."""
    reversed_, plain = (
        make_vec(PENDULUM, 1, physics={"actuator_gear": np.array([sign])}) for sign in (-1.0, 1.0)
    )
    for env in (reversed_, plain):
        env.reset(seed=3)
    actions = random_actions(plain, 60)
    assert run(reversed_, -actions) == run(plain, actions)


def test_bad_calls_change_nothing() -> None:
    env = BatchedMujocoEnv(PENDULUM, 2, physics={"gravity": np.array([1.0, 2.0])})
    plain = BatchedMujocoEnv(PENDULUM, 2)
    two = {"gravity": np.array([3.0, 3.0])}
    bad_calls: list[tuple[str, Any, np.ndarray, dict[str, np.ndarray]]] = [
        ("names .'density'.: expected .'gravity'.", env, np.array([0]), {"density": np.ones(1)}),
        (r"names \[\]: expected .'gravity'.", env, np.array([0]), {}),
        (r"names .'gravity'.: expected \[\]", plain, np.array([0]), {"gravity": np.ones(1)}),
        (r"environments \[0, 0\]: expected different", env, np.array([0, 0]), two),
        (r"environments \[0, 2\]: expected .* 0 to 1", env, np.array([0, 2]), two),
        (r"environments \[-1, 0\]", env, np.array([-1, 0]), two),
        ("expected 1 positive finite", env, np.array([0]), two),
    ]
    for message, one, ids, physics in bad_calls:
        with pytest.raises(TiplError, match=message):
            one.set_physics(ids, physics)
    assert env._batch.expand("opt.gravity")[:, 2].tolist() == [-9.81, -2 * 9.81]


def test_only_batched_tasks_have_physics() -> None:
    with pytest.raises(TiplError, match=r"'Pendulum-v1', which does not run on mujoco\.batch"):
        make_vec("Pendulum-v1", 2, physics={"gravity": np.ones(2)})
    assert make_vec("Pendulum-v1", 2, physics={}).num_envs == 2
