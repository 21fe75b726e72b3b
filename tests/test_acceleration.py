"""The comparison of PPO with and without jumps: numbers, costs and the report."""

from __future__ import annotations

import dataclasses
import math
import re
import shlex
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.lines import Line2D
from rich.console import Console

from in_process import run_tipl
from path_data import make_arrays, make_dataset, make_metadata, write_parts, write_returns
from results_files import read_results
from tipl.cli import main
from tipl.core import storage
from tipl.errors import TiplError
from tipl.evaluation import stats
from tipl.experiments import pipeline
from tipl.experiments.acceleration import (
    AccelerationConfig,
    Comparison,
    accelerate,
)
from tipl.experiments.acceleration.outcome import ModelCost, load_comparison, model_cost
from tipl.experiments.acceleration.report import comparison_report, lead, print_headline
from tipl.experiments.acceleration.trials import (
    acceleration_stages,
    comparison_methods,
)
from tipl.experiments.benchmark.ledger import Cost
from tipl.experiments.config import COMPARISON
from tipl.paths import create_dataset
from tipl.paths.returns import EvaluationMetadata
from tipl.report.methods import line_styles, method_with_key
from tipl.report.page import Report
from tipl.report.results import Result, place_label

PENDULUM = "InvertedPendulum-v4"
STEPS = 100  # of PPO between two checkpoints of a made-up comparison

# --- a comparison of made-up numbers ---------------------------------------------------------

MADE_UP = AccelerationConfig(PENDULUM, num_trials=2, total_steps=200, widths=(64,), episodes=2)
PPO, PPTB, RELEX = "PPO", "PPTB", "RELEX, gated"
GATED, BLIND = "NeuronTransformer, gated", "NeuronTransformer, no gate"
RETURNS = {  # of each trial at each checkpoint
    "ppo": [[0, 50, 100], [10, 90, 200]],
    "pptb": [[0, 0, 0], [10, 10, 10]],
    "relex": [[0, 50, 100], [10, 90, 200]],
    "ours": [[120, 130, 140], [160, 170, 180]],
    "ours-blind": [[130, 140, 170], [150, 160, 180]],
}
COUNTS = {  # of each trial at the end, of which the tests come before the first rollout
    "relex": {"jump_steps": [0, 0], "jumps": [0, 0], "rollbacks": [0, 0]},
    "ours": {"jump_steps": [20, 40], "jumps": [1, 1], "rollbacks": [0, 1]},
    "ours-blind": {"jump_steps": [0, 0], "jumps": [1, 1], "rollbacks": [0, 0]},
}
CPU_SECONDS = {"ppo": 4.0, "pptb": 4.0, "relex": 4.0, "ours": 9.2, "ours-blind": 8.0}


def write_trials(
    directory: Path, returns: np.ndarray, counts: dict[str, list[int]], seed: int = 1
) -> None:
    """A dataset whose checkpoints have these mean returns `[N, T]` in two episodes each."""
    N, T = returns.shape
    metadata = make_metadata(
        num_trials=N,
        num_checkpoints=T,
        steps_per_checkpoint=STEPS,
        seed=seed,
        jumps={"forecaster": "x"} if counts else {},
    )
    arrays = make_arrays(metadata)
    arrays["diverged"] = np.isnan(returns)
    for name, values in counts.items():
        arrays[name] = np.repeat(np.array(values)[:, None], T, axis=1)
    create_dataset(directory, metadata)
    write_parts(directory, metadata, arrays)
    evaluation = EvaluationMetadata(metadata.digest, episodes=2, every=1, seed=0, versions={})
    episodes = np.stack([returns - 1, returns + 1], axis=2).astype(np.float32)  # [N, T, E]
    write_returns(directory, episodes, evaluation)


def write_comparison(
    directory: Path, cost: ModelCost | None = None, **changed: dict[str, Any]
) -> Path:
    """The directory of a comparison of these returns and costs, as its stages leave it."""
    returns = {**RETURNS, **changed.get("returns", {})}
    stages = []
    for method in comparison_methods(MADE_UP, directory, 64):
        write_trials(
            method.paths,
            np.array(returns[method.key], float),
            changed.get("counts", COUNTS).get(method.key, {}),
            changed.get("seeds", {}).get(method.key, 1),
        )
        stages.append(
            {
                "name": method.stage,
                "command": f"tipl collect {method.key}",
                "seconds": 1.0,
                "cpu_seconds": CPU_SECONDS[method.key],
                "peak_rss_mb": 1,
                "digest": "",
            }
        )
    storage.write_json(directory / "stages.json", {"stages": stages})
    MADE_UP.write_record(directory, "tipl accelerate", cost=cost and dataclasses.asdict(cost))
    return directory


@pytest.fixture(scope="module")
def made_up(tmp_path_factory: pytest.TempPathFactory) -> Comparison:
    cost = ModelCost(env_steps=6000.0, cpu_seconds=28.0, own=True)
    return load_comparison(write_comparison(tmp_path_factory.mktemp("made-up") / "run", cost))


def number(found: Comparison, method: str, metric: str, **place: Any) -> Result | None:
    """One number of a comparison, if there is such a one."""
    where: dict[str, Any] = {"architecture": "64-64", "beside": None, "uses": None} | place
    return found.rows.find(method=method, metric=metric, **where)


@pytest.mark.parametrize(
    ("method", "metric", "value"),
    [
        # at 200 steps the first trial has its checkpoint of 120 steps, the second that of 140
        (PPO, "final_return", (100 + 200) / 2),
        (GATED, "final_return", (130 + 170) / 2),
        (GATED, "final_return_iqm", (130 + 170) / 2),
        (GATED, "final_return_minus_ppo", 0),
        (GATED, "final_return_relative_to_ppo", 1),
        (GATED, "probability_of_improvement", 0.5),
        (BLIND, "final_return", (170 + 180) / 2),
        (BLIND, "final_return_minus_ppo", 25),
        (PPTB, "final_return_relative_to_ppo", 5 / 150),
        # 20 and 40 steps of tests are spent with PPO's untrained networks
        (PPO, "return_over_training", (25 + 50) / 2),
        (
            GATED,
            "return_over_training",
            ((20 * 0 + 100 * 120 + 80 * 130) + (40 * 10 + 100 * 160 + 60 * 170)) / 400,
        ),
        (GATED, "return_over_training_minus_ppo", 122.5 - 37.5),
        # means over the trials: 5, from 20 on 65, from 40 on 140, from 120 on 145, from 140 on 150
        (GATED, "env_steps_to_95_percent_of_ppo", 120),
        (GATED, "env_steps_to_100_percent_of_ppo", 140),
        (GATED, "env_steps_to_95_percent_of_ppo_relative_to_ppo", 0.6),
        (GATED, "env_steps_to_100_percent_of_ppo_relative_to_ppo", 0.7),
        (PPO, "env_steps_to_95_percent_of_ppo", 200),
        (PPTB, "env_steps_to_95_percent_of_ppo", math.inf),
        (PPTB, "env_steps_to_95_percent_of_ppo_relative_to_ppo", math.inf),
        (RELEX, "env_steps_to_100_percent_of_ppo_relative_to_ppo", 1),
        (GATED, "test_steps", 30),
        (GATED, "jumps", 1),
        (GATED, "rollbacks", 0.5),
        (RELEX, "jumps", 0),
        # 400 steps of PPO, and 220 + 240 with jumps
        (PPO, "cpu_seconds_per_env_step", 0.01),
        (GATED, "cpu_seconds_per_env_step", 0.02),
        (GATED, "cpu_seconds_per_env_step_relative_to_ppo", 2),
        (GATED, "cpu_seconds_to_100_percent_of_ppo", 2.8),
        (PPO, "cpu_seconds_to_100_percent_of_ppo", 2.0),
    ],
)
def test_numbers_by_hand(made_up: Comparison, method: str, metric: str, value: float) -> None:
    found = number(made_up, method, metric)
    assert found is not None
    assert found.value == pytest.approx(value)
    assert found.n_trials == 2
    assert found.experiment == "accelerate"


def test_differences_are_paired_by_trial(made_up: Comparison) -> None:
    found = number(made_up, GATED, "final_return_minus_ppo")
    assert found is not None
    assert (found.low, found.high) == (-30, 30)  # one trial's difference, or the other's
    area = number(made_up, GATED, "return_over_training_minus_ppo")
    assert area is not None
    assert (area.low, area.high) == pytest.approx((133 - 50, 112 - 25))


def test_the_gated_model_is_compared_with_every_rival(made_up: Comparison) -> None:
    values = {
        rival: number(made_up, GATED, "final_return_difference", beside=rival)
        for rival in (PPO, PPTB, RELEX, BLIND)
    }
    assert {name: row and (row.low, row.value, row.high) for name, row in values.items()} == {
        PPO: (-30, 0, 30),
        PPTB: (130, 145, 160),
        RELEX: (-30, 0, 30),
        BLIND: (-40, -25, -10),
    }


def test_what_a_method_does_not_have_is_no_number(made_up: Comparison) -> None:
    assert number(made_up, PPO, "jumps") is None
    assert number(made_up, PPO, "final_return_minus_ppo") is None
    assert number(made_up, PPTB, "test_steps") is None
    assert number(made_up, GATED, "final_return_difference", beside=GATED) is None


@pytest.mark.parametrize(
    ("uses", "steps", "seconds"),
    [
        (1, 6140, 30.8),
        (10, 740, 5.6),
        (100, 200, 3.08),
        (math.inf, 140, 2.8),
    ],
)
def test_a_models_cost_is_shared_among_its_uses(
    made_up: Comparison, uses: float, steps: float, seconds: float
) -> None:
    for metric, value in (("env_steps", steps), ("cpu_seconds", seconds)):
        found = number(made_up, GATED, f"{metric}_amortised", uses=uses)
        assert found is not None
        assert found.value == pytest.approx(value)


def test_uses_until_the_model_has_paid(made_up: Comparison) -> None:
    steps = number(made_up, GATED, "uses_to_pay_back_env_steps")
    seconds = number(made_up, GATED, "uses_to_pay_back_cpu_seconds")
    assert steps is not None
    assert seconds is not None
    assert steps.value == 100  # of 6,000 steps, a use saves 200 - 140
    assert seconds.value == math.inf  # a use takes 2.8 seconds, and PPO 2


def test_results_are_all_rows_and_finite(made_up: Comparison) -> None:
    assert len(made_up.results) == len(made_up.rows)
    keys = {(r.method, r.setting, r.metric) for r in made_up.results}
    assert len(keys) == len(made_up.results)
    never = [r for r in made_up.results if r.method == PPTB and r.metric.startswith("env_steps")]
    assert never
    assert all(math.isnan(r.value) for r in never)
    assert all(r.command.startswith("tipl ") for r in made_up.results)


def test_the_lead_says_who_wins(made_up: Comparison) -> None:
    text = " ".join(lead(made_up)).replace("\N{NON-BREAKING HYPHEN}", "-")
    assert f"Layers of 64-64: {GATED} ties at equal steps" in text
    assert "mean return of 150 beside PPO's 150" in text
    assert f"It wins against “PPTB”; it ties with “{RELEX}”; it loses to “{BLIND}”." in text
    assert "after 140 steps, where PPO needs 200" in text
    assert "6,000 environment steps: with 64-64 they are paid after 100 uses." in text


def test_the_lead_says_that_the_goal_is_not_reached(tmp_path: Path) -> None:
    low = {"ours": [[1, 1, 1], [2, 2, 2]]}
    text = " ".join(lead(load_comparison(write_comparison(tmp_path / "run", returns=low))))
    assert "loses at equal steps, with a mean return of 2 below PPO's 150" in text
    assert "does not come to PPO's final mean return" in text


def test_the_report_shows_each_method_and_number(made_up: Comparison) -> None:
    report = comparison_report(made_up)
    titles = [section.title for section in report.sections]
    assert titles[:2] == ["What is compared", "Return over environment steps"]
    assert titles[-1] == "When data and training are counted"
    assert [str(row[0]) for row in report.headline.rows] == [PPO, PPTB, RELEX, GATED, BLIND]
    methods = report.sections[0].table
    assert methods is not None
    assert [row[1] for row in methods.rows] == [
        method_with_key(key).sentence for key in ("ppo", "pptb", "relex", "ours", "ours-blind")
    ]
    steps = [cell.value for cell in report.headline.rows[3][2:4] if not isinstance(cell, str)]
    assert steps == [0.12, 0.14]  # thousands
    jumps = next(s.table for s in report.sections if s.title == "Tests, jumps and rollbacks")
    assert jumps is not None
    assert [str(row[0]) for row in jumps.rows] == [RELEX, GATED, BLIND]


def test_without_the_models_cost_nothing_is_amortised(tmp_path: Path) -> None:
    found = load_comparison(write_comparison(tmp_path / "run"))
    assert not any("amortised" in row.metric for row in found.rows)
    titles = [section.title for section in comparison_report(found).sections]
    assert "When data and training are counted" not in titles


def test_the_headline_fits_a_terminal(made_up: Comparison) -> None:
    console = Console(width=80)
    with console.capture() as capture:
        print_headline(made_up, console)
    text = capture.get()
    assert all(f" {name.split(',')[0]}" in text for name in (PPO, PPTB, RELEX, GATED))
    assert "less PPO's" in text
    assert "…" not in text


def test_who_needs_no_steps_either_is_as_fast_as_ppo(tmp_path: Path) -> None:
    flat = [[5, 5, 5], [5, 5, 5]]
    directory = write_comparison(tmp_path / "run", returns={"ppo": flat, "pptb": [[0, 0, 9]] * 2})
    found = load_comparison(directory)
    metric = "env_steps_to_100_percent_of_ppo_relative_to_ppo"
    same, later = (number(found, name, metric) for name in (GATED, PPTB))
    assert same is not None
    assert later is not None
    assert (same.low, same.value, same.high) == (1, 1, 1)  # untrained networks do as well
    assert later.value == math.inf


def test_a_diverged_trial_is_left_out_of_all_methods(tmp_path: Path) -> None:
    returns = {key: [*values, [1, 2, 3]] for key, values in RETURNS.items()}
    returns["pptb"][2] = [1, math.nan, math.nan]
    counts = {
        key: {name: [*values, 9] for name, values in own.items()} for key, own in COUNTS.items()
    }
    directory = write_comparison(tmp_path / "run", returns=returns, counts=counts)
    found = load_comparison(directory)
    assert (found.architectures[0].num_trials, found.architectures[0].left_out) == (2, 1)
    final = number(found, PPO, "final_return")
    tests = number(found, GATED, "test_steps")
    seconds = number(found, PPO, "cpu_seconds_per_env_step")
    assert final is not None
    assert tests is not None
    assert seconds is not None
    assert (final.value, tests.value) == (150, 30)
    assert seconds.value == 4.0 / 600  # of all that the stage trained
    assert any(sentence.endswith("under some method: 1 of the trials.") for sentence in lead(found))


def test_a_comparison_needs_two_trials(tmp_path: Path) -> None:
    returns = {"pptb": [[0, 0, 0], [10, 10, math.nan]]}
    directory = write_comparison(tmp_path / "run", returns=returns)
    with pytest.raises(TiplError, match="1 of 2 trials diverged under no method"):
        load_comparison(directory)


def test_trials_of_other_seeds_are_not_paired(tmp_path: Path) -> None:
    directory = write_comparison(tmp_path / "run", seeds={"relex": 5})
    with pytest.raises(TiplError, match=r"seeds and numbers: \[\(1, 2\), \(5, 2\)\]"):
        load_comparison(directory)


def test_a_stage_without_its_time_is_noticed(tmp_path: Path) -> None:
    directory = write_comparison(tmp_path / "run")
    kept = storage.read_json(directory / "stages.json")["stages"]
    storage.write_json(directory / "stages.json", {"stages": kept[1:]})
    with pytest.raises(TiplError, match="says nothing of the stage 'PPO, 64-64'"):
        load_comparison(directory)


def test_the_record_comes_back(tmp_path: Path) -> None:
    config = dataclasses.replace(MADE_UP, widths=(64, 8), nino="n", paths="p")
    cost = ModelCost(1.0, 2.0, own=True)
    for more in ({"cost": None}, {"cost": dataclasses.asdict(cost)}, {}):
        config.write_record(tmp_path, "tipl accelerate x", **more)
        record = COMPARISON.read(tmp_path / COMPARISON.name)
        assert record.config == config
        assert record.command == "tipl accelerate x"
        assert record.cost == (cost if more.get("cost") else None)
    with pytest.raises(TiplError, match=r"record of a comparison \(made by `tipl accelerate`\)"):
        COMPARISON.read(tmp_path / "elsewhere" / COMPARISON.name)


# --- the model's cost ------------------------------------------------------------------------


@pytest.fixture
def benchmark_run(tmp_path: Path) -> Path:
    """What a benchmark leaves of its collection and its training; 5 trials of 24,576 steps."""
    run = tmp_path / "benchmark"
    make_dataset(run / "paths")
    seconds = {"collect": 30.0, "train (elite)": 12.5, "train (own)": 99.0}
    stages = [
        {
            "name": name,
            "command": "",
            "seconds": 1.0,
            "cpu_seconds": cpu,
            "peak_rss_mb": 1,
            "digest": "",
        }
        for name, cpu in seconds.items()
    ]
    storage.write_json(run / "stages.json", {"stages": stages})
    return run


def test_the_cost_of_a_model_is_that_of_data_and_training(benchmark_run: Path) -> None:
    config = dataclasses.replace(MADE_UP, paths=str(benchmark_run / "paths"))
    assert model_cost(config) == ModelCost(5 * 24_576.0, 42.5, own=False)
    cost = dataclasses.asdict(Cost("train", "NeuronTransformer (elite)", 500.0, 1.0, 1.0, 1.0, ""))
    other = dataclasses.asdict(Cost("train", "NeuronTransformer (own)", 9.0, 1.0, 1.0, 1.0, ""))
    record = {"digest": "", "costs": [cost, other]}
    storage.write_json(benchmark_run / "costs.json", record)
    assert model_cost(config) == ModelCost(5 * 24_576.0 + 500, 42.5, own=False)


def test_a_model_of_these_very_paths_is_known(benchmark_run: Path) -> None:
    model = benchmark_run / "models" / "elite"
    model.mkdir(parents=True)
    digest = make_metadata().digest
    settings = {"settings": {"datasets": {digest: [0, 1]}}}
    storage.write_json(model / "config.json", settings)
    paths = str(benchmark_run / "paths")
    found = model_cost(dataclasses.replace(MADE_UP, paths=paths, model=str(model)))
    assert found is not None
    assert found.own


def test_costs_that_nobody_measured_are_left_out(benchmark_run: Path, tmp_path: Path) -> None:
    assert model_cost(MADE_UP) is None
    make_dataset(tmp_path / "alone" / "paths")
    assert model_cost(dataclasses.replace(MADE_UP, paths=str(tmp_path / "alone/paths"))) is None
    paths = str(benchmark_run / "paths")
    without_model = AccelerationConfig("Hopper-v4", paths=paths)
    assert model_cost(without_model) is None
    stages = storage.read_json(benchmark_run / "stages.json")["stages"]
    storage.write_json(benchmark_run / "stages.json", {"stages": stages[:1]})
    assert model_cost(dataclasses.replace(MADE_UP, paths=paths)) is None


def test_numbers_of_uses_in_words() -> None:
    labels = [place_label(uses=uses) for uses in (1.0, 10.0, 1000.0, math.inf)]
    assert labels == ["1 use", "10 uses", "1,000 uses", "infinitely many uses"]


# --- the figures -----------------------------------------------------------------------------


def drawn(report: Report, title: str) -> list[list[Line2D]]:
    """The drawn lines of each panel of a section's figure, without that at 0."""
    figure = next(section.figure for section in report.sections if section.title == title)
    assert figure is not None
    return [axes.get_lines()[:-1] for axes in figure().axes]


def test_curves_have_a_panel_an_architecture_and_their_own_costs(made_up: Comparison) -> None:
    report = comparison_report(made_up)
    (steps,) = drawn(report, "Return over environment steps")
    (seconds,) = drawn(report, "Return over CPU seconds")
    names = [one.name for one in made_up.architectures[0].trained]
    for lines, unit in ((steps, 1.0), (seconds, 0.02)):
        ours = lines[names.index(GATED)]
        assert ours.get_xdata().tolist() == pytest.approx(
            [unit * x for x in (0, 20, 40, 120, 140, 200)]
        )
        assert ours.get_ydata().tolist() == [5, 65, 140, 145, 150, 150]
        assert {line.get_drawstyle() for line in lines} == {"steps-post"}
        styles = line_styles(names)
        assert [line.get_color() for line in lines] == [styles[n]["color"] for n in names]
        assert lines[names.index(BLIND)].get_linestyle() == "--"


def test_a_models_cost_moves_its_curve_to_the_right(made_up: Comparison) -> None:
    (lines,) = drawn(comparison_report(made_up), "When data and training are counted")
    assert [line.get_xdata()[0] for line in lines] == [100, 6000, 600, 60]  # PPO from its second
    assert len({line.get_color() for line in lines}) == 4
    assert {line.axes.get_xscale() for line in lines if line.axes} == {"log"}


# --- the whole -------------------------------------------------------------------------------

CONFIG = AccelerationConfig(PENDULUM, num_trials=2, total_steps=512, widths=(8, 6), episodes=1)


@dataclasses.dataclass
class Made:
    directory: Path
    found: Comparison


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Made]:
    directory = tmp_path_factory.mktemp("acceleration") / "run"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pipeline, "_run_tipl", partial(run_tipl, shorter=1))
        patch.setattr(stats, "RESAMPLES", 100)
        yield Made(directory, accelerate(CONFIG, directory, threads=1, progress=False))


def test_every_method_is_trained_in_every_architecture(made: Made) -> None:
    for architecture, width in zip(made.found.architectures, (8, 6), strict=True):
        assert architecture.name == f"{width}-{width}"
        assert [one.name for one in architecture.trained] == [PPO, PPTB, RELEX, GATED, BLIND]
        assert (architecture.num_trials, architecture.end, architecture.episodes) == (2, 512, 1)
        gated = architecture.gated
        spent = gated.counts["jump_steps"]
        assert (spent > 0).all()  # the untrained networks are tested at once
        assert gated.env_steps == 2 * 512 + spent.sum()


def test_untrained_networks_act_while_forecasts_are_tested(made: Made) -> None:
    for architecture in made.found.architectures:
        start = np.zeros(1)
        untrained = architecture.ppo.curves.at(start)
        assert np.array_equal(architecture.gated.curves.at(start), untrained)
        blind = next(one for one in architecture.trained if one.name == BLIND)
        assert not np.array_equal(blind.curves.at(start), untrained)


def test_the_directory_holds_report_results_and_figures(made: Made) -> None:
    html = (made.directory / "report.html").read_text(encoding="utf-8")
    assert not re.search(r"\b(nan|inf)\b", html)
    assert "http://" not in html.replace("http://www.w3.org", "")
    assert f"All {len(made.found.results):d} numbers" in html
    assert len(re.findall("<svg", html)) == 4  # two figures, each for a page and for a phone
    written = read_results(made.directory / "results.jsonl")
    # NaN is not equal to itself, its text is
    assert list(map(repr, written)) == list(map(repr, made.found.results))
    names = sorted(path.name for path in (made.directory / "figures").iterdir())
    assert names == [
        "02-return-over-environment-steps.png",
        "02-return-over-environment-steps.svg",
        "08-return-over-cpu-seconds.png",
        "08-return-over-cpu-seconds.svg",
    ]


def test_a_second_run_reuses_all_stages_and_prints_the_headline(
    made: Made, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def never(*args: Any, **kwargs: Any) -> None:
        raise AssertionError("a stage was done again")

    monkeypatch.setattr(pipeline, "_run_tipl", never)
    monkeypatch.setattr("tipl.report.page.write_report", lambda report, directory: None)
    arguments = [
        *("accelerate", PENDULUM, "--out", str(made.directory), "--num-trials", "2"),
        *("--total-steps", "512", "--widths", "8", "6", "--episodes", "1"),
    ]
    main(arguments)
    printed = capsys.readouterr()
    assert printed.err.count("already there: reused") == 20  # 5 methods, trained and run, twice
    assert "layers of 8-8" in printed.out
    assert "layers of 6-6" in printed.out
    assert f"{made.directory / 'report.html'}: the report" in printed.out
    record = COMPARISON.read(made.directory / COMPARISON.name)
    assert record.config == CONFIG
    assert record.command == shlex.join(["tipl", *arguments])  # not those of the process


def test_its_report_is_made_again_as_a_comparisons(
    made: Made, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    titles: list[str] = []
    monkeypatch.setattr(
        "tipl.report.page.write_report",
        lambda report, directory: titles.append(report.title),
    )
    main(["report", str(made.directory)])
    assert titles == [f"{PENDULUM}: does PPO learn faster when its weights jump?"]
    assert f"{len(made.found.results)} numbers" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--num-trials", "1"], "num_trials is 1; expected at least 2"),
        (["--episodes", "0"], "episodes is 0"),
        (["--widths", "8", "8"], r"widths \(8, 8\) were given; expected each one once"),
        (["--widths", "0"], "0"),
        (["--threads", "0"], "0"),
    ],
)
def test_impossible_options_are_refused_in_a_line(
    options: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as end:
        main(["accelerate", PENDULUM, "--out", str(tmp_path / "run"), *options])
    assert end.value.code == 2
    said = capsys.readouterr().err
    assert re.match(f"tipl: .*{message}", said)
    assert "Traceback" not in said
    assert not (tmp_path / "run").exists()


def test_unknown_tasks_write_nothing(tmp_path: Path) -> None:
    with pytest.raises(TiplError, match="unknown environment id"):
        accelerate(AccelerationConfig.for_task("Pendulm-v1"), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_directory_with_other_files_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(TiplError, match="holds other files than those of `tipl accelerate`"):
        accelerate(CONFIG, tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]


# --- what is compared ------------------------------------------------------------------------


def test_rivals_need_what_they_jump_to(tmp_path: Path) -> None:
    bare = AccelerationConfig("Hopper-v4")
    methods = comparison_methods(bare, tmp_path, 64)
    assert [method.key for method in methods] == ["ppo", "pptb", "relex"]
    full = AccelerationConfig("Hopper-v4", model="m", nino="n", paths="p")
    first, second = (
        [method.key for method in comparison_methods(full, tmp_path, width)] for width in (64, 48)
    )
    assert first == ["ppo", "copy", "pptb", "relex", "nino", "ours", "ours-blind"]
    assert all(method_with_key(key).sentence for key in first)
    assert [key for key in first if key != "copy"] == second
    trained = {method.paths for method in comparison_methods(full, tmp_path, 48)}
    assert trained == {tmp_path / "48-48" / key for key in second}


def test_a_model_may_be_called_as_the_copied_policy(tmp_path: Path) -> None:
    for paths in (None, "paths"):
        config = AccelerationConfig(
            "Hopper-v4", widths=(8,), model="runs/best-policy", nino="best-policy", paths=paths
        )
        stages = acceleration_stages(config, tmp_path)
        policy = tmp_path / "best-policy"
        need_it = [stage.name for stage in stages if policy in stage.reads]
        assert need_it == ([] if paths is None else ["best stored policy, copied, 8-8"])


def test_trials_are_made_again_with_another_model(tmp_path: Path) -> None:
    config = AccelerationConfig("Hopper-v4", model="my/model", nino="HalfCheetah-v4", widths=(8,))
    reads = {stage.name: stage.reads for stage in acceleration_stages(config, tmp_path)}
    assert reads["NeuronTransformer, gated, 8-8"] == (Path("my/model"),)
    (shipped,) = reads["NiNo, 8-8"]
    assert (shipped / "model.safetensors").is_file()
    assert reads["PPTB, 8-8"] == ()


@pytest.mark.parametrize(
    ("total_steps", "early"), [(61_440, ("--jumps.min-history", "7")), (200_704, ())]
)
def test_extrapolations_begin_early_in_short_trials(
    tmp_path: Path, total_steps: int, early: tuple[str, ...]
) -> None:
    config = AccelerationConfig("Hopper-v4", total_steps=total_steps)
    methods = comparison_methods(config, tmp_path, 64)
    (relex,) = (method for method in methods if method.key == "relex")
    assert relex.options == ("--jumps.forecaster", "relex", *early)


def test_options_beat_the_task_and_quick() -> None:
    config = AccelerationConfig.for_task("HalfCheetah-v4", quick=True, num_trials=5)
    assert (config.num_trials, config.total_steps, config.widths) == (5, 20_480, (64, 32))
    assert config.forecaster == "HalfCheetah-v4"
    assert AccelerationConfig.for_task("Hopper-v4").forecaster is None
