"""What helps a NeuronTransformer: the same training, with one thing changed at a time.

    python benchmarks/ablations.py --paths runs/paths/ip64 --target own --json own.json

Each variant is trained with few steps on the same trials and measured on the same held-out ones
and on the same fresh random networks. Variants that the results file already has are not trained
again, so that an interrupted run goes on where it was.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import numpy as np
import tyro

import tipl
from measuring import command_line, fresh_networks, return_summary, versions
from tipl.core import storage
from tipl.evaluation.returns import evaluate_stack
from tipl.forecast.trained import TrainedForecaster
from tipl.models.kinds import make_config
from tipl.models.train import train
from tipl.paths import PathDataset

COMMON: dict[str, dict[str, Any]] = {
    "base": {},
    "another seed": {"seed": 1},
    "1 round": {"rounds": 1},
    "3 rounds": {"rounds": 3},
    "5 rounds": {"rounds": 5},
    "width 32": {"width": 32},
    "width 96": {"width": 96},
    "half the training steps": {"steps": 0.5},
    "twice the training steps": {"steps": 2},
    "twice the learning rate": {"learning_rate": 4e-3},
}
VARIANTS: dict[str, dict[str, dict[str, Any]]] = {
    "own": COMMON
    | {
        "32 trials": {"trials": 32},
        "64 trials": {"trials": 64},
        "128 trials": {"trials": 128},
        "128 trials, shared initial network": {"trials": 128, "shared": True},
        "error of actions weighs 0.02": {"behaviour_weight": 0.02},
        "error of actions weighs 0.1": {"behaviour_weight": 0.1},
        "error of actions weighs 0.5": {"behaviour_weight": 0.5},
        "error of actions weighs 2": {"behaviour_weight": 2.0},
        "context 1": {"context": 1},
        "context 4": {"context": 4},
        "context 8": {"context": 8},
        "told returns": {"condition_on_return": True},
    },
    "elite": COMMON
    | {
        "output layer learned, not fitted": {"memory": 0},
        "256 observations remembered": {"memory": 256},
        "no penalty on the jump": {"jump_penalty": 0.0},
        "64-64 networks alone": {"fresh_widths": (64,), "fresh_depths": (2,)},
        "32 trials": {"trials": 32},
    },
}
"""What each variant changes: options of the model, `steps` (a factor), `trials`, `shared`."""

PLACES = ((0.1, 10), (0.25, 5), (0.5, 10))
"""Ends of histories, as shares of a path, and checkpoints ahead; at most to the path's end."""

WISHES = (-1, 0, 1, 2)
"""Returns to wish for, in standard deviations from the mean of all checkpoints."""

STEPS = (1, 4)
"""Jumps in which fresh networks are carried to the end of a path."""


@dataclasses.dataclass(frozen=True)
class Args:
    """What to measure."""

    paths: Path
    """dataset to learn from"""
    shared: Path | None = None
    """the same with a shared initial network, for the variants that learn from it; by default they
    are left out"""
    target: Literal["own", "elite"] = "own"
    """what to learn"""
    variants: tuple[str, ...] = ()
    """which ones (default: all)"""
    num_steps: int = 300
    """training steps of the base"""
    held_out: float = 0.2
    """share of the trials that no variant learns from"""
    networks: int = 64
    """fresh random networks of each architecture"""
    hidden: tuple[str, ...] = ("64-64", "48-48", "160-160")
    """their hidden layers"""
    episodes: int = 2
    """episodes of each policy"""
    threads: int = 1
    """threads of the training"""
    json: Path | None = None
    """file of the results"""


def trained(args: Args, changes: dict[str, Any]) -> tuple[TrainedForecaster, PathDataset, float]:
    """The model of a variant, the held-out trials, and the seconds that its training took."""
    split = PathDataset.open(args.paths).split(args.held_out)
    changes = dict(changes)
    steps = round(args.num_steps * changes.pop("steps", 1))
    training = split.train
    if changes.pop("shared", False) and args.shared is not None:
        training = PathDataset.open(args.shared).split(args.held_out).train
    training = training.select(training.trials[: changes.pop("trials", training.num_trials)])
    config = make_config("neuron", targets=(args.target,), num_steps=steps, **changes)
    start = time.monotonic()
    model = train(training, config=config, threads=args.threads, progress=False)
    return model, split.held_out, time.monotonic() - start


def optimized(args: Args, model: TrainedForecaster) -> Iterator[tuple[str, dict[str, Any]]]:
    """Returns of fresh networks that were carried to the end of a path."""
    for text in args.hidden:
        start = fresh_networks(model.task, text, args.networks)
        for steps in STEPS:
            better = model.optimize(start, steps=steps)
            returns = tipl.evaluate(better, args.episodes).episodic_return
            yield f"fresh {text}, {steps} step{'s' * (steps > 1)}", return_summary(returns)


def best_wishes(args: Args, model: TrainedForecaster) -> Iterator[tuple[str, dict[str, Any]]]:
    """Fresh networks with a return wished for, and the best of all wishes by one episode each."""
    if not model.knows_returns:
        return
    mean, std = model.return_scale
    start = fresh_networks(model.task, args.hidden[0], args.networks)
    asked = [model.optimize(start, wished_return=mean + k * std) for k in WISHES]
    for k, policies in zip(WISHES, asked, strict=True):
        returns = tipl.evaluate(policies, args.episodes).episodic_return
        yield f"fresh {args.hidden[0]}, wished for the mean {k:+d} std", return_summary(returns)
    tried = [tipl.evaluate(policies, 1, seed=1) for policies in asked]
    best = np.argmax([one.episodic_return[:, 0] for one in tried], axis=0)
    chosen = [asked[k][n] for n, k in enumerate(best)]
    returns = tipl.evaluate(chosen, args.episodes).episodic_return
    spent = sum(int(one.episode_length.sum()) for one in tried) / len(start)
    yield (
        f"fresh {args.hidden[0]}, best of {len(WISHES)} wishes",
        return_summary(returns) | {"env_steps_per_network": spent},
    )


def places(end: int) -> Iterator[tuple[str, int, int]]:
    """Name, last checkpoint of the history, and horizon of each place of a path to `end`."""
    for share, ahead in PLACES:
        start = round(share * end)
        if start + ahead < end:
            yield f"{share:.0%}, +{ahead}", start, ahead
        yield f"{share:.0%}, to the end", start, end - start


def forecast(
    args: Args, model: TrainedForecaster, held_out: PathDataset
) -> Iterator[tuple[str, dict[str, Any]]]:
    """Returns and weight errors of forecasts from histories of held-out trials."""
    params, layout = held_out.params(), held_out.layout
    for name, start, horizon in places(held_out.num_checkpoints - 1):
        true = params[:, start + horizon]
        better = model.forecast(params[:, : start + 1], horizon, layout=layout)
        returns = evaluate_stack(better, layout, model.task, args.episodes).returns
        missed = np.linalg.norm(better - true, axis=1)
        moved = np.linalg.norm(params[:, start] - true, axis=1)
        yield name, return_summary(returns) | {"weight_error": float((missed / moved).mean())}


def truth(args: Args, held_out: PathDataset) -> Iterator[tuple[str, dict[str, Any]]]:
    """Returns of the true later checkpoints, beside which forecasts stand."""
    params, task = held_out.params(), held_out.task
    for name, start, horizon in places(held_out.num_checkpoints - 1):
        true = np.ascontiguousarray(params[:, start + horizon])
        returns = evaluate_stack(true, held_out.layout, task, args.episodes).returns
        yield name, return_summary(returns)


def main(args: Args) -> None:
    """Trains and measures the variants that are missing, and writes them one by one."""
    results: dict[str, Any] = {"variants": {}}
    if args.json and args.json.exists():
        results = storage.read_json(args.json)
    results |= {"command": command_line("ablations.py", args), "versions": versions()}
    for name, changes in VARIANTS[args.target].items():
        if name in results["variants"] or (args.variants and name not in args.variants):
            continue
        if changes.get("shared") and args.shared is None:
            continue
        model, held_out, seconds = trained(args, changes)
        rows = dict(optimized(args, model)) | dict(best_wishes(args, model))
        rows |= dict(forecast(args, model, held_out))
        if "truth" not in results:
            results |= {"env_id": model.task.env_id, "truth": dict(truth(args, held_out))}
        results["variants"][name] = {"seconds": seconds, "rows": rows}
        print(
            f"{name} ({seconds:.0f} s):", {k: round(r["mean"]) for k, r in rows.items()}, flush=True
        )
        if args.json:
            storage.write_json(args.json, results)


if __name__ == "__main__":
    main(tyro.cli(Args))
