"""`tipl evaluate`."""

from __future__ import annotations

from pathlib import Path

from rich.console import Console
from tyro.conf import Positional

from tipl.errors import TiplError
from tipl.evaluation import returns as evaluation
from tipl.experiments.forecast_results import forecast_results
from tipl.experiments.forecast_sets import ForecastSet, evaluate_command, evaluate_forecasts
from tipl.experiments.run_report import print_headline
from tipl.policies.policy import Policy
from tipl.report.results import write_results

__all__ = ["evaluate"]


def evaluate(
    target: Positional[Path], /, episodes: int = 20, seed: int = 0, threads: int | None = None
) -> None:
    """Run a policy, or a set of forecasts, in its environment.

    Policies act by their mean, for whole episodes. The returns of forecasts are also written, as
    results.jsonl, into their directory.

    Args:
        target: directory of a policy (`tipl optimize`) or of forecasts (`tipl forecast`)
        episodes: episodes of each policy
        seed: of the episodes' starts
        threads: default: one for each processor
    """
    if (target / "policy.json").exists():
        policy = Policy.load(target)
        print(evaluation.evaluate(policy, episodes, seed=seed, threads=threads, progress=True))
    elif (target / "forecasts.json").exists():
        _evaluate_forecasts(target, episodes, seed, threads)
    else:
        raise TiplError(
            f"there is no policy and no set of forecasts in {target}; give a directory that "
            "`tipl optimize` or `tipl forecast` made"
        )


def _evaluate_forecasts(directory: Path, episodes: int, seed: int, threads: int | None) -> None:
    forecasts = ForecastSet.load(directory)
    returns = evaluate_forecasts(
        directory, forecasts, episodes, seed=seed, threads=threads, progress=True
    )
    command = evaluate_command(directory, episodes, seed)
    results = forecast_results(forecasts, returns, command)
    write_results(directory / "results.jsonl", results)
    print_headline(results, forecasts.paths.num_checkpoints, Console())
    print(f"All numbers: {directory / 'results.jsonl'}")
