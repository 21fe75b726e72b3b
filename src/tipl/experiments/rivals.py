"""The rivals that trained models are compared with on a dataset."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from tipl.evaluation.elite import Elite, best_checkpoint
from tipl.evaluation.visits import observations_around
from tipl.forecast.base import Forecaster
from tipl.forecast.dynamic_modes import DynamicModeDecomposition, pydmd_is_installed
from tipl.forecast.extrapolation import RELEX, PathTrimmingAndBoosting
from tipl.forecast.lines import LastDifferenceLine, LeastSquaresLine, StandingStill, TwoPointLine
from tipl.forecast.memory import BestStoredPolicy, MatchedNoise, MeanDisplacement, NearestPath
from tipl.forecast.return_regression import PartialLeastSquares, scikit_learn_is_installed
from tipl.forecast.trained import TrainedForecaster
from tipl.models.network import ActionError
from tipl.models.readout import FittedOutputLayer
from tipl.paths import PathDataset
from tipl.ppo.mlp import stacked_mlp

__all__ = ["fitted_output_layer", "rivals", "training_paths"]

STRIDE = 9
"""Steps between two to whose actions output layers are fitted: about 2,000 observations, as many as
a model remembers."""


def training_paths(models: Sequence[TrainedForecaster], paths: PathDataset) -> PathDataset | None:
    """The usable trials of a dataset that models learned from; None if there are none."""
    digest = paths.metadata.digest
    trials = {trial for model in models for trial in model.training_trials.get(digest, [])}
    trials &= set(paths.trials[~paths.diverged()].tolist())
    return paths.select(sorted(trials)) if trials else None


def rivals(models: Sequence[TrainedForecaster], paths: PathDataset) -> list[Forecaster]:
    """Standing still, what extrapolates a history, and what remembers the training trials.

    Partial least squares is among them where scikit-learn is installed and returns are known.

    Args:
        models: the models. Where they were trained on other datasets, nothing is remembered.
        paths: the dataset on which all are compared; its best policy is looked for in the
            environment.
    """
    found: list[Forecaster] = [StandingStill(), LastDifferenceLine(), LeastSquaresLine()]
    found += [TwoPointLine(), RELEX(), PathTrimmingAndBoosting()]
    if pydmd_is_installed():
        found.append(DynamicModeDecomposition())
    training = training_paths(models, paths)
    if training is None:
        return found
    params, layout, metadata = training.params(), paths.layout, paths.metadata
    found += [kind(params, layout) for kind in (MeanDisplacement, NearestPath, MatchedNoise)]
    returns = training.episodic_return()
    if scikit_learn_is_installed() and np.isfinite(returns).sum() > 1:
        found.append(PartialLeastSquares(params, layout, returns))
    if metadata.normaliser == "frozen" and metadata.networks == "actor" and not metadata.vary:
        elite = best_checkpoint(training)
        found += [BestStoredPolicy(elite.policy.params, layout), fitted_output_layer(elite)]
    return found


def fitted_output_layer(elite: Elite, seed: int = 0) -> FittedOutputLayer:
    """The rival that fits output layers to an elite policy's actions where it goes.

    Args:
        elite: the policy.
        seed: of its rollouts.
    """
    policy, task = elite.policy, elite.policy.task
    seen = observations_around(policy, seed)[:, ::STRIDE]
    seen = seen.reshape(-1, task.observation_size)  # [M, S, O] -> [M * S, O]
    actor = stacked_mlp(policy.layout.unflatten(policy.params[None]), "actor")
    outputs = ActionError(task).fitting(torch.as_tensor(actor.forward(seen[None])[0]))
    return FittedOutputLayer(task, seen, outputs.numpy())
