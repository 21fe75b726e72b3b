"""The target `own`: what PPO would have made of a network, learned from paths."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from tipl.evaluation.visits import visited_observations
from tipl.models.action_error import ActionError
from tipl.models.config import TrainConfig
from tipl.models.data import ReturnScale, usable, usable_params
from tipl.models.network import Network
from tipl.models.neuron_transformer.forecaster import context_checkpoints
from tipl.models.neuron_transformer.net import REFERENCE_WIDTH, Conditions, NeuronTransformer
from tipl.paths import PathDataset
from tipl.policies.layout import layer_sizes

__all__ = ["LearningPaths", "OwnLoss", "change_scales", "learning_paths"]

NUM_ANCHORS = 8
"""Checkpoints of each path whose policies are run to see the states that they visit."""

STEPS_OF_ANCHOR = 192
"""Environment steps of each of those policies."""

STATES_OF_ANCHOR = 64
"""Observations that are kept of them."""


@dataclasses.dataclass(frozen=True)
class LearningPaths:
    """The paths of one dataset as a NeuronTransformer learns from them.

    Attributes:
        params: weights `[N, T, P]` of the actors.
        sizes: units of each layer, from the inputs to the outputs.
        has_log_std: whether the policies are Gaussian.
        returns: scaled return of each checkpoint; NaN is unknown.
        anchors: checkpoints `[C]` that were run, if any.
        observations: what they saw, normalised, `[N, C, S, O]`.
    """

    params: Float[Tensor, "N T P"]
    sizes: tuple[int, ...]
    has_log_std: bool
    returns: Float[Tensor, "N T"]
    anchors: Int[Tensor, " C"]
    observations: Float[Tensor, "N C S O"]

    @property
    def env_steps(self) -> int:
        """Environment steps that the observations took."""
        return len(self.params) * len(self.anchors) * STEPS_OF_ANCHOR

    def network(self, trials: Int[Tensor, " B"], checkpoints: Int[Tensor, "B L"]) -> Network:
        """Checkpoints of trials."""
        params = self.params[trials[:, None], checkpoints]  # [B, L, P]
        return Network.from_flat(params, self.sizes, self.has_log_std)

    def observations_near(
        self, trials: Int[Tensor, " B"], checkpoints: Int[Tensor, " B"]
    ) -> Float[Tensor, "B S O"]:
        """What the policies of trials see at the anchors nearest to checkpoints."""
        distance = (self.anchors[None] - checkpoints[:, None]).abs()  # [B, C]
        return self.observations[trials, distance.argmin(dim=1)]


def learning_paths(
    paths: PathDataset, scale: ReturnScale, seed: int, *, anchors: int = NUM_ANCHORS
) -> LearningPaths:
    """Reads a dataset, and runs some of its policies to see the states that they visit.

    Args:
        paths: the dataset; diverged trials are left out.
        scale: of the returns.
        seed: of the episodes.
        anchors: checkpoints of each path whose policies are run; 0 where no states are needed.
    """
    params, task = usable_params(paths), paths.task
    last = params.shape[1] - 1
    places = np.unique(np.linspace(0, last, anchors + 1).round().astype(int)[1:])
    return LearningPaths(
        torch.as_tensor(params),
        layer_sizes(task, paths.layout.hidden_sizes),
        not task.discrete,
        scale.scaled(usable(paths).episodic_return()),
        torch.as_tensor(places),
        torch.as_tensor(_observations(params[:, places], paths, seed)),
    )


def _observations(
    params: Float[np.ndarray, "N C P"], paths: PathDataset, seed: int
) -> Float[np.ndarray, "N C S O"]:
    """What policies see, normalised."""
    N, C, P = params.shape
    if C == 0:
        return np.zeros((N, 0, 0, paths.task.observation_size), np.float32)
    seen = visited_observations(
        params.reshape(-1, P),  # [N, C, P] -> [N * C, P]
        paths.layout,
        paths.task,
        STEPS_OF_ANCHOR,
        noise=0.2,
        seed=seed,
    )
    kept = seen[:, :: STEPS_OF_ANCHOR // STATES_OF_ANCHOR]
    return kept.reshape(N, C, *kept.shape[1:])  # [N * C, S, O] -> [N, C, S, O]


def change_scales(
    datasets: Sequence[PathDataset],
) -> tuple[Float[Tensor, "T 3 2"], Float[Tensor, " T"]]:
    """Root mean squares of changes by horizon, for `NeuronTransformer`."""
    found = [_change_scales(usable(dataset)) for dataset in datasets]
    squares = np.mean([table**2 for table in found], axis=0)  # [T, 7]
    table = torch.as_tensor(np.sqrt(squares), dtype=torch.float32)
    return table[:, :6].reshape(-1, 3, 2), table[:, 6]  # [T, 6] -> [T, 3, 2]


def _change_scales(paths: PathDataset) -> Float[np.ndarray, "T 7"]:
    """The scales of one dataset, measured at some horizons and interpolated between them."""
    params, T = paths.select(paths.trials[:64]).params(), paths.num_checkpoints
    horizons = np.unique(np.geomspace(1, T - 1, 16).round().astype(int))
    measured = np.array([_sizes_of_changes(params, paths, int(h)) for h in horizons])
    measured = np.maximum(measured, 1e-6)  # nothing is divided by zero
    logs = [np.interp(np.log(np.arange(1, T)), np.log(horizons), row) for row in np.log(measured).T]
    table = np.exp(np.stack(logs, axis=1))
    return np.concatenate([table[:1], table])  # horizon 0 is never asked for


def _sizes_of_changes(
    params: Float[np.ndarray, "N T P"], paths: PathDataset, horizon: int
) -> list[float]:
    starts = np.unique(np.linspace(0, params.shape[1] - 1 - horizon, 8).astype(int))
    arrays = paths.layout.unflatten(params[:, starts + horizon] - params[:, starts])
    last = len(paths.layout.hidden_sizes)
    groups = [(0,), tuple(range(1, last)) or (last,), (last,)]
    sizes = []
    for layers in groups:
        for kind in ("weight", "bias"):
            squares = []
            for layer in layers:
                array = arrays[f"actor.{layer}.{kind}"]
                # as `NeuronTransformer.scales` shrinks them
                wide = array.shape[-1] / REFERENCE_WIDTH if layer and kind == "weight" else 1.0
                squares.append(_mean_square(array) * wide**2)
            sizes.append(math.sqrt(float(np.mean(squares))))
    log_std = arrays.get("log_std")
    return [*sizes, 1.0 if log_std is None else math.sqrt(_mean_square(log_std))]


def _mean_square(values: np.ndarray) -> float:
    return float(np.square(values, dtype=np.float64).mean())


class OwnLoss:
    """The error of forecast weights and, if it weighs anything, of the forecast policies' actions.

    Both are in units that make standing still about 1 each.
    """

    def __init__(
        self, datasets: Sequence[LearningPaths], config: TrainConfig, action_error: ActionError
    ) -> None:
        self.datasets, self.config, self.action_error = datasets, config, action_error

    def __call__(
        self, model: NeuronTransformer, rng: torch.Generator, *, still: bool = False
    ) -> Tensor:
        """The loss of a model, or of standing still in its units, on a batch."""
        data = draw_dataset(self.datasets, rng)
        N, T = data.params.shape[:2]
        length = int(torch.randint(1, min(self.config.context, T - 1) + 1, (), generator=rng))
        count = batch_count(self.config.batch_size, data.sizes, length)
        trials = torch.randint(N, (count,), generator=rng)
        checkpoints = draw_checkpoints(count, length, T, rng)
        horizons = draw_horizons(checkpoints, T, rng)
        returns = data.returns[trials[:, None], checkpoints + horizons]  # [B, L]
        # half of the paths hide their returns, so that the model also works without
        hidden = torch.rand(count, 1, generator=rng) < 0.5
        if not self.config.condition_on_return:
            hidden[:] = True
        returns = returns.masked_fill(hidden, torch.nan)
        start = data.network(trials, checkpoints)
        wanted = data.network(trials, checkpoints + horizons)
        conditions = Conditions(checkpoints.float(), horizons.float(), returns)
        change = start - start if still else model(start, conditions)
        missed = (start + change - wanted) / model.scales(start, conditions.horizon)
        weight_error = torch.stack([a.square().mean() for a in missed.arrays()]).mean()
        if not self.config.behaviour_weight:
            return weight_error
        seen = data.observations_near(trials, (checkpoints + horizons)[:, -1])
        behaviour = self._behaviour(start, start + change, wanted, seen)
        return weight_error + self.config.behaviour_weight * behaviour

    def _behaviour(
        self, start: Network, forecast: Network, wanted: Network, seen: Float[Tensor, "B S O"]
    ) -> Tensor:
        """The error of the actions of the last forecasts, in units of standing still's."""
        start, forecast, wanted = (n.map(_last_checkpoint) for n in (start, forecast, wanted))
        observations = seen[:, None]  # [B, S, O] -> [B, 1, S, O]
        with torch.no_grad():
            truth = wanted.mean_actions(observations)
            still = self.action_error(start.mean_actions(observations), truth).mean()
        error = self.action_error(forecast.mean_actions(observations), truth).mean()
        return error / (still + 1e-4)


def _last_checkpoint(array: Tensor) -> Tensor:
    return array[:, -1:]


def draw_dataset(datasets: Sequence[LearningPaths], rng: torch.Generator) -> LearningPaths:
    """One of the datasets, each as often as it has trials."""
    trials = torch.tensor([float(len(data.params)) for data in datasets])
    return datasets[int(torch.multinomial(trials, 1, generator=rng))]


def batch_count(batch_size: int, sizes: Sequence[int], length: int = 1) -> int:
    """Networks in a batch: fewer where they are wider or come with more checkpoints."""
    widest = max(REFERENCE_WIDTH, *sizes[1:-1])
    return max(2, round(batch_size * REFERENCE_WIDTH / (widest * math.sqrt(length))))


def draw_checkpoints(
    count: int, length: int, num_checkpoints: int, rng: torch.Generator
) -> Int[Tensor, "B L"]:
    """Histories of `length` checkpoints, in order, none of them the last one of a path.

    Of half of them the checkpoints lie as `context_checkpoints` of a forecaster chooses them,
    of the others anywhere. A history of one checkpoint is the untrained network half of the time.
    """
    last = torch.randint(length - 1, num_checkpoints - 1, (count,), generator=rng)
    if length == 1:
        untrained = torch.rand(count, generator=rng) < 0.5
        return torch.where(untrained, 0, last)[:, None]
    rows = []
    for end, anywhere in zip(last.tolist(), torch.rand(count, generator=rng) < 0.5, strict=True):
        chosen = context_checkpoints(range(end + 1), length)
        if anywhere:
            earlier = torch.randperm(end, generator=rng)[: length - 1].sort().values
            chosen = [*earlier.tolist(), end]
        rows.append(chosen)
    return torch.tensor(rows)


def draw_horizons(
    checkpoints: Int[Tensor, "B L"], num_checkpoints: int, rng: torch.Generator
) -> Int[Tensor, "B L"]:
    """Horizons, as many small ones as large ones; one in four goes to the path's end."""
    left = (num_checkpoints - 1 - checkpoints).float()
    drawn = (left.log() * torch.rand(left.shape, generator=rng)).exp().round()
    to_end = torch.rand(left.shape, generator=rng) < 0.25
    return torch.where(to_end, left, drawn).long()
