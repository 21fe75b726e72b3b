"""Training a model of teachers: by what the last policy of each training world does."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import numpy as np
import torch

from tipl.core.seeds import HELD_OUT_SEED
from tipl.errors import TiplError
from tipl.models.loop import fit, torch_threads
from tipl.models.neuron_transformer.forecaster import NeuronTransformerForecaster
from tipl.models.world import WorldTrainConfig
from tipl.models.world.belief import Belief
from tipl.models.world.carrier import Carrier
from tipl.models.world.forecaster import WorldForecaster
from tipl.models.world.lineage import Lineage
from tipl.models.world.losses import TeacherLoss
from tipl.models.world.observing import train_observer
from tipl.models.world.stored import StoredConfig, StoredTeachers
from tipl.models.world.student_training import students_of, train_student
from tipl.models.world.teacher import TeacherConfig, WorldTeacher
from tipl.paths import PathDataset
from tipl.policies.factors import can_reverse
from tipl.policies.folding import folded, folding_slopes

STORED = 64
"""Worlds that are kept, of which the teachers that a universal policy makes may be tried."""


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
    teacher in each: what it makes of the physics goes into its weights exactly. Narrower networks
    learn to act alike, as its students.

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
        students = {}
        for width in students_of(lineage, config):
            students[width], curves[f"student of width {width}"] = train_student(
                width, lineage, teacher, config, progress
            )
        observer, curves["observer"] = train_observer(lineage, config, progress)
        loss.remind(carrier.readout)
    settings = {
        "curves": curves,
        "env_steps": sum(one.env_steps for one in (lineage, *unseen)),
    }
    return WorldForecaster(
        teacher, observer, _stored(lineage), carrier, lineage.task, lineage.names,
        paths.metadata.hidden_sizes, paths.num_checkpoints, settings, students,
        lineage.without_effect,
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
        teacher.slopes.data.copy_(torch.as_tensor(folding_slopes(lineage.universal)))
        teacher.reversible.copy_(torch.tensor([float(can_reverse(n)) for n in lineage.names]))
    scale = sizes[:K] / np.sqrt(len(changes))
    teacher.begin(*(torch.as_tensor(one).float() for one in (mean, directions[:K], scale)))
    return teacher


def _stored(lineage: Lineage) -> StoredTeachers:
    """The lineage's worlds and their teachers; some worlds alone of a universal policy."""
    worlds, teachers = lineage.logarithms, lineage.teachers
    if lineage.universal:
        worlds, teachers = worlds[:STORED], teachers[:STORED, :0]
    stored = StoredTeachers(StoredConfig(len(worlds), teachers.shape[1], worlds.shape[1]))
    stored.factors.copy_(torch.as_tensor(worlds))
    stored.params.copy_(torch.as_tensor(teachers))
    return stored
