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
from tipl.evaluation.stats import (
    ReturnCurves,
    mean_interval,
    paired_difference_interval,
    reach_interval,
    steps_to_shares,
)
from tipl.integrations.pytorch.jumps import TorchJumps
from tipl.integrations.sb3.callback import ForecastCallback

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


def return_curves(runs: list[dict[str, Any]], untrained: Array, end: int) -> ReturnCurves:
    """Returns over environment steps; runs with fewer rollouts stay where they end."""
    longest = max(len(run["steps"]) for run in runs)
    rows = [longest - len(run["steps"]) for run in runs]
    return ReturnCurves(
        np.array([run["steps"] + [end + 1] * more for run, more in zip(runs, rows, strict=True)]),
        np.array(
            [
                run["returns"] + run["returns"][-1:] * more
                for run, more in zip(runs, rows, strict=True)
            ]
        ),
        untrained,
    )


def summary(runs: list[dict[str, Any]], end: int) -> dict[str, list[float | None]]:
    """What both ways come to, paired by seed: values with their 95% intervals."""
    kinds = {"PPO": False, "jumps": True}
    untrained = np.array([run["returns"][0] for run in runs if not run["jump"]])
    curves = {
        name: return_curves([run for run in runs if run["jump"] == jump], untrained, end)
        for name, jump in kinds.items()
    }
    shares = (0.95, 1.0)
    found: dict[str, Any] = {}
    for name, steps in steps_to_shares(curves, "PPO", end, shares).items():
        for share, column in zip(shares, steps.T, strict=True):
            found[f"{name}: steps to {share:.0%} of PPO's final return"] = reach_interval(column)
    last = {name: own.at(np.array([float(end)]))[:, 0] for name, own in curves.items()}
    area = {name: own.mean_over(end) for name, own in curves.items()}
    for name in kinds:
        found[f"{name}: final return"] = mean_interval(last[name])
        found[f"{name}: mean return over the training"] = mean_interval(area[name])
    found["mean return over the training, jumps less PPO"] = paired_difference_interval(
        area["jumps"], area["PPO"]
    )
    overhead = np.array([run["overhead"] for run in runs if run["jump"]])
    found["overhead"] = mean_interval(overhead)
    return {
        name: [float(value) if np.isfinite(value) else None for value in interval]
        for name, interval in found.items()
    }


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
