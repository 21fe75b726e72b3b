"""The arrays of a part: what they are called, and what none of them may hold."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np

from tipl.core.arrays import Array
from tipl.errors import TiplError
from tipl.policies.factors import are_factors

PER_CHECKPOINT = ("global_step", "iteration")
"""Arrays of a part that are the same for all its trials."""

JUMP_COUNTS = ("jump_steps", "jumps", "rollbacks")
"""What is counted of trials that jump: environment steps that tests of forecasts have taken before
a checkpoint, jumps so far, and jumps that were undone so far."""


def _not_finite(array: Array) -> Array:
    return ~np.isfinite(array)


def _infinite(array: Array) -> Array:
    return np.asarray(np.isinf(array))


def _not_positive(array: Array) -> Array:
    return np.asarray(~((array > 0) & (array < np.inf)))  # NaN neither


def _negative(array: Array) -> Array:
    return np.asarray(array < 0)


_STATISTICS = {
    "params": (_not_finite, "NaN or infinite weights"),
    "observation_mean": (_not_finite, "a mean of observations that is NaN or infinite"),
    "observation_std": (_not_positive, "a standard deviation of observations that is not positive"),
}
_IMPOSSIBLE: dict[str, tuple[Callable[[Array], Array], str]] = {
    **_STATISTICS,
    "episodic_return": (_infinite, "an infinite return"),  # NaN: no episode ended
    "deterministic_return": (_infinite, "an infinite return"),
    **dict.fromkeys(("num_episodes", *JUMP_COUNTS), (_negative, "a count below 0")),
}
"""What no array of a part may hold; of `_STATISTICS` where a trial is not labelled as diverged."""


def check_values(
    path: Path,
    tensors: Mapping[str, Array],
    first_trial: int,
    first_checkpoint: int,
    physics: Sequence[str] = (),
) -> None:
    """Raises a TiplError if an array `[n, t, ...]` of a part holds what is impossible.

    Args:
        path: of the part, for the message.
        tensors: arrays of it by name, with `diverged` among them if there are weights.
        first_trial: number of the first trial in the arrays.
        first_checkpoint: number of the first checkpoint in them.
        physics: names of the V factors in `physics` `[n, t, V]`.
    """

    def no_factor(array: Array) -> Array:
        possible = [are_factors(name, array[..., v]) for v, name in enumerate(physics)]
        return ~np.stack(possible, axis=-1)  # V times [n, t] -> [n, t, V]

    kinds = _IMPOSSIBLE | {"physics": (no_factor, "an impossible factor of its physics")}
    for name in sorted(set(tensors) & set(kinds)):
        impossible, words = kinds[name]
        found = impossible(tensors[name])
        found = np.asarray(found.any(axis=tuple(range(2, found.ndim))))  # [n, t, ...] -> [n, t]
        advice = "restore the file from a copy"
        if name in _STATISTICS:
            found = found & ~tensors["diverged"]
            words += " without being labelled `diverged`"
            advice = "label such trials, or leave them out"
        if found.any():
            trial, checkpoint = np.argwhere(found)[0]
            raise TiplError(
                f"{path}: {np.count_nonzero(found)} checkpoints, the first of them checkpoint "
                f"{first_checkpoint + checkpoint} of trial {first_trial + trial}, have {words}; "
                f"{advice}"
            )
