"""The models that ship with tipl: they do on a fresh machine what their cards say."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

import tipl
from tipl import Forecaster, Policy, TiplError, evaluate
from tipl.cli import main
from tipl.envs.single import WorldEnv
from tipl.forecast.hub import SHIPPED, shipped_models
from tipl.models.neuron_transformer.forecaster import NeuronTransformerForecaster

# what a few fresh networks return at most before, and at least after: below the cards' means
EXPECTED = {
    "CartPole-v1": (100.0, 450.0), "HalfCheetah-v4": (0.0, 3_000.0),
    "InvertedDoublePendulum-v4": (110.0, 9_000.0), "InvertedPendulum-v4": (60.0, 950.0),
    "Reacher-v4": (-10.0, -6.5),
}  # fmt: skip

# a world for each model of worlds, and how much more than home's elite its policy returns there
OF_WORLDS = {
    "HalfCheetah-v4": ({"actuator_gear": 1.5}, 1_500.0),
    "Hopper-v4": ({"actuator_gear": 1.4}, 1_500.0),
}


def test_models_ship_with_their_cards_in_fifteen_megabytes() -> None:
    assert shipped_models() == sorted([*EXPECTED, *(f"{task}-worlds" for task in OF_WORLDS)])
    files = [file for file in SHIPPED.rglob("*") if file.is_file()]
    assert sum(file.stat().st_size for file in files) <= 15e6
    for name in shipped_models():
        card = (SHIPPED / name / "README.md").read_text(encoding="utf-8")
        assert name in card
        assert "tipl train" in card  # the commands that made it


@pytest.mark.parametrize("name", sorted(EXPECTED))
@pytest.mark.parametrize("hidden", [(64, 64), (160, 160)])
def test_fresh_networks_become_good_policies(name: str, hidden: tuple[int, ...]) -> None:
    model = Forecaster.from_pretrained(name)
    start = [Policy.initial(model.task, seed=s, hidden=hidden) for s in range(3)]
    before = evaluate(start, 1).episodic_return
    after = evaluate(model.optimize(start), 1).episodic_return
    assert before.mean() < EXPECTED[name][0]
    assert after.mean() > EXPECTED[name][1]


def test_the_pendulums_own_future_is_known() -> None:
    model = Forecaster.from_pretrained("InvertedPendulum-v4")
    assert model.targets == ("elite", "own")
    start = [Policy.initial(model.task, seed=s) for s in range(8)]
    returns = evaluate(model.optimize(start, target="own"), 1).episodic_return
    assert np.median(returns) == 1000


@pytest.mark.parametrize("task", sorted(OF_WORLDS))
@pytest.mark.parametrize("hidden", [(64, 64), (128, 96)])
def test_a_world_that_nobody_trained_in_is_no_match_for_its_policy(
    task: str, hidden: tuple[int, ...]
) -> None:
    world, gain = OF_WORLDS[task]
    elite = Forecaster.from_pretrained(f"{task}-worlds").elite_policy  # type: ignore[attr-defined]
    made = tipl.adapt(task, physics=world, hidden=hidden)
    returns = evaluate([elite.with_physics(world), made], 8, seed=5).episodic_return.mean(axis=1)
    assert returns[1] > returns[0] + gain
    assert made.layout.hidden_sizes == hidden
    assert made.env_steps == 0


def test_what_a_world_is_shows_in_some_steps() -> None:
    with closing(WorldEnv("HalfCheetah-v4", {"actuator_gear": 1.4, "mass": 0.7})) as env:
        made = tipl.adapt("HalfCheetah-v4", env=env, steps=250)
    seen = made.world.factors
    assert seen["actuator_gear"] == pytest.approx(1.4, rel=0.2)
    assert seen["mass"] == pytest.approx(0.7, rel=0.3)
    assert made.env_steps == 250


def test_it_is_found_by_its_name_on_the_command_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    main(["optimize", "InvertedPendulum-v4", "--out", "policy"])
    main(["evaluate", "policy", "--episodes", "2"])
    assert "mean episodic return 1,000" in capsys.readouterr().out


def test_policies_of_other_tasks_are_refused() -> None:
    model = NeuronTransformerForecaster.from_pretrained("InvertedPendulum-v4")
    message = "a policy for HalfCheetah-v4 was given, but this model was trained on InvertedPend"
    with pytest.raises(TiplError, match=message):
        model.optimize(Policy.initial("HalfCheetah-v4"))
