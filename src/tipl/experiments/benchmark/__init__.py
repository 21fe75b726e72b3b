"""The benchmark: the paper's claims, all rivals and the ledger, by one command for each task."""

from __future__ import annotations

import shlex
from pathlib import Path

from tipl.experiments.benchmark.config import BenchmarkConfig, benchmark_config
from tipl.experiments.benchmark.job import BenchmarkJob
from tipl.experiments.benchmark.outcome import Benchmark, load_benchmark
from tipl.experiments.benchmark.report import benchmark_report
from tipl.experiments.stages import begin_commands
from tipl.report.page import write_report_with_figures

__all__ = ["Benchmark", "BenchmarkConfig", "benchmark", "benchmark_config"]


def benchmark(
    config: BenchmarkConfig,
    out: str | Path | None = None,
    *,
    fresh: bool = False,
    threads: int | None = None,
    progress: bool = True,
    command: str | None = None,
) -> Benchmark:
    """Runs a benchmark, or what is left to do of it, and writes its report.

    Its directory then holds `report.html`, `results.jsonl`, the figures as SVG and PNG in
    `figures`, and all that its stages left.

    Args:
        config: what to do; see `benchmark_config`.
        out: directory; by default `runs/benchmark/` and the task.
        fresh: remove an earlier run's results from the directory first.
        threads: of each stage; by default one for each processor.
        progress: show the stages and their progress bars.
        command: the command line, for the record; by default one with the task and directory.

    Raises:
        TiplError: the directory holds something else, an option is impossible, or a stage failed.
    """
    stages = begin_commands(
        "benchmark", config.env_id, out, fresh=fresh, threads=threads, progress=progress
    )
    directory = stages.directory
    BenchmarkJob(directory, config, stages, threads).run()
    command = command or shlex.join(["tipl", "benchmark", config.env_id, "--out", str(directory)])
    found = load_benchmark(directory, config, command)
    write_report_with_figures(benchmark_report(found), directory)
    return found
