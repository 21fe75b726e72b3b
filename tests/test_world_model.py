"""The model of teachers: what it learns, what it is told of a world, and whom it carries."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import tipl
from tipl import PathDataset, Policy, PPOConfig, TiplError
from tipl.cli import main
from tipl.envs.worlds import Worlds
from tipl.evaluation import behaviour
from tipl.models import loop
from tipl.models.world import lineage as lineages
from tipl.models.world import losses, observing
from tipl.models.world.belief import Belief
from tipl.models.world.forecaster import WorldForecaster
from tipl.policies.folding import folded

TASK = "InvertedPendulum-v4"
OBSERVER = {"observer_worlds": 8, "observer_steps": 3, "observer_width": 8}
NAMES = ("actuator_gear", "gravity")


@pytest.fixture(scope="module", autouse=True)
def few_steps() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(lineages, "STEPS_OF_ROLLOUT", 20)
        patch.setattr(lineages, "DRAWN_WORLDS", 16)
        patch.setattr(losses, "VISIT_EVERY", 20)
        patch.setattr(observing, "MOST_TRANSITIONS", 30)
        patch.setattr(behaviour, "NUM_ROLLOUTS", 4)
        patch.setattr(behaviour, "STEPS_OF_ROLLOUT", 20)
        yield


@pytest.fixture(scope="module")
def lineage(tmp_path_factory: pytest.TempPathFactory) -> PathDataset:
    """Six worlds; what their last policies do follows from the strength of the motor alone."""
    place = tmp_path_factory.mktemp("lineage")
    factors = [{"actuator_gear": g, "gravity": f} for g in (0.5, 1.0, 2.0) for f in (0.8, 1.25)]
    start = Policy.initial(TASK, 3, (4,))
    return tipl.collect(
        TASK, out=place / "paths", worlds=Worlds.from_factors(TASK, {"training": factors}),
        start=start, total_steps=32, threads=1, progress=False,
        ppo=PPOConfig(num_steps=16, num_minibatches=2, update_epochs=2, learning_rate=0.01),
    )  # fmt: skip


@pytest.fixture(scope="module")
def carrier(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("carrier")
    ppo = PPOConfig(num_steps=64, num_minibatches=2, update_epochs=1)
    paths = tipl.collect(
        TASK, out=place / "paths", num_trials=4, total_steps=128, hidden_sizes=(4,), ppo=ppo,
        threads=1, progress=False,
    )  # fmt: skip
    tipl.train(
        paths, model="neuron", targets=("elite",), num_steps=2, width=8, heads=2, memory=64,
        fresh_widths=(4, 6), fresh_depths=(1,), out=place / "model", threads=1, progress=False,
    )  # fmt: skip
    return place / "model"


@pytest.fixture(scope="module")
def model(lineage: PathDataset, carrier: Path) -> WorldForecaster:
    found = tipl.train(
        lineage,
        model="world",
        **OBSERVER,
        carrier=str(carrier),
        num_steps=60,
        width=8,
        progress=False,
    )
    assert isinstance(found, WorldForecaster)
    return found


def test_a_lineage_is_learned(model: WorldForecaster) -> None:
    curve = model.curves["elite"]
    assert curve["train_loss"][-1] < curve["train_loss"][0]
    assert model.prior.names == NAMES
    assert model.settings["env_steps"] > 0


def test_the_world_decides_what_the_teacher_does(model: WorldForecaster) -> None:
    weak, strong = (
        tipl.adapt(TASK, physics={"actuator_gear": gear}, model=model) for gear in (0.5, 2.0)
    )
    assert weak.layout.hidden_sizes == (4,)
    assert np.abs(weak.params - strong.params).max() > 1e-4
    assert dict(weak.task.physics) == {"actuator_gear": 0.5, "gravity": 1.0}
    assert tipl.evaluate(weak, 2, threads=1).episodic_return.shape == (2,)


def test_networks_of_any_width_are_carried(model: WorldForecaster) -> None:
    given = Policy.initial(TASK, 5, (6,))
    other = tipl.adapt(TASK, physics={"gravity": 1.2}, model=model, hidden=(6,), seed=5)
    carried = tipl.adapt(given, physics={"gravity": 1.2}, model=model)
    assert carried.layout.hidden_sizes == (6,)
    assert np.array_equal(carried.params, other.params)
    assert not np.array_equal(carried.params, given.params)


def test_it_is_saved_and_read(model: WorldForecaster, tmp_path: Path) -> None:
    model.save_pretrained(tmp_path / "model")
    again = tipl.Forecaster.from_pretrained(tmp_path / "model")
    assert isinstance(again, WorldForecaster)
    for hidden in ((4,), (6,)):
        policies = [
            tipl.adapt(TASK, physics={"gravity": 0.9}, model=one, hidden=hidden)
            for one in (model, tmp_path / "model")
        ]
        assert np.array_equal(policies[0].params, policies[1].params)


def test_what_is_not_known_is_the_prior(model: WorldForecaster) -> None:
    blind = tipl.adapt(TASK, model=model)
    none = tipl.adapt(TASK, physics=dict.fromkeys(NAMES), model=model)
    assert np.array_equal(blind.params, none.params)
    assert not blind.task.physics
    part = model.in_world({"gravity": 1.1, "actuator_gear": None}).belief
    assert part.std[1] == 0
    assert part.std[0] == model.prior.std[0]
    assert str(part).endswith("gravity 1.1")


@pytest.mark.parametrize(
    ("physics", "message"),
    [
        ({"wind": 1.1}, "the physics 'wind' were given, but the model learned from worlds that"),
        ({"gravity": 0.0}, "have the factor 0.0; expected positive finite numbers"),
        ({"actuator_gear": -1.0}, "learned from worlds without reversed motors"),
    ],
)
def test_impossible_worlds_are_refused(
    model: WorldForecaster, physics: dict[str, float | None], message: str
) -> None:
    with pytest.raises(TiplError, match=message):
        tipl.adapt(TASK, physics=physics, model=model)


def test_a_world_far_away_is_named(
    model: WorldForecaster, caplog: pytest.LogCaptureFixture
) -> None:
    tipl.adapt(TASK, physics={"gravity": 9.0}, model=model)
    assert "gravity 9 is far from the worlds that the model learned from" in caplog.text


@pytest.mark.parametrize("changes", [{}, {"redraw": "episode"}, {"observe": "physics"}])
def test_paths_that_are_no_lineage_are_refused(
    carrier: Path, tmp_path: Path, changes: dict[str, Any]
) -> None:
    paths = PathDataset.open(carrier.parent / "paths")
    if changes:
        ppo = PPOConfig(num_steps=16, num_minibatches=2, update_epochs=1)
        start = {"start": Policy.initial(TASK, 3, (4,))} if "redraw" in changes else {}
        paths = tipl.collect(
            TASK, out=tmp_path / "paths", num_trials=2, total_steps=16, hidden_sizes=(4,), ppo=ppo,
            vary=("gravity=0.8..1.2",), threads=1, progress=False, **start, **changes,
        )  # fmt: skip
    with pytest.raises(TiplError, match="a model of worlds learns from a universal policy"):
        tipl.train(paths, model="world", **OBSERVER, carrier=str(carrier), progress=False)


@pytest.fixture(scope="module")
def universal(tmp_path_factory: pytest.TempPathFactory) -> PathDataset:
    """Two trials in worlds that are drawn anew, whose policies observe them."""
    ppo = PPOConfig(num_steps=16, num_minibatches=2, update_epochs=2, learning_rate=0.05)
    return tipl.collect(
        TASK, out=tmp_path_factory.mktemp("universal") / "paths", num_trials=2, total_steps=64,
        start=Policy.initial(TASK, 3, (4,)), ppo=ppo, redraw="episode", observe="physics",
        vary=("gravity=0.8..1.2", "actuator_gear=0.5..2"), threads=1, progress=False,
    )  # fmt: skip


def test_a_universal_policy_is_the_teacher_of_every_world(
    universal: PathDataset, carrier: Path, tmp_path: Path
) -> None:
    made = tipl.train(
        universal, model="world", **OBSERVER, carrier=str(carrier), progress=False,
        out=tmp_path / "model",
    )  # fmt: skip
    assert set(made.curves) == {"observer"}
    model = WorldForecaster.from_pretrained(tmp_path / "model")
    best = int(np.nan_to_num(universal.episodic_return()[:, -1], nan=-np.inf).argmax())
    trained, start = universal.policy(best, -1), universal.policy(best, 0)
    np.testing.assert_array_equal(model.elite_policy.params, folded(start).params)
    assert model.prior.names == NAMES
    for world in ({"gravity": 1.1, "actuator_gear": 0.6}, {"actuator_gear": 1.9}):
        policy = tipl.adapt(TASK, physics=world, model=model)
        np.testing.assert_allclose(policy.params, folded(trained, world).params, atol=1e-6)
    blind = tipl.adapt(TASK, physics=dict.fromkeys(NAMES), model=model)
    middle = folded(trained, model.prior.factors)
    np.testing.assert_allclose(blind.params, middle.params, atol=1e-6)
    wide = tipl.adapt(TASK, physics={"gravity": 1.1}, model=model, hidden=(6,))
    seen = np.random.default_rng(0).normal(size=(9, 4))
    teacher = folded(trained, {"gravity": 1.1})
    np.testing.assert_allclose(wide.act(seen), teacher.act(seen), atol=1e-5)
    assert model.stored.params.numel() == 0  # what follows from the factors takes no room
    for world in (0, 15):
        factors = model.stored.factors[world].double().exp().tolist()
        teacher = folded(trained, dict(zip(NAMES, factors, strict=True)))
        np.testing.assert_allclose(model.stored_policy(world).params, teacher.params, atol=1e-6)


def test_narrower_networks_are_carried_to_a_student(
    universal: PathDataset, carrier: Path, tmp_path: Path
) -> None:
    model = tipl.train(
        universal, model="world", **OBSERVER, carrier=str(carrier), progress=False,
        student_widths=(2, 3, 4), student_steps=60, out=tmp_path / "model",
    )  # fmt: skip
    assert set(model.curves) == {"student of width 2", "student of width 3", "observer"}
    losses = model.curves["student of width 3"]["train_loss"]
    assert losses[-1] < losses[0]
    again: Any = WorldForecaster.from_pretrained(tmp_path / "model")
    assert again.students.keys() == {2, 3}  # another of 4 is the teacher itself
    seen = np.random.default_rng(0).normal(size=(9, 4))
    world = {"gravity": 1.1, "actuator_gear": 0.7}
    asked = again.in_world(world)
    for hidden, width in (((2,), 2), ((3,), 3), ((3, 3), 3), ((4,), 4), ((9,), 4), ((1,), 4)):
        policy = tipl.adapt(TASK, physics=world, model=again, hidden=hidden)
        layout = policy.layout
        teacher = asked.teacher_policy(layout)
        assert teacher.layout.hidden_sizes == (width,)
        if hidden != (1,):  # for which nobody is narrow enough
            np.testing.assert_allclose(policy.act(seen), teacher.act(seen), atol=1e-3)
    assert not np.allclose(again.in_world({}).teacher_policy(layout).params, teacher.params)
    with pytest.raises(TiplError, match="expected each width once, the narrowest first"):
        tipl.train(universal, model="world", student_widths=(3, 2))
    with pytest.raises(TiplError, match="student_widths is 0"):
        tipl.train(universal, model="world", student_widths=(0,))


def test_of_reversed_motors_there_is_no_model(carrier: Path, tmp_path: Path) -> None:
    ppo = PPOConfig(num_steps=16, num_minibatches=2, update_epochs=1)
    paths = tipl.collect(
        TASK, out=tmp_path / "paths", num_trials=1, total_steps=48, hidden_sizes=(4,), ppo=ppo,
        vary=("actuator_gear=-1.5..-0.5",), redraw="episode", observe="physics", threads=1,
        progress=False,
    )  # fmt: skip
    with pytest.raises(TiplError, match="worlds with reversed motors were given"):
        tipl.train(paths, model="world", **OBSERVER, carrier=str(carrier), progress=False)


def test_the_command_makes_the_same_policy(
    model: WorldForecaster, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model.save_pretrained(tmp_path / "model")
    words = ["adapt", str(tmp_path / "model"), "--out", str(tmp_path / "policy")]
    main([*words, "--physics", "gravity=1.2", "--hidden", "6", "--seed", "5"])
    made = tipl.adapt(TASK, physics={"gravity": 1.2}, model=model, hidden=(6,), seed=5)
    assert np.array_equal(Policy.load(tmp_path / "policy").params, made.params)
    assert "the world: actuator_gear 1, gravity 1.2\n" in capsys.readouterr().out
    main([*words, "--unknown", "gravity"])
    assert Policy.load(tmp_path / "policy").task.physics == ()
    with pytest.raises(SystemExit):
        main([*words, "--physics", "wind=2"])
    assert "the physics 'wind' were given" in capsys.readouterr().err


def test_a_training_that_diverges_is_stopped(lineage: PathDataset, carrier: Path) -> None:
    with pytest.raises(TiplError, match=r"diverged at step \d+ of 9 .* train with a smaller one"):
        tipl.train(
            lineage, model="world", **OBSERVER, carrier=str(carrier), num_steps=9, width=8,
            learning_rate=1e30, progress=False,
        )  # fmt: skip


def test_an_interrupted_training_ends_in_the_same_bytes(
    lineage: PathDataset, carrier: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def train(name: str, **options: bool) -> bytes:
        tipl.train(
            lineage.select([0, 1, 3, 4]), model="world", held_out=lineage.select([2, 5]),
            **OBSERVER, carrier=str(carrier), num_steps=30, width=8, progress=False,
            out=tmp_path / name, **options,
        )  # fmt: skip
        return (tmp_path / name / "model.safetensors").read_bytes()

    whole = train("whole")
    advance, calls = loop._Fit.advance, 0

    def interrupted(self: loop._Fit, *arguments: Any) -> float:
        nonlocal calls
        calls += 1
        if calls == 25:
            raise KeyboardInterrupt
        return advance(self, *arguments)

    with monkeypatch.context() as patch:
        patch.setattr(loop._Fit, "advance", interrupted)
        with pytest.raises((KeyboardInterrupt, TiplError)):
            train("part")
    assert not (tmp_path / "part").exists()
    assert train("part", resume=True) == whole


def test_beliefs_are_told_apart_by_what_is_known() -> None:
    prior = Belief.among(("gravity",), np.array([[0.5], [2.0]]))
    assert prior.factors == {"gravity": pytest.approx(1.0)}
    assert str(prior) == "gravity 1 (0.26 to 3.89)"
