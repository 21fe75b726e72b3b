"""Nested subsets of a dataset's trials: each is contained in every larger one of its order."""

from __future__ import annotations

import numpy as np

from tipl.core.options import at_least
from tipl.errors import TiplError
from tipl.paths.dataset import PathDataset


def first_trials(paths: PathDataset, count: int, order: int | None = None) -> PathDataset:
    """The first `count` trials of a view.

    Of the view as it is, such as of trials in a nested set of worlds; or, of an `order`, those that
    come first when the trials are shuffled by that seed. The same order of the same view gives
    subsets of which the larger contain the smaller ones; another order draws others.

    Raises:
        TiplError: the count is below 1, the view has fewer trials, or the order is below 0.
    """
    at_least(1, first_trials=count)
    at_least(0, order=order)
    if count > paths.num_trials:
        raise TiplError(
            f"first_trials is {count}, but {paths.directory} has {paths.num_trials} trials to "
            "learn from; give at most as many"
        )
    trials = paths.trials
    if order is not None:
        trials = np.random.default_rng(order).permutation(np.sort(trials))
    return paths.select(trials[:count])
