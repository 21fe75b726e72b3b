"""Intervals against closed forms, hand-computed values and simulated coverage."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
import scipy.stats

from tipl.errors import TiplError
from tipl.evaluation.stats import (
    MOST_PLACES,
    Interval,
    ReturnCurves,
    first_reached,
    iqm_interval,
    mean_curve,
    mean_interval,
    paired_difference_interval,
    probability_of_improvement,
    ratio_interval,
    reach_interval,
    resampling_weights,
    steps_to_shares,
)

RNG = np.random.default_rng(0)


def test_mean_of_a_large_sample_has_the_normal_interval() -> None:
    values = RNG.exponential(3.0, size=800)
    value, low, high = mean_interval(values)
    half_width = 1.96 * values.std() / math.sqrt(len(values))
    assert value == pytest.approx(values.mean(), rel=1e-12)
    assert low == pytest.approx(value - half_width, abs=0.08 * half_width)
    assert high == pytest.approx(value + half_width, abs=0.08 * half_width)


def test_mean_of_zeros_and_ones_has_the_exact_binomial_interval() -> None:
    # The bootstrap distribution of the mean of N zeros and ones is Binomial(N, mean) / N.
    values = np.repeat([0.0, 1.0], [18, 22])
    low, high = scipy.stats.binom.ppf([0.025, 0.975], 40, 0.55) / 40
    assert mean_interval(values) == pytest.approx((0.55, low, high), abs=1e-12)


def test_interval_covers_the_mean_about_as_often_as_it_says() -> None:
    samples = np.random.default_rng(1).normal(5.0, 2.0, size=(200, 30))
    intervals = [mean_interval(sample) for sample in samples]
    covered = np.mean([low <= 5.0 <= high for _, low, high in intervals])
    assert 0.89 <= covered <= 0.98  # about 0.93 with 30 trials


def test_iqm_by_hand() -> None:
    # Eight values: the lowest two and the highest two are cut, the mean of 3, 4, 5, 6 is left.
    values = np.array([1000.0, 4, 3, -50, 6, 2, 5, 20])
    assert iqm_interval(values).value == 4.5
    # A quarter of six is 1.5, rounded down to one at each end.
    assert iqm_interval(np.array([0.0, 1, 2, 3, 6, 100])).value == 3.0


def test_iqm_interval_ignores_outliers_that_move_the_mean() -> None:
    values = np.append(RNG.normal(0, 1, 63), 1e6)
    assert iqm_interval(values).high < 1
    assert mean_interval(values).high > 1e4


def test_episodes_are_averaged_within_a_trial() -> None:
    means = RNG.normal(size=12)
    noise = RNG.normal(size=(12, 50))
    episodes = means[:, None] + noise - noise.mean(axis=1, keepdims=True)  # [N, E]
    assert mean_interval(episodes) == pytest.approx(mean_interval(means), rel=1e-9)


def test_more_episodes_of_the_same_trials_do_not_narrow_the_interval() -> None:
    means = RNG.normal(size=12)
    assert mean_interval(np.repeat(means[:, None], 1000, axis=1)) == pytest.approx(
        mean_interval(means)
    )


def test_paired_difference_is_free_of_what_the_trials_share() -> None:
    trials = RNG.normal(0, 100, 40)
    a, b = trials + RNG.normal(2, 1, 40), trials
    value, low, high = paired_difference_interval(a, b)
    assert value == pytest.approx((a - b).mean())
    assert 1 < low < value < high < 3
    assert paired_difference_interval(b, a) == pytest.approx((-value, -high, -low), abs=0.05)


def test_probability_of_improvement_counts_a_tie_as_one_half() -> None:
    a, b = np.array([3.0, 1, 2, 0]), np.array([1.0, 1, 2, 5])
    assert probability_of_improvement(a, b).value == (1 + 0.5 + 0.5 + 0) / 4
    assert probability_of_improvement(b, a).value == (0 + 0.5 + 0.5 + 1) / 4


def test_probability_of_improvement_has_the_exact_binomial_interval() -> None:
    a, b = np.repeat([1.0, -1.0], [15, 10]), np.zeros(25)
    low, high = scipy.stats.binom.ppf([0.025, 0.975], 25, 0.6) / 25
    assert probability_of_improvement(a, b) == pytest.approx((0.6, low, high), abs=1e-12)


def test_probability_of_improvement_pairs_the_trials() -> None:
    trials = RNG.normal(0, 100, 20)
    assert probability_of_improvement(trials + 1, trials) == (1, 1, 1)


def test_same_values_give_the_same_interval_and_another_seed_another() -> None:
    values = RNG.normal(size=(20, 3))
    assert mean_interval(values) == mean_interval(values.copy())
    assert mean_interval(values, seed=1) != mean_interval(values)
    assert mean_interval(values, seed=1).value == mean_interval(values).value


@pytest.mark.parametrize("interval", [mean_interval, iqm_interval])
def test_one_trial_has_no_interval(interval: Callable[..., Interval]) -> None:
    value, low, high = interval(np.array([[2.0, 4.0]]))
    assert value == 3
    assert math.isnan(low)
    assert math.isnan(high)


@pytest.mark.parametrize("interval", [mean_interval, iqm_interval])
def test_equal_trials_have_an_interval_of_no_width(interval: Callable[..., Interval]) -> None:
    assert interval(np.full(9, 7.0)) == (7, 7, 7)


def test_bad_values_are_refused() -> None:
    with pytest.raises(TiplError, match="at least one trial"):
        mean_interval(np.zeros(0))
    with pytest.raises(TiplError, match="1 of 3 values are not finite"):
        mean_interval(np.array([1.0, np.nan, 2.0]))
    with pytest.raises(TiplError, match="3 trials were given against 2"):
        paired_difference_interval(np.zeros(3), np.zeros(2))


def test_resampled_means_are_those_of_the_bootstrap() -> None:
    values = RNG.normal(size=9)
    weights = resampling_weights(9)
    means = weights @ values
    assert weights.sum(axis=1) == pytest.approx(1)
    assert np.allclose(weights * 9, np.round(weights * 9))  # trials are drawn whole
    low, high = np.quantile(means[1:], [0.025, 0.975])
    assert mean_interval(values) == pytest.approx((means[0], low, high))


@pytest.mark.parametrize("num_trials", [2, 3, 7, 24, 33])
@pytest.mark.parametrize("seed", [0, 5])
def test_intervals_are_to_the_last_bit_those_of_draws_of_their_own(
    num_trials: int, seed: int
) -> None:
    values = RNG.normal(size=num_trials)
    drawn = np.random.default_rng(seed).integers(num_trials, size=(10_000, num_trials))
    tail = (1 - 0.95) / 2
    for interval, statistic in (
        (mean_interval, lambda sample: sample.mean(axis=-1)),
        (iqm_interval, lambda sample: scipy.stats.trim_mean(sample, 0.25, axis=-1)),
    ):
        bounds = np.quantile(statistic(values[drawn]), [tail, 1 - tail])
        assert interval(values, seed=seed) == (statistic(values), *bounds)
    counts = np.array([np.bincount(row, minlength=num_trials) for row in drawn])
    weights = resampling_weights(num_trials, seed=seed)
    np.testing.assert_array_equal(weights[1:], counts / num_trials)


def test_intervals_of_as_many_trials_share_their_draws(monkeypatch: pytest.MonkeyPatch) -> None:
    first, second = RNG.normal(size=(2, 19))
    expected = [mean_interval(first, seed=8), mean_interval(second, seed=8)]
    ratio = ratio_interval(first, second**2, seed=8)
    monkeypatch.setattr(np.random, "default_rng", None)
    assert [mean_interval(first, seed=8), mean_interval(second, seed=8)] == expected
    assert ratio_interval(first, second**2, seed=8) == ratio
    assert resampling_weights(19, seed=8) is resampling_weights(19, seed=8)
    with pytest.raises(ValueError, match="read-only"):  # nobody spoils them for the others
        resampling_weights(19, seed=8)[0] = 0


def test_a_ratio_is_of_means_and_paired() -> None:
    b = np.array([1.0, 5.0, 3.0])
    assert ratio_interval(2 * b, b) == pytest.approx((2, 2, 2))  # whatever trials are drawn
    value, low, high = ratio_interval(np.array([4.0, 0.0]), np.array([1.0, 3.0]))
    assert value == 1  # not the mean of 4 and 0
    assert (low, high) == (0, 4)  # one trial alone, or the other


@pytest.mark.parametrize(
    ("b", "value"), [([-1.0, -3.0], math.nan), ([4.0, -2.0], 5.0), ([0.0, 0.0], math.nan)]
)
def test_a_ratio_to_nothing_or_less_says_nothing(b: list[float], value: float) -> None:
    found = ratio_interval(np.array([4.0, 6.0]), np.array(b))
    assert found == pytest.approx((value, math.nan, math.nan), nan_ok=True)


def test_a_ratio_of_one_trial_has_no_interval() -> None:
    found = ratio_interval(np.array([4.0]), np.array([2.0]))
    assert found == pytest.approx((2, math.nan, math.nan), nan_ok=True)


def test_the_first_place_that_is_high_enough_counts() -> None:
    reached = np.array([[0.0, 5.0, 4.0, 9.0], [9.0, 0.0, 0.0, 0.0]])
    goals = np.array([[5.0, 5.5, 10.0], [9.0 + 1e-12, 0.0, 10.0]])
    found = first_reached(reached, np.array([0.0, 10.0, 20.0, 30.0]), goals)
    assert found.tolist() == [[10, 30, math.inf], [0, 0, math.inf]]


def test_an_interval_of_steps_has_infinite_bounds_where_goals_are_missed() -> None:
    steps = np.array([20.0, *[10.0] * 50, *[20.0] * 40, *[math.inf] * 10])
    assert reach_interval(steps) == (20, 10, math.inf)
    assert reach_interval(np.full(5, math.inf)) == (math.inf,) * 3
    assert reach_interval(np.full(5, 7.0)) == (7, 7, 7)


# --- returns over environment steps -----------------------------------------------------------


@pytest.fixture
def curves() -> ReturnCurves:
    """Two trials: the first is tested for 5 steps before its first rollout, the second is not."""
    return ReturnCurves(
        np.array([[5, 15, 40], [0, 20, 30]]),
        np.array([[10.0, 20.0, 30.0], [1.0, 2.0, 3.0]]),
        np.array([-1.0, -2.0]),
    )


def test_a_return_holds_until_the_next_checkpoint(curves: ReturnCurves) -> None:
    places = np.array([0.0, 4.9, 5.0, 15.0, 29.0, 30.0, 99.0])
    assert curves.at(places).tolist() == [
        [-1, -1, 10, 20, 20, 20, 30],
        [1, 1, 1, 1, 2, 3, 3],
    ]


@pytest.mark.parametrize("end", [3, 5, 17, 40, 100])
def test_the_area_is_the_sum_over_all_steps(curves: ReturnCurves, end: int) -> None:
    every_step = curves.at(np.arange(float(end)))
    assert curves.mean_over(end) == pytest.approx(every_step.mean(axis=1))


def test_returns_change_at_the_checkpoints_of_any_trial(curves: ReturnCurves) -> None:
    assert curves.changes(30).tolist() == [0, 5, 15, 20, 30]
    later = ReturnCurves(curves.steps + 7, curves.returns, curves.untrained)
    assert later.changes(13).tolist() == [0, 7, 12]


def test_trials_are_selected_together(curves: ReturnCurves) -> None:
    second = curves.select(np.array([False, True]))
    assert second.at(np.array([25.0])).tolist() == [[2]]
    assert second.mean_over(20).tolist() == [1]


def test_a_mean_curve_is_the_mean_at_every_change(curves: ReturnCurves) -> None:
    places, intervals = mean_curve(curves, 35)
    assert places.tolist() == [0, 5, 15, 20, 30, 35]
    assert intervals[:, 0].tolist() == [0, 5.5, 10.5, 11, 11.5, 11.5]
    assert intervals[1].tolist() == [5.5, 1, 10]  # only one of the trials, or only the other


def test_a_mean_curve_of_many_changes_is_thinned() -> None:
    steps = np.arange(0, 3000, 7)[None].repeat(2, axis=0)
    curve = ReturnCurves(steps, steps.astype(float), np.zeros(2))
    places, intervals = mean_curve(curve, 2999)
    assert len(places) == MOST_PLACES + 1
    assert intervals[:, 0].tolist() == (places // 7 * 7).tolist()


def curve_of(*returns: float) -> ReturnCurves:
    """Two equal trials with these returns at 0, 10, 20, ... steps."""
    steps = np.tile(np.arange(len(returns)) * 10, (2, 1))
    return ReturnCurves(steps, np.tile(np.array(returns, float), (2, 1)), np.zeros(2))


@pytest.mark.parametrize(
    ("ppo", "other", "shares", "ppo_steps", "other_steps"),
    [
        ((0, 50, 96, 100), (0, 97, 99, 100), (0.95, 1.0), (20, 30), (10, 30)),
        ((0, 50, 120, 100), (0, 10, 20, 99), (0.95, 1.0), (20, 20), (30, math.inf)),
        # 5% lower than -10 is -10.5
        ((-99, -10.4, -12, -10), (-99, -11, -10.5, -10.2), (0.95, 1.0), (10, 30), (20, math.inf)),
    ],
)
def test_steps_to_ppos_final_return_by_hand(
    ppo: tuple[float, ...],
    other: tuple[float, ...],
    shares: tuple[float, ...],
    ppo_steps: tuple[float, ...],
    other_steps: tuple[float, ...],
) -> None:
    curves = {"PPO": curve_of(*ppo), "other": curve_of(*other)}
    found = steps_to_shares(curves, "PPO", 30, shares)
    for name, steps in (("PPO", ppo_steps), ("other", other_steps)):
        assert np.array_equal(np.unique(found[name], axis=0), [steps])  # in every resample


def test_what_comes_after_ppos_steps_is_not_counted() -> None:
    curves = {"PPO": curve_of(0, 5, 100), "other": curve_of(0, 5, 6, 200)}
    assert np.isinf(steps_to_shares(curves, "PPO", 20, (1.0,))["other"]).all()


def test_each_resample_has_its_own_goal() -> None:
    steps = np.array([[0, 10, 20], [0, 10, 20]])
    ppo = ReturnCurves(steps, np.array([[0.0, 0, 10], [0.0, 80, 100]]), np.zeros(2))
    other = ReturnCurves(steps, np.array([[0.0, 10, 10], [0.0, 0, 100]]), np.zeros(2))
    found = steps_to_shares({"PPO": ppo, "other": other}, "PPO", 20, (1.0,))["other"][:, 0]
    # of the first trial alone the goal is 10, of the second alone 100, of both 55
    assert found[0] == 20
    assert set(found[1:]) == {10, 20}
    assert np.mean(found[1:] == 10) == pytest.approx(0.25, abs=0.02)
