"""From the outputs of a policy network to actions: Gaussian or categorical ones."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float, Int, Shaped

from tipl.policies.tasks import TaskSpec

__all__ = ["best_actions", "executable"]


def best_actions(
    task: TaskSpec, outputs: Float[np.ndarray, "*batch A"]
) -> Shaped[np.ndarray, " ..."]:
    """The most likely action for each output of an actor, as the environment takes it.

    Returns:
        Of a task with continuous actions the mean action inside the action bounds,
        `[*batch, A]` float32; of one with discrete actions their numbers, `[*batch]` int64.
    """
    if task.discrete:
        return executable(task, outputs.argmax(axis=-1)[..., None])
    return executable(task, outputs)


def executable(
    task: TaskSpec, actions: Shaped[np.ndarray, "*batch A"]
) -> Shaped[np.ndarray, " ..."]:
    """Actions as the environment takes them: inside the bounds, or counted from its first one."""
    if task.first_action is not None:
        numbers: Int[np.ndarray, "*batch"] = actions[..., 0].astype(np.int64) + task.first_action
        return numbers
    return np.clip(actions.astype(np.float32), *task.action_bounds)
