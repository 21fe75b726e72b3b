"""The stages of a benchmark of worlds: its worlds, all trials by PPO, and the models."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path

from tipl.envs.worlds import TRAINING
from tipl.experiments.pipeline import Options, Stage
from tipl.experiments.stage_records import read_records
from tipl.experiments.worlds.config import WorldsConfig
from tipl.forecast.hub import model_directory

NUM_ENVS, NUM_STEPS = 32, 512
"""Environments of the trials whose worlds are redrawn, and the steps of each in a rollout."""

SAMPLES = 256
"""In each of their minibatches."""

FEWEST_ROLLOUTS = 8

CHECKPOINTS = 20
"""Of those trials, at most."""

NESTED = (2, 8, 16, 32, 64, 128, 256)
"""Sizes of nested sets of training worlds; two are the fewest that differ."""

RANDOMISED, UNIVERSAL = "randomised", "universal"
"""Directories of the trials whose worlds are redrawn at each episode; of the latter, which observes
the physics, the model of worlds is made."""

MODEL = "model"
"""Its directory."""


def worlds_file(config: WorldsConfig, directory: Path) -> Path:
    """The file of worlds of a benchmark in its directory."""
    return directory / "worlds.json" if config.worlds is None else Path(config.worlds)


def elite_directory(config: WorldsConfig, directory: Path) -> Path:
    """The policy that all its trials start from."""
    return directory / "elite" if config.elite is None else Path(config.elite)


def was_put_there(directory: Path, name: str) -> bool:
    """Whether the worlds or the elite in a directory are somebody's, and no stage's result."""
    stage = name.removesuffix(".json")
    return (directory / name).exists() and stage not in read_records(directory)


def lineage_models(config: WorldsConfig) -> dict[int, str]:
    """Where models of lineages are, by how many training worlds each learns from; all last."""
    fewer = [count for count in NESTED if count < config.num_worlds]
    return {count: f"models/first-{count}" for count in (*fewer, config.num_worlds)}


def worlds_stages(config: WorldsConfig, directory: Path) -> Iterator[Stage]:
    """The stages of a benchmark in its directory, in order."""
    worlds, elite = worlds_file(config, directory), elite_directory(config, directory)
    words: Options
    if config.worlds is None and not was_put_there(directory, worlds.name):
        words = ("worlds", "make", config.env_id, "--preset", config.preset, "--out", worlds)
        yield Stage("worlds", words, directory)
    if config.elite is None and not was_put_there(directory, elite.name):
        words = ("optimize", config.env_id, "--out", elite)
        yield Stage("elite", words, elite, (model_directory(config.env_id),))

    def collect(name: str, paths: Path, split: str, trials: int, *options: object) -> Stage:
        shared = (
            "collect", config.env_id, "--worlds", worlds, "--split", split, "--start", elite,
            "--num-trials", trials, "--seed", config.seed,
        )  # fmt: skip
        return Stage(name, (*shared, *options, "--out", paths), paths, (worlds, elite))

    alone = (
        "--total-steps", config.total_steps, "--checkpoint-interval", config.checkpoint_interval,
        "--trials-per-group", config.trials_per_group,
    )  # fmt: skip
    training = directory / "training"
    yield collect("training", training, TRAINING, config.num_worlds, *alone)
    for split in config.splits:
        paths, trials = directory / "ppo" / split, config.held_out_worlds
        yield collect(f"PPO in {split}", paths, split, trials, *alone)
    carried = () if config.carrier is None else ("--carrier", config.carrier)

    def train(
        name: str, paths: Path, out: Path, trials: int, worlds: int, steps: int, *more: object
    ) -> Stage:
        words = (
            "train", paths, "--model", "world", "--first-trials", trials, *carried,
            "--num-steps", config.train_steps, "--observer-worlds", worlds,
            "--observer-steps", steps, *more, "--seed", config.seed, "--out", out,
        )  # fmt: skip
        return Stage(name, words, out, (paths,))

    for count, place in lineage_models(config).items():
        # nobody asks these what a world is: their observers learn nothing
        yield train(f"model of {count} worlds", training, directory / place, count, 2, 1)
    redrawn = ("--redraw", "episode", *redrawn_options(config))
    if config.randomised:
        yield collect(RANDOMISED, directory / RANDOMISED, TRAINING, 1, *redrawn)
    universal = directory / UNIVERSAL
    yield collect(UNIVERSAL, universal, TRAINING, 1, *redrawn, "--observe", "physics")
    learning = config.observer_worlds, config.train_steps
    more = "--student-steps", 6 * config.train_steps
    yield train(MODEL, universal, directory / MODEL, 1, *learning, *more)


def redrawn_options(config: WorldsConfig) -> Options:
    """How the trials are collected whose worlds are redrawn: their steps, and of what rollouts.

    They take as many environment steps as all training trials together, or a share of these.
    """
    total = round(config.redrawn_steps * config.num_worlds * config.total_steps)
    num_steps = max(8, min(NUM_STEPS, total // (NUM_ENVS * FEWEST_ROLLOUTS)))
    rollout = NUM_ENVS * num_steps
    iterations = max(2, total // rollout)
    return (
        "--total-steps", iterations * rollout,
        "--checkpoint-interval", iterations // math.gcd(iterations, CHECKPOINTS),
        "--ppo.num-envs", NUM_ENVS, "--ppo.num-steps", num_steps,
        "--ppo.num-minibatches", max(1, rollout // SAMPLES),
    )  # fmt: skip
