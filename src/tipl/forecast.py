"""Forecasters: from the history of a policy's weights to its future weights."""

from __future__ import annotations

import abc
import contextlib
import dataclasses
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from threadpoolctl import threadpool_limits

from tipl import storage
from tipl.errors import TiplError
from tipl.models.path_transformer import PathTransformer, PathTransformerConfig
from tipl.policy import ParamLayout, Policy
from tipl.tasks import TaskSpec
from tipl.tokenizers import PathSVD, TemporalSVD, make_tokenizer

__all__ = ["Forecaster", "PathTransformerForecaster", "load_forecaster", "single_threaded"]

Array = np.ndarray[Any, np.dtype[Any]]

MODEL_FORMAT_VERSION = 1


@contextlib.contextmanager
def single_threaded() -> Iterator[None]:
    """Lets torch and BLAS use one thread.

    At these model sizes more threads gain little, wait for each other when other processes are
    busy, and make results depend on the number of processors.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with threadpool_limits(1, "blas"):
            yield
    finally:
        torch.set_num_threads(threads)


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

    def forecast(
        self, history: Float[np.ndarray, "*batch T P"], horizon: int | Sequence[int]
    ) -> Float[np.ndarray, ...]:
        """Weights `horizon` checkpoints after the last one of a history.

        Args:
            history: the checkpoints `[T, P]` of a path from its first one on, in order, or many
                histories of equal length `[..., T, P]`.
            horizon: checkpoints to jump ahead, or several such numbers.

        Returns:
            The forecast weights `[..., P]`, or `[..., H, P]` for a sequence of H horizons; float32.

        Raises:
            TiplError: the horizon is below 1, or the history is too short, not finite or of
                another architecture.
        """
        horizons = [horizon] if isinstance(horizon, int) else list(horizon)
        self._check(history, horizons)
        batch, (length, size) = history.shape[:-2], history.shape[-2:]
        # [*batch, T, P] -> [B, T, P]
        forecasts = self._forecast(history.reshape(-1, length, size), horizons)
        forecasts = forecasts.astype(np.float32)
        if isinstance(horizon, int):
            return forecasts.reshape(*batch, size)  # [B, 1, P] -> [*batch, P]
        return forecasts.reshape(*batch, len(horizons), size)  # [B, H, P] -> [*batch, H, P]

    @abc.abstractmethod
    def _forecast(
        self, histories: Float[np.ndarray, "B T P"], horizons: list[int]
    ) -> Float[np.ndarray, "B H P"]:
        """The forecasts of checked histories at checked horizons, in the order given."""

    def _check(self, history: Array, horizons: list[int]) -> None:
        if not horizons or min(horizons) < 1:
            raise TiplError(
                f"a horizon of {min(horizons, default='no checkpoint')} was given; expected 1 or "
                "more checkpoints ahead: choose another"
            )
        if history.ndim < 2 or history.shape[-2] < self.min_history:
            raise TiplError(
                f"a history of shape {history.shape} was given, but {self.name} needs "
                f"[T, P] with at least T = {self.min_history} checkpoints; give more of the path"
            )
        if self.layout is not None and history.shape[-1] != self.layout.size:
            raise TiplError(
                f"a history of {history.shape[-1]} parameters was given, but {self.name} was "
                f"trained on networks of {self.layout.size} parameters; use one of the same "
                "architecture, or train a model on paths of this one"
            )
        if not np.isfinite(history).all():
            raise TiplError(
                "the history holds weights that are NaN or infinite; use the checkpoints before "
                "the trial diverged"
            )


class PathTransformerForecaster(Forecaster):
    """A trained PathTransformer with its tokenizer: forecasts one checkpoint after the other.

    Args:
        tokenizer: turns histories into tokens.
        model: predicts the next token.
        layout: the parameters that it was trained on.
        task: the environment that it was trained on.
        num_checkpoints: length T of the paths that it was trained on.
        return_scale: mean and std of the final returns that conditioned the training.
        settings: how it was trained, for the record: JSON that is saved with it.
    """

    layout: ParamLayout

    def __init__(
        self,
        tokenizer: TemporalSVD | PathSVD,
        model: PathTransformer,
        layout: ParamLayout,
        task: TaskSpec,
        num_checkpoints: int,
        return_scale: tuple[float, float] = (0.0, 1.0),
        settings: dict[str, Any] | None = None,
    ) -> None:
        self.tokenizer, self.model = tokenizer, model.eval()
        self.layout, self.task, self.num_checkpoints = layout, task, num_checkpoints
        self.return_scale = return_scale
        self.settings = settings or {}
        self.min_history = tokenizer.min_history
        self.wished_return: float | None = None
        self.name = f"PathTransformer ({self.basis} basis)"

    @property
    def basis(self) -> str:
        """`"joint"` or `"path"`: see `tipl.tokenizers`."""
        return "path" if isinstance(self.tokenizer, PathSVD) else "joint"

    def optimize(self, policy: Policy, horizon: int | None = None) -> Policy:
        """A better policy from one untrained (or half-trained) one, by inference alone.

        Args:
            policy: of the task and architecture that the model was trained on.
            horizon: checkpoints to jump ahead; by default to the end of the training paths.

        Raises:
            TiplError: the policy is of another task or architecture, or this model's tokens need
                a longer history than one checkpoint.
        """
        if policy.task.env_id != self.task.env_id:
            raise TiplError(
                f"a policy for {policy.task.env_id} was given, but this model was trained on "
                f"{self.task.env_id}; use a model of the same task"
            )
        if policy.layout != self.layout:
            raise TiplError(
                f"a policy of {policy.layout.size} parameters with hidden layers of "
                f"{policy.layout.hidden_sizes} units was given, but this model was trained on "
                f"{self.layout.size} and {self.layout.hidden_sizes}; use a policy of the same "
                "architecture, or train a model on paths of this one"
            )
        horizon = self.num_checkpoints - 1 if horizon is None else horizon
        return policy.with_params(self.forecast(policy.params[None], horizon))

    @single_threaded()
    def _forecast(
        self, histories: Float[np.ndarray, "B T P"], horizons: list[int]
    ) -> Float[np.ndarray, "B H P"]:
        tokens, directions = self.tokenizer.encode_history(histories)
        future = self.forecast_tokens(tokens, max(horizons))  # [B, max horizon, K]
        last = tokens[:, -1:].astype(np.float32)  # as the model read it: standing still is exact
        changes = future[:, [horizon - 1 for horizon in horizons]] - last
        return np.asarray(histories[:, -1:] + changes @ directions)

    @torch.inference_mode()
    def forecast_tokens(
        self, tokens: Float[np.ndarray, "B T K"], horizon: int
    ) -> Float[np.ndarray, "B H K"]:
        """The next `horizon` tokens, autoregressively: each is read again to predict the next."""
        sequence = torch.as_tensor(tokens, dtype=torch.float32)
        final_return = None
        if self.wished_return is not None:
            if not self.model.config.condition_on_return:
                raise TiplError(
                    f"a return of {self.wished_return} is wished for, but this model was trained "
                    "without returns; train one with condition_on_return=True"
                )
            mean, std = self.return_scale
            final_return = torch.full((len(sequence),), (self.wished_return - mean) / std)
        length = sequence.shape[1]
        for _ in range(horizon):
            window = sequence[:, -self.model.config.max_checkpoints :]
            positions = torch.arange(sequence.shape[1])[-window.shape[1] :]
            predicted = self.model(window, positions.expand(len(window), -1), final_return)
            sequence = torch.cat([sequence, predicted[:, -1:]], dim=1)
        return sequence[:, length:].double().numpy()

    def save_pretrained(self, directory: str | Path) -> None:
        """Writes `config.json` and `model.safetensors`, whole or not at all.

        Raises:
            TiplError: the directory holds something else, or cannot be written.
        """
        directory = Path(directory)
        weights = {f"model.{k}": v.numpy() for k, v in self.model.state_dict().items()}
        fitted = {f"tokenizer.{k}": v for k, v in self.tokenizer.state().items()}
        with storage.new_directory(directory, replaces="config.json") as new:
            storage.write_tensors(new / "model.safetensors", weights | fitted, {"kind": "model"})
            storage.write_json(
                new / "config.json",
                {
                    "kind": "PathTransformer",
                    "format_version": MODEL_FORMAT_VERSION,
                    "model": dataclasses.asdict(self.model.config),
                    "tokenizer": {
                        "basis": self.basis,
                        "rank": self.tokenizer.rank,
                        "center": getattr(self.tokenizer, "center_kind", "initial"),
                    },
                    "task": self.task.to_json(),
                    "layout": self.layout.to_json(),
                    "num_checkpoints": self.num_checkpoints,
                    "return_scale": list(self.return_scale),
                    "settings": self.settings,
                },
            )

    @classmethod
    def from_pretrained(cls, directory: str | Path) -> PathTransformerForecaster:
        """Reads what `save_pretrained` wrote.

        Raises:
            TiplError: there is no model in the directory, or a file is damaged.
        """
        directory = Path(directory)
        config = storage.read_json(directory / "config.json", "a model (made by `tipl train`)")
        version = config.get("format_version")
        if version != MODEL_FORMAT_VERSION:
            raise TiplError(
                f"{directory} holds a model of format version {version!r}, but this tipl reads "
                f"version {MODEL_FORMAT_VERSION}; update tipl"
            )
        tensors, _ = storage.read_tensors(directory / "model.safetensors", "the model's weights")
        tokenizer = make_tokenizer(**config["tokenizer"])
        model = PathTransformer(PathTransformerConfig(**config["model"]))
        arrays = _with_prefix(tensors, "model.")
        weights = {name: torch.from_numpy(array) for name, array in arrays.items()}
        try:
            tokenizer.set_state(_with_prefix(tensors, "tokenizer."))
            model.load_state_dict(weights)
        except (KeyError, RuntimeError) as error:
            raise TiplError(
                f"{directory / 'model.safetensors'} is not of the model in the config.json beside "
                "it; restore both from a copy, or train the model again"
            ) from error
        return cls(
            tokenizer,
            model,
            ParamLayout.from_json(config["layout"]),
            TaskSpec.from_json(config["task"]),
            config["num_checkpoints"],
            tuple(config["return_scale"]),
            config["settings"],
        )


def _with_prefix(tensors: dict[str, Array], prefix: str) -> dict[str, Array]:
    return {
        name.removeprefix(prefix): array
        for name, array in tensors.items()
        if name.startswith(prefix)
    }


def load_forecaster(directory: str | Path) -> PathTransformerForecaster:
    """The trained model in a directory, whatever its kind.

    Raises:
        TiplError: there is no model in the directory, or a file is damaged.
    """
    return PathTransformerForecaster.from_pretrained(directory)
