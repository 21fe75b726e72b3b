"""Forecasts of many trials: which are made, how far they miss, and what they return."""

from __future__ import annotations

import shutil
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from path_data import DIVERGED, N, T, make_dataset
from tipl.cli import main
from tipl.core import storage
from tipl.errors import TiplError
from tipl.evaluation.behaviour import Elite, best_checkpoint
from tipl.evaluation.forecast_sets import (
    ForecastCase,
    ForecastReturns,
    ForecastSet,
    equal_rows,
)
from tipl.evaluation.returns import Episodes, evaluate_stack
from tipl.evaluation.stats import mean_interval, paired_difference_interval
from tipl.experiments import rivals as rivals_module
from tipl.experiments.forecasts import forecast_held_out, held_out_trials, make_forecasts
from tipl.experiments.rivals import Given, Rival, register, rivals
from tipl.experiments.run import TRUE_CHECKPOINT, forecast_rows
from tipl.forecast.base import Forecaster
from tipl.forecast.extrapolation import LastDifferenceLine, LeastSquaresLine, StandingStill
from tipl.forecast.memory import BestStoredPolicy
from tipl.models.path_transformer.forecaster import PathTransformerForecaster
from tipl.models.train import train
from tipl.paths import PathDataset
from tipl.policies.layout import ParamLayout
from tipl.report import methods
from tipl.report.charts import Lines
from tipl.report.methods import Method
from tipl.report.results import place_label
from tipl.report.tables import Pivot

USABLE = [trial for trial in range(N) if trial != DIVERGED]
STILL = "standing still"


class Oracle(Forecaster):
    """Cheats: goes the given part of the way to the true checkpoint."""

    def __init__(self, paths: PathDataset, name: str, part: float = 1.0) -> None:
        self.true, self.name, self.part = paths.params(), name, part

    def _forecast(
        self, histories: np.ndarray, horizons: list[int], layout: ParamLayout | None
    ) -> np.ndarray:
        start = histories.shape[1] - 1
        np.testing.assert_array_equal(histories, self.true[:, : start + 1])
        targets = self.true[:, [start + horizon for horizon in horizons]]
        return self.part * targets + (1 - self.part) * histories[:, -1:]


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> PathDataset:
    """Five random paths of seven checkpoints, one of them diverged."""
    directory = tmp_path_factory.mktemp("dataset") / "paths"
    make_dataset(directory)
    return PathDataset.open(directory)


@pytest.fixture(scope="module")
def paths(dataset: PathDataset) -> PathDataset:
    return dataset.select(USABLE)


@pytest.fixture(scope="module")
def forecasts(paths: PathDataset) -> ForecastSet:
    oracles = [Oracle(paths, "oracle"), Oracle(paths, "half an oracle", 0.5)]
    forecasters = [StandingStill(), LastDifferenceLine(), *oracles]
    return forecast_held_out(forecasters, paths, starts=(0.0, 0.5), horizons=(1, 2))


@pytest.fixture(scope="module")
def returns(forecasts: ForecastSet) -> ForecastReturns:
    return forecasts.evaluate(episodes=2, seed=5)


def tiny_model(paths: PathDataset) -> PathTransformerForecaster:
    return train(
        paths, rank=2, width=4, depth=1, heads=1, num_steps=1, batch_size=2, progress=False
    )


def case_index(forecasts: ForecastSet, method: str, start: int, horizon: int) -> int:
    return forecasts.cases.index(ForecastCase(method, start, horizon))


# --- which forecasts are made ----------------------------------------------------------------


def test_cases_reach_from_each_start_to_the_end(paths: PathDataset) -> None:
    forecasters = [StandingStill(), LastDifferenceLine()]
    made = forecast_held_out(forecasters, paths, (0.75, 0.0, 0.5, 0.25), (2, 1, 5, 50))
    # the last checkpoint is 6; lines need two checkpoints, so they have none at the start
    horizons = {0: (1, 2, 5, 6), 2: (1, 2, 4), 3: (1, 2, 3), 4: (1, 2)}
    assert made.cases == [
        ForecastCase(method, start, horizon)
        for start, reach in horizons.items()
        for method in (STILL, "last-difference line")
        if start or method == STILL
        for horizon in reach
    ]
    assert all(case.target <= T - 1 for case in made.cases)
    assert made.settings == {"starts": [0.75, 0.0, 0.5, 0.25], "horizons": [2, 1, 5, 50]}


def test_forecasts_are_those_of_each_trial_and_case(paths: PathDataset) -> None:
    line = LeastSquaresLine(3)
    made = forecast_held_out([line, StandingStill()], paths, (0.5,), (1, 3))
    assert made.params.shape == (4, len(USABLE), paths.layout.size)
    for n, path in enumerate(paths):
        for horizon in (1, 3):
            f = case_index(made, line.name, 3, horizon)
            expected = line.forecast(path.params[:4], horizon)
            np.testing.assert_allclose(made.params[f, n], expected, rtol=1e-5, atol=1e-6)
            still = made.params[case_index(made, STILL, 3, horizon), n]
            np.testing.assert_array_equal(still, path.params[3])


def test_forecasters_are_told_the_architecture(paths: PathDataset) -> None:
    class Listening(StandingStill):
        heard: ParamLayout | None = None

        def _forecast(
            self, histories: np.ndarray, horizons: list[int], layout: ParamLayout | None
        ) -> np.ndarray:
            self.heard = layout
            return super()._forecast(histories, horizons, layout)

    forecaster = Listening()
    forecast_held_out([forecaster], paths, (0.5,), (1,))
    assert forecaster.heard == paths.layout


def test_starts_that_fall_together_are_one(paths: PathDataset) -> None:
    made = forecast_held_out([StandingStill()], paths, (0.5, 0.51, 0.99, 0.999), (1,))
    # a history leaves at least one checkpoint to forecast
    assert made.cases == [ForecastCase(STILL, 3, 1), ForecastCase(STILL, 3, 3),
                          ForecastCase(STILL, 5, 1)]  # fmt: skip


def test_the_shortest_paths_that_can_be_learned_from(tmp_path: Path) -> None:
    make_dataset(tmp_path / "paths", num_checkpoints=3)
    made = make_forecasts([], PathDataset.open(tmp_path / "paths"))
    assert {(case.start, case.horizon) for case in made.cases} == {(0, 1), (0, 2), (1, 1)}


@pytest.mark.parametrize(
    ("places", "message"),
    [
        ({"starts": (0.5, 1.0)}, "1.0 was given as the fraction"),
        ({"starts": (-0.1,)}, "-0.1 was given as the fraction"),
        ({"starts": (float("nan"),)}, "nan was given as the fraction"),
        ({"starts": ()}, "no starts were given"),
        ({"horizons": (1, 0)}, r"horizons \[1, 0\] were given; expected 1 or more"),
        ({"horizons": ()}, r"horizons \[\] were given"),
        ({"starts": (0.0,)}, "needs a longer history"),
    ],
)
def test_impossible_places(paths: PathDataset, places: dict[str, Any], message: str) -> None:
    with pytest.raises(TiplError, match=message):
        forecast_held_out([LastDifferenceLine()], paths, **places)


def test_paths_of_another_architecture(paths: PathDataset, tmp_path: Path) -> None:
    layout = ParamLayout.actor(4, 1, (2, 2))
    assert layout.size == paths.layout.size  # it is not the number of parameters that tells
    make_dataset(tmp_path / "paths", layout=layout, hidden_sizes=(2, 2))
    other = PathDataset.open(tmp_path / "paths")
    model = tiny_model(paths)
    with pytest.raises(TiplError, match=r"of \(2, 2\) tanh units.* trained on 20 and \(3,\)"):
        make_forecasts([model], other)


# --- held-out trials -------------------------------------------------------------------------


def test_held_out_trials_are_those_that_no_model_saw(dataset: PathDataset) -> None:
    first, second = tiny_model(dataset.select([0, 4])), tiny_model(dataset.select([4, 1]))
    assert held_out_trials(dataset, [first]).trials.tolist() == [1, 2]
    assert held_out_trials(dataset, [first, StandingStill(), second]).trials.tolist() == [2]
    assert held_out_trials(dataset, [StandingStill()]).trials.tolist() == USABLE
    assert held_out_trials(dataset.select([4, 2, 1]), [first]).trials.tolist() == [2, 1]
    with pytest.raises(TiplError, match=r"trained on all 5 usable trials of .*--held-out"):
        held_out_trials(dataset, [first, second, tiny_model(dataset.select([2]))])


def test_models_of_another_dataset_saw_none_of_this(dataset: PathDataset, tmp_path: Path) -> None:
    make_dataset(tmp_path / "other", seed=2)
    model = tiny_model(PathDataset.open(tmp_path / "other"))
    assert held_out_trials(dataset, [model]).trials.tolist() == USABLE


def test_a_model_may_have_learned_from_several_datasets(dataset: PathDataset) -> None:
    class Learned(StandingStill):
        @property
        def training_trials(self) -> dict[str, list[int]]:
            return {"another": [0, 1], dataset.metadata.digest: [2]}

    remaining = held_out_trials(dataset, [Learned()]).trials.tolist()
    assert remaining == [trial for trial in USABLE if trial != 2]


def test_make_forecasts_takes_the_rivals_along(dataset: PathDataset) -> None:
    model = tiny_model(dataset.select([0, 1]))
    made = make_forecasts([model], dataset, (0.0, 0.5), (1,))
    assert made.paths.trials.tolist() == [2, 4]
    methods = {start: [case.method for case in made.cases if case.start == start
                       and case.horizon == 1] for start in (0, 3)}  # fmt: skip
    memories = ["mean displacement", "nearest training path", "matched noise"]
    memories += ["partial least squares on return"]
    memories += ["best stored policy, copied", "best stored policy, output layer fitted"]
    assert methods[0] == [STILL, *memories, model.name]
    lines = ["last-difference line", "least-squares line"]
    lines += ["two-point line", "RELEX", "path trimming and boosting"]
    lines += ["dynamic mode decomposition"]
    assert methods[3] == [STILL, *lines, *memories, model.name]
    expected = model.forecast(dataset.params()[[2, 4], :4], 1)
    f = case_index(made, model.name, 3, 1)
    np.testing.assert_allclose(made.params[f], expected, rtol=1e-5, atol=1e-6)


def test_no_stored_policy_is_the_best_where_each_trial_has_its_own_physics(tmp_path: Path) -> None:
    make_dataset(tmp_path / "paths", vary={"gravity": [0.5, 2.0]})
    dataset = PathDataset.open(tmp_path / "paths")
    found = [rival.name for rival in rivals([tiny_model(dataset.select([0, 1]))], dataset)]
    memories = ["mean displacement", "nearest training path", "matched noise"]
    assert found[7:] == [*memories, "partial least squares on return"]


def test_a_rival_of_ones_own_takes_part(
    dataset: PathDataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Doubled(StandingStill):
        name = "doubled"

        def _forecast(
            self, histories: np.ndarray, horizons: list[int], layout: ParamLayout | None
        ) -> np.ndarray:
            return 2 * super()._forecast(histories, horizons, layout)

    monkeypatch.setattr(rivals_module, "RIVALS", dict(rivals_module.RIVALS))
    monkeypatch.setattr("tipl.report.methods._METHODS", dict(methods._METHODS))
    register(Rival(Method("doubled", "#a03070", "Mine."), lambda given: Doubled()))
    register(Rival(Method("absent", "#a03070"), lambda given: None))
    made = make_forecasts([tiny_model(dataset.select([0, 1]))], dataset, (0.5,), (1,))
    f = case_index(made, "doubled", 3, 1)
    np.testing.assert_array_equal(made.params[f], 2 * dataset.params()[[2, 4], 3])
    assert "absent" not in {case.method for case in made.cases}
    shape = made.paths.params().shape[:2]
    returns = ForecastReturns(np.ones((len(made.cases), shape[0], 1)), np.ones((*shape, 1)))
    rows = forecast_rows(made, returns, "command")
    table = Pivot("weight_error")(rows)
    assert "doubled" in [row[0] for row in table.rows]
    drawn = Lines("weight_error")(rows).axes[0].lines
    assert "#a03070" in [line.get_color() for line in drawn]


@pytest.mark.parametrize("seed", [0, 3])
def test_the_best_stored_policy_is_that_of_training(
    dataset: PathDataset, seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    seeds: list[int] = []

    def recording(paths: PathDataset, episodes: int = 8, seed: int = 0) -> Elite:
        seeds.append(seed)
        return best_checkpoint(paths, 1, seed)

    monkeypatch.setattr("tipl.experiments.rivals.best_checkpoint", recording)
    model, other = (tiny_model(dataset.select([0, 1])) for _ in range(2))
    model.settings["train"]["seed"] = seed
    made = make_forecasts([model], dataset, (0.0,), (1,))
    assert seeds == [seed]  # once, for all rivals that need it
    trial, checkpoint = made.settings["best_checkpoint"]
    copied = made.params[case_index(made, BestStoredPolicy.name, 0, 1)]
    assert trial in (0, 1)
    np.testing.assert_array_equal(copied, [dataset.params()[trial, checkpoint]] * 2)

    # the model that learned elite found it; what others were trained with does not matter
    other.settings["train"]["seed"] = 1
    model.settings["curves"] = dict.fromkeys(["own", "elite"], model.settings["curves"]["own"])
    assert Given([other, model], dataset).best == (trial, checkpoint)
    assert seeds == [seed, seed]


def test_equal_rows_are_told_without_a_copy_of_all() -> None:
    rows = np.random.default_rng(0).standard_normal((300, 4000)).astype(np.float32)
    rows[7], rows[200] = rows[3], rows[3]
    factors = np.ones(300)
    factors[200] = 2.0  # the same weights in other physics
    tracemalloc.start()
    which = equal_rows(rows, factors)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < rows.nbytes / 10
    assert which[7] == which[3] != which[200]
    assert len(set(which)) == 299


# --- how far they miss -----------------------------------------------------------------------


def test_weight_errors_by_hand(forecasts: ForecastSet, paths: PathDataset) -> None:
    errors = forecasts.weight_errors()
    assert errors.shape == (len(forecasts.cases), len(USABLE))
    true = paths.params().astype(np.float64)
    for f, case in enumerate(forecasts.cases):
        if case.method == STILL:
            np.testing.assert_allclose(errors[f], 1, rtol=1e-6)
        elif case.method == "oracle":
            assert (errors[f] == 0).all()
        elif case.method == "half an oracle":
            np.testing.assert_allclose(errors[f], 0.5, rtol=1e-6)
        else:
            now, before = true[:, case.start], true[:, case.start - 1]
            missed = now + case.horizon * (now - before) - true[:, case.target]
            moved = now - true[:, case.target]
            expected = np.sqrt((missed**2).sum(1)) / np.sqrt((moved**2).sum(1))
            np.testing.assert_allclose(errors[f], expected, rtol=1e-5)


def test_action_errors_by_hand(forecasts: ForecastSet, paths: PathDataset) -> None:
    errors, states = forecasts.action_errors(seed=5), forecasts._visited_states(5)
    assert len(np.unique(states, axis=0)) > 100
    limit = paths.task.action_bounds[1][0]

    def actions(params: np.ndarray) -> np.ndarray:
        """Of a network of three hidden units: 4 x 3 weights, 3 biases, 3 weights, 1 bias."""
        hidden = np.tanh(states @ params[:12].reshape(3, 4).T + params[12:15])
        return np.clip(hidden @ params[15:18] + params[18], -limit, limit)

    true = paths.params()
    for f, case in enumerate(forecasts.cases):
        for n in range(len(USABLE)):
            wanted = actions(true[n, case.target])
            missed = np.square(actions(forecasts.params[f, n]) - wanted).mean()
            still = np.square(actions(true[n, case.start]) - wanted).mean()
            assert errors[f, n] == pytest.approx(np.sqrt(missed / still), rel=1e-3, abs=1e-3)
        if case.method in (STILL, "oracle"):
            assert (errors[f] == (1 if case.method == STILL else 0)).all()


def test_actions_are_not_compared_where_physics_vary(tmp_path: Path) -> None:
    make_dataset(tmp_path / "paths", vary={"gravity": [0.5, 2.0]})
    made = make_forecasts([], PathDataset.open(tmp_path / "paths"), (0.5,), (1,))
    assert made.evaluate(1).action_errors is None


# --- what they return ------------------------------------------------------------------------


def test_returns_are_those_of_the_weights(
    forecasts: ForecastSet, returns: ForecastReturns, paths: PathDataset
) -> None:
    for n, path in enumerate(paths):
        alone = evaluate_stack(path.params, paths.layout, paths.task, 2, seed=5)
        np.testing.assert_array_equal(returns.checkpoints[n], alone.returns)
    for params, expected in zip(forecasts.params, returns.forecasts, strict=True):
        alone = evaluate_stack(params, paths.layout, paths.task, 2, seed=5)
        np.testing.assert_array_equal(expected, alone.returns)
    assert len(np.unique(returns.checkpoints)) > 5  # equal ones would be equal by chance


def test_standing_still_and_the_truth_return_what_the_checkpoints_do(
    forecasts: ForecastSet, returns: ForecastReturns
) -> None:
    for case, forecast in zip(forecasts.cases, returns.forecasts, strict=True):
        if case.method == STILL:
            np.testing.assert_array_equal(forecast, returns.checkpoints[:, case.start])
        if case.method == "oracle":
            np.testing.assert_array_equal(forecast, returns.checkpoints[:, case.target])


def test_equal_weights_are_run_once(
    forecasts: ForecastSet, returns: ForecastReturns, monkeypatch: pytest.MonkeyPatch
) -> None:
    run: list[np.ndarray] = []

    def recording(params: np.ndarray, *args: Any, **kwargs: Any) -> Episodes:
        run.append(params)
        return evaluate_stack(params, *args, **kwargs)

    monkeypatch.setattr("tipl.evaluation.returns.evaluate_stack", recording)
    again = forecasts.evaluate(episodes=2, seed=5, threads=1)
    assert len(run) == 1
    # the true checkpoints, and what the line and the half oracle forecast
    own = sum(case.method not in (STILL, "oracle") for case in forecasts.cases)
    assert len(run[0]) == len(np.unique(run[0], axis=0)) == len(USABLE) * (T + own)
    np.testing.assert_array_equal(again.forecasts, returns.forecasts)
    np.testing.assert_array_equal(again.checkpoints, returns.checkpoints)


def test_running_statistics_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make_dataset(tmp_path / "paths", normaliser="running")
    made = make_forecasts([], PathDataset.open(tmp_path / "paths"), (0.5,), (1,))
    with pytest.raises(TiplError, match=r"normaliser='running'.*collect with normaliser='frozen'"):
        made.evaluate(1)
    made.save(tmp_path / "forecasts")
    with pytest.raises(SystemExit):
        main(["evaluate", str(tmp_path / "forecasts")])
    assert "running" in capsys.readouterr().err
    assert not (tmp_path / "forecasts" / "returns.safetensors").exists()


def test_no_episodes_are_refused(forecasts: ForecastSet) -> None:
    with pytest.raises(TiplError, match="episodes is 0"):
        forecasts.evaluate(0)


# --- on disk ---------------------------------------------------------------------------------


def test_forecasts_come_back_from_disk(forecasts: ForecastSet, tmp_path: Path) -> None:
    forecasts.save(tmp_path / "runs" / "forecasts")
    loaded = ForecastSet.load(tmp_path / "runs" / "forecasts")
    assert loaded.cases == forecasts.cases
    assert loaded.settings == {"starts": [0, 0.5], "horizons": [1, 2]}
    assert loaded.paths.trials.tolist() == USABLE
    assert loaded.paths.directory == forecasts.paths.directory.resolve()
    np.testing.assert_array_equal(loaded.params, forecasts.params)
    np.testing.assert_array_equal(loaded.weight_errors(), forecasts.weight_errors())


def test_returns_come_back_from_disk(
    forecasts: ForecastSet, returns: ForecastReturns, tmp_path: Path
) -> None:
    out = tmp_path / "forecasts"
    forecasts.save(out)
    with pytest.raises(TiplError, match=r"no .*returns.* `tipl evaluate`"):
        ForecastReturns.load(out)
    main(["evaluate", str(out), "--episodes", "2", "--seed", "5", "--threads", "1"])
    measured = forecasts.evaluate(2, seed=5, threads=1)
    loaded, command = ForecastReturns.load(out)
    for found in (measured, loaded):
        np.testing.assert_array_equal(found.forecasts, returns.forecasts)
        np.testing.assert_array_equal(found.checkpoints, returns.checkpoints)
    assert (forecasts.evaluate(2, seed=6).checkpoints != returns.checkpoints).any()
    assert command == f"tipl evaluate {out} --episodes 2 --seed 5"
    forecasts.save(out)  # other forecasts would have other returns
    with pytest.raises(TiplError, match=r"no .*returns"):
        ForecastReturns.load(out)


def test_a_changed_dataset_is_noticed(tmp_path: Path) -> None:
    directory, out = tmp_path / "paths", tmp_path / "forecasts"
    make_dataset(directory)
    make_forecasts([], PathDataset.open(directory), (0.5,), (1,)).save(out)
    shutil.rmtree(directory)
    with pytest.raises(TiplError, match=f"there is no {directory / 'metadata.json'}"):
        ForecastSet.load(out)
    make_dataset(directory, seed=2)
    with pytest.raises(TiplError, match=r"made from another dataset than .*run `tipl forecast`"):
        ForecastSet.load(out)
    shutil.rmtree(directory)
    make_dataset(directory)
    assert ForecastSet.load(out).paths.trials.tolist() == USABLE


@pytest.mark.parametrize("name", ["forecasts.json", "forecasts.safetensors"])
def test_damaged_forecasts_are_noticed(forecasts: ForecastSet, name: str, tmp_path: Path) -> None:
    forecasts.save(tmp_path / "forecasts")
    path = tmp_path / "forecasts" / name
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(TiplError, match=f"{name} is damaged"):
        ForecastSet.load(tmp_path / "forecasts")
    path.unlink()
    with pytest.raises(TiplError, match=f"there is no .*{name}"):
        ForecastSet.load(tmp_path / "forecasts")


def test_forecasts_replace_only_forecasts(forecasts: ForecastSet, tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    for taken in (tmp_path, tmp_path / "notes.txt", tmp_path / "notes.txt" / "forecasts"):
        with pytest.raises(TiplError, match=str(taken)):
            forecasts.save(taken)
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]


# --- results ---------------------------------------------------------------------------------


def test_results_are_means_over_trials(
    forecasts: ForecastSet, returns: ForecastReturns, paths: PathDataset
) -> None:
    rows = forecast_rows(forecasts, returns, "tipl evaluate somewhere")
    found = {(row.method, row.setting, row.metric): row for row in rows}
    assert len(found) == len(rows)
    settings = {0: "untrained network, horizon {}", 3: "history 50%, horizon {}"}
    errors = forecasts.weight_errors()
    assert returns.action_errors is not None
    places = {(case.start, case.horizon) for case in forecasts.cases}
    assert places == {(0, 1), (0, 2), (0, 6), (3, 1), (3, 2), (3, 3)}
    expected: dict[tuple[str, str, str], np.ndarray] = {}
    for start, horizon in places:
        setting = settings[start].format(horizon)
        still = returns.checkpoints[:, start].mean(axis=1)
        measured = {TRUE_CHECKPOINT: returns.checkpoints[:, start + horizon]}
        for f, case in enumerate(forecasts.cases):
            if (case.start, case.horizon) == (start, horizon):
                measured[case.method] = returns.forecasts[f]
                expected[case.method, setting, "weight_error"] = errors[f]
                expected[case.method, setting, "action_error"] = returns.action_errors[f]
        for method, values in measured.items():
            expected[method, setting, "episodic_return"] = values.mean(axis=1)
            if method != STILL:
                change = values.mean(axis=1) - still
                expected[method, setting, "return_minus_standing_still"] = change
                better = (change > 0) + 0.5 * (change == 0)
                expected[method, setting, "probability_of_improvement"] = better
            if method != TRUE_CHECKPOINT:
                true = returns.checkpoints[:, start + horizon].mean(axis=1)
                expected[method, setting, "return_minus_true"] = values.mean(axis=1) - true
    iqms = {key for key in found if key[2] == "episodic_return_iqm"}
    assert {key[:2] for key in iqms} == {key[:2] for key in found if key[2] == "episodic_return"}
    assert set(found) - iqms == set(expected)
    for key, values in expected.items():
        row = found[key]
        assert row.value == pytest.approx(values.sum() / len(USABLE))
        assert (row.value, row.low, row.high) == pytest.approx(tuple(mean_interval(values)))
        assert row.low <= row.value <= row.high
        assert row.task == "InvertedPendulum-v4"
        assert row.experiment == ("optimize" if "untrained" in row.setting else "forecast")
        assert row.n_trials == len(USABLE)
        assert row.n_episodes == (0 if row.metric.endswith("_error") else 2)
        assert row.command == "tipl evaluate somewhere"


def test_differences_are_paired_by_trial(forecasts: ForecastSet) -> None:
    # trials differ by thousands, the forecasts of each by little: only pairs show it
    checkpoints = np.zeros((len(USABLE), T, 1)) + 1000.0 * np.arange(len(USABLE))[:, None, None]
    better = checkpoints[None, :, 0] + np.array([5.0, 6.0, 5.0, 4.0])[:, None]  # [1, N, E]
    made = ForecastReturns(np.repeat(better, len(forecasts.cases), axis=0), checkpoints)
    rows = forecast_rows(forecasts, made, "command")
    changes = [row for row in rows if row.metric == "return_minus_standing_still"]
    forecast = [row for row in changes if row.method != TRUE_CHECKPOINT]
    assert {row.value for row in forecast} == {5.0}
    assert all(4 <= row.low <= row.high <= 6 for row in forecast)
    interval = paired_difference_interval(better[0], checkpoints[:, 0])
    assert (forecast[0].low, forecast[0].high) == (interval.low, interval.high)
    assert {row.value for row in changes if row.method == TRUE_CHECKPOINT} == {0.0}


def test_how_histories_are_named() -> None:
    assert place_label(start=0 / 30) == "untrained network"
    assert place_label(start=15 / 30) == "history 50%"
    assert place_label(start=3 / 30) == "history 10%"


def test_the_files_are_of_tipl(forecasts: ForecastSet, tmp_path: Path) -> None:
    forecasts.save(tmp_path / "forecasts")
    record = storage.read_json(tmp_path / "forecasts" / "forecasts.json")
    assert record["dataset_digest"] == forecasts.paths.metadata.digest
    assert storage.check_tensors(tmp_path / "forecasts" / "forecasts.safetensors") is None
