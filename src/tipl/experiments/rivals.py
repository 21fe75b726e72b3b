"""The rivals that trained models are compared with on a dataset: one entry each.

A rival of your own is a `Forecaster` and an entry: `register(Rival(Method("my rival", "#a03070"),
lambda given: MyRival()))`. It then takes part in sets of forecasts, and stands in all tables and
figures.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from functools import cached_property, partial

import numpy as np

from tipl.core.lazy import is_installed
from tipl.evaluation.behaviour import best_checkpoint
from tipl.forecast.base import Forecaster
from tipl.forecast.extrapolation import (
    RELEX,
    DynamicModeDecomposition,
    LastDifferenceLine,
    LeastSquaresLine,
    PathTrimmingAndBoosting,
    StandingStill,
    TwoPointLine,
)
from tipl.forecast.memory import (
    BestStoredPolicy,
    MatchedNoise,
    MeanDisplacement,
    NearestPath,
    PartialLeastSquares,
)
from tipl.forecast.trained import TrainedForecaster
from tipl.paths import PathDataset
from tipl.policies.policy import Policy
from tipl.report.methods import Method, method_of, register_method
from tipl.report.palette import GOLD, GREEN, GREY, PURPLE


@dataclasses.dataclass(frozen=True)
class Given:
    """What rivals are given: the trials that the models learned from, and nothing of the others."""

    models: Sequence[TrainedForecaster]  # where they learned from others, nothing is remembered
    paths: PathDataset  # the dataset on which all are compared
    known_best: tuple[int, int] | None = None
    """trial and checkpoint of the best stored policy, if it was looked for before"""

    @cached_property
    def training(self) -> PathDataset | None:
        """The usable trials that the models learned from; None if there are none."""
        return training_paths(self.models, self.paths)

    @cached_property
    def best(self) -> tuple[int, int] | None:
        """Trial and checkpoint of the best policy that the models learned from.

        It is looked for in the environment, as in training: from the seed of the models that
        learned elite, if any did. None where no policy is the best for all.
        """
        metadata = self.paths.metadata
        if metadata.normaliser != "frozen" or metadata.networks != "actor" or metadata.vary:
            return None
        if self.training is None or self.known_best is not None:
            return self.known_best
        learned = [model for model in self.models if "elite" in model.curves]
        seeds = [m.settings.get("train", {}).get("seed", 0) for m in learned or self.models]
        elite = best_checkpoint(self.training, seed=min(seeds, default=0))
        return elite.trial, elite.checkpoint

    @property
    def best_policy(self) -> Policy | None:
        """That policy."""
        if self.best is None:
            return None
        trial, checkpoint = self.best
        return self.paths.select([trial]).policy(0, checkpoint)


@dataclasses.dataclass(frozen=True)
class Rival:
    """One rival."""

    method: Method  # what tables, figures and its forecaster call it, and how it is drawn
    make: Callable[[Given], Forecaster | None]  # None where it cannot take part


RIVALS: dict[str, Rival] = {}
"""Those that take part, in order, by their names."""


def register(rival: Rival) -> None:
    """Lets a rival take part from now on; one of the same name is replaced."""
    register_method(rival.method)
    RIVALS[rival.method.name] = rival


def rivals(
    models: Sequence[TrainedForecaster],
    paths: PathDataset,
    known_best: tuple[int, int] | None = None,
) -> list[Forecaster]:
    """The rivals of models on a dataset, as far as they can take part: see `Given`."""
    return rivals_of(Given(models, paths, known_best))


def rivals_of(given: Given) -> list[Forecaster]:
    """The rivals that can take part, in order."""
    made = (rival.make(given) for rival in RIVALS.values())
    return [forecaster for forecaster in made if forecaster is not None]


def seen_trials(models: Sequence[Forecaster], paths: PathDataset) -> set[int]:
    """The numbers of the trials of a dataset that models learned from."""
    digest = paths.metadata.digest
    return {trial for model in models for trial in model.training_trials.get(digest, [])}


def training_paths(models: Sequence[TrainedForecaster], paths: PathDataset) -> PathDataset | None:
    """The usable trials of a dataset that models learned from; None if there are none."""
    trials = seen_trials(models, paths) & set(paths.usable_trials().tolist())
    return paths.select(sorted(trials)) if trials else None


def _remembering(kind: Callable[..., Forecaster], given: Given) -> Forecaster | None:
    """A rival that remembers the training trials, if there are any."""
    training = given.training
    return None if training is None else kind(training.params(), given.paths.layout)


def _regression(given: Given) -> Forecaster | None:
    if given.training is None or not is_installed("sklearn"):
        return None
    returns = given.training.episodic_return()
    if np.isfinite(returns).sum() < 2:
        return None
    return PartialLeastSquares(given.training.params(), given.paths.layout, returns)


def _best_stored(given: Given) -> Forecaster | None:
    best = given.best_policy
    return None if best is None else BestStoredPolicy(best.params, given.paths.layout)


def _fitted(given: Given) -> Forecaster | None:
    from tipl.models.readout import FittedOutputLayer

    return None if given.best_policy is None else FittedOutputLayer.of(given.best_policy)


_in_tables = partial(Method, drawn=False)  # curves over the horizon have no room for them

for _method, _make in (
    (Method(StandingStill.name, GREY), lambda _: StandingStill()),
    (Method(LastDifferenceLine.name, GREEN), lambda _: LastDifferenceLine()),
    (Method(LeastSquaresLine.name, GREEN), lambda _: LeastSquaresLine()),
    (_in_tables(TwoPointLine.name, GOLD), lambda _: TwoPointLine()),
    (_in_tables(RELEX.name, GREEN), lambda _: RELEX()),
    (_in_tables(PathTrimmingAndBoosting.name, GOLD), lambda _: PathTrimmingAndBoosting()),
    (
        _in_tables(DynamicModeDecomposition.name, GOLD),
        lambda _: DynamicModeDecomposition() if is_installed("pydmd") else None,
    ),
    (_in_tables(MeanDisplacement.name, GREEN), partial(_remembering, MeanDisplacement)),
    (_in_tables(NearestPath.name, PURPLE), partial(_remembering, NearestPath)),
    (_in_tables(MatchedNoise.name, GREEN), partial(_remembering, MatchedNoise)),
    (_in_tables(PartialLeastSquares.name, GREEN), _regression),
    (method_of(BestStoredPolicy.name), _best_stored),
    (_in_tables("best stored policy, output layer fitted", PURPLE), _fitted),
):
    register(Rival(_method, _make))
