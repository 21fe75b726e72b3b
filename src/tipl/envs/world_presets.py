"""Worlds that have a name: tipl's own protocol, and those that the literature compares on."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import combinations
from typing import Any, Literal, NamedTuple

from tipl.core.options import one_of
from tipl.envs.world_drawing import (
    Box,
    Choice,
    Plan,
    Recipe,
    draw_worlds,
    parse_beyond,
    parse_choices,
    parse_corner,
)
from tipl.envs.worlds import Worlds
from tipl.errors import TiplError, shown

Preset = Literal["v1", "cadm", "inversion", "flip"]

HOME_FACTORS = ("gravity", "mass", "dof_damping", "actuator_gear", "geom_friction")
"""Of version 1 of the protocol, and what is shown of home."""

_HELD_OUT = {"interpolation": 24, "combination": 24, "extrapolation": 24}


class _Made(NamedTuple):
    """What worlds are drawn from, and what the file says of it."""

    plans: Mapping[str, Plan]
    said: Mapping[str, Any]
    corner: Sequence[Any] = ()


def _v1(env_id: str) -> _Made:
    """Five factors in one box without a corner; beyond it, one at a time."""
    usual = {name: Choice((0.6, 1.6), exact=False) for name in HOME_FACTORS}
    vary = usual | {"actuator_gear": Choice((0.6, 1.5), exact=False)}
    beyond = parse_beyond(["0.4..0.6", "1.6..2.2"])
    if env_id.startswith("InvertedPendulum"):  # which does not notice half or double of anything
        vary = dict.fromkeys(HOME_FACTORS, Choice((0.25, 4.0), exact=False))
        beyond = parse_beyond(["0.125..0.25", "4..8"])
    corner = parse_corner(["actuator_gear<0.8", "mass>1.25"])
    recipe = Recipe(vary, {"training": 256, **_HELD_OUT}, corner, beyond)
    return _Made(recipe.plans(), recipe.said(), corner)


def _cadm(env_id: str) -> _Made:
    """Masses, without inertias, and damping, as in CaDM (Lee et al., ICML 2020)."""
    few = "0.75,0.85,1,1.15,1.25"
    training = parse_choices([f"body_mass={few}", f"dof_damping={few}"])
    bands = {"moderate": ["0.4..0.5", "1.5..1.6"], "extreme": ["0.2..0.3", "1.7..1.8"]}
    tests = {
        split: Plan(24, [dict.fromkeys(training, band) for band in parse_beyond(both)])
        for split, both in bands.items()
    }
    return _Made({"training": Plan(25, [training]), **tests}, {"training": few, **bands})


def _inversion(env_id: str) -> _Made:
    """Gravity and the strength of motors, all of which may be reversed."""
    gravity = "gravity=0.5..1.5"
    signs = [parse_choices([gravity, f"actuator_gear={one}"]) for one in ("0.5..1.5", "-1.5..-0.5")]
    strengths = {  # beyond those of training, of one factor after the other
        "gravity": ["0.1..0.5", "1.5..2"],
        "actuator_gear": ["0.1..0.5", "1.5..2", "-0.5..-0.1", "-2..-1.5"],
    }
    further: list[Box] = []
    for name, ranges in strengths.items():
        for one in ranges:
            changed = parse_choices([f"{name}={one}"])
            reversed_ = name == "actuator_gear" and one.startswith("-")
            boxes = signs if name == "gravity" else signs[int(reversed_) :][:1]
            further += [{**box, **changed} for box in boxes]
    plans = {
        "training": Plan(256, signs),
        "interpolation": Plan(24, signs),
        "extrapolation": Plan(24, further),
    }
    said = {"gravity": "0.5..1.5", "actuator_gear": ["0.5..1.5", "-1.5..-0.5"], "beyond": strengths}
    return _Made(plans, said)


def _flip(env_id: str) -> _Made:
    """Each motor reversed alone, to learn from, and home; any two of them reversed, to test on."""
    motors = [f"actuator_gear:{name}" for name in _motors(env_id)]
    home: Box = dict.fromkeys(motors, Choice((1.0,), exact=True))
    back = Choice((-1.0,), exact=True)
    alone = [home, *({**home, motor: back} for motor in motors)]
    pairs = [{**home, one: back, other: back} for one, other in combinations(motors, 2)]
    plans = {"training": Plan(len(alone), alone)}
    if pairs:
        plans["combination"] = Plan(len(pairs), pairs)
    return _Made(plans, {"reversed": motors})


def _motors(env_id: str) -> list[str]:
    """The names of a task's motors."""
    from tipl.envs.batched_mujoco import BatchedMujocoEnv  # late: it brings MuJoCo
    from tipl.envs.physics import object_names

    motors = object_names(BatchedMujocoEnv(env_id, 1).model(0), "actuator")
    if not all(motors) or len({*motors}) < len(motors):
        raise TiplError(
            f"the motors of {shown(env_id)} are {motors}; expected a name of its own for each, of "
            "itself or of its joint"
        )
    return motors


_PRESETS: dict[str, tuple[Callable[[str], _Made], tuple[str, ...]]] = {
    "v1": (_v1, ("HalfCheetah", "Hopper", "Walker2d", "InvertedPendulum")),
    "cadm": (_cadm, ("HalfCheetah",)),
    "inversion": (_inversion, ("Hopper", "Walker2d")),
    "flip": (_flip, ()),
}
"""What each is made of, and the tasks that it is for; none: any that runs on mujoco.batch."""


def preset_worlds(
    env_id: str, preset: str, seed: int = 0, made: Mapping[str, Any] | None = None
) -> Worlds:
    """The worlds of a preset for a task.

    Args:
        env_id: Gymnasium id of the task.
        preset: `"v1"`, tipl's protocol; `"cadm"`, masses and damping of HalfCheetah as in CaDM;
            `"inversion"`, gravity and motors, which may be reversed, of Hopper and Walker2d;
            `"flip"`, each motor reversed, alone and in pairs.
        seed: equal seeds draw equal worlds.
        made: what the file also says of how they were made.

    Raises:
        TiplError: there is no such preset, or it is not for the task.
    """
    one_of(_PRESETS, preset=preset)
    plan, tasks = _PRESETS[preset]
    if tasks and env_id.rpartition(":")[2].partition("-v")[0] not in tasks:
        raise TiplError(
            f"the preset {preset} was asked for with {shown(env_id)}; expected "
            f"{' or '.join(tasks)}, of which it says something: give ranges by --vary instead"
        )
    plans, said, corner = plan(env_id)
    made = {"preset": preset, **said, **(made or {})}
    return draw_worlds(env_id, plans, corner, seed=seed, made=made)
