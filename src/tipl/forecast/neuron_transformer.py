"""A trained NeuronTransformer as a forecaster: networks in, better networks out, of any width."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, get_args

import numpy as np
import torch
from jaxtyping import Float

from tipl.errors import TiplError
from tipl.forecast.base import Target, TrainedForecaster, torch_threads
from tipl.models.network import Network
from tipl.models.neuron_transformer import (
    MAX_HIDDEN_LAYERS,
    Conditions,
    NeuronTransformer,
    NeuronTransformerConfig,
)
from tipl.policy import ParamLayout, Policy, actor_layout
from tipl.tasks import TaskSpec

__all__ = ["NeuronTransformerForecaster", "context_checkpoints"]

Array = np.ndarray[Any, np.dtype[Any]]

MAX_PARAMS_AT_ONCE = 2_000_000
"""Weights that are read in one pass of the model: bounds its memory."""


def context_checkpoints(length: int, context: int) -> list[int]:
    """The checkpoints of a history that a model attends to: the last ones densely, then the start.

    Args:
        length: checkpoints of the history.
        context: checkpoints to choose, at most.

    Returns:
        Their indices in order: the last, those 1, 3, 7, ... before it, and the first.
    """
    last = length - 1
    before = [last - (2**n - 1) for n in range(max(context - 1, 1))]
    chosen = {index for index in before if index >= 0}
    if context > 1:
        chosen.add(0)
    return sorted(chosen)


class NeuronTransformerForecaster(TrainedForecaster, kind="NeuronTransformer"):
    """Trained NeuronTransformers, one for each target: see `Target`.

    It reads networks of any hidden sizes, with 1 to 3 hidden layers.

    Args:
        models: by target; `elite` is the default of a forecaster that has both.
        task: the environment that they were trained on.
        hidden_sizes: of the networks that they were trained on, the default of new ones.
        num_checkpoints: length T of the paths that they were trained on.
        return_scale: mean and std of the final returns that conditioned the training.
        settings: how they were trained, for the record: JSON that is saved with them.
    """

    def __init__(
        self,
        models: Mapping[Target, NeuronTransformer],
        task: TaskSpec,
        hidden_sizes: Sequence[int],
        num_checkpoints: int,
        return_scale: tuple[float, float] = (0.0, 1.0),
        settings: dict[str, Any] | None = None,
    ) -> None:
        # in an order that is the same once it has been saved
        self.models = {t: models[t].eval() for t in get_args(Target) if t in models}
        self.task, self.hidden_sizes = task, tuple(hidden_sizes)
        self.num_checkpoints, self.return_scale = num_checkpoints, return_scale
        self.settings = settings or {}
        self.targets = tuple(self.models)
        self.target = self.targets[0]

    @property
    def name(self) -> str:  # type: ignore[override]
        """What tables and pictures call it: never both targets in one row."""
        return f"NeuronTransformer ({self.target})"

    @property
    def knows_returns(self) -> bool:
        """Whether it can be asked for a return."""
        train = self.settings.get("train", {})
        return self.target == "own" and bool(train.get("condition_on_return", False))

    @torch_threads(1)
    def _optimize(
        self, params: Float[np.ndarray, "B P"], layout: ParamLayout, horizon: int, steps: int
    ) -> Float[np.ndarray, "B P"]:
        bounds = np.linspace(0, horizon, steps + 1).round().astype(int)
        history, times = params[:, None], [0]
        for jump in np.diff(bounds).tolist():
            ahead = self._forecast_one(history, times, layout, jump)
            history = np.concatenate([history, ahead[:, None]], axis=1)
            times.append(times[-1] + jump)
        return np.asarray(history[:, -1])

    @torch_threads(1)
    def _forecast(
        self,
        histories: Float[np.ndarray, "B T P"],
        horizons: list[int],
        layout: ParamLayout | None,
    ) -> Float[np.ndarray, "B H P"]:
        layout = layout or actor_layout(self.task, self.hidden_sizes)
        times = list(range(histories.shape[1]))
        ahead = [self._forecast_one(histories, times, layout, horizon) for horizon in horizons]
        return np.stack(ahead, axis=1)  # H of [B, P] -> [B, H, P]

    @torch.inference_mode()
    def _forecast_one(
        self,
        histories: Array,
        times: list[int],
        layout: ParamLayout,
        horizon: int,
    ) -> Array:
        """The weights `[B, P]` at one horizon after histories `[B, T, P]` of known times."""
        model = self.models[self.target]
        chosen = context_checkpoints(len(times), model.config.context)
        known = torch.tensor([float(times[index]) for index in chosen])
        sizes = (self.task.observation_size, *layout.hidden_sizes, self.task.action_size)
        read = np.ascontiguousarray(histories[:, chosen], np.float32)
        at_once = max(1, MAX_PARAMS_AT_ONCE // (len(chosen) * layout.size))
        blocks = []
        for start in range(0, len(read), at_once):
            block = torch.from_numpy(read[start : start + at_once])
            conditions = Conditions(
                known.expand(len(block), -1),
                torch.full(block.shape[:2], float(horizon)),
                torch.full(block.shape[:2], self._scaled_wish),
            )
            if self.target == "elite":
                conditions = Conditions.whole_path(len(block), self.num_checkpoints)
            network = Network.from_flat(block, sizes, not self.task.discrete)
            change = model(network, conditions).flat()[:, -1]
            blocks.append((block[:, -1] + change).numpy())
        return np.concatenate(blocks)

    @property
    def _scaled_wish(self) -> float:
        """The return to ask for, as the model was told returns; NaN is none."""
        if self.wished_return is None:
            return float("nan")
        mean, std = self.return_scale
        return (self.wished_return - mean) / std

    def _check_policy(self, policy: Policy) -> None:
        super()._check_policy(policy)
        mean, std = np.array(self.task.observation_mean), np.array(self.task.observation_std)
        if not (
            np.allclose(policy.observation_mean, mean) and np.allclose(policy.observation_std, std)
        ):
            raise TiplError(
                "a policy with an observation normaliser of its own was given, but this model was "
                f"trained on policies with the frozen one of {self.task.env_id}; fold the "
                "difference into the policy's first layer, or train a policy with "
                "normaliser='frozen'"
            )

    def _check_layout(self, layout: ParamLayout) -> None:
        depth = len(layout.hidden_sizes)
        if layout != actor_layout(self.task, layout.hidden_sizes):
            raise TiplError(
                f"weights laid out as {', '.join(layout.names)} were given, but {self.name} reads "
                f"the actors of {self.task.env_id} alone; give actors without a critic"
            )
        if not 1 <= depth <= MAX_HIDDEN_LAYERS:
            raise TiplError(
                f"a network with {depth} hidden layers was given, but {self.name} reads 1 to "
                f"{MAX_HIDDEN_LAYERS}; use a network of so many"
            )

    def _check_size(self, size: int, layout: ParamLayout | None) -> None:
        layout = layout or actor_layout(self.task, self.hidden_sizes)
        if size != layout.size:
            raise TiplError(
                f"a history of {size} parameters was given, but networks with hidden layers of "
                f"{layout.hidden_sizes} units have {layout.size}; give the layout of the weights"
            )

    def _config(self) -> dict[str, Any]:
        return {
            "models": {
                str(t): dataclasses.asdict(model.config) for t, model in self.models.items()
            },
            "hidden_sizes": list(self.hidden_sizes),
            "return_scale": list(self.return_scale),
        }

    def _tensors(self) -> dict[str, Array]:
        return {
            f"{target}.{name}": tensor.numpy()
            for target, model in self.models.items()
            for name, tensor in model.state_dict().items()
        }

    @classmethod
    def _from_files(
        cls, directory: Path, config: Mapping[str, Any], tensors: Mapping[str, Array]
    ) -> NeuronTransformerForecaster:
        models: dict[Target, NeuronTransformer] = {
            target: NeuronTransformer(NeuronTransformerConfig(**sizes))
            for target, sizes in config["models"].items()
        }
        weights = {name: torch.from_numpy(array) for name, array in tensors.items()}
        try:
            # refuses weights of a target that the config.json does not name, too
            torch.nn.ModuleDict({str(t): m for t, m in models.items()}).load_state_dict(weights)
        except RuntimeError as error:
            raise TiplError(
                f"{directory / 'model.safetensors'} is not of the model in the config.json beside "
                "it; restore both from a copy, or train the model again"
            ) from error
        return cls(
            models,
            TaskSpec.from_json(config["task"]),
            config["hidden_sizes"],
            config["num_checkpoints"],
            tuple(config["return_scale"]),
            config["settings"],
        )
