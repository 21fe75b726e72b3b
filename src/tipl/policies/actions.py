"""How policies act, in plain NumPy: a network's outputs, and the actions made of them."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from jaxtyping import Float, Int, Shaped

from tipl.core.arrays import Array
from tipl.policies.layout import layer_names
from tipl.policies.tasks import TaskSpec

__all__ = ["best_actions", "executable", "mlp_outputs"]


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


def mlp_outputs(
    arrays: Mapping[str, Array], prefix: str, inputs: Float[np.ndarray, "B in"]
) -> Float[np.ndarray, "B out"]:
    """What a tanh MLP with a linear output makes of a batch.

    `tipl.ppo.networks` runs many networks at once, and backwards, by compiled kernels.

    Args:
        arrays: of `ParamLayout.unflatten(params [P])`.
        prefix: of the network's names in them.
        inputs: float32.
    """
    *hidden, last = layer_names(arrays, prefix)
    for weight, bias in hidden:
        inputs = np.tanh(inputs @ arrays[weight].T + arrays[bias])
    weight, bias = last
    outputs: Array = inputs @ arrays[weight].T + arrays[bias]
    return outputs
