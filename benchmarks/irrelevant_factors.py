"""What ten factors that do nothing cost a model of worlds: a row for each split.

    python benchmarks/irrelevant_factors.py runs/worlds/HalfCheetah-v4 --out runs/irrelevant

The first directory is that of a finished `tipl worlds benchmark`. Its universal policy, of which
the model is made, is collected once more, in the same worlds but for ten more factors, drawn at
random, that nothing depends on: of the motors' own dynamics, which the task's motors have not, and
of the softness of friction in joints, which have none. `tipl collect` finds that out and lets the
policy observe the others alone, so that both are to be the same. Both policies are folded into the
held-out worlds, the second one by ten random factors as well. This takes as long as the universal
policy did; running it again goes on.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import tyro
from jaxtyping import Float64
from rich.console import Console
from rich.table import Table

import tipl
from tipl import PathDataset, Policy, TiplError, Worlds
from tipl.cli import main as tipl_command
from tipl.envs import make_vec
from tipl.envs.effects import physics_with_effect
from tipl.envs.physics import object_names
from tipl.envs.worlds import TRAINING
from tipl.evaluation.stats import mean_interval, paired_difference_interval
from tipl.experiments.worlds.config import WORLDS_BENCHMARK
from tipl.experiments.worlds.stages import UNIVERSAL, elite_directory, redrawn_options, worlds_file
from tipl.policies.folding import folded

RANGE = 0.6, 1.6
"""Of the factors that do nothing."""


@dataclasses.dataclass(frozen=True)
class Args:
    """What to measure."""

    run: tyro.conf.Positional[Path]
    """directory of a benchmark of worlds"""
    out: Path
    """directory of the worlds and of the other universal policy"""
    irrelevant: int = 10
    """factors that do nothing"""
    episodes: int = 4
    """of each policy"""
    threads: int | None = None
    seed: int = 7


def irrelevant_names(env_id: str, count: int) -> list[str]:
    """Names of physics that change nothing in a task.

    Raises:
        TiplError: there are not as many, or one of them changes something.
    """
    envs: Any = make_vec(env_id, 1)
    motors = object_names(envs.model(0), "actuator")
    names = [f"{field}:{name}" for field in ("actuator_dynprm", "dof_solref") for name in motors]
    names = names[:count]
    effective = physics_with_effect(env_id, dict.fromkeys(names, RANGE))
    if effective or len(names) < count:
        raise TiplError(
            f"{count} factors that do nothing were asked for, but {env_id} has {len(names)}, of "
            f"which {len(effective)} change what is seen; give a smaller number"
        )
    return names


def with_irrelevant(worlds: Worlds, names: list[str], seed: int) -> Worlds:
    """The same worlds with more factors each, even in the logarithm."""
    rng = np.random.default_rng(seed)

    def more() -> dict[str, float]:
        return {name: float(np.exp(rng.uniform(*np.log(RANGE)))) for name in names}

    splits = {
        split: [{**one.factors, **more()} for one in ones] for split, ones in worlds.splits.items()
    }
    return Worlds.from_factors(worlds.env_id, splits)


def returns_of(
    policy: Policy, worlds: Worlds, split: str, true: Worlds, args: Args
) -> Float64[np.ndarray, " W"]:
    """What a universal policy returns, folded into each world of a split."""
    made = [
        folded(policy, one.factors).with_physics(there.factors)
        for one, there in zip(worlds.worlds(split), true.worlds(split), strict=True)
    ]
    found = tipl.evaluate(made, args.episodes, seed=args.seed, threads=args.threads)
    return np.asarray(found.episodic_return.mean(axis=1), np.float64)


def main(args: Args) -> None:
    """Collects the other universal policy, and prints what both return."""
    config = WORLDS_BENCHMARK.read(args.run / WORLDS_BENCHMARK.name).config
    worlds = Worlds.load(worlds_file(config, args.run))
    names = irrelevant_names(config.env_id, args.irrelevant)
    others = with_irrelevant(worlds, names, args.seed)
    args.out.mkdir(parents=True, exist_ok=True)
    others.save(args.out / "worlds.json")
    words = (
        "collect", config.env_id, "--worlds", args.out / "worlds.json", "--split", TRAINING,
        "--start", elite_directory(config, args.run), "--num-trials", 1, "--seed", config.seed,
        "--redraw", "episode", *redrawn_options(config), "--observe", "physics",
        "--threads", args.threads or 1, "--out", args.out / UNIVERSAL,
    )  # fmt: skip
    tipl_command([str(word) for word in words])
    policies = [PathDataset.open(one / UNIVERSAL).policy(0, -1) for one in (args.run, args.out)]
    table = Table("split", "none", f"{args.irrelevant} irrelevant factors", "difference")
    for split in worlds.splits:
        if split == TRAINING:
            continue
        pairs = zip(policies, (worlds, others), strict=True)
        returns = [returns_of(policy, told, split, worlds, args) for policy, told in pairs]
        cells = [f"{mean_interval(one).value:,.0f}" for one in returns]
        apart = paired_difference_interval(returns[1], returns[0])
        share = apart.value / returns[0].mean()
        table.add_row(
            split, *cells, f"{apart.value:,.0f} [{apart.low:,.0f}, {apart.high:,.0f}], {share:.1%}"
        )
    Console(width=100).print(table)


if __name__ == "__main__":
    main(tyro.cli(Args))
