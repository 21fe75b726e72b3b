"""`tipl demo`, `report`, `costs`, `benchmark` and `accelerate`: whole experiments."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, TypeVar

import tyro
from tyro.conf import Positional, arg

from tipl.cli import given_command
from tipl.errors import TiplError
from tipl.experiments.config import (
    AccelerationConfig,
    BenchmarkConfig,
    DemoConfig,
    ExperimentConfig,
)

Command = TypeVar("Command", bound=Callable[..., None])


def _with_defaults_of_the_task(kind: type[ExperimentConfig]) -> Callable[[Command], Command]:
    """Lets a command begin with what its first argument, the task, has otherwise by default."""

    def with_defaults(command: Command) -> Command:
        def for_arguments(arguments: Sequence[str]) -> Callable[..., None]:
            if not arguments or {"--help", "-h"} & set(arguments[:1]):
                return command
            task = arguments[0]
            if task.startswith("-"):  # options first: only the parser knows where they end
                named = functools.wraps(command)(lambda config, **others: config.env_id)
                task = tyro.cli(named, args=list(arguments))
            config = kind.for_task(task, quick="--quick" in arguments)
            return functools.partial(command, config=config)

        command.for_arguments = for_arguments  # type: ignore[attr-defined]
        return command

    return with_defaults


def demo(
    config: Annotated[DemoConfig, arg(name="")],
    out: Path = Path("runs/demo"),
    fresh: bool = False,
    threads: int | None = None,
) -> None:
    """Collect, train, forecast, optimise, evaluate and report, on real physics.

    Running it again reuses what is there, and goes on with what is not.

    Args:
        config: what to do
        out: directory of the run
        fresh: start over
        threads: default: one for each processor
    """
    from tipl.experiments import demo as main_job

    main_job.demo(out, config, fresh=fresh, threads=threads)


def report(run: Positional[Path], /) -> None:
    """Write the report of a run: report.html, and every number in results.jsonl.

    Args:
        run: the run's directory; it holds paths (a dataset), models (a directory for each) and
            forecasts (evaluated), as `tipl demo` makes it; or the directory of a benchmark or of a
            comparison
    """
    if (run / "benchmark.json").exists():
        from tipl.experiments import benchmark as the_benchmark

        results = the_benchmark.report_benchmark(run).results
    elif (run / "comparison.json").exists():
        from tipl.experiments import acceleration

        results = acceleration.report_comparison(run).results
    elif (run / "shared").is_dir() or (run / "pptb").is_dir():  # whose report would lose numbers
        raise TiplError(
            f"{run} holds a benchmark without its benchmark.json, from an earlier tipl; make its "
            f"report by `tipl benchmark TASK --out {run}`, which reuses what is there"
        )
    else:
        from tipl.experiments import run_report

        results = run_report.report_run(run)
    _print_made(run, results)


def costs(run: Positional[Path], /) -> None:
    """Measure what a run takes: environment steps, processor seconds, operations and memory.

    Counts the floating-point operations of trainings and forecasts, and the processor seconds of
    forecasts; those of the stages are in the run's stages.json. Writes costs.json.

    Args:
        run: the run's directory, as `tipl demo` or `tipl benchmark` makes it
    """
    from tipl.experiments.benchmark import ledger
    from tipl.experiments.run import load_run

    found = ledger.measure_costs(load_run(run))
    ledger.write_costs(run / ledger.COSTS, found)
    print(f"{run / ledger.COSTS}: the costs of {len(found)} pieces of work")


@_with_defaults_of_the_task(BenchmarkConfig)
def benchmark(
    config: Annotated[BenchmarkConfig, arg(name="")],
    out: Path | None = None,
    quick: bool = False,
    fresh: bool = False,
    threads: int | None = None,
) -> None:
    """Test the paper's claims on a task, beside all rivals, and count what everything takes.

    Collects paths, trains every model, forecasts and runs the held-out trials, and writes
    report.html, results.jsonl and the figures. Running it again goes on with what is not done.
    InvertedPendulum-v4 takes under an hour, HalfCheetah-v4 hours. `tipl benchmark HalfCheetah-v4
    --help` shows that task's defaults.

    Args:
        config: what to do
        out: directory of the benchmark (default: runs/benchmark/ and the task)
        quick: a smoke run of minutes, whose numbers show nothing
        fresh: start over
        threads: of each stage (default: one for each processor)
    """
    from tipl.experiments import benchmark as the_benchmark

    found = the_benchmark.benchmark(
        config, out, fresh=fresh, threads=threads, command=given_command()
    )
    _print_made(found.directory, found.results)


@_with_defaults_of_the_task(AccelerationConfig)
def accelerate(
    config: Annotated[AccelerationConfig, arg(name="")],
    out: Path | None = None,
    quick: bool = False,
    fresh: bool = False,
    threads: int | None = None,
) -> None:
    """Train by PPO with jumps to forecasts of the weights, beside PPO alone and rivals.

    Writes report.html, results.jsonl and the figures; the trained policies are in the datasets
    beside them. Running it again goes on with what is not done. `tipl accelerate HalfCheetah-v4
    --help` shows that task's defaults. For jumps alone, without the comparison:
    `tipl collect ... --jumps.forecaster MODEL`.

    Args:
        config: what to compare
        out: directory of the comparison (default: runs/accelerate/ and the task)
        quick: a smoke run of minutes, whose numbers show nothing
        fresh: start over
        threads: of each stage (default: one for each processor)
    """
    from rich.console import Console

    from tipl.experiments import acceleration

    found = acceleration.accelerate(
        config, out, fresh=fresh, threads=threads, command=given_command()
    )
    acceleration.print_headline(found, Console())
    _print_made(found.directory, found.results)


def _print_made(directory: Path, results: Sequence[object]) -> None:
    print(
        f"{directory / 'report.html'}: the report; {directory / 'results.jsonl'}: "
        f"{len(results)} numbers"
    )
