"""The rivals that trained models are compared with on a dataset."""

from __future__ import annotations

from collections.abc import Sequence

from tipl.baselines import (
    BestStoredPolicy,
    LastDifferenceLine,
    LeastSquaresLine,
    MatchedNoise,
    MeanDisplacement,
    NearestPath,
    StandingStill,
)
from tipl.behaviour import best_checkpoint
from tipl.forecast import Forecaster, TrainedForecaster
from tipl.paths import PathDataset

__all__ = ["rivals"]


def rivals(models: Sequence[TrainedForecaster], paths: PathDataset) -> list[Forecaster]:
    """Standing still, straight lines, and what remembers the trials that the models learned from.

    Args:
        models: the models. Where they were trained on other datasets, nothing is remembered.
        paths: the dataset on which all are compared; its best policy is looked for in the
            environment.
    """
    found: list[Forecaster] = [StandingStill(), LastDifferenceLine(), LeastSquaresLine()]
    digest = paths.metadata.digest
    trials = {trial for model in models for trial in model.training_trials.get(digest, [])}
    if not trials:
        return found
    training = paths.select(sorted(trials))
    params, layout = training.params()[~training.diverged()], paths.layout
    found += [kind(params, layout) for kind in (MeanDisplacement, NearestPath, MatchedNoise)]
    if paths.metadata.normaliser == "frozen" and paths.metadata.networks == "actor":
        found.append(BestStoredPolicy(best_checkpoint(training).policy.params, layout))
    return found
