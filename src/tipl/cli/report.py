"""`tipl report`."""

from __future__ import annotations

from pathlib import Path

from tyro.conf import Positional

from tipl.experiments.run_report import report_run

__all__ = ["report"]


def report(run: Positional[Path], /) -> None:
    """Write the report of a run: report.html, and every number in results.jsonl.

    Args:
        run: the run's directory; it holds paths (a dataset), models (a directory for each) and
            forecasts (evaluated), as `tipl demo` makes it
    """
    results = report_run(run)
    print(f"{run / 'report.html'}: the report; {run / 'results.jsonl'}: {len(results)} numbers")
