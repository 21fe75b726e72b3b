"""stable-baselines3's PPO with and without jumps to forecasts: environment steps, and overhead.

    python benchmarks/sb3_jumps.py --env-id InvertedPendulum-v4 --seeds 16 --total-steps 49152

Each seed trains twice from the same random network, with `VecNormalize` unless `--no-normalise`.
After every rollout the policy acts by its mean, outside the run. The overhead is the processor time
of the callback without the episodes of its tests, as a share of the whole run's.
"""

from __future__ import annotations

import json
import multiprocessing
import time
import warnings
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import torch
import tyro
from stable_baselines3 import PPO
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.vec_env import DummyVecEnv, VecNormalize

from tipl import Policy, evaluate
from tipl.integrations.sb3 import ForecastCallback
from tipl.integrations.torch_jumps import TorchJumps
from tipl.stats import mean_interval, paired_difference_interval

Array = np.ndarray[Any, np.dtype[Any]]

FIRST_SEED = 800_000
"""No model was trained with trials of these seeds."""


class Timed(ForecastCallback):
    """Knows the processor time of its own work, without that of the tests' episodes."""

    seconds = 0.0

    def _on_training_start(self) -> None:
        super()._on_training_start()
        assert isinstance(self.jumps, TorchJumps)
        run = self.jumps._evaluate

        def run_outside(*arguments: Any) -> Any:
            start = time.process_time()
            try:
                return run(*arguments)
            finally:
                self.seconds -= time.process_time() - start

        self.jumps.jumper.evaluate = run_outside

    def _timed(self, work: Any) -> Any:
        start = time.process_time()
        try:
            return work()
        finally:
            self.seconds += time.process_time() - start

    def _on_rollout_start(self) -> None:
        self._timed(super()._on_rollout_start)

    def _on_step(self) -> bool:
        return bool(self._timed(super()._on_step))

    def _on_rollout_end(self) -> None:
        self._timed(super()._on_rollout_end)


class Curve(BaseCallback):
    """Returns of the policy after each rollout's start, by its mean, and the steps before it."""

    def __init__(self) -> None:
        super().__init__()
        self.steps: list[int] = []
        self.returns: list[float] = []
        self.seconds = 0.0

    def measure(self) -> None:
        """Runs the policy as it is."""
        start = time.process_time()
        result = evaluate(Policy.from_sb3(self.model), episodes=2, threads=1)
        self.steps.append(self.model.num_timesteps)
        self.returns.append(float(result.episodic_return.mean()))
        self.seconds += time.process_time() - start

    def _on_rollout_start(self) -> None:
        self.measure()

    def _on_step(self) -> bool:
        return True

    def _on_training_end(self) -> None:
        self.measure()


def one_run(job: tuple[str, int, int, bool, bool]) -> dict[str, Any]:
    """One run: its curve, and the share of the callback in its processor time."""
    env_id, seed, total_steps, normalise, jump = job
    torch.set_num_threads(1)
    warnings.filterwarnings("ignore", ".*is out of date", DeprecationWarning)
    envs: Any = DummyVecEnv([lambda: Monitor(gym.make(env_id))])
    if normalise:
        envs = VecNormalize(envs)
    model = PPO("MlpPolicy", envs, seed=seed % 2**31, device="cpu")
    curve, timed = Curve(), Timed()
    start = time.process_time()
    # the curve comes second: it measures what a rollout begins with, after a jump
    model.learn(total_steps, callback=[timed, curve] if jump else [curve])
    whole = time.process_time() - start - curve.seconds
    counters = timed.jumps.jumper.counters if timed.jumps is not None else {}
    return {
        "seed": seed,
        "jump": jump,
        "steps": curve.steps,
        "returns": [round(value, 2) for value in curve.returns],
        "overhead": timed.seconds / whole,
        **{name: int(count[0]) for name, count in counters.items()},
    }


def on_grid(run: dict[str, Any], first: float, grid: Array) -> Array:
    """A run's return as a step function of its steps; before the first one, the untrained one's."""
    last = np.searchsorted(run["steps"], grid, side="right") - 1
    return np.where(last < 0, first, np.array(run["returns"])[np.maximum(last, 0)])


def summary(runs: list[dict[str, Any]], total_steps: int) -> dict[str, Any]:
    """What both ways come to, paired by seed."""
    grid = np.arange(0, total_steps + 1, 64)
    alone = [run for run in runs if not run["jump"]]
    with_jumps = [run for run in runs if run["jump"]]
    plain = np.stack([on_grid(run, run["returns"][0], grid) for run in alone])
    jumped = np.stack(
        [on_grid(r, a["returns"][0], grid) for r, a in zip(with_jumps, alone, strict=True)]
    )
    found: dict[str, Any] = {}
    for share in (0.95, 1.0):
        goal = share * plain[:, -1].mean()
        for name, curves in (("PPO", plain), ("jumps", jumped)):
            reached = curves.mean(axis=0) >= goal - 1e-9
            found[f"{name}: steps to {share:.0%} of PPO's final return"] = (
                int(grid[reached.argmax()]) if reached.any() else None
            )
    for name, curves in (("PPO", plain), ("jumps", jumped)):
        found[f"{name}: final return"] = list(mean_interval(curves[:, -1]))
        found[f"{name}: area under the curve"] = list(mean_interval(curves.mean(axis=1)))
    found["area, jumps less PPO"] = list(
        paired_difference_interval(jumped.mean(axis=1), plain.mean(axis=1))
    )
    found["overhead"] = list(mean_interval(np.array([run["overhead"] for run in with_jumps])))
    return found


def main(
    env_id: str = "InvertedPendulum-v4",
    seeds: int = 16,
    total_steps: int = 49_152,
    normalise: bool = True,
    processes: int = 2,
    out: Path | None = None,
) -> None:
    """Trains with and without jumps, and prints and writes what they come to.

    Args:
        env_id: a Gymnasium id
        seeds: runs of each kind
        total_steps: of each run, tests included
        normalise: observations and rewards, by VecNormalize
        processes: runs at once
        out: file of the results (default: docs/results/sb3-TASK.json)
    """
    jobs = [
        (env_id, FIRST_SEED + seed, total_steps, normalise, jump)
        for seed in range(seeds)
        for jump in (False, True)
    ]
    with multiprocessing.get_context("spawn").Pool(processes) as pool:
        runs = []
        for run in pool.imap(one_run, jobs):
            runs.append(run)
            print(f"{len(runs)} of {len(jobs)}: return {run['returns'][-1]:,.0f}", flush=True)
    found = summary(runs, total_steps)
    for name, value in found.items():
        print(f"{name}: {value}")
    name = env_id if normalise else f"{env_id}-raw"
    path = out or Path(__file__).parents[1] / "docs" / "results" / f"sb3-{name}.json"
    settings = f"--env-id {env_id} --seeds {seeds} --total-steps {total_steps}"
    command = f"python benchmarks/sb3_jumps.py {settings}{'' if normalise else ' --no-normalise'}"
    path.write_text(json.dumps({"command": command, "summary": found, "runs": runs}) + "\n")


if __name__ == "__main__":
    tyro.cli(main)
