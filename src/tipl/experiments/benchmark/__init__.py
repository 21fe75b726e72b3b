"""The benchmark: the paper's claims, all rivals and the ledger, by one command for each task."""

from __future__ import annotations

from pathlib import Path
from typing import Unpack

from tipl.experiments.benchmark.outcome import Benchmark, load_benchmark
from tipl.experiments.benchmark.stages import benchmark_stages
from tipl.experiments.config import BenchmarkConfig
from tipl.experiments.pipeline import How, run_pipeline
from tipl.report.files import check_report

__all__ = ["Benchmark", "BenchmarkConfig", "benchmark", "report_benchmark"]


def benchmark(
    config: BenchmarkConfig, out: str | Path | None = None, **how: Unpack[How]
) -> Benchmark:
    """Runs a benchmark, or what is left to do of it, and writes its report.

    Its directory then holds `report.html`, `results.jsonl`, the figures as SVG and PNG in
    `figures`, and all that its stages left. For arguments and errors see `run_pipeline`.
    """
    directory = run_pipeline(config, benchmark_stages, out, **how)
    config.write_record(directory, how.get("command"))
    return report_benchmark(directory)


def report_benchmark(directory: str | Path) -> Benchmark:
    """Writes the report of a benchmark whose stages are done; returns what it says.

    Raises:
        TiplError: a stage's result is missing or damaged, or a file cannot be written.
    """
    check_report(Path(directory))
    found = load_benchmark(directory)
    from tipl.experiments.benchmark.report import benchmark_report  # late: it brings what draws
    from tipl.report.page import write_report

    write_report(benchmark_report(found), found.directory)
    return found
