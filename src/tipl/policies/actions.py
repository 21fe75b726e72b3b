"""How policies act, in plain NumPy: observations normalised, the network's outputs, and actions."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from jaxtyping import Float, Shaped

from tipl.core.arrays import Array
from tipl.errors import TiplError, shown
from tipl.policies.activations import ACTIVATIONS
from tipl.policies.layout import ParamLayout, layer_names
from tipl.policies.tasks import TaskSpec


def best_actions(
    task: TaskSpec, outputs: Float[np.ndarray, "*batch A"], squashed: bool = False
) -> Shaped[np.ndarray, " ..."]:
    """The most likely action for each output of an actor, as the environment takes it.

    That is the mean action inside the action bounds, `[*batch, A]` of the task's `action_dtype`, or
    of a task with discrete actions the number of one, `[*batch]` int64. Outputs that are `squashed`
    become actions by tanh, scaled to the bounds.
    """
    if task.discrete:
        return executable(task, outputs.argmax(axis=-1)[..., None])
    return executable(task, unsquashed(task, outputs) if squashed else outputs)


def unsquashed(
    task: TaskSpec, outputs: Float[np.ndarray, "*batch A"]
) -> Float[np.ndarray, "*batch A"]:
    """The actions that squashed outputs stand for: tanh, scaled to the action bounds."""
    low, high = (bound.astype(outputs.dtype) for bound in task.action_bounds)
    return np.asarray(low + 0.5 * (np.tanh(outputs) + 1) * (high - low))


def executable(
    task: TaskSpec, actions: Shaped[np.ndarray, "*batch A"]
) -> Shaped[np.ndarray, " ..."]:
    """Actions as elements of the environment's action space.

    They are inside its bounds and of its dtype, rounded to whole numbers where that is of integers;
    what is not a number becomes the lowest action. Discrete ones are counted from the first one.
    """
    if task.first_action is not None:
        return np.asarray(actions[..., 0].astype(np.int64) + task.first_action)
    return inside(actions, *task.action_bounds)


def inside(actions: Array, low: Array, high: Array) -> Array:
    """Actions inside the bounds of an action space and of its dtype, rounded if of integers."""
    if low.dtype.kind == "f":
        return np.asarray(np.fmin(np.fmax(actions.astype(low.dtype), low), high))
    # inside before they are cast: what is out of an integer's range would wrap around
    whole = np.fmin(np.fmax(np.rint(actions), low.astype(float)), high.astype(float))
    return np.asarray(whole, low.dtype)


def mlp_outputs(
    arrays: Mapping[str, Array],
    prefix: str,
    inputs: Float[np.ndarray, "B in"],
    activation: str = "tanh",
) -> Float[np.ndarray, "B out"]:
    """What an MLP with a linear output, named by its prefix, makes of a batch.

    `tipl.ppo.networks` runs many networks at once, and backwards, by compiled kernels.
    """
    *hidden, last = layer_names(arrays, prefix)
    for weight, bias in hidden:
        inputs = ACTIVATIONS[activation](inputs @ arrays[weight].T + arrays[bias])
    weight, bias = last
    return np.asarray(inputs @ arrays[weight].T + arrays[bias])


Statistics = tuple[Float[np.ndarray, " O"], Float[np.ndarray, " O"]]
"""Mean and standard deviation `[O]` of a normaliser."""


def refolded(
    params: Float[np.ndarray, "*batch P"], layout: ParamLayout, old: Statistics, new: Statistics
) -> Float[np.ndarray, "*batch P"]:
    """Weights that do under a new normaliser of observations what others do under the old one.

    The difference is folded into the first layer, `actor.0`: exactly, but where a normaliser clips.
    The weights are float32.
    """
    (old_mean, old_std), (new_mean, new_std) = old, new
    folded = params.astype(np.float64)
    arrays = layout.unflatten(folded)  # views
    weight, bias = arrays["actor.0.weight"], arrays["actor.0.bias"]
    bias += weight @ ((new_mean - old_mean) / old_std)
    weight *= new_std / old_std
    return np.asarray(folded, np.float32)


OBSERVATION_CLIP = 10.0
"""Normalised observations are clipped to +- this many standard deviations (CleanRL), unless a
policy comes from a run with another clip, or none."""


def checked_clip(clip: Any) -> float:
    """A clip as a number; raises a TiplError unless it is one above 0, which infinity is."""
    if isinstance(clip, bool) or not isinstance(clip, (int, float)) or not clip > 0:
        raise TiplError(
            f"the observation clip {shown(clip)} was given; expected a number above 0: of how many "
            "standard deviations normalised observations may be, or math.inf for no clip"
        )
    return float(clip)


def normalise_observations(
    observations: Float[np.ndarray, "*batch O"],
    mean: Float[np.ndarray, "*#batch O"],
    std: Float[np.ndarray, "*#batch O"],
    dtype: type[np.floating[Any]] = np.float32,
    clip: float | Float[np.ndarray, "*#batch 1"] = OBSERVATION_CLIP,
) -> Float[np.ndarray, "*batch O"]:
    """`(observation - mean) / std`, clipped to +- `clip`: what networks are fed."""
    scaled = (observations - mean) / std
    np.clip(scaled, -clip, clip, out=scaled)
    return np.asarray(scaled, dtype)
