"""The stages of a comparison: each method's trials, and their checkpoints run."""

from __future__ import annotations

from pathlib import Path

from tipl.experiments.acceleration.config import AccelerationConfig, Method
from tipl.experiments.stages import CommandStages

__all__ = ["AccelerationJob", "best_policy_directory", "paths_of"]


def best_policy_directory(directory: Path) -> Path:
    """Where the policy that is copied lies in a comparison's directory."""
    return directory / "best-policy"


def paths_of(directory: Path, width: int, method: Method) -> Path:
    """Where the trials of a method lie in a comparison's directory."""
    return directory / f"{width}-{width}" / method.key


def collect_stage(width: int, method: Method) -> str:
    """What the stage is called that collects a method's trials."""
    return f"{method.name}, {width}-{width}"


class AccelerationJob:
    """The stages of a comparison, in order.

    Args:
        directory: of the comparison.
        config: what to do.
        stages: does each command once.
        threads: of the commands; by default one for each processor.
    """

    def __init__(
        self,
        directory: Path,
        config: AccelerationConfig,
        stages: CommandStages,
        threads: int | None,
    ) -> None:
        self.directory, self.config, self.stages = directory, config, stages
        self._threads = [] if threads is None else ["--threads", str(threads)]

    def run(self) -> None:
        """Does every stage that is not done yet.

        Raises:
            TiplError: a stage failed.
        """
        best = best_policy_directory(self.directory)
        if self.config.paths is not None:
            self.stages.run(
                "best stored policy",
                ["paths", "best", self.config.paths, "--out", str(best)],
                best / "policy.json",
            )
        methods = self.config.methods(best)
        for i, width in enumerate(self.config.widths):
            for method in methods:
                if method.any_width or i == 0:
                    self._train(width, method)

    def _train(self, width: int, method: Method) -> None:
        config, out = self.config, paths_of(self.directory, width, method)
        collected = collect_stage(width, method)
        copied = "best-policy" in "".join(method.options)
        self.stages.run(
            collected,
            [
                *("collect", config.env_id, "--num-trials", str(config.num_trials)),
                *("--total-steps", str(config.total_steps)),
                *("--checkpoint-interval", str(config.checkpoint_interval)),
                *("--hidden-sizes", str(width), str(width), "--seed", str(config.seed)),
                *(*method.options, "--out", str(out)),
            ],
            out / "metadata.json",
            needs=["best stored policy"] if copied else [],
            effort=self._threads,
        )
        self.stages.run(
            f"{collected}: run its checkpoints",
            ["paths", "evaluate", str(out), "--episodes", str(config.episodes)],
            out / "evaluation" / "evaluation.json",
            needs=[collected],
            effort=self._threads,
        )
