"""The stages of a comparison: each method's trials in each architecture, and their checkpoints."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tipl.experiments.config import AccelerationConfig
from tipl.experiments.pipeline import Stage
from tipl.forecast.hub import model_directory, shipped_models
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

BEST_POLICY = "best-policy"
"""The policy that is copied, in a comparison's directory."""


@dataclass(frozen=True)
class Method:
    """One way to train.

    Attributes:
        name: what tables and figures call it.
        key: the name of its directory.
        options: of `tipl collect`, beside those that all methods share.
        reads: the directory of what the weights jump to.
        any_width: whether it works for every architecture, not the first alone.
    """

    name: str
    key: str
    options: tuple[str, ...] = ()
    reads: tuple[Path, ...] = ()
    any_width: bool = True


def comparison_methods(config: AccelerationConfig, directory: Path) -> list[Method]:
    """All ways to train that are compared in a comparison's directory, PPO alone first."""

    def jumping(name: str, key: str, source: str, *options: str, any_width: bool = True) -> Method:
        shipped = source in shipped_models()
        reads = (model_directory(source) if shipped else Path(source),)
        return Method(name, key, ("--jumps.forecaster", source, *options), reads, any_width)

    blind = ("--jumps.no-gate", "--jumps.max-jumps", "1")
    found = [Method(PPO_ALONE, "ppo")]
    if config.paths is not None:
        best = str(directory / BEST_POLICY)
        found.append(jumping("best stored policy, copied", "copy", best, *blind, any_width=False))
    found.append(Method("PPTB", "pptb", ("--pptb.rank", "16", "--pptb.boost", "0.1")))
    relex = ("--jumps.forecaster", "relex", *_early_if_short(config.total_steps))
    found.append(Method("RELEX, gated", "relex", relex))
    if config.nino is not None:
        every = str(max(8, 4 * config.checkpoint_interval))
        often = ("--jumps.no-gate", "--jumps.every", every, "--jumps.horizons", "5")
        found.append(jumping("NiNo", "nino", config.nino, *often))
    if (model := config.forecaster) is not None:
        found.append(jumping("NeuronTransformer, gated", "ours", model))
        found.append(jumping("NeuronTransformer, no gate", "ours-blind", model, *blind))
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
        best = directory / BEST_POLICY
        arguments = ("paths", "best", config.paths, "--out", best)
        stages.append(Stage("best stored policy", arguments, best, (Path(config.paths),)))
    for width, methods in trained_methods(config, directory):
        for method in methods:
            stages += _trials(config, directory, width, method)
    return stages


def _trials(
    config: AccelerationConfig, directory: Path, width: int, method: Method
) -> Iterator[Stage]:
    """Trains by a method, and runs the checkpoints."""
    paths, name = trials_directory(directory, width, method), collection_name(width, method)
    arguments = (
        *("collect", config.env_id, "--num-trials", config.num_trials),
        *("--total-steps", config.total_steps),
        *("--checkpoint-interval", config.checkpoint_interval),
        *("--hidden-sizes", width, width, "--seed", config.seed),
        *(*method.options, "--out", paths),
    )
    yield Stage(name, arguments, paths, method.reads)
    arguments = ("paths", "evaluate", paths, "--episodes", config.episodes)
    yield Stage(f"{name}: run its checkpoints", arguments, paths / "evaluation", (paths,))
