"""What a trained model makes of networks that nobody has trained, beside its rivals.

    python benchmarks/optimize_networks.py --model InvertedPendulum-v4 --paths runs/paths/ip64

Fresh random networks of several architectures are optimised in one call, with no environment step,
and run. Beside them stand the rivals that remember the training paths, each where the architecture
allows it, and PPO's own policies at the end of those paths. For the architecture of the paths it is
also measured how far each policy is from the nearest end of a training path, in units of the
distance of such an end from the nearest other one: 0 is a copy, and near 1 a policy that is as new
as another trial's.
"""

from __future__ import annotations

import dataclasses
import statistics
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import tyro

import tipl
from measuring import command_line, fresh_networks, return_summary, versions
from tipl.core import storage
from tipl.experiments.rivals import rivals, training_paths
from tipl.forecast.base import Forecaster
from tipl.forecast.memory import BestStoredPolicy, nearest_distances
from tipl.forecast.trained import TrainedForecaster
from tipl.paths import PathDataset
from tipl.policies.policy import Policy


@dataclasses.dataclass(frozen=True)
class Args:
    """What to measure."""

    model: str
    """directory of a NeuronTransformer, or name of one that ships with tipl"""
    paths: Path | None = None
    """dataset that it learned from; without it the rivals, who remember it, are left out"""
    hidden: tuple[str, ...] = ("64-64", "32-32", "48-48", "128-128", "160-160", "256-256")
    """hidden layers of the networks"""
    networks: int = 256
    """networks of the first of these architectures"""
    others: int = 64
    """networks of each other one"""
    episodes: int = 4
    """episodes of each policy"""
    among: int = 8
    """networks that `tipl.optimize` chooses among by the model's own measure; 1 leaves out all
    that is chosen"""
    check: int = 2
    """proposals that it then tries, in an episode each; 0 leaves that out"""
    seed: int = 1_000_000
    """of the first network; those of the others follow"""
    json: Path | None = None
    """file to write the results to"""


def moved(forecaster: Forecaster, start: list[Policy], horizon: int) -> list[Policy] | None:
    """The networks as a forecaster carries them to the end of a path; None if it cannot."""
    layout = start[0].layout
    if forecaster.min_history > 1 or forecaster.layout not in (None, layout):
        return None
    if isinstance(forecaster, BestStoredPolicy):
        return [start[0].with_params(forecaster.params)]
    history = np.stack([policy.params for policy in start])[:, None]
    ahead = forecaster.forecast(history, horizon, layout=layout)
    return [p.with_params(row) for p, row in zip(start, ahead, strict=True)]


def architecture_rows(
    methods: Mapping[str, Forecaster], start: list[Policy], training: PathDataset | None,
    horizon: int, episodes: int,
) -> dict[str, dict[str, Any]]:  # fmt: skip
    """The results of all methods for networks of one architecture."""
    same = training is not None and start[0].layout == training.layout
    ends = training.params()[:, -1] if training is not None and same else np.empty((0, 0))
    spacing = end_spacing(ends) if same else 0.0
    rows = {}
    for name, forecaster in methods.items():
        policies = moved(forecaster, start, horizon)
        if policies is None:
            continue
        rows[name] = return_summary(tipl.evaluate(policies, episodes).episodic_return)
        if same:
            params = np.stack([policy.params for policy in policies])
            away = nearest_distances(params, ends) / spacing
            rows[name]["distance_from_training_ends"] = float(np.median(away))
        print(
            f"  {name}: {rows[name]['mean']:,.1f}, lowest {rows[name]['lowest']:,.1f}", flush=True
        )
    return rows


def chosen_rows(
    model: TrainedForecaster, hidden: tuple[int, ...], count: int, args: Args
) -> dict[str, dict[str, Any]]:
    """The results of networks that were chosen among several: by the model, then by episodes."""
    if args.among < 2:
        return {}
    checked = [
        tipl.optimize(
            model.task.env_id, model=model, hidden=hidden, seed=args.seed + i, among=args.among,
            check=max(args.check, 1),
        )
        for i in range(count)
    ]  # fmt: skip
    # what is tried first is what is taken without an episode
    chosen = {f"nearest of {args.among}": ([one.tried[0].policy for one in checked], 0.0)}
    if args.check:
        spent = float(np.mean([one.env_steps for one in checked]))
        chosen[f"best of {args.check} episodes"] = checked, spent
    rows = {}
    for label, (policies, spent) in chosen.items():
        found = return_summary(tipl.evaluate(policies, args.episodes).episodic_return)
        rows[f"{model.name}, {label}"] = found | {"env_steps": spent}
        print(f"  {label}: {found['mean']:,.1f}, lowest {found['lowest']:,.1f}", flush=True)
    return rows


def end_spacing(ends: np.ndarray) -> float:
    """Median distance of the end of a training path from the nearest other one."""
    rows = [nearest_distances(ends[[i]], np.delete(ends, i, axis=0))[0] for i in range(len(ends))]
    return float(np.median(rows))


def call_ms(model: TrainedForecaster, policy: Policy, repetitions: int = 50) -> float:
    """Milliseconds of `optimize` for one network, on one core: the median."""
    model.optimize(policy)
    times = []
    for _ in range(repetitions):
        start = time.perf_counter()
        model.optimize(policy)
        times.append(1000 * (time.perf_counter() - start))
    return statistics.median(times)


def ppo_rows(
    training: PathDataset, methods: Mapping[str, Forecaster], episodes: int
) -> dict[str, dict[str, Any]]:
    """PPO's own policies at the end of the training paths, and the best of all checkpoints."""
    copied = next(one for one in methods.values() if isinstance(one, BestStoredPolicy))
    ends = [training.policy(n, training.num_checkpoints - 1) for n in range(training.num_trials)]
    best = tipl.evaluate([ends[0].with_params(copied.params)], 20, seed=1).episodic_return
    reached = tipl.evaluate(ends, episodes).episodic_return
    return {
        "PPO, end of the training paths": return_summary(reached),
        "best stored policy": return_summary(best),
    }


def main(args: Args) -> None:
    """Measures, prints, and writes the results."""
    model = Forecaster.from_pretrained(args.model)
    methods: dict[str, Forecaster] = {}
    training = None
    if args.paths is not None:
        training = training_paths([model], PathDataset.open(args.paths))
        if training is None:
            raise tipl.TiplError(f"{args.model} did not learn from {args.paths}; give its dataset")
        methods |= {rival.name: rival for rival in rivals([model], training)}
    methods |= {asked.name: asked for asked in model.all_ways()}
    results: dict[str, Any] = {
        "command": command_line("optimize_networks.py", args),
        "env_id": model.task.env_id,
        "training_trials": sum(map(len, model.training_trials.values())),
        "train": model.settings["train"],
        "ppo": ppo_rows(training, methods, args.episodes) if training else {},
        "architectures": {},
        "call_ms": {},
        "versions": versions(),
    }
    for index, text in enumerate(args.hidden):
        print(text, flush=True)
        count = args.others if index else args.networks
        start = fresh_networks(model.task, text, count, args.seed)
        rows = architecture_rows(methods, start, training, model.num_checkpoints - 1, args.episodes)
        if "elite" in model.targets:
            asked = model.with_options(target="elite")
            rows |= chosen_rows(asked, start[0].layout.hidden_sizes, count, args)
        results["architectures"][text] = rows
        results["call_ms"][text] = {
            target: call_ms(model.with_options(target=target), start[0]) for target in model.targets
        }
        if args.json:
            storage.write_json(args.json, results)
    print(results["ppo"], results["call_ms"])


if __name__ == "__main__":
    main(tyro.cli(Args))
