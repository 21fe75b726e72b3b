"""When a training run's weights are replaced, by jumps or PPTB: settings, without the models."""

from __future__ import annotations

import dataclasses
import math
from typing import Literal, TypedDict

from tipl.core.options import at_least
from tipl.errors import TiplError
from tipl.forecast.extrapolation import check_rank_and_boost

Moments = Literal["reset", "keep"]
"""What becomes of Adam's moments at a jump."""

EPOCHS_OF_TARGETS = 10
"""Passes over a rollout with the same targets, when the critic is refitted after a jump; the
targets then follow the better critic."""

CRITIC_LEARNING_RATE = 1e-3
"""Of refitting the critic."""

CRITIC_EPOCHS = 30
"""Passes over the first rollout by which a critic is refitted, unless a jump is told otherwise."""


def _refuse_without(config: JumpConfig | PPTBConfig, who: str, needed: str, example: str) -> None:
    """Raises a TiplError if settings were given, but not the one that they are nothing without."""
    fields = dataclasses.fields(config)
    given = [field.name for field in fields if getattr(config, field.name) != field.default]
    if given:
        raise TiplError(
            f"{who} given {' and '.join(given)} but no {needed}, so weights would stay as PPO "
            f"makes them; give a {needed}, such as {example}"
        )


@dataclasses.dataclass(frozen=True)
class JumpConfig:
    """When a run jumps to a forecast of its weights, and what the forecast has to show for it.

    The environment steps of all tests count as steps of the run.
    """

    forecaster: str | None = None
    """what forecasts: a model that ships with tipl or its directory, the directory of a policy to
    be copied, or relex, line, two-point or pptb; by default PPO is left alone"""
    target: Literal["elite", "own"] | None = None
    """of a model that was trained for both: elite or own (default: elite)"""
    every: int = 8
    """rollouts between two tries; after each try in vain twice as many as before"""
    horizons: tuple[int, ...] = ()
    """checkpoints ahead that are tried (default: as the forecaster suggests); the first one alone
    without the gate"""
    spacing: int | None = None
    """rollouts between the checkpoints of a history (default: as the model was trained, or 1)"""
    min_history: int | None = None
    """checkpoints of a run before its first try, and after a jump before the next one (default: as
    many as the forecaster needs, and 32 for one that extrapolates)"""
    max_jumps: int | None = None
    """jumps of a run that are not undone, at most (default: 1 where all forecasts lead to one
    behaviour, as those of elite and of a copied policy do)"""
    gate: bool = True
    """run each forecast for some episodes, and jump only if one is better than staying"""
    episodes: int = 2
    """episodes of the present policy and of the best forecast that a jump needs; up to three times
    as many where they leave doubt, fewer where the forecast loses"""
    margin: float = 3.0
    """standard errors by which a forecast has to be better; with 3, one of three forecasts that are
    as good as staying passes in a tenth of all tests (of normally distributed returns)"""
    budget: float = 0.02
    """share of a run's steps that its tests may take; the first test of a model is free of it"""
    rollback: bool = True
    """undo a jump after which the next rollout returns less than the one before it"""
    moments: Moments = "reset"
    """what becomes of Adam's moments at a jump"""
    critic_epochs: int = CRITIC_EPOCHS
    """passes over the first rollout after a jump that refit the critic before the actor moves"""
    min_log_std: float = -3.0
    """a jump brings the logarithm of the action noise no lower, and never raises it; extrapolations
    leave it alone"""

    def check(self) -> None:
        """Raises a TiplError unless the settings are possible, together and each."""
        if self.forecaster is None:
            _refuse_without(self, "jumps were", "forecaster", "HalfCheetah-v4 or relex")
        positive = ("every", "episodes", "spacing", "max_jumps", "min_history")
        for lowest, names in ((1, positive), (0, ("critic_epochs", "margin", "budget"))):
            at_least(lowest, "the jumps", **{name: getattr(self, name) for name in names})
        for name in ("margin", "budget", "min_log_std"):
            if not math.isfinite(getattr(self, name)):
                raise TiplError(f"{name} of the jumps is {getattr(self, name)}; expected a number")
        if min(self.horizons, default=1) < 1:
            raise TiplError(f"horizons of {self.horizons} checkpoints were given; expected above 0")
        if not self.gate and len(self.horizons) > 1:
            raise TiplError(
                f"horizons of {self.horizons} checkpoints were given without the gate that would "
                "choose among them; give one, or leave the gate in"
            )


class JumpOptions(TypedDict, total=False):
    """The fields of `JumpConfig` as options of a hook or callback, for type checkers."""

    forecaster: str | None
    target: Literal["elite", "own"] | None
    every: int
    horizons: tuple[int, ...]
    spacing: int | None
    min_history: int | None
    max_jumps: int | None
    gate: bool
    episodes: int
    margin: float
    budget: float
    rollback: bool
    moments: Moments
    critic_epochs: int
    min_log_std: float


@dataclasses.dataclass(frozen=True)
class PPTBConfig:
    """How the actors' weights are trimmed and boosted while PPO goes on; by default not at all."""

    rank: int | None = None
    """directions of the recent path that are kept; by default PPO is left alone"""
    boost: float = 0.1
    """step ahead in the first two directions, in units of the way along the recent path"""
    interval: int = 10
    """PPO iterations between two replacements of the weights"""
    window: int = 64
    """weights that make up the recent path: those after each of the last PPO iterations"""

    def check(self) -> None:
        """Raises a TiplError unless the settings are possible, together and each."""
        if self.rank is None:
            _refuse_without(self, "PPTB was", "rank", "16")
            return
        check_rank_and_boost(self.rank, self.boost)
        at_least(1, "PPTB", interval=self.interval)
        at_least(2, "PPTB", window=self.window)
