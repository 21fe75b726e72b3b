"""Training a model of teachers: by what the last policy of each training world does."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial

import numpy as np
import torch
from jaxtyping import Float, Float32, Float64
from torch import Tensor

from tipl.core.seeds import HELD_OUT_SEED
from tipl.errors import TiplError
from tipl.evaluation.behaviour import raw_observations
from tipl.models.learning_paths import usable
from tipl.models.loop import fit, torch_threads
from tipl.models.network import ActionError, Network, Normaliser
from tipl.models.neuron_transformer.forecaster import NeuronTransformerForecaster
from tipl.models.readout import LeastSquaresReadout
from tipl.models.world import WorldTrainConfig
from tipl.models.world.belief import Belief
from tipl.models.world.carrier import Carrier
from tipl.models.world.forecaster import WorldForecaster
from tipl.models.world.observing import train_observer
from tipl.models.world.stored import StoredConfig, StoredTeachers
from tipl.models.world.teacher import TeacherConfig, WorldTeacher
from tipl.paths import PathDataset

STATES = 128
"""Observations on which each teacher is compared with the world's own policy."""

NOISES = (0.0, 0.13, 0.27, 0.4)
"""Of the actions with which policies are run to see where they go, in units of half their range."""

STEPS_OF_ROLLOUT = 200

VISIT_EVERY = 400
"""Batches after which the model's own teachers are run, to learn where they go."""


def train_world_model(
    datasets: Sequence[PathDataset],
    held_out: Sequence[PathDataset],
    config: WorldTrainConfig,
    *,
    threads: int | None = None,
    progress: bool = True,
) -> WorldForecaster:
    """Trains a model of teachers on a lineage: paths that start from one policy, each in its world.

    The teacher of a world is the last policy of its path. The loss is the mean squared difference
    of actions from the teacher's, on observations where it, the elite that all started from and,
    after a while, the model's own teachers go in that world; standing still is the elite.

    Raises:
        TiplError: the paths are no lineage, their worlds have reversed motors, or there is no model
            that carries networks.
    """
    (paths,) = datasets
    for dataset in (paths, *held_out):
        _check(dataset)
    carrier = _carrier(config, paths)
    lineage = Lineage(paths, config.seed)
    with torch_threads(1):
        teacher = initial_teacher(lineage, config)
        loss = TeacherLoss(lineage, config)
        others = [
            TeacherLoss(Lineage(usable_ones, HELD_OUT_SEED), config) for usable_ones in held_out
        ]
        unseen = partial(_of_unseen, teacher, others[0]) if others else None
        curve = fit(
            teacher, config, partial(loss, teacher), unseen, label="train (world)",
            progress=progress, remembers=loss,
        )  # fmt: skip
        observer, observed = train_observer(lineage, config, progress)
        loss.remind(carrier.readout)
    settings = {
        "curves": {"elite": curve, "observer": observed},
        "env_steps": sum(one.env_steps for one in (lineage, *(other.lineage for other in others))),
    }
    return WorldForecaster(
        teacher, observer, _stored(lineage), carrier, paths.task, lineage.names,
        paths.metadata.hidden_sizes, paths.num_checkpoints, settings,
    )  # fmt: skip


def _check(paths: PathDataset) -> None:
    metadata = paths.metadata
    known = metadata.start and paths.physics() and not paths.task.observed
    if not known or metadata.normaliser != "frozen":
        start = "one policy" if metadata.start else "networks of their own"
        raise TiplError(
            f"the paths in {paths.directory} start from {start}, know {len(paths.physics())} "
            f"physics each, observe {len(paths.task.observed)} of them, and have "
            f"normaliser={metadata.normaliser!r}; a model of worlds learns from paths of one "
            "start, each in its own physics, which it does not observe, with the frozen "
            "normaliser: collect with --start and --worlds"
        )


def _carrier(config: WorldTrainConfig, paths: PathDataset) -> Carrier:
    """The model that carries networks of other architectures."""
    source = config.carrier or paths.task.env_id
    found = NeuronTransformerForecaster.from_pretrained(source).with_options(target="elite")
    carrier = Carrier(found)
    if carrier.task.bare_id != paths.task.bare_id:
        raise TiplError(
            f"the carrier {source} is of {carrier.task.env_id}, but the paths are of "
            f"{paths.task.env_id}; give a model of that task"
        )
    return carrier


class Lineage:
    """The worlds of a dataset of paths with one start, and the policies that were best there."""

    def __init__(self, paths: PathDataset, seed: int) -> None:
        paths, self.seed = usable(paths), seed
        self.task, self.layout = paths.task, paths.metadata.actor_layout
        size = self.layout.size
        physics = paths.physics()
        self.names = tuple(physics)
        self.factors = np.stack(list(physics.values()), axis=1)  # [W, V]
        ends = paths.params(slice(0, None, paths.num_checkpoints - 1))[:, :, :size]  # [W, 2, P]
        self.elite: Float32[np.ndarray, " P"] = np.ascontiguousarray(ends[0, 0])
        self.teachers: Float32[np.ndarray, "W P"] = np.ascontiguousarray(ends[:, 1])
        self.env_steps = self.rollouts = 0

    @property
    def logarithms(self) -> Float32[np.ndarray, "W V"]:
        """Those of the factors."""
        Belief.among(self.names, self.factors)  # refuses reversed motors
        return np.asarray(np.log(self.factors).astype(np.float32))

    def physics(self) -> dict[str, Float64[np.ndarray, " W"]]:
        """The factors of the worlds, by name."""
        return dict(zip(self.names, self.factors.T, strict=True))

    def visited(self, params: Float32[np.ndarray, "W P"]) -> Float32[np.ndarray, "W S O"]:
        """Observations where policies go, each in its world, with more or less action noise."""
        seen, physics = [], self.physics()
        for noise in NOISES:
            entropy = np.random.SeedSequence((self.seed, self.rollouts)).generate_state(1)
            seen.append(
                raw_observations(
                    params, self.layout, self.task, STEPS_OF_ROLLOUT, noise=noise,
                    seed=int(entropy[0]), physics=physics,
                )
            )  # fmt: skip
            self.rollouts += 1
            self.env_steps += len(params) * STEPS_OF_ROLLOUT
        return np.concatenate(seen, axis=1).astype(np.float32)


class TeacherLoss:
    """The error of the actions of a model's teachers, on observations of their worlds."""

    def __init__(self, lineage: Lineage, config: WorldTrainConfig) -> None:
        self.lineage, self.batch_size = lineage, config.batch_size
        self.error, self.normalised = ActionError(lineage.task), Normaliser.of(lineage.task)
        self.factors = torch.as_tensor(lineage.logarithms)  # [W, V]
        self.teachers = torch.as_tensor(lineage.teachers)
        elites = np.repeat(lineage.elite[None], len(lineage.teachers), axis=0)
        self.seen = [torch.as_tensor(lineage.visited(one)) for one in (lineage.teachers, elites)]
        self.num_batches = 0

    def __call__(self, model: WorldTeacher, rng: torch.Generator) -> Tensor:
        """The loss on a batch of worlds; now and then it runs the model's teachers in all."""
        if self.num_batches and self.num_batches % VISIT_EVERY == 0:
            with torch.no_grad():
                known = model(self.factors, torch.zeros_like(self.factors)).numpy()
            self.seen.append(torch.as_tensor(self.lineage.visited(known)))
        self.num_batches += 1
        count = min(self.batch_size, len(self.teachers))
        worlds = torch.randperm(len(self.teachers), generator=rng)[:count]
        made = model(*model.told(self.factors[worlds], rng))
        return self._of(made, worlds, rng)

    def _of(
        self, made: Float[Tensor, "B P"], worlds: Tensor, rng: torch.Generator
    ) -> Float[Tensor, ""]:
        """The error of policies of some worlds."""
        source = self.seen[int(torch.randint(len(self.seen), (), generator=rng))]
        steps = torch.randint(source.shape[1], (len(worlds), STATES), generator=rng)
        inputs = self.normalised(source[worlds[:, None], steps].double())[:, None]  # [B, 1, S, O]
        wanted = self.error.actions(self._network(self.teachers[worlds]), inputs)
        return self.error(self.error.actions(self._network(made), inputs), wanted).mean()

    def _network(self, params: Float[Tensor, "B P"]) -> Network:
        return Network.from_flat(params[:, None], self.lineage.layout)  # [B, P] -> [B, 1, P]

    def of_known(self, model: WorldTeacher | None) -> Float[Tensor, ""]:
        """The error in all worlds, whose factors are told; without a model, of the elite."""
        rng = torch.Generator().manual_seed(HELD_OUT_SEED)
        if model is None:
            made = torch.as_tensor(self.lineage.elite).expand_as(self.teachers)
        else:
            made = model(self.factors, torch.zeros_like(self.factors))
        return self._of(made, torch.arange(len(self.teachers)), rng)

    def remind(self, readout: LeastSquaresReadout) -> None:
        """Lets a carrier remember observations of all worlds, drawn alike."""
        rng = torch.Generator().manual_seed(self.lineage.seed)
        rows = torch.cat([one.flatten(0, 1) for one in self.seen])  # [X, O]
        drawn = rows[torch.randint(len(rows), (len(readout.observations),), generator=rng)]
        readout.remember(self.normalised(drawn.double()), torch.zeros_like(readout.outputs))

    def state(self) -> dict[str, Tensor]:
        """All that later batches depend on."""
        counts = [self.num_batches, self.lineage.rollouts, self.lineage.env_steps]
        visited = {f"seen.{n}": seen for n, seen in enumerate(self.seen) if n > 1}
        return {"counts": torch.tensor(counts)} | visited

    def set_state(self, state: Mapping[str, Tensor]) -> None:
        """Goes on from what `state` returned."""
        self.num_batches, self.lineage.rollouts, self.lineage.env_steps = state["counts"].tolist()
        self.seen = [*self.seen[:2], *(state[f"seen.{n}"] for n in range(2, len(state) + 1))]


@torch.inference_mode()
def _of_unseen(model: WorldTeacher, loss: TeacherLoss, *, still: bool = False) -> float:
    return float(loss.of_known(None if still else model))


def initial_teacher(lineage: Lineage, config: WorldTrainConfig) -> WorldTeacher:
    """The mean change of the training worlds' teachers, and the directions of their differences."""
    torch.manual_seed(config.seed)
    changes = (lineage.teachers - lineage.elite).astype(np.float64)
    mean = changes.mean(axis=0)
    _, sizes, directions = np.linalg.svd(changes - mean, full_matrices=False)
    K = min(config.directions, len(sizes))
    prior = Belief.among(lineage.names, lineage.factors)
    shape = lineage.layout.size, len(prior.names), K
    teacher = WorldTeacher(TeacherConfig(*shape, config.width, config.noise))
    known = {
        "elite": lineage.elite, "prior_mean": prior.mean,
        "prior_std": np.maximum(prior.std, 1e-3),  # of a factor that never differs
    }  # fmt: skip
    for name, values in known.items():
        getattr(teacher, name).copy_(torch.as_tensor(values))
    scale = sizes[:K] / np.sqrt(len(changes))
    teacher.begin(*(torch.as_tensor(one).float() for one in (mean, directions[:K], scale)))
    return teacher


def _stored(lineage: Lineage) -> StoredTeachers:
    """The last policies of the lineage's worlds."""
    W, P = lineage.teachers.shape
    stored = StoredTeachers(StoredConfig(W, P, len(lineage.names)))
    stored.factors.copy_(torch.as_tensor(lineage.logarithms))
    stored.params.copy_(torch.as_tensor(lineage.teachers))
    return stored
