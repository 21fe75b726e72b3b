"""Dimension of paths: straight lines, circles, and what theory says of random walks."""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.stats
from matplotlib.figure import Figure

from path_data import DIVERGED, N, T, make_dataset
from tipl.errors import TiplError
from tipl.experiments.path_dimension import (
    activity_section,
    coordinates_section,
    detour_section,
    dimension_rows,
    dimension_sections,
    information_section,
)
from tipl.paths import PathDataset
from tipl.paths.dimension import (
    ACTIVITY_SHARES,
    BETAS,
    CENTERS,
    PPO_PATH,
    RANDOM_WALK,
    WHOLE_ACTOR,
    PathDimension,
    actor_parts,
    measure_dataset,
    path_dimension,
    path_dimensions,
    random_walk,
)
from tipl.paths.svd import singular_vectors
from tipl.policies.layout import ParamLayout
from tipl.report.results import write_results
from tipl.report.style import NARROW, WIDE, figure_svg, save_figure

Array = np.ndarray[Any, np.dtype[Any]]

LAYOUT = ParamLayout.actor(4, 2, (3,))  # 15 + 8 + 2 parameters
RNG = np.random.default_rng(0)


def line(length: int, size: int) -> Array:
    """A straight path `[T, P]` of equally long steps, from a random place."""
    start, step = np.random.default_rng(1).standard_normal((2, size))
    return np.asarray(start + np.arange(length)[:, None] * step)


def circle(length: int, size: int) -> Array:
    """A path `[T, P]` once around a circle, from a random place."""
    rng = np.random.default_rng(1)
    plane = np.linalg.qr(rng.standard_normal((size, 2)))[0].T
    angles = np.linspace(0, 2 * np.pi, length)[:, None]
    path = rng.standard_normal(size) + np.hstack([np.cos(angles), np.sin(angles)]) @ plane
    path[-1] = path[0]  # but for rounding it is
    return np.asarray(path)


def measured(*paths: Array) -> PathDimension:
    return path_dimension(PPO_PATH, WHOLE_ACTOR, paths)


# --- simple paths ---------------------------------------------------------------------------------


def test_a_straight_path_has_one_direction_and_no_detour() -> None:
    found = measured(line(20, 30), 5 * line(20, 30))
    spectrum = found.spectra["initial"]
    for beta in BETAS:
        np.testing.assert_array_equal(spectrum.dimension(beta), [1, 1])
    np.testing.assert_allclose(spectrum.monotonicity[:, 0], 1, rtol=1e-12)
    np.testing.assert_array_equal(spectrum.half_waves[:, 0], 0.5)
    assert (spectrum.harmonic_share[:, 0] > 0.99).all()
    assert np.isnan(spectrum.coordinates[:, :, 1:]).all()  # no second direction, no coordinates
    assert np.isnan(spectrum.monotonicity[:, 1:]).all()
    assert (found.spectra["none"].dimension(0.999999) <= 2).all()  # the start, and the step
    np.testing.assert_allclose(found.detour_ratio, 1, rtol=1e-12)
    np.testing.assert_allclose(found.parameter_detour, 1, rtol=1e-12)


def test_the_coordinate_of_a_straight_path_is_the_distance_from_its_start() -> None:
    path = line(8, 30)
    coordinates = measured(path).spectra["initial"].coordinates[0, :, 0]
    np.testing.assert_allclose(coordinates, np.linalg.norm(path - path[0], axis=1), atol=1e-12)


def test_a_closed_circle_has_two_directions_and_no_end_to_its_detour() -> None:
    found = measured(circle(101, 30))
    spectrum = found.spectra["initial"]
    assert spectrum.dimension(1.0) == [2]
    np.testing.assert_array_equal(spectrum.half_waves[0, :2], 2)
    assert (spectrum.harmonic_share[0, :2] > 0.999).all()
    assert found.detour_ratio == [np.inf]
    most = measured(circle(101, 30)[:-1])  # all but the last step: chord and arc of the circle
    step = 2 * np.sin(np.pi / 100)
    np.testing.assert_allclose(most.detour_ratio, 99 * step / step, rtol=1e-9)


def test_detours_by_hand() -> None:
    # the first parameter goes 2 up and 1 down, the second 1 up, the third stays
    found = measured(np.array([[0.0, 0.0, 7.0], [2.0, 1.0, 7.0], [1.0, 1.0, 7.0]]))
    np.testing.assert_allclose(found.detour_ratio, (np.sqrt(5) + 1) / np.sqrt(2))
    np.testing.assert_allclose(found.parameter_detour, (3 / 1 + 1 / 1) / 2)


def test_activity_by_hand() -> None:
    # movements of 3, 4, 1 and 2: there and back is twice the way
    steps = np.array([[1.0, -2.0, 0.5, 1.0], [2.0, 2.0, -0.5, 1.0]])
    found = measured(np.concatenate([np.zeros((1, 4)), steps.cumsum(axis=0)]))
    np.testing.assert_allclose(found.activity_of(0.5), 0.7)  # the 4 and the 3 of 10
    np.testing.assert_allclose(found.activity_of(0.1), 0.1 * 4 * 0.4)  # a part of the first
    np.testing.assert_allclose(found.activity[0, [0, -1]], [0, 1])


def test_parameters_that_move_alike_make_as_much_movement_as_their_share() -> None:
    walk = np.arange(4.0)[:, None] * np.array([1.0, -1.0, 1.0])
    np.testing.assert_allclose(measured(walk).activity[0], ACTIVITY_SHARES, atol=1e-12)


def test_monotonicity_is_spearman_s_with_equal_values_too() -> None:
    values = np.array([0.0, 1.0, 1.0, 0.5, 3.0, 2.0])
    found = measured(values[:, None]).spectra["initial"].monotonicity[0, 0]
    expected = scipy.stats.spearmanr(values, np.arange(6)).statistic
    np.testing.assert_allclose(found, expected, rtol=1e-12)
    falling = measured(-values[:, None]).spectra["initial"].monotonicity[0, 0]
    np.testing.assert_allclose(falling, expected, rtol=1e-12)


@pytest.mark.parametrize("half_waves", [0.5, 1.0, 1.5, 4.0, 7.5])
def test_half_waves_are_those_of_a_sine_of_any_phase(half_waves: float) -> None:
    time = (np.arange(40) + 0.5) / 40
    coordinate = 3 + 0.2 * np.sin(np.pi * half_waves * time + 0.4)
    spectrum = measured(coordinate[:, None]).spectra["none"]
    assert spectrum.half_waves[0, 0] == half_waves
    np.testing.assert_allclose(spectrum.harmonic_share[0, 0], 1, rtol=1e-9)


def test_a_part_that_does_not_move_has_no_numbers() -> None:
    found = measured(np.ones((5, 3)))
    assert np.isnan([found.detour_ratio[0], found.parameter_detour[0]]).all()
    assert np.isnan(found.activity).all()
    assert np.isnan(found.spectra["none"].monotonicity).all()
    metrics = {r.metric for r in dimension_rows([found], task="task", command="command")}
    assert metrics == {f"D({beta})" for beta in BETAS}


# --- random walks ---------------------------------------------------------------------------------


def test_a_random_walk_has_the_start_and_the_step_lengths_of_the_path() -> None:
    path = np.cumsum(RNG.standard_normal((9, 6)) * np.arange(9)[:, None], axis=0)
    walk = random_walk(path.astype(np.float32), np.random.default_rng(3))
    np.testing.assert_allclose(walk[0], path[0], rtol=1e-6)
    lengths = [np.linalg.norm(np.diff(p, axis=0), axis=1) for p in (walk, path)]
    np.testing.assert_allclose(*lengths, rtol=1e-5)
    assert np.abs(walk[-1] - path[-1]).min() > 1e-3


def test_the_first_component_of_a_centred_walk_has_6_over_pi_squared_of_the_variance() -> None:
    """Antognini and Sohl-Dickstein, NeurIPS 2018."""
    walk = random_walk(line(200, 8000), np.random.default_rng(0))
    squares = singular_vectors(walk - walk.mean(axis=0), 1).singular_values ** 2
    expected = 6 / (np.pi * np.arange(1, 4)) ** 2
    np.testing.assert_allclose(squares[:3] / squares.sum(), expected, rtol=0.06)


def test_a_walk_s_displacements_are_sines_of_k_less_a_half_half_waves() -> None:
    """The eigenvectors of min(s, t), the covariance of a walk that starts at 0, are known."""
    steps = 60
    walk = random_walk(line(steps + 1, 20_000), np.random.default_rng(0))
    spectrum = measured(walk).spectra["initial"]
    angles = (2 * np.arange(1, steps + 1) - 1) * np.pi / (4 * steps + 2)
    values = 1 / (2 * np.sin(angles))  # the singular values, in units of a step
    np.testing.assert_allclose(
        spectrum.information[0, :5], values.cumsum()[:5] / values.sum(), rtol=0.03
    )
    for beta in BETAS:
        expected = np.flatnonzero(values.cumsum() >= beta * values.sum())[0] + 1
        assert abs(spectrum.dimension(beta)[0] - expected) <= 1
    np.testing.assert_array_equal(spectrum.half_waves[0], np.arange(1, 7) - 0.5)
    assert (spectrum.harmonic_share[0] > 0.9).all()
    for k in (1, 2):
        sine = np.sin(2 * angles[k - 1] * np.arange(steps + 1))
        rank_correlation = abs(scipy.stats.spearmanr(sine, np.arange(steps + 1)).statistic)
        np.testing.assert_allclose(spectrum.monotonicity[0, k - 1], rank_correlation, atol=0.03)


# --- parts of the actor ---------------------------------------------------------------------------


def test_a_layer_is_a_weight_and_its_bias() -> None:
    layout = ParamLayout.actor(4, 2, (3, 5)) + ParamLayout.critic(4, (3,))
    assert actor_parts(layout) == {
        "whole actor": slice(0, 49),
        "layer 1 (inputs)": slice(0, 15),
        "layer 2": slice(15, 35),
        "output layer": slice(35, 47),
        "log_std": slice(47, 49),
    }


def test_a_categorical_actor_has_no_noise_to_measure() -> None:
    layout = ParamLayout.mlp("actor", (4, 3, 2))
    assert actor_parts(layout) == {
        "whole actor": slice(0, 23),
        "layer 1 (inputs)": slice(0, 15),
        "output layer": slice(15, 23),
    }
    params = RNG.standard_normal((2, 5, layout.size)).cumsum(axis=1)
    assert len(path_dimensions(params, layout)) == 2 * 3


def test_each_part_is_measured_on_its_own() -> None:
    params = RNG.standard_normal((3, 8, LAYOUT.size)).cumsum(axis=1)
    found = path_dimensions(params, LAYOUT)
    parts = actor_parts(LAYOUT)
    assert [(f.part, f.method) for f in found] == [
        (part, method) for part in parts for method in (PPO_PATH, RANDOM_WALK)
    ]
    layer = found[2]
    assert layer.num_parameters == 15
    rows = params[1, :, :15] - params[1, 0, :15]
    values = np.linalg.svd(rows, compute_uv=False)
    expected = values.cumsum() / values.sum()
    np.testing.assert_allclose(layer.spectra["initial"].information[1], expected, atol=1e-7)
    values = np.linalg.svd(params[1, :, :15], compute_uv=False)
    expected = values.cumsum() / values.sum()
    np.testing.assert_allclose(layer.spectra["none"].information[1], expected, atol=1e-7)
    again, other = (path_dimensions(params, LAYOUT, seed=seed) for seed in (0, 1))
    np.testing.assert_array_equal(again[1].detour_ratio, found[1].detour_ratio)
    np.testing.assert_array_equal(other[0].detour_ratio, found[0].detour_ratio)
    assert (other[1].detour_ratio != found[1].detour_ratio).all()


def test_a_dataset_is_measured_without_its_diverged_trials(tmp_path: Path) -> None:
    arrays = make_dataset(tmp_path, networks="actor+critic")
    paths = PathDataset.open(tmp_path)
    found = measure_dataset(paths)
    kept = np.delete(arrays["params"], DIVERGED, axis=0)
    expected = path_dimensions(kept, paths.layout)
    for a, b in zip(found, expected, strict=True):
        np.testing.assert_array_equal(a.detour_ratio, b.detour_ratio)
    assert len(found[0].detour_ratio) == N - 1


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (partial(path_dimensions, np.ones((2, 3, 4)), LAYOUT), "4 parameters .* layout of 25"),
        (partial(path_dimensions, np.ones((0, 3, 25)), LAYOUT), "no path was given"),
        (partial(measured, np.ones((2, 4))), "a path of 2 checkpoints .* at least three"),
        (partial(measured, np.full((4, 4), np.nan)), "finite weights: leave diverged trials out"),
        (partial(actor_parts, ParamLayout.critic(4, (3,))), "expected one with an actor"),
    ],
)
def test_what_cannot_be_measured_is_refused(call: Callable[[], Any], message: str) -> None:
    with pytest.raises(TiplError, match=message):
        call()


# --- results --------------------------------------------------------------------------------------


def test_results_are_means_over_the_trials_that_have_the_number(tmp_path: Path) -> None:
    params = RNG.standard_normal((4, 9, LAYOUT.size)).cumsum(axis=1)
    params[0, -1] = params[0, 0]  # a closed path has no finite detour
    found = path_dimensions(params, LAYOUT)
    results = dimension_rows(found, task="InvertedPendulum-v4", command="tipl")
    cells = {(r.method, r.setting, r.metric): r for r in results}
    assert len(cells) == len(results)
    detour = cells[PPO_PATH, "whole actor", "detour_ratio"]
    assert (detour.n_trials, detour.n_episodes, detour.experiment) == (3, 0, "low dimension")
    steps = np.linalg.norm(np.diff(params, axis=1), axis=2).sum(axis=1)[1:]
    ratio = steps / np.linalg.norm(params[1:, -1] - params[1:, 0], axis=1)
    np.testing.assert_allclose(detour.value, ratio.mean(), rtol=1e-12)
    assert detour.low < detour.value < detour.high
    dimension = cells[PPO_PATH, "layer 1 (inputs), displacements", "D(0.9)"]
    np.testing.assert_allclose(
        dimension.value, found[2].spectra["initial"].dimension(0.9).mean(), rtol=1e-12
    )
    for metric in ("D(0.99)", "monotonicity_1", "half_waves_2", "harmonic_share_6"):
        for center in CENTERS.values():
            assert (RANDOM_WALK, f"whole actor, {center}", metric) in cells
    top = cells[PPO_PATH, "whole actor", "activity_top_10%"]
    assert 0.1 <= top.value < 1
    write_results(tmp_path / "results.jsonl", results)  # refuses what is infinite


def test_one_trial_has_no_interval() -> None:
    results = dimension_rows([measured(line(5, 9))], task="task", command="command")
    assert results
    assert np.isnan([r.low for r in results]).all()


# --- figures and sections -------------------------------------------------------------------------

STEPS = np.arange(9) * 2048
FOUND = path_dimensions(RNG.standard_normal((5, 9, LAYOUT.size)).cumsum(axis=1), LAYOUT)


SECTIONS = {
    "information": information_section(FOUND),
    "coordinates": coordinates_section(STEPS, FOUND),
    "detours": detour_section(FOUND),
    "activity": activity_section(FOUND),
}


def text_of(figure: Figure) -> str:
    svg = ElementTree.fromstring(figure_svg(figure))
    return "\n".join("".join(element.itertext()) for element in svg.iter())


@pytest.mark.parametrize("width", [WIDE, NARROW])
@pytest.mark.parametrize("name", SECTIONS)
def test_figures_are_drawn_at_both_widths(name: str, width: float, tmp_path: Path) -> None:
    drawing = SECTIONS[name].figure
    assert drawing is not None
    figure = drawing(width=width)
    text = text_of(figure)
    assert "5 trials" in text.replace("\n", " ")
    assert "random walk" in text
    for path in save_figure(figure, tmp_path, name):
        assert path.stat().st_size > 1000


def of_actor(**changes: Any) -> list[PathDimension]:
    """Path and walk of the whole actor and of a layer, with other numbers."""
    wanted = [f for f in FOUND if f.part in (WHOLE_ACTOR, "layer 1 (inputs)")]
    return [replace(f, **{name: make(f) for name, make in changes.items()}) for f in wanted]


def test_the_figure_of_information_marks_the_dimension() -> None:
    information = np.array([[0.6, 0.9, 1.0]] * 3 + [[0.7, 0.9, 1.0]] * 2)

    def spectra(part: PathDimension) -> Any:
        lower = information - [0.0, 0.1 * (part.method == RANDOM_WALK), 0.0]
        return {c: replace(s, information=lower) for c, s in part.spectra.items()}

    figure = information_section(of_actor(spectra=spectra)).figure
    assert figure is not None
    assert "layer 1 (inputs): D(0.9) = 2 and 3" in text_of(figure())


def test_coordinates_are_drawn_relative_to_their_largest_size() -> None:
    drawing = SECTIONS["coordinates"].figure
    assert drawing is not None
    for axes in drawing().axes:
        path, *_ = axes.lines
        assert np.abs(path.get_ydata()).max() == pytest.approx(1)
        assert [line.get_linestyle() for line in axes.lines[-5:]] == ["--"] * 5  # the walks


def test_parts_at_rest_have_no_activity_and_one_walk_stands_for_all() -> None:
    still = of_actor(
        activity=lambda f: (
            np.full((5, len(ACTIVITY_SHARES)), np.nan) if f.part != WHOLE_ACTOR else f.activity
        )
    )
    drawing = activity_section(still).figure
    assert drawing is not None
    assert len(drawing().axes[0].lines) == 3  # the diagonal, the actor and its walk


def test_sections_are_made_of_a_dataset(tmp_path: Path) -> None:
    make_dataset(tmp_path)
    paths = PathDataset.open(tmp_path)
    sections = dimension_sections(paths, measure_dataset(paths))
    assert len({section.title for section in sections}) == len(sections) == 4
    for section in sections:
        assert section.details is not None
        assert "nan" not in section.sentence
        assert section.figure is not None
        for width in (WIDE, NARROW):
            assert f"{N - 1} trials" in text_of(section.figure(width=width)).replace("\n", " ")


def test_sentences_say_what_was_measured() -> None:
    straight = np.stack([line(T, LAYOUT.size) * scale for scale in (1, 2, 3)])
    found = path_dimensions(straight, LAYOUT)
    sentence = information_section(found).sentence
    assert "lies in 1.0 directions" in sentence
    assert sentence.endswith("whole actor, layer 1 (inputs), output layer, log_std.")
    assert "A path is 1.00 times as long" in detour_section(found).sentence
    share = found[0].activity_of(0.1).mean()
    assert f"parameters makes {share:.0%} of all movement" in activity_section(found).sentence


@pytest.mark.parametrize(
    ("dimensions", "named"),
    [
        ([1, 1, 2, 2, 2], "whole actor."),
        ([2, 2, 3, 3, 3], "no part."),
        ([1, 3, 2, 3, 3], "no part."),
    ],
    ids=["lower in each trial", "the same in each trial", "lower in some trials"],
)
def test_a_part_is_named_if_its_dimension_is_lower_beyond_chance(
    dimensions: list[int], named: str
) -> None:
    def with_dimensions(name: str, dimensions: list[int]) -> PathDimension:
        part = next(f for f in FOUND if (f.part, f.method) == (WHOLE_ACTOR, name))
        full = np.array([[float(k >= d) for k in (1, 2, 3)] for d in dimensions])
        spectra = {c: replace(s, information=full) for c, s in part.spectra.items()}
        return replace(part, spectra=spectra)

    ppo, walk = with_dimensions(PPO_PATH, dimensions), with_dimensions(RANDOM_WALK, [2, 2, 3, 3, 3])
    assert information_section([ppo, walk]).sentence.endswith(named)
