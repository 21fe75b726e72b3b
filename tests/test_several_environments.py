"""Trials that learn from several environments each: what is stored, counted and refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import tipl
from test_cli import tipl as command
from test_collection import KilledError, content, interrupt
from tipl import PathDataset, TiplError
from tipl.collection import groups
from tipl.collection.config import CollectConfig
from tipl.envs import make_vec
from tipl.jumps.plug_in import refit_critics
from tipl.paths import verify
from tipl.policies.tasks import get_task
from tipl.ppo.config import PPOConfig
from tipl.ppo.ppo import PPO

PENDULUM = "InvertedPendulum-v4"
STEPS, ENVS = 16, 3
FAST = PPOConfig(num_steps=STEPS, num_envs=ENVS, num_minibatches=2, update_epochs=1)
OPTIONS: dict[str, Any] = {
    "num_trials": 3, "trials_per_group": 2, "total_steps": 4 * STEPS * ENVS, "hidden_sizes": (8, 6),
    "ppo": FAST, "seed": 3, "vary": ("gravity=0.5..2",),
}  # fmt: skip


def run(out: Path, **changes: Any) -> PathDataset:
    return tipl.collect(PENDULUM, out=out, threads=1, progress=False, **(OPTIONS | changes))


@pytest.fixture(scope="module")
def paths(tmp_path_factory: pytest.TempPathFactory) -> PathDataset:
    return run(tmp_path_factory.mktemp("several") / "paths")


def test_steps_of_all_environments_count(paths: PathDataset) -> None:
    assert paths.num_checkpoints == 5
    assert paths.env_steps()[0].tolist() == [k * STEPS * ENVS for k in range(5)]
    assert paths.metadata.steps_per_checkpoint == STEPS * ENVS
    assert paths.metadata.ppo["num_envs"] == ENVS
    assert verify(paths.directory) == []


def test_one_environment_is_not_mentioned(tmp_path: Path) -> None:
    plain = run(tmp_path / "plain", ppo=PPOConfig(num_steps=STEPS, num_minibatches=2))
    assert "num_envs" not in json.loads((plain.directory / "metadata.json").read_text())["ppo"]


def test_the_environments_of_a_trial_have_its_physics(
    paths: PathDataset, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    made: list[np.ndarray] = []

    def watched(task: Any, num_envs: int, physics: dict[str, np.ndarray], **rest: Any) -> Any:
        made.append(physics["gravity"])
        return make_vec(task, num_envs, physics=physics, **rest)

    monkeypatch.setattr(groups, "make_vec", watched)
    run(tmp_path / "again")
    np.testing.assert_array_equal(np.concatenate(made)[::ENVS], paths.physics()["gravity"])
    for factors in made:
        np.testing.assert_array_equal(factors, np.repeat(factors[::ENVS], ENVS))


def test_an_interrupted_collection_ends_in_the_same_bytes(
    paths: PathDataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        interrupt(patch, "update", 0, 2)
        with pytest.raises(KilledError):
            run(tmp_path / "paths")
    run(tmp_path / "paths")
    assert content(tmp_path / "paths") == content(paths.directory)


def test_critics_are_refitted_to_the_steps_of_all_environments() -> None:
    ppo = PPO(make_vec(PENDULUM, 3 * ENVS), get_task(PENDULUM), range(3), 4, FAST, (8,), seed=5)
    rollout, before = ppo.rollout(), ppo.params.copy()
    values = rollout.values.copy()
    size = ppo.actor_layout.size
    refit_critics(ppo, rollout, np.array([0, 2]), 40, seed=0)
    moved = (ppo.params != before).any(axis=1)
    assert moved.tolist() == [True, False, True]
    np.testing.assert_array_equal(ppo.params[:, :size], before[:, :size])
    told, told_next = ppo.values_of(rollout)
    np.testing.assert_array_equal(rollout.values, told)
    np.testing.assert_array_equal(rollout.next_values, told_next)
    _, returns = ppo.advantages_and_returns(rollout)
    errors = [np.square(v - returns).reshape(STEPS, 3, ENVS).mean(axis=0) for v in (values, told)]
    assert (errors[1][[0, 2]] < errors[0][[0, 2]]).all()  # in each of the environments


@pytest.mark.parametrize(
    ("ppo", "message"),
    [
        ({"num_envs": 0}, "num_envs is 0; expected at least 1"),
        ({"num_envs": 10**6}, "num_envs is 1000000; expected at most 65,536"),
        (
            {"num_envs": 2, "num_steps": 31},
            "num_steps is 31 in each of 2 environments with 32 mini",
        ),
        ({"num_envs": 100}, r"one checkpoint takes 204800 steps \(num_steps x num_envs x check"),
    ],
)
def test_what_is_impossible_is_explained(ppo: dict[str, int], message: str) -> None:
    with pytest.raises(TiplError, match=message):
        CollectConfig(ppo=PPOConfig(**ppo))


def test_minibatches_may_be_larger_than_the_steps_of_one_environment() -> None:
    assert CollectConfig(ppo=PPOConfig(num_envs=2, num_steps=32)).num_iterations == 960


def test_stable_baselines3_has_one_environment() -> None:
    done = command(f"collect {PENDULUM} --from-sb3 --ppo.num-envs 2")
    assert done.code == 2
    assert "ppo.num_envs was given together with stable-baselines3" in done.err
