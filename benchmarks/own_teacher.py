"""Random networks that act as a policy that no training path contains: one's own teacher.

    python benchmarks/own_teacher.py --elite runs/sac --paths runs/paths/cheetah --model runs/model

The model is trained, if it is not there yet. Then fresh random networks of several widths are
carried to the teacher in one call, with no environment step, and run. Beside them stands the rival
that fits their output layers to the teacher's actions and leaves the hidden layers as they are.
"""

from __future__ import annotations

import dataclasses
import time
from pathlib import Path
from typing import Any

import numpy as np
import tyro

import tipl
from measuring import command_line, fresh_networks, return_summary, versions
from tipl.core import storage
from tipl.models.readout import FittedOutputLayer
from tipl.paths import PathDataset
from tipl.policies.activations import ACTIVATIONS


@dataclasses.dataclass(frozen=True)
class Args:
    """What to measure."""

    elite: Path
    """directory of the teacher (`Policy.save`)"""
    paths: Path
    """dataset whose half-trained networks the model learns to carry, beside fresh ones"""
    model: Path
    """directory of the model"""
    num_steps: int = 1000
    """training steps of a model that is not there yet"""
    held_out: float = 0.17
    """share of the trials that it does not learn from"""
    threads: int = 1
    """threads of its training"""
    hidden: tuple[str, ...] = ("64-64", "32-32", "16-16", "128-128")
    """hidden layers of the networks"""
    activation: str = "tanh"
    """their activation"""
    learned: tuple[str, ...] = (*("tanh",) * 3, *ACTIVATIONS)
    """activations of the networks that a model that is not there yet learns from"""
    networks: int = 16
    """networks of each width"""
    episodes: int = 4
    """episodes of each policy"""
    seed: int = 5_000_000
    """of the first network; those of the others follow"""
    json: Path | None = None
    """file to write the results to"""


def train(args: Args) -> dict[str, float]:
    """Trains and saves the model; returns the seconds and processor seconds that this took."""
    seconds, processor_seconds = time.monotonic(), time.process_time()
    split = PathDataset.open(args.paths).split(args.held_out)
    model = tipl.train(
        split.train, model="neuron", held_out=split.held_out, targets=("elite",),
        elite=args.elite, num_steps=args.num_steps, threads=args.threads,
        fresh_activations=args.learned,
    )  # fmt: skip
    model.save_pretrained(args.model)
    return {
        "seconds": time.monotonic() - seconds,
        "processor_seconds": time.process_time() - processor_seconds,
    }


def main(args: Args) -> None:
    """Measures, prints, and writes the results."""
    known = storage.read_json(args.json) if args.json and args.json.exists() else {}
    took = known.get("training", {}) if (args.model / "config.json").exists() else train(args)
    model, teacher = tipl.Forecaster.from_pretrained(args.model), tipl.Policy.load(args.elite)
    rival = FittedOutputLayer.of(teacher)
    start = {
        text: fresh_networks(model.task, text, args.networks, args.seed, args.activation)
        for text in args.hidden
    }
    carried = model.optimize([policy for policies in start.values() for policy in policies])
    results: dict[str, Any] = {
        "command": command_line("own_teacher.py", args),
        "env_id": model.task.env_id,
        "training": took,
        "env_steps": model.settings["env_steps"],
        "elite": model.settings["elite"],
        "teacher_layout": str(teacher.layout),
        "train": model.settings["train"],
        "teacher": return_summary(tipl.evaluate([teacher], 20).episodic_return),
        "architectures": {},
        "versions": versions(),
    }
    print(f"teacher: {results['teacher']['mean']:,.1f}", flush=True)
    for n, (text, fresh) in enumerate(start.items()):
        params = np.stack([policy.params for policy in fresh])[:, None]
        fitted = rival.forecast(params, 1, layout=fresh[0].layout)
        methods = {
            model.name: carried[n * args.networks : (n + 1) * args.networks],
            rival.name: [p.with_params(row) for p, row in zip(fresh, fitted, strict=True)],
        }
        results["architectures"][text] = rows = {
            name: return_summary(tipl.evaluate(policies, args.episodes).episodic_return)
            for name, policies in methods.items()
        }
        for name, row in rows.items():
            print(f"{text} {name}: {row['mean']:,.1f}, lowest {row['lowest']:,.1f}", flush=True)
        if args.json:
            storage.write_json(args.json, results)


if __name__ == "__main__":
    main(tyro.cli(Args))
