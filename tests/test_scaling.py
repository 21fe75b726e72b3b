"""How results grow: nested trials, laws, what they foretell, and an experiment that goes on."""

from __future__ import annotations

import contextlib
import dataclasses
import io
import itertools
import re
import shlex
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.figure import Figure

from in_process import LITTLE_LEARNING, SHORTER, STARTING, do_little
from path_data import make_dataset
from results_files import read_results
from tipl import PathDataset, TiplError
from tipl.cli import main
from tipl.core import storage
from tipl.experiments import pipeline
from tipl.experiments.benchmark import measuring_costs
from tipl.experiments.pipeline import Ended
from tipl.experiments.scaling import ScalingConfig, fit, scaling
from tipl.experiments.scaling.config import AXES, SCALING
from tipl.experiments.scaling.measuring import Bench
from tipl.experiments.scaling.outcome import Scaling, load_scaling
from tipl.experiments.scaling.points import TARGETS, Point, Size, points, seeds, sizes
from tipl.experiments.scaling.predicting import (
    METRICS,
    PREDICTIONS,
    predict,
    read_predictions,
    series,
)
from tipl.experiments.scaling.records import POINT, POINT_FILE, Measured, point_file
from tipl.experiments.scaling.report import lead, scaling_report
from tipl.experiments.stage_records import read_records
from tipl.forecast.base import Forecaster
from tipl.paths.nesting import first_trials
from tipl.report.results import write_results

TASK = "InvertedPendulum-v4"

# --- nested subsets --------------------------------------------------------------------------


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("dataset") / "paths"
    make_dataset(directory, num_trials=12)
    return directory


def test_larger_subsets_contain_the_smaller_ones(dataset: Path) -> None:
    training = PathDataset.open(dataset).split(0.25).train
    for order in range(3):
        drawn = [set(first_trials(training, n, order).trials.tolist()) for n in range(1, 9)]
        assert [len(one) for one in drawn] == [*range(1, 9)]
        assert all(fewer < more for fewer, more in itertools.pairwise(drawn))
    assert len({tuple(first_trials(training, 4, order).trials) for order in range(8)}) > 4
    shuffled = training.select(training.trials[::-1])
    same = first_trials(shuffled, 3, 1).trials
    assert same.tolist() == first_trials(training, 3, 1).trials.tolist()
    assert first_trials(training, 3).trials.tolist() == training.trials[:3].tolist()


def test_no_subset_holds_what_is_held_out(dataset: Path, tmp_path: Path) -> None:
    paths = PathDataset.open(dataset)
    held_out = {*paths.split(0.25).held_out.trials.tolist()}
    trained = []
    for count in (2, 4):
        out = tmp_path / f"first-{count}"
        words = f"train {dataset} --first-trials {count} --order 5 --num-steps 1 --width 4"
        main([*words.split(), "--heads", "1", "--model", "neuron", "--targets", "own",
              "--batch-size", "1", "--out", str(out), "--quiet"])  # fmt: skip
        ((_, trials),) = Forecaster.from_pretrained(out).training_trials.items()
        trained.append({*trials})
    assert trained[0] < trained[1]
    assert not held_out & trained[1]


# --- the law ---------------------------------------------------------------------------------

X = np.array([8.0, 16, 32, 64, 128, 256])


@pytest.fixture
def few_resamples(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fit, "RESAMPLES", 10)


def noisy(law: fit.Law, noise: float, x: np.ndarray = X, rows: int = 3) -> list[np.ndarray]:
    """Runs of a known law, of some seeds and ten trials each."""
    rng = np.random.default_rng(3)
    return [value + rng.normal(0, noise, (rows, 10)) for value in law.at(x)]


@pytest.mark.parametrize("law", [fit.Law(0.4, 1.5, 0.7), fit.Law(900.0, -2000.0, 0.5)])
def test_a_known_law_is_found(few_resamples: None, law: fit.Law) -> None:
    rising = law.factor < 0
    exact = fit.fit_power_law(X, noisy(law, 0.0), rising=rising)
    assert exact.law == pytest.approx(law, rel=1e-3)
    assert exact.prediction(512.0) == pytest.approx([law.at(np.array([512.0]))[0]] * 3, rel=1e-3)
    scale = abs(law.factor) / 500
    found = fit.fit_power_law(X, noisy(law, scale), rising=rising)
    assert found.law == pytest.approx(law, rel=0.15)
    for name, true in law._asdict().items():
        value, low, high = found.parameter(name)
        assert low <= value <= high
        assert low < high
        assert low - 0.1 * abs(true) < true < high + 0.1 * abs(true)
    low, high = found.band(X)
    assert (low <= high).all()
    assert np.isfinite([low, high]).all()


def test_a_prediction_is_less_sure_where_runs_scatter(few_resamples: None) -> None:
    law = fit.Law(0.4, 1.5, 0.7)
    widths = []
    for noise in (0.01, 0.1):
        _, low, high = fit.fit_power_law(X, noisy(law, noise), rising=False).prediction(512.0)
        widths.append(high - low)
    assert widths[1] > 2 * widths[0] > 0


def test_one_value_far_off_changes_little(few_resamples: None) -> None:
    law = fit.Law(0.4, 1.5, 0.7)
    runs = noisy(law, 0.0)
    runs[3] = runs[3] + 0.3  # of a range of 0.3
    found = fit.fit_power_law(X, runs, rising=False)
    plain = np.mean([one.mean() for one in runs])
    assert abs(found.law.at(np.array([512.0]))[0] - law.at(np.array([512.0]))[0]) < 0.1
    assert plain > found.law.at(np.array([512.0]))[0]


def test_errors_do_not_fall_below_zero(few_resamples: None) -> None:
    steep = fit.Law(-0.3, 1.5, 0.3)
    found = fit.fit_power_law(X, noisy(steep, 0.0), rising=False, lowest=0.0)
    assert found.law.offset >= 0
    assert min(one.offset for one in found.laws) >= 0


def test_what_does_not_change_has_a_flat_law(few_resamples: None) -> None:
    found = fit.fit_power_law(X, [np.full((2, 3), 5.0)] * 6, rising=True)
    assert (found.law.offset, found.law.factor) == (5.0, 0.0)
    assert found.prediction(512.0) == (5.0, 5.0, 5.0)


def test_what_goes_the_other_way_has_a_flat_law(few_resamples: None) -> None:
    found = fit.fit_power_law(X, noisy(fit.Law(0.4, 1.5, 0.7), 0.0), rising=True)
    values = found.law.at(X)
    assert np.ptp(values) < 0.05


def test_too_few_sizes_have_no_law() -> None:
    runs = [np.ones((1, 2))] * 3
    with pytest.raises(TiplError, match="to be fitted to 3 sizes; expected 4 at least"):
        fit.fit_power_law(X[:3], runs, rising=True)
    with pytest.raises(TiplError, match="not all finite"):
        fit.fit_power_law(X[:4], [*runs, np.full((1, 2), np.nan)], rising=True)


# --- the grid --------------------------------------------------------------------------------

CONFIG = ScalingConfig(
    TASK, num_trials=8, held_out=0.25, total_steps=6144, checkpoint_interval=1,
    trials=(1, 2, 3, 4, 6), widths=(4,), num_steps=(2,), base_trials=1, base_width=4,
    base_steps=2, rounds=1, seeds=2, episodes=1, networks=2, history=0.25, horizon=1,
)  # fmt: skip
OPTIONS = (
    "--num-trials 8 --held-out 0.25 --total-steps 6144 --checkpoint-interval 1 --trials 1 2 3 4 6 "
    "--widths 4 --num-steps 2 --base-trials 1 --base-width 4 --base-steps 2 --rounds 1 --seeds 2 "
    "--episodes 1 --networks 2 --horizon 1"
)


def test_one_axis_grows_at_a_time_and_the_largest_come_last() -> None:
    config = dataclasses.replace(CONFIG, widths=(4, 8), base_trials=3)
    first, later = points(config)
    every = [*first, *later]
    assert len({*every}) == len(every)
    base = Size(**config.base)
    for axis in AXES:
        for size in sizes(config, axis):
            changed = [name for name, value in config.base.items() if getattr(size, name) != value]
            assert set(changed) <= {axis}
    assert {point.size for point in later} == {Size(6, 4, 2), Size(3, 8, 2)}
    assert [len(seeds(config, Size(n, 4, 2))) for n in config.trials] == [2, 2, 2, 1, 1]
    assert len(seeds(config, base)) == 2
    assert {point.target for point in first} == {*TARGETS} == {"own", "elite"}


def test_the_defaults_are_those_of_the_protocol() -> None:
    config = ScalingConfig.for_task("HalfCheetah-v4")
    assert config.trials == (8, 16, 32, 64, 128, 256, 512)
    assert config.own_behaviour_weight == 1
    assert all(len(sizes(config, axis)) > fit.FEWEST for axis in AXES)
    ScalingConfig.for_task("HalfCheetah-v4", quick=True)


# --- made-up numbers -------------------------------------------------------------------------

MADE_UP = ScalingConfig.for_task(
    TASK, widths=(32, 64, 128), num_steps=(1000, 2000), seeds=3, episodes=2, networks=4
)


def made_up_model(point: Point) -> Measured:
    """A model that does as a law of its trials says, and a little otherwise for each seed."""
    scatter = 0.01 * (point.seed - 1) + 0.002 * np.arange(4)
    error = 0.3 + 2.0 * point.size.trials**-0.8 + scatter
    returns = 1000 - 2000.0 * point.size.trials**-0.5 + 100 * scatter
    numbers: dict[str, Any] = {"num_parameters": 100 * point.size.widths**2, "flops": 1e9}
    numbers["returns"] = np.repeat(returns[:, None], 2, axis=1).tolist()
    if point.target == "elite":
        return Measured("elite", "x", elite_return=1000.0, elite_env_steps=7, **numbers)
    errors = {"weight_errors": error.tolist(), "action_errors": (2 * error).tolist()}
    return Measured("own", "x", **numbers, **errors)


def parameters(target: str, width: int) -> int:
    """Of a made-up model."""
    return 100 * width**2


@pytest.fixture
def made_up(tmp_path: Path, few_resamples: None, monkeypatch: pytest.MonkeyPatch) -> Scaling:
    monkeypatch.setattr("tipl.evaluation.stats.RESAMPLES", 50)
    first, later = points(MADE_UP)
    known = {point: made_up_model(point) for point in (*first, *later)}
    predict(MADE_UP, tmp_path, {point: known[point] for point in first}, [], parameters)
    (tmp_path / "returns").mkdir()
    for point, one in known.items():
        storage.write_json(point_file(tmp_path, point), dataclasses.asdict(one), POINT_FILE)
    MADE_UP.write_record(tmp_path, "tipl scaling", ppo=[[900.0, 1000.0], [980.0, 1000.0]])
    return load_scaling(tmp_path)


def test_the_largest_size_is_predicted_from_the_smaller_ones(made_up: Scaling) -> None:
    assert {(one.axis, one.sizes) for one in made_up.predictions} == {("trials", 6)}
    assert len(made_up.predictions) == len(METRICS)
    for metric in METRICS:
        one = made_up.prediction("trials", metric)
        assert one is not None
        assert one.foretold
        true = 0.3 + 2 * 512**-0.8
        wanted = {"weight_error": true, "action_error": 2 * true}.get(
            metric.name, 1000 - 2000 * 512**-0.5
        )
        assert one.value == pytest.approx(wanted, rel=0.05)
        assert one.low < one.value < one.high
        measured = made_up.last("trials", metric)
        assert one.low < measured.value < one.high


def test_an_axis_with_few_sizes_says_so(made_up: Scaling) -> None:
    report = scaling_report(made_up)
    by_title = {section.title: section for section in report.sections}
    assert "There is no prediction" not in by_title["Over the number of training trials"].sentence
    said = by_title["Over the size of the model"].sentence
    assert "There is no prediction: the number of smaller sizes is 2, and" in said
    assert len(report.headline.rows) == len(METRICS)


def test_every_number_has_a_row(made_up: Scaling, tmp_path: Path) -> None:
    rows = made_up.rows
    own = "NeuronTransformer (own)"
    place = {"training_trials": 512, "num_steps": 1000, "part": "1 seed"}
    assert rows.one(method=own, metric="weight_error", **place).n_trials == 4
    base = {"training_trials": 128, "num_parameters": 409_600, "num_steps": 1000}
    assert rows.one(method=own, metric="weight_error", **base).part == "3 seeds"
    assert rows.one(method="PPO", metric="episodic_return").value == 970
    assert rows.one(method=own, metric="flops", **base).value == 1e9
    law = rows.one(method=own, metric="weight_error_exponent", part="over training trials")
    assert law.value == pytest.approx(0.8, abs=0.2)
    assert law.low <= law.value <= law.high
    predicted = rows.where(metric="weight_error_predicted")
    assert [row.training_trials for row in predicted] == [512]
    write_results(tmp_path / "results.jsonl", rows)
    assert list(map(repr, read_results(tmp_path / "results.jsonl"))) == list(map(repr, rows))


def test_the_curves_show_law_runs_and_prediction(made_up: Scaling) -> None:
    section = scaling_report(made_up).sections[0]
    assert section.figure is not None
    figure = section.figure(width=7.6)
    assert isinstance(figure, Figure)
    assert [axes.get_title("left") for axes in figure.axes] == [one.label for one in METRICS]
    assert {axes.get_xscale() for axes in figure.axes} == {"log"}
    lines = figure.axes[0].get_lines()
    (diamond,) = [line for line in lines if line.get_marker() == "D"]
    assert diamond.get_xdata() == [512]
    dots = [line for line in lines if line.get_marker() == "o"]
    assert [len(np.atleast_1d(line.get_xdata())) for line in dots] == [17, 7]  # seeds, and means
    assert len(figure.axes[0].collections) == 1  # the band


def test_predictions_made_afterwards_say_so(tmp_path: Path, few_resamples: None) -> None:
    first, later = points(MADE_UP)
    known = {point: made_up_model(point) for point in first}
    predict(MADE_UP, tmp_path, known, [later[0]], parameters)
    late = {(one.target, one.metric) for one in read_predictions(tmp_path) if not one.foretold}
    assert late == {("own", metric.name) for metric in METRICS if metric.target == "own"}
    before = read_predictions(tmp_path)
    predict(MADE_UP, tmp_path, known, [], parameters)  # of the same numbers: what was said holds
    assert read_predictions(tmp_path) == before
    moved = known | {first[0]: dataclasses.replace(known[first[0]], returns=[[1.0]] * 4)}
    predict(MADE_UP, tmp_path, moved, later, parameters)
    changed = [one for one in read_predictions(tmp_path) if one not in before]
    assert [(one.target, one.metric, one.foretold) for one in changed] == [
        ("own", "episodic_return", False)
    ]


def test_a_series_has_those_sizes_whose_models_are_known() -> None:
    first, _ = points(MADE_UP)
    known = {point: made_up_model(point) for point in first[:-1]}
    found = series(MADE_UP, known, "trials", METRICS[0])
    assert found.x.tolist() == [8, 16, 32, 64, 128, 256]
    assert [one.shape for one in found.runs] == [(3, 4)] * 5 + [(1, 4)]
    found = series(MADE_UP, known, "widths", METRICS[0])
    assert found.x.tolist() == [102_400, 409_600]
    assert series(MADE_UP, {}, "trials", METRICS[0]).sizes == []


# --- the whole -------------------------------------------------------------------------------


def run_tipl(words: Sequence[str], quiet: bool) -> Ended:
    """Stands in for `pipeline._run_tipl`; PPO and models learn little."""
    words = list(words)
    if words[0] == "collect":
        steps = words.index("--total-steps") + 1
        words[steps] = str(int(words[steps]) // SHORTER)
        words += LITTLE_LEARNING
    if words[0] == "train":
        words += ["--batch-size", "1", "--memory", "16", "--fresh-widths", "4"]
        words += ["--fresh-depths", "1"]
    said, status = io.StringIO(), 0
    with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
        try:
            main(words)
        except SystemExit as end:
            status = int(end.code or 0)
    return Ended(status, STARTING, 300.0, said.getvalue().strip().rpartition("\n")[2])


@pytest.fixture(scope="module")
def little() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        do_little(patch)
        patch.setattr(pipeline, "_run_tipl", run_tipl)
        patch.setattr(fit, "RESAMPLES", 5)
        patch.setattr("tipl.evaluation.forecast_sets.STEPS_OF_ANCHOR", 20)
        patch.setattr("tipl.experiments.scaling.measuring.flops_per_step", lambda *_: 5.0)
        yield


@dataclasses.dataclass
class Made:
    directory: Path
    found: Scaling


@pytest.fixture(scope="module")
def made(little: None, tmp_path_factory: pytest.TempPathFactory) -> Made:
    directory = tmp_path_factory.mktemp("scaling") / "run"
    return Made(directory, scaling(CONFIG, directory, threads=1, progress=False))


def never(*args: Any, **kwargs: Any) -> Any:
    raise AssertionError("done again")


def test_every_size_is_trained_and_measured(made: Made) -> None:
    first, later = points(CONFIG)
    records = read_records(made.directory)
    assert [*records] == ["collect", *(point.name for point in (*first, *later))]
    assert {*made.found.known} == {*first, *later}
    held_out = PathDataset.open(made.directory / "paths").split(0.25).held_out
    orders: dict[int, list[list[int]]] = {}
    for point, one in made.found.known.items():
        assert np.shape(one.returns) == (2, 1)
        assert len(one.weight_errors) == len(one.action_errors) == 2 * (point.target == "own")
        assert one.flops == 5.0 * 2
        model = Forecaster.from_pretrained(made.directory / point.place)
        ((_, trials),) = model.training_trials.items()
        assert len(trials) == point.size.trials
        assert not {*trials} & {*held_out.trials.tolist()}
        orders.setdefault(point.seed, []).append(sorted(trials, key=lambda t: (t,)))
    for drawn in orders.values():  # of one seed the larger sets contain the smaller ones
        drawn.sort(key=len)
        assert all({*a} <= {*b} for a, b in itertools.pairwise(drawn))


def test_parameters_are_known_before_a_model_is_made(made: Made) -> None:
    bench = Bench(CONFIG, made.directory)
    for point, one in made.found.known.items():
        assert bench.num_parameters(point.target, point.size.widths) == one.num_parameters


def test_the_prediction_is_on_the_disk_before_the_largest_is_trained(
    made: Made, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert {one.axis for one in made.found.predictions} == {"trials"}
    assert all(one.foretold for one in made.found.predictions)
    run = shutil.copytree(made.directory, tmp_path / "run")
    _, later = points(CONFIG)
    (run / PREDICTIONS.name).unlink()
    for point in later:  # as if it had ended before the largest were begun
        shutil.rmtree(run / point.place)
        point_file(run, point).unlink()
    records = [one.to_json() for name, one in read_records(run).items()
               if name not in {point.name for point in later}]  # fmt: skip
    storage.write_json(run / "stages.json", {"stages": records})
    seen: dict[str, bool] = {}

    def noting(words: Sequence[str], quiet: bool) -> Ended:
        seen[shlex.join(words)] = (run / PREDICTIONS.name).exists()
        raise KeyboardInterrupt  # killed in the middle of it

    monkeypatch.setattr("tipl.report.page.write_report", lambda report, directory: None)
    monkeypatch.setattr(pipeline, "_run_tipl", noting)
    with pytest.raises(KeyboardInterrupt):
        scaling(CONFIG, run, threads=1, progress=False)
    assert [*seen.values()] == [True]
    foretold = read_predictions(run)
    assert foretold == made.found.predictions
    done: list[str] = []

    def going_on(words: Sequence[str], quiet: bool) -> Ended:
        done.append(shlex.join(words))
        return run_tipl(words, quiet)

    monkeypatch.setattr(pipeline, "_run_tipl", going_on)
    found = scaling(CONFIG, run, threads=1, progress=False)
    assert len(done) == len(later)  # finished ones are not trained again
    assert read_predictions(run) == foretold  # said before it was begun, and kept
    assert list(map(repr, found.known.values())) == list(map(repr, made.found.known.values()))


def test_a_second_run_repeats_nothing(
    made: Made, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(pipeline, "_run_tipl", never)
    monkeypatch.setattr(Bench, "_measure", never)
    monkeypatch.setattr("tipl.report.page.write_report", lambda report, directory: None)
    arguments = ["scaling", TASK, *OPTIONS.split(), "--out", str(made.directory)]
    main(arguments)
    printed = capsys.readouterr()
    count = len(made.found.known)
    assert printed.err.count("already there: reused") == count + 1
    assert f"model {count} of {count}" in printed.err
    assert "predicted" in printed.out
    record = SCALING.read(made.directory / SCALING.name)
    assert record.config == CONFIG
    assert record.command == shlex.join(["tipl", *arguments])
    main(["report", str(made.directory)])
    assert f"{len(made.found.rows)} numbers" in capsys.readouterr().out


def test_what_was_not_kept_is_measured_again(
    made: Made, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = shutil.copytree(made.directory, tmp_path / "run")
    lost = next(point for point in made.found.known if point.target == "elite")
    stale = next(point for point in made.found.known if point.target == "own")
    point_file(run, lost).unlink()
    file = point_file(run, stale)
    storage.write_json(file, storage.read_json(file) | {"digest": "of another model"}, POINT_FILE)
    measured: list[Point] = []
    original = Bench._measure

    def counted(self: Bench, point: Point, digest: str) -> Measured:
        measured.append(point)
        return original(self, point, digest)

    monkeypatch.setattr("tipl.report.page.write_report", lambda report, directory: None)
    monkeypatch.setattr(Bench, "_measure", counted)
    monkeypatch.setattr(pipeline, "_run_tipl", never)
    scaling(CONFIG, run, threads=1, progress=False)
    assert measured == [stale, lost] or measured == [lost, stale]
    assert POINT.read(point_file(run, lost)) == made.found.known[lost]
    point_file(run, lost).write_text("{}")
    with pytest.raises(TiplError, match=re.escape(point_file(run, lost).name)):
        scaling(CONFIG, run, threads=1, progress=False)


def test_the_report_is_one_page_with_the_figures_beside_it(made: Made) -> None:
    html = (made.directory / "report.html").read_text(encoding="utf-8")
    assert not re.search(r"\b(nan|inf)\b", html)
    assert f"All {len(made.found.rows):d} numbers" in html
    assert html.count("before it was run") >= len(METRICS)
    assert "PPO itself brings the held-out networks to" in " ".join(lead(made.found))
    names = {path.name for path in (made.directory / "figures").iterdir()}
    assert "01-over-the-number-of-training-trials.png" in names
    written = read_results(made.directory / "results.jsonl")
    assert list(map(repr, written)) == list(map(repr, made.found.rows))


def test_a_dataset_that_is_given_is_used_and_not_collected(
    made: Made, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = str(made.directory / "paths")
    monkeypatch.setattr("tipl.report.page.write_report", lambda report, directory: None)
    config = dataclasses.replace(CONFIG, paths=given, trials=(1, 2), seeds=1, num_trials=2)
    found = scaling(config, tmp_path / "run", threads=1, progress=False)
    assert "collect" not in read_records(tmp_path / "run")
    assert not found.predictions
    assert len(found.known) == 4
    assert "There is no prediction" in scaling_report(found).sections[0].sentence


def test_starting_over_removes_all_that_it_has_made(made: Made, tmp_path: Path) -> None:
    run = shutil.copytree(made.directory, tmp_path / "run")
    pipeline.prepare_directory(run, True, "scaling", [])
    assert [path.name for path in run.iterdir()] == ["stages.json"]


# --- refusals --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("--trials 8 4", r"trials \(8, 4\) were given; expected positive numbers that rise"),
        ("--trials 4 4 8", "expected positive numbers that rise"),
        ("--widths 0 4", "expected positive numbers that rise"),
        ("--num-steps 0", "expected positive numbers that rise"),
        ("--base-trials 512", "trials end at 512, but base_trials is 512; expected a base below"),
        ("--base-width 400", "widths end at 320, but base_width is 400"),
        ("--widths 30 66 70", "width of 30 was given with 4 heads"),
        ("--held-out 1", "held_out is 1.0; expected a share"),
        ("--num-trials 600", "512 trials were to be learned from, but of num_trials 600, 480 are"),
        ("--history 1", "1.0 was given as the fraction"),
        ("--horizon 0", r"horizons \[0\]"),
        ("--networks 1", "networks is 1; expected at least 2"),
        ("--seeds 0", "seeds is 0"),
        ("--own-behaviour-weight -1", "behaviour_weight is -1"),
        ("--paths nowhere", "there is no nowhere/metadata.json"),
        ("--total-steps 2048", "for paths of three checkpoints"),
        ("--threads 0", "threads is 0"),
    ],
)
def test_impossible_options_are_refused_in_a_line(
    options: str, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as end:
        main(["scaling", TASK, "--out", str(tmp_path / "run"), *options.split()])
    assert end.value.code == 2
    said = capsys.readouterr().err
    assert re.match(f"tipl: .*{message}", said)
    assert said.count("\n") == 1
    assert not (tmp_path / "run").exists()


def test_a_dataset_that_does_not_do_is_refused(
    dataset: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    refusals = {
        "HalfCheetah-v4": "paths of 'InvertedPendulum-v4' were given for",
        TASK: "512 trials were to be learned from, but of those in",
    }
    for task, message in refusals.items():
        with pytest.raises(SystemExit):
            main(["scaling", task, "--paths", str(dataset), "--out", str(tmp_path / "run")])
        assert message in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_a_directory_with_other_files_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(TiplError, match="holds other files than those of `tipl scaling`"):
        scaling(CONFIG, tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]


def test_operations_are_counted_of_a_training(made: Made) -> None:
    found = measuring_costs.flops_per_step(
        PathDataset.open(made.directory / "paths"),
        Bench(CONFIG, made.directory)._training("own", 4),
    )
    assert found > 0


def test_measurements_of_other_shapes_are_refused() -> None:
    numbers: dict[str, Any] = {"num_parameters": 1, "flops": 0.0}
    with pytest.raises(TiplError, match="expected one number of each"):
        Measured("own", "x", returns=[[1.0], [2.0]], **numbers)
    with pytest.raises(TiplError, match="expected one number of each"):
        Measured("elite", "x", returns=[[1.0], []], elite_return=1.0, **numbers)
    with pytest.raises(TiplError, match="elite's return"):
        Measured("elite", "x", returns=[[1.0]], **numbers)
