"""The one interface of models and baselines, and the files of trained models."""

from __future__ import annotations

import abc
import copy
import importlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal, TypeVar, cast, overload

import numpy as np
from jaxtyping import Float

from tipl.core import storage
from tipl.core.arrays import Array
from tipl.errors import TiplError
from tipl.forecast.hub import model_directory
from tipl.policies.layout import ParamLayout
from tipl.policies.policy import Policy
from tipl.policies.tasks import TaskSpec

__all__ = ["MODEL_FORMAT_VERSION", "Forecaster", "Target", "TrainedForecaster"]

TrainedT = TypeVar("TrainedT", bound="TrainedForecaster")

MODEL_FORMAT_VERSION = 1

Target = Literal["elite", "own"]
"""Where a forecast leads: to the best behaviour that the training paths know, from any network
(`elite`); or to what PPO would have made of this very network (`own`)."""


class Forecaster(abc.ABC):
    """Predicts weights ahead of a history: the one interface of models and baselines.

    Attributes:
        name: what tables and pictures call it.
        layout: the parameters that it forecasts; None if any architecture will do.
        min_history: checkpoints that a history needs at least.
    """

    name: str
    layout: ParamLayout | None = None
    min_history: int = 1

    @classmethod
    def from_pretrained(cls, source: str | Path) -> TrainedForecaster:
        """A trained model, read from the files that `save_pretrained` wrote.

        Args:
            source: the model's directory, or the name of a model that ships with tipl
                (`tipl.forecast.shipped_models`); of a source that is both, the directory is read.

        Returns:
            A model of any kind, if called on `Forecaster`; of the kind of the class that it is
            called on otherwise.

        Raises:
            TiplError: there is no such model, it is of another kind or of a newer tipl, or a file
                is damaged.
        """
        directory = model_directory(source)
        config = storage.read_json(directory / "config.json", "a model (made by `tipl train`)")
        model_class = _model_class(directory, config)
        if not issubclass(model_class, cls):
            raise TiplError(
                f"{directory} holds a model of the kind {model_class.kind}, but a {cls.__name__} "
                f"is expected; use {model_class.__name__}.from_pretrained, or "
                "Forecaster.from_pretrained for a model of any kind"
            )
        tensors, _ = storage.read_tensors(directory / "model.safetensors", "the model's weights")
        return model_class._from_files(directory, config, tensors)

    @property
    def training_trials(self) -> dict[str, list[int]]:
        """The trials that it learned from, by the digest of their dataset; none by default."""
        return {}

    def forecast(
        self,
        history: Float[np.ndarray, "*batch T P"],
        horizon: int | Sequence[int],
        *,
        layout: ParamLayout | None = None,
    ) -> Float[np.ndarray, ...]:
        """Weights `horizon` checkpoints after the last one of a history.

        Args:
            history: the checkpoints `[T, P]` of a path from its first one on, in order, or many
                histories of equal length `[..., T, P]`.
            horizon: checkpoints to jump ahead, or several such numbers.
            layout: names and shapes of the P weights, for forecasters that work on any
                architecture; by default the forecaster's own.

        Returns:
            The forecast weights `[..., P]`, or `[..., H, P]` for a sequence of H horizons; float32.

        Raises:
            TiplError: the horizon is below 1, or the history is too short, not finite or of
                another architecture.
        """
        horizons = [horizon] if isinstance(horizon, int) else list(horizon)
        self._check(history, horizons, layout)
        batch, (length, size) = history.shape[:-2], history.shape[-2:]
        # [*batch, T, P] -> [B, T, P]
        histories = history.reshape(-1, length, size)
        layout = self.layout if layout is None else layout
        forecasts = self._forecast(histories, horizons, layout).astype(np.float32)
        if isinstance(horizon, int):
            return forecasts.reshape(*batch, size)  # [B, 1, P] -> [*batch, P]
        return forecasts.reshape(*batch, len(horizons), size)  # [B, H, P] -> [*batch, H, P]

    @abc.abstractmethod
    def _forecast(
        self,
        histories: Float[np.ndarray, "B T P"],
        horizons: list[int],
        layout: ParamLayout | None,
    ) -> Float[np.ndarray, "B H P"]:
        """The forecasts of checked histories at checked horizons, in the order given.

        The layout is the one that `forecast` was given, or else the forecaster's own, if any.
        """

    def _check(self, history: Array, horizons: list[int], layout: ParamLayout | None) -> None:
        _check_horizon(min(horizons, default=None))
        if layout is not None:
            self._check_layout(layout)
        if history.ndim < 2 or history.shape[-2] < self.min_history:
            raise TiplError(
                f"a history of shape {history.shape} was given, but {self.name} needs "
                f"[T, P] with at least T = {self.min_history} checkpoints; give more of the path"
            )
        self._check_size(history.shape[-1], layout)
        if not np.isfinite(history).all():
            raise TiplError(
                "the history holds weights that are NaN or infinite; use the checkpoints before "
                "the trial diverged"
            )

    def _check_layout(self, layout: ParamLayout) -> None:
        if self.layout is not None and layout != self.layout:
            raise TiplError(
                f"weights of {layout.size} parameters with hidden layers of {layout.hidden_sizes} "
                f"units were given, but {self.name} was trained on {self.layout.size} and "
                f"{self.layout.hidden_sizes}; use a policy of the same architecture, or train a "
                "model on paths of this one"
            )

    def _check_size(self, size: int, layout: ParamLayout | None) -> None:
        if self.layout is not None and size != self.layout.size:
            raise TiplError(
                f"a history of {size} parameters was given, but {self.name} was "
                f"trained on networks of {self.layout.size} parameters; use one of the same "
                "architecture, or train a model on paths of this one"
            )
        if layout is not None and size != layout.size:
            raise TiplError(
                f"a history of {size} parameters was given with a layout of {layout.size}; give "
                "the layout that these weights have"
            )


class TrainedForecaster(Forecaster):
    """A forecaster that was trained, and that lives in a directory of two files.

    A subclass names its kind, `class MyForecaster(TrainedForecaster, kind="MyModel")`: by the kind
    in a model's `config.json`, `Forecaster.from_pretrained` finds the class that reads it.

    Attributes:
        kind: the kind of the model, in its files.
        task: the environment that it was trained on.
        num_checkpoints: length T of the paths that it was trained on.
        settings: how it was trained, for the record: JSON that is saved with it.
        hidden_sizes: of the networks that it was trained on.
        targets: where its forecasts can lead, see `Target`.
        target: where they do lead.
        wished_return: the return that they are asked for, if any.
        return_scale: mean and std of the returns that it was told in training.
    """

    kind: ClassVar[str]
    task: TaskSpec
    num_checkpoints: int
    settings: dict[str, Any]
    hidden_sizes: tuple[int, ...]
    targets: tuple[Target, ...]
    target: Target
    wished_return: float | None = None
    return_scale: tuple[float, float] = (0.0, 1.0)

    _classes: ClassVar[dict[str, type[TrainedForecaster]]] = {}

    def __init_subclass__(cls, *, kind: str | None = None, **options: Any) -> None:
        super().__init_subclass__(**options)
        if kind is not None:  # else it is what several kinds share
            cls.kind = kind
            TrainedForecaster._classes[kind] = cls

    @classmethod
    def from_pretrained(cls: type[TrainedT], source: str | Path) -> TrainedT:
        """A trained model of this kind: see `Forecaster.from_pretrained`."""
        # which refuses models of another kind, but has no way to tell the type checker
        return cast(TrainedT, super().from_pretrained(source))

    @property
    def label(self) -> str:
        """What it is called, whatever return it is asked for: by default its kind."""
        return self.kind

    @property
    def name(self) -> str:  # type: ignore[override]
        """What tables and pictures call it: never two targets, or two wishes, in one row."""
        if self.wished_return is None:
            return self.label
        return f"{self.label}, return of {self.wished_return:,.6g} wished for"

    @property
    def training_trials(self) -> dict[str, list[int]]:
        """The trials that it learned from, by the digest of their dataset, as its settings say."""
        return dict(self.settings.get("datasets", {}))

    @property
    def steps_per_checkpoint(self) -> int | None:
        """Environment steps between the checkpoints that it learned from, if its settings say."""
        steps: int | None = self.settings.get("steps_per_checkpoint")
        return steps

    def with_options(
        self: TrainedT, target: Target | None = None, wished_return: float | None = None
    ) -> TrainedT:
        """The same forecaster, asked for something else.

        Args:
            target: one of `targets`; by default as it is.
            wished_return: the return to ask for; by default as it is.

        Raises:
            TiplError: it was not trained for the target, or without returns.
        """
        other = copy.copy(self)
        other.target = target or self.target
        if other.target not in self.targets:
            raise TiplError(
                f"the target {target!r} was given, but this {self.kind} was trained for "
                f"{', '.join(self.targets)}; use one of these, or train a model for it"
            )
        if wished_return is not None and not other.knows_returns:
            raise TiplError(
                f"a return of {wished_return} is wished for, but this model was trained without "
                f"returns (target {other.target!r}); train one with condition_on_return=True and "
                "ask for the target 'own'"
            )
        if wished_return is not None:
            other.wished_return = wished_return
        if not other.knows_returns:  # nor can it be asked for one that was wished for before
            other.wished_return = None
        return other

    def all_ways(self: TrainedT) -> list[TrainedT]:
        """The forecaster as it can be asked: for each target and, if it can, for a high return.

        That is the `high_return` of its settings; without one, a standard deviation above the mean
        of the returns that it was told.
        """
        ways = []
        for target in self.targets:
            asked = self.with_options(target=target)
            ways.append(asked)
            if asked.knows_returns:
                high = self.settings.get("high_return", sum(self.return_scale))
                ways.append(asked.with_options(wished_return=round(high, 1)))
        return ways

    @property
    @abc.abstractmethod
    def knows_returns(self) -> bool:
        """Whether it can be asked for a return."""

    @overload
    def optimize(self, policy: Policy, horizon: int | None = ..., **options: Any) -> Policy: ...
    @overload
    def optimize(
        self, policy: Sequence[Policy], horizon: int | None = ..., **options: Any
    ) -> list[Policy]: ...
    def optimize(
        self,
        policy: Policy | Sequence[Policy],
        horizon: int | None = None,
        *,
        steps: int | None = None,
        **options: Any,
    ) -> Policy | list[Policy]:
        """Better policies from untrained (or half-trained) ones, by inference alone.

        Args:
            policy: of the task, and of an architecture, that the model can forecast; or several,
                of which those of one architecture share the work.
            horizon: checkpoints to jump ahead; by default to the end of the training paths.
            steps: jumps that follow one another. Of the target `own` they share the horizon, and
                each reads the forecasts before it (3 by default); of `elite` each starts where the
                last one led (2 by default).
            **options: `target` and `wished_return`, see `with_options`.

        Returns:
            A policy for one, a list in the same order for several.

        Raises:
            TiplError: a policy is of another task or architecture, the horizon is below 1, the
                model needs a longer history than one checkpoint, or an option is impossible.
        """
        forecaster = self.with_options(**options)
        policies = [policy] if isinstance(policy, Policy) else list(policy)
        for one in policies:
            forecaster.check_policy(one)
        horizon = self.num_checkpoints - 1 if horizon is None else horizon
        _check_horizon(horizon)
        if steps is not None and not 1 <= steps <= horizon:
            raise TiplError(
                f"{steps} steps were given for a horizon of {horizon} checkpoints; expected from 1 "
                "step to as many as there are checkpoints"
            )
        groups: dict[ParamLayout, list[int]] = {}
        for index, one in enumerate(policies):
            groups.setdefault(one.layout, []).append(index)
        better = list(policies)
        for layout, indices in groups.items():
            params = np.stack([policies[index].params for index in indices])
            ahead = forecaster._optimize(params, layout, horizon, steps)
            for index, row in zip(indices, ahead, strict=True):
                better[index] = policies[index].with_params(row)
        return better[0] if isinstance(policy, Policy) else better

    @abc.abstractmethod
    def _optimize(
        self,
        params: Float[np.ndarray, "B P"],
        layout: ParamLayout,
        horizon: int,
        steps: int | None,
    ) -> Float[np.ndarray, "B P"]:
        """The weights to use instead of those of checked policies."""

    def check_policy(self, policy: Policy) -> None:
        """Raises a TiplError unless the policy is one that it can read."""
        if policy.task.env_id != self.task.env_id:
            raise TiplError(
                f"a policy for {policy.task.env_id} was given, but this model was trained on "
                f"{self.task.env_id}; use a model of the same task"
            )
        self._check_layout(policy.layout)

    def save_pretrained(self, directory: str | Path) -> None:
        """Writes `config.json` and `model.safetensors`, whole or not at all.

        Raises:
            TiplError: the directory holds something else, or cannot be written.
        """
        config = {
            "kind": self.kind,
            "format_version": MODEL_FORMAT_VERSION,
            "task": self.task.to_json(),
            "num_checkpoints": self.num_checkpoints,
            "settings": self.settings,
        }
        with storage.new_directory(Path(directory), replaces="config.json") as new:
            storage.write_tensors(new / "model.safetensors", self._tensors(), {"kind": "model"})
            storage.write_json(new / "config.json", self._config() | config)

    @abc.abstractmethod
    def _config(self) -> dict[str, Any]:
        """What a kind of model has in its `config.json` beside what they all have."""

    @abc.abstractmethod
    def _tensors(self) -> dict[str, Array]:
        """All arrays of the model."""

    @classmethod
    @abc.abstractmethod
    def _from_files(
        cls: type[TrainedT],
        directory: Path,
        config: Mapping[str, Any],
        tensors: Mapping[str, Array],
    ) -> TrainedT:
        """The model whose `config.json` and `model.safetensors` have been read.

        Raises:
            TiplError: the two files do not belong together.
        """


def _check_horizon(horizon: int | None) -> None:
    if horizon is None or horizon < 1:
        raise TiplError(
            f"a horizon of {'no checkpoint' if horizon is None else horizon} was given; expected 1 "
            "or more checkpoints ahead: choose another"
        )


def _model_class(directory: Path, config: Mapping[str, Any]) -> type[TrainedForecaster]:
    """The class that reads a model, by what its `config.json` says."""
    version, kind = config.get("format_version"), config.get("kind")
    if version != MODEL_FORMAT_VERSION:
        raise TiplError(
            f"{directory} holds a model of format version {version!r}, but this tipl reads "
            f"version {MODEL_FORMAT_VERSION}; update tipl"
        )
    importlib.import_module("tipl.models.kinds")  # which makes the models of tipl known
    classes = TrainedForecaster._classes
    if kind not in classes:
        raise TiplError(
            f"{directory} holds a model of the kind {kind!r}, but this tipl reads "
            f"{', '.join(sorted(classes))}; update tipl"
        )
    return classes[kind]
