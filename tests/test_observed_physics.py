"""Policies that observe the physics of their world: what they see, and where they take it along."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import tipl
from test_cli import tipl as command
from test_collection import KilledError, content, interrupt
from tipl import PathDataset, Policy, TiplError, Worlds
from tipl.collection.config import CollectConfig
from tipl.envs import make_vec
from tipl.envs.physics import Redraw
from tipl.paths import verify
from tipl.policies.tasks import TaskSpec, get_task
from tipl.ppo.config import PPOConfig

PENDULUM = "InvertedPendulum-v4"
TASK = get_task(PENDULUM)
OBSERVING = TASK.observing({"gravity": 0.5, "body_mass": 0.25})
FACTORS = {"body_mass": np.array([1.0, 2.0, 0.5]), "gravity": np.array([0.5, 1.0, 3.0])}
LOGS = np.log(np.stack([FACTORS["body_mass"], FACTORS["gravity"]], axis=1))


# --- the environments --------------------------------------------------------------------------


def test_the_task_says_what_is_observed() -> None:
    assert OBSERVING.observed == ("body_mass", "gravity")
    assert OBSERVING.observation_size == 6
    mean, std = OBSERVING.observation_statistics
    assert mean[-2:].tolist() == [0, 0]
    assert std[-2:].tolist() == [0.25, 0.5]
    assert not OBSERVING.same_environment(TASK)
    assert TaskSpec.from_json(OBSERVING.to_json()) == OBSERVING
    assert "observed" not in TASK.to_json()


def test_logarithms_follow_what_the_environment_shows() -> None:
    plain, seen = (make_vec(task, 3, physics=FACTORS) for task in (TASK, OBSERVING))
    assert seen.single_observation_space.shape == (6,)
    first = [envs.reset(seed=2)[0] for envs in (plain, seen)]
    np.testing.assert_array_equal(first[1], np.concatenate([first[0], LOGS], axis=1))
    actions = np.random.default_rng(0).uniform(-3, 3, (40, 3, 1)).astype("f4")
    for action in actions:
        one, other = plain.step(action), seen.step(action)
        np.testing.assert_array_equal(other[0], np.concatenate([one[0], LOGS], axis=1))
        for i, last in enumerate(one[4].get("final_obs", ())):
            if last is not None:
                np.testing.assert_array_equal(other[4]["final_obs"][i], [*last, *LOGS[i]])


def test_what_is_not_varied_is_as_at_home() -> None:
    gravity = make_vec(OBSERVING, 3, physics={"gravity": FACTORS["gravity"]})
    np.testing.assert_array_equal(gravity.reset(seed=0)[0][:, 4], np.zeros(3))
    np.testing.assert_array_equal(gravity.reset(seed=0)[0][:, 5], LOGS[:, 1])
    assert not make_vec(OBSERVING, 2).reset(seed=0)[0][:, 4:].any()


def test_a_redrawn_world_is_seen_from_its_first_observation_on() -> None:
    def redraw(envs: np.ndarray, episodes: np.ndarray) -> dict[str, np.ndarray]:
        return {"gravity": 1.0 + envs + 0.25 * episodes}

    told: Redraw = redraw
    envs: Any = make_vec(OBSERVING, 2, redraw=told)
    seen, _ = envs.reset(seed=0)
    np.testing.assert_array_equal(seen[:, 5], np.log([1.0, 2.0]))
    before = np.array([1.0, 2.0])
    for _ in range(60):
        seen, *_, info = envs.step(np.full((2, 1), 3.0, np.float32))
        now = 1.0 + np.arange(2) + 0.25 * (envs.state()["episodes"] - 1)
        np.testing.assert_array_equal(seen[:, 5], np.log(now))
        for i, last in enumerate(info.get("final_obs", ())):
            if last is not None:  # was seen in the world that has ended
                assert last[5] == np.log(before[i])
        before = now
    assert (before >= 2.0).all()
    again: Any = make_vec(OBSERVING, 2, redraw=told)
    again.set_state(envs.state())
    action = np.zeros((2, 1), np.float32)
    np.testing.assert_array_equal(again.step(action)[0], envs.step(action)[0])


def test_a_reversed_motor_is_told() -> None:
    task = TASK.observing({"actuator_gear": 1.0, "gravity": 1.0})
    physics = {"actuator_gear": np.array([-1.0, 1.0, 0.5]), "gravity": np.array([2.0, 1.0, 0.5])}
    seen = make_vec(task, 3, physics=physics).reset(seed=0)[0][:, 4:]
    np.testing.assert_array_equal(seen, [[-2, np.log(2)], [0, 0], [-0.5, np.log(0.5)]])
    told = task.observed_values({"actuator_gear": -1.0, "gravity": 2.0, "mass": 3.0})
    np.testing.assert_array_equal(told, seen[0])
    assert not task.observed_values({}).any()
    with pytest.raises(TiplError, match=r"have the factor 0.*; expected"):
        task.observed_values({"gravity": 0.0})


@pytest.mark.parametrize("observed", [("gravity", "gravity"), ("a", "b", "c", "d"), (3,)])
def test_what_cannot_be_observed_is_explained(observed: Any) -> None:
    said = TASK.to_json() | {"observed": list(observed)}
    with pytest.raises(TiplError, match="observed"):
        TaskSpec.from_json(said)


# --- the policies ------------------------------------------------------------------------------


def test_a_policy_is_evaluated_in_the_world_that_it_sees(tmp_path: Path) -> None:
    policy = Policy.initial(OBSERVING, seed=1, hidden=(8,))
    params = policy.params.copy()
    arrays = policy.layout.unflatten(params)
    arrays["actor.0.weight"][:] = 0
    arrays["actor.0.weight"][0, 5] = 1.0  # the logarithm of gravity in standard deviations
    arrays["actor.1.weight"][:] = 0
    arrays["actor.1.weight"][0, 0] = 1.0
    policy = policy.with_params(params)
    policy.save(tmp_path / "policy")
    read = Policy.load(tmp_path / "policy")
    assert read.task == OBSERVING
    observation = np.array([0, 0, 0, 0, 0, np.log(1.5)])
    np.testing.assert_allclose(read.act(observation), np.tanh(np.log(1.5) / 0.5), rtol=1e-6)
    world = {"gravity": 1.5}
    constant = float(read.act(observation)[0])
    blind = Policy.initial(TASK, hidden=(8,))
    flat = np.zeros_like(blind.params)
    blind.layout.unflatten(flat)["actor.1.bias"][:] = constant
    expected = tipl.evaluate(blind.with_params(flat), 3, physics=world, threads=1)
    found = tipl.evaluate(read, 3, physics=world, threads=1)
    np.testing.assert_array_equal(found.episodic_return, expected.episodic_return)
    with pytest.raises(TiplError, match=r"for InvertedPendulum-v4 \(observes body_mass, gravity\)"):
        tipl.evaluate([blind, read], 1)


# --- the collection ----------------------------------------------------------------------------

FAST = PPOConfig(num_steps=48, num_minibatches=2, update_epochs=1, learning_rate=3e-3)
OPTIONS: dict[str, Any] = {
    "num_trials": 3, "trials_per_group": 2, "total_steps": 3 * 48, "hidden_sizes": (8, 6),
    "ppo": FAST, "seed": 3, "observe": "physics", "vary": ("gravity=0.5..2", "body_mass=1..1"),
}  # fmt: skip


def run(out: Path, **changes: Any) -> PathDataset:
    return tipl.collect(PENDULUM, out=out, threads=1, progress=False, **(OPTIONS | changes))


@pytest.mark.parametrize("redraw", ["never", "episode"])
def test_trials_observe_their_world(
    redraw: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    paths = run(tmp_path / "paths", redraw=redraw)
    assert paths.task.observed == ("body_mass", "gravity")
    std = paths.task.observation_statistics[1][-2:]
    np.testing.assert_allclose(std, [1.0, np.log(4) / np.sqrt(12)])
    first = paths.params()[..., paths.layout.slices["actor.0.weight"]].reshape(3, -1, 8, 6)
    assert (first[:, -1, :, 5] != first[:, 0, :, 5]).any()  # learned from what it saw
    np.testing.assert_array_equal(first[:, -1, :, 4], first[:, 0, :, 4])  # always 0
    policy = paths.policy(1, -1)
    assert np.isfinite(tipl.evaluate(policy, 1, threads=1).episodic_return).all()
    assert verify(paths.directory) == []
    with monkeypatch.context() as patch:
        interrupt(patch, "update", 0, 1)
        with pytest.raises(KilledError):
            run(tmp_path / "again", redraw=redraw)
    run(tmp_path / "again", redraw=redraw)
    assert content(tmp_path / "again") == content(paths.directory)


def test_a_lineage_learns_to_observe_from_a_policy_that_does_not(tmp_path: Path) -> None:
    mean, std = np.array([0.1, -0.2, 0.3, 0.0]), np.array([0.5, 2.0, 1.0, 0.7])
    start = Policy(
        Policy.initial(TASK, 9, (8, 6)).params, Policy.initial(TASK, 9, (8, 6)).layout, TASK
    )
    other = Policy(start.params, start.layout, TASK, mean, std)
    seen = np.random.default_rng(0).normal(size=(20, 4)) * 0.1
    for name, policy in {"plain": start, "refolded": other}.items():
        paths = run(tmp_path / name, start=policy, hidden_sizes=None)
        acted = paths.policy(0, 0)
        in_world = np.concatenate([seen, np.full((20, 2), 0.4)], axis=1)
        np.testing.assert_allclose(acted.act(in_world), policy.act(seen), rtol=1e-4, atol=1e-6)
        assert paths.metadata.start == policy.digest
    # and goes on from one that does
    again = run(tmp_path / "again", start=paths.policy(0, -1), hidden_sizes=None)
    np.testing.assert_array_equal(again.params()[0, 0], paths.params()[0, -1])


def test_worlds_are_observed_by_their_spread(tmp_path: Path) -> None:
    gravities = (0.5, 1.0, 3.0)
    splits = {
        "training": [{"gravity": g} for g in gravities],
        "flip": [{"actuator_gear": gear, "gravity": 2.0} for gear in (-1.0, 1.0)],
    }
    worlds = Worlds.from_factors(PENDULUM, splits)
    paths = run(tmp_path / "paths", worlds=worlds, vary=())
    np.testing.assert_allclose(paths.task.observation_std[-1], np.log(gravities).std())
    reverse = run(tmp_path / "reversed", worlds=worlds, split="flip", num_trials=2, vary=())
    assert reverse.task.observation_std[-2:] == (1.0, 1.0)  # of the motor, and of what is the same


def test_nothing_to_observe_is_explained() -> None:
    with pytest.raises(TiplError, match="observe='physics' was given without physics that vary"):
        CollectConfig(observe="physics")
    done = command(f"collect {PENDULUM} --from-sb3 --vary gravity=1..2 --observe physics")
    assert "observe was given together with stable-baselines3" in done.err
