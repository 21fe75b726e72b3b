"""The main job, end to end on real physics, and which of its stages are done again when."""

from __future__ import annotations

import dataclasses
import json
import re
import shutil
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from in_process import do_little, run_tipl
from results_files import read_results
from tipl.core import storage
from tipl.errors import TiplError
from tipl.evaluation.forecast_sets import ForecastSet
from tipl.experiments import pipeline, run_report
from tipl.experiments.config import DemoConfig
from tipl.experiments.demo import demo
from tipl.experiments.run import TRUE_CHECKPOINT, load_run
from tipl.forecast.base import Forecaster
from tipl.forecast.memory import BestStoredPolicy
from tipl.models.path_transformer.forecaster import PathTransformerForecaster
from tipl.paths import verify
from tipl.paths.svd import singular_vectors
from tipl.policies.policy import Policy
from tipl.report.charts import Lines
from tipl.report.page import Report, Section, render_report
from tipl.report.results import Result, Rows, write_results
from tipl.report.tables import Pivot

CONFIG = DemoConfig(num_trials=6, total_steps=8192, train_steps=5, neuron_steps=1, episodes=1)
STAGES = [
    "collect",
    "train (path)",
    "train (joint)",
    "train (neuron)",
    "optimize",
    "forecast",
    "evaluate",
]
COLUMNS = ("task", "experiment", "method", "setting", "metric", "value", "low", "high", "n_trials",
           "n_episodes", "command")  # fmt: skip
FIGURES = (
    "PPO's learning curves",
    "Information in the first directions",
    "The paths in their own coordinates",
    "Training the PathTransformer (path basis)",
    "Training the PathTransformer (joint basis)",
    "Training the NeuronTransformer (elite)",
    "Training the NeuronTransformer (own)",
    "One held-out path and its forecasts by the PathTransformer (path basis)",
    "Return of forecast policies against the horizon",
    "Weight error of forecasts against the horizon",
    "Optimising untrained networks by inference",
)


@dataclasses.dataclass
class Made:
    directory: Path
    results: Rows


@pytest.fixture(scope="module", autouse=True)
def commands() -> Iterator[list[list[str]]]:
    """The commands that were run, in this process, which need not wait for imports."""
    done: list[list[str]] = []

    def run(words: Sequence[str], quiet: bool) -> pipeline.Ended:
        done.append(list(words))
        return run_tipl(words, quiet)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pipeline, "_run_tipl", run)
        do_little(patch)
        yield done


@pytest.fixture(scope="module")
def first(tmp_path_factory: pytest.TempPathFactory, commands: list[list[str]]) -> Made:
    """A demo that has run once; nothing may change it."""
    directory = tmp_path_factory.mktemp("demo") / "runs" / "demo"
    return Made(directory, demo(directory, CONFIG, progress=False))


@pytest.fixture
def made(first: Made, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Made:
    """A copy of the demo, in which reports are not drawn again."""

    def numbers_alone(report: Report, directory: Path, *, figures: bool) -> None:
        write_results(directory / "results.jsonl", report.results)

    monkeypatch.setattr("tipl.experiments.run_report.write_report", numbers_alone)
    return Made(shutil.copytree(first.directory, tmp_path / "demo"), first.results)


@pytest.fixture
def work(commands: list[list[str]]) -> Callable[[], list[str]]:
    """The stages whose commands were run since it was last called."""
    commands.clear()

    def stages_done() -> list[str]:
        done = [
            f"train ({Path(words[-1]).name})" if words[0] == "train" else words[0]
            for words in commands
        ]
        commands.clear()
        return done

    return stages_done


def content(directory: Path) -> dict[str, bytes | None]:
    """Every file and folder, but for the times in `stages.json`."""
    return {
        str(path.relative_to(directory)): path.read_bytes() if path.is_file() else None
        for path in directory.rglob("*")
        if path.name != "stages.json"
    }


def stages(directory: Path) -> list[dict[str, Any]]:
    records: list[dict[str, Any]] = storage.read_json(directory / "stages.json")["stages"]
    return records


# --- what it makes ---------------------------------------------------------------------------


def test_the_report_holds_every_figure(first: Made) -> None:
    html = (first.directory / "report.html").read_text(encoding="utf-8")
    for title in FIGURES:
        assert title.replace("'", "&#39;") in html
    assert html.count("<svg") == html.count("</svg>") == 2 * len(FIGURES)  # wide and narrow
    assert "6 independent PPO trials" in html
    assert "2 trials were held out" in html
    assert not re.search(r"\bnan\b", html)


def environment_results(results: Rows) -> list[Result]:
    """Those that running policies and comparing weights gave: the same in every run."""
    return [r for r in results if r.experiment in {"collect", "forecast", "optimize"}]


def test_the_results_have_all_columns(first: Made) -> None:
    path = first.directory / "results.jsonl"
    lines = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    assert all(tuple(line)[: len(COLUMNS)] == COLUMNS for line in lines)
    assert read_results(path) == first.results
    measured = environment_results(first.results)
    (wishing,) = {r.method for r in measured if r.method.endswith("wished for")}
    assert wishing.startswith("NeuronTransformer (own), return of ")
    assert {result.method for result in measured} - {wishing} == {
        "untrained", "PPO", TRUE_CHECKPOINT, "standing still", "last-difference line",
        "least-squares line", "two-point line", "RELEX", "path trimming and boosting",
        "dynamic mode decomposition",
        "mean displacement", "nearest training path", "matched noise",
        "partial least squares on return",
        "best stored policy, copied", "best stored policy, output layer fitted",
        "PathTransformer (path basis)", "PathTransformer (joint basis)",
        "NeuronTransformer (elite)", "NeuronTransformer (own)",
    }  # fmt: skip
    assert {(result.task, result.n_trials) for result in measured} == {(CONFIG.env_id, 2)}
    command = f"tipl evaluate {first.directory / 'forecasts'} --episodes 1 --seed 0"
    assert {result.command for result in measured} == {command}


def test_losses_and_times_are_results_too(first: Made) -> None:
    values = {(r.experiment, r.method, r.metric): r.value for r in first.results}
    for basis in ("path", "joint"):
        name = f"PathTransformer ({basis} basis)"
        model = Forecaster.from_pretrained(first.directory / "models" / basis)
        curve = model.settings["curves"]["own"]
        for loss in ("train_loss", "held_out_loss", "standing_still_loss"):
            assert values["train", name, loss] == curve[loss][-1]
    assert 1 <= values["train", name, "D(0.9)"] <= values["train", name, "D(0.99)"]
    for stage in stages(first.directory):
        assert values["stages", stage["name"], "seconds"] == stage["seconds"]


def test_ppo_is_measured_at_its_start_and_end(first: Made) -> None:
    run = load_run(first.directory)
    rows = {(r.method, r.metric): r for r in run.results if r.experiment == "collect"}
    start, end = rows["untrained", "episodic_return"], rows["PPO", "episodic_return"]
    assert start.value == pytest.approx(run.returns.checkpoints[:, 0].mean())
    assert end.value == pytest.approx(run.returns.checkpoints[:, -1].mean())
    assert end.setting == "end (1,024 steps)"
    assert 1 <= rows["PPO", "D(0.9)"].value <= rows["PPO", "D(0.99)"].value <= 4


def test_the_stages_are_recorded_in_their_order(first: Made) -> None:
    records, directory = stages(first.directory), first.directory
    assert [record["name"] for record in records] == STAGES
    assert all(record["seconds"] >= 0 for record in records)
    assert all(record["peak_rss_mb"] > 10 for record in records)
    commands = [record["command"] for record in records]
    assert commands[0] == (
        f"tipl collect InvertedPendulum-v4 --num-trials 6 --total-steps 8192 --seed 0 "
        f"--out {directory / 'paths'}"
    )
    assert commands[2] == (
        f"tipl train {directory / 'paths'} --held-out 0.25 --basis joint --num-steps 5 --seed 0 "
        f"--out {directory / 'models' / 'joint'}"
    )
    assert commands[3] == (
        f"tipl train {directory / 'paths'} --held-out 0.25 --model neuron --condition-on-return "
        "--num-steps 1 --seed 0 "
        f"--out {directory / 'models' / 'neuron'}"
    )
    assert commands[4].startswith(f"tipl optimize {directory / 'models' / 'neuron'} --seed 1")
    run = load_run(directory)
    assert run.commands == commands
    assert [stage.name for stage in run.stages] == STAGES


def test_what_the_stages_leave(first: Made) -> None:
    directory = first.directory
    assert verify(directory / "paths") == []
    held_out = set(ForecastSet.load(directory / "forecasts").paths.trials.tolist())
    assert len(held_out) == 2
    for basis in ("path", "joint"):
        model = PathTransformerForecaster.from_pretrained(directory / "models" / basis)
        assert model.basis == basis
        [learned_from] = model.training_trials.values()
        assert set(learned_from) == set(range(6)) - held_out
    policy = Policy.load(directory / "optimized")
    start = Policy.initial(CONFIG.env_id, seed=1)
    better = Forecaster.from_pretrained(directory / "models" / "neuron").optimize(start)
    assert (policy.params == better.params).all()
    assert (policy.params != start.params).any()


def test_the_svd_of_each_held_out_path_is_made_once(
    first: Made, monkeypatch: pytest.MonkeyPatch
) -> None:
    decomposed: list[tuple[int, ...]] = []

    def counting(rows: np.ndarray, rank: int) -> Any:
        decomposed.append(rows.shape)
        return singular_vectors(rows, rank)

    monkeypatch.setattr("tipl.paths.dimension.singular_vectors", counting)
    monkeypatch.setattr("tipl.paths.svd.singular_vectors", counting)
    run = load_run(first.directory)
    assert decomposed == []  # it is only read
    assert environment_results(run.results) == environment_results(first.results)
    for section in (run_report.svd_spectrum(run), run_report.path_coordinates(run)):
        assert section.figure is not None
        assert section.figure().axes
    paths = run.forecasts.paths
    assert decomposed == [(paths.num_checkpoints, paths.layout.size)] * paths.num_trials


def test_the_best_stored_policy_is_looked_for_once(
    first: Made, monkeypatch: pytest.MonkeyPatch
) -> None:
    def never(*args: object, **kwargs: object) -> None:
        raise AssertionError("it was looked for again")

    monkeypatch.setattr("tipl.experiments.rivals.best_checkpoint", never)
    run = load_run(first.directory)
    by_name = {forecaster.name: forecaster for forecaster in run.forecasters()}
    params = run.forecasts.paths.params()[:, :1]
    (f,) = (
        f
        for f, case in enumerate(run.forecasts.cases)
        if (case.method, case.start, case.horizon) == (BestStoredPolicy.name, 0, 1)
    )
    copied = by_name[BestStoredPolicy.name].forecast(params, 1)
    np.testing.assert_array_equal(copied, run.forecasts.params[f])


def test_a_figure_of_ones_own_is_an_entry_in_the_list(
    first: Made, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = Section(
        "Errors of actions", "Mine.", chart=Lines("action_error"), table=Pivot("action_error")
    )
    monkeypatch.setattr(run_report, "SECTIONS", [own, lambda run: Section(run.end * "!", "")])
    report = run_report.run_report(load_run(first.directory))
    assert [section.title for section in report.sections] == ["Errors of actions", "!!!!"]
    assert report.sections[0].figure is not None
    assert report.sections[0].figure().axes[0].lines
    assert "<td" in render_report(report)


# --- what it does again ----------------------------------------------------------------------


def test_a_second_run_reuses_everything(made: Made, work: Callable[[], list[str]]) -> None:
    before, records = content(made.directory), stages(made.directory)
    again = demo(made.directory, CONFIG, progress=False)
    assert environment_results(again) == environment_results(made.results)
    assert work() == []
    assert content(made.directory) == before
    assert stages(made.directory) == records


@pytest.mark.parametrize(
    ("removed", "again"),
    [
        ("forecasts", ["forecast", "evaluate"]),
        ("forecasts/returns.safetensors", ["evaluate"]),
        ("optimized", ["optimize"]),
        ("models/path", ["train (path)"]),
    ],
)
def test_what_was_removed_is_made_again(
    removed: str, again: list[str], made: Made, work: Callable[[], list[str]]
) -> None:
    path, before = made.directory / removed, content(made.directory)
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink()
    if removed.startswith("forecasts"):  # its command names this directory, not the copied one
        named = ("forecasts/returns.safetensors", "forecasts/results.jsonl")
        before = {name: data for name, data in before.items() if name not in named}
    results = demo(made.directory, CONFIG, progress=False)
    assert work() == again
    originals = environment_results(made.results)
    for result, original in zip(environment_results(results), originals, strict=True):
        assert dataclasses.replace(result, command="") == dataclasses.replace(original, command="")
    after = content(made.directory)
    assert {name for name in before if after[name] != before[name]} <= {
        "results.jsonl",
        "forecasts/forecasts.json",
    }
    assert [record["name"] for record in stages(made.directory)] == STAGES


@pytest.mark.parametrize(
    ("changes", "again"),
    [
        ({"episodes": 2}, ["evaluate"]),
        ({"train_steps": 4}, ["train (path)", "train (joint)", "forecast", "evaluate"]),
        ({"neuron_steps": 2}, ["train (neuron)", "optimize", "forecast", "evaluate"]),
    ],
)
def test_what_depends_on_a_change_is_made_again(
    changes: dict[str, Any], again: list[str], made: Made, work: Callable[[], list[str]]
) -> None:
    results = demo(made.directory, dataclasses.replace(CONFIG, **changes), progress=False)
    assert work() == again
    assert {result.n_episodes for result in results} == {0, changes.get("episodes", 1)}
    assert stages(made.directory)[-1]["command"].endswith(f"{changes.get('episodes', 1)}")
    demo(made.directory, CONFIG, progress=False)
    assert work() == again


@pytest.mark.parametrize("changes", [{"seed": 1}, {"num_trials": 7}, {"total_steps": 10240}])
def test_other_paths_need_another_directory(
    changes: dict[str, Any], made: Made, work: Callable[[], list[str]]
) -> None:
    before, records = content(made.directory), stages(made.directory)
    with pytest.raises(TiplError, match=r"already holds another dataset: its "):
        demo(made.directory, dataclasses.replace(CONFIG, **changes), progress=False)
    assert content(made.directory) == before
    assert stages(made.directory) == records


def test_an_interrupted_demo_goes_on(
    made: Made, work: Callable[[], list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    config = dataclasses.replace(CONFIG, train_steps=6, neuron_steps=2)
    with monkeypatch.context() as patch:

        def killed(*args: object, **kwargs: object) -> None:
            raise KeyboardInterrupt

        patch.setattr(Forecaster, "optimize", killed)
        with pytest.raises(TiplError, match="'optimize' ended with exit status 130"):
            demo(made.directory, config, progress=False)
    assert work() == STAGES[1:5]
    demo(made.directory, config, progress=False)
    assert work() == STAGES[4:]


def test_a_fresh_demo_starts_over(made: Made, monkeypatch: pytest.MonkeyPatch) -> None:
    def killed(words: Sequence[str], quiet: bool) -> pipeline.Ended:
        return pipeline.Ended(130, 0.0, 0.0, "interrupted")

    monkeypatch.setattr(pipeline, "_run_tipl", killed)
    with pytest.raises(TiplError, match="'collect' ended with exit status 130"):
        demo(made.directory, CONFIG, fresh=True, progress=False)
    assert content(made.directory) == {}
    assert [(record["name"], record["digest"]) for record in stages(made.directory)] == [
        ("collect", "")
    ]


# --- refusals --------------------------------------------------------------------------------


@pytest.mark.parametrize("fresh", [False, True])
@pytest.mark.parametrize("place", ["folder", "file", "file/demo"])
def test_a_place_that_is_taken(place: str, fresh: bool, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "notes.txt").write_text("mine")
    before = content(tmp_path)
    with pytest.raises(TiplError, match=place):
        demo(tmp_path / place, CONFIG, fresh=fresh, progress=False)
    assert content(tmp_path) == before


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"num_trials": 1}, "num_trials is 1; expected at least 2"),
        ({"num_trials": -3}, "num_trials is -3"),
        ({"train_steps": 0}, "train_steps is 0; expected at least 1"),
        ({"neuron_steps": 0}, "neuron_steps is 0; expected at least 1"),
        ({"episodes": 0}, "episodes is 0; expected at least 1"),
        ({"seed": -1}, "seed is -1"),
        ({"total_steps": 2048}, "total_steps is 2048; expected at least 4096"),
        ({"total_steps": 100}, "total_steps is 100"),
        ({"env_id": "Pendulm-v1"}, "unknown environment id 'Pendulm-v1'"),
        ({"threads": 0}, "threads is 0"),
    ],
)
def test_impossible_options_change_nothing(
    changes: dict[str, Any], message: str, made: Made, tmp_path: Path
) -> None:
    before = content(made.directory)
    threads = changes.get("threads")
    fields = {name: value for name, value in changes.items() if name != "threads"}
    for out in (made.directory, tmp_path / "new"):
        with pytest.raises(TiplError, match=message):
            demo(out, dataclasses.replace(CONFIG, **fields), fresh=True, threads=threads)
    assert content(made.directory) == before
    assert not (tmp_path / "new").exists()


# --- what it says ----------------------------------------------------------------------------


def test_it_ends_with_a_table_and_the_report(
    made: Made, capsys: pytest.CaptureFixture[str]
) -> None:
    demo(made.directory, CONFIG)
    out, err = capsys.readouterr()
    assert out.count("standing still") == 2
    assert "(2 trials)" in out
    assert str(made.directory / "report.html") in out.replace("\n", "")
    assert err.count("already there: reused") == len(STAGES)
    for stage in STAGES:
        assert stage in err


def test_it_is_silent_without_progress(made: Made, capsys: pytest.CaptureFixture[str]) -> None:
    demo(made.directory, CONFIG, progress=False)
    assert capsys.readouterr() == ("", "")


def test_the_defaults_are_the_main_job() -> None:
    config = DemoConfig()
    assert config.env_id == "InvertedPendulum-v4"
    assert config.num_trials >= 128
    assert config.collection.num_trials == config.num_trials
    assert config.collection.hidden == (64, 64)
