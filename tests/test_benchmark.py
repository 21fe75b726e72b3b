"""The benchmark: its stages, its verdicts, its ledger and its report."""

from __future__ import annotations

import dataclasses
import functools
import math
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.figure import Figure

from in_process import do_little, run_tipl
from path_data import make_dataset
from results_files import read_results
from tipl.cli import main
from tipl.collection.config import CollectConfig
from tipl.core import storage
from tipl.errors import TiplError
from tipl.evaluation.forecast_sets import ForecastCase, ForecastReturns, ForecastSet
from tipl.evaluation.pictures import missing_renderer
from tipl.evaluation.stats import Interval
from tipl.experiments import pipeline
from tipl.experiments.benchmark import (
    Benchmark,
    BenchmarkConfig,
    benchmark,
    measuring_costs,
    outcome,
)
from tipl.experiments.benchmark.ledger import Cost, read_costs, write_costs
from tipl.experiments.benchmark.outcome import (
    CLAIMS,
    PPO,
    SHARES,
    Finding,
    findings,
    load_benchmark,
    pay_back_uses,
    steps_to_reach,
)
from tipl.experiments.benchmark.report import tally
from tipl.experiments.benchmark.stages import benchmark_stages
from tipl.experiments.clearing import FILM_PLACE
from tipl.experiments.config import BENCHMARK
from tipl.experiments.films import film_files, film_section
from tipl.experiments.run import Run
from tipl.models import kinds
from tipl.models.path_transformer.forecaster import PathTransformerForecaster
from tipl.models.path_transformer.net import PathTransformer, PathTransformerConfig
from tipl.paths import PathDataset
from tipl.paths.svd import PathSVD
from tipl.policies.layout import ParamLayout
from tipl.ppo.config import PPOConfig
from tipl.ppo.networks import ppo_flops_per_step
from tipl.report.page import Report
from tipl.report.results import Result
from tipl.report.style import figure_svg

CONFIG = BenchmarkConfig(
    "InvertedPendulum-v4",
    num_trials=6,
    held_out=0.34,
    total_steps=8192,
    shared_trials=4,
    path_steps=2,
    elite_steps=1,
    own_steps=1,
    nowcaster_steps=1,
    starts=(0.0, 0.5),
    horizons=(1,),
    episodes=1,
    pptb_trials=2,
    pptb=((2, 0.1),),
)
STAGES = [
    "collect", "collect, shared initial network", "paths evaluate",
    "collect (PPTB, rank 2, boost 0.1)", "paths evaluate (PPTB, rank 2, boost 0.1)",
    "train (path)", "train (joint)", "train (raw)", "train (elite)", "train (own)", "train (wnn)",
    "train (nino)", "forecast", "evaluate",
    "train (path), shared initial network", "train (joint), shared initial network",
    "train (raw), shared initial network", "forecast, shared initial network",
    "evaluate, shared initial network", "costs", "film",
]  # fmt: skip
TRAINED = [
    "PathTransformer (path basis)", "PathTransformer (joint basis)",
    "PathTransformer (joint basis, raw weights)", "NeuronTransformer (elite)",
    "NeuronTransformer (own)", "per-parameter nowcaster (WNN)", "neural-graph nowcaster (NiNo)",
]  # fmt: skip


@dataclasses.dataclass
class Made:
    directory: Path
    found: Benchmark


@pytest.fixture(scope="module")
def quick_commands() -> Iterator[None]:
    """Commands run in this process, and measure little."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pipeline, "_run_tipl", run_tipl)
        patch.setattr(measuring_costs, "LONG", measuring_costs.SHORT + 1)
        do_little(patch)
        yield


def not_written(figure: Figure, *, prefix: str = "") -> str:
    """Stands in for `figure_svg`, for a figure that is drawn and has been written elsewhere."""
    return "<svg></svg>"


def written_wide(figure: Figure, *, prefix: str = "") -> str:
    """Stands in for `figure_svg`: on the page only the wide figures are written."""
    return figure_svg(figure, prefix=prefix) if prefix.startswith("f") else not_written(figure)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory, quick_commands: None) -> Made:
    directory = tmp_path_factory.mktemp("benchmark") / "run"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("tipl.report.page.figure_svg", written_wide)
        patch.setattr("tipl.report.style.figure_svg", not_written)  # beside each PNG
        return Made(directory, benchmark(CONFIG, directory, progress=False))


@pytest.fixture
def undrawn(monkeypatch: pytest.MonkeyPatch) -> None:
    """Reports are not drawn again."""
    monkeypatch.setattr("tipl.report.page.write_report", lambda report, directory: None)


# --- the whole -------------------------------------------------------------------------------


def test_every_stage_is_done_in_order(made: Made) -> None:
    records = storage.read_json(made.directory / "stages.json")["stages"]
    assert [record["name"] for record in records] == STAGES
    assert all(record["command"].startswith("tipl ") for record in records)


def test_the_report_is_one_page_with_every_number(made: Made) -> None:
    html = (made.directory / "report.html").read_text(encoding="utf-8")
    titles = re.findall(r"<h2>(.*?)</h2>", html)
    assert [title for title in titles if title.startswith("Claim")] == [
        "Claim 1: it fits the dynamics",
        "Claim 2: forecasts do not deteriorate the policy",
        "Claim 3: it optimises policies by inference",
    ]
    for wanted in ("Audit", "What it takes", "Path trimming and boosting inside PPO"):
        assert any(title.startswith(wanted) for title in titles)
    assert not re.search(r"\bnan\b", html)
    assert "http://" not in html.replace("http://www.w3.org", "")
    assert f"All {len(made.found.results):d} numbers" in html
    for method in TRAINED:
        assert method in html


def test_figures_are_saved_as_svg_and_png(made: Made) -> None:
    names = {path.name for path in (made.directory / "figures").iterdir()}
    names -= {file.name for file in film_files(FILM_PLACE)}
    assert {name.rpartition(".")[2] for name in names} == {"png", "svg"}
    assert len(names) == 2 * len({name.rpartition(".")[0] for name in names}) >= 20


def test_results_tell_both_experiments_apart(made: Made) -> None:
    results = read_results(made.directory / "results.jsonl")
    assert results == made.found.results
    keys = [(r.experiment, r.initial, r.method, r.setting, r.metric) for r in results]
    assert len(set(keys)) == len(keys)
    experiments = {r.experiment for r in results}
    assert {"forecast", "optimize", "ledger", "low dimension"} <= experiments
    assert results.where(experiment="optimize", initial="shared")
    assert '"optimize, shared initial network"' in (made.directory / "results.jsonl").read_text()
    assert all(r.command for r in results if not r.method.startswith("forecast: "))


def test_each_piece_of_work_has_its_cost(made: Made) -> None:
    costs = {cost.work: cost for cost in made.found.costs}
    collected = costs["collect 6 trials"]
    assert collected.env_steps == 6 * 1024
    products = 2 * (4 * 64 + 64 * 64 + 64)  # of actor and critic, of which 2 x 4 x 64 in the first
    assert collected.flops == 6 * 1024 * 2 * (
        products + 2 * (3 * products - 2 * 4 * 64)
    )  # 2 epochs
    for name in TRAINED:
        assert costs[f"train: {name}"].flops > 1e6
        assert costs[f"train: {name}"].cpu_seconds > 0
        if name != "neural-graph nowcaster (NiNo)":
            continue
        assert costs[f"forecast: {name}"].flops > 1e5
    assert costs["train: NeuronTransformer (elite)"].env_steps > 1000
    assert costs["train: NeuronTransformer (own)"].env_steps == 0
    assert math.isnan(costs["forecast: least-squares line"].flops)
    assert costs["forecast: least-squares line"].cpu_seconds < 0.1


def test_a_second_run_reuses_everything(
    made: Made, undrawn: None, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def never(*args: Any, **kwargs: Any) -> None:
        raise AssertionError("a stage was done again")

    monkeypatch.setattr(pipeline, "_run_tipl", never)
    again = benchmark(CONFIG, made.directory)
    assert list(again.results) == list(made.found.results)
    reused = len(STAGES) - (missing_renderer() is not None)
    assert capsys.readouterr().err.count("already there: reused") == reused


def test_its_report_is_made_again_as_a_benchmarks(
    made: Made, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    reports: list[Report] = []
    monkeypatch.setattr(
        "tipl.report.page.write_report",
        lambda report, directory: reports.append(report),
    )
    main(["report", str(made.directory)])
    assert reports[0].title.endswith("can policy weights be optimised as trajectories?")
    assert f"{len(made.found.results)} numbers" in capsys.readouterr().out


def test_loading_only_loads(made: Made, monkeypatch: pytest.MonkeyPatch) -> None:
    def never(*args: Any, **kwargs: Any) -> None:
        raise AssertionError("loading works something out")

    for name in (
        *("film.film", "behaviour.best_checkpoint", "returns.evaluate_stack"),
        *("stats.resampling_weights", "stats.mean_interval"),
    ):
        monkeypatch.setattr(f"tipl.evaluation.{name}", never)
    monkeypatch.setattr("tipl.models.train.train", never)
    monkeypatch.setattr(outcome, "measure_dataset", never)
    found = load_benchmark(made.directory)
    assert found.config == CONFIG
    assert found.command == CONFIG.command_line(made.directory)
    assert list(map(repr, found.costs)) == list(map(repr, made.found.costs))  # NaN, too


def test_a_task_with_discrete_actions_ends_with_a_report(
    tmp_path: Path, quick_commands: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tipl.report.page.save_figure", lambda figure, folder, name: None)
    monkeypatch.setattr("tipl.report.page.figure_svg", not_written)
    monkeypatch.setattr(measuring_costs, "flops_per_step", lambda paths, config: 1.0)
    config = dataclasses.replace(
        CONFIG,
        env_id="CartPole-v1",
        num_trials=4,
        held_out=0.5,
        total_steps=4096,
        shared_trials=0,
        pptb_trials=0,
    )
    found = benchmark(config, tmp_path / "run", progress=False)
    html = (tmp_path / "run" / "report.html").read_text(encoding="utf-8")
    assert "How many directions a path needs" in html
    assert f"All {len(found.results):d} numbers" in html
    assert {part.part for part in found.dimensions} == {
        *("whole actor", "layer 1 (inputs)", "layer 2", "output layer"),
    }


def test_what_is_left_out_is_left_out(made: Made, undrawn: None) -> None:
    config = dataclasses.replace(CONFIG, shared_trials=0, pptb_trials=0)
    found = benchmark(config, made.directory, progress=False)
    assert found.shared is None
    assert not found.boosted
    assert found.results.values("initial") == [None]


# --- the rules of the verdicts ---------------------------------------------------------------


@pytest.fixture
def paths(tmp_path: Path) -> PathDataset:
    """Two usable trials of seven checkpoints, 4,096 steps apart."""
    make_dataset(tmp_path / "paths")
    return PathDataset.open(tmp_path / "paths").select([0, 1])


def forecast_run(
    paths: PathDataset, true: Sequence[float], forecasts: dict[ForecastCase, Sequence[float]]
) -> Run:
    """A run in which PPO has these returns at its checkpoints, and forecasts these in 2 trials."""
    checkpoints = np.repeat(np.array(true, float)[None, :, None], 2, axis=0)
    params = paths.params()[:, [case.target for case in forecasts]].swapaxes(0, 1)  # [F, N, P]
    made = ForecastSet(paths, list(forecasts), params, {})
    values = np.array(list(forecasts.values()), float).reshape(-1, 2, 1)  # [F, N, E]
    returns = ForecastReturns(values, checkpoints)
    return Run(paths, {}, made, returns, "command", [])


MODEL = "PathTransformer (path basis)"
TRUE = [0, 10, 20, 40, 60, 80, 100]


@pytest.mark.parametrize(
    ("near", "far", "verdict", "holds"),
    [
        ((41, 42), (99, 100), "no harm at any horizon", True),
        ((36, 36), (36, 36), "no harm at any horizon", True),  # within 5% of 100
        ((34, 34), (100, 100), "harm from 1 ahead on", False),
        ((41, 42), (10, 12), "harm from 3 ahead on", False),
        ((41, 42), (20, 60), "undecided", None),
    ],
)
def test_harm_is_judged_at_the_worst_horizon(
    near: tuple[float, float],
    far: tuple[float, float],
    verdict: str,
    holds: bool | None,
    paths: PathDataset,
) -> None:
    run = forecast_run(
        paths, TRUE, {ForecastCase(MODEL, 3, 1): near, ForecastCase(MODEL, 3, 3): far}
    )
    (found,) = (f for f in findings(run) if f.claim == CLAIMS[1])
    assert (found.verdict, found.holds) == (verdict, holds)
    changes = [np.mean(near) - 40, np.mean(far) - 40]
    assert found.result.value == pytest.approx(min(changes))
    assert found.result.metric == "return_minus_standing_still"
    assert found.result.horizon == (1 if changes[0] <= changes[1] else 3)


@pytest.mark.parametrize(
    ("reached", "verdict", "holds"),
    [
        ((99, 104), "as good as PPO's end", True),
        ((50, 52), "better than it was, below PPO's end", None),
        ((-3, 4), "no better than it was", False),
    ],
)
def test_optimising_is_judged_beside_ppos_end(
    reached: tuple[float, float], verdict: str, holds: bool | None, paths: PathDataset
) -> None:
    run = forecast_run(paths, TRUE, {ForecastCase(MODEL, 0, 6): reached})
    (found,) = (f for f in findings(run) if f.claim == CLAIMS[2])
    assert (found.verdict, found.holds) == (verdict, holds)
    assert found.result.start == 0
    assert found.result.metric == "episodic_return"
    assert (found.result.value, found.result.horizon) == (np.mean(reached), 6)


def test_a_perfect_forecast_fits_the_dynamics(paths: PathDataset) -> None:
    run = forecast_run(paths, TRUE, {ForecastCase(MODEL, 3, 1): (60, 60)})
    found = findings(run)
    assert [f.claim for f in found] == list(CLAIMS[:2])
    assert (found[0].holds, found[0].result.value) == (True, 0)
    still = ForecastSet(
        paths, run.forecasts.cases, paths.params()[None, :, 3], run.forecasts.settings
    )
    assert findings(dataclasses.replace(run, forecasts=still))[0].holds is False


# --- the ledger ------------------------------------------------------------------------------


def test_steps_to_reach_by_hand(paths: PathDataset) -> None:
    run = forecast_run(
        paths,
        TRUE,
        {
            ForecastCase("good", 0, 1): (20, 20),
            ForecastCase("good", 0, 6): (78, 78),  # the best horizon counts
            ForecastCase("good", 3, 3): (95, 95),
            ForecastCase("bad", 3, 3): (30, 30),
            ForecastCase("standing still", 3, 3): (40, 40),
        },
    )
    found = steps_to_reach(run.forecasts, run.returns)
    assert list(found) == [PPO, "good", "bad", "standing still"]
    assert SHARES == (0.5, 0.75, 0.9, 1.0)
    values = {name: [interval.value for interval in rows] for name, rows in found.items()}
    assert values == {
        PPO: [4 * 4096, 5 * 4096, 6 * 4096, 6 * 4096],
        "good": [0, 0, 3 * 4096, math.inf],
        "bad": [math.inf] * 4,
        "standing still": [math.inf] * 4,
    }
    assert all(i.low == i.value == i.high for rows in found.values() for i in rows)


def test_steps_to_reach_vary_with_the_trials_that_are_drawn(paths: PathDataset) -> None:
    # one trial of two gets there at once, the other only later; their mean later, too
    run = forecast_run(
        paths,
        TRUE,
        {ForecastCase(MODEL, 0, 6): (100, 0), ForecastCase(MODEL, 3, 3): (100, 100)},
    )
    interval = steps_to_reach(run.forecasts, run.returns)[MODEL][2]
    assert (interval.value, interval.low, interval.high) == (3 * 4096, 0, 3 * 4096)


def test_flops_of_ppo_by_hand() -> None:
    # actor 2 -> 3 -> 1 and critic 2 -> 3 -> 1: 2 x (6 + 3) products, of which 2 x 6 in first layers
    layout = ParamLayout.actor(2, 1, (3,)) + ParamLayout.critic(2, (3,))
    assert ppo_flops_per_step(layout, 10) == 2 * (18 + 10 * (18 + 18 + 6))


def test_uses_until_a_model_has_paid(paths: PathDataset) -> None:
    def interval(steps: float) -> list[Interval]:
        return [Interval(steps, steps, steps)] * len(SHARES)

    model = object.__new__(PathTransformerForecaster)
    model.tokenizer, model.targets, model.target = PathSVD(1), ("own",), "own"
    model.settings = {"datasets": {"digest": [0]}, "train": {}}
    model.model = PathTransformer(PathTransformerConfig(1, 2, 4, 1, 1))
    run = dataclasses.replace(forecast_run(paths, TRUE, {}), models={"own": model})
    name = model.name
    costs = [
        Cost("collect", "2 trials", 20_000.0, 40.0, 1.0, 1.0, ""),
        Cost("train", name, 500.0, 7.0, 1.0, 1.0, ""),
        Cost("forecast", name, 0.0, 0.5, 1.0, 1.0, ""),
    ]
    # a use saves 3,000 steps, which are 6 seconds, less half a second for the forecast
    uses = pay_back_uses(run, costs, {PPO: interval(4000.0), name: interval(1000.0)})
    assert uses == {name: (math.ceil(10_500 / 3000), math.ceil(27 / 5.5))}
    never = pay_back_uses(run, costs, {PPO: interval(4000.0), name: interval(math.inf)})
    assert never == {name: (math.inf, math.inf)}


def test_damaged_costs_are_noticed(tmp_path: Path) -> None:
    with pytest.raises(TiplError, match=r"there is no .*costs of a run \(made by `tipl costs`\)"):
        read_costs(tmp_path / "costs.json")


def test_costs_come_back_also_of_earlier_versions(tmp_path: Path) -> None:
    costs = [
        Cost("collect", "9 trials", 5.0, 2.0, 6.0, 3.0, "tipl collect"),
        Cost("train", "M (own)", 0.0, 1.5, 2.0, 4.0, "tipl train"),
        Cost("forecast", "M (own)", 0.0, 1.5, 7.0, 8.0, ""),
        Cost("stage", "evaluate", 1.0, 1.5, 7.0, 8.0, "tipl evaluate"),
    ]
    file = tmp_path / "costs.json"
    write_costs(file, costs)
    assert read_costs(file) == costs
    numbers = ("env_steps", "cpu_seconds", "flops", "peak_rss_mb", "command")
    earlier = [
        {"work": cost.work} | {name: getattr(cost, name) for name in numbers} for cost in costs
    ]
    assert earlier[1]["work"] == "train: M (own)"
    storage.write_json(file, {"digest": "of what they depended on", "costs": earlier})
    assert read_costs(file) == costs
    unknown = dataclasses.replace(costs[3], env_steps=math.nan)
    write_costs(file, [unknown])
    assert math.isnan(read_costs(file)[0].env_steps)


# --- what it is told -------------------------------------------------------------------------


@pytest.mark.parametrize(("task", "least"), [("InvertedPendulum-v4", 32), ("HalfCheetah-v4", 16)])
def test_enough_trials_are_held_out(task: str, least: int) -> None:
    config = BenchmarkConfig.for_task(task)
    assert round(config.held_out * config.num_trials) >= least
    assert config.shared_trials / 2 >= least
    assert config.pptb_trials >= 16
    assert 0.0 in config.starts


def test_options_beat_the_task_and_quick() -> None:
    config = BenchmarkConfig.for_task("HalfCheetah-v4", quick=True, num_trials=9)
    assert (config.num_trials, config.episodes) == (9, 1)
    assert config.own_behaviour_weight == 1
    assert BenchmarkConfig.for_task("Hopper-v4").num_trials == 64


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"num_trials": 3}, "num_trials is 3; expected at least 4"),
        ({"episodes": 0}, "episodes is 0"),
        ({"shared_trials": 1}, "shared_trials is 1; expected 0, or at least 2"),
        ({"pptb_trials": 7}, "pptb_trials is 7, but there are 6 trials"),
        ({"total_steps": 2048}, "total_steps is 2048; expected at least 4096"),
        ({"seed": -1}, "seed is -1"),
        ({"held_out": 1.0}, "held_out is 1.0; expected a share between 0 and 1"),
        ({"nowcaster_steps": 0}, "nowcaster_steps is 0"),
        ({"starts": (0.0, 1.5)}, "1.5 was given as the fraction of a path"),
        ({"starts": ()}, "no starts were given"),
        ({"horizons": (1, 0)}, r"the horizons \[1, 0\] were given; expected 1 or more"),
    ],
)
def test_impossible_options(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(TiplError, match=message):
        dataclasses.replace(CONFIG, **changes)


def test_a_kind_of_model_takes_part_by_its_entry(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A rival of tipl's own is trained; of others, the lead says how their tests came out."""
    path, rival = kinds.find_kind("path"), kinds.find_kind("wnn")
    added = (
        dataclasses.replace(rival, name="new-rival", title="NewRival"),
        dataclasses.replace(
            path, name="fresh", title="Fresh", colours={"Fresh": "blue"}, whose="x"
        ),
    )
    monkeypatch.setattr(kinds, "_OURS", (*kinds.all_kinds(), *added))
    stages = {stage.name: stage for stage in benchmark_stages(CONFIG, tmp_path)}
    words = [str(word) for word in stages["train (new-rival)"].words]
    assert words[words.index("--model") + 1] == "new-rival"
    assert {"train (wnn)", "train (nino)"} <= set(stages)
    assert "train (fresh)" not in stages

    result = Result("task", "forecast", "Fresh (own)", "episodic_return", 1.0)
    holds = {"Fresh (own)": True, "PathTransformer (joint basis)": False, "standing still": True}
    found = [
        Finding(dataclasses.replace(result, method=model), held, "", CLAIMS[0])
        for model, held in holds.items()
    ]
    assert tally(found) == (
        "the paper's model (PathTransformer) holds in 0 of 1 tests and fails in 1; "
        "x (Fresh) holds in 1 of 1 tests and fails in 0"
    )


def test_kinds_registered_in_this_process_are_no_stages(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A stage is a process of its own, which does not know them."""
    mine = dataclasses.replace(kinds.find_kind("wnn"), name="mine", title="Mine")
    monkeypatch.setattr(kinds, "_REGISTERED", {"mine": mine})
    assert mine in kinds.all_kinds()
    stages = [stage.name for stage in benchmark_stages(CONFIG, tmp_path)]
    assert "train (mine)" not in stages
    assert "train (nino)" in stages


def test_some_checkpoints_are_run_however_long_rollouts_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def every() -> str:
        config = BenchmarkConfig("InvertedPendulum-v4", total_steps=100 * 2048)
        stages = {stage.name: stage.words for stage in benchmark_stages(config, tmp_path)}
        return str(stages["paths evaluate"][-1])

    assert every() == "8"  # of 100 checkpoints
    short = functools.partial(CollectConfig, ppo=PPOConfig(num_steps=1024))
    monkeypatch.setattr("tipl.experiments.config.CollectConfig", short)
    assert every() == "16"  # of 200


def test_a_configuration_comes_back_from_json_and_from_its_command_line(tmp_path: Path) -> None:
    config = BenchmarkConfig.for_task(
        "HalfCheetah-v4",
        num_trials=17,
        nowcaster_steps=3,
        pptb=((1, 0.5), (2, 0.25)),
        starts=(0.5,),
    )
    config.write_record(tmp_path, None)
    record = BENCHMARK.read(tmp_path / BENCHMARK.name)
    assert record.config == config
    line = record.command
    assert line == (
        "tipl benchmark HalfCheetah-v4 --num-trials 17 --nowcaster-steps 3 --starts 0.5 "
        f"--pptb 1 0.5 2 0.25 --out {tmp_path}"
    )


def test_unknown_tasks_write_nothing(tmp_path: Path) -> None:
    with pytest.raises(TiplError, match="unknown environment id"):
        benchmark(BenchmarkConfig.for_task("Pendulm-v1"), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_films_show_the_median_network_three_times(made: Made) -> None:
    section = film_section(made.directory / FILM_PLACE)
    missing = missing_renderer()
    if missing is not None:
        assert missing in section.sentence
        assert not section.pictures
        return
    returns = r"untrained: .*; PPO, 1,024 steps: .*; after inference, 0 steps: "
    assert re.search(returns, section.sentence)
    (picture,) = section.pictures
    assert picture.data.startswith(b"GIF8")
    assert picture.still is not None
    assert picture.narrow is not None
    assert all(file.exists() for file in film_files(made.directory / FILM_PLACE))


def test_without_a_renderer_the_report_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tipl.experiments.films.missing_renderer", lambda: "install one")
    section = film_section(tmp_path / "figures" / "film.gif")
    assert section.sentence.endswith("nothing can be drawn here: install one")
    assert not (tmp_path / "figures").exists()


def test_findings_speak_of_results(made: Made) -> None:
    assert {finding.claim for finding in made.found.findings} == set(CLAIMS)
    rows: set[Result] = set(made.found.run.results)
    if made.found.shared is not None:
        rows |= set(made.found.shared.results)
    for finding in made.found.findings:
        assert isinstance(finding, Finding)
        assert finding.result in rows or math.isnan(finding.result.low)
