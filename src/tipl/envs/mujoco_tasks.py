"""The tasks that run on `mujoco.batch`, one entry each: physics, camera and budget.

Each `MujocoTask` here puts together, from `tipl.envs.mujoco_functions`, one of Gymnasium's
environments (`gymnasium/envs/mujoco`) with its default settings, so that
`tipl.envs.BatchedMujocoEnv` is bit-identical to it. Another task is another entry: here, or by
`tipl.envs.register_task` from a file of your own.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Float64

from tipl.core.trust import import_trusted, split_id
from tipl.envs import mujoco_functions as f
from tipl.envs.mujoco_functions import Fields, Flags, Reward, Rngs, StepResult


class View(NamedTuple):
    """Where the camera of a task stands: to the side, and it turns with nothing."""

    height: float
    """of the point that it looks at, in metres"""
    distance: float
    """from that point, in metres"""
    elevation: float = -8.0
    """in degrees; -90 looks straight down"""
    follows: str | None = None
    """the body beside whose centre of mass, with all that hangs on it, the camera moves"""


class Budget(NamedTuple):
    """What comparisons spend on a task: PPO trials that end well, and as few as show it."""

    num_trials: int = 64
    """PPO trials with independent initial networks"""
    total_steps: int = 200_704
    """environment steps of each"""
    checkpoint_interval: int = 1
    """PPO iterations between checkpoints"""


_USUAL_BUDGET = Budget()


@dataclass(frozen=True)
class MujocoTask:
    """One MuJoCo task: its model, five functions over all simulations, its camera and budget."""

    xml_file: str | Path
    """the model: in Gymnasium's `envs/mujoco/assets`, or any other file"""
    frame_skip: int
    """simulation steps in one environment step"""
    observe: Callable[[Fields], Float64[np.ndarray, "E O"]]
    """in new memory"""
    terminate: Callable[[StepResult], Flags]
    """which episodes a step has ended, `[E]`"""
    reward: Reward
    """from a step and its terminations to the rewards `[E]`"""
    draw_states: Callable[[Rngs, np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]
    """from n simulations' generators and the model's initial (qpos, qvel) to the (qpos, qvel) that
    their next episodes start in, `[n, nq]` and `[n, nv]`; each draws in Gymnasium's order"""
    position: Callable[[Fields], Float64[np.ndarray, "E ..."]] = f.first_joint
    """what the reward measures movement by, read before and after each step"""
    derived: tuple[str, ...] = ()
    """the MjData fields that the functions read beside qpos and qvel. As in Gymnasium, they are
    what the last simulation step left: `xpos`, say, is of before its end; `cfrc_ext` is 0 at
    first"""
    max_episode_steps: int | None = None
    """until an episode is truncated; None: as registered"""
    view: View | None = None
    """None looks at the first body from as far as the model is large"""
    budget: Budget = _USUAL_BUDGET
    """of comparisons"""

    @property
    def xml_path(self) -> Path:
        """The file of the model."""
        import gymnasium  # late: a task's budget is asked for where nothing is simulated

        return Path(gymnasium.__file__).parent / "envs" / "mujoco" / "assets" / self.xml_file


_AROUND = partial(f.draw_uniform, scale=0.1, normal_velocities=True)

_PENDULUM = MujocoTask(
    xml_file="inverted_pendulum.xml",
    frame_skip=2,
    observe=f.observe_all,
    terminate=f.pole_fell,
    reward=f.one,
    draw_states=partial(f.draw_uniform, scale=0.01),
    view=View(0.25, 1.9),
    budget=Budget(128, 61_440),
)

_HALF_CHEETAH = MujocoTask(
    xml_file="half_cheetah.xml",
    frame_skip=5,
    observe=partial(f.observe_all, skip=1),
    terminate=f.never,
    reward=partial(f.run_forward, control_weight=0.1),
    draw_states=_AROUND,
    view=View(0.5, 2.3, follows="torso"),
    budget=Budget(64, 1_000_000, checkpoint_interval=8),
)

_DOUBLE_PENDULUM = MujocoTask(
    xml_file="inverted_double_pendulum.xml",
    frame_skip=5,
    observe=partial(f.observe_double_pendulum, num_forces=3),
    terminate=f.double_pole_fell,
    reward=partial(f.balance, alive=f.one),
    draw_states=_AROUND,
    derived=("site_xpos", "qfrc_constraint"),
    view=View(0.5, 3.0),
)

_HOPPER = MujocoTask(
    xml_file="hopper.xml",
    frame_skip=4,
    observe=partial(f.observe_all, skip=1, limit=10.0),
    terminate=partial(f.fell, low=0.7, high=np.inf, lean=0.2, largest=100.0),
    reward=partial(f.run_upright, alive=f.one, control_weight=1e-3),
    draw_states=partial(f.draw_uniform, scale=5e-3),
    view=View(0.7, 3.0, follows="torso"),
)

_WALKER = replace(
    _HOPPER,
    xml_file="walker2d.xml",
    terminate=partial(f.fell, low=0.8, high=2.0, lean=1.0),
    view=View(0.75, 3.2, follows="torso"),
)

_RUN_UNLESS_FALLEN = partial(f.run_upright, alive=f.one_unless_terminated, control_weight=1e-3)

_SWIMMER = MujocoTask(
    xml_file="swimmer.xml",
    frame_skip=4,
    observe=partial(f.observe_all, skip=2),
    terminate=f.never,
    reward=partial(f.run_forward, control_weight=1e-4),
    draw_states=partial(f.draw_uniform, scale=0.1),
    view=View(0.0, 3.6, -40, follows="torso"),
)

_REACHER = MujocoTask(
    xml_file="reacher.xml",
    frame_skip=2,
    observe=partial(f.observe_reacher, num_distances=3),
    terminate=f.never,
    reward=partial(f.reach, begun=True),
    draw_states=f.draw_reacher,
    position=f.from_target_to_fingertip,
    derived=("xpos",),
    view=View(0.0, 0.8, -60),
)

_ANT = MujocoTask(
    xml_file="ant.xml",
    frame_skip=5,
    observe=partial(f.observe_all, skip=2),
    terminate=f.ant_fell,
    reward=partial(f.run_upright, alive=f.one, control_weight=0.5),
    draw_states=_AROUND,
    position=f.torso_x,
    derived=("xpos",),
    view=View(0.4, 5.0, -25, follows="torso"),
)

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
        _REACHER,
        observe=partial(f.observe_reacher, num_distances=2),
        reward=partial(f.reach, begun=False),
    ),
    "Ant-v4": _ANT,
    "Ant-v5": replace(
        _ANT, observe=f.observe_contacts, reward=f.run_softly, derived=("xpos", "cfrc_ext")
    ),
}
"""The tasks that `tipl.envs.BatchedMujocoEnv` runs, by Gymnasium id."""


def find_mujoco_task(env_id: str) -> MujocoTask | None:
    """The entry of a task; None if it has none, and Gymnasium runs it.

    Args:
        env_id: an id, or `"module:id"` of a module that has registered it.
    """
    return MUJOCO_TASKS.get(split_id(env_id)[1])


def task_budget(env_id: str) -> Budget:
    """What comparisons spend on a task; of one without an entry 64 trials of 200,704 steps.

    Of `"module:id"` the module is imported, if it is trusted (`tipl.trust`).
    """
    with contextlib.suppress(Exception):  # `registered_spec` explains it
        import_trusted(env_id)
    task = find_mujoco_task(env_id)
    return _USUAL_BUDGET if task is None else task.budget
