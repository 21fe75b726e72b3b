"""The MuJoCo tasks as Gymnasium defines them, written for many simulations at once.

Each :class:`MujocoTask` puts together, from :mod:`tipl.envs.mujoco_functions`, one of Gymnasium's
environments (``gymnasium/envs/mujoco``) with its default settings, so that
:class:`tipl.envs.BatchedMujocoEnv` is bit-identical to it. Another task is another entry of
:data:`MUJOCO_TASKS`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import gymnasium
import numpy as np
from jaxtyping import Bool, Float64

from tipl.envs import mujoco_functions as f
from tipl.envs.mujoco_functions import Fields, StepResult

__all__ = ["MUJOCO_TASKS", "Fields", "MujocoTask", "StepResult"]


@dataclass(frozen=True)
class MujocoTask:
    """One Gymnasium MuJoCo environment: its model and five functions over all simulations.

    Attributes:
        xml_file: The model, in Gymnasium's ``envs/mujoco/assets``.
        frame_skip: Simulation steps in one environment step.
        observe: From the fields to the observations, [E, O], in new memory.
        terminate: Which episodes a step has ended, [E].
        reward: From a step and its terminations to the rewards, [E].
        draw_states: From n simulations' generators and the model's initial (qpos, qvel) to the
            (qpos, qvel) that their next episodes start in, [n, nq] and [n, nv]; each generator
            draws in Gymnasium's order.
        position: What the reward measures movement by, read before and after each step.
        derived: The MjData fields that the functions read beside qpos and qvel. As in Gymnasium,
            they are what the last simulation step left: ``xpos``, say, is of before its end, and
            ``cfrc_ext`` is 0 until the first step.
    """

    xml_file: str
    frame_skip: int
    observe: Callable[[Fields], Float64[np.ndarray, "E O"]]
    terminate: Callable[[StepResult], Bool[np.ndarray, " E"]]
    reward: Callable[[StepResult, Bool[np.ndarray, " E"]], Float64[np.ndarray, " E"]]
    draw_states: Callable[
        [Sequence[np.random.Generator], np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]
    ]
    position: Callable[[Fields], Float64[np.ndarray, "E ..."]] = f.first_joint
    derived: tuple[str, ...] = ()

    @property
    def xml_path(self) -> Path:
        """The file of the model."""
        return Path(gymnasium.__file__).parent / "envs" / "mujoco" / "assets" / self.xml_file


_PENDULUM = MujocoTask(
    xml_file="inverted_pendulum.xml",
    frame_skip=2,
    observe=f.observe_all,
    terminate=f.pole_fell,
    reward=f.one,
    draw_states=partial(f.draw_uniform, scale=0.01),
)

_HALF_CHEETAH = MujocoTask(
    xml_file="half_cheetah.xml",
    frame_skip=5,
    observe=partial(f.observe_all, skip=1),
    terminate=f.never,
    reward=partial(f.run_forward, control_weight=0.1),
    draw_states=f.draw_uniform_and_normal,
)

_DOUBLE_PENDULUM = MujocoTask(
    xml_file="inverted_double_pendulum.xml",
    frame_skip=5,
    observe=partial(f.observe_double_pendulum, num_forces=3),
    terminate=f.double_pole_fell,
    reward=partial(f.balance, alive=f.one),
    draw_states=f.draw_uniform_and_normal,
    derived=("site_xpos", "qfrc_constraint"),
)

_HOPPER = MujocoTask(
    xml_file="hopper.xml",
    frame_skip=4,
    observe=f.observe_clipped,
    terminate=f.hopper_fell,
    reward=partial(f.run_upright, alive=f.one, control_weight=1e-3),
    draw_states=partial(f.draw_uniform, scale=5e-3),
)

_WALKER = replace(_HOPPER, xml_file="walker2d.xml", terminate=f.walker_fell)

_RUN_UNLESS_FALLEN = partial(f.run_upright, alive=f.one_unless_terminated, control_weight=1e-3)

_SWIMMER = MujocoTask(
    xml_file="swimmer.xml",
    frame_skip=4,
    observe=partial(f.observe_all, skip=2),
    terminate=f.never,
    reward=partial(f.run_forward, control_weight=1e-4),
    draw_states=partial(f.draw_uniform, scale=0.1),
)

_REACHER = MujocoTask(
    xml_file="reacher.xml",
    frame_skip=2,
    observe=partial(f.observe_reacher, num_distances=3),
    terminate=f.never,
    reward=f.reach_before,
    draw_states=f.draw_reacher,
    position=f.from_target_to_fingertip,
    derived=("xpos",),
)

_ANT = MujocoTask(
    xml_file="ant.xml",
    frame_skip=5,
    observe=partial(f.observe_all, skip=2),
    terminate=f.ant_fell,
    reward=partial(f.run_upright, alive=f.one, control_weight=0.5),
    draw_states=f.draw_uniform_and_normal,
    position=f.torso_x,
    derived=("xpos",),
)

#: The tasks that :class:`tipl.envs.BatchedMujocoEnv` runs, by Gymnasium id.
MUJOCO_TASKS: dict[str, MujocoTask] = {
    "InvertedPendulum-v4": _PENDULUM,  # pays +1 on the failing step too
    "InvertedPendulum-v5": replace(_PENDULUM, reward=f.one_unless_terminated),
    "HalfCheetah-v4": _HALF_CHEETAH,
    "HalfCheetah-v5": _HALF_CHEETAH,  # differs from v4 in its info alone
    "InvertedDoublePendulum-v4": _DOUBLE_PENDULUM,
    "InvertedDoublePendulum-v5": replace(
        _DOUBLE_PENDULUM,
        observe=partial(f.observe_double_pendulum, num_forces=1),  # the others are always 0
        reward=partial(f.balance, alive=f.one_unless_terminated),
    ),
    "Hopper-v4": _HOPPER,
    "Hopper-v5": replace(_HOPPER, reward=_RUN_UNLESS_FALLEN),
    "Walker2d-v4": _WALKER,
    "Walker2d-v5": replace(_WALKER, xml_file="walker2d_v5.xml", reward=_RUN_UNLESS_FALLEN),
    "Swimmer-v4": _SWIMMER,
    "Swimmer-v5": _SWIMMER,
    "Reacher-v4": _REACHER,
    "Reacher-v5": replace(
        _REACHER, observe=partial(f.observe_reacher, num_distances=2), reward=f.reach_after
    ),
    "Ant-v4": _ANT,
    "Ant-v5": replace(
        _ANT, observe=f.observe_contacts, reward=f.run_softly, derived=("xpos", "cfrc_ext")
    ),
}
