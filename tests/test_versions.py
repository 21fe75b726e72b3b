"""Versions of tasks: which show the same, and models that serve the others."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

import tipl
from tipl import Forecaster, Policy, TiplError
from tipl.cli import main
from tipl.core import storage
from tipl.envs.variants import make_one
from tipl.forecast.hub import SHIPPED, shipped_models
from tipl.forecast.trained import TrainedForecaster
from tipl.policies.tasks import get_task
from tipl.policies.versions import SAME_POLICIES, other_versions

PENDULUM, CHEETAH = "InvertedPendulum-v5", "HalfCheetah-v5"


@pytest.mark.parametrize("ids", SAME_POLICIES)
def test_the_same_policies_observe_and_do_the_same(ids: tuple[str, str]) -> None:
    """In states that are alike, which are drawn far from where episodes begin."""
    seen, rng = [], np.random.default_rng(0)
    places = rng.standard_normal((5, 100))
    for env_id in ids:
        with closing(make_one(env_id)) as env:
            env.reset(seed=3)
            plain = env.unwrapped
            sizes = plain.model.nq, plain.model.nv
            rows = []
            for one in places:
                plain.set_state(one[: sizes[0]], one[50 : 50 + sizes[1]])
                rows.append(plain._get_obs())
            low, high = env.action_space.low, env.action_space.high
            seen.append((np.array(rows), low, high, env.spec.max_episode_steps))
    for one, other in zip(*seen, strict=True):
        np.testing.assert_array_equal(one, other)


def test_the_others_observe_something_else() -> None:
    """Or the table has forgotten one."""
    same = {one for ids in SAME_POLICIES for one in ids}
    for name in ("Ant", "InvertedDoublePendulum", "Reacher"):
        sizes = {get_task(f"{name}-v{version}").observation_size for version in (4, 5)}
        assert len(sizes) == 2
        assert f"{name}-v4" not in same
    assert other_versions("Ant-v4") == ()
    assert other_versions(CHEETAH) == ("HalfCheetah-v4",)


def test_models_that_ship_say_which_versions_they_serve() -> None:
    for name in shipped_models():
        said = storage.read_json(SHIPPED / name / "config.json")
        env_id = said["task"]["env_id"]
        assert said["serves"] == list(other_versions(env_id))
        # of the others no version sees the same
        alone = env_id in ("CartPole-v1", "InvertedDoublePendulum-v4", "Reacher-v4")
        assert bool(said["serves"]) != alone


def test_a_model_serves_another_version_under_its_name() -> None:
    model, old = (
        TrainedForecaster.from_pretrained(name) for name in (PENDULUM, PENDULUM[:-1] + "4")
    )
    assert model.task.env_id == PENDULUM
    assert model.serves == ("InvertedPendulum-v4",)
    start = Policy.initial(PENDULUM, 3, (8,))
    made = model.optimize(start)
    assert made.task.env_id == PENDULUM
    assert np.array_equal(made.params, old.optimize(start).params)  # which reads them as well
    assert tipl.optimize(PENDULUM, hidden=(8,)).task == model.task
    assert tipl.evaluate(made, 2).mean.value > 900


def test_a_model_of_worlds_does_so_too() -> None:
    made = tipl.adapt(CHEETAH, physics={"actuator_gear": 1.5}, hidden=(32,) * 2)
    assert made.task.env_id == CHEETAH
    wanted = tipl.adapt("HalfCheetah-v4", physics={"actuator_gear": 1.5}, hidden=(32,) * 2)
    assert np.array_equal(made.params, wanted.params)
    assert tipl.evaluate(made, 1).mean.value > 3_000


def test_the_command_line_takes_the_other_version(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    main(["optimize", PENDULUM, "--hidden", "6", "--out", str(tmp_path / "made")])
    assert Policy.load(tmp_path / "made").task.env_id == PENDULUM
    assert f"a policy for {PENDULUM}" in capsys.readouterr().out


def test_a_saved_model_serves_what_it_did(tmp_path: Path) -> None:
    model = TrainedForecaster.from_pretrained(PENDULUM)
    model.save_pretrained(tmp_path / "model")
    again = TrainedForecaster.from_pretrained(tmp_path / "model")
    assert (again.task, again.serves) == (model.task, model.serves)
    config = storage.read_json(tmp_path / "model" / "config.json")
    storage.write_json(tmp_path / "model" / "config.json", config | {"serves": []})
    alone = TrainedForecaster.from_pretrained(tmp_path / "model")
    with pytest.raises(TiplError, match="a policy for InvertedPendulum-v4 was given"):
        alone.optimize(Policy.initial("InvertedPendulum-v4", 3, (8,)))


def test_other_versions_are_refused() -> None:
    model = TrainedForecaster.from_pretrained(PENDULUM)
    with pytest.raises(
        TiplError, match="'Hopper-v5' was asked for, but this model serves Inverted"
    ):
        model.in_version("Hopper-v5")
    with pytest.raises(TiplError, match="'Ant-v5' is not one of the models that ship"):
        Forecaster.from_pretrained("Ant-v5")
