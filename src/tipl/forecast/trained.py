"""Forecasters that were trained: what they have in common, and how they are asked."""

from __future__ import annotations

import abc
import copy
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, TypeAlias, TypeVar, cast

import numpy as np
from jaxtyping import Float64

from tipl.core import atomic, storage
from tipl.core.arrays import Array
from tipl.core.ownership import OwnDirectory
from tipl.core.schemas import ArrayType
from tipl.errors import TiplError, shown
from tipl.forecast.base import Forecaster, Target
from tipl.forecast.description import MODEL, MODEL_FORMAT_VERSION, MODEL_WEIGHTS
from tipl.forecast.hub import check_finite
from tipl.paths.svd import TemporalSVD
from tipl.policies.actions import OBSERVATION_CLIP, refolded
from tipl.policies.layout import ParamLayout, actor_layout
from tipl.policies.policy import Policy
from tipl.policies.tasks import TaskSpec
from tipl.policies.versions import in_version, other_versions

Arrays: TypeAlias = Mapping[str, Array]

MODEL_FILES = OwnDirectory(
    "a trained model",
    {
        "config.json": storage.own_json(
            "a trained model", lambda found: {"kind", "task", "num_checkpoints"} <= found.keys()
        ),
        "model.safetensors": storage.own_tensors("model"),
    },
)
"""What `TrainedForecaster.save_pretrained` writes, and replaces."""

TrainedT = TypeVar("TrainedT", bound="TrainedForecaster")


class TrainedForecaster(Forecaster):
    """A forecaster that was trained, and that lives in a directory of two files.

    A subclass states its `kind` and implements `_forecast`, `_config`, `_tensors` and
    `_from_files`. An entry in `tipl.models.kinds`, which names the same kind, makes it known to
    `Forecaster.from_pretrained`.

    Args:
        task: the environment that it was trained on.
        hidden_sizes: of the networks that it was trained on.
        num_checkpoints: length T of the paths that it was trained on.
        targets: where its forecasts can lead, see `Target`; to the first one by default.
        return_scale: mean and std of the returns that it was told in training.
        settings: how it was trained, for the record: JSON that is saved with it.

    Its `target` is where its forecasts lead.
    """

    kind: ClassVar[str]
    """the kind of the model, in its files"""
    num_checkpoints: int
    serves: tuple[str, ...]
    """ids of other versions of its task, whose policies it reads as well"""
    wished_return: float | None = None
    """the return that its forecasts are asked for, if any"""
    joint_basis: TemporalSVD | None = None
    """the basis of all training paths together that it reads weights in, if it does"""

    def __init__(
        self,
        task: TaskSpec,
        hidden_sizes: Sequence[int],
        num_checkpoints: int,
        targets: Sequence[Target] = ("own",),
        return_scale: tuple[float, float] = (0.0, 1.0),
        settings: dict[str, Any] | None = None,
    ) -> None:
        self.task, self.hidden_sizes = task, tuple(hidden_sizes)
        self.num_checkpoints, self.return_scale = num_checkpoints, return_scale
        self.targets, self.target, self.settings = tuple(targets), targets[0], settings or {}
        self.serves = other_versions(task.bare_id)

    @classmethod
    def from_pretrained(cls: type[TrainedT], source: str | Path) -> TrainedT:
        """A trained model of this kind: see `Forecaster.from_pretrained`."""
        # which refuses models of another kind, but has no way to tell the type checker
        return cast("TrainedT", super().from_pretrained(source))

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

    def check_policy(self, policy: Policy) -> None:
        """Raises a TiplError unless the policy is one that it can read."""
        if policy.task.bare_id not in {self.task.bare_id, *self.serves}:
            raise TiplError(
                f"a policy for {policy.task.env_id} was given, but this model was trained on "
                f"{self.task.env_id}; use a model of the same task"
            )
        if policy.task.wrappers != self.task.wrappers:
            raise TiplError(
                f"a policy for {policy.task.label} was given, but this model was trained on "
                f"{self.task.label}, where wrappers show other observations or take other "
                "actions; use a model of the same task"
            )
        super().check_policy(policy)

    def in_version(self: TrainedT, env_id: str) -> TrainedT:
        """The same forecaster for one of the other versions of its task that it serves.

        Raises:
            TiplError: it serves no such version, or tipl knows none.
        """
        if env_id not in self.serves:
            raise TiplError(
                f"{shown(env_id)} was asked for, but this model serves "
                f"{', '.join((self.task.bare_id, *self.serves))}; use a model of that task"
            )
        other = copy.copy(self)
        other.task = in_version(self.task, env_id)
        ids = {self.task.bare_id, *self.serves} - {env_id}
        other.serves = tuple(sorted(ids))
        return other

    def as_read(self, policy: Policy) -> Policy:
        """The policy under the frozen observation normaliser of the paths that it learned from.

        Where it has another one, the difference is folded into its first layer: that changes what
        it does only where one of the normalisers clips.
        """
        policy, frozen = super().as_read(policy), self.task.observation_statistics
        own = policy.observation_mean, policy.observation_std
        if np.allclose(own, frozen) and policy.observation_clip == OBSERVATION_CLIP:
            return policy
        params = refolded(policy.params, policy.layout, own, frozen)
        return Policy(params, policy.layout, policy.task, *frozen)

    def misfits(self, policies: Sequence[Policy]) -> Float64[np.ndarray, " N"]:
        """How far policies that it made are from what they were to do, as far as it can tell.

        0 is no difference, and smaller is better among networks of one architecture. No environment
        step is made. NaN of models that cannot tell, as by default.
        """
        return np.full(len(policies), np.nan)

    @property
    def training_trials(self) -> dict[str, list[int]]:
        """See `Forecaster.training_trials`: what its settings say."""
        return dict(self.settings.get("datasets", {}))

    @property
    def curves(self) -> dict[str, dict[str, list[Any]]]:
        """The curves of its training: lists by name, see `tipl.models.loop.CURVES`.

        They are by target, or by the part of the model that was trained.
        """
        return dict(self.settings.get("curves", {}))

    @property
    def steps_per_checkpoint(self) -> int | None:
        """Environment steps between the checkpoints that it learned from, if its settings say."""
        steps: int | None = self.settings.get("steps_per_checkpoint")
        return steps

    def with_options(
        self: TrainedT, target: Target | None = None, wished_return: float | None = None
    ) -> TrainedT:
        """The same forecaster, asked for one of its `targets` or a return; by default as it is.

        Raises:
            TiplError: it was not trained for the target, or without returns.
        """
        other = copy.copy(self)
        other.target = target or self.target
        if other.target not in self.targets:
            raise TiplError(
                f"the target {shown(target)} was given, but this {self.kind} was trained for "
                f"{', '.join(self.targets)}; use one of these, or train a model for it"
            )
        if wished_return is not None and not other.knows_returns:
            raise TiplError(
                f"a return of {wished_return} is wished for, but this model was trained without "
                f"returns (target {shown(other.target)}); train one with condition_on_return=True "
                "and ask for the target 'own'"
            )
        wish = self.wished_return if wished_return is None else wished_return
        other.wished_return = wish if other.knows_returns else None  # nor one wished for before
        return other

    def all_ways(self: TrainedT) -> list[TrainedT]:
        """The forecaster as it can be asked: for each target and, if it can, for a high return."""
        ways = []
        for target in self.targets:
            asked = self.with_options(target=target)
            ways.append(asked)
            if asked.knows_returns:
                # where its settings name none, one standard deviation above the mean
                high = self.settings.get("high_return", sum(self.return_scale))
                ways.append(asked.with_options(wished_return=round(high, 1)))
        return ways

    @property
    def knows_returns(self) -> bool:
        """Whether it can be asked for a return: by default never."""
        return False

    @property
    def scaled_wish(self) -> float:
        """The return to ask for, as the training was told returns; NaN is none."""
        if self.wished_return is None:
            return math.nan
        mean, std = self.return_scale
        wish = (self.wished_return - mean) / std
        if not abs(wish) <= np.finfo(np.float32).max:
            raise TiplError(
                f"a return of {self.wished_return} was wished for, but the model has learned from "
                f"returns of {mean:g} +- {std:g}; wish for one that is not so far from these"
            )
        return wish

    def save_pretrained(self, directory: str | Path, *, half: bool = False) -> None:
        """Writes `config.json` and `model.safetensors`, whole or not at all.

        Args:
            directory: where to; what an earlier model left there is replaced.
            half: write numbers in half precision, so that the file has half the size; each is then
                off by up to 0.05%. Once loaded, they are in single precision again.

        Raises:
            TiplError: the directory holds something else, or cannot be written; or a weight of the
                model is not finite, or too large for half precision.
        """
        config = {
            "kind": self.kind,
            "format_version": MODEL_FORMAT_VERSION,
            "task": self.task.to_json(),
            "num_checkpoints": self.num_checkpoints,
            "serves": list(self.serves),
            "settings": self.settings,
        }
        tensors = self._tensors()
        check_finite(f"the {self.kind} that is to be saved in {directory}", tensors)
        if half:
            tensors = {name: _halved(name, array) for name, array in tensors.items()}
        with atomic.new_directory(directory, MODEL_FILES) as new:
            storage.write_tensors(new / MODEL_WEIGHTS.name, tensors, {"kind": "model"})
            storage.write_json(new / MODEL.name, self._config() | config)

    @abc.abstractmethod
    def _config(self) -> dict[str, Any]:
        """What a kind of model has in its `config.json` beside what they all have."""

    @abc.abstractmethod
    def _tensors(self) -> dict[str, Array]:
        """All arrays of the model."""

    @classmethod
    def _check_config(cls, config: Mapping[str, Any], task: TaskSpec, num_checkpoints: int) -> None:
        """Raises a TiplError if what a kind of model has in its `config.json` is impossible.

        What all kinds have (task, length of paths, settings) has been checked before.
        """

    @classmethod
    def _array_types(cls, config: Mapping[str, Any]) -> dict[str, ArrayType] | None:
        """Types and shapes of a model's arrays, by a checked `config.json`; None for any."""
        return None

    @classmethod
    @abc.abstractmethod
    def _from_files(cls: type[TrainedT], config: Mapping[str, Any], tensors: Arrays) -> TrainedT:
        """The model of both checked files; raises a KeyError or the like if they do not match."""


def _halved(name: str, array: Array) -> Array:
    """An array in half precision, if it is in single precision now."""
    if array.dtype != np.float32:
        return array
    largest = float(np.abs(array).max(initial=0.0))
    if largest > (limit := float(np.finfo(np.float16).max)):
        raise TiplError(
            f"{shown(name)} holds {largest:g}, but half precision ends at {limit:g}; save the "
            "model without half"
        )
    return array.astype(np.float16)


class AnyArchitectureForecaster(TrainedForecaster):
    """Reads networks of any hidden sizes and units; without a layout, those it learned from."""

    def check_layout(self, layout: ParamLayout) -> None:
        """Raises a TiplError unless the weights are of an actor of its task."""
        units = layout.activation, layout.squashed
        expected = actor_layout(self.task, layout.hidden_sizes, *units)
        if layout != expected:
            raise TiplError(
                f"weights laid out as {layout} were given, but {self.name} reads the actors of "
                f"{self.task.env_id} alone: {expected}; give policies of this task, without a "
                "critic"
            )

    @property
    def default_layout(self) -> ParamLayout:
        """The layout of the networks that it was trained on."""
        units = self.settings.get("activation", "tanh"), self.settings.get("squashed", False)
        return actor_layout(self.task, self.hidden_sizes, *units)
