"""The one interface of models and their rivals."""

from __future__ import annotations

import abc
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, TypedDict, TypeVar, Unpack, overload

import numpy as np
from jaxtyping import Float

from tipl.core.arrays import Array
from tipl.errors import TiplError, shown
from tipl.forecast.hub import load_model
from tipl.policies.layout import ParamLayout
from tipl.policies.policy import Policy

if TYPE_CHECKING:
    from tipl.forecast.trained import TrainedForecaster


ForecasterT = TypeVar("ForecasterT", bound="Forecaster")

Target = Literal["elite", "own"]
"""Where a forecast leads: to the best behaviour that the training paths know, from any network
(`elite`); or to what PPO would have made of this very network (`own`)."""

Horizon: TypeAlias = int | np.integer[Any]
"""Checkpoints ahead: whole numbers of NumPy are as good as Python's."""

FARTHEST = 100
"""Lengths of its training paths that a model forecasts ahead at most: it knows nothing beyond."""

MAX_HORIZON = 10**9
"""Checkpoints ahead that can be asked of any forecaster."""

Layout: TypeAlias = ParamLayout | None
"""The layout of flat weights, if it is known."""

Histories: TypeAlias = Float[np.ndarray, "B T P"]
Forecasts: TypeAlias = Float[np.ndarray, "B H P"]
Networks: TypeAlias = Float[np.ndarray, "B P"]


class Asked(TypedDict, total=False):
    """What `Forecaster.optimize` can be asked for, for type checkers."""

    steps: int | None
    target: Target | None
    wished_return: float | None


class Forecaster(abc.ABC):
    """Predicts weights ahead of a history: the one interface of models and their rivals.

    A subclass has a `name` and implements `_forecast`.

    Examples:
        >>> model = tipl.Forecaster.from_pretrained("InvertedPendulum-v4")
        >>> model.optimize(tipl.Policy.initial("InvertedPendulum-v4", seed=1, hidden=(48,)))
        Policy(InvertedPendulum-v4, 290 parameters)
    """

    name: str
    """what tables and pictures call it"""
    layout: Layout = None
    """the parameters that it forecasts; None if any architecture will do"""
    min_history: int = 1
    """checkpoints that a history needs at least"""
    reads_last: int | None = None
    """how many of the last checkpoints of a history it reads; None if forecasts depend on earlier
    ones, or on how many there are"""
    num_checkpoints: int | None = None
    """length T of the paths that it was trained on; None if it knows none"""

    @classmethod
    def from_pretrained(cls, source: str | Path) -> TrainedForecaster:
        """A trained model, read from the files that `save_pretrained` wrote.

        The source is the model's directory, or the name of a model that ships with tipl
        (`tipl.forecast.shipped_models`); of one that is both, the directory is read. Called on
        `Forecaster`, this reads a model of any kind; called on another class, one of its kind.

        Raises:
            TiplError: there is no such model, it is of another kind or of a newer tipl, or a file
                is damaged.
        """
        return load_model(source, cls)

    @property
    def training_trials(self) -> dict[str, list[int]]:
        """The trials that it learned from, by the digest of their dataset; none by default."""
        return {}

    def in_world(self, physics: Mapping[str, float | None]) -> Forecaster:
        """The same forecaster, asked for networks for a world: by default as for any other.

        Args:
            physics: factors of the model's own values by name; those that are left out are 1.

        Raises:
            TiplError: it knows no such world.
        """
        return self

    def forecast(
        self,
        history: Float[np.ndarray, "*batch T P"],
        horizon: Horizon | Sequence[Horizon],
        *,
        layout: Layout = None,
        finite: bool = True,
    ) -> Float[np.ndarray, " ..."]:
        """Weights `horizon` checkpoints after the last one of a history.

        Args:
            history: the checkpoints `[T, P]` of a path from its first one on, in order, or many
                histories of equal length `[..., T, P]`.
            horizon: checkpoints to jump ahead, or several such numbers.
            layout: of the weights, for forecasters of any architecture; by default their own.
            finite: refuse forecasts that are NaN or infinite. Without, they are returned as they
                are: whoever asks looks at each of them.

        Returns:
            The forecast weights `[..., P]`, or `[..., H, P]` for a sequence of H horizons; float32.

        Raises:
            TiplError: the horizon is below 1, the history is too short, not finite or of another
                architecture, or a forecast is not finite.
        """
        horizons = self._horizons(horizon)
        layout = self._checked_layout(history, layout)
        *batch, length, size = history.shape
        histories = history.reshape(-1, length, size)  # [*batch, T, P] -> [B, T, P]
        shape = (len(histories), len(horizons), size)
        with np.errstate(all="ignore"):  # what overflows is found below
            try:
                found = self._forecast(histories, horizons, layout)
            except np.linalg.LinAlgError:
                found = np.full(shape, np.nan)
            forecasts = np.broadcast_to(found, shape).astype(np.float32, order="C")
        if finite:
            self._check_finite(forecasts, horizons, "history")
        ahead = () if isinstance(horizon, (int, np.integer)) else (len(horizons),)
        # [B, H, P] -> [*batch, P] or [*batch, H, P]
        return forecasts.reshape(*batch, *ahead, size)

    def _check_finite(self, forecasts: Forecasts, horizons: list[int], what: str) -> None:
        """Raises a TiplError unless forecasts are finite; `what` each of the B was made from."""
        broken = np.argwhere(~np.isfinite(forecasts).all(axis=2))  # [broken, 2]: of B and of H
        if len(broken):
            index, ahead = broken[0].tolist()
            raise TiplError(
                f"{self.name} forecasts weights that are NaN or infinite from {what} {index + 1} "
                f"of {len(forecasts)}, {horizons[ahead]} checkpoints ahead; give smaller weights "
                "or a smaller horizon, or use another forecaster"
            )

    @abc.abstractmethod
    def _forecast(self, histories: Histories, horizons: list[int], layout: Layout) -> Forecasts:
        """The forecasts of checked histories at checked horizons, in the order given.

        There may be one alone, `[B, 1, P]`, where it is the same at every horizon.
        The layout is the one that `forecast` was given, or else `default_layout`, if any.
        """

    def with_options(
        self: ForecasterT, target: Target | None = None, wished_return: float | None = None
    ) -> ForecasterT:
        """The same forecaster, asked for another target or return; only trained ones can be.

        Raises:
            TiplError: the forecaster cannot be asked for that.
        """
        if target is not None or wished_return is not None:
            raise TiplError(
                f"target={shown(target)} and wished_return={shown(wished_return)} were given, but "
                f"{self.name} can be asked for neither: leave them out, or use a trained model"
            )
        return self

    @overload
    def optimize(
        self, policy: Policy, horizon: Horizon | None = ..., **asked: Unpack[Asked]
    ) -> Policy: ...
    @overload
    def optimize(
        self, policy: Sequence[Policy], horizon: Horizon | None = ..., **asked: Unpack[Asked]
    ) -> list[Policy]: ...
    def optimize(
        self,
        policy: Policy | Sequence[Policy],
        horizon: Horizon | None = None,
        *,
        steps: int | None = None,
        target: Target | None = None,
        wished_return: float | None = None,
    ) -> Policy | list[Policy]:
        """Better policies from untrained (or half-trained) ones, by inference alone.

        One is made for one, and a list in the same order for several.

        Args:
            policy: of the task, and of an architecture, that the model can forecast; or several,
                of which those of one architecture share the work. One with a normaliser of its own
                (`Policy.from_sb3`) is rewritten for the task's frozen one, under which a trained
                model reads weights, and so is what is made of it.
            horizon: checkpoints to jump ahead; by default to the end of the training paths.
            steps: jumps that follow one another. Of the target `own` they share the horizon, and
                each reads the forecasts before it (3 by default); of `elite` each starts where the
                last one led (2 by default).
            target: where to, see `Target`; by default as the forecaster is.
            wished_return: the return to ask for; by default none, or as the forecaster is.

        Raises:
            TiplError: a policy is of another task or architecture, what is made of one is not
                finite, the horizon is below 1, the
                forecaster needs a longer history than one checkpoint or has no training paths
                whose end could be meant, or it cannot be asked for a target or a return.
        """
        forecaster = self.with_options(target=target, wished_return=wished_return)
        given = [policy] if isinstance(policy, Policy) else policy
        policies = [forecaster.as_read(one) for one in given]
        ahead = forecaster._horizons(horizon)[0]
        if steps is not None and not 1 <= steps <= ahead:
            raise TiplError(
                f"{steps} steps were given for a horizon of {ahead} checkpoints; expected from 1 "
                "step to as many as there are checkpoints"
            )
        better = list(policies)
        for layout in {one.layout for one in policies}:
            indices = [index for index, one in enumerate(policies) if one.layout == layout]
            params = np.stack([policies[index].params for index in indices])
            made = forecaster._optimize(params, layout, ahead, steps)
            forecaster._check_finite(made[:, None], [ahead], "policy")  # [B, P] -> [B, 1, P]
            for index, row in zip(indices, made, strict=True):
                better[index] = policies[index].with_params(row)
        return better[0] if isinstance(policy, Policy) else better

    def _optimize(
        self, params: Networks, layout: ParamLayout, horizon: int, steps: int | None
    ) -> Networks:
        """The weights to use instead of checked policies'; by default one forecast from these."""
        return self.forecast(params[:, None], horizon, layout=layout)

    def _horizons(self, horizon: Horizon | Sequence[Horizon] | None) -> list[int]:
        """One horizon or several, checked; by default that of the whole training paths."""
        if horizon is None:
            if self.num_checkpoints is None:
                raise TiplError(
                    f"no horizon was given, and {self.name} knows no training paths whose end "
                    "could be meant; give the checkpoints to jump ahead"
                )
            return [self.num_checkpoints - 1]
        horizons = [horizon] if isinstance(horizon, (int, np.integer)) else list(horizon)
        least = min(horizons, default=None)
        if least is None or least < 1:
            raise TiplError(
                f"a horizon of {'no checkpoint' if least is None else least} was given; expected 1 "
                "or more checkpoints ahead: choose another"
            )
        if max(horizons) > MAX_HORIZON:
            raise TiplError(
                f"a horizon beyond {MAX_HORIZON:,} checkpoints was given; expected one that is "
                "near: choose another"
            )
        if self.num_checkpoints is not None and max(horizons) > FARTHEST * self.num_checkpoints:
            raise TiplError(
                f"a horizon of {max(horizons)} was given, but {self.name} has learned from paths "
                f"of {self.num_checkpoints} checkpoints; expected at most {FARTHEST} times as many"
            )
        return [int(one) for one in horizons]

    @property
    def default_layout(self) -> Layout:
        """The layout of weights that come without one; None if it has to be told."""
        return self.layout

    def check_layout(self, layout: ParamLayout) -> None:
        """Raises a TiplError unless it can read weights of a layout."""
        if self.layout is not None and layout != self.layout:
            raise TiplError(
                f"weights of {layout.size} parameters with hidden layers of {layout.hidden_units} "
                f"were given, but {self.name} was trained on {self.layout.size} and "
                f"{self.layout.hidden_units}; use some of the same architecture, or train a "
                "model on paths of this one"
            )

    def check_policy(self, policy: Policy) -> None:
        """Raises a TiplError unless the policy is one that it can read."""
        self.check_layout(policy.layout)

    def as_read(self, policy: Policy) -> Policy:
        """The policy as it reads it: by default as it is; raises what `check_policy` does."""
        self.check_policy(policy)
        return policy

    def _checked_layout(self, history: Array, layout: Layout) -> Layout:
        """The layout of a history, if it is known; both are checked."""
        if layout is not None:
            self.check_layout(layout)
        if history.ndim < 2 or history.shape[-2] < self.min_history:
            raise TiplError(
                f"a history of shape {history.shape} was given, but {self.name} needs "
                f"[T, P] with at least T = {self.min_history} checkpoints; give more of the path"
            )
        size = history.shape[-1]
        layout = layout or self.default_layout
        if layout is not None and size != layout.size:
            raise TiplError(
                f"a history of {size} parameters was given, but {self.name} reads networks with "
                f"hidden layers of {layout.hidden_units} here, of {layout.size} parameters; "
                "give the layout of the weights, use one of the same architecture, or train a "
                "model on paths of this one"
            )
        # forecasts are float32; NaN is no more than anything
        if history.size and not max(history.max(), -history.min()) <= np.finfo(np.float32).max:
            raise TiplError(
                "the history holds weights that are NaN or infinite; use the "
                "checkpoints before the trial diverged"
            )
        return layout
