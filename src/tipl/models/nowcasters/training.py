"""Training a nowcaster: the last checkpoints of a history, and many horizons as targets."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import torch
from jaxtyping import Int
from torch import Tensor

from tipl.errors import TiplError
from tipl.models import TrainConfig
from tipl.models.learning_paths import (
    LearningPaths,
    ReturnScale,
    change_scales,
    draw_horizons,
    learning_paths,
)
from tipl.models.loop import fit, mean_of_batches, torch_threads
from tipl.models.nowcasters import WNNTrainConfig
from tipl.models.nowcasters.forecaster import NiNoForecaster, WNNForecaster
from tipl.models.nowcasters.net import CONTEXT, WNN, NiNo, NiNoConfig, Nowcaster, NowcasterConfig
from tipl.models.parallel import Share
from tipl.paths import PathDataset

HORIZONS = 8
"""Forecasts from each history in a step: they share its reading, which is most of the work."""


@torch_threads(1)
def train_nowcaster(
    datasets: Sequence[PathDataset],
    held_out: Sequence[PathDataset],
    config: TrainConfig,
    *,
    threads: int | None = None,
    progress: bool = True,
) -> WNNForecaster | NiNoForecaster:
    """Trains a WNN or a NiNo, as the configuration says, to forecast its training paths' weights.

    The loss is the mean squared error of the forecast weights at horizons drawn at random from
    histories drawn at random, in units of standing still's and with equal weight for each array.
    It learns from one dataset, is tested on one or none, and uses one thread.
    """
    (paths,) = datasets
    loss = NowcastLoss(_learning_paths(paths), config.batch_size)
    others = [NowcastLoss(_learning_paths(other), 2 * config.batch_size) for other in held_out]
    torch.manual_seed(config.seed)
    scales, T, task = change_scales([paths]), paths.num_checkpoints, paths.task
    forecaster: type[WNNForecaster | NiNoForecaster] = NiNoForecaster
    model: Nowcaster
    if isinstance(config, WNNTrainConfig):
        model, forecaster = WNN(NowcasterConfig(T, config.width), *scales), WNNForecaster
    else:
        sizes = NiNoConfig(T, config.width, task.observation_size, task.action_size)
        model = NiNo(sizes, *scales)
    label, batch_loss = f"train ({type(model).__name__})", partial(loss, model)
    held_out_loss = partial(mean_of_batches, others[0], model) if others else None
    curve = fit(model, config, batch_loss, held_out_loss, label=label, progress=progress)
    return forecaster(model, task, paths.layout.hidden_sizes, {"curves": {"own": curve}})


class NowcastLoss:
    """The error of forecast weights, in units that make standing still about 1."""

    def __init__(self, data: LearningPaths, batch_size: int) -> None:
        self.data, self.histories = data, max(1, batch_size // HORIZONS)

    def __call__(self, model: Nowcaster, rng: torch.Generator, *, still: bool = False) -> Tensor:
        """The loss of a model, or of standing still in its units, on a batch."""
        N, T = self.data.params.shape[:2]
        trials = torch.randint(N, (self.histories,), generator=rng)
        # from the first history of two checkpoints to the last that has a future
        ends = torch.randint(1, T - 1, (self.histories,), generator=rng)
        ends_again = ends[:, None].expand(-1, HORIZONS)  # [B, H]
        horizons = draw_horizons(ends_again, T, rng)
        share = Share.of(len(trials))
        trials, ends, ends_again, horizons = map(share, (trials, ends, ends_again, horizons))
        history = self.data.network(trials, last_checkpoints(ends))
        wanted = self.data.network(trials, ends_again + horizons)
        start = history.last()
        change = start - start if still else model(history, horizons)
        missed = (start + change - wanted) / model.scales(start, horizons)
        return share.scaled(missed.mean_square())


def last_checkpoints(ends: Int[Tensor, " B"]) -> Int[Tensor, "B C"]:
    """The last `CONTEXT` checkpoints of histories that end at `ends`; the first may be repeated."""
    return (ends[:, None] + torch.arange(1 - CONTEXT, 1)).clamp(min=0)


def _learning_paths(paths: PathDataset) -> LearningPaths:
    networks = paths.metadata.networks
    if networks != "actor":
        raise TiplError(
            f"the paths in {paths.directory} have networks={networks!r}, but a nowcaster learns "
            "from actors alone: collect such paths"
        )
    return learning_paths(paths, ReturnScale(0.0, 1.0), seed=0, anchors=0)
