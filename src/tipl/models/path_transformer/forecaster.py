"""A trained PathTransformer as a forecaster: tokens in, one checkpoint after the other out."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Annotated, Any, get_args

import msgspec
import numpy as np
import torch
from jaxtyping import Float

from tipl.core.arrays import Array
from tipl.core.schemas import ArrayType, conforming
from tipl.errors import TiplError
from tipl.forecast.base import Forecasts, Histories, Layout
from tipl.forecast.description import ReturnScale
from tipl.forecast.trained import Arrays, TrainedForecaster
from tipl.models import MAX_COORDINATES
from tipl.models.building import array_types, filled, outlined
from tipl.models.loop import torch_threads
from tipl.models.path_transformer.net import PathTransformer, PathTransformerConfig
from tipl.paths.metadata import Networks, networks_layout
from tipl.paths.svd import Basis, Center, PathSVD, TemporalSVD, make_tokenizer
from tipl.policies.layout import ParamLayout
from tipl.policies.tasks import TaskSpec


class _Tokenizer(msgspec.Struct):
    """What `config.json` says of a tokenizer."""

    basis: Basis
    rank: Annotated[int, msgspec.Meta(ge=1, le=MAX_COORDINATES)]
    center: Center


class _Described(msgspec.Struct):
    """What `config.json` says of this kind of model alone."""

    model: PathTransformerConfig
    tokenizer: _Tokenizer
    layout: list[Any] | dict[str, Any]
    return_scale: ReturnScale


class PathTransformerForecaster(TrainedForecaster):
    """A trained PathTransformer: forecasts one checkpoint after the other.

    Its tokenizer turns histories into tokens, of which the model predicts the next one. What it
    takes beside these and the layout that it was trained on, see `TrainedForecaster`.
    """

    kind = "PathTransformer"
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
        super().__init__(
            task, layout.hidden_sizes, num_checkpoints, return_scale=return_scale, settings=settings
        )
        self.tokenizer, self.model, self.layout = tokenizer, model.eval(), layout
        self.min_history = tokenizer.min_history
        self.joint_basis = tokenizer if isinstance(tokenizer, TemporalSVD) else None

    @property
    def label(self) -> str:
        """The kind of the model, its basis, and what it is a basis of unless displacements."""
        center = getattr(self.tokenizer, "center_kind", "initial")
        of = {"initial": "", "none": ", raw weights", "mean": ", weights less their mean"}[center]
        return f"PathTransformer ({self.basis} basis{of})"

    @property
    def basis(self) -> str:
        """`"joint"` or `"path"`: see `tipl.paths.svd`."""
        return "path" if isinstance(self.tokenizer, PathSVD) else "joint"

    @property
    def knows_returns(self) -> bool:
        """Whether it can be asked for a return."""
        return self.model.config.condition_on_return

    @torch_threads(1)
    def _forecast(self, histories: Histories, horizons: list[int], layout: Layout) -> Forecasts:
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
        final_return = torch.full((len(sequence),), self.scaled_wish)
        length = sequence.shape[1]
        for _ in range(horizon):
            window = sequence[:, -self.model.config.max_checkpoints :]
            positions = torch.arange(sequence.shape[1])[-window.shape[1] :]
            predicted = self.model(window, positions.expand(len(window), -1), final_return)
            sequence = torch.cat([sequence, predicted[:, -1:]], dim=1)
        return sequence[:, length:].double().numpy()

    def _config(self) -> dict[str, Any]:
        return {
            "model": dataclasses.asdict(self.model.config),
            "tokenizer": {
                "basis": self.basis,
                "rank": self.tokenizer.rank,
                "center": getattr(self.tokenizer, "center_kind", "initial"),
            },
            "layout": self.layout.to_json(),
            "return_scale": list(self.return_scale),
        }

    def _tensors(self) -> dict[str, Array]:
        weights = {f"model.{k}": v.numpy() for k, v in self.model.state_dict().items()}
        return weights | {f"tokenizer.{k}": v for k, v in self.tokenizer.state().items()}

    @classmethod
    def _check_config(cls, config: Mapping[str, Any], task: TaskSpec, num_checkpoints: int) -> None:
        said = conforming(config, _Described, f"a {cls.kind}'s description")
        model, tokenizer, layout = said.model, said.tokenizer, ParamLayout.from_json(said.layout)
        make_tokenizer(**msgspec.structs.asdict(tokenizer))
        most = model.num_coordinates <= tokenizer.rank
        if model.max_checkpoints != num_checkpoints or not (
            most if tokenizer.basis == "joint" else model.num_coordinates == tokenizer.rank
        ):
            raise TiplError(
                f"a {cls.kind} of {model.num_coordinates} coordinates and {model.max_checkpoints} "
                f"checkpoints has a tokenizer of {tokenizer.rank} and paths of {num_checkpoints}; "
                "restore its config.json from a copy, or train it again"
            )
        units = layout.activation, layout.squashed
        own = [
            networks_layout(task, layout.hidden_sizes, one, *units) for one in get_args(Networks)
        ]
        if layout not in own:
            raise TiplError(
                f"a {cls.kind} of networks of {layout} was given, but those of {task.env_id} are "
                f"{own[0]}; restore its config.json from a copy, or train it again"
            )

    @classmethod
    def _array_types(cls, config: Mapping[str, Any]) -> dict[str, ArrayType]:
        said = conforming(config, _Described, cls.kind)
        outline = array_types(outlined(lambda: PathTransformer(said.model)))
        types = {f"model.{name}": one for name, one in outline.items()}
        if said.tokenizer.basis == "joint":
            size = ParamLayout.from_json(said.layout).size
            shapes: tuple[tuple[int | str, ...], ...] = (
                (said.model.num_coordinates, size),
                ("values",),
                (size,),
            )
            for name, shape in zip(TemporalSVD.fitted, shapes, strict=True):
                types[f"tokenizer.{name}"] = ArrayType("float64", shape)
        return types

    @classmethod
    def _from_files(cls, config: Mapping[str, Any], tensors: Arrays) -> PathTransformerForecaster:
        arrays: dict[str, dict[str, Array]] = {"model": {}, "tokenizer": {}}
        for name, array in tensors.items():
            part, _, own_name = name.partition(".")
            arrays[part][own_name] = array
        said = conforming(config, _Described, cls.kind)
        tokenizer = make_tokenizer(**msgspec.structs.asdict(said.tokenizer))
        tokenizer.set_state(arrays["tokenizer"])
        model = filled(outlined(lambda: PathTransformer(said.model)), arrays["model"])
        return cls(
            tokenizer,
            model,
            ParamLayout.from_json(config["layout"]),
            TaskSpec.from_json(config["task"]),
            config["num_checkpoints"],
            said.return_scale,
            config["settings"],
        )
