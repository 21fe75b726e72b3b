"""The figures of a run's report: each function makes one section, or one for each model."""

from __future__ import annotations

from functools import partial

import numpy as np

from tipl.core.arrays import Array
from tipl.experiments.runs import Run
from tipl.forecast.base import Target
from tipl.forecast.lines import StandingStill
from tipl.forecast.trained import TrainedForecaster
from tipl.models.path_transformer.forecaster import PathTransformerForecaster
from tipl.paths import PolicyPath
from tipl.paths.svd import TemporalSVD, information, information_dimension, singular_vectors
from tipl.report import plots
from tipl.report.page import Section
from tipl.report.tables import Table

__all__ = [
    "forecast_coordinates",
    "learning_curves",
    "optimized_networks",
    "path_coordinates",
    "svd_spectrum",
    "training_curve",
]


NUM_COORDINATES = 6
"""Coordinates that figures show."""


def _displacements(path: PolicyPath) -> Array:
    """The checkpoints `[T, P]` of a path, less the first one."""
    return np.asarray(path.params - path.params[:1].astype(np.float64))


def learning_curves(run: Run) -> Section:
    """Return of every trial over its training."""
    returns, steps = run.paths.episodic_return(), run.paths.global_step
    seen = np.isfinite(returns)
    mean = np.where(seen, returns, 0).sum(0) / np.maximum(seen.sum(0), 1)
    return Section(
        "PPO's learning curves",
        "Each thin line is one trial; the bold line is the median and the band holds the middle "
        "half. These are returns of training episodes, with exploration noise.",
        partial(
            plots.learning_curves,
            steps,
            returns.astype(np.float64),
            note=f"{run.paths.num_trials} trials",
        ),
        Table(
            "Mean return of training episodes",
            ["environment steps", "mean episodic return"],
            [[f"{step:,}", float(value)] for step, value in zip(steps, mean, strict=True)],
        ),
    )


def svd_spectrum(run: Run) -> Section:
    """Information in the first directions of the temporal SVD."""
    spectra: dict[str, Array] = {}
    paths = run.forecasts.paths
    single = [
        information(singular_vectors(_displacements(path), 1).singular_values) for path in paths
    ]
    spectra["one held-out path (median)"] = np.median(single, axis=0)
    for model in run.models:
        if isinstance(model, PathTransformerForecaster) and isinstance(
            model.tokenizer, TemporalSVD
        ):
            spectra["all training paths together"] = information(model.tokenizer.singular_values)
    needed = " and ".join(
        f"{information_dimension(a, 0.9):,} for {name}" for name, a in spectra.items()
    )
    apart = "" if run.shared_network else " Different random networks have few in common."
    return Section(
        "Information in the first directions of the temporal SVD",
        f"Directions that hold 90% of the information: {needed}.{apart}",
        partial(plots.svd_spectrum, spectra, note="displacements from each path's start"),
        Table(
            "Information a_k of the first k directions",
            ["k", *spectra],
            [
                [k, *(float(a[k - 1]) if k <= len(a) else None for a in spectra.values())]
                for k in (1, 2, 3, 4, 5, 10, 20, 50, 100, 200, 500)
                if any(k <= len(a) for a in spectra.values())
            ],
        ),
    )


def path_coordinates(run: Run) -> Section:
    """The held-out paths in their own bases."""
    paths = run.forecasts.paths
    coordinates = np.stack(
        [
            rows @ singular_vectors(rows, NUM_COORDINATES).basis.T
            for rows in map(_displacements, paths)
        ]
    )
    return Section(
        "The paths in their own coordinates",
        "In each held-out path's own basis the first coordinate grows steadily, and the later "
        "ones swing ever faster, as harmonics do: this is the regularity that can be forecast.",
        partial(
            plots.svd_coordinates,
            paths.global_step,
            coordinates,
            note=f"{paths.num_trials} held-out trials, one line each",
        ),
    )


LOSSES = {
    ("PathTransformer", "own"): "Mean squared error of the next token, in units of a mean squared "
    "one-step change: the dashed line is what standing still would have on the held-out paths.",
    ("NeuronTransformer", "own"): "Mean squared error of the forecast weights, and of the "
    "forecast policies' actions if the training weighs them, in units of standing still's: the "
    "dashed line is what standing still has on the held-out paths.",
    ("NeuronTransformer", "elite"): "Mean squared difference of the actions of carried networks "
    "from those of the best stored policy; held out are random networks that were never trained "
    "on, and the dashed line is what they do where they stand.",
    **dict.fromkeys(
        [("WNN", "own"), ("NiNo", "own")],
        "Mean squared error of the forecast weights, in units of standing still's: the dashed line "
        "is what standing still has on the held-out paths.",
    ),
}
"""What the loss is, by kind of model and target."""


def training_curve(model: TrainedForecaster, target: Target) -> Section:
    """A model's loss over its training."""
    curve = {
        name: np.array([np.nan if value is None else value for value in values], float)
        for name, values in model.settings["curves"][target].items()
    }
    return Section(
        f"Training the {model.with_options(target=target).name}",
        LOSSES[model.kind, target],
        partial(
            plots.training_curve,
            curve["step"].astype(int),
            curve["train_loss"],
            curve["held_out_loss"],
            float(curve["standing_still_loss"][-1]),
            data="random networks" if target == "elite" else "paths",
            note=f"{sum(map(len, model.training_trials.values()))} training trials",
        ),
    )


def forecast_coordinates(run: Run, model: PathTransformerForecaster) -> Section:
    """A held-out path beside its autoregressive forecasts."""
    paths = run.forecasts.paths
    path = paths[0]
    displacements = _displacements(path)
    basis = singular_vectors(displacements, NUM_COORDINATES).basis
    end = paths.num_checkpoints - 1
    drawn = []
    for start in sorted({case.start for case in run.forecasts.cases}):
        if start + 1 >= max(model.min_history, 3):
            ahead = model.forecast(path.params[: start + 1], range(1, end - start + 1))
            drawn.append((start, (ahead - path.params[0].astype(float)) @ basis.T))
    return Section(
        f"One held-out path and its forecasts by the {model.name}",
        "Solid: the true path in its own coordinates. Dashed: autoregressive forecasts to the end, "
        "each from the history before it. Where they part, the horizon has been passed.",
        partial(
            plots.true_against_forecast_coordinates,
            paths.global_step,
            displacements @ basis.T,
            drawn,
            note=f"trial {path.trial}",
        ),
    )


def optimized_networks(run: Run) -> Section:
    """Returns of untrained networks, optimised ones and PPO."""
    end = run.paths.num_checkpoints - 1
    groups = {"untrained": run.returns.checkpoints[:, 0].mean(axis=1)}
    away: dict[str, float] = {}
    for f, case in enumerate(run.forecasts.cases):
        if case.start == 0 and case.horizon == end and case.method != StandingStill.name:
            groups[case.method] = run.returns.forecasts[f].mean(axis=1)
            if run.forecasts.end_distances is not None:
                away[case.method] = float(run.forecasts.end_distances[f].mean())
    groups["PPO's own end"] = run.returns.checkpoints[:, -1].mean(axis=1)
    dot = (
        "All trials, the held-out ones too, start from the same untrained network, so the forecast "
        "from it is one and the same policy"
        if run.shared_network
        else "Each dot is a held-out random network, moved to the end of its path by forecasts "
        "from its untrained weights alone"
    )
    return Section(
        "Optimising untrained networks by inference",
        f"{dot}, with no step in the environment; below, what PPO made of the networks.",
        partial(
            plots.optimize_distribution, groups, note=f"{run.trials_note}; median and middle half"
        ),
        Table(
            "Mean episodic return. To tell learning from remembering, the last column gives the "
            "distance of the policies from the nearest end of a training path, in units of the "
            "distance of PPO's own end from it: 0 is a copy.",
            ["policies", "mean", "lowest", "highest", "distance from training ends"],
            [
                [name, float(r.mean()), float(r.min()), float(r.max()), away.get(name)]
                for name, r in groups.items()
            ],
        ),
    )
