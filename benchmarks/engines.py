"""Two Ray nodes of one processor each beside two threads: steps a second of the same collection.

A short collection and a long one are timed with each engine; their difference leaves out what
starting takes. Nothing else should run on the machine::

    python benchmarks/engines.py --task HalfCheetah-v4 --steps 20480 204800
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from pathlib import Path
from typing import Any

from tipl import PPOConfig
from tipl.collection.collect import collect
from tipl.core.engines.config import EngineConfig

GROUPS, TRIALS = 4, 32
"""Groups of trials, and trials in each."""


def seconds(task: str, steps: int, engine: EngineConfig | None) -> float:
    """How long a collection takes, the start of processes included."""
    with tempfile.TemporaryDirectory() as folder:
        start = time.perf_counter()
        collect(
            task, out=Path(folder) / "paths", threads=2 if engine is None else None, engine=engine,
            num_trials=GROUPS * TRIALS, trials_per_group=TRIALS, total_steps=steps,
            ppo=PPOConfig(num_steps=512),
        )  # fmt: skip
        return time.perf_counter() - start


def main() -> None:
    """Prints the speed of both engines, and their ratio."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--task", default="HalfCheetah-v4")
    parser.add_argument("--steps", type=int, nargs=2, default=[20_480, 204_800])
    options = parser.parse_args()
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    from ray.cluster_utils import Cluster

    node: dict[str, Any] = {"num_cpus": 1, "include_dashboard": False}
    node["object_store_memory"] = 80 * 2**20
    cluster = Cluster(initialize_head=True, head_node_args=node | {"num_cpus": 0})
    try:
        for _ in range(2):
            cluster.add_node(**node, wait=False)
        ray = EngineConfig(engine="ray", address=cluster.address)
        speeds = {}
        for name, engine in {"two threads": None, "two Ray nodes": ray}.items():
            short, long = (seconds(options.task, steps, engine) for steps in options.steps)
            more = GROUPS * TRIALS * (options.steps[1] - options.steps[0])
            speeds[name] = more / (long - short)
            print(f"{name}: {speeds[name]:,.0f} steps/s")
        print(f"Ray's share: {speeds['two Ray nodes'] / speeds['two threads']:.2f}")
    finally:
        cluster.shutdown()


if __name__ == "__main__":
    main()
