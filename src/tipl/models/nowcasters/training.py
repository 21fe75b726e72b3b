"""Training a nowcaster: the last checkpoints of a history, and many horizons as targets."""

from __future__ import annotations

import torch
from jaxtyping import Int
from torch import Tensor

from tipl.core.seeds import HELD_OUT_SEED
from tipl.errors import TiplError
from tipl.models.config import TrainConfig
from tipl.models.data import ReturnScale
from tipl.models.learning_paths import LearningPaths, change_scales, draw_horizons, learning_paths
from tipl.models.loop import fit
from tipl.models.nowcasters.forecaster import NiNoForecaster, WNNForecaster
from tipl.models.nowcasters.net import CONTEXT, WNN, NiNo, NiNoConfig, Nowcaster, NowcasterConfig
from tipl.models.threads import torch_threads
from tipl.paths import PathDataset

__all__ = ["train_nowcaster"]

HORIZONS = 8
"""Forecasts from each history in a step: they share its reading, which is most of the work."""

HELD_OUT_BATCHES = 4
"""Batches in which the held-out loss is measured."""


@torch_threads(1)
def train_nowcaster(
    paths: PathDataset,
    held_out: PathDataset | None,
    config: TrainConfig,
    *,
    progress: bool = True,
) -> WNNForecaster | NiNoForecaster:
    """Trains a WNN or a NiNo to forecast the weights of its training paths.

    The loss is the mean squared error of the forecast weights at horizons drawn at random from
    histories drawn at random, in units of standing still's and with equal weight for each array.

    Raises:
        TiplError: no trial can be learned from, or the paths are not of actors alone.
    """
    data = _learning_paths(paths)
    loss = NowcastLoss(data, config.batch_size)
    held_out_loss = None
    if held_out is not None:
        held_out_loss = NowcastLoss(_learning_paths(held_out), 2 * config.batch_size)
    torch.manual_seed(config.seed)
    model = _initial_model(paths, config)

    @torch.inference_mode()
    def unseen(still: bool = False) -> float:
        if held_out_loss is None:
            return float("nan")
        rng = torch.Generator().manual_seed(HELD_OUT_SEED)
        batches = [held_out_loss(model, rng, still=still) for _ in range(HELD_OUT_BATCHES)]
        return float(torch.stack(batches).mean())

    curve = fit(
        model,
        config,
        lambda rng: loss(model, rng),
        unseen,
        held_out_still=unseen(still=True),
        label=f"train ({type(model).__name__})",
        progress=progress,
    )
    shared = (paths.task, paths.layout.hidden_sizes, {"curves": {"own": curve}})
    if isinstance(model, NiNo):
        return NiNoForecaster(model, *shared)
    return WNNForecaster(model, *shared)


class NowcastLoss:
    """The error of forecast weights, in units that make standing still about 1.

    Args:
        data: the paths.
        batch_size: forecasts in each batch; those from one history share it.
    """

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
        history = self.data.network(trials, last_checkpoints(ends))
        wanted = self.data.network(trials, ends_again + horizons)
        start = history.map(lambda array: array[:, -1:])
        change = start - start if still else model(history, horizons)
        missed = (start + change - wanted) / model.scales(start, horizons)
        return torch.stack([array.square().mean() for array in missed.arrays()]).mean()


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


def _initial_model(paths: PathDataset, config: TrainConfig) -> WNN | NiNo:
    scales, T = change_scales([paths]), paths.num_checkpoints
    if config.model == "wnn":
        return WNN(NowcasterConfig(T, config.width), *scales)
    task = paths.task
    sizes = NiNoConfig(T, config.width, task.observation_size, task.action_size)
    return NiNo(sizes, *scales)
