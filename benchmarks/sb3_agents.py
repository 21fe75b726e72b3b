"""Agents of stable-baselines3 that were trained, saved and read back: do both say the same of them?

    python benchmarks/sb3_agents.py --out docs/results/sb3-agents.json

Each agent is trained here, saved as stable-baselines3 saves it, loaded, and read by
`Policy.from_sb3`. `tipl.evaluate` and stable-baselines3's `evaluate_policy` then run it from the
same starts. An agent that is there already is not trained again.
"""

from __future__ import annotations

import dataclasses
import json
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import torch
import tyro
from stable_baselines3 import A2C, PPO, SAC, TD3
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.vec_env import DummyVecEnv, VecNormalize

from tipl import Policy, evaluate
from tipl.evaluation.returns import episode_seed
from tipl.evaluation.stats import mean_interval, paired_difference_interval

Array = np.ndarray[Any, np.dtype[Any]]


@dataclasses.dataclass(frozen=True)
class Agent:
    """What is trained, in what, and for how many environment steps."""

    name: str
    algorithm: Any
    env_id: str
    steps: int
    normalise: bool = False
    options: dict[str, Any] = dataclasses.field(default_factory=dict)


def network(activation: Callable[[], torch.nn.Module], *hidden: int) -> dict[str, Any]:
    """Options of a network of hidden units."""
    return {"policy_kwargs": {"activation_fn": activation, "net_arch": list(hidden)}}


AGENTS = [
    Agent("PPO, VecNormalize", PPO, "Hopper-v5", 100_000, normalise=True),
    Agent("PPO, VecNormalize, ELU", PPO, "HalfCheetah-v5", 60_000, True, network(torch.nn.ELU, 64)),
    Agent("PPO, discrete", PPO, "CartPole-v1", 30_000),
    Agent("A2C, ReLU", A2C, "Acrobot-v1", 40_000, options=network(torch.nn.ReLU, 64, 64)),
    Agent("SAC", SAC, "Pendulum-v1", 4_000, options=network(torch.nn.ReLU, 64, 64)),
    Agent("TD3", TD3, "InvertedPendulum-v5", 4_000, options=network(torch.nn.ReLU, 64, 64)),
]


def environment(agent: Agent) -> Any:
    """The vector that an agent is trained in, and evaluated by stable-baselines3."""
    vector = DummyVecEnv([lambda: Monitor(gym.make(agent.env_id))])
    return VecNormalize(vector) if agent.normalise else vector


def trained(agent: Agent, directory: Path) -> Any:
    """The agent, with its environment, as it is read from its files."""
    zip_file = directory / f"{agent.name.replace(', ', '-')}-{agent.env_id}.zip"
    statistics = zip_file.with_suffix(".vecnormalize")
    if not zip_file.exists():
        directory.mkdir(parents=True, exist_ok=True)
        env = environment(agent)
        model = agent.algorithm("MlpPolicy", env, seed=1, device="cpu", **agent.options)
        model.learn(agent.steps)
        if agent.normalise:
            env.save(str(statistics))
        model.save(zip_file)
    env = DummyVecEnv([lambda: Monitor(gym.make(agent.env_id))])
    if agent.normalise:
        env = VecNormalize.load(str(statistics), env)
        env.training = env.norm_reward = False
    return agent.algorithm.load(zip_file, env=env, device="cpu")


def compared(agent: Agent, directory: Path, episodes: int) -> dict[str, Any]:
    """Returns of both, from the same starts."""
    model = trained(agent, directory)
    policy, env = Policy.from_sb3(model), model.get_env()
    ours = evaluate(policy, episodes, seed=7).episodic_return
    theirs = np.empty(episodes)
    for episode in range(episodes):
        env.seed(episode_seed(7, episode))
        theirs[episode] = evaluate_policy(model, env, 1)[0]
    difference = np.abs(ours - theirs)
    return {
        "agent": agent.name,
        "env_id": agent.env_id,
        "steps": agent.steps,
        "tipl": mean_interval(ours),
        "stable-baselines3": mean_interval(theirs),
        "difference": paired_difference_interval(ours, theirs),
        "largest_difference": float(difference.max()),
        "equal_episodes": int((difference < 1e-6 * np.maximum(1, np.abs(theirs))).sum()),
        "episodes": episodes,
    }


def main(
    directory: Path = Path("runs/sb3-agents"), out: Path | None = None, episodes: int = 20
) -> None:
    """Trains the agents, and writes what both say of them.

    Args:
        directory: of the trained agents
        out: a JSON file
        episodes: of each agent
    """
    torch.set_num_threads(1)
    warnings.filterwarnings("ignore")
    rows = []
    for agent in AGENTS:
        start = time.perf_counter()
        row = compared(agent, directory, episodes)
        rows.append(row)
        print(
            f"{row['agent']:24} {row['env_id']:20} tipl {row['tipl'].value:10,.2f}  "
            f"stable-baselines3 {row['stable-baselines3'].value:10,.2f}  largest difference "
            f"{row['largest_difference']:.3g}, {row['equal_episodes']} of {episodes} equal  "
            f"({time.perf_counter() - start:.0f} s)",
            flush=True,
        )
    if out is not None:
        plain = [{k: v._asdict() if hasattr(v, "_asdict") else v for k, v in r.items()}
                 for r in rows]  # fmt: skip
        out.write_text(json.dumps(plain, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    tyro.cli(main)
