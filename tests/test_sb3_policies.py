"""What keeps policies from travelling: another task, other actions, no environment."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from stable_baselines3 import PPO
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.vec_env import DummyVecEnv

from tipl import Policy, TiplError
from tipl.integrations.pytorch.agent import agent_of_sb3
from tipl.policies.tasks import get_task

pytestmark = pytest.mark.filterwarnings("ignore:.*is out of date:DeprecationWarning")

PENDULUM = "InvertedPendulum-v4"


def model(env_id: str = PENDULUM, rescale: bool = False) -> PPO:
    def make() -> gym.Env[Any, Any]:
        env = gym.make(env_id)
        if rescale:
            env = gym.wrappers.RescaleAction(env, np.float32(-1), np.float32(1))
        return Monitor(env)

    network = {"net_arch": [8, 6]}
    return PPO("MlpPolicy", DummyVecEnv([make]), n_steps=64, policy_kwargs=network, device="cpu")


def test_a_policy_of_another_task_of_the_same_sizes_is_refused() -> None:
    cheetah = model("HalfCheetah-v4")
    walker = Policy.initial(get_task("Walker2d-v4"), hidden=(8, 6))
    assert walker.layout == agent_of_sb3(cheetah).layout
    before = agent_of_sb3(cheetah).params()
    with pytest.raises(TiplError, match=r"for Walker2d-v4 was given .* HalfCheetah-v4"):
        walker.to_sb3(cheetah)
    np.testing.assert_array_equal(agent_of_sb3(cheetah).params(), before)


def test_actions_that_a_wrapper_changes_are_refused() -> None:
    rescaled = model(rescale=True)
    for travel in (
        lambda: Policy.from_sb3(rescaled),
        lambda: Policy.initial(PENDULUM, hidden=(8, 6)).to_sb3(rescaled),
    ):
        with pytest.raises(TiplError, match=r"model's actions are Box\(-1\.0, 1\.0.*\(-3\.0,\)"):
            travel()


def test_without_an_environment_a_policy_can_be_read_but_not_written() -> None:
    alone = model()
    expected = Policy.from_sb3(alone)
    alone.env = None
    read = Policy.from_sb3(alone, get_task(PENDULUM))
    np.testing.assert_array_equal(read.params, expected.params)
    before = [p.detach().clone() for p in alone.policy.parameters()]
    with pytest.raises(TiplError, match="no environment that would tell its task"):
        read.to_sb3(alone)
    assert all(map(torch.equal, before, alone.policy.parameters()))
