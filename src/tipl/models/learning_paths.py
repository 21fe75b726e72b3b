"""Learning paths as models learn from them: usable trials, tensors, scales, and random draws."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Float32, Int
from torch import Tensor

from tipl.errors import TiplError
from tipl.evaluation.behaviour import visited_observations
from tipl.models.network import REFERENCE_WIDTH, Network
from tipl.paths import PathDataset
from tipl.policies.layout import ParamLayout

NUM_ANCHORS = 8
"""Checkpoints of each path whose policies are run to see the states that they visit."""

STEPS_OF_ANCHOR = 192
"""Environment steps of each of those policies."""

STATES_OF_ANCHOR = 64
"""Observations that are kept of them."""

IN_MEMORY = 1 << 30
"""Bytes of a dataset's weights up to which they are read once; of more, as they are drawn."""

BLOCK = 64
"""Trials of such a dataset that are looked at at once before: as many as a part has."""

LARGEST_WEIGHT = 1e12
"""Size of a weight beyond which sums of squares of a path's weights may overflow float32."""


def usable(paths: PathDataset, checkpoints: int = 3) -> PathDataset:
    """The trials that did not diverge; raises a TiplError if nothing can be learned from them."""
    trials = paths.usable_trials()
    if len(trials) == 0:
        raise TiplError(
            f"all {paths.num_trials} trials of {paths.directory} diverged; collect paths with a "
            "smaller learning rate"
        )
    if paths.num_checkpoints < checkpoints:
        remedy = "collect more steps, or with a smaller checkpoint interval"
        if paths.metadata.recorded:
            remedy = "record longer runs, and remove the files of those that ended before"
        raise TiplError(
            f"the paths in {paths.directory} have {paths.num_checkpoints} checkpoints; expected at "
            f"least {checkpoints}: {remedy}"
        )
    return paths.select(trials)


def usable_params(trials: PathDataset) -> Float32[np.ndarray, "N T P"]:
    """The weights of `usable` trials; raises a TiplError if one is too large to learn from."""
    params = trials.params()
    if max(params.max(), -params.min()) <= LARGEST_WEIGHT:
        return params
    trial, checkpoint, place = np.argwhere(~(np.abs(params) <= LARGEST_WEIGHT))[0]  # NaN as well
    raise TiplError(
        f"trial {trials.trials[trial]} of {trials.directory} has the weight "
        f"{params[trial, checkpoint, place]:g} at checkpoint {checkpoint}; expected weights of "
        f"size {LARGEST_WEIGHT:g} at most: leave the trial out, or collect it again"
    )


class StoredParams:
    """The weights of `usable` trials on the disk, indexed as the tensor `[N, T, P]` of them is.

    Raises:
        TiplError: as `usable_params` does.
    """

    def __init__(self, trials: PathDataset) -> None:
        self._trials = trials
        self.shape = trials.num_trials, trials.num_checkpoints, trials.layout.size
        for numbers in np.array_split(trials.trials, -(-trials.num_trials // BLOCK)):
            usable_params(trials.select(numbers))

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, at: tuple[Tensor, Tensor]) -> Float[Tensor, "*batch P"]:
        trials, checkpoints = (one.numpy() for one in at)
        return torch.from_numpy(self._trials.checkpoints(trials, checkpoints))


def params_to_learn(trials: PathDataset) -> Float[Tensor, "N T P"] | StoredParams:
    """The weights of `usable` trials: in memory, or left on the disk if they are many."""
    size = 4 * trials.num_trials * trials.num_checkpoints * trials.layout.size
    if size > IN_MEMORY:
        return StoredParams(trials)
    return torch.as_tensor(usable_params(trials))


class ReturnScale(NamedTuple):
    """Mean and standard deviation of returns."""

    mean: float
    std: float

    def scaled(self, returns: Float[np.ndarray, "*shape"]) -> Float[Tensor, "*shape"]:
        """Returns in these units; NaN stays NaN."""
        scaled = (returns.astype(np.float64) - self.mean) / self.std
        if np.nanmax(np.abs(scaled), initial=0) > torch.finfo(torch.float32).max:
            raise TiplError(
                f"returns from {np.nanmin(returns):g} to {np.nanmax(returns):g} were given where "
                f"those of the first dataset have a mean of {self.mean:g} and a standard deviation "
                f"of {self.std:g}; give datasets of the same rewards"
            )
        return torch.as_tensor(scaled, dtype=torch.float32)


def return_scale(returns: Float[np.ndarray, "*shape"]) -> ReturnScale:
    """The scale of the returns that are known."""
    known = returns[np.isfinite(returns)].astype(np.float64)
    mean, std = (known.mean(), known.std()) if len(known) else (0.0, 1.0)
    return ReturnScale(float(mean), max(float(std), 1e-6 * max(abs(float(mean)), 1.0)))


@dataclasses.dataclass(frozen=True)
class LearningPaths:
    """The paths of one dataset as a NeuronTransformer learns from them."""

    params: Float[Tensor, "N T P"] | StoredParams
    layout: ParamLayout
    returns: Float[Tensor, "N T"]
    """scaled return of each checkpoint; NaN is unknown"""
    anchors: Int[Tensor, " C"]
    """checkpoints that were run, if any"""
    observations: Float[Tensor, "N C S O"]
    """what they saw, normalised"""

    @property
    def env_steps(self) -> int:
        """Environment steps that the observations took."""
        return len(self.params) * len(self.anchors) * STEPS_OF_ANCHOR

    def network(self, trials: Int[Tensor, " B"], checkpoints: Int[Tensor, "B L"]) -> Network:
        """Checkpoints of trials."""
        return Network.from_flat(self.params[trials[:, None], checkpoints], self.layout)

    def observations_near(
        self, trials: Int[Tensor, " B"], checkpoints: Int[Tensor, " B"]
    ) -> Float[Tensor, "B S O"]:
        """What the policies of trials see at the anchors nearest to checkpoints."""
        distance = (self.anchors[None] - checkpoints[:, None]).abs()  # [B, C]
        return self.observations[trials, distance.argmin(dim=1)]


def learning_paths(
    paths: PathDataset, scale: ReturnScale, seed: int, *, anchors: int = NUM_ANCHORS
) -> LearningPaths:
    """Reads the usable trials of a dataset, and runs some of their policies from a seed.

    These show the states that policies visit, at so many anchors: 0 where no states are needed.
    """
    trials = usable(paths)
    params, layout, task = params_to_learn(trials), trials.layout, trials.task
    places = np.linspace(0, trials.num_checkpoints - 1, anchors + 1).round().astype(int)[1:]
    places = np.unique(places)
    observations = np.zeros((len(params), 0, 0, task.observation_size), np.float32)
    if anchors:
        at = np.arange(len(params))[:, None]
        run = trials.checkpoints(at, places).reshape(-1, layout.size)  # [N, C, P] -> [N * C, P]
        clip = paths.metadata.observation_clip
        seen = visited_observations(
            run, layout, task, STEPS_OF_ANCHOR, noise=0.2, seed=seed, clip=clip
        )
        kept = seen[:, :: STEPS_OF_ANCHOR // STATES_OF_ANCHOR]
        # [N * C, S, O] -> [N, C, S, O]
        observations = kept.reshape(len(params), len(places), *kept.shape[1:])
    return LearningPaths(
        params,
        layout,
        scale.scaled(trials.episodic_return()),
        torch.as_tensor(places),
        torch.as_tensor(observations),
    )


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
    sizes = []
    for layers in ([0], [*range(1, last)] or [last], [last]):
        for kind in ("weight", "bias"):
            squares = []
            for layer in layers:
                array = arrays[f"actor.{layer}.{kind}"]
                # as `NeuronTransformer.scales` shrinks them
                wide = array.shape[-1] / REFERENCE_WIDTH if layer and kind == "weight" else 1.0
                squares.append(np.square(array, dtype=np.float64).mean() * wide**2)
            sizes.append(math.sqrt(np.mean(squares)))
    log_std = arrays.get("log_std", np.ones(1))
    return [*sizes, math.sqrt(np.square(log_std, dtype=np.float64).mean())]


def draw_dataset(datasets: Sequence[LearningPaths], rng: torch.Generator) -> LearningPaths:
    """One of the datasets, each as often as it has trials."""
    trials = torch.tensor([float(len(data.params)) for data in datasets])
    return datasets[int(torch.multinomial(trials, 1, generator=rng))]


def batch_count(batch_size: int, layout: ParamLayout, length: int = 1) -> int:
    """Networks in a batch: fewer where they are wider or come with more checkpoints."""
    widest = max(REFERENCE_WIDTH, *layout.hidden_sizes)
    return max(2, round(batch_size * REFERENCE_WIDTH / (widest * math.sqrt(length))))


def draw_horizons(
    checkpoints: Int[Tensor, "B L"], num_checkpoints: int, rng: torch.Generator
) -> Int[Tensor, "B L"]:
    """Horizons, as many small ones as large ones; one in four goes to the path's end."""
    left = (num_checkpoints - 1 - checkpoints).float()
    drawn = (left.log() * torch.rand(left.shape, generator=rng)).exp().round()
    to_end = torch.rand(left.shape, generator=rng) < 0.25
    return torch.where(to_end, left, drawn).long()
