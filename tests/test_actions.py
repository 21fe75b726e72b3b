"""Actions as environments take them, and how PPO draws them."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from probe_envs import Probe
from tipl.envs import make_task
from tipl.errors import TiplError
from tipl.policies.actions import best_actions, executable
from tipl.policies.policy import Policy
from tipl.policies.tasks import TaskSpec, get_task
from tipl.ppo.config import PPOConfig
from tipl.ppo.networks import CategoricalHead
from tipl.ppo.ppo import PPO


def three_actions(first_action: int = 5) -> TaskSpec:
    return dataclasses.replace(
        get_task("InvertedPendulum-v4"),
        action_size=3,
        action_low=(),
        action_high=(),
        first_action=first_action,
    )


def test_discrete_actions_count_from_the_first() -> None:
    outputs = np.array([[[0.1, 0.3, 0.2], [2.0, 0.0, 1.0]]], np.float32)
    actions = best_actions(three_actions(), outputs)
    assert actions.dtype == np.int64
    np.testing.assert_array_equal(actions, [[6, 5]])
    np.testing.assert_array_equal(executable(three_actions(-1), np.array([[2.0], [0.0]])), [1, -1])


def test_continuous_actions_stay_inside_their_bounds() -> None:
    task = get_task("InvertedPendulum-v4")
    actions = best_actions(task, np.array([[-7.0], [0.5], [7.0]], np.float32))
    assert actions.dtype == np.float32
    np.testing.assert_array_equal(actions, [[-3.0], [0.5], [3.0]])


def test_draws_follow_the_softmax() -> None:
    head = CategoricalHead(3, clip_coef=0.2, ent_coef=0.0)
    logits = np.log(np.array([0.2, 0.5, 0.3]))
    noise = head.noise(np.random.default_rng(0), 20_000)
    drawn = head.draw(np.broadcast_to(logits + 4, noise.shape)[:, None], noise[:, None])
    actions, log_probs = (array[:, 0] for array in drawn)  # of one environment
    shares = np.bincount(actions[:, 0].astype(int), minlength=3) / len(actions)
    np.testing.assert_allclose(shares, [0.2, 0.5, 0.3], atol=0.02)
    np.testing.assert_allclose(log_probs, logits[actions[:, 0].astype(int)], rtol=1e-12)


def test_a_discrete_policy_acts_and_is_saved(tmp_path: object) -> None:
    task = three_actions()
    policy = Policy.initial(task, seed=1)
    assert "log_std" not in policy.layout.names
    observations = np.random.default_rng(0).normal(size=(2, 7, 4))
    best = policy.act(observations)
    assert best.shape == (2, 7)
    drawn = [policy.act(observations[0, 0], np.random.default_rng(s)) for s in range(200)]
    assert set(map(int, drawn)) == {5, 6, 7}  # an untrained policy likes all alike
    policy.save(f"{tmp_path}/policy")
    loaded = Policy.load(f"{tmp_path}/policy")
    assert loaded.task == task
    np.testing.assert_array_equal(loaded.act(observations), best)


def test_a_task_with_discrete_actions_has_no_bounds() -> None:
    with pytest.raises(TiplError, match="2 values in 'action_low': expected 0"):
        dataclasses.replace(three_actions(), action_low=(0.0, 0.0))
    task = make_task("CartPole-v1")
    assert (task.first_action, task.action_size, task.action_low) == (0, 2, ())
    assert TaskSpec.from_json(task.to_json()) == task


class DiscreteProbe(Probe):
    """Shows 1 or -1 and pays 1 for the action 11 or 12 that goes with it, nothing for others."""

    def start(self, rng: np.random.Generator) -> np.ndarray:
        return rng.choice([-1.0, 1.0], 1)

    def step(self, actions: np.ndarray) -> tuple:
        assert actions.shape == (self.num_envs,)
        assert set(actions.tolist()) <= {10, 11, 12}
        return super().step(actions)

    def move(
        self, observation: np.ndarray, action: np.ndarray, rng: np.random.Generator
    ) -> tuple[np.ndarray, float, bool]:
        return observation, float(action == (12 if observation[0] > 0 else 11)), True

    @classmethod
    def task(cls) -> TaskSpec:
        return dataclasses.replace(
            super().task(), action_size=3, action_low=(), action_high=(), first_action=10
        )


def test_ppo_learns_discrete_actions() -> None:
    config = PPOConfig(num_steps=64, num_minibatches=2, update_epochs=4, learning_rate=1e-2)
    task = DiscreteProbe.task()
    ppo = PPO(DiscreteProbe(4), task, range(4), 40, config, (16,), dtype=np.float64)
    for _ in range(40):
        ppo.update(ppo.rollout())
    shown = np.array([[[-1.0], [1.0]]] * 4)
    actions = best_actions(task, ppo.actor.forward(shown))
    np.testing.assert_array_equal(actions, [[11, 12]] * 4)
    assert np.nanmean(ppo.rollout().episodic_return) > 0.95
