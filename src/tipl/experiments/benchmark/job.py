"""The stages of a benchmark: commands of tipl, one after the other, and what they leave."""

from __future__ import annotations

from pathlib import Path

from tipl.experiments.benchmark.config import BenchmarkConfig
from tipl.experiments.stages import CommandStages

__all__ = ["BenchmarkJob", "pptb_directory", "pptb_name"]

SHARED = ", shared initial network"
"""What the stages of that experiment are called behind their names."""

PPTB_CHECKPOINTS = 12
"""Places on the paths of PPO with and without PPTB at which policies act by their mean."""


def pptb_name(rank: int, boost: float) -> str:
    """What a run of PPO with trimming and boosting is called, in files and figures."""
    return f"rank {rank}, boost {boost:g}"


def pptb_directory(directory: Path, rank: int, boost: float) -> Path:
    """Where the paths of such a run lie in a benchmark's directory."""
    return directory / "pptb" / f"rank-{rank}-boost-{boost:g}"


class BenchmarkJob:
    """The stages of a benchmark, in order.

    Its directory is that of a run (see `tipl.experiments.runs.load_run`), with another run in
    `shared` whose trials start from one network, and datasets of PPO with trimming and boosting
    in `pptb`.

    Args:
        directory: of the benchmark.
        config: what to do.
        stages: does each command once.
        threads: of the commands; by default one for each processor.
    """

    def __init__(
        self, directory: Path, config: BenchmarkConfig, stages: CommandStages, threads: int | None
    ) -> None:
        self.directory, self.config, self.stages = directory, config, stages
        self._threads = [] if threads is None else ["--threads", str(threads)]

    def run(self) -> None:
        """Does every stage that is not done yet: the collections first.

        Raises:
            TiplError: a stage failed.
        """
        self._collect("collect", self.directory / "paths", self.config.num_trials)
        if self.config.shared_trials:
            self._collect(
                f"collect{SHARED}",
                self.directory / "shared" / "paths",
                self.config.shared_trials,
                *("--initial", "shared"),
            )
        if self.config.pptb_trials:
            self._path_trimming_and_boosting()
        models = self._train("paths", self._models(), self.config.held_out)
        self._forecast(models)
        if self.config.shared_trials:
            self._forecast(self._train("shared/paths", self._path_models(), 0.5, SHARED), SHARED)

    def _collect(self, name: str, out: Path, num_trials: int, *options: str) -> None:
        config = self.config
        self.stages.run(
            name,
            [
                *("collect", config.env_id),
                *("--num-trials", str(num_trials), "--total-steps", str(config.total_steps)),
                *("--checkpoint-interval", str(config.checkpoint_interval)),
                *("--seed", str(config.seed), *options, "--out", str(out)),
            ],
            out / "metadata.json",
            effort=self._threads,
        )

    def _run_checkpoints(self, name: str, paths: Path, collected: str) -> None:
        """Returns of some checkpoints by their mean actions, for the comparison with PPTB."""
        config = self.config
        last = config.total_steps // 2048 // config.checkpoint_interval
        self.stages.run(
            name,
            [
                *("paths", "evaluate", str(paths), "--episodes", str(config.episodes)),
                *("--every", str(max(1, last // PPTB_CHECKPOINTS))),
            ],
            paths / "evaluation" / "evaluation.json",
            needs=[collected],
            effort=self._threads,
        )

    def _models(self) -> dict[str, list[str]]:
        """The models of independent initial networks, with their options."""
        config = self.config
        behaviour = ["--behaviour-weight", f"{config.own_behaviour_weight:g}"]
        steps = (
            [] if config.nowcaster_steps is None else ["--num-steps", str(config.nowcaster_steps)]
        )
        return self._path_models() | {
            "elite": [
                *("--model", "neuron", "--targets", "elite"),
                *("--num-steps", str(config.elite_steps), "--rounds", "3"),
            ],
            "own": [
                *("--model", "neuron", "--targets", "own", "--condition-on-return"),
                *(behaviour if config.own_behaviour_weight else ()),
                *("--num-steps", str(config.own_steps), "--rounds", "3"),
            ],
            "wnn": ["--model", "wnn", *steps],
            "nino": ["--model", "nino", *steps],
        }

    def _path_models(self) -> dict[str, list[str]]:
        """A PathTransformer for each kind of basis that temporal SVD gives."""
        steps = ["--num-steps", str(self.config.path_steps)]
        return {
            "path": ["--basis", "path", *steps],
            "joint": ["--basis", "joint", *steps],
            "raw": ["--basis", "joint", "--center", "none", *steps],
        }

    def _train(
        self, paths: str, models: dict[str, list[str]], held_out: float, label: str = ""
    ) -> dict[str, Path]:
        """Trains models on paths; returns their directories by stage."""
        made: dict[str, Path] = {}
        for name, options in models.items():
            out = (self.directory / paths).with_name("models") / name
            stage = f"train ({name}){label}"
            self.stages.run(
                stage,
                [
                    *("train", str(self.directory / paths), "--held-out", f"{held_out:g}"),
                    *(*options, "--seed", str(self.config.seed), "--out", str(out)),
                ],
                out / "config.json",
                needs=[f"collect{label}"],
                effort=self._threads,
            )
            made[stage] = out
        return made

    def _forecast(self, models: dict[str, Path], label: str = "") -> None:
        """Forecasts the held-out trials by models and their rivals, and runs them."""
        config, run = self.config, next(iter(models.values())).parents[1]
        out = run / "forecasts"
        self.stages.run(
            f"forecast{label}",
            [
                *("forecast", *map(str, models.values())),
                *("--paths", str(run / "paths"), "--out", str(out)),
                *("--starts", *(f"{start:g}" for start in config.starts)),
                *("--horizons", *map(str, config.horizons)),
            ],
            out / "forecasts.json",
            needs=list(models),
        )
        self.stages.run(
            f"evaluate{label}",
            ["evaluate", str(out), "--episodes", str(config.episodes)],
            out / "returns.safetensors",
            needs=[f"forecast{label}"],
            effort=self._threads,
        )

    def _path_trimming_and_boosting(self) -> None:
        """PPO with PPTB: trials that are paired with the first ones without."""
        self._run_checkpoints("paths evaluate", self.directory / "paths", "collect")
        for rank, boost in self.config.pptb:
            name, out = pptb_name(rank, boost), pptb_directory(self.directory, rank, boost)
            collected = f"collect (PPTB, {name})"
            options = ("--pptb.rank", str(rank), "--pptb.boost", f"{boost:g}")
            self._collect(collected, out, self.config.pptb_trials, *options)
            self._run_checkpoints(f"paths evaluate (PPTB, {name})", out, collected)
