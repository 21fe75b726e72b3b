"""The benchmark of worlds: its stages, what it measures and keeps, its numbers and its report."""

from __future__ import annotations

import dataclasses
import re
import shlex
import shutil
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import tipl
from in_process import run_tipl
from results_files import read_results
from tipl import PathDataset, Policy, PPOConfig, TiplError
from tipl.cli import main
from tipl.core import storage
from tipl.envs.worlds import World, Worlds
from tipl.evaluation import behaviour, stats
from tipl.evaluation.film import film
from tipl.evaluation.returns import Episodes
from tipl.experiments import pipeline
from tipl.experiments.worlds import (
    benchmark_worlds,
    check_worlds,
    experiencing,
    rivals,
    searching,
    stages,
)
from tipl.experiments.worlds.cells import CELL, Cell, cell_file, measured_cell
from tipl.experiments.worlds.config import WORLDS_BENCHMARK, WorldsConfig
from tipl.experiments.worlds.material import HOME, SINGLE, Material
from tipl.experiments.worlds.outcome import WorldsBenchmark, load_worlds, verdict
from tipl.experiments.worlds.report import points
from tipl.experiments.worlds.stages import lineage_models, redrawn_options, worlds_stages
from tipl.models.world import lineage
from tipl.policies.folding import folded
from tipl.report.results import Result

TASK = "InvertedPendulum-v4"
ROLLOUT = PPOConfig().rollout_steps

CONFIG = WorldsConfig(
    TASK, num_worlds=3, held_out_worlds=2, splits=("interpolation", "extrapolation"),
    total_steps=2 * ROLLOUT, checkpoint_interval=1, episodes=2, train_steps=5, observer_worlds=4,
)  # fmt: skip
OPTIONS = (
    "--num-worlds 3 --held-out-worlds 2 --splits interpolation extrapolation --total-steps 4096 "
    "--checkpoint-interval 1 --episodes 2 --train-steps 5 --observer-worlds 4 "
    "--threads 1"
)


@pytest.fixture(scope="module")
def little() -> Iterator[None]:
    """Nothing is learned well, and nobody is run for long."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pipeline, "_run_tipl", partial(run_tipl, shorter=8))
        patch.setattr(stats, "RESAMPLES", 100)
        patch.setattr(stages, "NUM_ENVS", 2)
        patch.setattr(lineage, "STEPS_OF_ROLLOUT", 20)
        patch.setattr(lineage, "DRAWN_WORLDS", 8)
        patch.setattr(behaviour, "NUM_ROLLOUTS", 4)
        patch.setattr(behaviour, "STEPS_OF_ROLLOUT", 20)
        patch.setattr(
            "tipl.experiments.films.film", partial(film, num_frames=4, width=80, height=60)
        )
        patch.setattr(rivals, "ARCHITECTURES", ((8,),))
        patch.setattr(searching, "POPULATION", 4)
        patch.setattr(searching, "GENERATIONS", (2,))
        patch.setattr(experiencing, "TRANSITIONS", (5, 250))
        patch.setattr(experiencing, "EPISODES", (2,))
        yield


@dataclasses.dataclass
class Made:
    directory: Path
    found: WorldsBenchmark


@pytest.fixture(scope="module")
def made(little: None, tmp_path_factory: pytest.TempPathFactory) -> Made:
    directory = tmp_path_factory.mktemp("worlds") / "run"
    return Made(directory, benchmark_worlds(CONFIG, directory, threads=1, progress=False))


# --- the whole -------------------------------------------------------------------------------


def test_every_method_is_measured_in_every_held_out_world(made: Made) -> None:
    found = made.found
    keys = [one.key for one in found.methods]
    assert len(set(keys)) == len(keys) == 20
    for split in CONFIG.splits:
        for key in keys:
            cell = found.cells[split, key]
            assert np.shape(cell.returns) == (2, 2)
            assert cell.worlds == [f"{split}-000", f"{split}-001"]
    spent = {key: found.cells["interpolation", key].env_steps for key in keys}
    free = {key for key, steps in spent.items() if steps == [0, 0]}
    seen = {"model-5-transitions", "model-250-transitions", "nearest-250-transitions"}
    tried = {
        "best-of-3",
        "cma-8-episodes",
        "halving",
        "model-2-episodes",
        "ppo-2048",
        "ppo-4096",
        *seen,
    }
    assert free == {*keys} - tried
    assert spent["ppo-4096"] == [512, 512]  # an eighth, in this test
    assert spent["model-5-transitions"] == [5, 5]
    assert spent["nearest-250-transitions"] == [250, 250]
    assert len(found.cells[SINGLE, "elite"].worlds) == 4 * len(found.worlds.physics)


def test_a_method_is_run_in_the_world_itself(made: Made) -> None:
    material = Material(CONFIG, made.directory, 1)
    (one, _) = worlds = material.group("extrapolation")
    for method in made.found.methods:
        policies = method.make(material, "extrapolation").policies
        assert [dict(p.task.physics) for p in policies] == [world.factors for world in worlds]
    alone = tipl.evaluate(material.elite, 2, physics=one.factors, seed=1_000, threads=1)
    cell = made.found.cells["extrapolation", "elite"]
    assert cell.returns[0] == alone.episodic_return.tolist()
    start = Policy.load(made.directory / "elite")
    assert np.array_equal(start.params, material.elite.params)
    ppo = PathDataset.open(made.directory / "ppo" / "extrapolation")
    trained = made.found.method("ppo-4096").make(material, "extrapolation").policies
    assert np.array_equal(trained[1].params, ppo.policy(1, -1).params)


def test_the_numbers_follow_from_the_cells(made: Made) -> None:
    found = made.found
    model, elite, ppo = (found.method(key) for key in ("model", "elite", "ppo-4096"))
    assert found.ppo is ppo
    own, copied, end = (found.returns("extrapolation", m.key) for m in (model, elite, ppo))
    number = partial(found.find, model, split="extrapolation")
    assert number("return").value == own.mean()
    assert number("return_in_worst_tenth").value == own.min()
    assert number("share_below_elite").value == (own < copied).mean()
    assert number("env_steps_spent").value == 0
    difference = number("return_difference", beside=ppo.name)
    assert difference.value == pytest.approx((own - end).mean())
    gained = end.mean() - copied.mean()
    score = number("score").value
    assert np.isnan(score) if gained <= 0 else score == (own.mean() - copied.mean()) / gained
    assert found.find(elite, "share_below_elite", "extrapolation").value == 0
    home = found.rows.one(metric="return", world=HOME)
    assert home.value == found.cells[HOME, "elite"].by_world[0]


def test_the_directory_holds_report_results_and_figures(made: Made) -> None:
    html = (made.directory / "report.html").read_text(encoding="utf-8")
    assert not re.search(r"\b(nan|inf)\b", html)
    written = read_results(made.directory / "results.jsonl")
    assert list(map(repr, written)) == list(map(repr, made.found.rows))
    figures = sorted(path.name for path in (made.directory / "figures").glob("*.svg"))
    assert len(figures) == 4
    assert html.index("Is it a test at all?") < html.index("beside each other method")
    assert html.index("One world, seen") < html.index("Is it a test at all?")
    said = points(made.found)
    assert len(said) == 2 * 3
    assert said[3].startswith("Extrapolation: the elite returns")
    assert re.search(r"it wins against \d+ of 1\d others", said[4])
    assert all(f"<li>{point.split(':')[0]}" in html for point in said)


def never(*args: Any, **kwargs: Any) -> None:
    raise AssertionError("something was done again")


def test_a_second_run_reuses_all(
    made: Made, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(pipeline, "_run_tipl", never)
    monkeypatch.setattr(Material, "run", never)
    monkeypatch.setattr("tipl.experiments.films.film", never)
    monkeypatch.setattr("tipl.report.page.write_report", lambda report, directory: None)
    arguments = ["worlds", "benchmark", TASK, *OPTIONS.split(), "--out", str(made.directory)]
    main(arguments)
    printed = capsys.readouterr()
    assert printed.err.count("already there: reused") == 10
    assert "extrapolation" in printed.out
    record = WORLDS_BENCHMARK.read(made.directory / WORLDS_BENCHMARK.name)
    assert record.config == CONFIG
    assert record.command == shlex.join(["tipl", *arguments])
    main(["report", str(made.directory)])
    assert f"{len(made.found.rows)} numbers" in capsys.readouterr().out


def test_what_was_not_kept_is_measured_again(
    made: Made, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = shutil.copytree(made.directory, tmp_path / "run")
    lost = cell_file(run, "extrapolation", "best-of-3")
    other = cell_file(run, "extrapolation", "model")
    before = CELL.read(lost)
    lost.unlink()
    stale = storage.read_json(other) | {"digest": "of another model"}
    storage.write_json(other, stale)
    ran = []
    original = Material.run

    def counted(self: Material, policies: Any, *args: Any) -> Episodes:
        ran.append(len(policies))
        return original(self, policies, *args)

    monkeypatch.setattr(Material, "run", counted)
    monkeypatch.setattr(pipeline, "_run_tipl", never)
    benchmark_worlds(CONFIG, run, threads=1, progress=False)
    assert ran == [2, 6, 2]  # the model's; three stored policies in two worlds, and the best ones
    assert dataclasses.replace(CELL.read(lost), seconds=before.seconds) == before
    lost.write_text("{}")
    with pytest.raises(TiplError, match=re.escape(lost.name)):
        benchmark_worlds(CONFIG, run, threads=1, progress=False)


def test_datasets_that_are_there_are_used(
    made: Made, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("training", "ppo", "worlds.json", "elite"):
        place = made.directory / name
        copy = shutil.copytree if place.is_dir() else shutil.copy
        copy(place, tmp_path / name)
    monkeypatch.setattr("tipl.core.engines.threads.Threads.run", never)
    wanted = list(worlds_stages(CONFIG, tmp_path))
    assert not {"worlds", "elite"} & {one.name for one in wanted}
    monkeypatch.setattr(
        "tipl.experiments.worlds.worlds_stages",
        lambda *_: [one for one in wanted if one.name in ("training", "PPO in interpolation")],
    )
    monkeypatch.setattr("tipl.experiments.worlds.measuring.measure", never)
    with pytest.raises(AssertionError, match="done again"):  # by measuring, and by no collection
        benchmark_worlds(CONFIG, tmp_path, threads=1, progress=False)
    with pytest.raises(TiplError, match=r"worlds\.json was given, and lies in"):
        check_worlds(CONFIG, tmp_path, 1, fresh=True)
    records = storage.read_json(tmp_path / "stages.json")["stages"]
    assert [bool(one["digest"]) for one in records] == [True, True]


def test_starting_over_removes_all_that_it_has_made(made: Made, tmp_path: Path) -> None:
    run = shutil.copytree(made.directory, tmp_path / "run")
    pipeline.prepare_directory(run, True, "worlds benchmark", worlds_stages(CONFIG, run))
    assert [path.name for path in run.iterdir()] == ["stages.json"]
    inside = dataclasses.replace(CONFIG, elite=str(made.directory / "elite"))
    with pytest.raises(TiplError, match=r"lies in .*, which was to be cleared"):
        check_worlds(inside, made.directory, 1, fresh=True)


def test_a_folder_with_other_things_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("mine")
    (tmp_path / "training").mkdir()
    with pytest.raises(TiplError, match="other files than those of `tipl worlds benchmark`"):
        benchmark_worlds(CONFIG, tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["thesis.txt", "training"]


# --- the stages ------------------------------------------------------------------------------


def words(config: WorldsConfig, name: str) -> str:
    found = {one.name: one.words for one in worlds_stages(config, Path("run"))}
    return " ".join(found[name])


def test_the_protocol_is_the_default() -> None:
    config = WorldsConfig.for_task("HalfCheetah-v4")
    shared = "--total-steps 204800 --checkpoint-interval 20 --trials-per-group 32"
    assert words(config, "training") == (
        "collect HalfCheetah-v4 --worlds run/worlds.json --split training --start run/elite "
        f"--num-trials 64 --seed 0 {shared} --out run/training"
    )
    assert "--num-trials 24" in words(config, "PPO in combination")
    assert "--first-trials 64" in words(config, "model of 64 worlds")
    assert words(config, "model").startswith("train run/universal --model world")
    assert list(lineage_models(config)) == [2, 8, 16, 32, 64]
    assert rivals.ppo_steps(config) == [40_960, 81_920, 122_880, 163_840, 204_800]


@pytest.mark.parametrize("share", [1.0, 0.25])
def test_rivals_take_as_many_steps_as_all_trials_together(share: float) -> None:
    config = WorldsConfig.for_task("HalfCheetah-v4", redrawn_steps=share)
    given = redrawn_options(config)
    options = dict(zip(given[::2], given[1::2], strict=True))
    assert options["--total-steps"] == share * 64 * 204_800
    rollout = options["--ppo.num-envs"] * options["--ppo.num-steps"]
    assert rollout / options["--ppo.num-minibatches"] == 256
    assert options["--total-steps"] / rollout % options["--checkpoint-interval"] == 0


def test_rivals_that_take_long_may_be_left_out() -> None:
    config = WorldsConfig.for_task("HalfCheetah-v4", randomised=False)
    assert "randomised" not in {one.key for one in rivals.rivals(config)}
    assert "randomised" not in {one.name for one in worlds_stages(config, Path("run"))}
    assert words(config, "universal") == words(WorldsConfig("HalfCheetah-v4"), "universal")


def test_inputs_are_looked_at_before_any_work(tmp_path: Path) -> None:
    few = Worlds.from_factors(TASK, {"training": [{"gravity": 2.0}, {"gravity": 3.0}]})
    few.save(tmp_path / "few.json")
    with pytest.raises(TiplError, match="3 worlds of the split 'training' were asked for"):
        check_worlds(dataclasses.replace(CONFIG, worlds=str(tmp_path / "few.json")), None, 1)
    two = dataclasses.replace(CONFIG, worlds=str(tmp_path / "few.json"), num_worlds=2)
    with pytest.raises(TiplError, match="there is no split 'interpolation'"):
        check_worlds(two, None, 1)
    with pytest.raises(TiplError, match="worlds of 'InvertedPendulum-v4' were given for 'Hopper"):
        check_worlds(dataclasses.replace(two, env_id="Hopper-v4"), None, 1)


# --- methods ---------------------------------------------------------------------------------


class FakeMaterial(Material):
    """Stored policies, of which later ones are better everywhere."""

    def __init__(self) -> None:
        stored = [Policy.initial(TASK, seed, (2,)) for seed in range(14)]
        returns = {policy.params.tobytes(): i for i, policy in enumerate(stored)}
        vars(self).update(stored=stored, returns=returns)  # as cached properties are

    def group(self, name: str) -> tuple[World, ...]:
        return (World("a", {"gravity": 1.5}), World("b", {"gravity": 0.7}))

    def try_out(self, policies: Any, episodes: int, seed: int) -> Any:
        found = [[float(self.returns[p.params.tobytes()]) for p in those] for those in policies]
        return np.array(found), np.array([len(those) * episodes for those in policies])

    returns: dict[bytes, int]


def test_stored_policies_are_tried_out_and_the_best_one_is_taken() -> None:
    material: Any = FakeMaterial()
    drawn = searching._drawn(material, 2)
    for made, count, episodes in (
        (searching._best_of(8, material, "x"), 8, 8),
        (searching._halving(material, "x"), 12, 24),
    ):
        best = drawn[:, :count].max(axis=1)
        assert made.env_steps.tolist() == [episodes, episodes]
        for policy, i in zip(made.policies, best, strict=True):
            assert np.array_equal(policy.params, material.stored[i].params)
        assert [dict(policy.task.physics)["gravity"] for policy in made.policies] == [1.5, 0.7]


def test_cma_searches_what_a_universal_policy_is_told(
    made: Made, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where returns fall with the distance from the policy that is told the truth."""
    material = Material(CONFIG, made.directory, 1)
    worlds, universal = material.group("interpolation"), material.last_policy("universal", 0)
    true = [folded(universal, one.factors).params for one in worlds]
    best = np.full(len(worlds), -np.inf)

    def try_out(candidates: Any, episodes: int, seed: int) -> Any:
        far = [[np.abs(p.params - at).sum() for p in those]
               for those, at in zip(candidates, true, strict=True)]  # fmt: skip
        best[:] = np.maximum(best, -np.min(far, axis=1))
        return -np.array(far), np.full(len(candidates), 5)

    vars(material)["try_out"] = try_out
    monkeypatch.setattr(searching, "POPULATION", 8)
    found = searching._cma(40, material, "interpolation")
    assert found.env_steps.tolist() == [200, 200]
    for policy, at, one, value in zip(found.policies, true, worlds, best, strict=True):
        assert dict(policy.task.physics) == one.factors
        np.testing.assert_allclose(np.abs(policy.params - at).sum(), -value)
        assert np.abs(policy.params - at).max() < 0.01 * np.abs(at).max()


def test_without_an_extra_its_method_is_left_out(
    made: Made, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = shutil.copytree(made.directory, tmp_path / "run")
    for split in CONFIG.splits:
        cell_file(run, split, "cma-8-episodes").unlink()
    monkeypatch.setattr("tipl.experiments.worlds.measuring.is_installed", lambda module: False)
    found = benchmark_worlds(CONFIG, run, threads=1, progress=False)
    assert len(found.methods) == len(made.found.methods) - 1
    assert "CMA-ES" not in (run / "report.html").read_text(encoding="utf-8")


def test_a_film_of_other_policies_is_not_shown(
    made: Made, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = shutil.copytree(made.directory, tmp_path / "run")
    record = run / "figures" / "film.json"
    said = storage.read_json(record)
    assert said["world"] in ("interpolation-000", "interpolation-001")
    assert list(said["labels"]) == ["elite of home", "model, 250 steps", "PPO, 4,096 steps"]
    storage.write_json(record, said | {"digest": "of another model"})

    def nothing(*args: Any) -> None:
        raise TiplError("there is no renderer")

    monkeypatch.setattr("tipl.experiments.films.film", nothing)
    benchmark_worlds(CONFIG, run, threads=1, progress=False)
    assert not record.exists()
    assert "The films are left out" in (run / "report.html").read_text(encoding="utf-8")


def test_a_verdict_needs_an_interval_without_zero() -> None:
    one = Result("t", "e", "m", "return_difference", 1.0, 0.5, 2.0)
    assert verdict(one) == "wins"
    assert verdict(dataclasses.replace(one, low=-0.5)) == "ties"
    assert verdict(dataclasses.replace(one, low=-2.0, high=-1.0)) == "loses"
    assert verdict(dataclasses.replace(one, low=np.nan, high=np.nan)) == "ties"


# --- cells -----------------------------------------------------------------------------------


def test_a_cell_is_measured_once(tmp_path: Path) -> None:
    returns, steps = np.arange(6.0).reshape(2, 3), np.array([7, 8])
    make = partial(measured_cell, tmp_path, "a split", "elite")
    cell = make("1", ["a", "b"], lambda: (returns, steps))
    assert make("1", ["a", "b"], never) == cell
    assert cell.by_world.tolist() == [1.0, 4.0]
    assert make("2", ["a", "b"], lambda: (returns + 1, steps)).returns[0][0] == 1.0


@pytest.mark.parametrize(
    ("worlds", "returns", "steps"),
    [(["a"], [[1.0], [2.0]], [0]), (["a", "b"], [[1.0], [2.0, 3.0]], [0, 0]), ([], [], [])],
)
def test_a_cell_of_other_sizes_is_refused(
    worlds: list[str], returns: list[list[float]], steps: list[int]
) -> None:
    with pytest.raises(TiplError, match="expected one number of each"):
        Cell("elite", "x", "0", worlds, returns, steps, 0.0)


def test_cells_of_other_worlds_are_not_reported(made: Made, tmp_path: Path) -> None:
    run = shutil.copytree(made.directory, tmp_path / "run")
    file = cell_file(run, "interpolation", "elite")
    storage.write_json(file, storage.read_json(file) | {"worlds": ["x", "y"]})
    with pytest.raises(TiplError, match="of other worlds than the split interpolation"):
        load_worlds(run)


# --- the first trials of a dataset ---------------------------------------------------------------


def test_a_model_learns_from_the_first_trials(made: Made) -> None:
    for count, place in lineage_models(CONFIG).items():
        said = storage.read_json(made.directory / place / "config.json")
        (trials,) = said["settings"]["datasets"].values()
        assert trials == list(range(count))
