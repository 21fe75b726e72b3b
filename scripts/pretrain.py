r"""Makes a model that ships with tipl: its data, the model, what it does, and its model card.

    python scripts/pretrain.py Hopper-v4            # runs the commands, one after another
    python scripts/pretrain.py Hopper-v4 --dry-run  # prints them

What is there already is gone on with: interrupted, the same command resumes. Everything lies in
`runs/` except the results, which go to `docs/results/`, and the model, which goes to the package.
"""

from __future__ import annotations

import dataclasses
import shlex
import subprocess
from collections.abc import Sequence

import tyro

HIDDEN = ("64-64", "32-32", "128-128", "192-192", "64-64-64")
"""Hidden layers of the networks that are optimised; no path has others than the first."""


@dataclasses.dataclass(frozen=True)
class Recipe:
    """How the model of one task is made."""

    collect: Sequence[str]
    """options of `tipl collect`, a dataset each: the networks of the first one are the task's"""
    train: str
    """options of `tipl train`"""
    measure: str = f"--hidden {' '.join(HIDDEN)} --networks 64 --others 32"
    """options of `benchmarks/optimize_networks.py`"""
    half: bool = True
    """whether the model ships in half precision"""


ELITE = "--targets elite --rounds 2 --threads 1"

RECIPES = {
    "CartPole-v1": Recipe(
        ["--num-trials 32 --total-steps 102400"],
        f"{ELITE} --num-steps 500",
        f"--hidden {' '.join(HIDDEN)} --networks 64 --others 64",
    ),
    "HalfCheetah-v4": Recipe(
        ["--num-trials 64 --total-steps 1000000"],
        "--targets elite --held-out 0.125 --num-steps 2500 --rounds 3 --threads 1",
        "--networks 128 --others 48 --episodes 2",
        half=False,
    ),
    "InvertedDoublePendulum-v4": Recipe(
        ["--num-trials 32 --total-steps 307200 --checkpoint-interval 3"], ELITE
    ),
    "InvertedPendulum-v4": Recipe(
        [
            "--num-trials 320 --seed 7",
            "--num-trials 64 --seed 32 --hidden-sizes 32 32",
            "--num-trials 64 --seed 128 --hidden-sizes 128 128",
            "--num-trials 64 --seed 1 --hidden-sizes 64",
            "--num-trials 64 --seed 3 --hidden-sizes 64 64 64",
        ],
        "--targets elite own --held-out 0.2 --num-steps 1500 --rounds 3 --threads 2 "
        "--condition-on-return",
        "--episodes 2",
    ),
    "Reacher-v4": Recipe(
        ["--num-trials 32 --total-steps 409600 --checkpoint-interval 4"], ELITE
    ),
    "Swimmer-v4": Recipe(
        ["--num-trials 32 --total-steps 409600 --checkpoint-interval 4 --ppo.gamma 0.9999"], ELITE
    ),
}  # fmt: skip
"""By the id of the task. An elite is found after few steps where any network will do."""


def commands(env_id: str) -> list[str]:
    """The commands that make the model of a task, in their order.

    Raises:
        KeyError: there is no recipe for the task.
    """
    recipe = RECIPES[env_id]
    paths = [f"runs/paths/{env_id}{f'-{n}' if n else ''}" for n in range(len(recipe.collect))]
    model, results = f"runs/models/{env_id}", f"docs/results/optimize-{env_id}.json"
    return [
        *(
            f"tipl collect {env_id} {options} --out {directory}"
            for options, directory in zip(recipe.collect, paths, strict=True)
        ),
        f"tipl train {' '.join(paths)} --model neuron {recipe.train} --out {model} --resume",
        f"python scripts/ship_model.py {model}{' --half' if recipe.half else ''}",
        f"python benchmarks/optimize_networks.py --model {env_id} --paths {paths[0]} "
        f"{recipe.measure} --json {results}",
        "python scripts/update_pretrained_docs.py",
    ]


def main(env_id: str, /, dry_run: bool = False) -> None:
    """Makes the model of a task.

    Args:
        env_id: the task, such as Hopper-v4
        dry_run: print the commands without running them
    """
    if env_id not in RECIPES:
        raise SystemExit(f"no recipe for {env_id}: expected one of {', '.join(RECIPES)}")
    for command in commands(env_id):
        print(command, flush=True)
        if not dry_run:
            subprocess.run(shlex.split(command), check=True)


if __name__ == "__main__":
    tyro.cli(main)
