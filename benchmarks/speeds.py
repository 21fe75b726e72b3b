"""How many environment steps a second each way of collecting makes, in the process that calls.

Each function warms up first and is meant for a process of its own: imports, compilation and the
first iteration are in no time. All ways have the same hyperparameters, and what they count is the
same, too: whole PPO iterations, that is rollouts and the updates on them.
"""

from __future__ import annotations

import itertools
import resource
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

import tipl
from measuring import wait_for_the_others
from tipl.envs import BatchedMujocoEnv
from tipl.ppo.config import PPOConfig
from tipl.ppo.ppo import PPO
from tipl.ppo.rollout import Rollout

HIDDEN_SIZES = (64, 64)


def raw_steps_per_s(task: str, simulations: int, threads: int, steps: int = 1000) -> float:
    """Of `mujoco.batch` alone, with random controls and a reset every 100 steps."""
    env = BatchedMujocoEnv(task, simulations, num_threads=threads)
    env.reset(seed=0)
    batch, frame_skip = env._batch, env._task.frame_skip
    controls = batch.bind("ctrl")
    space: Any = env.single_action_space
    noise = np.random.default_rng(0).uniform(space.low, space.high, (100, *controls.shape))
    for step in range(-100, steps):
        if step == 0:  # all before was to warm up
            start = time.perf_counter()
        controls[:] = noise[step % 100]
        batch.step(nstep=frame_skip)
        if step % 100 == 99:
            batch.reset()
    return simulations * steps / (time.perf_counter() - start)


class CollectorSpeed(NamedTuple):
    """What a collection took."""

    steps_per_s: float
    peak_rss_mb: float
    """largest resident memory of the process, in 10^6 bytes"""


def collector_speed(task: str, trials: int, iterations: int, threads: int) -> CollectorSpeed:
    """Of `tipl.collect`, writing the dataset included."""
    num_steps = PPOConfig().num_steps
    last_rollouts = _record_last_rollouts()
    with tempfile.TemporaryDirectory() as folder:
        _collect(task, 2, 512, threads, Path(folder) / "warm-up", PPOConfig(512, 8))
        last_rollouts.clear()
        start = time.perf_counter()
        _collect(task, trials, num_steps * iterations, threads, Path(folder) / "paths", PPOConfig())
        seconds = time.perf_counter() - start
    return CollectorSpeed(
        trials * num_steps * iterations / iteration_seconds(seconds, last_rollouts, threads),
        _peak_rss_mb(),
    )


def _collect(
    task: str, trials: int, total_steps: int, threads: int, out: Path, ppo: PPOConfig
) -> None:
    tipl.collect(
        task,
        num_trials=trials,
        total_steps=total_steps,
        hidden_sizes=HIDDEN_SIZES,
        ppo=ppo,
        out=out,
        threads=threads,
        progress=False,
    )


def _record_last_rollouts() -> list[float]:
    """A list to which each group of trials adds the seconds of its last rollout from now on.

    No update follows that rollout: it only tells the return of the last weights. In a collection
    of a few iterations, as here, it weighs far more than in one of hundreds.
    """
    seconds: list[float] = []
    rollout = PPO.rollout

    def timed_rollout(self: PPO) -> Rollout:
        start = time.perf_counter()
        result = rollout(self)
        if self.iteration == self.num_iterations:
            seconds.append(time.perf_counter() - start)
        return result

    PPO.rollout = timed_rollout  # type: ignore[method-assign]
    return seconds


def iteration_seconds(seconds: float, last_rollouts: list[float], threads: int) -> float:
    """Seconds of a collection without the last rollouts of its groups of trials.

    Args:
        seconds: of the whole collection.
        last_rollouts: seconds of each group's last rollout.
        threads: of the collection; each runs one group at a time.
    """
    return seconds - sum(last_rollouts) / min(threads, len(last_rollouts))


def _peak_rss_mb() -> float:
    """Largest resident memory of this process so far, in 10^6 bytes."""
    status = Path("/proc/self/status")
    if status.exists():  # Linux's getrusage would start at the peak of the process that started us
        line = next(li for li in status.read_text().splitlines() if li.startswith("VmHWM:"))
        return int(line.split()[1]) * 1024 / 1e6
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak * (1 if sys.platform == "darwin" else 1024) / 1e6


def sb3_steps_per_s(task: str, rollouts: int) -> float:
    """Of stable-baselines3's PPO in one thread, with one environment, normalised as usual."""
    import gymnasium
    import torch
    from stable_baselines3 import PPO as SB3PPO
    from stable_baselines3.common.vec_env import DummyVecEnv, VecNormalize

    from single_trial_ppo import be_single_and_quiet

    be_single_and_quiet()
    config = PPOConfig()
    env = VecNormalize(DummyVecEnv([lambda: gymnasium.make(task)]), gamma=config.gamma)
    sizes = list(HIDDEN_SIZES)
    model = SB3PPO(
        "MlpPolicy",
        env,
        learning_rate=config.learning_rate,
        n_steps=config.num_steps,
        batch_size=config.num_steps // config.num_minibatches,
        n_epochs=config.update_epochs,
        gamma=config.gamma,
        gae_lambda=config.gae_lambda,
        clip_range=config.clip_coef,
        clip_range_vf=config.clip_coef,
        ent_coef=config.ent_coef,
        vf_coef=config.vf_coef,
        max_grad_norm=config.max_grad_norm,
        policy_kwargs={"net_arch": {"pi": sizes, "vf": sizes}, "activation_fn": torch.nn.Tanh},
        seed=0,
        device="cpu",
    )
    model.learn(config.num_steps)
    wait_for_the_others()
    start = time.perf_counter()
    model.learn(rollouts * config.num_steps, reset_num_timesteps=False)
    seconds = time.perf_counter() - start
    return (model.num_timesteps - config.num_steps) / seconds


def single_trial_steps_per_s(task: str, rollouts: int) -> float:
    """Of the single-trial loop beside this file, in one thread."""
    from single_trial_ppo import DEFAULTS, be_single_and_quiet, iterations

    be_single_and_quiet()
    trial = iterations(task, (1 + rollouts) * DEFAULTS.num_steps, seed=1)
    next(trial)
    wait_for_the_others()
    start = time.perf_counter()
    timed = sum(1 for _ in itertools.islice(trial, rollouts))
    return timed * DEFAULTS.num_steps / (time.perf_counter() - start)
