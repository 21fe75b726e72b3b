"""`tipl demo`, `report`, `costs`, `benchmark`, `accelerate`, `scaling`, `worlds benchmark`."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from tyro.conf import Positional, arg

from tipl.cli import Prepared, given_command
from tipl.cli.parsing import parsed
from tipl.core.terminal import console, note
from tipl.errors import TiplError
from tipl.experiments.config import (
    AccelerationConfig,
    BenchmarkConfig,
    DemoConfig,
    ExperimentConfig,
)
from tipl.experiments.scaling.config import ScalingConfig
from tipl.experiments.worlds.config import WorldsConfig

if TYPE_CHECKING:
    from tipl.experiments.pipeline import AnyConfig


@dataclass(frozen=True)
class RunOptions:
    """How a benchmark or a comparison is run."""

    out: Path | None = None
    """directory of the run (default: runs/, the command's first word and the task)"""
    quick: bool = False
    """a smoke run of minutes, whose numbers show nothing"""
    fresh: bool = False
    """start over"""
    threads: int | None = None
    """of each stage (default: one for each processor)"""


def prepared(command: Callable[..., object], arguments: list[str]) -> Prepared:
    """The command; some begin with what their first argument, the task, has by default."""
    kind = KINDS.get(command)
    if kind is None or arguments[:1] in ([], ["--help"], ["-h"]):
        return command, None
    task = arguments[0]
    if task.startswith("-"):  # options first: only the parser knows where they end
        task = parsed(command, arguments).named["config"].env_id
    config = kind.for_task(task, quick="--quick" in arguments)
    return functools.partial(command, config=config), None


def demo(
    config: Annotated[DemoConfig, arg(name="")],
    out: Path = Path("runs/demo"),
    fresh: bool = False,
    threads: int | None = None,
) -> dict[str, Any]:
    """Collect, train, forecast, optimise, evaluate and report, on real physics.

    Running it again reuses what is there, and goes on with what is not.

    Args:
        config: what to do
        out: directory of the run
        fresh: start over
        threads: default: one for each processor
    """
    _check(config, out, threads)
    from tipl.experiments import demo as main_job

    results = main_job.demo(out, config, fresh=fresh, threads=threads)
    return _made(out, results)


def report(run: Positional[Path], /) -> dict[str, Any]:
    """Write the report of a run: report.html, and every number in results.jsonl.

    Args:
        run: the run's directory; it holds paths (a dataset), models (a directory for each) and
            forecasts (evaluated), as `tipl demo` makes it; or the directory of a benchmark, of a
            comparison, of a benchmark of worlds or of an experiment on scaling
    """
    if (run / "benchmark.json").exists():
        from tipl.experiments import benchmark as the_benchmark

        results = the_benchmark.report_benchmark(run).results
    elif (run / "comparison.json").exists():
        from tipl.experiments import acceleration

        results = acceleration.report_comparison(run).results
    elif (run / "worlds-benchmark.json").exists():
        from tipl.experiments import worlds

        results = worlds.report_worlds(run).rows
    elif (run / "scaling.json").exists():
        from tipl.experiments.scaling import report_scaling

        results = report_scaling(run).rows
    elif (run / "shared").is_dir() or (run / "pptb").is_dir():  # whose report would lose numbers
        raise TiplError(
            f"{run} holds a benchmark without its benchmark.json, from an earlier tipl; make its "
            f"report by `tipl benchmark TASK --out {run}`, which reuses what is there"
        )
    else:
        from tipl.experiments.run import load_run
        from tipl.report.files import check_report

        check_report(run)
        loaded = load_run(run)  # no refusal waits for what draws
        from tipl.experiments.run_report import report_run

        results = report_run(run, loaded)
    return _print_made(run, results)


def costs(run: Positional[Path], /) -> dict[str, Any]:
    """Measure what a run takes: environment steps, processor seconds, operations and memory.

    Counts the floating-point operations of trainings and forecasts, and the processor seconds of
    forecasts; those of the stages are in the run's stages.json. Writes costs.json.

    Args:
        run: the run's directory, as `tipl demo` or `tipl benchmark` makes it
    """
    from tipl.core.ownership import check_file, refuse_links
    from tipl.experiments.benchmark import ledger
    from tipl.experiments.run import load_run

    refuse_links(run)
    check_file(run / ledger.COSTS, ledger.COST_FILE)
    loaded = load_run(run)
    from tipl.experiments.benchmark.measuring_costs import measure_costs  # brings PyTorch

    found = measure_costs(loaded)
    ledger.write_costs(run / ledger.COSTS, found)
    note(f"{run / ledger.COSTS}: the costs of {len(found)} pieces of work")
    return {"costs": found}


def benchmark(
    config: Annotated[BenchmarkConfig, arg(name="")], run: Annotated[RunOptions, arg(name="")]
) -> dict[str, Any]:
    """Test the paper's claims on a task, beside all rivals, and count what everything takes.

    Collects paths, trains every model, forecasts and runs the held-out trials, and writes
    report.html, results.jsonl and the figures. Running it again goes on with what is not done.
    InvertedPendulum-v4 takes under an hour, HalfCheetah-v4 hours. `tipl benchmark HalfCheetah-v4
    --help` shows that task's defaults.

    Args:
        config: what to do
        run: how
    """
    _check(config, run.out, run.threads)
    from tipl.experiments import benchmark as the_benchmark

    found = the_benchmark.benchmark(config, **_arguments(run))
    return _print_made(found.directory, found.results)


def accelerate(
    config: Annotated[AccelerationConfig, arg(name="")], run: Annotated[RunOptions, arg(name="")]
) -> dict[str, Any]:
    """Train by PPO with jumps to forecasts of the weights, beside PPO alone and rivals.

    Writes report.html, results.jsonl and the figures; the trained policies are in the datasets
    beside them. Running it again goes on with what is not done. `tipl accelerate HalfCheetah-v4
    --help` shows that task's defaults. For jumps alone, without the comparison:
    `tipl collect ... --jumps.forecaster MODEL`.

    Args:
        config: what to compare
        run: how
    """
    _check(config, run.out, run.threads)
    from tipl.experiments import acceleration
    from tipl.experiments.acceleration.report import print_headline

    found = acceleration.accelerate(config, **_arguments(run))
    print_headline(found, console())
    return _print_made(found.directory, found.results)


def scaling(
    config: Annotated[ScalingConfig, arg(name="")], run: Annotated[RunOptions, arg(name="")]
) -> dict[str, Any]:
    """Train models on more and more trials, of more and more parameters, for more and more steps.

    One axis grows at a time, and the others stay at a base. Measured are the error and the return
    of what own forecasts for held-out trials, and the return of fresh networks that elite carries.
    A power law with an offset is fitted to the smaller sizes of each axis, and predicts the largest
    before it is trained. Writes report.html, results.jsonl and the figures. Running it again goes
    on with what is not done. `tipl scaling HalfCheetah-v4 --help` shows that task's defaults.

    Args:
        config: what to grow
        run: how
    """
    from tipl.experiments.scaling import check_scaling

    check_scaling(config, run.out, run.threads)
    from tipl.experiments.scaling import scaling as grow

    found = grow(config, **_arguments(run))
    from tipl.experiments.scaling.report import print_headline

    print_headline(found, console())
    return _print_made(found.directory, found.rows)


def worlds_benchmark(
    config: Annotated[WorldsConfig, arg(name="")], run: Annotated[RunOptions, arg(name="")]
) -> dict[str, Any]:
    """Make policies for worlds that nobody has trained in, beside all rivals.

    Collects a lineage in the training worlds, PPO in the held-out ones, domain-randomised and
    universal policies at as many steps; trains models of worlds; and measures what every method
    returns in every held-out world. Writes report.html, results.jsonl and the figures. Running it
    again goes on with what is not done, and results of stages that are in its directory already
    are used: worlds.json, training, ppo/SPLIT, randomised, universal, model.

    Args:
        config: what to compare
        run: how
    """
    from tipl.experiments import worlds

    worlds.check_worlds(config, run.out, run.threads, fresh=run.fresh)
    found = worlds.benchmark_worlds(config, **_arguments(run))
    from tipl.experiments.worlds.report import print_headline

    print_headline(found, console())
    return _print_made(found.directory, found.rows)


KINDS: dict[Callable[..., object], type[ExperimentConfig]] = {
    benchmark: BenchmarkConfig,
    accelerate: AccelerationConfig,
    scaling: ScalingConfig,
    worlds_benchmark: WorldsConfig,
}
"""What the commands do that have other defaults for some tasks."""


def _check(config: AnyConfig, out: Path | None, threads: int | None) -> None:
    """Refuses early what can be refused without the libraries that an experiment needs."""
    from tipl.experiments.pipeline import check_experiment

    check_experiment(config, out, threads)


def _arguments(run: RunOptions) -> dict[str, Any]:
    return {"out": run.out, "fresh": run.fresh, "threads": run.threads, "command": given_command()}


def _print_made(directory: Path, results: Sequence[object]) -> dict[str, Any]:
    made = _made(directory, results)
    note(f"{made['report']}: the report; {made['results']}: {len(results)} numbers")
    return made


def _made(directory: Path, results: Sequence[object]) -> dict[str, Any]:
    """The files of a report, and how many numbers it has."""
    files = {"report": directory / "report.html", "results": directory / "results.jsonl"}
    return files | {"num_results": len(results)}
