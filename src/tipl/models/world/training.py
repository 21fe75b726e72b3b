"""Training a model of teachers: by what the last policy of each training world does."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from tipl.core.seeds import HELD_OUT_SEED
from tipl.errors import TiplError
from tipl.models.loop import fit, torch_threads
from tipl.models.network import ActionError, Network, Normaliser
from tipl.models.neuron_transformer.forecaster import NeuronTransformerForecaster
from tipl.models.readout import LeastSquaresReadout
from tipl.models.world import WorldTrainConfig
from tipl.models.world.belief import Belief
from tipl.models.world.carrier import Carrier
from tipl.models.world.forecaster import WorldForecaster
from tipl.models.world.lineage import Lineage
from tipl.models.world.observing import train_observer
from tipl.models.world.stored import StoredConfig, StoredTeachers
from tipl.models.world.teacher import TeacherConfig, WorldTeacher
from tipl.paths import PathDataset
from tipl.policies.factors import can_reverse
from tipl.policies.folding import folded, folding_slopes

STATES = 128
"""Observations on which each teacher is compared with the world's own policy."""

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
    """Trains a model of teachers for worlds, on a lineage or on a universal policy.

    Of a lineage, paths that start from one policy, each in its world, the teacher of a world is the
    last policy of its path. The loss is the mean squared difference of actions from the teacher's,
    on observations where it, the elite that all started from and, after a while, the model's own
    teachers go in that world; standing still is the elite.

    A universal policy, which learned in all worlds at once and observes their physics, is the
    teacher in each: what it makes of the physics goes into its weights exactly, and there is
    nothing left to learn but to see what a world is.

    Raises:
        TiplError: the paths are neither, their worlds have reversed motors, or there is no model
            that carries networks.
    """
    (paths,) = datasets
    lineage = Lineage.of(paths, config.seed)
    unseen = [Lineage.of(dataset, HELD_OUT_SEED) for dataset in held_out]
    carrier = _carrier(config, paths)
    curves = {}
    with torch_threads(1):
        teacher, loss = initial_teacher(lineage, config), TeacherLoss(lineage, config)
        others = [TeacherLoss(one, config) for one in unseen if not one.universal]
        if not lineage.universal:
            held_out_loss = partial(_of_unseen, teacher, others[0]) if others else None
            curves["elite"] = fit(
                teacher, config, partial(loss, teacher), held_out_loss, label="train (world)",
                progress=progress, remembers=loss,
            )  # fmt: skip
        observer, curves["observer"] = train_observer(lineage, config, progress)
        loss.remind(carrier.readout)
    settings = {
        "curves": curves,
        "env_steps": sum(one.env_steps for one in (lineage, *unseen)),
    }
    return WorldForecaster(
        teacher, observer, _stored(lineage), carrier, lineage.task, lineage.names,
        paths.metadata.hidden_sizes, paths.num_checkpoints, settings,
    )  # fmt: skip


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
    """Where a teacher begins, or a universal policy as one.

    It begins at the mean change of the training worlds' teachers, and at the directions of their
    differences.
    """
    torch.manual_seed(config.seed)
    changes = (lineage.teachers - lineage.elite).astype(np.float64)
    mean = changes.mean(axis=0)
    _, sizes, directions = np.linalg.svd(changes - mean, full_matrices=False)
    K = 0 if lineage.universal else min(config.directions, len(sizes))
    prior = Belief.among(lineage.names, lineage.factors)
    shape = lineage.layout.size, len(prior.names), K
    teacher = WorldTeacher(TeacherConfig(*shape, config.width, config.noise))
    known = {
        "elite": lineage.elite, "prior_mean": prior.mean,
        "prior_std": np.maximum(prior.std, 1e-3),  # of a factor that never differs
    }  # fmt: skip
    for name, values in known.items():
        getattr(teacher, name).copy_(torch.as_tensor(values))
    if lineage.universal:
        mean = (folded(lineage.universal).params - lineage.elite).astype(np.float64)
        teacher.slopes.copy_(torch.as_tensor(folding_slopes(lineage.universal)))
        teacher.reversible.copy_(torch.tensor([float(can_reverse(n)) for n in lineage.names]))
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
