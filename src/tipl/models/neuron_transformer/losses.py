"""What is minimised: of the target `own` the error of forecasts, of `elite` that of behaviour.

The elite's behaviour need not come from the network that is carried: fresh random networks, of
which there is no end, learn to act as the elite does, where it acts and they go.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TypeVar

import numpy as np
import torch
from jaxtyping import Float, Float64, Int
from torch import Tensor

from tipl.core.seeds import HELD_OUT_SEED
from tipl.evaluation.behaviour import observations_around, raw_observations
from tipl.models.learning_paths import LearningPaths, batch_count, draw_dataset, draw_horizons
from tipl.models.network import ActionError, Network, Normaliser
from tipl.models.neuron_transformer import NeuronTrainConfig
from tipl.models.neuron_transformer.forecaster import context_checkpoints
from tipl.models.neuron_transformer.net import Conditions, NeuronTransformer
from tipl.models.parallel import Share, average, gathered
from tipl.policies.activations import ACTIVATIONS
from tipl.policies.layout import ParamLayout, actor_layout, initial_gain
from tipl.policies.policy import Policy
from tipl.policies.tasks import TaskSpec

Choice = TypeVar("Choice")

STATES = 96
"""Observations on which each network is compared with the elite."""

BLUR = 0.05
"""Noise on the observations, in standard deviations: there are always new ones."""

VISIT_EVERY = 50
"""Batches after which carried networks are run, to learn where they go."""

UNSEEN = 16
"""Random networks that are held out."""

VISITING_NETWORKS = 32
VISITING_STEPS = 600
"""Of each of these networks: most falls do not come soon."""

KEPT_OF_VISIT, MAX_VISITED = 4_800, 50_000
"""Observations of carried networks that are kept, of one visit and in all."""

FITTED_ROWS = 512
"""Of the observations that a model remembers, those on which output layers are fitted in a batch:
what takes most of a batch's time is to run networks on them."""

LOG_STD_WEIGHT = 0.02

STORED = 0.3
"""Share of the batches that start from stored checkpoints, half-trained ones most of them."""

CARRIED = 0.15
"""Share of the batches that start from networks that were just carried."""


class OwnLoss:
    """The error of forecast weights and, if it weighs anything, of the forecast policies' actions.

    Both are in units that make standing still about 1 each.
    """

    env_steps = 0  # it takes none

    def __init__(
        self, datasets: Sequence[LearningPaths], config: NeuronTrainConfig, task: TaskSpec
    ) -> None:
        self.datasets, self.config, self.action_error = datasets, config, ActionError(task)

    def __call__(
        self, model: NeuronTransformer, rng: torch.Generator, *, still: bool = False
    ) -> Tensor:
        """The loss of a model, or of standing still in its units, on a batch."""
        data = draw_dataset(self.datasets, rng)
        N, T = data.params.shape[:2]
        length = int(torch.randint(1, min(self.config.context, T - 1) + 1, (), generator=rng))
        count = batch_count(self.config.batch_size, data.layout, length)
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
        share = Share.of(count)
        start, wanted = share(start), share(wanted)
        asked = (share(one) for one in (checkpoints.float(), horizons.float(), returns))
        conditions = Conditions(*asked)
        change = start - start if still else model(start, conditions)
        missed = (start + change - wanted) / model.scales(start, conditions.horizon)
        weight_error = missed.mean_square()
        if not self.config.behaviour_weight:
            return share.scaled(weight_error)
        seen = share(data.observations_near(trials, (checkpoints + horizons)[:, -1]))
        behaviour = self._behaviour(start, start + change, wanted, seen, share)
        return share.scaled(weight_error + self.config.behaviour_weight * behaviour)

    def _behaviour(
        self, start: Network, forecast: Network, wanted: Network, seen: Float[Tensor, "B S O"],
        share: Share,
    ) -> Tensor:  # fmt: skip
        """The error of the actions of the last forecasts, in units of standing still's."""
        start, forecast, wanted = start.last(), forecast.last(), wanted.last()
        observations = seen[:, None]  # [B, S, O] -> [B, 1, S, O]
        with torch.no_grad():
            truth = self.action_error.actions(wanted, observations)
            still = self.action_error(self.action_error.actions(start, observations), truth).mean()
            still = average(share.scaled(still))
        done = self.action_error.actions(forecast, observations)
        error = self.action_error(done, truth).mean()
        return error / (still + 1e-4)


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
            chosen = (*earlier.tolist(), end)
        rows.append(chosen)
    return torch.tensor(rows)


def fresh_networks(count: int, layout: ParamLayout, rng: torch.Generator) -> Network:
    """Random networks, initialised as `tipl.policies.layout.initial_params` does."""
    weights, biases, shapes = [], [], layout.layer_shapes
    for layer, (fan_out, fan_in) in enumerate(shapes):
        gain = initial_gain(layer, len(shapes))
        tall = (count, max(fan_in, fan_out), min(fan_in, fan_out))
        q, r = torch.linalg.qr(torch.randn(tall, generator=rng))
        q = q * torch.diagonal(r, dim1=-2, dim2=-1).sign()[:, None]
        weights.append(gain * (q if fan_out >= fan_in else q.mT)[:, None])
        biases.append(torch.zeros(count, 1, fan_out))
    log_std = torch.zeros_like(biases[-1]) if "log_std" in layout.names else None
    return Network(weights, biases, log_std, layout.activation, layout.squashed)


class EliteLoss:
    """The error of carried networks' actions against the elite's, and the size of the jump.

    The elite looks at observations through its own normaliser, the networks through the frozen one
    of the task. Checkpoints of the datasets are carried as well, so that half-trained networks are.
    Its `env_steps` are those that it has taken so far.
    """

    def __init__(
        self,
        elite: Policy,
        task: TaskSpec,
        datasets: Sequence[LearningPaths],
        config: NeuronTrainConfig,
    ) -> None:
        self.datasets, self.config, self.task = datasets, config, task
        self.action_error = ActionError(task)
        self.num_checkpoints = datasets[0].params.shape[1]
        params = torch.as_tensor(elite.params)
        self.elite = Network.from_flat(params[None, None], elite.layout)
        own = elite.observation_mean, elite.observation_std, elite.observation_clip
        self.seen_by_elite, self.normalised = Normaliser(*own), Normaliser.of(task)
        self.env_steps = self.num_batches = 0
        self.observations = self._counted(observations_around(elite, self._rollout_seed()))
        self.visited = self.observations[:0]
        self.last_carried: Network | None = None
        held_out = torch.Generator().manual_seed(HELD_OUT_SEED)
        self.unseen = fresh_networks(UNSEEN, datasets[0].layout, held_out)
        self.seen_by_unseen = self.draw_seen((UNSEEN, 1, STATES), held_out)

    def __call__(self, model: NeuronTransformer, rng: torch.Generator) -> Tensor:
        """The loss of a model on a batch of networks; now and then it runs some of them."""
        if self.num_batches % VISIT_EVERY == 0:
            self._visit()
            self._remind(model, rng)
        self.num_batches += 1
        networks = self._draw_networks(rng)
        count = len(networks.biases[0])
        seen = self.draw_seen((count, 1, STATES), rng)
        seen = seen + BLUR * self.normalised.std * torch.randn(seen.shape, generator=rng)
        share = Share.of(count)
        start = share(networks)
        asked = self.asked(start)
        change: Network = self._carried(model, start, asked, rng)
        loss = self.error(start, start + change, share(seen))
        jump = (change / model.scales(start, asked.horizon)).mean_square()
        self.last_carried = gathered((start + change).map(torch.Tensor.detach), count)
        return share.scaled(loss + self.config.jump_penalty * jump)

    @torch.inference_mode()
    def of_unseen(self, model: NeuronTransformer, *, still: bool = False) -> float:
        """The error of random networks that are never trained on, carried or standing still."""
        networks = self.unseen
        if not still:
            networks = networks + model(networks, self.asked(networks))
        return float(self.error(self.unseen, networks, self.seen_by_unseen))

    def _carried(
        self, model: NeuronTransformer, start: Network, asked: Conditions, rng: torch.Generator
    ) -> Network:
        """The changes that a model makes when output layers are fitted on some of its memory."""
        readout = model.readout
        every = 0 if readout is None else len(readout.observations) // FITTED_ROWS
        if readout is not None and every > 1:
            readout.rows = slice(int(torch.randint(every, (), generator=rng)), None, every)
        change: Network = model(start, asked)
        if readout is not None:
            readout.rows = slice(None)
        return change

    def asked(self, start: Network) -> Conditions:
        """What is asked of the jumps of networks `[B, 1, ...]`."""
        return Conditions.whole_path(len(start.biases[0]), self.num_checkpoints)

    def error(self, start: Network, carried: Network, seen: Float64[Tensor, "B 1 S O"]) -> Tensor:
        """How far carried networks `[B, 1, ...]` are from acting as the elite does.

        Of a squashed elite no noise is known: networks are to keep the `log_std` they started with.
        """
        with torch.no_grad():
            wanted = self._wanted(seen)
        actions = self.action_error.actions(carried, self.normalised(seen))
        error = self.action_error(actions, wanted).mean()
        known = start if self.elite.log_std is None else self.elite
        if carried.log_std is not None and known.log_std is not None:
            off = (carried.log_std - known.log_std).square().mean()
            error = error + LOG_STD_WEIGHT * off
        return error

    def draw_seen(
        self, shape: tuple[int, ...], rng: torch.Generator
    ) -> Float64[Tensor, "*shape O"]:
        """Raw observations where the elite goes, and as often, once known, where networks go."""
        seen = _drawn(self.observations, shape, rng)
        if len(self.visited):
            half = shape[-1] // 2
            seen[..., :half, :] = _drawn(self.visited, (*shape[:-1], half), rng)
        return seen

    def state(self) -> dict[str, Tensor]:
        """All that later batches depend on."""
        counts = torch.tensor([self.env_steps, self.num_batches])
        remembered = {"counts": counts, "visited": self.visited}
        if self.last_carried is None:
            return remembered
        activation = list(ACTIVATIONS).index(self.last_carried.activation)
        arrays = {f"carried.{n}": array for n, array in enumerate(self.last_carried.arrays())}
        return remembered | arrays | {"activation": torch.tensor(activation)}

    def set_state(self, state: Mapping[str, Tensor]) -> None:
        """Goes on from what `state` returned."""
        self.env_steps, self.num_batches = state["counts"].tolist()
        self.visited = state["visited"].reshape(-1, self.task.observation_size)
        arrays = [state[f"carried.{n}"] for n in range(len(state) - 3)]
        if arrays:
            activation = list(ACTIVATIONS)[int(state["activation"])]
            layers = len(arrays) // 2  # an odd one is log_std
            log_std = arrays[2 * layers] if len(arrays) % 2 else None
            weights, biases = arrays[:layers], arrays[layers : 2 * layers]
            self.last_carried = Network(weights, biases, log_std, activation)

    def _wanted(self, seen: Float64[Tensor, "*batch O"]) -> Float[Tensor, "*batch A"]:
        """The elite's actions for raw observations."""
        # [*batch, O] -> [1, 1, S, O]
        flat = self.seen_by_elite(seen).reshape(1, 1, -1, seen.shape[-1])
        return self.action_error.actions(self.elite, flat).reshape(*seen.shape[:-1], -1)

    def _draw_networks(self, rng: torch.Generator) -> Network:
        """Mostly fresh networks; else stored checkpoints, or networks that were just carried."""
        kind = float(torch.rand((), generator=rng))
        if kind < CARRIED and self.last_carried is not None:
            return self.last_carried
        if kind < CARRIED + STORED:
            data = draw_dataset(self.datasets, rng)
            N, T = data.params.shape[:2]
            count = batch_count(self.config.batch_size, data.layout)
            trials = torch.randint(N, (count,), generator=rng)
            return data.network(trials, torch.randint(T, (count, 1), generator=rng))
        width, depth = (
            _one_of(choices, rng)
            for choices in (self.config.fresh_widths, self.config.fresh_depths)
        )
        activation, *others = self.config.fresh_activations
        if others:  # models of one activation have learned without this draw
            activation = _one_of(self.config.fresh_activations, rng)
        layout = actor_layout(self.task, [width] * depth, activation)
        return fresh_networks(batch_count(self.config.batch_size, layout), layout, rng)

    def _remind(self, model: NeuronTransformer, rng: torch.Generator) -> None:
        """Gives the model other observations to remember: those that a batch is drawn from."""
        if model.readout is not None:
            seen = self.draw_seen((len(model.readout.observations),), rng)
            wanted = self.action_error.fitting(self._wanted(seen))
            model.readout.remember(self.normalised(seen), wanted)

    def _visit(self) -> None:
        """Runs carried networks and keeps what they saw."""
        if self.last_carried is None:
            return
        params = self.last_carried.flat()[:VISITING_NETWORKS, 0].numpy()
        hidden_sizes = [bias.shape[-1] for bias in self.last_carried.biases[:-1]]
        layout = actor_layout(self.task, hidden_sizes, self.last_carried.activation)
        seed = self._rollout_seed()
        seen = raw_observations(params, layout, self.task, VISITING_STEPS, noise=0.05, seed=seed)
        rows, rng = self._counted(seen), torch.Generator().manual_seed(seed)
        kept = rows[torch.randperm(len(rows), generator=rng)[:KEPT_OF_VISIT]]
        self.visited = torch.cat([self.visited, kept])[-MAX_VISITED:]

    def _rollout_seed(self) -> int:
        """Another one for each training seed and each visit."""
        entropy = np.random.SeedSequence((self.config.seed, self.num_batches))
        return int(entropy.generate_state(1)[0])

    def _counted(self, seen: Float64[np.ndarray, "M S O"]) -> Float64[Tensor, "X O"]:
        """All observations of rollouts, whose steps are counted."""
        rows = torch.as_tensor(seen).flatten(0, 1)  # [M, S, O] -> [M * S, O]
        self.env_steps += len(rows)
        return rows


def _one_of(choices: Sequence[Choice], rng: torch.Generator) -> Choice:
    """One of the choices, drawn at random."""
    return choices[int(torch.randint(len(choices), (), generator=rng))]


def _drawn(rows: Tensor, shape: tuple[int, ...], rng: torch.Generator) -> Tensor:
    """Rows `[*shape, ...]`, each drawn at random."""
    return rows[torch.randint(len(rows), shape, generator=rng)]
