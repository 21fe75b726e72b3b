"""The MuJoCo tasks as Gymnasium defines them, written for many simulations at once.

Each :class:`MujocoTask` restates one of Gymnasium's environments (``gymnasium/envs/mujoco``) down
to the order of its floating-point operations, so that :class:`tipl.envs.BatchedMujocoEnv` is
bit-identical to it. Another task is another entry of :data:`MUJOCO_TASKS`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from jaxtyping import Bool, Float, Float64

__all__ = ["MUJOCO_TASKS", "Fields", "MujocoTask", "StepResult"]

#: MjData fields by name, each a live array over all simulations, [E, ...].
Fields: TypeAlias = Mapping[str, np.ndarray]


@dataclass(frozen=True)
class StepResult:
    """One step of all simulations, as rewards and terminations are computed from it.

    Attributes:
        actions: The actions taken, in the precision they came in, [E, A].
        position_before: What :attr:`MujocoTask.position` read before the step.
        position_after: What it read after the step.
        observations: The observations after the step, [E, O].
        dt: Simulated seconds that the step took.
    """

    actions: Float[np.ndarray, "E A"]
    position_before: Float64[np.ndarray, "E ..."]
    position_after: Float64[np.ndarray, "E ..."]
    observations: Float64[np.ndarray, "E O"]
    dt: float


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
        fields: The MjData fields that the functions read. Derived ones (``xpos``, ...) are, as in
            Gymnasium, those of the last simulation step's start.
    """

    xml_file: str
    frame_skip: int
    observe: Callable[[Fields], Float64[np.ndarray, "E O"]]
    terminate: Callable[[StepResult], Bool[np.ndarray, " E"]]
    reward: Callable[[StepResult, Bool[np.ndarray, " E"]], Float64[np.ndarray, " E"]]
    draw_states: Callable[
        [Sequence[np.random.Generator], np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]
    ]
    position: Callable[[Fields], Float64[np.ndarray, "E ..."]] = lambda fields: fields["qpos"][:, 0]
    fields: tuple[str, ...] = ("qpos", "qvel")


def _observe_all(fields: Fields) -> np.ndarray:
    return np.concatenate([fields["qpos"], fields["qvel"]], axis=1)


def _observe_all_but_x(fields: Fields) -> np.ndarray:
    return np.concatenate([fields["qpos"][:, 1:], fields["qvel"]], axis=1)


def _never(step: StepResult) -> np.ndarray:
    return np.zeros(len(step.actions), dtype=np.bool_)


def _pole_fell(step: StepResult) -> np.ndarray:
    finite = np.isfinite(step.observations).all(axis=1)
    fell: np.ndarray = ~finite | (np.abs(step.observations[:, 1]) > 0.2)
    return fell


def _one(step: StepResult, terminated: np.ndarray) -> np.ndarray:
    return np.ones(len(terminated))


def _one_unless_terminated(step: StepResult, terminated: np.ndarray) -> np.ndarray:
    return np.where(terminated, 0.0, 1.0)


def _run_forward(step: StepResult, terminated: np.ndarray) -> np.ndarray:
    x_velocity = (step.position_after - step.position_before) / step.dt
    # In the actions' own precision: Gymnasium's cost of a float32 action is a float32.
    control_cost = 0.1 * np.square(step.actions).sum(axis=1)
    reward: np.ndarray = x_velocity - control_cost
    return reward


def _draw_pendulum(
    rngs: Sequence[np.random.Generator], qpos: np.ndarray, qvel: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    # One draw of all values takes the same numbers from a generator as one for each part.
    size = qpos.size + qvel.size
    noise = np.array([rng.uniform(low=-0.01, high=0.01, size=size) for rng in rngs])
    return qpos + noise[:, : qpos.size], qvel + noise[:, qpos.size :]


def _draw_half_cheetah(
    rngs: Sequence[np.random.Generator], qpos: np.ndarray, qvel: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    qpos_noise, qvel_noise = np.empty((len(rngs), qpos.size)), np.empty((len(rngs), qvel.size))
    for i, rng in enumerate(rngs):
        qpos_noise[i] = rng.uniform(low=-0.1, high=0.1, size=qpos.size)
        qvel_noise[i] = rng.standard_normal(qvel.size)
    return qpos + qpos_noise, qvel + 0.1 * qvel_noise


def _pendulum(reward: Callable[[StepResult, np.ndarray], np.ndarray]) -> MujocoTask:
    return MujocoTask(
        xml_file="inverted_pendulum.xml",
        frame_skip=2,
        observe=_observe_all,
        terminate=_pole_fell,
        reward=reward,
        draw_states=_draw_pendulum,
    )


_HALF_CHEETAH = MujocoTask(
    xml_file="half_cheetah.xml",
    frame_skip=5,
    observe=_observe_all_but_x,
    terminate=_never,
    reward=_run_forward,
    draw_states=_draw_half_cheetah,
)

#: The tasks that :class:`tipl.envs.BatchedMujocoEnv` runs, by Gymnasium id.
MUJOCO_TASKS: dict[str, MujocoTask] = {
    "InvertedPendulum-v4": _pendulum(reward=_one),  # pays +1 on the failing step too
    "InvertedPendulum-v5": _pendulum(reward=_one_unless_terminated),
    "HalfCheetah-v4": _HALF_CHEETAH,
    "HalfCheetah-v5": _HALF_CHEETAH,  # differs from v4 in its info alone
}
