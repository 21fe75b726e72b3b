"""When runs jump: the gate, the schedule, the budget, what is undone, and which forecaster."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tipl import Policy, TiplError
from tipl.core import storage
from tipl.evaluation.returns import Episodes
from tipl.forecast.base import Forecaster
from tipl.forecast.memory import BestStoredPolicy
from tipl.forecast.trained import TrainedForecaster
from tipl.jumps.config import JumpConfig
from tipl.jumps.forecasters import (
    check_fits,
    default_horizons,
    fitting_forecaster,
    jump_forecaster,
    leads_to_one_behaviour,
)
from tipl.jumps.gate import ForecastTest, best_forecast, run_tests
from tipl.jumps.jumper import JUMPS, Jumper, Jumps
from tipl.policies.layout import ParamLayout

Array = np.ndarray[Any, np.dtype[Any]]

PENDULUM = "InvertedPendulum-v4"
LAYOUT = ParamLayout.actor(2, 1, (3,))
P = LAYOUT.size
STEPS = 100  # of a rollout
EPISODE = 10  # steps of an episode in a test


class Adds(Forecaster):
    """Forecasts that every weight grows by the horizon."""

    name = "adds"

    def _forecast(self, histories: Array, horizons: list[int], layout: ParamLayout | None) -> Array:
        self.seen = histories.copy()
        return histories[:, -1:] + np.array(horizons, np.float32)[:, None]


class Breaks(Adds):
    """Forecasts weights that are not finite."""

    def _forecast(self, histories: Array, horizons: list[int], layout: ParamLayout | None) -> Array:
        return super()._forecast(histories, horizons, layout) * np.nan


class Scores:
    """An episode whose return is a policy's first weight, times a sign, and what was asked."""

    def __init__(self, sign: float = 1.0) -> None:
        self.sign = sign
        self.asked: list[tuple[int, list[int]]] = []

    def __call__(self, params: Array, runs: Array, when: int) -> Episodes:
        self.asked.append((when, runs.tolist()))
        returns = self.sign * params[:, :1].astype(np.float64)
        return Episodes(returns, np.full(returns.shape, EPISODE))


def jumper(
    tests: Scores, num_runs: int = 1, forecaster: Forecaster | None = None, **options: Any
) -> Jumper:
    config = JumpConfig(forecaster="adds", horizons=(5,), budget=1.0, **options)
    return Jumper(config, forecaster or Adds(), num_runs, LAYOUT, tests, STEPS)


def rollouts(
    one: Jumper, count: int, returns: list[float] | None = None, num_runs: int = 1
) -> list[Jumps]:
    """What runs whose weights nothing else changes do before so many rollouts."""
    params, done, last = np.zeros((num_runs, P), np.float32), [], np.full(num_runs, np.nan)
    for i in range(count):
        steps = np.full(num_runs, one.rollouts * STEPS) + one.counters["jump_steps"]
        jumps = one.before_rollout(params, steps, last)
        done.append(jumps)
        last = np.full(num_runs, returns[i] if returns else np.nan)
        undone = one.judge(last)
        params = np.where(undone[:, None], params, jumps.params)
    return done


def tried(done: list[Jumps]) -> list[int]:
    return [i for i, jumps in enumerate(done) if jumps.tries]


# --- the gate --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("returns", "row", "errors"),
    [
        ([[1.0, 3.0], [4.0, 6.0], [2.0, 4.0]], 1, 3 / np.sqrt(2)),  # the pooled variance is 2
        ([[1.0, 3.0], [0.0, 1.0]], 1, -1.5 / np.sqrt(1.25)),
        ([[1.0, 3.0], [1.0, 3.0]], 1, 0.0),
        ([[2.0, 2.0], [2.0, 2.0]], 1, 0.0),
        ([[2.0, 2.0], [1.0, 1.0]], 1, -np.inf),
        ([[1.0], [1.5]], 1, np.inf),  # of one episode no variance is known
        ([[1.0, 1.0], [np.nan, np.nan], [2.0, 2.0]], 2, np.inf),
        ([[1.0, 1.0], [np.nan, np.nan]], 1, -np.inf),
        ([[np.nan, 1.0], [2.0, 2.0]], 1, np.inf),  # the present policy cannot even act
    ],
)
def test_gains_are_in_standard_errors(returns: list[list[float]], row: int, errors: float) -> None:
    best, found = best_forecast(np.array(returns))
    assert best == row
    assert found == pytest.approx(errors)


class Scripted:
    """Episodes of the present policy, 0, and forecasts 2 and 7 ahead, one after the other."""

    def __init__(self, returns: dict[int, list[float]]) -> None:
        self.returns = returns
        self.asked: list[tuple[int, list[int]]] = []

    def __call__(self, params: Array, runs: Array, when: int) -> Episodes:
        horizons = [int(weight) for weight in params[:, 0]]
        returns = np.array([[self.returns[horizon][len(self.asked)]] for horizon in horizons])
        self.asked.append((when, horizons))
        return Episodes(returns, np.full(returns.shape, EPISODE))


STAYS = [0.0, 2.0, 0.0, 2.0, 0.0, 2.0]


@pytest.mark.parametrize(
    ("returns", "asked", "horizon"),
    [
        ({0: [0.0, 1.0], 2: [9.0, 10.0], 7: [4.0]}, [[0, 2, 7], [0, 2]], 2),
        ({0: [1.0], 2: [0.0], 7: [1.0]}, [[0, 2, 7]], 0),  # lost at once
        ({0: [0.0, 2.0], 2: [1.0], 7: [2.0, 1.0]}, [[0, 2, 7], [0, 7]], 0),  # 0.4 errors
        # from 1.4 errors to 3.2, and back to 1.8
        ({0: STAYS, 2: [1.0], 7: [2.0, 4.0, 2.0, 4.0, 2.0, 4.0]}, [[0, 2, 7]] + 5 * [[0, 7]], 7),
        ({0: STAYS, 2: [1.0], 7: [2.0, 4.0, 2.0, 4.0, 2.0, 0.0]}, [[0, 2, 7]] + 5 * [[0, 7]], 0),
    ],
)
def test_the_best_forecast_is_run_on_until_it_has_won_or_lost(
    returns: dict[int, list[float]], asked: list[list[int]], horizon: int
) -> None:
    tests = Scripted(returns)
    config = JumpConfig(forecaster="adds", horizons=(2, 7), margin=3.0)
    one = Jumper(config, Adds(), 1, LAYOUT, tests, STEPS)
    jumps = one.before_rollout(np.zeros((1, P), np.float32), np.array([0]), np.array([np.nan]))
    assert [horizons for _, horizons in tests.asked] == asked
    assert len({when for when, _ in tests.asked}) == len(asked)  # another episode each time
    (try_,) = jumps.tries
    assert (try_.horizon, try_.accepted) == (horizon, horizon > 0)
    assert try_.steps_spent == EPISODE * sum(len(horizons) for horizons in asked)
    assert one.counters["jump_steps"].tolist() == [try_.steps_spent]


def test_worthless_forecasts_pass_a_tenth_of_all_tests() -> None:
    """What `JumpConfig.margin` says: three forecasts as good as staying, and normal returns."""
    rng, count = np.random.default_rng(0), 4000

    def noise(params: Array, runs: Array, when: int) -> Episodes:
        returns = rng.standard_normal((len(params), 1))
        return Episodes(returns, np.ones(returns.shape, np.int64))

    config = JumpConfig()
    tests = [ForecastTest(run, [0, 1, 2, 3], np.zeros((4, 1), np.float32)) for run in range(count)]
    run_tests(tests, noise, config.episodes, config.margin, 0)
    passed = sum(best_forecast(test.returns)[1] > config.margin for test in tests)
    assert 0.09 < passed / count < 0.13


def test_tests_of_several_runs_end_one_by_one() -> None:
    asked: list[list[int]] = []

    def first_one_gains(params: Array, runs: Array, when: int) -> Episodes:
        asked.append(runs.tolist())
        returns = params[:, :1] * np.where(runs == 0, 1.0, -1.0)[:, None]
        return Episodes(returns, np.full(returns.shape, EPISODE))

    config = JumpConfig(forecaster="adds", horizons=(5,))
    one = Jumper(config, Adds(), 2, LAYOUT, first_one_gains, STEPS)
    jumps = one.before_rollout(np.zeros((2, P), np.float32), np.zeros(2, int), np.full(2, np.nan))
    assert jumps.jumped.tolist() == [True, False]
    assert asked == [[0, 0, 1, 1], [0, 0]]
    assert one.counters["jump_steps"].tolist() == [4 * EPISODE, 2 * EPISODE]


def test_the_better_forecast_is_jumped_to() -> None:
    one = Jumper(
        JumpConfig(forecaster="adds", horizons=(2, 7, 4)), Adds(), 1, LAYOUT, Scores(), STEPS
    )
    jumps = one.before_rollout(np.ones((1, P), np.float32), np.array([0]), np.array([np.nan]))
    assert jumps.jumped.tolist() == [True]
    (try_,) = jumps.tries
    assert (try_.horizon, try_.return_before, try_.return_after) == (7, 1.0, 8.0)
    assert try_.steps_spent == (4 + 2) * EPISODE  # the present policy and three forecasts, then one
    np.testing.assert_array_equal(np.delete(jumps.params, LAYOUT.slices["log_std"], 1), 8.0)


def test_a_worse_forecast_changes_nothing_but_the_steps_spent() -> None:
    one = jumper(Scores(sign=-1))
    (jumps,) = rollouts(one, 1)
    assert not jumps.jumped.any()
    assert not jumps.params.any()
    assert jumps.tries[0].horizon == 0
    counts = {name: count.tolist() for name, count in one.counters.items()}
    assert counts == {"jump_steps": [2 * EPISODE], "jumps": [0], "rollbacks": [0]}


@pytest.mark.parametrize("gate", [True, False])
def test_weights_that_are_not_finite_are_never_jumped_to(gate: bool) -> None:
    (jumps,) = rollouts(jumper(Scores(), forecaster=Breaks(), gate=gate), 1)
    assert not jumps.jumped.any()
    assert np.isfinite(jumps.params).all()


def test_without_the_gate_nothing_is_run() -> None:
    tests = Scores(sign=-1)
    one = jumper(tests, gate=False)
    (jumps,) = rollouts(one, 1)
    assert jumps.jumped.all()
    assert tests.asked == []
    assert one.counters["jump_steps"].tolist() == [0]


def test_a_jump_keeps_action_noise_between_its_bounds() -> None:
    at = LAYOUT.slices["log_std"]
    for growth, before, after in ((5.0, -0.5, -0.5), (-5.0, -0.5, -2.0), (-1.0, -0.5, -1.5)):
        one = jumper(Scores(sign=np.sign(growth)), min_log_std=-2.0, gate=False)
        one.forecaster._forecast = (  # type: ignore[method-assign]
            lambda histories, horizons, layout, growth=growth: histories[:, -1:] + growth
        )
        params = np.full((1, P), before, np.float32)
        jumps = one.before_rollout(params, np.array([0]), np.array([np.nan]))
        assert jumps.params[0, at].tolist() == [after]


def test_an_extrapolation_leaves_action_noise_alone() -> None:
    at, line = LAYOUT.slices["log_std"], jump_forecaster("line")
    one = jumper(Scores(), forecaster=line, min_history=8, gate=False, rollback=False)
    params = np.zeros((1, P), np.float32)
    for i in range(8):
        params[:] = -0.1 * i
        jumps = one.before_rollout(params, np.array([i * STEPS]), np.array([np.nan]))
    assert jumps.jumped.all()
    np.testing.assert_allclose(jumps.params[0, at], -0.7, rtol=1e-6)
    np.testing.assert_allclose(np.delete(jumps.params[0], at), -1.2, rtol=1e-5)  # 5 further


# --- when ------------------------------------------------------------------------------------


def test_tries_in_vain_become_rarer() -> None:
    assert tried(rollouts(jumper(Scores(sign=-1), every=2), 40)) == [0, 4, 12, 28]


def test_tries_go_on_as_often_after_a_jump() -> None:
    assert tried(rollouts(jumper(Scores(), every=3, rollback=False), 10)) == [0, 3, 6, 9]


def test_tests_stay_within_their_budget() -> None:
    one = Jumper(
        JumpConfig(forecaster="adds", horizons=(5,), every=1, budget=0.1, rollback=False),
        *(Adds(), 1, LAYOUT, Scores(), STEPS),
    )
    cost = 2 * 2 * EPISODE
    expected, spent = [], 0
    for rollout in range(60):
        if spent == 0 or spent + cost <= 0.1 * (rollout * STEPS + spent):  # the first one is free
            expected.append(rollout)
            spent += cost
    assert tried(rollouts(one, 60)) == expected
    assert one.counters["jump_steps"].tolist() == [spent]
    assert spent / (60 * STEPS + spent) <= 0.1


@pytest.mark.parametrize(("episode_steps", "again"), [(np.nan, 4), (10.0, 6), (30.0, 14)])
def test_longer_episodes_make_the_next_test_wait(episode_steps: float, again: int) -> None:
    """A test in vain took 20 steps; one of four episodes would take 40, or 120 of 30 steps each."""
    one = Jumper(
        JumpConfig(forecaster="adds", horizons=(5,), every=1, budget=0.1),
        *(Adds(), 1, LAYOUT, Scores(sign=-1), STEPS),
    )
    params, tries = np.zeros((1, P), np.float32), []
    for rollout in range(20):
        jumps = one.before_rollout(
            params,
            np.array([rollout * STEPS + one.counters["jump_steps"][0]]),
            np.array([np.nan]),
            episode_steps=np.array([episode_steps]),
        )
        tries += [rollout] * len(jumps.tries)
        one.arrays["next_try"][:] = 0  # nothing but the budget
    assert tries[:2] == [0, again]


def test_the_first_test_of_an_extrapolation_is_paid_for() -> None:
    line = jump_forecaster("line")
    config = JumpConfig(forecaster="line", horizons=(5,), min_history=2, budget=0.02)
    one = Jumper(config, line, 1, LAYOUT, Scores(sign=-1), STEPS)
    params, tries = np.zeros((1, P), np.float32), []
    for rollout in range(25):
        jumps = one.before_rollout(
            params + rollout,
            np.array([rollout * STEPS]),
            np.array([np.nan]),
            episode_steps=np.array([float(EPISODE)]),
        )
        tries += [rollout] * len(jumps.tries)
    assert tries == [20]  # 4 episodes of 10 steps are 2% of 2000


def test_no_more_than_so_many_jumps_are_made() -> None:
    done = rollouts(jumper(Scores(), every=1, max_jumps=2, rollback=False), 6)
    assert [bool(jumps.jumped.any()) for jumps in done] == [True, True, False, False, False, False]


def test_a_copied_policy_is_jumped_to_once_unless_it_is_undone() -> None:
    copy = BestStoredPolicy(np.ones(P, np.float32), LAYOUT)
    once = rollouts(jumper(Scores(), forecaster=copy, every=1, rollback=False), 6)
    assert [bool(jumps.jumped.any()) for jumps in once] == [True] + [False] * 5
    again = jumper(Scores(), forecaster=copy, every=1)
    done = rollouts(again, 6, returns=[-1.0] * 6)  # each rollout returns less than the 0 before
    assert sum(bool(jumps.jumped.any()) for jumps in done) > 1


@pytest.mark.parametrize(("asked", "first"), [(None, 31), (8, 7), (1, 1), (70, 69)])
def test_forecasters_of_lines_wait_for_a_history(asked: int | None, first: int) -> None:
    line = jump_forecaster("line")  # needs two checkpoints; no more than 64 are remembered
    one = jumper(Scores(), forecaster=line, every=1, min_history=asked, rollback=False)
    assert tried(rollouts(one, first + 3))[0] == first


def test_after_a_jump_a_history_is_waited_for_again() -> None:
    one = jumper(Scores(), every=1, min_history=5, rollback=False)
    assert tried(rollouts(one, 14)) == [4, 8, 12]


def test_histories_are_as_far_apart_as_the_model_learned() -> None:
    forecaster = Adds()
    one = jumper(Scores(), forecaster=forecaster, every=4, spacing=4, gate=False, rollback=False)
    params = np.zeros((1, P), np.float32)
    for i in range(9):
        one.before_rollout(params + i, np.array([0]), np.array([np.nan]))
    # a path begins anew with each jump: the checkpoint before, plus 5, is the first one
    assert forecaster.seen[0, :, 0].tolist() == [9.0, 8.0]


def test_every_rollout_is_a_checkpoint_where_its_steps_are_not_known() -> None:
    model = jump_forecaster(PENDULUM)
    assert isinstance(model, TrainedForecaster)
    model.settings["steps_per_checkpoint"] = 4 * STEPS
    for steps, spacing in ((STEPS, 4), (8 * STEPS, 1), (None, 1)):
        one = Jumper(JumpConfig(forecaster="m"), model, 1, LAYOUT, Scores(), steps)
        assert one.spacing == spacing


def test_a_path_begins_anew_after_a_jump() -> None:
    forecaster = Adds()
    one = jumper(Scores(), forecaster=forecaster, every=3, rollback=False)
    rollouts(one, 4)
    assert forecaster.seen[0, :, 0].tolist() == [5.0, 5.0, 5.0, 5.0]


def test_runs_that_are_out_are_not_tried() -> None:
    tests = Scores()
    one = jumper(tests, num_runs=3)
    zeros = np.zeros((3, P), np.float32)
    jumps = one.before_rollout(
        zeros, np.zeros(3, int), np.full(3, np.nan), np.array([True, False, True])
    )
    assert jumps.jumped.tolist() == [True, False, True]
    assert [runs for _, runs in tests.asked] == [[0, 0, 2, 2]] * 2


# --- undoing ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("before", "after", "undone"),
    [(3.0, 2.0, True), (3.0, 3.0, False), (3.0, 4.0, False)],
)
def test_a_jump_that_returns_less_is_undone(before: float, after: float, undone: bool) -> None:
    one = jumper(Scores())
    one.before_rollout(np.zeros((1, P), np.float32), np.array([0]), np.array([before]))
    assert one.judge(np.array([np.nan])).tolist() == [False]  # no episode ended: wait
    assert one.judge(np.array([after])).tolist() == [undone]
    assert one.judge(np.array([-9.0])).tolist() == [False]  # it is judged once
    assert one.counters["rollbacks"].tolist() == [int(undone)]


def test_an_untrained_run_is_judged_by_the_test() -> None:
    one = jumper(Scores())
    one.before_rollout(np.ones((1, P), np.float32), np.array([0]), np.array([np.nan]))
    assert one.judge(np.array([0.5])).tolist() == [True]  # the present policy had returned 1


def test_without_rollback_no_jump_is_undone() -> None:
    one = jumper(Scores(), rollback=False)
    one.before_rollout(np.zeros((1, P), np.float32), np.array([0]), np.array([3.0]))
    assert one.judge(np.array([-9.0])).tolist() == [False]


def test_goes_on_from_its_state() -> None:
    def continued(interrupted: bool) -> list[list[Any]]:
        one = jumper(Scores(), num_runs=2, every=2)
        rng = np.random.default_rng(0)
        found = []
        for i in range(12):
            params = rng.standard_normal((2, P), np.float32)
            if interrupted and i % 5 == 4:
                state = {name: array.copy() for name, array in one.state().items()}
                one = jumper(Scores(), num_runs=2, every=2)
                one.set_state(state)
            jumps = one.before_rollout(params, np.full(2, i * STEPS), np.full(2, float(i)))
            found.append([jumps.params.tobytes(), jumps.jumped.tolist(), str(jumps.tries)])
            found[-1].append(one.judge(rng.uniform(0, 12, 2)).tolist())
        return found

    assert continued(True) == continued(False)


def jumped_once() -> dict[str, Any]:
    """The state of two runs, of which the first has jumped."""
    one = jumper(Scores(), num_runs=2, every=2)
    for i in range(4):
        one.before_rollout(np.full((2, P), i, np.float32), np.full(2, i * STEPS), np.zeros(2))
    return one.state()


CHANGES: dict[str, Any] = {
    "float": lambda array: array.astype(np.float64 if array.dtype != np.float64 else np.float32),
    "text": lambda array: array.astype("S9"),
    "row more": lambda array: np.concatenate([np.atleast_1d(array)] * 2),
    "nothing": lambda array: array[..., :0] if array.ndim else np.zeros(0, array.dtype),
    "below": lambda array: np.full_like(array, -1),
    "least": lambda array: np.full_like(array, np.iinfo(np.int64).min),
    "largest": lambda array: np.full_like(array, np.iinfo(np.int64).max),
}


@pytest.mark.parametrize("change", [*CHANGES, "missing"])
def test_a_state_of_wrong_content_is_refused(change: str, tmp_path: Path) -> None:
    for name, array in jumped_once().items():
        if change in ("below", "least", "largest") and array.dtype != np.int64:
            continue  # no count
        state = jumped_once()
        if change == "missing":
            del state[name]
        else:
            state[name] = CHANGES[change](array)
        if change != "text":  # which no file holds
            storage.write_tensors(tmp_path / "state", state, {"kind": "jumps"})
            state = JUMPS.read(tmp_path / "state")[0]
        one = jumper(Scores(), num_runs=2, every=2)
        before = {name: array.copy() for name, array in one.state().items()}
        named = "" if change == "missing" else name
        with pytest.raises(TiplError, match=f"the state of jumps .*{named}.* expected"):
            one.set_state(state)
        for own, array in one.state().items():  # which stays as it was
            np.testing.assert_array_equal(array, before[own])


@pytest.mark.parametrize("kind", [None, "training", 3, ["jumps"]])
def test_files_of_other_kinds_are_no_jumps(kind: Any, tmp_path: Path) -> None:
    storage.write_tensors(tmp_path / "state", jumped_once(), {"kind": kind} if kind else {})
    with pytest.raises(TiplError, match=r"state is not as tipl writes it: .*kind"):
        JUMPS.read(tmp_path / "state")


def remembering(forecaster: Forecaster, layout: ParamLayout = LAYOUT) -> Jumper:
    """A run that has done eighty rollouts, and has not jumped."""
    config = JumpConfig(forecaster="any", min_history=99, gate=False)
    one = Jumper(config, forecaster, 2, layout, Scores(), STEPS)
    rng = np.random.default_rng(0)
    for _ in range(80):
        params = rng.standard_normal((2, layout.size), np.float32)
        one.before_rollout(params, np.zeros(2, int), np.full(2, np.nan))
    return one


@pytest.mark.parametrize(
    ("source", "target", "checkpoints"),
    [("line", None, 5), ("relex", None, 64), (PENDULUM, "elite", 1), (PENDULUM, "own", 64)],
)
def test_only_what_a_forecaster_reads_is_remembered(
    source: str, target: str | None, checkpoints: int
) -> None:
    one = remembering(jump_forecaster(source, target))
    assert one.state()["history"].shape == (2, checkpoints, P)
    assert one.arrays["elapsed"].tolist() == [80, 80]


def test_a_state_that_remembers_more_than_is_read_is_gone_on_from() -> None:
    """An earlier tipl stored 64 checkpoints for every forecaster."""
    line = jump_forecaster("line")
    one, other = (remembering(line) for _ in range(2))
    old = one.state()
    earlier = np.zeros((2, 64 - 5, P), np.float32)
    old["history"] = np.concatenate([earlier, old["history"]], axis=1)
    old["length"] = np.full(2, 64)
    other.set_state(old)
    for name, array in one.state().items():
        np.testing.assert_array_equal(other.state()[name], array, err_msg=name)


# --- forecasters -----------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["elite", "own", "nino", "wnn", "line", "relex", "two-point"])
def test_forecasts_depend_on_no_more_of_a_history_than_a_forecaster_says(kind: str) -> None:
    directory = Path(__file__).parent / "data" / "format_1"
    if kind in ("elite", "own"):
        forecaster = jump_forecaster(directory / "neuron-transformer", kind)
    else:
        forecaster = jump_forecaster(directory / kind if kind in ("nino", "wnn") else kind)
    layout = Policy.initial(PENDULUM, hidden=(5, 4)).layout
    walks = np.random.default_rng(0).normal(0, 0.1, (2, 9, layout.size)).cumsum(axis=1)
    history = walks.astype(np.float32)
    whole = forecaster.forecast(history, [1, 4], layout=layout)
    for kept in range(forecaster.min_history, 9):
        part = forecaster.forecast(history[:, -kept:], [1, 4], layout=layout)
        if forecaster.reads_last is not None and kept >= forecaster.reads_last:
            np.testing.assert_array_equal(part, whole)
    assert (forecaster.reads_last is None) == (kind in ("own", "relex", "two-point"))


def test_a_forecaster_is_found_by_name_or_directory(tmp_path: Path) -> None:
    Policy.initial(PENDULUM, seed=3).save(tmp_path / "policy")
    copy = jump_forecaster(tmp_path / "policy")
    assert isinstance(copy, BestStoredPolicy)
    np.testing.assert_array_equal(copy.params, Policy.initial(PENDULUM, seed=3).params)
    assert jump_forecaster("relex").name == "RELEX"
    assert jump_forecaster(PENDULUM).name == "NeuronTransformer (elite)"
    assert jump_forecaster(PENDULUM, "own").name == "NeuronTransformer (own)"
    with pytest.raises(TiplError, match="jumps take a model, the directory of a policy, or one of"):
        jump_forecaster("no-such-thing")


def test_another_one_takes_its_place_where_a_model_does_not_fit() -> None:
    config = JumpConfig(forecaster=PENDULUM)
    model, why_not = fitting_forecaster(config, lambda task: Policy.initial(task, hidden=(20, 20)))
    assert (model.name, why_not) == ("NeuronTransformer (elite)", None)
    other, why_not = fitting_forecaster(config, lambda _: Policy.initial("HalfCheetah-v4"))
    assert other.name == "RELEX"
    assert why_not is not None
    assert "this model was trained on InvertedPendulum-v4" in why_not
    other, why_not = fitting_forecaster(config, lambda _: None)
    assert other.name == "RELEX"
    other, why_not = fitting_forecaster(JumpConfig(), lambda _: None, "Swimmer-v4")
    assert (other.name, why_not) == ("RELEX", "no model for Swimmer-v4 ships with tipl")
    shipped, why_not = fitting_forecaster(JumpConfig(), Policy.initial, PENDULUM)
    assert (shipped.name, why_not) == ("NeuronTransformer (elite)", None)


def test_a_copied_policy_fits_its_own_architecture_alone() -> None:
    policy = Policy.initial(PENDULUM)
    copy = BestStoredPolicy(policy.params, policy.layout)
    check_fits(copy, policy)
    with pytest.raises(
        TiplError, match=r"\(64, 64\) tanh units, and the run's policy has \(8, 8\)"
    ):
        check_fits(copy, Policy.initial(PENDULUM, hidden=(8, 8)))


def test_what_is_tried_by_default() -> None:
    own, elite = jump_forecaster(PENDULUM, "own"), jump_forecaster(PENDULUM)  # 31 checkpoints
    assert default_horizons(own, 0) == [3, 15, 30]
    assert default_horizons(own, 20) == [3, 10]
    assert default_horizons(own, 99) == [1]
    assert default_horizons(elite, 0) == [30]
    assert default_horizons(jump_forecaster("line"), 8) == [2, 4, 8]  # no further than it has come
    assert default_horizons(jump_forecaster("line"), 1) == [1]
    assert leads_to_one_behaviour(elite)
    assert not leads_to_one_behaviour(own)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"every": 3}, "jumps were given every but no forecaster"),
        ({"forecaster": "relex", "every": 0}, "every of the jumps is 0; expected at least 1"),
        ({"forecaster": "relex", "episodes": 0}, "episodes of the jumps is 0"),
        ({"forecaster": "relex", "min_history": 0}, "min_history of the jumps is 0; expected at"),
        (
            {"forecaster": "relex", "margin": -1.0},
            "margin of the jumps is -1.0; expected at",
        ),
        ({"forecaster": "relex", "budget": float("nan")}, "budget of the jumps is nan"),
        ({"forecaster": "relex", "horizons": (0, 3)}, "horizons of .0, 3. checkpoints"),
        ({"forecaster": "relex", "horizons": (1, 3), "gate": False}, "without the gate"),
        ({"forecaster": "relex", "min_log_std": float("-inf")}, "min_log_std of the jumps is -inf"),
    ],
)
def test_impossible_settings_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(TiplError, match=message):
        JumpConfig(**settings).check()
