"""Training a PathTransformer on a dataset of policy learning paths."""

from __future__ import annotations

import dataclasses
import math
from typing import Any, NamedTuple, get_args

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn import functional

from tipl.errors import TiplError
from tipl.forecast import PathTransformerForecaster, single_threaded
from tipl.models.path_transformer import PathTransformer, PathTransformerConfig
from tipl.options import config_from_options
from tipl.paths import PathDataset
from tipl.progress import progress_bar
from tipl.tokenizers import Basis, Center, PathSVD, TemporalSVD, make_tokenizer

__all__ = ["TokenSequences", "TrainConfig", "token_sequences", "train"]

LOG_INTERVAL = 25
"""Training steps between two entries of the training curve."""


@dataclasses.dataclass(frozen=True)
class TrainConfig:
    """How a PathTransformer is trained. Equal seeds and data give equal models."""

    basis: Basis = "joint"
    """one SVD basis for all training paths, or a basis for each path (finds no basis, and so
    no forecast, from an untrained policy alone)"""
    center: Center = "initial"
    """what is subtracted before the SVD: nothing, the path's first checkpoint, or the mean"""
    rank: int = 16
    """coordinates of a token, K"""
    width: int = 64
    """width of the Transformer, D"""
    depth: int = 2
    """Transformer blocks"""
    heads: int = 4
    """attention heads"""
    condition_on_return: bool = False
    """tell the model each path's final return"""
    num_steps: int = 800
    """optimiser steps"""
    batch_size: int = 32
    """paths in each step"""
    learning_rate: float = 1e-3
    """peak of the one-cycle schedule"""
    weight_decay: float = 0.01
    """decoupled weight decay (AdamW)"""
    seed: int = 0
    """seed of the initial model and of the batches"""

    def __post_init__(self) -> None:
        for name in ("rank", "width", "depth", "heads", "num_steps", "batch_size"):
            if getattr(self, name) < 1:
                raise TiplError(f"{name} is {getattr(self, name)}; expected at least 1")
        if self.width % self.heads:
            raise TiplError(
                f"a width of {self.width} was given with {self.heads} heads; expected a multiple"
            )
        for name, choices in (("basis", get_args(Basis)), ("center", get_args(Center))):
            if getattr(self, name) not in choices:
                raise TiplError(
                    f"{name} is {getattr(self, name)!r}; expected one of {', '.join(choices)}"
                )
        if not 0 < self.learning_rate < math.inf:
            raise TiplError(f"learning_rate is {self.learning_rate}; expected a positive number")
        if not 0 <= self.weight_decay < math.inf:
            raise TiplError(f"weight_decay is {self.weight_decay}; expected 0 or more")


class TokenSequences(NamedTuple):
    """Paths as tokens, padded at the end to one length.

    Attributes:
        tokens: `[M, L + 1, K]`: position l predicts token l + 1.
        targets: which of the L predictions count, `[M, L]`.
        path: which of the N paths each sequence belongs to, `[M]`.
    """

    tokens: Float[Tensor, "M L1 K"]
    targets: Bool[Tensor, "M L"]
    path: Int[Tensor, " M"]


def token_sequences(
    tokenizer: TemporalSVD | PathSVD, params: Float[np.ndarray, "N T P"]
) -> TokenSequences:
    """The training sequences of paths `[N, T, P]`.

    In a joint basis, each path is one sequence and every next token is a target. In a path's own
    basis, the basis depends on where the history ends: each history of each path is a sequence,
    followed by the rest of the path in the same basis, and only those later tokens, which the
    basis has not seen, are targets.
    """
    num_paths, length = params.shape[:2]
    if isinstance(tokenizer, TemporalSVD):
        tokens = tokenizer.encode_history(params).tokens
        everywhere = torch.ones(num_paths, length - 1, dtype=torch.bool)
        return TokenSequences(
            torch.as_tensor(tokens, dtype=torch.float32), everywhere, torch.arange(num_paths)
        )
    rows, targets, path = [], [], []
    displacements = params - params[:, :1].astype(np.float64)
    for end in range(tokenizer.min_history, length):  # the first target is checkpoint `end`
        encoded = tokenizer.encode_history(params[:, :end])
        rows.append(tokenizer.encode_next(encoded, displacements))
        target = np.zeros((num_paths, length - 1), bool)
        target[:, end - 1 :] = True
        targets.append(target)
        path.append(np.arange(num_paths))
    return TokenSequences(
        torch.as_tensor(np.concatenate(rows), dtype=torch.float32),
        torch.as_tensor(np.concatenate(targets)),
        torch.as_tensor(np.concatenate(path)),
    )


@single_threaded()
def train(
    paths: PathDataset,
    *,
    held_out: PathDataset | None = None,
    config: TrainConfig | None = None,
    progress: bool = True,
    **options: Any,
) -> PathTransformerForecaster:
    """Fits the tokenizer and trains a PathTransformer to predict the next token (MSE).

    Args:
        paths: the training paths; diverged trials are left out.
        held_out: other paths of the same dataset, whose loss is recorded but never learned from.
        config: how to train, as an alternative to `options`.
        progress: show a progress bar.
        **options: fields of `TrainConfig`, such as `basis="path"` or `num_steps=2000`.

    Returns:
        A forecaster; `settings["curve"]` holds the training curve: `step`, `train_loss`,
        `held_out_loss` and `standing_still_loss`, in units of a mean squared one-step change.

    Raises:
        TiplError: an option is unknown or impossible, or no trial can be learned from.
    """
    config = config_from_options(TrainConfig, config, options, "train")
    if held_out is not None and held_out.layout != paths.layout:
        raise TiplError(
            f"held-out paths of {held_out.layout.size} parameters were given for training paths of "
            f"{paths.layout.size}; give paths of the same architecture"
        )
    params = _usable_params(paths)
    tokenizer = make_tokenizer(config.basis, config.rank, config.center)
    if isinstance(tokenizer, TemporalSVD):
        tokenizer.fit(params)
    sequences = token_sequences(tokenizer, params)
    if _unit(sequences) == 0:
        raise TiplError(
            f"the checkpoints of each path in {paths.directory} are equal, so there is nothing to "
            "learn; collect paths with a larger learning rate"
        )
    final_return, return_scale = _final_returns(paths)
    torch.manual_seed(config.seed)
    model = _initial_model(config, tokenizer, sequences, paths.num_checkpoints)
    validation = None
    if held_out is not None:
        validation = token_sequences(tokenizer, _usable_params(held_out))
    curve = _fit(model, config, sequences, final_return, validation, progress)
    return PathTransformerForecaster(
        tokenizer,
        model,
        paths.layout,
        paths.task,
        paths.num_checkpoints,
        return_scale,
        {
            "train": dataclasses.asdict(config),
            "dataset": paths.metadata.digest,
            "trials": paths.trials.tolist(),
            "curve": curve,
        },
    )


def _usable(paths: PathDataset) -> PathDataset:
    usable = paths.trials[~paths.diverged()]
    if len(usable) == 0:
        raise TiplError(
            f"all {paths.num_trials} trials of {paths.directory} diverged; collect paths with a "
            "smaller learning rate"
        )
    return paths.select(usable)


def _usable_params(paths: PathDataset) -> Float[np.ndarray, "N T P"]:
    params = _usable(paths).params()
    if params.shape[1] < 3:
        raise TiplError(
            f"the paths in {paths.directory} have {params.shape[1]} checkpoints; expected at "
            "least 3: collect more steps, or with a smaller checkpoint interval"
        )
    return params


def _final_returns(paths: PathDataset) -> tuple[Float[Tensor, " N"], tuple[float, float]]:
    """The scaled return that each usable path ends with (NaN if unknown), and mean and std."""
    final = _usable(paths).episodic_return()[:, -1].astype(np.float64)
    known = final[np.isfinite(final)]
    mean, std = (known.mean(), known.std()) if len(known) else (0.0, 1.0)
    std = max(float(std), 1e-6 * max(abs(float(mean)), 1.0))
    scaled = torch.as_tensor((final - mean) / std, dtype=torch.float32)
    return scaled, (float(mean), std)


def _initial_model(
    config: TrainConfig,
    tokenizer: TemporalSVD | PathSVD,
    sequences: TokenSequences,
    num_checkpoints: int,
) -> PathTransformer:
    tokens = sequences.tokens[:, :-1][sequences.targets]  # [M, L, K] -> [targets, K]
    changes = (sequences.tokens[:, 1:] - sequences.tokens[:, :-1])[sequences.targets]
    sizes = PathTransformerConfig(
        num_coordinates=tokenizer.num_coordinates,
        max_checkpoints=num_checkpoints,
        width=config.width,
        depth=config.depth,
        heads=config.heads,
        condition_on_return=config.condition_on_return,
    )
    return PathTransformer(sizes, _root_mean_square(tokens), _root_mean_square(changes))


def _root_mean_square(values: Float[Tensor, "M K"]) -> Float[Tensor, " K"]:
    rms = values.square().mean(dim=0).sqrt()
    # a coordinate that never moves must not be divided by zero
    return rms.clamp(min=1e-6 * float(rms.max()) + 1e-12)


def _fit(
    model: PathTransformer,
    config: TrainConfig,
    sequences: TokenSequences,
    final_return: Float[Tensor, " N"],
    validation: TokenSequences | None,
    progress: bool,
) -> dict[str, list[int | float | None]]:
    """Trains in place; returns the training curve, where None is a loss that is not known."""
    rng = torch.Generator().manual_seed(config.seed)
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=config.learning_rate, weight_decay=config.weight_decay
    )
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, config.learning_rate, total_steps=config.num_steps + 1, pct_start=0.1
    )
    unit = _unit(sequences)
    held_out_still = _standing_still_loss(validation, unit) if validation else float("nan")
    curve: dict[str, list[int | float]] = {
        "step": [], "train_loss": [], "held_out_loss": [], "standing_still_loss": [],
    }  # fmt: skip
    with progress_bar(progress) as bar:
        task = bar.add_task(f"train ({config.basis} basis)", total=config.num_steps, note="")
        for step in range(1, config.num_steps + 1):
            chosen = torch.randint(len(sequences.tokens), (config.batch_size,), generator=rng)
            returns = final_return[sequences.path[chosen]]
            # one path in ten hides its return, so that the model also works without
            returns[torch.rand(config.batch_size, generator=rng) < 0.1] = torch.nan
            loss = _loss(model, sequences, chosen, returns) / unit
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            schedule.step()
            if step % LOG_INTERVAL == 0 or step == config.num_steps:
                held_out_loss = _held_out_loss(model, validation) / unit
                curve["step"].append(step)
                curve["train_loss"].append(loss.item())
                curve["held_out_loss"].append(held_out_loss)
                curve["standing_still_loss"].append(held_out_still)
                note = f"loss {loss.item():.3f}"
                if validation is not None:
                    note += f", held-out {held_out_loss:.3f} (standing still {held_out_still:.3f})"
                bar.update(task, note=note)
            bar.advance(task)
    return {
        name: [None if math.isnan(value) else value for value in values]
        for name, values in curve.items()
    }


def _loss(
    model: PathTransformer,
    sequences: TokenSequences,
    chosen: Int[Tensor, " B"],
    final_return: Float[Tensor, " B"] | None,
) -> Tensor:
    tokens, targets = sequences.tokens[chosen], sequences.targets[chosen]
    length = tokens.shape[1] - 1
    positions = torch.arange(length).expand(len(tokens), -1)
    predicted = model(tokens[:, :-1], positions, final_return)
    return functional.mse_loss(predicted[targets], tokens[:, 1:][targets])


@torch.inference_mode()
def _held_out_loss(model: PathTransformer, sequences: TokenSequences | None) -> float:
    if sequences is None:
        return float("nan")
    # a fixed, evenly spread sample keeps the cost of a path's own basis in bounds
    chosen = torch.linspace(0, len(sequences.tokens) - 1, min(len(sequences.tokens), 256)).long()
    return float(_loss(model, sequences, chosen, None))


def _standing_still_loss(sequences: TokenSequences, unit: float) -> float:
    return _unit(sequences) / unit


def _unit(sequences: TokenSequences) -> float:
    """The mean squared one-step change of a coordinate: the loss of standing still."""
    changes = sequences.tokens[:, 1:] - sequences.tokens[:, :-1]
    return float(changes[sequences.targets].square().mean())
