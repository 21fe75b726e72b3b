"""Training a PathTransformer: tokens of whole paths, and the next one as the target."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn import functional

from tipl.errors import TiplError
from tipl.models.building import outlined
from tipl.models.learning_paths import return_scale, usable, usable_params
from tipl.models.loop import fit, torch_threads
from tipl.models.parallel import Share
from tipl.models.path_transformer import PathTrainConfig
from tipl.models.path_transformer.forecaster import PathTransformerForecaster
from tipl.models.path_transformer.net import PathTransformer, PathTransformerConfig
from tipl.paths import PathDataset
from tipl.paths.svd import PathSVD, TemporalSVD, make_tokenizer


class TokenSequences(NamedTuple):
    """Paths as tokens, padded at the end to one length."""

    tokens: Float[Tensor, "M L1 K"]
    """L + 1 of each sequence: position l predicts token l + 1"""
    targets: Bool[Tensor, "M L"]
    """which of the L predictions count"""
    path: Int[Tensor, " M"]
    """which of the N paths each sequence belongs to"""

    def changes(self) -> Float[Tensor, "targets K"]:
        """The one-step changes that lead to the targets."""
        return (self.tokens[:, 1:] - self.tokens[:, :-1])[self.targets]

    def still_loss(self) -> float:
        """The loss of standing still: the mean squared one-step change of a coordinate."""
        return float(self.changes().square().mean())

    def loss(self, model: PathTransformer, chosen: Tensor, returns: Tensor | None) -> Tensor:
        """The mean squared error of the targets of some of the sequences."""
        tokens, targets = self.tokens[chosen], self.targets[chosen]
        positions = torch.arange(tokens.shape[1] - 1).expand(len(tokens), -1)
        predicted = model(tokens[:, :-1], positions, returns)
        return functional.mse_loss(predicted[targets], tokens[:, 1:][targets])


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
        first_targets = [1]
        rows = [tokenizer.encode_history(params).tokens]
    else:
        first_targets = [*range(tokenizer.min_history, length)]
        displacements = params - params[:, :1].astype(np.float64)
        histories = (tokenizer.encode_history(params[:, :end]) for end in first_targets)
        rows = [tokenizer.encode_next(encoded, displacements) for encoded in histories]
    counts = np.arange(1, length) >= np.array(first_targets)[:, None]  # [histories, L]
    tokens = torch.as_tensor(np.concatenate(rows), dtype=torch.float32)
    if not tokens.isfinite().all():
        raise TiplError(
            "the tokens of a path are too large for float32: it has come back to where it started, "
            "whose distance is their unit; leave the trial out, or train with basis='joint'"
        )
    return TokenSequences(
        tokens,
        torch.as_tensor(np.repeat(counts, num_paths, axis=0)),
        torch.arange(num_paths).repeat(len(rows)),
    )


@torch_threads(1)
def train_path_transformer(
    datasets: Sequence[PathDataset],
    held_out: Sequence[PathDataset],
    config: PathTrainConfig,
    *,
    threads: int | None = None,
    progress: bool = True,
) -> PathTransformerForecaster:
    """Fits the tokenizer and trains a PathTransformer to predict the next token (MSE).

    Losses are in units of a mean squared one-step change. It learns from one dataset, is tested on
    one or none, and uses one thread.
    """
    paths = usable(datasets[0])
    params = usable_params(paths)
    tokenizer = make_tokenizer(config.basis, config.rank, config.center)
    if isinstance(tokenizer, TemporalSVD):
        tokenizer.fit(params)
    sequences = token_sequences(tokenizer, params)
    unit = sequences.still_loss()
    if unit == 0:
        raise TiplError(
            f"the checkpoints of each path in {paths.directory} are equal, so there is nothing to "
            "learn; collect paths with a larger learning rate"
        )
    final_return = paths.episodic_return()[:, -1]
    scale = return_scale(final_return)
    torch.manual_seed(config.seed)
    model = _initial_model(config, sequences)
    validation = [token_sequences(tokenizer, usable_params(usable(other))) for other in held_out]
    returns = scale.scaled(final_return)

    def batch_loss(rng: torch.Generator) -> Tensor:
        chosen = torch.randint(len(sequences.tokens), (config.batch_size,), generator=rng)
        known = returns[sequences.path[chosen]]
        # one path in ten hides its return, so that the model also works without
        known[torch.rand(config.batch_size, generator=rng) < 0.1] = torch.nan
        share, targets = Share.of(len(chosen)), sequences.targets[chosen].sum(dim=1)  # [B]
        return share.scaled(sequences.loss(model, share(chosen), share(known)) / unit, targets)

    @torch.inference_mode()
    def held_out_loss(*, still: bool = False) -> float:
        (unseen,) = validation
        if still:
            return unseen.still_loss() / unit
        # a fixed, evenly spread sample keeps the cost of a path's own basis in bounds
        count = len(unseen.tokens)
        chosen = torch.linspace(0, count - 1, min(count, 256)).long()
        return float(unseen.loss(model, chosen, None)) / unit

    label, unseen_loss = f"train ({config.basis} basis)", held_out_loss if validation else None
    curve = fit(model, config, batch_loss, unseen_loss, label=label, progress=progress)
    settings = {"curves": {"own": curve}}
    return PathTransformerForecaster(
        tokenizer, model, paths.layout, paths.task, paths.num_checkpoints, scale, settings
    )


def _initial_model(config: PathTrainConfig, sequences: TokenSequences) -> PathTransformer:
    tokens = sequences.tokens[:, :-1][sequences.targets]  # [M, L, K] -> [targets, K]
    length, K = sequences.tokens.shape[1:]
    sizes = PathTransformerConfig(
        K, length, config.width, config.depth, config.heads, config.condition_on_return
    )
    scales = _root_mean_square(tokens), _root_mean_square(sequences.changes())
    outlined(lambda: PathTransformer(sizes))  # before it takes memory
    return PathTransformer(sizes, *scales)


def _root_mean_square(values: Float[Tensor, "M K"]) -> Float[Tensor, " K"]:
    rms = values.square().mean(dim=0).sqrt()
    # a coordinate that never moves must not be divided by zero
    return rms.clamp(min=1e-6 * float(rms.max()) + 1e-12)
