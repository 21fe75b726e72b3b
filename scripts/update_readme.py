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


def claims() -> str:
    """The table."""
    optimized: Any = storage.read_json(RESULTS / f"optimize-{CHEETAH}.json")
    speed: Any = storage.read_json(RESULTS / f"speed-{CHEETAH}.json")["rows"]
    worlds = Numbers(f"worlds-{CHEETAH}", "worlds benchmark")
    jumps = Numbers(f"accelerate-{CHEETAH}", "accelerate")
    found, easy = (Numbers(f"benchmark-{task}", "optimize") for task in (CHEETAH, PENDULUM))
    networks, ppo = optimized["architectures"], optimized["ppo"]
    elite, copied = "NeuronTransformer (elite)", "best stored policy, copied"
    ends = f"{ppo['PPO, end of the training paths']['mean']:,.0f}"
    own, start, ahead = (
        "NeuronTransformer (own)",
        "untrained network, horizon 61",
        "episodic_return",
    )
    jumping, steps = "NeuronTransformer, gated", "env_steps_to_100_percent_of_ppo"
    inside = "interpolation worlds"
    made = "[networks that nobody has trained](docs/pretrained.md)"
    seen = "[worlds](docs/worlds-benchmark.md)"
    whole = "[benchmark](docs/benchmark.md)"
    rows = [
        [
            f"{CHEETAH}: a random network, one call, no step",
            f"{networks['64-64'][elite]['mean']:,.0f}",
            f"PPO, a million steps: {ends}; the best of its policies, copied: "
            f"{networks['64-64'][copied]['mean']:,.0f}",
            made,
        ],
        [
            "the same at a width that no path has, 256-256",
            f"{networks['256-256'][elite]['mean']:,.0f}",
            "output layer fitted to the best policy: "
            f"{networks['256-256']['best stored policy, output layer fitted']['mean']:,.0f}",
            made,
        ],
        [
            "worlds never seen, physics known, no step",
            worlds("model, physics known", inside, "return"),
            f"elite of home: {worlds('elite of home, copied', inside, 'return')}; PPO, "
            f"204,800 steps there: {worlds('PPO, 204,800 steps', inside, 'return')}",
            seen,
        ],
        [
            "worlds never seen, 250 steps without rewards",
            worlds("model, 250 transitions", inside, "return"),
            f"domain randomisation: {worlds('domain randomisation', inside, 'return')}; best of "
            f"24 stored policies: {worlds('best of 24 stored policies', inside, 'return')}",
            seen,
        ],
        [
            "steps until PPO that jumps has PPO's return",
            jumps(jumping, "64-64", steps),
            f"PPO: {jumps('PPO', '64-64', steps)}",
            "[jumps](docs/acceleration.md)",
        ],
        [
            f"{PENDULUM}: what PPO makes of a network, foretold",
            easy(own, "untrained network, horizon 30", "episodic_return"),
            f"PPO: {easy('true later checkpoint', 'untrained network, horizon 30', ahead)}",
            whole,
        ],
        [
            f"{CHEETAH}: the same, which is not solved",
            found(own, start, "episodic_return"),
            f"PPO: {found('true later checkpoint', start, 'episodic_return')}",
            whole,
        ],
        [
            "PPO steps a second on two processors",
            f"{speed['collector_steps_per_s']:,.0f}",
            f"stable-baselines3: {speed['sb3_steps_per_s']:,.0f}",
            "[collecting](docs/collection.md)",
        ],
    ]
    return table(["", "tipl", "beside", "all of it"], rows)


def main() -> None:
    """Writes the table."""
    replace_between(ROOT / "README.md", "claims", claims())


if __name__ == "__main__":
    main()
