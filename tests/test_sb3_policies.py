"""Policies of stable-baselines3: read as they act or refused, written back, run by tipl."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from sb3_contrib import TQC, TRPO, MaskablePPO, RecurrentPPO
from stable_baselines3 import A2C, DDPG, DQN, PPO, SAC, TD3
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.policies import ActorCriticPolicy
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor
from stable_baselines3.common.vec_env import DummyVecEnv, VecNormalize
from torch import nn

from tipl import Forecaster, Policy, TiplError
from tipl.evaluation.returns import evaluate
from tipl.integrations.sb3.agent import actor_of_sb3, agent_of_sb3
from tipl.policies.layout import actor_layout, initial_params
from tipl.policies.tasks import TaskSpec, get_task

pytestmark = [
    pytest.mark.usefixtures("one_thread"),
    pytest.mark.filterwarnings("ignore:.*is out of date:DeprecationWarning"),
]

Array = np.ndarray[Any, np.dtype[Any]]

PENDULUM = "InvertedPendulum-v4"

MODULES: dict[str, Any] = {
    "tanh": nn.Tanh,
    "relu": nn.ReLU,
    "elu": nn.ELU,
    "silu": nn.SiLU,
    "leaky_relu": nn.LeakyReLU,
    "gelu": nn.GELU,
}
OFF_POLICY = {"SAC": SAC, "TD3": TD3, "DDPG": DDPG, "TQC": TQC}


def model(env_id: str = PENDULUM, rescale: bool = False) -> PPO:
    def make() -> gym.Env[Any, Any]:
        env = gym.make(env_id)
        if rescale:
            env = gym.wrappers.RescaleAction(env, np.float32(-1), np.float32(1))
        return Monitor(env)

    return ppo(DummyVecEnv([make]))


def ppo(env: Any, kind: Any = PPO, policy: Any = "MlpPolicy", **network: Any) -> Any:
    network = {"net_arch": [8, 6]} | network
    options = {} if kind is A2C else {"batch_size": 64}
    return kind(policy, env, n_steps=64, policy_kwargs=network, device="cpu", seed=0, **options)


def off_policy(kind: str, env: Any = "Pendulum-v1", activation: str = "relu") -> Any:
    network = {"net_arch": [8, 6], "activation_fn": MODULES[activation]}
    options = {"learning_starts": 5, "batch_size": 4, "buffer_size": 100}
    return OFF_POLICY[kind]("MlpPolicy", env, policy_kwargs=network, seed=0, **options)


def enlarge(policy: nn.Module, factor: float = 3.0) -> None:
    """Makes a fresh network one whose actions matter."""
    with torch.no_grad():
        for parameter in policy.parameters():
            if parameter.ndim == 2:
                parameter.mul_(factor)


def observations(space: gym.Space[Any], count: int = 64) -> Array:
    rng = np.random.default_rng(7)
    scales = np.geomspace(0.05, 3, count).reshape(-1, *[1] * len(space.shape or ()))
    drawn = scales * rng.standard_normal((count, *(space.shape or ())))
    return np.clip(drawn, space.low, space.high).astype(space.dtype)  # type: ignore[attr-defined]


def assert_acts_alike(policy: Policy, run: Any, raw: Array, tolerance: float = 1e-5) -> None:
    normaliser = run.get_vec_normalize_env()
    seen = raw if normaliser is None else normaliser.normalize_obs(raw)
    expected = run.predict(seen, deterministic=True)[0]
    acted = policy.act(raw.reshape(len(raw), -1))
    assert acted.shape == expected.shape
    np.testing.assert_allclose(acted, expected, atol=tolerance)


# --- what is read ----------------------------------------------------------------------------


@pytest.mark.parametrize("activation", MODULES)
@pytest.mark.parametrize(
    ("kind", "env_id"), [(PPO, PENDULUM), (A2C, "CartPole-v1"), (TRPO, "Pendulum-v1")]
)
def test_actor_critics_of_all_activations_are_read_and_written(
    kind: Any, env_id: str, activation: str
) -> None:
    run = ppo(env_id, kind, activation_fn=MODULES[activation])
    enlarge(run.policy)
    policy = Policy.from_sb3(run)
    assert policy.layout == actor_layout(policy.task, (8, 6), activation)
    assert_acts_alike(policy, run, observations(run.observation_space))
    other = policy.with_params(initial_params(policy.layout, 9) * 2)
    other.to_sb3(run)
    assert_acts_alike(other, run, observations(run.observation_space))
    np.testing.assert_array_equal(Policy.from_sb3(run).params, other.params)


@pytest.mark.parametrize(
    ("kind", "activation"),
    [
        ("SAC", "gelu"),
        ("SAC", "relu"),
        ("TD3", "tanh"),
        ("DDPG", "elu"),
        ("TQC", "silu"),
        ("TQC", "leaky_relu"),
    ],
)
def test_deterministic_actors_are_squashed_policies(
    kind: str, activation: str, tmp_path: Path
) -> None:
    run = off_policy(kind, activation=activation).learn(12)
    enlarge(run.policy)
    policy = Policy.from_sb3(run)
    assert policy.layout == actor_layout(policy.task, (8, 6), activation, squashed=True)
    assert_acts_alike(policy, run, observations(run.observation_space))
    policy.save(tmp_path / "policy")
    saved = Policy.load(tmp_path / "policy")
    assert_acts_alike(saved, run, observations(run.observation_space))
    assert np.isfinite(evaluate(saved, episodes=1, threads=1).episodic_return).all()
    other = policy.with_params(initial_params(policy.layout, 9))
    critic = [p.detach().clone() for p in run.critic.parameters()]
    other.to_sb3(run)
    assert_acts_alike(other, run, observations(run.observation_space))
    assert all(map(torch.equal, critic, run.critic.parameters()))
    if kind in ("TD3", "DDPG"):
        pairs = zip(run.actor.parameters(), run.actor_target.parameters(), strict=True)
        assert all(torch.equal(ours, target) for ours, target in pairs)


class Own(gym.Env[Any, Any]):
    """Observations of 5 rows, and one-step episodes."""

    observation_space = gym.spaces.Box(-np.inf, np.inf, (5, 4), np.float64)
    action_space: Any = gym.spaces.Box(-0.1, 0.3, (2,), np.float64)

    def reset(self, **_: Any) -> tuple[Array, dict[str, Any]]:
        return np.zeros((5, 4)), {}

    def step(self, action: Any) -> tuple[Array, float, bool, bool, dict[str, Any]]:
        return np.ones((5, 4)), 1.0, True, False, {}


def own_task(**changes: Any) -> TaskSpec:
    fields: dict[str, Any] = {
        "env_id": "Own-v0",
        "observation_size": 20,
        "action_size": 2,
        "action_low": (-0.1, -0.1),
        "action_high": (0.3, 0.3),
        "max_episode_steps": 1,
        "observation_mean": (0.0,) * 20,
        "observation_std": (1.0,) * 20,
        "gymnasium_spec": "{}",
        "action_dtype": "float64",
    }
    return TaskSpec(**(fields | changes))


@pytest.mark.parametrize("kind", ["PPO", "SAC"])
def test_observations_of_rows_are_flat_and_actions_of_their_own_dtype(kind: str) -> None:
    run = ppo(Own()) if kind == "PPO" else off_policy(kind, Own())
    enlarge(run.policy, 2.0)
    policy = Policy.from_sb3(run, own_task())
    raw = observations(run.observation_space)
    assert_acts_alike(policy, run, raw)
    acted = policy.act(raw.reshape(len(raw), -1))
    assert acted.dtype == np.float64
    assert all(map(run.action_space.contains, acted))


def test_a_policy_that_can_be_masked_is_read_as_it_acts_without_a_mask() -> None:
    run = MaskablePPO("MlpPolicy", "CartPole-v1", n_steps=64, seed=0)
    enlarge(run.policy)
    policy = Policy.from_sb3(run)
    assert_acts_alike(policy, run, observations(run.observation_space))


def test_a_task_may_be_named_and_rows_of_networks_are_counted() -> None:
    run = model()
    run.env = None
    policy = Policy.from_sb3(run, PENDULUM)
    assert policy.task == get_task(PENDULUM)
    with pytest.raises(TiplError, match="unknown environment id 'NoSuch-v4'"):
        Policy.from_sb3(run, "NoSuch-v4")
    sac = off_policy("SAC")
    with pytest.raises(TiplError, match=r"\(relu\) \(squashed\); make the model with .* activatio"):
        Policy.initial(get_task(PENDULUM), hidden=(8, 6)).to_sb3(sac)


# --- the run's own normaliser ----------------------------------------------------------------


def normalised(env_id: str = "Pendulum-v1", **options: Any) -> VecNormalize:
    env = VecNormalize(DummyVecEnv([lambda: Monitor(gym.make(env_id))]), **options)
    env.reset()
    for _ in range(40):
        env.step(np.array([env.action_space.sample()]))
    return env


@pytest.mark.parametrize("clip", [0.5, 10.0, np.inf])
def test_the_normaliser_is_the_run_s_own_with_its_clip(clip: float) -> None:
    env = normalised(clip_obs=clip)
    run = ppo(env)
    enlarge(run.policy)
    policy = Policy.from_sb3(run)
    assert policy.observation_clip == clip
    np.testing.assert_array_equal(policy.observation_mean, env.obs_rms.mean)
    np.testing.assert_array_equal(policy.observation_std, np.sqrt(env.obs_rms.var + env.epsilon))
    assert_acts_alike(policy, run, observations(env.observation_space))


@pytest.mark.parametrize("off", [False, True])
def test_without_a_normaliser_there_is_no_clip(off: bool) -> None:
    run = ppo(normalised(norm_obs=False) if off else DummyVecEnv([lambda: gym.make(PENDULUM)]))
    enlarge(run.policy)
    policy = Policy.from_sb3(run)
    assert policy.observation_clip == np.inf
    assert not policy.observation_mean.any()
    assert (policy.observation_std == 1).all()
    far = observations(run.observation_space) * (1 if off else 40)
    assert_acts_alike(policy, run, far, 1e-4)


@pytest.mark.parametrize("normalise", [False, True])
def test_a_policy_is_optimised_and_given_back_whatever_the_run_normalises_by(
    normalise: bool, caplog: pytest.LogCaptureFixture
) -> None:
    def make() -> gym.Env[Any, Any]:
        return Monitor(gym.make(PENDULUM))

    env: Any = DummyVecEnv([make])
    if normalise:
        env = VecNormalize(env)
    run = ppo(env, net_arch=[64, 64]).learn(128)
    policy = Policy.from_sb3(run)
    better = Forecaster.from_pretrained(PENDULUM).optimize(policy)
    with caplog.at_level(logging.WARNING, "tipl"):
        better.to_sb3(run)
    raw = 0.03 * observations(run.observation_space)
    assert_acts_alike(better, run, raw.astype(np.float64), 1e-4)
    assert not [record for record in caplog.records if record.name == "tipl"]
    assert evaluate(Policy.from_sb3(run), episodes=1, threads=1).episodic_return.min() > 900


def test_a_clip_that_bites_is_told_once(caplog: pytest.LogCaptureFixture) -> None:
    run = ppo(normalised(clip_obs=0.5))
    policy = Policy.initial(Policy.from_sb3(run).task, hidden=(8, 6))
    bold = policy.with_params(policy.params * 20)
    with caplog.at_level(logging.WARNING, "tipl"):
        bold.to_sb3(run)
    (record,) = caplog.records
    assert "acts otherwise than the policy" in record.message
    assert "clipped at 10 by the policy and at 0.5 by the model's environment" in record.message


# --- what is refused -------------------------------------------------------------------------


class Gain(nn.Module):
    """An extractor of one's own, with an input gain."""

    def __init__(self, size: int, gain: float | None) -> None:
        super().__init__()
        self.latent_dim_pi = self.latent_dim_vf = 6
        self.one = nn.Sequential(nn.Linear(size, 6), nn.Tanh())
        self.two = nn.Sequential(nn.Linear(size, 6), nn.Tanh())
        if gain is not None:
            self.gain = nn.Parameter(torch.full((size,), gain))

    def scaled(self, x: torch.Tensor) -> torch.Tensor:
        return x * self.gain if hasattr(self, "gain") else x

    def forward_actor(self, x: torch.Tensor) -> torch.Tensor:
        return self.one(self.scaled(x))

    def forward_critic(self, x: torch.Tensor) -> torch.Tensor:
        return self.two(self.scaled(x))

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return self.forward_actor(x), self.forward_critic(x)


def with_gain(gain: float | None) -> Any:
    class WithGain(ActorCriticPolicy):
        def _build_mlp_extractor(self) -> None:
            self.mlp_extractor = Gain(self.features_dim, gain)  # type: ignore[assignment]

    return ppo(PENDULUM, policy=WithGain)


class Scaling(BaseFeaturesExtractor):
    def __init__(self, observation_space: gym.spaces.Box) -> None:
        super().__init__(observation_space, int(np.prod(observation_space.shape)))

    def forward(self, observations: torch.Tensor) -> torch.Tensor:
        return observations.flatten(1) / 2


class Behind(nn.Linear):
    """An action net with something behind it."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return 2 * super().forward(x)


def with_something_behind() -> Any:
    run = ppo(PENDULUM)
    run.policy.action_net.__class__ = Behind
    return run


def with_bounded_means() -> Any:
    run = ppo(PENDULUM)
    net = run.policy.action_net
    run.policy.action_net = nn.Sequential(net, nn.Hardtanh(-0.1, 0.1))
    return run


OTHERWISE: dict[str, Callable[[], Any]] = {
    "input gain": lambda: with_gain(0.1),
    "input gain that has not learned yet": lambda: with_gain(1.0),
    "features that scale": lambda: ppo(PENDULUM, features_extractor_class=Scaling),
    "something behind": with_something_behind,
    "bounded means": with_bounded_means,
    "gSDE": lambda: PPO("MlpPolicy", "Pendulum-v1", n_steps=64, use_sde=True),
    "squashed gSDE": lambda: PPO(
        "MlpPolicy", "Pendulum-v1", n_steps=64, use_sde=True, policy_kwargs={"squash_output": True}
    ),
    "another ELU": lambda: ppo(PENDULUM, activation_fn=lambda: nn.ELU(0.5)),
    "another GELU": lambda: ppo(PENDULUM, activation_fn=lambda: nn.GELU("tanh")),
    "no hidden layers": lambda: ppo(PENDULUM, net_arch=[]),
}


@pytest.mark.parametrize("kind", OTHERWISE)
def test_networks_that_compute_anything_else_are_refused(kind: str) -> None:
    run = OTHERWISE[kind]()
    enlarge(run.policy)
    with pytest.raises(TiplError, match="is not a multi-layer perceptron of tanh, relu"):
        Policy.from_sb3(run)
    agent = agent_of_sb3(run)  # which can jump all the same, but not to a trained model's forecasts
    assert agent.layout is None
    assert agent.critic


def test_the_largest_difference_is_told() -> None:
    with pytest.raises(TiplError, match=r"otherwise than model\.predict, by up to \d"):
        actor_of_sb3(with_something_behind())


def test_an_extractor_of_one_s_own_is_read_if_it_computes_no_more() -> None:
    run = with_gain(None)
    enlarge(run.policy)
    policy = Policy.from_sb3(run)
    assert policy.layout == actor_layout(policy.task, (6,))
    assert_acts_alike(policy, run, observations(run.observation_space))


class Dictionaries(Own):
    observation_space: Any = gym.spaces.Dict({"a": gym.spaces.Box(-1, 1, (2,), np.float32)})


class Several(Own):
    action_space = gym.spaces.MultiDiscrete([2, 3])


class Later(Own):
    action_space = gym.spaces.Discrete(3, start=5)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: DQN("MlpPolicy", "CartPole-v1"), "DQN was given, whose networks say what actio"),
        (lambda: RecurrentPPO("MlpLstmPolicy", PENDULUM, n_steps=8), "without a memory, such as"),
        (lambda: PPO("MultiInputPolicy", Dictionaries()), r"sees Dict\(.*; expected observations"),
        (lambda: ppo(Several()), r"acts by MultiDiscrete\(.*; expected observations of a Box"),
        # whose actions stable-baselines3 counts from 0
        (lambda: ppo(Later()), r"by up to 5$"),
        (lambda: "agent.zip", "a str was given; expected a stable-baselines3 model"),
    ],
    ids=["DQN", "recurrent", "dict", "multi-discrete", "start", "no model"],
)
def test_models_of_other_kinds_are_refused_in_one_sentence(
    make: Callable[[], Any], message: str
) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        run = make()
    with pytest.raises(TiplError, match=message) as raised:
        Policy.from_sb3(run)
    assert "\n" not in str(raised.value)


def test_reading_leaves_no_trace_in_the_run() -> None:
    class Noisy(BaseFeaturesExtractor):
        def __init__(self, observation_space: gym.spaces.Box) -> None:
            super().__init__(observation_space, 4)
            self.dropout, self.norm = nn.Dropout(0.5), nn.BatchNorm1d(4)

        def forward(self, observations: torch.Tensor) -> torch.Tensor:
            np.random.rand()  # noqa: NPY002
            torch.rand(1)
            return self.norm(self.dropout(observations))

    run = ppo(PENDULUM, features_extractor_class=Noisy)
    run.policy.train()
    modes = [module.training for module in run.policy.modules()]
    state = {name: tensor.clone() for name, tensor in run.policy.state_dict().items()}
    torch.manual_seed(1)
    np.random.seed(1)  # noqa: NPY002
    expected = torch.rand(1), np.random.rand()  # noqa: NPY002
    torch.manual_seed(1)
    np.random.seed(1)  # noqa: NPY002
    agent_of_sb3(run)
    with pytest.raises(TiplError):
        Policy.from_sb3(run)
    assert (torch.rand(1), np.random.rand()) == expected  # noqa: NPY002
    assert [module.training for module in run.policy.modules()] == modes
    assert all(torch.equal(tensor, state[n]) for n, tensor in run.policy.state_dict().items())
    assert all(parameter.grad is None for parameter in run.policy.parameters())
    assert not any(module._forward_hooks for module in run.policy.modules())


# --- another task ----------------------------------------------------------------------------


def test_a_policy_of_another_task_of_the_same_sizes_is_refused() -> None:
    cheetah = model("HalfCheetah-v4")
    walker = Policy.initial(get_task("Walker2d-v4"), hidden=(8, 6))
    assert walker.layout == agent_of_sb3(cheetah).layout
    before = agent_of_sb3(cheetah).params()
    with pytest.raises(TiplError, match=r"for Walker2d-v4 was given .* HalfCheetah-v4"):
        walker.to_sb3(cheetah)
    np.testing.assert_array_equal(agent_of_sb3(cheetah).params(), before)


def test_a_wrapper_of_actions_is_part_of_the_task() -> None:
    rescaled = model(rescale=True)
    policy = Policy.from_sb3(rescaled)
    assert [wrapper["name"] for wrapper in policy.task.wrappers] == ["RescaleAction"]
    assert policy.task.action_high == (1.0,)
    assert_acts_alike(policy, rescaled, observations(rescaled.observation_space))
    for travel in (
        lambda: Policy.from_sb3(rescaled, PENDULUM),
        lambda: Policy.initial(PENDULUM, hidden=(8, 6)).to_sb3(rescaled),
    ):
        message = r"has the wrappers RescaleAction, and InvertedPendulum-v4 has \(none\); expected"
        with pytest.raises(TiplError, match=message):
            travel()


def test_without_an_environment_a_policy_can_be_read_but_not_written() -> None:
    alone = model()
    expected = Policy.from_sb3(alone)
    alone.env = None
    read = Policy.from_sb3(alone, get_task(PENDULUM))
    np.testing.assert_array_equal(read.params, expected.params)
    before = [p.detach().clone() for p in alone.policy.parameters()]
    with pytest.raises(TiplError, match="no environment to act in; set one by"):
        read.to_sb3(alone)
    assert all(map(torch.equal, before, alone.policy.parameters()))


@pytest.mark.parametrize("normalise", [False, True])
@pytest.mark.parametrize("env_id", ["Pendulum-v1", PENDULUM])  # float32 and float64 observations
def test_an_agent_that_was_trained_and_loaded_is_read_without_its_environment(
    env_id: str, normalise: bool, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    vector: Any = DummyVecEnv([lambda: Monitor(gym.make(env_id))])
    trained = off_policy("SAC", VecNormalize(vector) if normalise else vector)
    trained.learn(20)
    trained.save(tmp_path / "agent.zip")
    loaded = SAC.load(tmp_path / "agent.zip")
    with caplog.at_level(logging.WARNING, "tipl"):
        if normalise and env_id == PENDULUM:
            with pytest.raises(TiplError, match="trained under VecNormalize"):
                Policy.from_sb3(loaded, env_id)
            return
        policy = Policy.from_sb3(loaded, env_id)
    # observations of float32 do not tell whether they were normalised
    assert ("taken to have seen" in caplog.text) == (env_id != PENDULUM)
    seen = np.random.default_rng(1).normal(size=(8, policy.task.observation_size))
    expected = loaded.predict(seen.astype(np.float32), deterministic=True)[0]
    np.testing.assert_allclose(policy.act(seen.astype(np.float32)), expected, atol=1e-5)
