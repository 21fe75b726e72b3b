"""Running statistics are Gymnasium's, for each trial on its own."""

from __future__ import annotations

import numpy as np
import pytest
from gymnasium.wrappers.utils import RunningMeanStd

from naive_ppo import scaled_rewards, scaled_together
from tipl.ppo.rollout import RewardScaler, RunningMoments

N, T, GAMMA = 3, 400, 0.9


@pytest.mark.parametrize("envs", [1, 3])
@pytest.mark.parametrize("shape", [(), (4,)])
def test_running_moments_are_gymnasiums(shape: tuple[int, ...], envs: int) -> None:
    rng = np.random.default_rng(0)
    offsets = np.array([0.0, 5.0, -1e3]).reshape(N, 1, *(1 for _ in shape))
    stream = offsets + rng.normal(size=(T, N, envs, *shape))
    moments = RunningMoments(N, shape)
    rivals = [RunningMeanStd(shape=shape) for _ in range(N)]
    for samples in stream:
        moments.update(samples)
        for rival, own in zip(rivals, samples, strict=True):
            rival.update(own)
        np.testing.assert_allclose(moments.mean, [r.mean for r in rivals], rtol=1e-12)
        np.testing.assert_allclose(moments.var, [r.var for r in rivals], rtol=1e-9)
    assert moments.count == pytest.approx(rivals[0].count)
    np.testing.assert_allclose(moments.std, np.sqrt(moments.var + 1e-8), rtol=1e-15)
    np.testing.assert_allclose(moments.std[0], stream[:, 0].std(axis=(0, 1)), rtol=1e-3)


def reward_stream() -> tuple[np.ndarray, np.ndarray]:
    """Rewards and terminations `[T, N]`; the trials differ in scale, sign and episode length."""
    rng = np.random.default_rng(1)
    rewards = rng.normal(size=(T, N)) * [1.0, 30.0, 0.01] + [1.0, 0.0, -0.02]
    return rewards, rng.random((T, N)) < [0.3, 0.02, 0.0]


def test_the_reward_scaler_is_gymnasiums_wrapper() -> None:
    rewards, terminations = reward_stream()
    scaler = RewardScaler(N, GAMMA, clip=1.2)
    scaled = np.stack([scaler(*step) for step in zip(rewards, terminations, strict=True)])
    for n in range(N):
        expected = scaled_rewards(rewards[:, n], terminations[:, n], GAMMA, 1.2)
        np.testing.assert_allclose(scaled[:, n], expected, rtol=1e-9)
    share_clipped = (np.abs(scaled) == 1.2).mean()
    assert 0.01 < share_clipped < 0.5


def test_the_environments_of_a_trial_share_the_statistics_of_its_rewards() -> None:
    rewards, terminations = reward_stream()  # of one trial, in three environments
    scaler = RewardScaler(1, GAMMA, clip=1.2, num_envs=3)
    scaled = np.stack([scaler(*step) for step in zip(rewards, terminations, strict=True)])
    expected = scaled_together(rewards, terminations, GAMMA, 1.2)
    np.testing.assert_allclose(scaled, expected, rtol=1e-9)


@pytest.mark.parametrize("envs", [1, 3])
def test_the_reward_scaler_continues_from_its_state(envs: int) -> None:
    rewards, terminations = reward_stream()
    scaler, continued = (RewardScaler(N // envs, GAMMA, 10.0, envs) for _ in range(2))
    for t in range(T // 2):
        scaler(rewards[t], terminations[t])
    continued.set_state({name: array.copy() for name, array in scaler.state().items()})
    for t in range(T // 2, T):
        expected = scaler(rewards[t], terminations[t])
        assert continued(rewards[t], terminations[t]).tobytes() == expected.tobytes()
