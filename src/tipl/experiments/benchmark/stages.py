"""The stages of a benchmark: collections first, then models, forecasts and their returns."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

from tipl.experiments.config import BenchmarkConfig
from tipl.experiments.pipeline import Stage
from tipl.experiments.stages import (
    collect_stage,
    evaluate_stage,
    forecast_stage,
    paths_evaluate_stage,
    train_stage,
)

__all__ = ["benchmark_stages", "pptb_directory", "pptb_name"]

SHARED = ", shared initial network"
"""What the stages of that experiment are called behind their names."""

PPTB_CHECKPOINTS = 12
"""Places on the paths of PPO with and without PPTB at which policies act by their mean."""

Options = tuple[object, ...]


def pptb_name(rank: int, boost: float) -> str:
    """What a run of PPO with trimming and boosting is called, in files and figures."""
    return f"rank {rank}, boost {boost:g}"


def pptb_directory(directory: Path, rank: int, boost: float) -> Path:
    """Where the paths of such a run lie in a benchmark's directory."""
    return directory / "pptb" / f"rank-{rank}-boost-{boost:g}"


def benchmark_stages(config: BenchmarkConfig, directory: Path) -> list[Stage]:
    """The stages of a benchmark in its directory, in order.

    The directory is that of a run (see `tipl.experiments.run.load_run`), with another run in
    `shared` whose trials start from one network, and datasets of PPO with trimming and boosting
    in `pptb`.
    """
    shared = directory / "shared"
    stages = [_collect(config, "collect", directory / "paths", config.num_trials)]
    if config.shared_trials:
        name, paths = f"collect{SHARED}", shared / "paths"
        stages.append(_collect(config, name, paths, config.shared_trials, "--initial", "shared"))
    if config.pptb_trials:
        stages += _path_trimming_and_boosting(config, directory)
    stages += _models_and_forecasts(config, directory, _models(config), config.held_out)
    if config.shared_trials:
        stages += _models_and_forecasts(config, shared, _path_models(config), 0.5, SHARED)
    return stages


def _collect(
    config: BenchmarkConfig, name: str, paths: Path, num_trials: int, *options: object
) -> Stage:
    return collect_stage(
        name,
        config.env_id,
        paths,
        *("--num-trials", num_trials, "--total-steps", config.total_steps),
        *("--checkpoint-interval", config.checkpoint_interval, "--seed", config.seed),
        *options,
    )


def _path_trimming_and_boosting(config: BenchmarkConfig, directory: Path) -> Iterator[Stage]:
    """PPO with PPTB: trials that are paired with the first ones without."""
    every = ("--every", max(1, config.num_checkpoints // PPTB_CHECKPOINTS))
    yield paths_evaluate_stage("paths evaluate", directory / "paths", config.episodes, *every)
    for rank, boost in config.pptb:
        name, paths = pptb_name(rank, boost), pptb_directory(directory, rank, boost)
        options = ("--pptb.rank", rank, "--pptb.boost", boost)
        yield _collect(config, f"collect (PPTB, {name})", paths, config.pptb_trials, *options)
        yield paths_evaluate_stage(f"paths evaluate (PPTB, {name})", paths, config.episodes, *every)


def _models(config: BenchmarkConfig) -> dict[str, Options]:
    """The models of independent initial networks, with their options."""
    behaviour = ("--behaviour-weight", config.own_behaviour_weight)
    nowcaster = ("--num-steps", config.nowcaster_steps) if config.nowcaster_steps else ()
    return _path_models(config) | {
        "elite": (
            *("--model", "neuron", "--targets", "elite"),
            *("--num-steps", config.elite_steps, "--rounds", 3),
        ),
        "own": (
            *("--model", "neuron", "--targets", "own", "--condition-on-return"),
            *(behaviour if config.own_behaviour_weight else ()),
            *("--num-steps", config.own_steps, "--rounds", 3),
        ),
        "wnn": ("--model", "wnn", *nowcaster),
        "nino": ("--model", "nino", *nowcaster),
    }


def _path_models(config: BenchmarkConfig) -> dict[str, Options]:
    """A PathTransformer for each kind of basis that temporal SVD gives."""
    steps = ("--num-steps", config.path_steps)
    return {
        "path": ("--basis", "path", *steps),
        "joint": ("--basis", "joint", *steps),
        "raw": ("--basis", "joint", "--center", "none", *steps),
    }


def _models_and_forecasts(
    config: BenchmarkConfig,
    run: Path,
    models: Mapping[str, Options],
    held_out: float,
    label: str = "",
) -> Iterator[Stage]:
    """Trains models on a run's paths, forecasts its held-out trials, and runs the forecasts."""
    paths, forecasts = run / "paths", run / "forecasts"
    for name, options in models.items():
        model = run / "models" / name
        yield train_stage(f"train ({name}){label}", paths, model, held_out, options, config.seed)
    yield forecast_stage(
        f"forecast{label}",
        [run / "models" / name for name in models],
        paths,
        forecasts,
        *("--starts", *config.starts, "--horizons", *config.horizons),
    )
    yield evaluate_stage(f"evaluate{label}", forecasts, config.episodes)
