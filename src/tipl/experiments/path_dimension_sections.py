"""The report's sections on the dimension of paths: is PPO more than a random walk?

Each function takes what `measure_dataset` found and makes one section, whose sentence is computed
from the numbers; `low_dimension_sections` makes them all.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import numpy as np

from tipl.core.arrays import Array
from tipl.evaluation.stats import paired_difference_interval
from tipl.experiments.path_dimension_results import REPORTED_SHARES, mean_of_known
from tipl.paths import PathDataset
from tipl.paths.dimension import (
    ACTIVITY_SHARES,
    BETAS,
    CENTERS,
    PPO_PATH,
    RANDOM_WALK,
    WHOLE_ACTOR,
    PathDimension,
    Spectrum,
    measure_dataset,
)
from tipl.report import path_dimension_plots as plots
from tipl.report.page import Section
from tipl.report.tables import Table, format_number

__all__ = [
    "activity_section",
    "coordinates_section",
    "detour_section",
    "information_section",
    "low_dimension_sections",
]


Parts = dict[str, dict[str, PathDimension]]


def low_dimension_sections(
    paths: PathDataset, measured: Sequence[PathDimension] | None = None
) -> list[Section]:
    """All four sections; `measured` is what `measure_dataset(paths)` gave, if it is at hand.

    Raises:
        TiplError: the paths cannot be measured (see `measure_dataset`).
    """
    found = measure_dataset(paths) if measured is None else measured
    return [
        information_section(found),
        coordinates_section(paths, found),
        detour_section(found),
        activity_section(found),
    ]


def information_section(measured: Sequence[PathDimension]) -> Section:
    """Information of the first directions of each part, beside a random walk's."""
    parts = _parts(measured, least=2)
    whole = parts[WHOLE_ACTOR]
    mean = {name: f"{_dimension(part).mean():.1f}" for name, part in whole.items()}
    lower = [part for part, methods in parts.items() if _is_lower(methods)]
    return Section(
        "How many directions a path needs",
        f"90% of the information in a path's displacements lies in {mean[PPO_PATH]} directions "
        f"(mean over trials); a random walk with steps of the same lengths needs "
        f"{mean[RANDOM_WALK]}. Fewer than the walk's, beyond chance: {_listed(lower)}.",
        partial(
            plots.information_by_part,
            _of(parts, lambda part: part.spectra["initial"].information),
            note=f"displacements; {_trials(measured)}; medians of PPO path and random walk in the "
            "titles",
        ),
        Table(
            "Directions D(beta) that hold the share beta of the information, mean over trials. In "
            "raw weights, as in PPTB, the first direction is mostly that of the initial network.",
            ["part, centre, method", *(f"D({beta})" for beta in BETAS)],
            [
                [
                    f"{name}, {CENTERS[center]}, {method}",
                    *(float(spectrum.dimension(beta).mean()) for beta in BETAS),
                ]
                for name, methods in parts.items()
                for center in CENTERS
                for method, part in methods.items()
                for spectrum in [part.spectra[center]]
            ],
        ),
    )


def coordinates_section(paths: PathDataset, measured: Sequence[PathDimension]) -> Section:
    """The whole actor's first coordinates over time: monotone, then harmonic, as a walk's are."""
    methods = _parts(measured)[WHOLE_ACTOR]
    ppo, walk = (methods[name].spectra["initial"] for name in (PPO_PATH, RANDOM_WALK))
    count = int(np.isfinite(ppo.half_waves).all(axis=0).sum())  # coordinates that all trials have
    return Section(
        "Monotone first, harmonic after: the coordinates over time",
        "The rank correlation of the first coordinate with time is "
        f"{ppo.monotonicity[:, 0].mean():.3f} (random walk: {walk.monotonicity[:, 0].mean():.3f}). "
        f"The first {count} coordinates swing with {_half_waves(ppo, count)} half-waves (random "
        f"walk: {_half_waves(walk, count)}); one sine wave explains {_explained(ppo, count)} of "
        f"their variance on average (random walk: {_explained(walk, count)}). A random walk has "
        "harmonics of its own: such shapes alone are no sign of learning.",
        partial(
            plots.coordinates_over_time,
            paths.global_step,
            {
                name: part.spectra["initial"].coordinates[..., :count]
                for name, part in methods.items()
            },
            note=f"displacements of the whole actor, each trial in its own basis; "
            f"{_trials(measured)}, a few of them drawn",
        ),
        Table(
            "Shape of the whole actor's coordinates over time, mean over trials",
            ["centre, method, coordinate", "monotonicity", "half-waves", "explained by one wave"],
            [
                [
                    f"{CENTERS[center]}, {method}, {k + 1}",
                    mean_of_known(spectrum.monotonicity[:, k]),
                    mean_of_known(spectrum.half_waves[:, k]),
                    mean_of_known(spectrum.harmonic_share[:, k]),
                ]
                for center in CENTERS
                for method, part in methods.items()
                for spectrum in [part.spectra[center]]
                for k in range(count)
            ],
        ),
    )


def detour_section(measured: Sequence[PathDimension]) -> Section:
    """How much longer paths are than the distance of their ends, by part."""
    parts = _parts(measured)
    whole = {name: _detour(part) for name, part in parts[WHOLE_ACTOR].items()}
    layers = {name: _detour(methods[PPO_PATH]) for name, methods in parts.items()}
    del layers[WHOLE_ACTOR]
    straightest, most = min(layers, key=layers.__getitem__), max(layers, key=layers.__getitem__)
    return Section(
        "Detours",
        f"A path is {format_number(whole[PPO_PATH])} times as long as the distance of its ends "
        f"(median over trials; a random walk with steps of the same lengths: "
        f"{format_number(whole[RANDOM_WALK])}). The straightest part is {straightest} "
        f"({format_number(layers[straightest])}), the largest detours are in {most} "
        f"({format_number(layers[most])}).",
        partial(
            plots.detour_ratios,
            _without_walks_on_a_line(parts),
            note=f"{_trials(measured)}; dots are trials, bars medians",
        ),
        Table(
            "Detour ratio of a part as a whole, and of its single parameters (in a trial, the "
            "median over those that moved); medians over trials",
            ["part, method", "parameters", "whole", "single parameters"],
            [
                [
                    f"{name}, {method}",
                    part.num_parameters,
                    _detour(part),
                    _median(part.parameter_detour),
                ]
                for name, methods in parts.items()
                for method, part in methods.items()
            ],
        ),
    )


def activity_section(measured: Sequence[PathDimension]) -> Section:
    """How unevenly the parameters move."""
    parts = _parts(measured, least=2)
    moved = {
        name: f"{mean_of_known(part.activity_of(0.1)):.0%}"
        for name, part in parts[WHOLE_ACTOR].items()
    }
    return Section(
        "How unevenly the parameters move",
        f"The most active tenth of the actor's parameters makes {moved[PPO_PATH]} of all movement "
        f"(mean over trials; a random walk's makes {moved[RANDOM_WALK]}, and 10% would be even).",
        partial(
            plots.activity_of_parameters,
            ACTIVITY_SHARES,
            _of(parts, lambda part: part.activity),
            note=f"sums of absolute changes between checkpoints; {_trials(measured)}, means",
        ),
        Table(
            "Share of all movement that the most active parameters of a part make, mean over "
            "trials",
            ["part, method", *(f"top {share:.0%}" for share in REPORTED_SHARES)],
            [
                [
                    f"{name}, {method}",
                    *(mean_of_known(part.activity_of(share)) for share in REPORTED_SHARES),
                ]
                for name, methods in parts.items()
                for method, part in methods.items()
            ],
        ),
    )


def _parts(measured: Sequence[PathDimension], *, least: int = 1) -> Parts:
    """Measurements by part and method; a part of fewer than `least` parameters is left out."""
    parts: Parts = {}
    for part in measured:
        if part.num_parameters >= least:
            parts.setdefault(part.part, {})[part.method] = part
    return parts


def _without_walks_on_a_line(parts: Parts) -> dict[str, dict[str, Array]]:
    """Detours by part and method; the walk of a single parameter ends anywhere, often at home."""
    return {
        name: {
            method: part.detour_ratio
            for method, part in methods.items()
            if method == PPO_PATH or part.num_parameters > 1
        }
        for name, methods in parts.items()
    }


def _of(parts: Parts, values: Callable[[PathDimension], Array]) -> dict[str, dict[str, Array]]:
    return {
        name: {method: values(part) for method, part in methods.items()}
        for name, methods in parts.items()
    }


def _half_waves(spectrum: Spectrum, count: int) -> str:
    """Mean over trials of the half-waves of the first coordinates, "0.5, 1.5, 2.5"."""
    return ", ".join(f"{mean:.1f}" for mean in spectrum.half_waves[:, :count].mean(axis=0))


def _explained(spectrum: Spectrum, count: int) -> str:
    return f"{spectrum.harmonic_share[:, :count].mean():.0%}"


def _dimension(part: PathDimension) -> Array:
    return part.spectra["initial"].dimension(0.9)


def _is_lower(methods: dict[str, PathDimension]) -> bool:
    """Whether PPO's D(0.9) is below the walk's, by the interval of their paired difference."""
    ppo, walk = (_dimension(methods[name]).astype(float) for name in (PPO_PATH, RANDOM_WALK))
    return paired_difference_interval(ppo, walk).high < 0  # NaN for one trial: not shown


def _detour(part: PathDimension) -> float:
    return _median(part.detour_ratio)


def _median(values: Array) -> float:
    """The median over trials; a closed path's infinite ratio counts, a part at rest does not."""
    known = values[~np.isnan(values)]
    return float(np.median(known)) if len(known) else float("nan")


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names) or "no part"


def _trials(measured: Sequence[PathDimension]) -> str:
    count = len(measured[0].detour_ratio)
    return f"{count} {'trial' if count == 1 else 'trials'}"
