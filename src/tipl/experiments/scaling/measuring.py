"""What each model of an experiment on scaling does: measured once, and kept in a file each."""

from __future__ import annotations

import dataclasses
import functools
import importlib.metadata
from functools import cached_property
from pathlib import Path

import numpy as np
from jaxtyping import Float64
from torch import nn

from tipl.core import storage
from tipl.core.atomic import make_folder
from tipl.evaluation.forecast_sets import ForecastCase, ForecastSet
from tipl.evaluation.returns import evaluate, evaluate_stack
from tipl.experiments.benchmark.measuring_costs import flops_per_step
from tipl.experiments.pipeline import digest_of_files
from tipl.experiments.scaling.config import ScalingConfig
from tipl.experiments.scaling.points import Point
from tipl.experiments.scaling.records import POINT, POINT_FILE, Measured, Numbers, point_file
from tipl.forecast.base import Target
from tipl.forecast.trained import TrainedForecaster
from tipl.models.building import outlined
from tipl.models.neuron_transformer import NeuronTrainConfig
from tipl.models.neuron_transformer.forecaster import NeuronTransformerForecaster
from tipl.models.neuron_transformer.net import NeuronTransformer
from tipl.models.neuron_transformer.training import model_sizes
from tipl.paths import PathDataset
from tipl.policies.policy import Policy

FRESH_SEED = 1_000_000
"""Of the first fresh network: none that trials begin with."""


def num_parameters(model: nn.Module) -> int:
    """Numbers that training changes."""
    return sum(one.numel() for one in model.parameters())


@dataclasses.dataclass(frozen=True, eq=False)
class Bench:
    """What all models of an experiment are measured on."""

    config: ScalingConfig
    directory: Path
    threads: int | None = None
    """of what is run"""

    @cached_property
    def paths(self) -> PathDataset:
        """All trials."""
        return PathDataset.open(self.config.dataset(self.directory))

    @cached_property
    def held_out(self) -> PathDataset:
        """Those that no model learns from."""
        return self.paths.split(self.config.held_out).held_out

    @cached_property
    def case(self) -> ForecastCase:
        """The history after which own's error is measured, and how far ahead."""
        end = self.held_out.num_checkpoints - 1
        start = min(round(self.config.history * end), end - 1)
        return ForecastCase("own", start, min(self.config.horizon, end - start))

    @cached_property
    def fresh_networks(self) -> list[Policy]:
        """Random networks of the paths' architecture, which are carried to the elite."""
        sizes = self.paths.metadata.hidden_sizes
        seeds = range(FRESH_SEED, FRESH_SEED + self.config.networks)
        return [Policy.initial(self.paths.task, seed, sizes) for seed in seeds]

    def digest(self, point: Point) -> str:
        """Of all that what is measured of a point follows from."""
        config = self.config
        return storage.content_digest(
            {
                "version": importlib.metadata.version("tipl"),
                "model": digest_of_files(self.directory / point.place),
                "paths": self.paths.metadata.digest,
                "held_out": self.held_out.trials.tolist(),
                "place": [self.case.start, self.case.horizon],
                "returns": [config.episodes, config.networks],
            }
        )

    def measured(self, point: Point) -> Measured:
        """What was measured of a model before, or is measured now, and kept.

        Raises:
            TiplError: the model or the file is damaged, or the file cannot be written.
        """
        file, digest = point_file(self.directory, point), self.digest(point)
        if file.exists() and (kept := POINT.read(file)).digest == digest:
            return kept
        found = self._measure(point, digest)
        make_folder(file.parent)
        storage.write_json(file, dataclasses.asdict(found), POINT_FILE)
        return found

    def _measure(self, point: Point, digest: str) -> Measured:
        model = NeuronTransformerForecaster.from_pretrained(self.directory / point.place)
        parameters = num_parameters(model.models[point.target])
        flops = self._flops_per_step(point.target, point.size.widths) * point.size.num_steps
        if point.target == "own":
            weights, actions = self._errors(model)
            returns = self._returns_of_own(model)
            return Measured(
                "own", digest, parameters, flops, returns, weights.tolist(), actions.tolist()
            )
        better = model.optimize(self.fresh_networks)
        found = evaluate(better, self.config.episodes, threads=self.threads)
        elite = model.settings["elite"]["mean_return"]
        return Measured(
            "elite", digest, parameters, flops, found.episodic_return.tolist(), elite_return=elite,
            elite_env_steps=model.settings["env_steps"],
        )  # fmt: skip

    def _errors(self, model: TrainedForecaster) -> tuple[Float64[np.ndarray, " N"], ...]:
        """Errors of weights and of actions after a history, in units of standing still's."""
        params = self.held_out.params()[:, : self.case.start + 1]
        ahead = model.forecast(params, self.case.horizon, layout=self.held_out.layout)
        forecasts = ForecastSet(self.held_out, [self.case], ahead[None], {})
        return forecasts.weight_errors()[0], forecasts.action_errors()[0]

    def _returns_of_own(self, model: TrainedForecaster) -> list[Numbers]:
        """Of what own makes of untrained held-out networks, at the end of their paths."""
        start, end = self.held_out.params(slice(0, 1)), self.held_out.num_checkpoints - 1
        return self._returns(model.forecast(start, end, layout=self.held_out.layout))

    def returns_of_ppo(self) -> list[Numbers]:
        """Of what PPO made of the held-out networks."""
        return self._returns(self.held_out.params(slice(-1, None))[:, 0])

    def _returns(self, params: np.ndarray) -> list[Numbers]:
        layout, task = self.held_out.layout, self.held_out.task
        clip = self.held_out.metadata.observation_clip
        params = np.ascontiguousarray(params)
        found = evaluate_stack(
            params, layout, task, self.config.episodes, clip=clip, threads=self.threads
        )
        returns: list[Numbers] = found.returns.tolist()
        return returns

    def _training(self, target: Target, width: int) -> NeuronTrainConfig:
        """How models of a width are trained, but for their steps and seeds."""
        weight = self.config.own_behaviour_weight if target == "own" else 0.0
        return NeuronTrainConfig(
            targets=(target,), width=width, rounds=self.config.rounds, behaviour_weight=weight
        )

    @functools.cache  # noqa: B019
    def _flops_per_step(self, target: Target, width: int) -> float:
        return flops_per_step(self.paths, self._training(target, width))

    def num_parameters(self, target: Target, width: int) -> int:
        """Of the model of a width, which need not have been made."""
        activations = (self.paths.layout.activation,)
        sizes = model_sizes(target, self._training(target, width), self.paths, activations)
        return num_parameters(outlined(lambda: NeuronTransformer(sizes)))
