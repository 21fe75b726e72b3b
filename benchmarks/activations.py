"""What a trained model makes of random networks of each activation.

    python benchmarks/activations.py --model HalfCheetah-v4

Fresh random networks that nobody has trained, those of one seed with the same weights whatever
their activation, are optimised in one call, with no environment step, and run.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import tyro

import tipl
from measuring import command_line, fresh_networks, return_summary, versions
from tipl.core import storage
from tipl.policies.activations import ACTIVATIONS


@dataclasses.dataclass(frozen=True)
class Args:
    """What to measure."""

    model: str
    """directory of a NeuronTransformer that learned elite, or name of one that ships with tipl"""
    hidden: tuple[str, ...] = ("32-32", "64-64", "128")
    """hidden layers of the networks"""
    networks: int = 16
    """networks of each architecture and activation"""
    episodes: int = 4
    """episodes of each policy"""
    seed: int = 5_000_000
    """of the first network; those of the others follow"""
    json: Path | None = None
    """file to write the results to"""


def main(args: Args) -> None:
    """Measures, prints, and writes the results."""
    model = tipl.Forecaster.from_pretrained(args.model).with_options(target="elite")
    rows: dict[str, dict[str, Any]] = {}
    results = {
        "command": command_line("activations.py", args),
        "env_id": model.task.env_id,
        "train": model.settings["train"],
        "architectures": rows,
        "versions": versions(),
    }
    for text in args.hidden:
        rows[text] = {}
        for activation in ACTIVATIONS:
            start = fresh_networks(model.task, text, args.networks, args.seed, activation)
            returns = tipl.evaluate(model.optimize(start), args.episodes).episodic_return
            rows[text][activation] = row = return_summary(returns)
            print(
                f"{text} {activation}: {row['mean']:,.1f}, lowest {row['lowest']:,.1f}", flush=True
            )
        if args.json:
            storage.write_json(args.json, results)


if __name__ == "__main__":
    main(tyro.cli(Args))
