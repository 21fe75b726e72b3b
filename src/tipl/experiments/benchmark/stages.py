"""The stages of a benchmark: collections, models, forecasts, their returns, and what it took."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from tipl.experiments.clearing import FILM_PLACE
from tipl.experiments.config import BenchmarkConfig
from tipl.experiments.pipeline import Options, Stage, forecasting, running_checkpoints, training
from tipl.models.kinds import all_kinds

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


def benchmark_stages(config: BenchmarkConfig, directory: Path) -> Iterator[Stage]:
    """The stages of a benchmark in its directory, in order.

    The directory is that of a run (see `tipl.experiments.run.load_run`), with another run in
    `shared` whose trials start from one network, and datasets of PPO with trimming and boosting
    in `pptb`.
    """
    shared, gif = directory / "shared", directory / FILM_PLACE

    def collect(name: str, paths: Path, num_trials: int, *options: object) -> Stage:
        return Stage(name, (*config.collecting(num_trials), *options, "--out", paths), paths)

    yield collect("collect", directory / "paths", config.num_trials)
    if config.shared_trials:
        trials = config.shared_trials
        yield collect(f"collect{SHARED}", shared / "paths", trials, "--initial", "shared")
    if config.pptb_trials:  # paired with the first ones without
        often = (config.episodes, "--every", max(1, config.num_checkpoints // PPTB_CHECKPOINTS))
        yield running_checkpoints("paths evaluate", directory / "paths", *often)
        for rank, boost in config.pptb:
            paths, label = pptb_directory(directory, rank, boost), pptb_name(rank, boost)
            options = (config.pptb_trials, "--pptb.rank", rank, "--pptb.boost", boost)
            yield collect(f"collect (PPTB, {label})", paths, *options)
            yield running_checkpoints(f"paths evaluate (PPTB, {label})", paths, *often)
    models, path_models = _models(config), _path_models(config)
    places = ("--starts", *config.starts, "--horizons", *config.horizons)
    yield from training(directory, models, config.held_out, config.seed)
    yield from forecasting(directory, models, config.episodes, places)
    if config.shared_trials:
        yield from training(shared, path_models, 0.5, config.seed, SHARED)
        yield from forecasting(shared, path_models, config.episodes, places, SHARED)
    forecasts = directory / "forecasts"
    trained = [directory / "models" / name for name in models]
    yield Stage("costs", ("costs", directory), directory, (*trained, forecasts))
    # left out where nothing can be drawn
    yield Stage("film", ("film", directory, "--out", gif), gif.parent, (forecasts,), needed=False)


def _models(config: BenchmarkConfig) -> dict[str, Options]:
    """The models of independent initial networks, with their options."""
    behaviour = ("--behaviour-weight", config.own_behaviour_weight)
    steps = ("--num-steps", config.nowcaster_steps) if config.nowcaster_steps else ()
    # stages are processes of their own, which know tipl's own kinds
    others = [kind.name for kind in all_kinds(registered=False) if kind.rival]
    neuron = ("--model", "neuron", "--targets")
    weighted = ("--condition-on-return", *(behaviour if config.own_behaviour_weight else ()))
    ours: dict[str, Options] = {
        "elite": (*neuron, "elite", "--num-steps", config.elite_steps, "--rounds", 3),
        "own": (*neuron, "own", *weighted, "--num-steps", config.own_steps, "--rounds", 3),
    }
    return _path_models(config) | ours | {name: ("--model", name, *steps) for name in others}


def _path_models(config: BenchmarkConfig) -> dict[str, Options]:
    """A PathTransformer for each kind of basis that temporal SVD gives."""
    steps = ("--num-steps", config.path_steps)
    return {
        "path": ("--basis", "path", *steps),
        "joint": ("--basis", "joint", *steps),
        "raw": ("--basis", "joint", "--center", "none", *steps),
    }
