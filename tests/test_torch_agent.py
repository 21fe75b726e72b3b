"""Agents of PyTorch as tipl sees them: weights in its order, frames, normalisers, critics alone."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from stable_baselines3 import PPO
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor
from stable_baselines3.common.vec_env import DummyVecEnv, VecNormalize
from torch import nn

from tipl import ParamLayout, TiplError
from tipl.integrations.environment.normaliser import SETTLED, RunNormaliser
from tipl.integrations.pytorch.agent import TorchAgent, agent_of_cleanrl
from tipl.integrations.sb3.agent import agent_of_sb3
from tipl.policies.actions import refolded

pytestmark = pytest.mark.filterwarnings("ignore:.*is out of date:DeprecationWarning")

Array = np.ndarray[Any, np.dtype[Any]]

PENDULUM = "InvertedPendulum-v4"


class Script(nn.Module):
    def __init__(self, actor: nn.Module | None = None, discrete: bool = False) -> None:
        super().__init__()
        torch.manual_seed(0)
        actor = actor or nn.Sequential(nn.Linear(3, 5), nn.Tanh(), nn.Linear(5, 2))
        self.critic = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 1))
        if discrete:
            self.actor = actor
        else:
            self.actor_mean, self.actor_logstd = actor, nn.Parameter(torch.full((1, 2), -0.5))


def agent(script: nn.Module | None = None) -> TorchAgent:
    script = script or Script()
    return agent_of_cleanrl(script, torch.optim.Adam(script.parameters()))


def learn(one: TorchAgent) -> None:
    """One step of the optimiser on all parameters."""
    for parameter in [*one.actor, *one.critic]:
        parameter.grad = torch.ones_like(parameter)
    one.optimizer.step()


def test_weights_are_in_the_order_of_the_layout() -> None:
    script = Script()
    one = agent(script)
    assert one.layout == ParamLayout.actor(3, 2, (5,))
    arrays = one.layout.unflatten(one.params())
    first, last = script.actor_mean[0], script.actor_mean[2]
    np.testing.assert_array_equal(arrays["actor.0.weight"], first.weight.detach())
    np.testing.assert_array_equal(arrays["actor.1.bias"], last.bias.detach())
    assert arrays["log_std"].tolist() == [-0.5, -0.5]
    new = np.arange(one.size, dtype=np.float32)
    one.set_params(new)
    np.testing.assert_array_equal(one.params(), new)
    assert agent(Script(discrete=True)).layout == ParamLayout.mlp("actor", (3, 5, 2))


@pytest.mark.parametrize(
    "actor",
    [
        nn.Sequential(nn.Linear(3, 5), nn.Softplus(), nn.Linear(5, 2)),
        nn.Sequential(nn.Linear(3, 5), nn.ELU(0.5), nn.Linear(5, 2)),
        nn.Sequential(nn.Linear(3, 5), nn.ReLU(), nn.Linear(5, 5), nn.Tanh(), nn.Linear(5, 2)),
        nn.Sequential(nn.Linear(3, 5), nn.LayerNorm(5), nn.Tanh(), nn.Linear(5, 2)),
        nn.Sequential(nn.Linear(3, 2)),
        nn.Sequential(nn.Linear(3, 5, bias=False), nn.Tanh(), nn.Linear(5, 2)),
        nn.Sequential(nn.Linear(3, 5), nn.Tanh(), nn.Linear(5, 2), nn.Tanh()),
        nn.Linear(3, 2),
    ],
)
def test_other_networks_have_no_layout_but_weights(actor: nn.Module) -> None:
    one = agent(Script(actor))
    assert one.layout is None
    assert one.size == sum(p.numel() for p in actor.parameters()) + 2
    one.set_params(np.zeros(one.size))
    assert not any(p.any() for p in actor.parameters())


@pytest.mark.parametrize("params", [np.zeros(3), np.full(34, np.nan)])
def test_impossible_weights_change_nothing(params: Array) -> None:
    one = agent()
    before = one.params()
    with pytest.raises(TiplError, match=r"were given to an actor of 34.*expected"):
        one.set_params(params)
    np.testing.assert_array_equal(one.params(), before)


@pytest.mark.parametrize("learned", [False, True])
def test_a_snapshot_is_restored_to_the_bit(learned: bool) -> None:
    one = agent()
    if learned:
        learn(one)
    kept = one.snapshot()
    params = [p.detach().clone() for p in [*one.actor, *one.critic]]
    state = {p: {n: v.clone() for n, v in s.items()} for p, s in one.optimizer.state.items()}
    learn(one)
    learn(one)
    one.restore(kept)
    assert all(map(torch.equal, params, [*one.actor, *one.critic]))
    assert set(one.optimizer.state) == set(state)
    for parameter, values in state.items():
        for name, value in values.items():
            assert torch.equal(one.optimizer.state[parameter][name], value)
    learn(one)  # and a snapshot may be restored twice
    one.restore(kept)
    assert all(map(torch.equal, params, [*one.actor, *one.critic]))


@pytest.mark.parametrize("scale", [1.0, 500.0])
def test_the_critic_alone_is_fitted_whatever_the_scale(scale: float) -> None:
    one = agent()
    learn(one)
    observations = torch.randn(256, 3, generator=torch.Generator().manual_seed(1))
    targets = scale * (2 + observations[:, 0].sin())
    actor = one.params()
    moments = {p: s["exp_avg"].clone() for p, s in one.optimizer.state.items()}
    one.refit_critic(observations, targets, 20, 1e-3, seed=0)
    error = (one.value(observations) - targets).square().mean() / targets.var()
    assert error < 0.2
    np.testing.assert_array_equal(one.params(), actor)
    assert all(torch.equal(s["exp_avg"], moments[p]) for p, s in one.optimizer.state.items())


class Shared(nn.Module):
    """An actor and a critic with the same first layer."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        first = nn.Linear(3, 5)
        self.actor = nn.Sequential(first, nn.Tanh(), nn.Linear(5, 2))
        self.critic = nn.Sequential(first, nn.Tanh(), nn.Linear(5, 1))


def test_what_actor_and_critic_share_belongs_to_the_actor() -> None:
    one = agent(Shared())
    assert one.layout is None
    assert [p.numel() for p in one.actor] == [15, 5, 10, 2]
    assert [p.numel() for p in one.critic] == [5, 1]
    actor, observations = one.params(), torch.randn(64, 3)
    before = one.value(observations).detach()
    one.refit_critic(observations, before + 1.0, 1, 1e-3, seed=0)
    np.testing.assert_array_equal(one.params(), actor)
    assert not torch.equal(one.value(observations), before)


def test_scripts_whose_parts_are_unknown_are_refused() -> None:
    behind = Script(discrete=True)
    behind.network = nn.Linear(7, 3)
    with pytest.raises(TiplError, match=r"has network\.weight, network\.bias beside its actor"):
        agent(behind)
    without_noise = Script()
    del without_noise.actor_logstd
    for script in (without_noise, nn.Linear(3, 2)):
        with pytest.raises(TiplError, match="expected one with `critic`, and `actor_mean` with"):
            agent(script)


@pytest.mark.parametrize("shared", [True, False])
def test_the_critic_of_stable_baselines3_is_refitted_whatever_it_shares(shared: bool) -> None:
    network = {"net_arch": [5], "share_features_extractor": shared}
    model = PPO("MlpPolicy", DummyVecEnv([pendulum]), policy_kwargs=network, device="cpu")
    one = agent_of_sb3(model)
    assert one.layout == ParamLayout.actor(4, 1, (5,))
    observations = torch.randn(128, 4, generator=torch.Generator().manual_seed(0))
    targets = 100 + observations[:, 0]
    one.refit_critic(observations, targets, 1, 1e-3, seed=0)
    values = model.policy.predict_values(observations)[:, 0]
    assert (values - targets).square().mean() < 5


class Extractor(BaseFeaturesExtractor):
    def __init__(self, observation_space: gym.spaces.Box) -> None:
        super().__init__(observation_space, 3)
        self.linear = nn.Linear(4, 3)

    def forward(self, observations: torch.Tensor) -> torch.Tensor:
        return self.linear(observations)


@pytest.mark.parametrize("shared", [True, False])
def test_of_other_policies_the_actor_is_all_that_actions_depend_on(shared: bool) -> None:
    network = {"features_extractor_class": Extractor, "share_features_extractor": shared}
    model = PPO(
        "MlpPolicy",
        DummyVecEnv([pendulum]),
        policy_kwargs=network | {"net_arch": [5]},
        device="cpu",
    )
    one = agent_of_sb3(model)
    assert one.layout is None
    distribution = model.policy.get_distribution(torch.ones(1, 4))
    log_prob = distribution.log_prob(torch.ones(1, 1)).sum()
    parameters = list(model.policy.parameters())
    gradients = torch.autograd.grad(log_prob, parameters, allow_unused=True)
    acting = {id(p) for p, g in zip(parameters, gradients, strict=True) if g is not None}
    assert {id(p) for p in one.actor} == acting
    assert {id(p) for p in one.critic} == {id(p) for p in parameters} - acting


def test_steps_are_scaled_until_that_is_ended() -> None:
    one, std = agent(), np.array([0.1, 1.0, 10.0])
    one.scale_first_steps(std)
    before = one.actor[0].detach().clone()
    learn(one)
    moved = (before - one.actor[0].detach()).numpy()
    np.testing.assert_allclose(moved, np.tile(1e-3 / std, (5, 1)), rtol=1e-2)
    one.scale_first_steps(None)
    before = one.actor[0].detach().clone()
    learn(one)
    np.testing.assert_allclose((before - one.actor[0].detach()).numpy(), 1e-3, rtol=1e-2)


# --- frames ----------------------------------------------------------------------------------


def test_refolded_weights_compute_the_same() -> None:
    rng = np.random.default_rng(0)
    layout = ParamLayout.actor(3, 2, (5,))
    params = rng.standard_normal((4, layout.size), np.float32)
    old = rng.standard_normal(3), rng.uniform(0.5, 2, 3)
    new = rng.standard_normal(3), rng.uniform(0.5, 2, 3)
    folded = refolded(params, layout, old, new)
    observations = rng.standard_normal((9, 3))
    for before, after in zip(params, folded, strict=True):
        outputs = []
        for weights, (mean, std) in ((before, old), (after, new)):
            arrays = layout.unflatten(weights)
            inputs = (observations - mean) / std
            outputs.append(inputs @ arrays["actor.0.weight"].T + arrays["actor.0.bias"])
        np.testing.assert_allclose(*outputs, rtol=1e-4, atol=1e-5)
    rest = slice(layout.slices["actor.1.weight"].start, None)
    np.testing.assert_array_equal(folded[:, rest], params[:, rest])
    np.testing.assert_allclose(refolded(folded, layout, new, old), params, rtol=1e-4, atol=1e-5)


# --- normalisers -----------------------------------------------------------------------------


def pendulum() -> gym.Env[Any, Any]:
    return gym.make(PENDULUM)


def sync(*wrappers: Any) -> gym.vector.SyncVectorEnv:
    def make() -> gym.Env[Any, Any]:
        env = pendulum()
        for wrapper in wrappers:
            env = wrapper(env)
        return env

    return gym.vector.SyncVectorEnv([make])


NORMALISING = {
    "VecNormalize": lambda: VecNormalize(DummyVecEnv([pendulum])),
    "wrapper": lambda: gym.wrappers.NormalizeObservation(pendulum()),
    "wrapper inside": lambda: sync(
        gym.wrappers.NormalizeObservation, gym.wrappers.RecordEpisodeStatistics
    ),
    "vector wrapper": lambda: gym.wrappers.vector.NormalizeObservation(sync()),
}
PLAIN = {
    "nothing": pendulum,
    "vector": sync,
    "VecNormalize of rewards": lambda: VecNormalize(DummyVecEnv([pendulum]), norm_obs=False),
    "none at all": lambda: None,
}


@pytest.mark.parametrize("kind", NORMALISING)
def test_the_run_s_normaliser_is_found_set_and_restored(kind: str) -> None:
    env = NORMALISING[kind]()
    env.reset()
    normaliser = RunNormaliser(env, 4)
    assert normaliser.unsettled
    mean, std = np.arange(4.0), np.arange(1.0, 5.0)
    kept = normaliser.snapshot()
    before = [array.copy() for array in normaliser.statistics]
    normaliser.settle(mean, std)
    np.testing.assert_allclose(normaliser.statistics, [mean, std])
    np.testing.assert_allclose(normaliser.normalise(mean + std), np.ones(4), rtol=1e-6)
    assert normaliser.moments.count == SETTLED
    assert not normaliser.unsettled
    env.reset()  # it still works, and is moved little
    np.testing.assert_allclose(normaliser.statistics, [mean, std], atol=1e-4)
    normaliser.restore(kept)
    np.testing.assert_allclose(normaliser.statistics, before)
    assert normaliser.unsettled


def test_several_normalisers_are_refused() -> None:
    normalised = gym.wrappers.NormalizeObservation
    twice = VecNormalize(DummyVecEnv([lambda: normalised(pendulum())]))
    each = DummyVecEnv([lambda: normalised(pendulum())] * 2)
    for env in (twice, each):
        with pytest.raises(TiplError, match="2 wrappers were found that each normalise"):
            RunNormaliser(env, 4)
    assert RunNormaliser(DummyVecEnv([lambda: normalised(pendulum())]), 4).moments is not None


@pytest.mark.parametrize("kind", PLAIN)
def test_a_run_without_a_normaliser_is_left_alone(kind: str) -> None:
    normaliser = RunNormaliser(PLAIN[kind](), 4)
    normaliser.settle(np.ones(4), np.ones(4))
    normaliser.restore(normaliser.snapshot())
    np.testing.assert_array_equal(normaliser.statistics, [np.zeros(4), np.ones(4)])
    assert not normaliser.unsettled
