"""What models learn from: the weights and final returns of the trials that did not diverge."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from tipl.errors import TiplError
from tipl.paths import PathDataset

__all__ = ["ReturnScale", "return_scale", "usable", "usable_params"]


def usable(paths: PathDataset) -> PathDataset:
    """The trials that did not diverge.

    Raises:
        TiplError: all trials diverged.
    """
    trials = paths.trials[~paths.diverged()]
    if len(trials) == 0:
        raise TiplError(
            f"all {paths.num_trials} trials of {paths.directory} diverged; collect paths with a "
            "smaller learning rate"
        )
    return paths.select(trials)


def usable_params(paths: PathDataset) -> Float[np.ndarray, "N T P"]:
    """Their weights.

    Raises:
        TiplError: all trials diverged, or the paths have fewer than 3 checkpoints.
    """
    params = usable(paths).params()
    if params.shape[1] < 3:
        raise TiplError(
            f"the paths in {paths.directory} have {params.shape[1]} checkpoints; expected at "
            "least 3: collect more steps, or with a smaller checkpoint interval"
        )
    return params


class ReturnScale(NamedTuple):
    """Mean and standard deviation of returns."""

    mean: float
    std: float

    def scaled(self, returns: Float[np.ndarray, "*shape"]) -> Float[Tensor, "*shape"]:
        """Returns in these units; NaN stays NaN."""
        scaled = (returns.astype(np.float64) - self.mean) / self.std
        return torch.as_tensor(scaled, dtype=torch.float32)


def return_scale(returns: Float[np.ndarray, "*shape"]) -> ReturnScale:
    """The scale of the returns that are known."""
    known = returns[np.isfinite(returns)].astype(np.float64)
    mean, std = (known.mean(), known.std()) if len(known) else (0.0, 1.0)
    return ReturnScale(float(mean), max(float(std), 1e-6 * max(abs(float(mean)), 1.0)))
