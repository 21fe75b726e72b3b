"""The stages of a comparison: each method's trials in each architecture, and their checkpoints."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tipl.experiments.config import AccelerationConfig
from tipl.experiments.pipeline import Stage
from tipl.experiments.stages import collect_stage, model_files, paths_evaluate_stage
from tipl.ppo.config import PPOConfig

__all__ = [
    "PPO_ALONE",
    "Method",
    "acceleration_stages",
    "collection_name",
    "comparison_methods",
    "trained_methods",
    "trials_directory",
]

PPO_ALONE = "PPO"
"""The method that all others are compared with."""


@dataclass(frozen=True)
class Method:
    """One way to train.

    Attributes:
        name: what tables and figures call it.
        key: the name of its directory.
        options: of `tipl collect`, beside those that all methods share.
        reads: files of what the weights jump to.
        any_width: whether it works for every architecture, not the first alone.
    """

    name: str
    key: str
    options: tuple[str, ...] = ()
    reads: tuple[Path, ...] = ()
    any_width: bool = True


def comparison_methods(config: AccelerationConfig, directory: Path) -> list[Method]:
    """All ways to train that are compared in a comparison's directory, PPO alone first."""
    blind = ("--jumps.no-gate", "--jumps.max-jumps", "1")
    found = [Method(PPO_ALONE, "ppo")]
    if config.paths is not None:
        policy = directory / "best-policy"
        copied = ("--jumps.forecaster", str(policy), *blind)
        found.append(
            Method(
                "best stored policy, copied",
                "copy",
                copied,
                (policy / "policy.json",),
                any_width=False,
            )
        )
    found.append(Method("PPTB", "pptb", ("--pptb.rank", "16", "--pptb.boost", "0.1")))
    relex = ("--jumps.forecaster", "relex", *_early_if_short(config.total_steps))
    found.append(Method("RELEX, gated", "relex", relex))
    if config.nino is not None:
        every = str(max(8, 4 * config.checkpoint_interval))
        often = ("--jumps.no-gate", "--jumps.every", every, "--jumps.horizons", "5")
        nino = ("--jumps.forecaster", config.nino, *often)
        found.append(Method("NiNo", "nino", nino, model_files(config.nino)))
    if config.forecaster is not None:
        ours = ("--jumps.forecaster", config.forecaster)
        reads = model_files(config.forecaster)
        found.append(Method("NeuronTransformer, gated", "ours", ours, reads))
        found.append(Method("NeuronTransformer, no gate", "ours-blind", (*ours, *blind), reads))
    return found


def _early_if_short(total_steps: int) -> tuple[str, ...]:
    """Lets extrapolations begin early in trials that would be half over otherwise."""
    iterations = total_steps // PPOConfig().num_steps
    return () if iterations >= 64 else ("--jumps.min-history", str(max(2, iterations // 4)))


def trained_methods(
    config: AccelerationConfig, directory: Path
) -> Iterator[tuple[int, list[Method]]]:
    """For each architecture, units of its hidden layers and the methods that train it."""
    methods = comparison_methods(config, directory)
    for i, width in enumerate(config.widths):
        yield width, [method for method in methods if method.any_width or i == 0]


def trials_directory(directory: Path, width: int, method: Method) -> Path:
    """Where the trials of a method lie in a comparison's directory."""
    return directory / f"{width}-{width}" / method.key


def collection_name(width: int, method: Method) -> str:
    """What the stage is called that collects a method's trials."""
    return f"{method.name}, {width}-{width}"


def acceleration_stages(config: AccelerationConfig, directory: Path) -> list[Stage]:
    """The stages of a comparison in its directory, in order."""
    stages = []
    if config.paths is not None:
        best = directory / "best-policy"
        words = ("paths", "best", config.paths, "--out", str(best))
        reads = (Path(config.paths) / "metadata.json",)
        stages.append(Stage("best stored policy", words, best / "policy.json", reads))
    for width, methods in trained_methods(config, directory):
        for method in methods:
            stages += _trials(config, directory, width, method)
    return stages


def _trials(
    config: AccelerationConfig, directory: Path, width: int, method: Method
) -> Iterator[Stage]:
    """Trains by a method, and runs the checkpoints."""
    paths, name = trials_directory(directory, width, method), collection_name(width, method)
    yield collect_stage(
        name,
        config.env_id,
        paths,
        *("--num-trials", config.num_trials, "--total-steps", config.total_steps),
        *("--checkpoint-interval", config.checkpoint_interval),
        *("--hidden-sizes", width, width, "--seed", config.seed, *method.options),
        reads=method.reads,
    )
    yield paths_evaluate_stage(f"{name}: run its checkpoints", paths, config.episodes)
