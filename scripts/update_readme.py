"""Fills the table of claims in `README.md` from the results in `docs/results`.

    python scripts/update_readme.py

One number for each claim, and one to hold it against; whole tables stand on the pages that it
links.
"""

from __future__ import annotations

import json
from typing import Any

from result_pages import RESULTS
from update_collection_docs import ROOT, replace_between, table

from tipl.core import storage

CHEETAH, PENDULUM = "HalfCheetah-v4", "InvertedPendulum-v4"


class Numbers:
    """The rows of an experiment's results, by method, setting and metric."""

    def __init__(self, name: str, experiment: str) -> None:
        lines = (RESULTS / f"{name}.jsonl").read_text(encoding="utf-8").splitlines()
        rows = map(json.loads, lines[1:])
        self.values = {tuple(row[1:4]): row[4] for row in rows if row[0] == experiment}

    def __call__(self, method: str, setting: str, metric: str) -> str:
        """A value as text."""
        return f"{self.values[method, setting, metric]:,.0f}"


def of_networks() -> list[list[str]]:
    """What the shipped model makes of fresh networks."""
    found: Any = storage.read_json(RESULTS / f"optimize-{CHEETAH}.json")
    page = "[networks that nobody has trained](docs/pretrained.md)"
    mean = {
        (hidden, method): f"{row['mean']:,.0f}"
        for hidden, rows in found["architectures"].items()
        for method, row in rows.items()
    }
    ppo = f"{found['ppo']['PPO, end of the training paths']['mean']:,.0f}"
    copied = mean["64-64", "best stored policy, copied"]
    fitted = mean["256-256", "best stored policy, output layer fitted"]
    elite = "NeuronTransformer (elite)"
    return [
        [
            f"{CHEETAH}: a random network, one call, no step", mean["64-64", elite],
            f"PPO, a million steps: {ppo}; the best of its policies, copied: {copied}", page,
        ],
        [
            "the same at a width that no path has, 256-256", mean["256-256", elite],
            f"output layer fitted to the best policy: {fitted}", page,
        ],
    ]  # fmt: skip


def of_worlds() -> list[list[str]]:
    """What the shipped model makes for held-out worlds between those of training."""
    numbers, page = Numbers(f"worlds-{CHEETAH}", "worlds benchmark"), "docs/worlds-benchmark.md"

    def mean(method: str) -> str:
        return numbers(method, "interpolation worlds", "return")

    return [
        [
            "worlds never seen, physics known, no step", mean("model, physics known"),
            f"elite of home: {mean('elite of home, copied')}; PPO, 204,800 steps there: "
            f"{mean('PPO, 204,800 steps')}", f"[worlds]({page})",
        ],
        [
            "worlds never seen, 250 steps without rewards", mean("model, 250 transitions"),
            f"domain randomisation: {mean('domain randomisation')}; best of 24 stored policies: "
            f"{mean('best of 24 stored policies')}", f"[worlds]({page})",
        ],
    ]  # fmt: skip


def of_ppo() -> list[list[str]]:
    """What PPO gains by jumps, what of it is foretold, and how fast it is collected."""
    numbers, steps = (
        Numbers(f"accelerate-{CHEETAH}", "accelerate"),
        "env_steps_to_100_percent_of_ppo",
    )
    jumps, alone = (numbers(one, "64-64", steps) for one in ("NeuronTransformer, gated", "PPO"))
    rows = [
        [
            "steps until PPO that jumps has PPO's return", jumps, f"PPO: {alone}",
            "[jumps](docs/acceleration.md)",
        ]
    ]  # fmt: skip
    tasks = (PENDULUM, 30, "what PPO makes of a network, foretold"), (
        CHEETAH, 61, "the same, which is not solved",
    )  # fmt: skip
    for task, horizon, claim in tasks:
        found, place = (
            Numbers(f"benchmark-{task}", "optimize"),
            f"untrained network, horizon {horizon}",
        )
        own, ppo = (
            found(method, place, "episodic_return")
            for method in ("NeuronTransformer (own)", "true later checkpoint")
        )
        rows.append([f"{task}: {claim}", own, f"PPO: {ppo}", "[benchmark](docs/benchmark.md)"])
    speed: Any = storage.read_json(RESULTS / f"speed-{CHEETAH}.json")["rows"]
    ours, theirs = (f"{speed[f'{name}_steps_per_s']:,.0f}" for name in ("collector", "sb3"))
    page = "[collecting](docs/collection.md)"
    rows.append(
        ["steps of PPO a second, on two processors", ours, f"stable-baselines3: {theirs}", page]
    )
    return rows


def main() -> None:
    """Writes the table."""
    rows = [*of_networks(), *of_worlds(), *of_ppo()]
    claims = table(["", "tipl", "beside", "all of it"], rows, texts=2)
    replace_between(ROOT / "README.md", "claims", claims)


if __name__ == "__main__":
    main()
