"""What Gymnasium's MuJoCo tasks observe, end at, reward and start from, for E simulations at once.

Each function restates a method of one or more of Gymnasium's environments down to the order of its
floating-point operations; `tipl.envs.mujoco_tasks` puts them together.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from jaxtyping import Bool, Float, Float64

Fields: TypeAlias = Mapping[str, np.ndarray]
"""MjData fields by name, each a live array over all simulations, `[E, ...]`."""

Values: TypeAlias = Float64[np.ndarray, " E"]
Flags: TypeAlias = Bool[np.ndarray, " E"]


@dataclass(frozen=True)
class StepResult:
    """One step of all simulations, as rewards and terminations are computed from it."""

    actions: Float[np.ndarray, "E A"]
    """in the precision that they came in"""
    position_before: Float64[np.ndarray, "E ..."]
    """what `MujocoTask.position` read before the step"""
    position_after: Float64[np.ndarray, "E ..."]
    """and after it"""
    observations: Float64[np.ndarray, "E O"]
    """after the step"""
    fields: Fields
    """after the step"""
    dt: float
    """simulated seconds that the step took"""


# Positions, by which rewards measure movement


def first_joint(fields: Fields) -> Values:
    """Returns the position of the first joint: of most bodies, x."""
    return fields["qpos"][:, 0]


def torso_x(fields: Fields) -> Values:
    """Returns x of the first body after the world."""
    return fields["xpos"][:, 1, 0]


def from_target_to_fingertip(fields: Fields) -> Float64[np.ndarray, "E 3"]:
    """Returns the vector from Reacher's target to its fingertip."""
    return np.asarray(fields["xpos"][:, 3] - fields["xpos"][:, 4])


# Observations

Observations: TypeAlias = Float64[np.ndarray, "E O"]


def observe_all(fields: Fields, skip: int = 0, limit: float | None = None) -> Observations:
    """Observes all velocities, to a limit, and all positions but `skip`, of where the body is."""
    velocities = fields["qvel"] if limit is None else np.clip(fields["qvel"], -limit, limit)
    return np.concatenate([fields["qpos"][:, skip:], velocities], axis=1)


def observe_double_pendulum(fields: Fields, num_forces: int) -> Observations:
    """Observes the cart, the poles' angles, the velocities and the first constraint forces."""
    angles = fields["qpos"][:, 1:].copy()  # contiguous, as Gymnasium takes their sines
    velocities = np.clip(fields["qvel"], -10, 10)
    forces = np.clip(fields["qfrc_constraint"][:, :num_forces], -10, 10)
    parts = [fields["qpos"][:, :1], np.sin(angles), np.cos(angles), velocities, forces]
    return np.concatenate(parts, axis=1)


def observe_reacher(fields: Fields, num_distances: int) -> Observations:
    """Observes the arm, the target and the first coordinates of the vector between the two."""
    angles = fields["qpos"][:, :2].copy()  # contiguous, as above
    target, velocities = fields["qpos"][:, 2:], fields["qvel"][:, :2]
    distances = from_target_to_fingertip(fields)[:, :num_distances]
    parts = [np.cos(angles), np.sin(angles), target, velocities, distances]
    return np.concatenate(parts, axis=1)


def observe_contacts(fields: Fields) -> Observations:
    """Observes all but x and y, and the contact forces on all bodies but the world."""
    forces = _clipped_contact_forces(fields)[:, 1:].reshape(len(fields["cfrc_ext"]), -1)
    return np.concatenate([observe_all(fields, skip=2), forces], axis=1)


def _clipped_contact_forces(fields: Fields) -> Float64[np.ndarray, "E nbody 6"]:
    return np.clip(fields["cfrc_ext"], -1.0, 1.0)


# Terminations. A comparison with NaN is false: what is not a number is not between its bounds.


def never(step: StepResult) -> Flags:
    """Ends no episode."""
    return np.zeros(len(step.actions), dtype=np.bool_)


def pole_fell(step: StepResult) -> Flags:
    """Ends an episode when the pole leans by more than 0.2 rad."""
    finite = np.isfinite(step.observations).all(axis=1)
    return np.asarray(~finite | (np.abs(step.observations[:, 1]) > 0.2))


def double_pole_fell(step: StepResult) -> Flags:
    """Ends an episode when the tip is no higher than 1 m."""
    return np.asarray(step.fields["site_xpos"][:, 0, 2] <= 1)


def fell(
    step: StepResult, *, low: float, high: float, lean: float, largest: float | None = None
) -> Flags:
    """Ends an episode when the torso is low, high, or leans; or any value but x is too large."""
    qpos, qvel = step.fields["qpos"], step.fields["qvel"]
    healthy = (low < qpos[:, 1]) & (qpos[:, 1] < high) & (np.abs(qpos[:, 2]) < lean)
    if largest is not None:
        healthy &= (np.abs(qpos[:, 2:]) < largest).all(axis=1)
        healthy &= (np.abs(qvel) < largest).all(axis=1)
    return np.asarray(~healthy)


def ant_fell(step: StepResult) -> Flags:
    """Ends an episode when the torso is low or high, or any value is not finite."""
    finite = np.isfinite(observe_all(step.fields)).all(axis=1)
    height = step.fields["qpos"][:, 2]
    return np.asarray(~(finite & (height >= 0.2) & (height <= 1.0)))


# Rewards

Reward: TypeAlias = Callable[[StepResult, Flags], Values]


def one(step: StepResult, terminated: Flags) -> Values:
    """Pays 1 for each step, the failing one included."""
    return np.ones(len(terminated))


def one_unless_terminated(step: StepResult, terminated: Flags) -> Values:
    """Pays 1 for each step but the failing one."""
    return np.where(terminated, 0.0, 1.0)


def balance(step: StepResult, terminated: Flags, *, alive: Reward) -> Values:
    """Pays ten times `alive`, less the tip's distance from its highest point and the speed."""
    x, y = step.fields["site_xpos"][:, 0, 0], step.fields["site_xpos"][:, 0, 2]
    v1, v2 = step.fields["qvel"][:, 1], step.fields["qvel"][:, 2]
    # Gymnasium squares single numbers: by pow, whose last bit is not always that of x * x.
    distance_penalty = 0.01 * np.float_power(x, 2) + np.float_power(y - 2, 2)
    velocity_penalty = 1e-3 * np.float_power(v1, 2) + 5e-3 * np.float_power(v2, 2)
    return np.asarray(10.0 * alive(step, terminated) - distance_penalty - velocity_penalty)


def run_forward(step: StepResult, terminated: Flags, *, control_weight: float) -> Values:
    """Pays the speed, less the weighted cost of the action."""
    return np.asarray(_forward_velocity(step) - _control_cost(step, control_weight))


def run_upright(
    step: StepResult, terminated: Flags, *, alive: Reward, control_weight: float
) -> Values:
    """Pays the speed and `alive`, less the weighted cost of the action."""
    gain = _forward_velocity(step) + alive(step, terminated)
    return np.asarray(gain - _control_cost(step, control_weight))


def run_softly(step: StepResult, terminated: Flags) -> Values:
    """Pays as `run_upright`, less a cost of the contact forces (the world's included)."""
    forces = _clipped_contact_forces(step.fields)
    contact_cost = 5e-4 * np.square(forces).reshape(len(forces), -1).sum(axis=1)
    gain = _forward_velocity(step) + one_unless_terminated(step, terminated)
    return np.asarray(gain - (_control_cost(step, 0.5) + contact_cost))


def reach(step: StepResult, terminated: Flags, *, begun: bool) -> Values:
    """Costs the distance from the target where the step began or where it ended, and the action."""
    vectors = step.position_before if begun else step.position_after
    # np.linalg.norm takes the dot product of one vector, but sums the squares of many otherwise.
    distance = np.sqrt(np.vecdot(vectors, vectors))
    return np.asarray(-distance - _control_cost(step, 1.0))


def _forward_velocity(step: StepResult) -> Values:
    return np.asarray((step.position_after - step.position_before) / step.dt)


def _control_cost(step: StepResult, weight: float) -> Float[np.ndarray, " E"]:
    # In the actions' own precision: Gymnasium's cost of a float32 action is a float32.
    return np.asarray(weight * np.square(step.actions).sum(axis=1))


# First states of episodes: n generators and the model's (qpos, qvel) give n of them

Rngs: TypeAlias = Sequence[np.random.Generator]
Positions: TypeAlias = Float64[np.ndarray, "... nq"]
Velocities: TypeAlias = Float64[np.ndarray, "... nv"]


def draw_uniform(
    rngs: Rngs, qpos: Positions, qvel: Velocities, *, scale: float, normal_velocities: bool = False
) -> tuple[Positions, Velocities]:
    """Starts around the model's state: off by at most `scale`, or in velocities normally by it."""
    noise = np.empty((len(rngs), qpos.size + qvel.size))
    # One draw of all values takes the same numbers from a generator as one for each part.
    uniform = qpos.size if normal_velocities else noise.shape[1]
    for row, rng in zip(noise, rngs, strict=True):
        row[:uniform] = rng.uniform(-scale, scale, uniform)
        if normal_velocities:
            row[uniform:] = scale * rng.standard_normal(qvel.size)
    return qpos + noise[:, : qpos.size], qvel + noise[:, qpos.size :]


def draw_reacher(rngs: Rngs, qpos: Positions, qvel: Velocities) -> tuple[Positions, Velocities]:
    """Starts with the arm around the model's state and the target at rest within 0.2 m."""
    starts, velocities = np.tile(qpos, (len(rngs), 1)), np.tile(qvel, (len(rngs), 1))
    for i, rng in enumerate(rngs):
        starts[i] += rng.uniform(low=-0.1, high=0.1, size=qpos.size)
        starts[i, -2:] = _draw_goal(rng)
        velocities[i] += rng.uniform(low=-0.005, high=0.005, size=qvel.size)
    velocities[:, -2:] = 0
    return starts, velocities


def _draw_goal(rng: np.random.Generator) -> Float64[np.ndarray, " 2"]:
    while True:
        goal = rng.uniform(low=-0.2, high=0.2, size=2)
        if np.linalg.norm(goal) < 0.2:
            return goal
