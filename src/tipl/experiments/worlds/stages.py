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

REDRAWN: dict[str, Options] = {"randomised": (), "universal": ("--observe", "physics")}
"""The trials whose worlds are redrawn at each episode, by their directories, and their options."""


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


def model_places(config: WorldsConfig) -> dict[int, str]:
    """Where its models of worlds are, by how many training worlds each learns from; all last."""
    fewer = [count for count in NESTED if count < config.num_worlds]
    return {count: f"models/first-{count}" for count in fewer} | {config.num_worlds: "model"}


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
    for count, place in model_places(config).items():
        model = directory / place
        full = count == config.num_worlds
        # of the others nobody is asked what a world is
        observing = (config.observer_worlds, config.train_steps) if full else (2, 1)
        words = (
            "train", training, "--model", "world", "--first-trials", count, *carried,
            "--num-steps", config.train_steps, "--observer-worlds", observing[0],
            "--observer-steps", observing[1], "--seed", config.seed, "--out", model,
        )  # fmt: skip
        name = "model" if full else f"model of {count} worlds"
        yield Stage(name, words, model, (training,))
    for name in config.redrawn:
        redrawn = ("--redraw", "episode", *REDRAWN[name], *redrawn_options(config))
        yield collect(name, directory / name, TRAINING, 1, *redrawn)


def redrawn_options(config: WorldsConfig) -> Options:
    """How the trials are collected whose worlds are redrawn: their steps, and of what rollouts.

    They take as many environment steps as all training trials together, or a share of these.
    """
    total = round(config.rival_steps * config.num_worlds * config.total_steps)
    num_steps = max(8, min(NUM_STEPS, total // (NUM_ENVS * FEWEST_ROLLOUTS)))
    rollout = NUM_ENVS * num_steps
    iterations = max(2, total // rollout)
    return (
        "--total-steps", iterations * rollout,
        "--checkpoint-interval", iterations // math.gcd(iterations, CHECKPOINTS),
        "--ppo.num-envs", NUM_ENVS, "--ppo.num-steps", num_steps,
        "--ppo.num-minibatches", max(1, rollout // SAMPLES),
    )  # fmt: skip
