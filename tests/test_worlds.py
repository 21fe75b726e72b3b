"""Worlds as data: files, splits, draws and presets."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tipl import Policy, Worlds, evaluate
from tipl.cli import main
from tipl.core import storage
from tipl.envs import make_task
from tipl.envs.world_drawing import (
    Recipe,
    draw_worlds,
    parse_beyond,
    parse_choices,
    parse_corner,
    parse_splits,
)
from tipl.envs.world_presets import preset_worlds
from tipl.errors import TiplError

CHEETAH = "HalfCheetah-v4"
BOX = ["gravity=0.6..1.6", "mass=0.6..1.6", "actuator_gear=0.6..1.5"]
CORNER = ["actuator_gear<0.8", "mass>1.25"]
BEYOND = ["0.4..0.6", "1.6..2.2"]


def drawn(splits: list[str], seed: int = 0, **texts: list[str]) -> Worlds:
    recipe = Recipe(
        parse_choices(texts.get("vary", BOX)),
        parse_splits(splits),
        parse_corner(texts.get("corner", CORNER)),
        parse_beyond(texts.get("beyond", BEYOND if "extrapolation" in " ".join(splits) else [])),
    )
    return draw_worlds(CHEETAH, recipe.plans(), recipe.corner, seed=seed, made=recipe.said())


SPLITS = ["training=64", "interpolation=24", "combination=24", "extrapolation=24"]


# --- files -----------------------------------------------------------------------------------


def test_a_file_says_what_was_saved(tmp_path: Path) -> None:
    worlds = drawn(SPLITS)
    worlds.save(tmp_path / "worlds.json")
    again = Worlds.load(tmp_path / "worlds.json")
    assert again == worlds
    assert again.digest == worlds.digest
    assert list(again.splits) == ["training", "interpolation", "combination", "extrapolation"]
    assert len(again) == 64 + 3 * 24
    assert again.made["seed"] == 0
    assert again.made["corner"] == CORNER
    worlds.save(tmp_path / "worlds.json")  # over one of its kind


def test_nothing_but_worlds_is_replaced(tmp_path: Path) -> None:
    other = tmp_path / "metadata.json"
    storage.write_json(other, {"format_version": 1, "env_id": "x", "made": {}})
    with pytest.raises(TiplError, match=r"metadata\.json"):
        drawn(SPLITS).save(other)


def test_equal_worlds_have_one_digest_however_they_were_made() -> None:
    worlds = drawn(["training=2"])
    by_hand = Worlds.from_factors(
        CHEETAH, {"training": [worlds["training-000"], worlds["training-001"]]}
    )
    assert by_hand.made != worlds.made
    assert by_hand.digest == worlds.digest
    assert drawn(["training=2"], seed=1).digest != worlds.digest


def test_a_split_is_arrays_by_name() -> None:
    worlds = Worlds.from_factors(
        CHEETAH, {"training": [{"gravity": 2.0}, {"mass": 0.5}, {}], "other": [{"gravity": 3.0}]}
    )
    assert worlds.physics == ("gravity", "mass")
    found = worlds.split("training")
    assert {name: values.tolist() for name, values in found.items()} == {
        "gravity": [2.0, 1.0, 1.0],
        "mass": [1.0, 0.5, 1.0],
    }
    assert worlds.split("training", first=2)["mass"].tolist() == [1.0, 0.5]
    assert [one.name for one in worlds.worlds("training", 2)] == ["training-000", "training-001"]
    assert worlds["other-000"] == {"gravity": 3.0, "mass": 1.0}


@pytest.mark.parametrize(
    ("ask", "message"),
    [
        (lambda worlds: worlds["training-9"], "no world 'training-9' .* did you mean training-000"),
        (lambda worlds: worlds.split("trainig"), "no split 'trainig' .* did you mean training"),
        (lambda worlds: worlds.split("training", 2), "2 worlds .* expected 1 to 1"),
        (lambda worlds: worlds.split("training", 0), "0 worlds .* expected 1 to 1"),
        (lambda worlds: worlds.distances("training", "x"), "no split 'x'"),
    ],
)
def test_what_is_not_there_is_explained(ask: Any, message: str) -> None:
    with pytest.raises(TiplError, match=message):
        ask(Worlds.from_factors(CHEETAH, {"training": [{"gravity": 2.0}]}))


@pytest.mark.parametrize(
    ("splits", "message"),
    [
        ({}, "have 0 physics and the splits {}"),
        ({"training": []}, "have 0 physics"),
        ({"training": [{}]}, "have 0 physics"),
        ({"training": [{"gravity": 0.0}]}, "have the factor 0.0"),
        ({"training": [{"gravity": -1.0}]}, "have the factor -1.0"),
        ({"a": [{"gravity": 2.0}], "b": [{"gravity": 2.0}]}, "'b-000' is in the split 'a', too"),
    ],
)
def test_impossible_worlds_are_explained(splits: Any, message: str) -> None:
    with pytest.raises(TiplError, match=message):
        Worlds.from_factors(CHEETAH, splits)


def test_a_file_of_worlds_without_a_factor_is_refused(tmp_path: Path) -> None:
    worlds = Worlds.from_factors(CHEETAH, {"training": [{"gravity": 2.0}, {"gravity": 3.0}]})
    said = worlds.to_json()
    said["splits"]["training"][1] = {"name": "training-001", "factors": {"mass": 1.0}}
    storage.write_json(tmp_path / "worlds.json", said)
    with pytest.raises(
        TiplError, match=r"worlds\.json: .*'training-001' has factors of \['mass'\]"
    ):
        Worlds.load(tmp_path / "worlds.json")


# --- draws -----------------------------------------------------------------------------------


def test_splits_are_where_they_should_be() -> None:
    worlds = drawn(SPLITS)
    corner = {
        split: (worlds.split(split)["actuator_gear"] < 0.8) & (worlds.split(split)["mass"] > 1.25)
        for split in worlds.splits
    }
    assert corner.pop("combination").all()
    assert not any(inside.any() for inside in corner.values())
    highest = {"gravity": 1.6, "mass": 1.6, "actuator_gear": 1.5}
    outside = {}
    for split in worlds.splits:
        factors = worlds.split(split)
        outside[split] = np.array(
            [(factors[name] < 0.6) | (factors[name] > high) for name, high in highest.items()]
        )
    assert (outside.pop("extrapolation").sum(axis=0) == 1).all()
    assert not any(found.any() for found in outside.values())
    beyond = worlds.split("extrapolation")
    assert all(values.min() >= 0.4 and values.max() <= 2.2 for values in beyond.values())
    sides = [values < 0.6 for values in beyond.values()] + [
        values > highest[name] for name, values in beyond.items()
    ]
    assert [int(side.sum()) for side in sides] == [4] * 6  # in turn


def test_a_longer_list_begins_with_the_shorter_one() -> None:
    short, long = drawn(["training=8", "interpolation=2"]), drawn(["training=64", *SPLITS[1:]])
    for split, count in (("training", 8), ("interpolation", 2)):
        assert short.worlds(split) == long.worlds(split, count)


def test_exact_factors_are_drawn_once_each_and_never_in_two_splits() -> None:
    exact = ["gravity=0.5,1,2", "actuator_gear=-1,1"]
    worlds = drawn(["training=4", "interpolation=2"], vary=exact, corner=[])
    found = [tuple(one.factors.values()) for split in worlds.splits for one in worlds.worlds(split)]
    assert {*found} == {*itertools.product((-1.0, 1.0), (0.5, 1.0, 2.0))}
    with pytest.raises(
        TiplError, match=r"7 worlds of the split 'training' .* after 6 10,000 draws"
    ):
        drawn(["training=7"], vary=exact, corner=[])


def test_draws_are_even_in_the_logarithm() -> None:
    factors = drawn(["training=600"], vary=["gravity=0.25..4"], corner=[]).split("training")
    quartiles = np.quantile(np.log(factors["gravity"]) / np.log(4), [0.25, 0.5, 0.75])
    np.testing.assert_allclose(quartiles, [-0.5, 0, 0.5], atol=0.1)


@pytest.mark.parametrize(
    ("splits", "texts", "message"),
    [
        (["training=2", "combination=2"], {"corner": []}, "combination .* without a corner"),
        (["training=2", "extrapolation=2"], {"beyond": []}, "without ranges beyond"),
        (["training=2"], {"beyond": BEYOND}, "no split extrapolation"),
        (["interpolation=2"], {}, "expected training, too"),
        (["training=0"], {}, "training of the splits is 0"),
        (["training"], {}, "'training' was given as a split"),
        (["training=1", "training=1"], {}, "'training=1' was given as a split"),
        (["training=x"], {}, "'training=x' was given as a split"),
        (["training=2"], {"vary": []}, "nothing varies"),
        (["training=2"], {"vary": ["gravity=2..1"]}, "'gravity=2..1' was given as what varies"),
        (["training=2"], {"vary": ["gravity=1,-1"]}, "'gravity=1,-1' was given as what varies"),
        (["training=2"], {"vary": ["gravity=1,x"]}, "'gravity=1,x' was given as what varies"),
        (["training=2"], {"vary": [*BOX, "mass=1"]}, "'mass' varies twice"),
        (["training=2"], {"corner": ["mas<1"]}, "the corner mas<1 .* did you mean mass"),
        (["training=2"], {"corner": ["mass=1"]}, "'mass=1' was given as a side of the corner"),
        (["training=2"], {"corner": ["mass<x"]}, "'mass<x' was given as a side of the corner"),
        (SPLITS, {"beyond": ["0.4..0.7"]}, r"0.4..0.7 was given as beyond gravity=0.6..1.6"),
        (SPLITS, {"beyond": ["-1..-0.5"]}, "was given as beyond gravity"),
        (SPLITS, {"beyond": ["2"]}, "'2' was given as a range beyond"),
        (SPLITS, {"corner": ["mass>3"]}, "'combination' .* in the corner mass>3; ask"),
    ],
)
def test_what_cannot_be_made_is_explained(
    splits: list[str], texts: dict[str, list[str]], message: str
) -> None:
    with pytest.raises(TiplError, match=message):
        drawn(splits, **texts)


@pytest.mark.parametrize("seed", [-1, 2**60])
def test_a_seed_is_possible(seed: int) -> None:
    with pytest.raises(TiplError, match="seed is"):
        drawn(["training=2"], seed=seed)


def test_distances_are_of_log_factors_and_know_reversed_motors() -> None:
    training = [{"gravity": 1.0, "actuator_gear": 1.0}, {"gravity": 4.0, "actuator_gear": 1.0}]
    others = [{"gravity": 2.0, "actuator_gear": 0.5}, {"gravity": 1.0, "actuator_gear": -1.0}]
    worlds = Worlds.from_factors(CHEETAH, {"training": training, "test": others})
    expected = [np.sqrt(2) * np.log(2), np.pi]
    np.testing.assert_allclose(worlds.distances("test"), expected)


# --- presets ---------------------------------------------------------------------------------


@pytest.mark.parametrize("task", ["HalfCheetah-v4", "Hopper-v4", "Walker2d-v5"])
def test_version_1_is_the_protocol(task: str) -> None:
    worlds = preset_worlds(task, "v1")
    assert {split: len(found) for split, found in worlds.splits.items()} == {
        "training": 256, "interpolation": 24, "combination": 24, "extrapolation": 24,
    }  # fmt: skip
    assert worlds.physics == ("actuator_gear", "dof_damping", "geom_friction", "gravity", "mass")
    assert worlds.digest != preset_worlds(task, "v1", seed=1).digest


def test_the_draws_of_version_1_stay_what_they_are() -> None:
    assert preset_worlds("HalfCheetah-v4", "v1")["training-000"] == {
        "actuator_gear": 0.668641,
        "dof_damping": 0.841312,
        "geom_friction": 1.56003,
        "gravity": 0.660753,
        "mass": 1.19299,
    }


def test_cadm_is_a_grid_and_two_bands_on_either_side() -> None:
    worlds = preset_worlds("HalfCheetah-v4", "cadm")
    assert worlds.physics == ("body_mass", "dof_damping")
    values = (0.75, 0.85, 1.0, 1.15, 1.25)
    training = [tuple(one.factors.values()) for one in worlds.worlds("training")]
    assert {*training} == {*itertools.product(values, values)}
    for split, bands in {"moderate": (0.4, 0.5, 1.5, 1.6), "extreme": (0.2, 0.3, 1.7, 1.8)}.items():
        factors = np.array(list(worlds.split(split).values()))
        a, b, c, d = bands
        low, high = (factors[:, 0::2], factors[:, 1::2])
        assert ((a <= low) & (low <= b)).all()
        assert ((c <= high) & (high <= d)).all()


def test_inversion_reverses_half_of_the_motors() -> None:
    worlds = preset_worlds("Hopper-v4", "inversion")
    gear = worlds.split("training")["actuator_gear"]
    assert int((gear < 0).sum()) == 128
    assert ((abs(gear) >= 0.5) & (abs(gear) <= 1.5)).all()
    further = worlds.split("extrapolation")
    out = [(abs(values) < 0.5) | (abs(values) > 1.5) for values in further.values()]
    assert (np.sum(out, axis=0) == 1).all()


@pytest.mark.parametrize(("task", "motors"), [("HalfCheetah-v4", 6), ("Hopper-v4", 3)])
def test_flip_reverses_each_motor(task: str, motors: int) -> None:
    worlds = preset_worlds(task, "flip")
    training = np.array(list(worlds.split("training").values()))
    assert len(worlds.physics) == motors
    assert (training[:, 0] == 1).all()  # home
    assert ((training[:, 1:] == -1).sum(axis=0) == 1).all()
    pairs = np.array(list(worlds.split("combination").values()))
    assert pairs.shape == (motors, motors * (motors - 1) // 2)
    assert ((pairs == -1).sum(axis=0) == 2).all()


def test_a_preset_is_for_its_tasks() -> None:
    with pytest.raises(TiplError, match="the preset cadm was asked for with 'Hopper-v4'; expected"):
        preset_worlds("Hopper-v4", "cadm")
    with pytest.raises(TiplError, match="preset is 'v9'; expected one of v1, cadm"):
        preset_worlds("Hopper-v4", "v9")


# --- policies in a world ---------------------------------------------------------------------

PENDULUM = "InvertedPendulum-v4"


def controller(gain: float) -> Policy:
    """Balances by pushing against the fall."""
    policy = Policy.initial(PENDULUM, 0, (1,))
    params = policy.params.copy()
    arrays = policy.layout.unflatten(params)
    for array in arrays.values():
        array[...] = 0.0
    first, second = (array for name, array in arrays.items() if name.endswith("weight"))
    first[...] = np.array([0.0, 0.1, 0.0, 0.02]).reshape(first.shape)
    second[...] = gain
    return policy.with_params(params)


def test_a_policy_is_evaluated_in_a_world() -> None:
    """Where the motor is reversed, the policy that pushes the other way stands as well."""
    policy, mirrored = controller(10.0), controller(-10.0)
    at_home = evaluate(policy, 2, threads=1)
    assert at_home.episodic_return.mean() > 2 * evaluate(mirrored, 2, threads=1).mean.value
    in_mirror = evaluate(mirrored, 2, physics={"actuator_gear": -1.0}, threads=1)
    np.testing.assert_array_equal(in_mirror.episodic_return, at_home.episodic_return)
    assert in_mirror.variant == "actuator_gear × -1"
    assert "InvertedPendulum-v4 (actuator_gear × -1): mean" in str(in_mirror)


def test_given_physics_replace_those_of_the_policies() -> None:
    policy = controller(10.0)
    heavy = policy.with_physics({"gravity": 30.0})
    assert policy.task.physics == ()  # another policy
    assert heavy.task.physics == (("gravity", 30.0),)
    returns = [
        evaluate(one, 1, physics=physics, threads=1).episodic_return.tolist()
        for one, physics in (
            (policy, None), (heavy, {}), (heavy, {"gravity": 1.0}), (heavy, None),
            (policy, {"gravity": 30.0}), ([policy, heavy], {"gravity": 30.0}),
        )
    ]  # fmt: skip
    home, falling = returns[0], returns[3]
    assert home != falling
    assert returns == [home, home, home, falling, falling, [falling, falling]]
    assert evaluate([policy, heavy], 1, threads=1).variant == ""  # no world is that of both


@pytest.mark.parametrize(
    ("physics", "message"),
    [
        ({"gravty": 1.3}, "no physics 'gravty': .* did you mean gravity"),
        ({"mass:pol": 1.3}, "no object 'pol' .* did you mean pole"),
        ({"gravity": 0.0}, "the physics 'gravity' have the factor 0.0; expected positive"),
        ({"gravity": -1.0}, "the physics 'gravity' have the factor -1.0; expected positive"),
        ({"actuator_gear": np.nan}, "the physics 'actuator_gear' have the factor nan"),
    ],
)
def test_an_impossible_world_is_refused(physics: dict[str, float], message: str) -> None:
    with pytest.raises(TiplError, match=message):
        evaluate(controller(1.0), 1, physics=physics)


def test_a_task_that_is_no_batch_has_no_physics() -> None:
    policy = Policy.initial(make_task("Pendulum-v1"), 0, (2,))
    with pytest.raises(TiplError, match=r"'Pendulum-v1', which does not run on mujoco\.batch"):
        evaluate(policy, 1, physics={"gravity": 2.0})


def test_the_command_line_evaluates_in_a_world(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    controller(-10.0).save(tmp_path / "policy")
    words = ["evaluate", str(tmp_path / "policy"), "--episodes", "1", "--threads", "1"]
    main([*words, "--physics", "actuator_gear=-1", "gravity=0.9"])
    said = capsys.readouterr().out
    assert said.startswith("InvertedPendulum-v4 (actuator_gear × -1, gravity × 0.9): mean episodic")
    for physics, message in {
        "gravty=1": "did you mean gravity",
        "gravity=x": "a name and a",
    }.items():
        with pytest.raises(SystemExit) as end:
            main([*words, "--physics", physics])
        assert end.value.code == 2
        assert message in capsys.readouterr().err
