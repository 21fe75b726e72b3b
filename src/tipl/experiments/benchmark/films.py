"""The policies of a benchmark in motion: before, at PPO's end, and after inference."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from tipl.evaluation.film import animation, film, save_filmstrip, still_strip
from tipl.evaluation.pictures import missing_renderer
from tipl.experiments.run import Run
from tipl.forecast.trained import TrainedForecaster
from tipl.report.page import Picture, Section

__all__ = ["film_section"]

TITLE = "Before, after PPO, and after inference"


def film_section(run: Run, figures: Path) -> Section:
    """One held-out network three times: untrained, at PPO's end, and as the best model made it.

    The network is that whose return at PPO's end is the median of the held-out trials; the model is
    the one with the highest mean return over all of them. Also writes `film.gif` and `film.png`.
    Without a renderer, the section says why it has no picture.

    Args:
        run: the evaluated run.
        figures: directory for the files.
    """
    missing = missing_renderer()
    if missing is not None:
        return Section(TITLE, f"The films are left out, as nothing can be drawn here: {missing}")
    ends = run.returns.checkpoints[:, -1].mean(axis=1)
    trial = int(np.argsort(ends)[len(ends) // 2])
    untrained = run.forecasts.paths.policy(trial, 0)
    model = _best_model(run)
    policies = {
        "untrained": untrained,
        f"PPO, {int(run.paths.global_step[-1]):,} steps": run.forecasts.paths.policy(trial, -1),
        "after inference, 0 steps": model.optimize(untrained),
    }
    films = [film(policy) for policy in policies.values()]
    labels = list(policies)
    figures.mkdir(exist_ok=True)
    save_filmstrip(figures / "film.gif", films, labels)
    returns = "; ".join(
        f"{label}: {one.episodic_return:,.0f}".replace("-", "−")
        for label, one in zip(labels, films, strict=True)
    )
    picture = Picture(
        animation(films, labels),
        f"Three films of policies. {returns}.",
        still_strip(films, labels),
        animation(films, labels, columns=1),
    )
    return Section(
        TITLE,
        f"The same held-out network three times, in the same episode. Return: {returns}. Inference "
        f"is one call of the {model.name}; the trial is the median one of PPO's.",
        pictures=[picture],
    )


def _best_model(run: Run) -> TrainedForecaster:
    """The model whose optimised networks return most on average."""
    end = run.paths.num_checkpoints - 1
    means = {
        case.method: float(run.returns.forecasts[f].mean())
        for f, case in enumerate(run.forecasts.cases)
        if case.start == 0 and case.horizon == end
    }
    ways = [asked for model in run.models for asked in model.all_ways() if asked.name in means]
    return max(ways, key=lambda asked: means[asked.name])
