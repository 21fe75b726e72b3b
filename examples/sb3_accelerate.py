"""PPO of stable-baselines3, alone and with jumps to forecasts of its weights.

    python examples/sb3_accelerate.py --env-id HalfCheetah-v4 --total-timesteps 100000

One line makes the difference: `callback=ForecastCallback(...)`.
"""

from __future__ import annotations

import warnings

import gymnasium as gym
import torch
import tyro
from stable_baselines3 import PPO
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.vec_env import DummyVecEnv, VecNormalize

from tipl import Policy, evaluate
from tipl.integrations.sb3.callback import ForecastCallback


def train(
    env_id: str, total_timesteps: int, rollout: int, seed: int, normalise: bool, jump: bool
) -> PPO:
    """A trained model; with `normalise`, observations and rewards are, by `VecNormalize`."""
    envs = DummyVecEnv([lambda: Monitor(gym.make(env_id))])
    seen = VecNormalize(envs) if normalise else envs
    model = PPO("MlpPolicy", seen, n_steps=rollout, seed=seed, device="cpu")
    callback = ForecastCallback(verbose=1) if jump else None
    return model.learn(total_timesteps, callback=callback)


def main(
    env_id: str = "InvertedPendulum-v4",
    total_timesteps: int = 10_000,
    rollout: int = 2048,
    seed: int = 1,
    normalise: bool = True,
    episodes: int = 5,
) -> None:
    """Train twice from the same random network, and run both policies.

    Args:
        env_id: a Gymnasium id
        total_timesteps: environment steps of each run, tests of forecasts included
        rollout: environment steps between two updates
        seed: of the networks and environments
        normalise: observations and rewards, by VecNormalize
        episodes: that each policy is run for at the end
    """
    torch.set_num_threads(1)  # at this size more only wait for each other
    warnings.filterwarnings("ignore", ".*is out of date", DeprecationWarning)
    for jump in (False, True):
        model = train(env_id, total_timesteps, rollout, seed, normalise, jump)
        print("with jumps:" if jump else "PPO alone: ", evaluate(Policy.from_sb3(model), episodes))


if __name__ == "__main__":
    tyro.cli(main)
