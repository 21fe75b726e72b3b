"""`tipl worlds make`, `show` and `check`."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tipl import Worlds
from tipl.cli import main
from tipl.core import storage
from tipl.envs.physics import PhysicsVariants
from tipl.envs.world_checks import read_back
from tipl.envs.world_presets import preset_worlds
from tipl.envs.worlds import World
from tipl.errors import TiplError

PENDULUM = "InvertedPendulum-v4"
MAKE = (
    f"worlds make {PENDULUM} --vary gravity=0.6..1.6 --vary mass=0.6..1.6 --vary "
    "actuator_gear=0.6..1.5 --splits training=8 interpolation=3 combination=3 extrapolation=3 "
    "--corner actuator_gear<0.8 mass>1.25 --beyond 0.4..0.6 1.6..2.2 --seed 3 --out"
)


def said(capsys: pytest.CaptureFixture[str], line: str, *more: object) -> str:
    """What a command prints, with single spaces."""
    main([*line.split(), *map(str, more)])
    return " ".join(capsys.readouterr().out.split())


def refused(capsys: pytest.CaptureFixture[str], line: str, *more: object) -> str:
    """The sentence by which a command is refused."""
    with pytest.raises(SystemExit) as end:
        main([*line.split(), *map(str, more)])
    assert end.value.code == 2
    words = capsys.readouterr().err.strip().splitlines()
    assert words[-1].startswith("tipl: ")
    return words[-1]


# --- make and show ---------------------------------------------------------------------------


def test_worlds_are_made_and_shown(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "worlds.json"
    made = said(capsys, MAKE, file)
    worlds = Worlds.load(file)
    assert (worlds.env_id, len(worlds)) == (PENDULUM, 17)
    assert worlds.made["seed"] == 3
    assert worlds.made["command"].startswith("tipl worlds make InvertedPendulum-v4 --vary gravity")
    assert f"17 worlds of {PENDULUM}, digest {worlds.digest[:12]}" in made
    assert "training interpolation combination extrapolation worlds 8 3 3 3 actuator_gear" in made
    distances = worlds.distances("combination")
    assert f"{distances.min():.3g} to {distances.max():.3g}" in made
    shown = said(capsys, "worlds show", file)
    assert shown == made
    one = said(capsys, "worlds show", file, "--split", "combination")
    assert one.startswith("world actuator_gear gravity mass combination-000")
    assert f"{worlds['combination-002']['gravity']:g}" in one


def test_the_same_command_makes_the_same_file(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "worlds.json"
    said(capsys, MAKE, file)
    before = file.read_bytes()
    said(capsys, MAKE, file)  # over its own
    assert file.read_bytes() == before


def test_a_file_of_before_is_read_and_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`data/worlds` is not to be made anew: others have drawn the same worlds, and test on them."""
    stored = Path(__file__).parent / "data" / "worlds" / "worlds.json"
    worlds = Worlds.load(stored)
    assert worlds.digest.startswith("1f15517f750b")
    assert worlds["extrapolation-000"] == {
        "actuator_gear": 0.428184,
        "gravity": 0.705464,
        "mass": 0.5,
    }
    monkeypatch.chdir(tmp_path)
    main(shlex.split(worlds.made["command"])[1:])
    assert (tmp_path / "worlds.json").read_bytes() == stored.read_bytes()


def test_a_preset_is_the_one_of_the_package(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "worlds.json"
    said(capsys, "worlds make Hopper-v4 --preset v1 --seed 2 --out", file)
    worlds = Worlds.load(file)
    assert worlds.digest == preset_worlds("Hopper-v4", "v1", 2).digest
    assert worlds.made["preset"] == "v1"
    assert worlds.made["vary"]["mass"] == "0.6..1.6"


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("worlds make Pendulum-v1 --vary gravity=1..2 --splits training=2", "mujoco.batch"),
        ("worlds make None-v4 --vary gravity=1..2 --splits training=2", "None-v4"),
        (f"worlds make {PENDULUM} --vary gravty=1..2 --splits training=2", "did you mean gravity"),
        (f"worlds make {PENDULUM} --vary wind=1..2 --splits training=2", "'wind' are all 0"),
        (f"worlds make {PENDULUM} --vary gravity=1..2", "expected training, too"),
        (f"worlds make {PENDULUM} --splits training=2", "nothing varies"),
        (f"worlds make {PENDULUM} --preset v1 --seed -1", "seed is -1"),
        (f"worlds make {PENDULUM} --preset v1 --splits training=2", "which it says itself"),
        (f"worlds make {PENDULUM} --preset cadm", "expected HalfCheetah"),
    ],
)
def test_what_cannot_be_made_leaves_no_file(
    line: str, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert message in refused(capsys, line, "--out", tmp_path / "worlds.json")
    assert not list(tmp_path.iterdir())


def test_nothing_else_is_replaced(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "metadata.json"
    storage.write_json(file, {"format_version": 1, "physics": []})
    before = file.read_bytes()
    assert "metadata.json" in refused(capsys, MAKE, file)
    assert file.read_bytes() == before


# --- check -----------------------------------------------------------------------------------


def test_every_world_of_a_file_is_read_back(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "worlds.json"
    said(capsys, MAKE, file)
    worlds = Worlds.load(file)
    found = said(capsys, "worlds check", file)
    for one in worlds.worlds("training"):
        assert f"{one.name} opt.gravity 0 -9.81 0 {-9.81 * one.factors['gravity']:.4g}" in found
        assert f"{one.name} actuator_gear 100 0 {100 * one.factors['actuator_gear']:.4g} 0" in found
        assert f"{one.name} body_subtreemass 15.49 {15.4906 * one.factors['mass']:.4g}" in found
    assert "in 17 worlds: each is its factors times the row at home" in found
    few = said(capsys, "worlds check", file, "--split", "combination")
    assert "in 3 worlds" in few
    assert "training-000" not in few
    one = said(capsys, "worlds check", file, "--world", "training-001")
    assert "training-001 body_mass cart" in one
    assert "training-001 body_mass pole" in one


def test_home_and_a_world_by_its_physics(capsys: pytest.CaptureFixture[str]) -> None:
    home = said(capsys, f"worlds check {PENDULUM}")
    assert "home opt.gravity 0 0 -9.81 0 0 -9.81" in home
    assert "home dof_damping slider 1 1" in home
    world = said(capsys, f"worlds check {PENDULUM} --physics gravity=2 actuator_gear=-1")
    assert "this world opt.gravity 0 0 -9.81 0 0 -19.62" in world
    assert "actuator_gear slide 100 0 0 0 0 0 -100 0 0 0 0 0" in world.replace("-0", "0")


def test_home_shows_what_a_task_has(capsys: pytest.CaptureFixture[str]) -> None:
    assert "dof_damping" in said(capsys, "worlds check Hopper-v4")
    assert "dof_damping" not in said(capsys, "worlds check Swimmer-v4")  # where all are 0


@pytest.mark.parametrize("task", ["HalfCheetah-v4", "Hopper-v4", "Walker2d-v4", "Ant-v4"])
def test_models_are_as_expected_and_nothing_else_differs(task: str) -> None:
    names = ("actuator_gear", "dof_damping", "geom_friction", "gravity", "mass", "mass:torso")
    factors = dict(zip(names, (-0.7, 1.3, 0.5, 2.0, 1.1, 1.2), strict=True))
    readings = read_back(task, [World("one", factors)])
    assert all(one.right for one in readings)
    torso = next(r for r in readings if (r.field, r.owner) == ("body_mass", "torso"))
    assert torso.here[0] == pytest.approx(1.1 * 1.2 * torso.home[0])
    assert {one.field for one in readings} == {
        *("actuator_gear", "dof_damping", "geom_friction", "opt.gravity", "body_mass"),
        *("body_inertia", "body_subtreemass"),
    }


@pytest.mark.parametrize("fault", ["another factor", "another field", "no constants"])
def test_a_world_that_is_not_as_it_says_ends_in_status_1(
    fault: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    right = PhysicsVariants.set

    def wrong(self: PhysicsVariants, ids: np.ndarray, physics: dict[str, Any]) -> None:
        if not physics:
            return
        if fault == "another factor":
            physics = {name: factors * 1.001 for name, factors in physics.items()}
        right(self, ids, physics)
        if fault == "another field":
            self._batch.expand("dof_damping")[:] *= 2
        if fault == "no constants":
            self._batch.expand("body_subtreemass")[:] = self._batch.model.body_subtreemass

    monkeypatch.setattr(PhysicsVariants, "set", wrong)
    with pytest.raises(SystemExit) as end:
        main(f"worlds check {PENDULUM} --physics mass=2".split())
    assert end.value.code == 1
    sentence = capsys.readouterr().out.strip().splitlines()[-1]
    assert "are not their factors times those at home" in sentence
    field = {
        "another factor": "body_mass of cart",
        "another field": "dof_damping of slider",
        "no constants": "body_subtreemass of all bodies",
    }[fault]
    assert f"the first of them {field} in this world" in sentence


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("worlds check none.json", "there is no none.json"),
        ("worlds show none", "there is no none"),
        (f"worlds check {PENDULUM} --split training", "a split or a world of the task"),
        (f"worlds check {PENDULUM} --physics gravity=-1", "have the factor -1.0"),
        ("worlds check Pendulum-v1", "does not run on mujoco.batch"),
        ("worlds check Pendulum-v1 --physics gravity=2", "does not run on mujoco.batch"),
        ("worlds check None-v1", "None-v1"),
    ],
)
def test_what_cannot_be_shown_is_explained(
    line: str, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert message in refused(capsys, line)


def test_what_a_file_does_not_hold_is_explained(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "worlds.json"
    Worlds.from_factors(PENDULUM, {"training": [{"gravity": 2.0}]}).save(file)
    assert "did you mean training?" in refused(capsys, "worlds show", file, "--split", "trainin")
    assert "no world 'x'" in refused(capsys, "worlds check", file, "--world", "x")
    both = refused(capsys, "worlds check", file, "--physics", "gravity=2")
    assert "both the file" in both
    Worlds.from_factors("Pendulum-v1", {"training": [{"gravity": 2.0}]}).save(file)
    assert "mujoco.batch" in refused(capsys, "worlds check", file)


@pytest.mark.parametrize("task", [PENDULUM, "Unheard-v0"])
def test_a_file_imports_no_module_without_a_word(
    task: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "planted_worlds.py").write_text("raise SystemError('imported')")
    monkeypatch.syspath_prepend(tmp_path)
    file = tmp_path / "worlds.json"
    Worlds.from_factors(f"planted_worlds:{task}", {"training": [{"gravity": 2.0}]}).save(file)
    said(capsys, "worlds show", file)
    if task == PENDULUM:  # is registered, whatever the module
        assert "-19.62" in said(capsys, "worlds check", file)
    else:
        assert "--trust-module planted_worlds" in refused(capsys, "worlds check", file)
    trusting = refused(capsys, "worlds check", file, "--trust-module", "planted_worlds")
    assert "imported" in trusting


def test_readings_are_of_the_same_names() -> None:
    with pytest.raises(TiplError, match="no physics 'gravty'"):
        read_back(PENDULUM, [World("one", {"gravty": 2.0})])
