"""Jumps by a model of worlds: it looks first, and forecasts for the world that it sees."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium.wrappers import NormalizeObservation, RecordEpisodeStatistics
from stable_baselines3 import PPO
from stable_baselines3.common.logger import configure
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.vec_env import DummyVecEnv, VecNormalize
from torch import nn

from tiny_worlds import TASK, tiny_world_model
from tipl import PPOConfig, TiplError, collect
from tipl.evaluation.experience import WorldSteps
from tipl.evaluation.returns import episode_seed
from tipl.integrations.cleanrl import ForecastHook
from tipl.integrations.sb3.callback import ForecastCallback
from tipl.jumps.config import JumpConfig
from tipl.models.world.adapting import explored
from tipl.models.world.belief import Belief
from tipl.models.world.forecaster import WorldForecaster

pytestmark = [
    pytest.mark.usefixtures("one_thread"),
    pytest.mark.filterwarnings("ignore:.*is out of date:DeprecationWarning"),
]

STEPS = 32


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("worlds") / "model"
    tiny_world_model().save_pretrained(place)
    return place


def elsewhere(gravity: float = 1.5, gear: float = 0.6) -> gym.Env[Any, Any]:
    """A pendulum whose physics somebody changed after it was made."""
    env = gym.make(TASK)
    inner: Any = env.unwrapped
    inner.model.opt.gravity[:] *= gravity
    inner.model.actuator_gear[:] *= gear
    return env


class Counted:
    """An environment for tests that counts the steps of its simulation."""

    def __init__(self, failing: int | None = None) -> None:
        self.env, self.steps = elsewhere(), 0
        inner: Any = self.env.unwrapped
        step = inner.step

        def counted(action: Any) -> Any:
            self.steps += 1
            if self.steps == failing:
                raise ZeroDivisionError("mine")
            return step(action)

        inner.step = counted


def vector(normalise: bool = False) -> Any:
    envs = DummyVecEnv([lambda: Monitor(elsewhere())])
    return VecNormalize(envs) if normalise else envs


def learned(callback: ForecastCallback | None, normalise: bool = False, rollouts: int = 2) -> PPO:
    model = PPO(
        "MlpPolicy", vector(normalise), n_steps=STEPS, batch_size=STEPS, n_epochs=1, seed=3,
        device="cpu", policy_kwargs={"net_arch": [5, 4]},
    )  # fmt: skip
    callbacks = [] if callback is None else [callback]
    model.learn(10**9, callback=[*callbacks, _Stop(rollouts)])
    return model


class _Stop(ForecastCallback):
    """Ends a run after so many rollouts, whatever its tests took; never jumps."""

    def __init__(self, rollouts: int) -> None:
        super().__init__("relex")
        self.left = rollouts

    def _on_training_start(self) -> None:
        pass

    def _on_rollout_start(self) -> None:
        self.left -= 1

    def _on_step(self) -> bool:
        return self.left >= 0


def weights(model: PPO) -> Any:
    return torch.nn.utils.parameters_to_vector(model.policy.parameters()).detach().numpy()


def expected(seed: int = 0) -> Belief:
    """What there is to be seen."""
    model = tiny_world_model()
    world = WorldSteps(elsewhere(), model.task, episode_seed(seed, 0))
    return model.seen(explored(world, model.teacher_policy(), 250, seed))


@pytest.mark.parametrize("normalise", [False, True])
def test_a_run_is_seen_for_what_it_is_and_pays_for_it(
    model: Path, normalise: bool, caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    tests = Counted()
    callback = ForecastCallback(model, eval_env=tests.env, every=1, budget=9e9, margin=1e300)
    assert callback.world is None
    run = PPO(
        "MlpPolicy", vector(normalise), n_steps=STEPS, batch_size=STEPS, n_epochs=1, seed=3,
        device="cpu", policy_kwargs={"net_arch": [5, 4]},
    )  # fmt: skip
    run.set_logger(configure(str(tmp_path), ["csv"]))
    run.learn(10**9, callback=[callback, _Stop(3)])
    run.logger.close()
    seen, world = expected(), callback.world
    assert world is not None
    assert np.allclose(world.mean, seen.mean, atol=1e-6)
    assert callback.jumps is not None
    assert callback.jumps.jumper.counters["jump_steps"][0] == tests.steps > 250
    assert run.num_timesteps == 3 * STEPS + tests.steps + 1
    told = [line for line in caplog.messages if "the run's world" in line]
    assert told == [f"the run's world, as seen in 250 steps: {world}"]
    with (tmp_path / "progress.csv").open() as file:
        rows = list(csv.DictReader(file))
    logged = [row["tipl/world/gravity"] for row in rows]
    assert float(logged[0]) == pytest.approx(world.factors["gravity"], rel=1e-3)
    assert not any(logged[1:])


def test_forecasts_are_networks_for_that_world(model: Path) -> None:
    callback = ForecastCallback(model, eval_env=elsewhere(), gate=False, max_jumps=9, every=1)
    run = learned(callback, rollouts=1)
    jumps = callback.jumps
    assert jumps is not None
    asked = jumps.jumper.of_world[0]
    assert isinstance(asked, WorldForecaster)
    assert asked.belief is callback.world
    assert jumps.jumper.counters["jumps"][0] == 1
    assert jumps.jumper.counters["jump_steps"][0] == 250
    assert run.num_timesteps == STEPS + 250 + 1


def test_looking_leaves_the_run_as_it_is(model: Path) -> None:
    def generators() -> list[Any]:
        return [np.random.rand(), float(torch.rand(()))]  # noqa: NPY002

    plain = learned(None)
    untouched = generators()
    callback = ForecastCallback(model, eval_env=elsewhere(), every=1, budget=9e9, margin=1e300)
    watched = learned(callback)
    assert generators() == untouched
    assert callback.world is not None
    np.testing.assert_array_equal(weights(watched), weights(plain))


def test_a_look_that_fails_costs_no_run(model: Path, caplog: pytest.LogCaptureFixture) -> None:
    callback = ForecastCallback(model, eval_env=Counted(failing=100).env)
    watched = learned(callback)
    np.testing.assert_array_equal(weights(watched), weights(learned(None)))
    assert callback.world is None
    (told,) = caplog.messages
    assert told.startswith("tipl stands aside: ZeroDivisionError: mine")
    with pytest.raises(ZeroDivisionError):
        learned(ForecastCallback(model, eval_env=Counted(failing=100).env, strict=True))


@pytest.mark.parametrize("given", [False, True])
def test_another_world_than_the_run_s_is_not_looked_at(
    model: Path, given: bool, caplog: pytest.LogCaptureFixture
) -> None:
    eval_env = elsewhere(gravity=1.1) if given else None
    watched = learned(ForecastCallback(model, eval_env=eval_env))
    np.testing.assert_array_equal(weights(watched), weights(learned(None)))
    (told,) = caplog.messages
    fields = "opt.gravity" if given else "opt.gravity, actuator_gear"
    assert f"differ in their physics: {fields}, so that" in told


# --- a script --------------------------------------------------------------------------------


class Agent(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.critic, self.actor_mean = (
            nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 4), nn.Tanh(), nn.Linear(4, 1))
            for _ in range(2)
        )
        self.actor_logstd = nn.Parameter(torch.zeros(1, 1))


def test_a_script_s_world_is_seen_beneath_its_normaliser(model: Path) -> None:
    def normalised() -> Any:
        return NormalizeObservation(RecordEpisodeStatistics(elsewhere()))

    envs, agent = gym.vector.SyncVectorEnv([normalised]), Agent()
    hook = ForecastHook(envs, model, eval_env=normalised(), gate=False, strict=True)
    step = hook.before_rollout(agent, torch.optim.Adam(agent.parameters()), 0)
    assert hook.world is not None
    assert np.allclose(hook.world.mean, expected().mean, atol=1e-6)
    assert step == 250


# --- own trials ------------------------------------------------------------------------------


def collected(out: Path, model: Path, **options: Any) -> Any:
    return collect(
        TASK, out=out, num_trials=2, total_steps=64, hidden_sizes=(5, 4), threads=1,
        ppo=PPOConfig(num_steps=32, num_minibatches=2, update_epochs=1), progress=False,
        jumps=JumpConfig(forecaster=str(model), gate=False, rollback=False), **options,
    )  # fmt: skip


def test_trials_know_their_worlds(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[dict[str, float]] = []
    original = WorldForecaster.in_world

    def in_world(self: WorldForecaster, physics: Any) -> WorldForecaster:
        asked.append(dict(physics))
        return original(self, physics)

    monkeypatch.setattr(WorldForecaster, "in_world", in_world)
    paths = collected(tmp_path / "varied", model, vary=("gravity=0.8..1.4",))
    assert asked == [{"gravity": factor} for factor in paths.physics()["gravity"]]
    assert (paths.jump_counts()["jumps"][:, -1] == 1).all()
    assert not paths.jump_counts()["jump_steps"].any()
    asked.clear()
    collected(tmp_path / "home", model)
    assert asked == [{}, {}]


@pytest.mark.parametrize("vary", ["actuator_gear=0.8..1.4", "actuator_gear=-1.4..-0.8"])
def test_worlds_that_the_model_does_not_know_are_refused(
    model: Path, tmp_path: Path, vary: str
) -> None:
    with pytest.raises(TiplError, match="the physics 'actuator_gear' were given, but the model"):
        collected(tmp_path / "paths", model, vary=(vary,))
    assert not (tmp_path / "paths").exists()
