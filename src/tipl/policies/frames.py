"""The same network under another normaliser of its observations."""

from __future__ import annotations

from typing import Any

import numpy as np
from jaxtyping import Float

from tipl.core.arrays import Array
from tipl.errors import TiplError
from tipl.policies.layout import ParamLayout

__all__ = ["OBSERVATION_CLIP", "check_normaliser", "normalise_observations", "refolded"]

Statistics = tuple[Float[np.ndarray, " O"], Float[np.ndarray, " O"]]
"""Mean and standard deviation `[O]` of a normaliser."""


def refolded(
    params: Float[np.ndarray, "*batch P"], layout: ParamLayout, old: Statistics, new: Statistics
) -> Float[np.ndarray, "*batch P"]:
    """Weights that do under one normaliser of observations what others do under another.

    The difference is folded into the first layer: exactly, but where a normaliser clips.

    Args:
        params: flat weights.
        layout: of the weights, with a layer `actor.0`.
        old: what the observations that `params` are fed are normalised by.
        new: what the observations are normalised by that the returned weights are fed.

    Returns:
        Weights in the shape of `params`, float32.
    """
    (old_mean, old_std), (new_mean, new_std) = old, new
    folded = params.astype(np.float64)
    arrays = layout.unflatten(folded)  # views
    weight, bias = arrays["actor.0.weight"], arrays["actor.0.bias"]
    bias += weight @ ((new_mean - old_mean) / old_std)
    weight *= new_std / old_std
    return np.asarray(folded, np.float32)


def check_normaliser(mean: Array, std: Array, observation_size: int) -> None:
    """Raises a TiplError unless observations can be normalised by mean and std `[O]`."""
    for name, values in (("mean", mean), ("std", std)):
        if values.shape != (observation_size,):
            raise TiplError(
                f"observation statistics of shape {values.shape} were given as the {name}, but "
                f"there are {observation_size} observed values; give one for each"
            )
        if not np.isfinite(values).all() or (name == "std" and not (values > 0).all()):
            raise TiplError(
                f"the observations' {name} {values.tolist()} was given; expected finite numbers, "
                "and standard deviations above 0: leave out what never changes, or measure again"
            )


OBSERVATION_CLIP = 10.0
"""Normalised observations are clipped to +- this many standard deviations (CleanRL)."""


def normalise_observations(
    observations: Float[np.ndarray, "*batch O"],
    mean: Float[np.ndarray, "*#batch O"],
    std: Float[np.ndarray, "*#batch O"],
    dtype: type[np.floating[Any]] = np.float32,
) -> Float[np.ndarray, "*batch O"]:
    """`(observation - mean) / std`, clipped to +- `OBSERVATION_CLIP`: what networks are fed."""
    scaled = (observations - mean) / std
    np.clip(scaled, -OBSERVATION_CLIP, OBSERVATION_CLIP, out=scaled)
    return np.asarray(scaled, dtype)
