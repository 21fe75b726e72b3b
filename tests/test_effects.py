"""Physics that nothing depends on: found by trying, and neither observed nor missed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import tipl
from tipl import PathDataset, Policy, PPOConfig, TiplError, Worlds
from tipl.envs.effects import physics_with_effect
from tipl.models.neuron_transformer import NeuronTrainConfig
from tipl.models.world.forecaster import WorldForecaster

TASK = "InvertedPendulum-v4"
PPO = PPOConfig(num_steps=16, num_minibatches=2, update_epochs=1)
WHOLE: dict[str, Any] = {"num_trials": 1, "total_steps": 48, "hidden_sizes": (4,), "ppo": PPO}
QUIET: dict[str, Any] = {"threads": 1, "progress": False}


@pytest.mark.parametrize(
    ("env_id", "ranges", "expected"),
    [
        (TASK, {"gravity": [0.9, 1.1], "geom_friction": [0.5, 2.0]}, ("gravity",)),  # no contacts
        (
            "HalfCheetah-v4",
            {"geom_friction": [0.9, 1.0], "mass": [1.0, 1.1]},
            ("geom_friction", "mass"),
        ),
        ("HalfCheetah-v4", {"actuator_dynprm:bfoot": [0.5, 2.0]}, ()),  # motors without dynamics
        (TASK, {"body_mass:pole": [1.0, 1.0 + 1e-12]}, ("body_mass:pole",)),  # a bit is enough
        (TASK, {"geom_friction": [1.3, 1.3]}, ("geom_friction",)),  # which cannot be told
    ],
)
def test_a_factor_has_an_effect_if_a_bit_of_what_is_seen_differs(
    env_id: str, ranges: dict[str, list[float]], expected: tuple[str, ...]
) -> None:
    assert physics_with_effect(env_id, ranges) == expected


def test_policies_do_not_observe_what_has_no_effect(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    vary = ("gravity=0.8..1.2", "geom_friction=0.5..2")
    asked: dict[str, Any] = {"redraw": "episode", "observe": "physics"} | WHOLE | QUIET
    paths = tipl.collect(TASK, out=tmp_path / "paths", vary=vary, **asked)
    assert paths.task.observed == ("gravity",)
    assert sorted(paths.metadata.vary) == ["geom_friction", "gravity"]
    assert f"nothing in {TASK} depends on geom_friction, which policies do not" in caplog.text
    gravities = (0.8, 0.9, 1.2)
    both = [{"gravity": one, "geom_friction": 2 * one} for one in gravities]
    alone = [{"gravity": one} for one in gravities]
    params = [
        tipl.collect(
            TASK, out=tmp_path / str(len(worlds[0])),
            worlds=Worlds.from_factors(TASK, {"training": worlds}), **asked,
        ).params()
        for worlds in (both, alone)
    ]  # fmt: skip
    assert params[0].tobytes() == params[1].tobytes()  # it costs nothing at all
    with pytest.raises(TiplError, match="nothing in InvertedPendulum-v4 depends on that; vary"):
        tipl.collect(TASK, out=tmp_path / "none", vary=vary[1:], **asked)
    assert not (tmp_path / "none").exists()


def test_a_model_of_worlds_leaves_it_aside(tmp_path: Path) -> None:
    home = tipl.collect(TASK, out=tmp_path / "home", **WHOLE, **QUIET)
    tiny = NeuronTrainConfig(
        targets=("elite",), num_steps=1, width=8, heads=2, memory=16, fresh_widths=(4,), rounds=1
    )
    tipl.train(home, config=tiny, out=tmp_path / "carrier", progress=False)
    paths = tipl.collect(
        TASK, out=tmp_path / "paths", start=Policy.initial(TASK, 3, (4,)), redraw="episode",
        observe="physics", vary=("gravity=0.8..1.2", "geom_friction=0.5..2"), **WHOLE, **QUIET,
    )  # fmt: skip
    tipl.train(
        PathDataset.open(paths.directory), model="world", observer_worlds=8, observer_steps=2,
        observer_width=8, student_widths=(), carrier=str(tmp_path / "carrier"),
        out=tmp_path / "model", progress=False,
    )  # fmt: skip
    model = WorldForecaster.from_pretrained(tmp_path / "model")
    assert model.prior.names == ("gravity",)
    assert model.without_effect == ("geom_friction",)
    made = [
        tipl.adapt(TASK, physics={"gravity": 1.1, **more}, model=model)
        for more in ({}, {"geom_friction": 1.7}, {"geom_friction": None})
    ]
    assert {policy.params.tobytes() for policy in made} == {made[0].params.tobytes()}
    there = made[0].with_physics({"gravity": 1.1, "geom_friction": 1.7})
    assert tipl.adapt(there, physics={"gravity": 1.1}, model=model).task.physics
    with pytest.raises(TiplError, match=r"the physics 'geom_friction' have the factor -1"):
        tipl.adapt(TASK, physics={"geom_friction": -1.0}, model=model)
    with pytest.raises(TiplError, match="learned from worlds that differ in gravity"):
        tipl.adapt(TASK, physics={"wind": 2.0}, model=model)
