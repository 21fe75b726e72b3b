"""Jumps in stable-baselines3's PPO: what they cost, what they change, and how they are undone."""

from __future__ import annotations

import csv
import math
import re
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from stable_baselines3 import DQN, PPO
from stable_baselines3.common.logger import configure
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.vec_env import DummyVecEnv, VecFrameStack, VecNormalize

from tipl import Policy, TiplError
from tipl.evaluation.returns import evaluate
from tipl.integrations.environment.run_environment import run_environment
from tipl.integrations.pytorch.jumps import TorchJumps
from tipl.integrations.sb3.agent import agent_of_sb3
from tipl.integrations.sb3.callback import ForecastCallback
from tipl.jumps.config import JumpConfig
from tipl.policies.actions import refolded
from tipl.policies.layout import initial_params
from tipl.policies.tasks import get_task

Array = np.ndarray[Any, np.dtype[Any]]

pytestmark = [
    pytest.mark.usefixtures("one_thread"),
    pytest.mark.filterwarnings("ignore:.*is out of date:DeprecationWarning"),
]

PENDULUM = "InvertedPendulum-v4"
STEPS = 64


def pendulums(normalise: bool = False, env_id: str = PENDULUM) -> Any:
    envs = DummyVecEnv([lambda: Monitor(gym.make(env_id))])
    return VecNormalize(envs) if normalise else envs


def ppo(env: Any = None, hidden: tuple[int, int] = (64, 64), **options: Any) -> PPO:
    settings = {"n_steps": STEPS, "batch_size": 32, "n_epochs": 2, "seed": 3, "device": "cpu"}
    network = {"net_arch": list(hidden)} | options.pop("policy_kwargs", {})
    return PPO("MlpPolicy", env or pendulums(), policy_kwargs=network, **settings | options)


def falling_policy(directory: Path, hidden: tuple[int, int] = (64, 64)) -> Path:
    """A policy that pushes to one side, and falls at once."""
    policy = Policy.initial(PENDULUM, hidden=hidden)
    params = policy.params.copy()
    params[policy.layout.slices["actor.2.bias"]] = 30.0
    policy.with_params(params).save(directory)
    return directory


def weights(model: PPO) -> Array:
    return torch.cat([p.detach().ravel() for p in model.policy.parameters()]).numpy()


# --- a jump ----------------------------------------------------------------------------------


@pytest.mark.parametrize("normalise", [False, True])
def test_an_untrained_run_jumps_to_balance_and_pays_for_the_tests(normalise: bool) -> None:
    model = ppo(pendulums(normalise))
    spent: list[int] = []
    jumped: list[Policy] = []

    class Counting(ForecastCallback):
        def _on_rollout_end(self) -> None:
            assert self.jumps is not None
            spent.append(int(self.jumps.jumper.counters["jump_steps"][0]))
            jumped.append(Policy.from_sb3(self.model))

    model.learn(2300, callback=Counting(PENDULUM))
    assert 1900 < spent[0] < 2500  # two good episodes, and two of the untrained policy
    assert set(spent) == {spent[0]}  # it does not jump to the same behaviour again
    assert model.num_timesteps == spent[0] + STEPS * len(spent)  # tests are steps of the run
    assert model.num_timesteps - STEPS < 2300 <= model.num_timesteps
    assert evaluate(jumped[0], episodes=3).episodic_return.min() > 950


def test_the_run_s_logger_is_told(tmp_path: Path) -> None:
    model = ppo()
    model.set_logger(configure(str(tmp_path), ["csv"]))
    model.learn(2200, callback=ForecastCallback(PENDULUM))
    model.logger.close()
    with (tmp_path / "progress.csv").open() as file:
        first = next(csv.DictReader(file))
    assert (first["tipl/jump_horizon"], first["tipl/jump_accepted"]) == ("30", "1")
    assert float(first["tipl/return_after"]) == 1000
    assert float(first["tipl/return_before"]) < 100
    assert 1900 < int(first["tipl/steps_spent"]) < 2500
    assert first["tipl/jump_undone"] == "0"


def test_a_gate_that_lets_nothing_through_leaves_the_run_as_it_is(tmp_path: Path) -> None:
    copied = falling_policy(tmp_path / "policy", (8, 8))
    plain = ppo(hidden=(8, 8))
    plain.learn(4 * STEPS)
    callback = ForecastCallback(copied, every=1, budget=9.0)
    gated = ppo(hidden=(8, 8))
    gated.learn(10**9, callback=[callback, _StopAfter(4)])
    assert callback.jumps is not None
    assert callback.jumps.jumper.counters["jump_steps"][0] > 0
    np.testing.assert_array_equal(weights(gated), weights(plain))


class _StopAfter(ForecastCallback):
    """Ends a run before its rollout after so many updates; never jumps."""

    def __init__(self, rollouts: int) -> None:
        super().__init__("relex")
        self.left = rollouts

    def _on_training_start(self) -> None:
        pass

    def _on_rollout_start(self) -> None:
        self.left -= 1

    def _on_step(self) -> bool:
        return self.left >= 0


def test_the_learning_rate_s_schedule_goes_on() -> None:
    seen = []
    model = ppo(learning_rate=lambda left: seen.append(left) or 1e-4 * left)
    model.learn(2300, callback=ForecastCallback(PENDULUM))
    assert seen[-1] == pytest.approx(1 - model.num_timesteps / 2300)


# --- correct PPO after a jump ----------------------------------------------------------------


def jumping(
    model: PPO, directory: Path, hidden: tuple[int, int] = (8, 8), **options: Any
) -> TorchJumps:
    """Jumps of a model to a policy that falls."""
    config = JumpConfig(
        forecaster=str(falling_policy(directory / "policy", hidden)), **{"gate": False, **options}
    )
    environment = run_environment(model.get_env(), gym.make(PENDULUM))
    return TorchJumps(config, agent_of_sb3(model), environment, STEPS)


@pytest.mark.parametrize(("moments", "kept"), [("reset", False), ("keep", True)])
def test_moments_of_the_moved_weights_are_reset_or_kept(
    tmp_path: Path, moments: Any, kept: bool
) -> None:
    model = ppo(hidden=(8, 8))
    model.learn(STEPS)
    agent = agent_of_sb3(model)
    state = model.policy.optimizer.state
    assert all(p in state for p in [*agent.actor, *agent.critic])
    report = jumping(model, tmp_path, moments=moments).before_rollout(STEPS, math.nan)
    assert report.accepted
    assert all((p in state) == kept for p in agent.actor)
    assert all(p in state for p in agent.critic)


def test_a_rollout_is_known_by_the_episodes_that_ended_in_it() -> None:
    told: list[tuple[float, ...]] = []

    class Listening(ForecastCallback):
        def _on_training_start(self) -> None:
            super()._on_training_start()
            assert self.jumps is not None
            before_rollout = self.jumps.before_rollout

            def listen(*arguments: float) -> Any:
                told.append(arguments[1:])
                return before_rollout(*arguments)  # type: ignore[arg-type]

            self.jumps.before_rollout = listen  # type: ignore[method-assign, assignment]

    model = ppo(hidden=(8, 8))
    model.learn(2 * STEPS, callback=Listening("relex"))
    assert np.isnan(told[0]).all()
    episodes = [(episode["r"], episode["l"]) for episode in model.ep_info_buffer or []]
    first = [e for e, end in zip(episodes, np.cumsum(episodes, 0)[:, 1], strict=True) if end <= 64]
    assert len(first) > 1
    np.testing.assert_allclose(told[1], np.mean(first, axis=0))


def test_an_undone_jump_leaves_no_trace(tmp_path: Path) -> None:
    model = ppo(pendulums(normalise=True), hidden=(8, 8))
    model.learn(STEPS)
    normalise = model.get_vec_normalize_env()
    assert isinstance(normalise, VecNormalize)
    jumps = jumping(model, tmp_path)
    before, mean = weights(model), normalise.obs_rms.mean.copy()
    steps = {p: s["exp_avg"].clone() for p, s in model.policy.optimizer.state.items()}
    assert jumps.before_rollout(STEPS, 20.0).accepted
    assert (weights(model) != before).any()
    assert (normalise.obs_rms.mean != mean).all()
    model.policy.optimizer.zero_grad()
    sum(p.square().sum() for p in model.policy.parameters()).backward()
    model.policy.optimizer.step()  # what is learned after the jump goes, too
    assert jumps.before_rollout(2 * STEPS, 19.0).undone
    np.testing.assert_array_equal(weights(model), before)
    np.testing.assert_array_equal(normalise.obs_rms.mean, mean)
    for parameter, state in model.policy.optimizer.state.items():
        assert torch.equal(state["exp_avg"], steps[parameter])


def test_a_jump_that_does_better_stands(tmp_path: Path) -> None:
    model = ppo(hidden=(8, 8))
    jumps = jumping(model, tmp_path)
    assert jumps.before_rollout(STEPS, 20.0).accepted
    after = weights(model)
    assert not jumps.before_rollout(2 * STEPS, 21.0).undone
    np.testing.assert_array_equal(weights(model), after)


def test_the_normaliser_sees_what_the_forecaster_saw(tmp_path: Path) -> None:
    env = pendulums(normalise=True)
    model = ppo(env, hidden=(8, 8))
    jumps = jumping(model, tmp_path)
    jumps.before_rollout(0, math.nan)
    task = get_task(PENDULUM)
    np.testing.assert_allclose(env.obs_rms.mean, task.observation_mean)
    np.testing.assert_allclose(np.sqrt(env.obs_rms.var + env.epsilon), task.observation_std)
    policy, observations = (
        Policy.load(tmp_path / "policy"),
        np.random.default_rng(0).normal(size=(20, 4)),
    )
    np.testing.assert_allclose(
        model.predict(env.normalize_obs(observations), deterministic=True)[0],
        policy.act(observations),
        atol=1e-5,
    )
    env.reset()
    for _ in range(50):  # what the run sees then moves it little
        env.step(np.zeros((1, 1)))
    np.testing.assert_allclose(env.obs_rms.mean, task.observation_mean, atol=1e-4)


def test_a_run_without_a_normaliser_learns_as_with_the_forecaster_s(tmp_path: Path) -> None:
    model = ppo(hidden=(8, 8))
    agent = agent_of_sb3(model)
    jumping(model, tmp_path).before_rollout(0, math.nan)
    first, second = agent.actor[0], agent.actor[2]
    before = [weight.detach().clone() for weight in (first, second)]
    for parameter in model.policy.parameters():
        parameter.grad = torch.ones_like(parameter)
    model.policy.optimizer.step()
    rate = model.policy.optimizer.param_groups[0]["lr"]
    std = torch.tensor(get_task(PENDULUM).observation_std, dtype=torch.float32)
    moved = [(old - new.detach()) for old, new in zip(before, (first, second), strict=True)]
    torch.testing.assert_close(moved[0], (rate / std).expand(8, 4), rtol=1e-2, atol=1e-7)
    torch.testing.assert_close(moved[1], torch.full((8, 8), rate), rtol=1e-2, atol=1e-7)


def test_steps_are_scaled_once_however_often_the_run_jumps(tmp_path: Path) -> None:
    model = ppo(hidden=(8, 8))
    policy = falling_policy(tmp_path / "policy", (8, 8))
    callback = ForecastCallback(policy, gate=False, rollback=False)
    for _ in range(2):  # each time anew
        model.learn(STEPS, callback=callback)
        assert callback.jumps is not None
        assert callback.jumps.jumper.counters["jumps"].tolist() == [1]
    assert len(model.policy.optimizer._optimizer_step_post_hooks) == 1
    model.set_env(pendulums())
    model.learn(STEPS, callback=callback, reset_num_timesteps=False)  # elsewhere, with its jump
    assert len(model.policy.optimizer._optimizer_step_post_hooks) == 1


def test_the_critic_is_refitted_before_the_actor_moves() -> None:
    class Watching(ForecastCallback):
        errors: tuple[float, float] = (0.0, 0.0)

        def _on_rollout_end(self) -> None:
            buffer, agent = self.model.rollout_buffer, agent_of_sb3(self.model)
            actor, values = agent.params(), buffer.values.copy()
            super()._on_rollout_end()
            if self.errors == (0.0, 0.0):
                assert (buffer.values != values).any()
                np.testing.assert_array_equal(agent.params(), actor)
                said = agent.value(torch.as_tensor(buffer.observations.reshape(-1, 4))).detach()
                np.testing.assert_allclose(buffer.values.ravel(), said.numpy(), rtol=1e-5)
                advantages, buffer_returns = buffer.advantages.copy(), buffer.returns.copy()
                np.testing.assert_allclose(advantages + buffer.values, buffer_returns, rtol=1e-4)
                returns = buffer_returns
                self.errors = (
                    float(np.square(values - returns).mean()),
                    float(np.square(buffer.values - returns).mean()),
                )

    callback = Watching(PENDULUM)
    model = ppo(n_steps=512)
    model.learn(2300, callback=callback)
    before, after = callback.errors
    assert after < 0.2 * before


def test_a_critic_that_knows_the_run_is_left_alone() -> None:
    class Watching(ForecastCallback):
        changed: bool = False

        def _on_rollout_end(self) -> None:
            before = weights(self.model)
            super()._on_rollout_end()
            self.changed |= bool((weights(self.model) != before).any())

    callback = Watching("relex", every=99)
    ppo(hidden=(8, 8)).learn(3 * STEPS, callback=callback)
    assert not callback.changed


# --- going on --------------------------------------------------------------------------------


def test_a_run_that_goes_on_knows_what_was_tried(tmp_path: Path) -> None:
    model = ppo()
    model.learn(2200, callback=ForecastCallback(PENDULUM, state_file=tmp_path / "jumps"))
    model.save(tmp_path / "model")
    again = PPO.load(tmp_path / "model", pendulums(), device="cpu")
    callback = ForecastCallback(PENDULUM, state_file=tmp_path / "jumps")
    again.learn(5 * STEPS, callback=callback, reset_num_timesteps=False)
    assert callback.jumps is not None
    counts = callback.jumps.jumper.counters
    assert counts["jumps"].tolist() == [1]
    assert again.num_timesteps < model.num_timesteps + 7 * STEPS  # no test was paid for again
    new = ForecastCallback(PENDULUM, state_file=tmp_path / "jumps")  # a new run starts anew
    ppo().learn(10, callback=new)
    assert new.jumps is not None
    assert new.jumps.jumper.counters["jumps"].tolist() == [1]
    assert new.jumps.jumper.rollouts == 1


def test_a_callback_that_is_given_again_goes_on() -> None:
    model, callback = ppo(), ForecastCallback(PENDULUM)
    model.learn(2200, callback=callback)
    jumps, before = callback.jumps, model.num_timesteps
    assert jumps is not None
    model.learn(2 * STEPS, callback=callback, reset_num_timesteps=False)
    assert callback.jumps is jumps
    assert model.num_timesteps <= before + 3 * STEPS  # no test was paid for again
    other = ppo()
    other.learn(10, callback=callback)  # another run has jumps of its own
    assert callback.jumps is not jumps
    assert other.num_timesteps > 1900


# --- other runs ------------------------------------------------------------------------------


def test_another_forecaster_takes_the_place_of_a_model_that_does_not_fit(
    caplog: pytest.LogCaptureFixture,
) -> None:
    model = ppo(policy_kwargs={"net_arch": [8, 8], "activation_fn": torch.nn.Softplus})
    callback = ForecastCallback(PENDULUM, min_history=3, budget=9.0)
    model.learn(4 * STEPS, callback=callback)
    (told,) = caplog.messages
    assert re.search(r"multi-layer perceptrons.*: RELEX forecasts instead", told)
    assert callback.jumps is not None
    assert callback.jumps.jumper.counters["jump_steps"][0] > 0
    ppo(pendulums(env_id="Pendulum-v1"), hidden=(8, 8)).learn(STEPS, callback=ForecastCallback())
    assert caplog.messages[1:] == [
        "no model for Pendulum-v1 ships with tipl: RELEX forecasts instead"
    ]


class Nameless(gym.Env[Any, Any]):
    """An environment that Gymnasium does not know."""

    observation_space = gym.spaces.Box(-1, 1, (2,), np.float32)
    action_space = gym.spaces.Box(-1, 1, (1,), np.float32)

    def reset(self, **_: Any) -> tuple[Array, dict[str, Any]]:
        self.left = 5
        return np.zeros(2, np.float32), {}

    def step(self, action: Any) -> tuple[Array, float, bool, bool, dict[str, Any]]:
        self.left -= 1
        return np.zeros(2, np.float32), 1.0, self.left == 0, False, {}


def test_it_stands_aside_where_forecasts_cannot_be_tested(
    caplog: pytest.LogCaptureFixture,
) -> None:
    plain = ppo(DummyVecEnv([Nameless]), hidden=(8, 8))
    plain.learn(2 * STEPS)
    model = ppo(DummyVecEnv([Nameless]), hidden=(8, 8))
    model.learn(2 * STEPS, callback=ForecastCallback())
    (told,) = caplog.messages
    assert re.match(r"tipl stands aside: .* not made by gymnasium\.make", told)
    np.testing.assert_array_equal(weights(model), weights(plain))
    callback = ForecastCallback("relex", eval_env=Nameless(), min_history=5, budget=9.0)
    ppo(DummyVecEnv([Nameless]), hidden=(8, 8)).learn(5 * STEPS, callback=callback)
    assert callback.jumps is not None
    assert callback.jumps.jumper.counters["jump_steps"][0] == 4 * 5  # all return as much


def test_stacked_frames_stay_stacked_after_a_jump() -> None:
    env = VecFrameStack(pendulums(normalise=True), 3)
    options: Any = {"gate": False, "every": 1, "min_history": 2, "rollback": False, "budget": 9.0}
    callback = ForecastCallback("relex", **options, strict=True)
    ppo(env, hidden=(8, 8)).learn(5 * STEPS, callback=callback)
    assert callback.jumps is not None
    assert callback.jumps.jumper.counters["jumps"][0] > 0


def test_tests_see_what_the_environment_gives() -> None:
    def normalised() -> gym.Env[Any, Any]:
        env = gym.wrappers.NormalizeObservation(gym.make(PENDULUM))
        return gym.wrappers.NormalizeReward(env)

    callback = ForecastCallback(PENDULUM)
    ppo(DummyVecEnv([normalised])).learn(10, callback=callback)
    assert callback.jumps is not None
    assert callback.jumps.jumper.counters["jumps"].tolist() == [1]
    assert 1900 < callback.jumps.jumper.counters["jump_steps"][0] < 2500
    np.testing.assert_allclose(
        callback.jumps.normaliser.statistics[0], get_task(PENDULUM).observation_mean, atol=1e-3
    )


def test_wrong_uses_are_explained() -> None:
    with pytest.raises(TiplError, match="ForecastCallback has no option 'often'"):
        ForecastCallback(PENDULUM, often=3)
    with pytest.raises(TiplError, match="every of the jumps is 0"):
        ppo(hidden=(8, 8)).learn(10, callback=ForecastCallback("relex", every=0))
    with pytest.raises(TiplError, match="jumps take a model, the directory of a policy, or one of"):
        ppo(hidden=(8, 8)).learn(10, callback=ForecastCallback("no-such-model", strict=True))
    with pytest.raises(TiplError, match="given to DQN; expected an algorithm that learns from"):
        DQN("MlpPolicy", "CartPole-v1").learn(10, callback=ForecastCallback("relex", strict=True))


# --- policies --------------------------------------------------------------------------------


@pytest.mark.parametrize("env_id", [PENDULUM, "HalfCheetah-v4", "CartPole-v1"])
@pytest.mark.parametrize("normalise", [False, True])
def test_policies_travel_both_ways(env_id: str, normalise: bool) -> None:
    env = pendulums(normalise, env_id)
    model = ppo(env, hidden=(8, 6))
    model.learn(4 * STEPS)
    policy = Policy.from_sb3(model)
    raw = gym.make(env_id)
    raw.reset(seed=1)
    raw.action_space.seed(1)
    observations = np.stack([raw.step(raw.action_space.sample())[0] for _ in range(9)])
    seen = env.normalize_obs(observations) if normalise else observations
    expected = model.predict(seen, deterministic=True)[0]
    np.testing.assert_allclose(policy.act(observations), expected, atol=2e-5)
    other = Policy(initial_params(policy.layout, 9), policy.layout, policy.task)
    before = [p.detach().clone() for p in agent_of_sb3(model).critic]
    other.to_sb3(model)
    expected = model.predict(seen, deterministic=True)[0]
    np.testing.assert_allclose(other.act(observations), expected, atol=2e-5)
    again = Policy.from_sb3(model)
    np.testing.assert_allclose(again.act(observations), expected, atol=2e-5)
    own = again.observation_mean, again.observation_std
    frozen = refolded(again.params, again.layout, own, again.task.observation_statistics)
    np.testing.assert_allclose(frozen, other.params, atol=1e-5)
    assert all(map(torch.equal, before, agent_of_sb3(model).critic))


def test_policies_that_cannot_travel_are_refused() -> None:
    softplus = ppo(policy_kwargs={"net_arch": [8, 8], "activation_fn": torch.nn.Softplus})
    with pytest.raises(TiplError, match="not a multi-layer perceptron of tanh, relu, elu"):
        Policy.from_sb3(softplus)
    model = ppo(hidden=(8, 8))
    with pytest.raises(TiplError, match=r"'net_arch': \[64, 64\]"):
        Policy.initial(PENDULUM).to_sb3(model)
    with pytest.raises(TiplError, match="takes 4 observed values, and HalfCheetah-v4 has 17"):
        Policy.from_sb3(model, get_task("HalfCheetah-v4"))
    with pytest.raises(TiplError, match=r"DQN was given, .* worth .*; expected an actor-critic"):
        Policy.from_sb3(DQN("MlpPolicy", "CartPole-v1"))
    model.env = None
    with pytest.raises(TiplError, match="no environment that would tell its task"):
        Policy.from_sb3(model)
