"""A model of teachers for worlds as a forecaster: any network in, one for a world out."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, cast

import msgspec
import numpy as np
import torch

from tipl.core.arrays import Array
from tipl.core.schemas import ArrayType, Count, conforming
from tipl.core.terminal import warn
from tipl.errors import TiplError
from tipl.evaluation.experience import Experience
from tipl.forecast.base import Forecasts, Histories, Layout, Networks, Target
from tipl.forecast.description import PathLength
from tipl.forecast.trained import AnyArchitectureForecaster, Arrays
from tipl.models import MAX_WIDTH, check_depth
from tipl.models.building import array_types, filled, outlined
from tipl.models.loop import torch_threads
from tipl.models.neuron_transformer.forecaster import NeuronTransformerForecaster
from tipl.models.neuron_transformer.net import NeuronTransformer, NeuronTransformerConfig
from tipl.models.world.belief import Belief
from tipl.models.world.carrier import Carrier
from tipl.models.world.observer import ObserverConfig, WorldObserver, transition_features
from tipl.models.world.stored import StoredConfig, StoredTeachers
from tipl.models.world.students import (
    by_width,
    from_parts,
    student_layout,
    untrained_student,
    widest_that_fits,
)
from tipl.models.world.teacher import TeacherConfig, WorldTeacher
from tipl.policies.factors import checked_factors
from tipl.policies.layout import ParamLayout, actor_layout, check_hidden_sizes
from tipl.policies.policy import Policy
from tipl.policies.tasks import TaskSpec

FAR = 3.0
"""Standard deviations from the training worlds' mean beyond which a factor is far from them."""


MOST_READ = 20_000
"""Transitions of a log; the observer is no surer of more than of a few hundred."""


class _Described(msgspec.Struct):
    """What `config.json` says of this kind of model alone."""

    teacher: TeacherConfig
    observer: ObserverConfig
    stored: StoredConfig
    carrier: NeuronTransformerConfig
    carrier_checkpoints: PathLength
    physics: Annotated[list[str], msgspec.Meta(min_length=1)]
    hidden_sizes: list[Count]
    students: list[Annotated[int, msgspec.Meta(ge=1, le=MAX_WIDTH)]] = []
    without_effect: list[str] = []


class WorldForecaster(AnyArchitectureForecaster):
    """Carries networks of any architecture to the teacher of a world.

    The teacher's weights follow from what is known of the world (`in_world`); by default nothing.
    What transitions say of it an observer reads (`seen`). A NeuronTransformer of the target elite
    carries other networks to the teacher: the observations that it remembers are labelled with what
    the teacher does. Those that are narrower are carried to a student of it, if one fits in.
    """

    kind = "WorldModel"

    def __init__(
        self,
        teacher: WorldTeacher,
        observer: WorldObserver,
        stored: StoredTeachers,
        carrier: Carrier,
        task: TaskSpec,
        names: Sequence[str],
        hidden_sizes: Sequence[int],
        num_checkpoints: int,
        settings: dict[str, Any] | None = None,
        students: Mapping[int, WorldTeacher] | None = None,
        without_effect: Sequence[str] = (),
    ) -> None:
        super().__init__(task, hidden_sizes, num_checkpoints, ("elite",), settings=settings)
        self.teacher, self.observer = teacher.eval(), observer.eval()
        self.stored, self.carrier = stored, carrier
        self.students = {width: one.eval() for width, one in (students or {}).items()}
        prior = (one.double().numpy() for one in (teacher.prior_mean, teacher.prior_std))
        self.prior = Belief(tuple(names), *prior)
        self.belief = self.prior
        self.without_effect = tuple(without_effect)
        """physics that its worlds differed in though nothing depends on them"""
        self._asked: Policy | None = None  # to be carried to, instead of the world's teacher

    def having_seen(self, experience: Experience) -> WorldForecaster:
        """The same, where transitions have shown what is not known for sure of the world.

        Raises:
            TiplError: they are of another task.
        """
        seen, before = self.seen(experience), self.belief
        known = before.std == 0
        mean, std = (
            np.where(known, *two) for two in ((before.mean, seen.mean), (before.std, seen.std))
        )
        return self.in_world(Belief(seen.names, mean, std))

    def in_world(self, physics: Mapping[str, float | None] | Belief) -> WorldForecaster:
        """The same forecaster, asked for networks for a world.

        Args:
            physics: factors of the model's own values by name; those that are left out are 1, as at
                home, and those that are None are not known. Or a belief about them. What nothing
                depends on is left aside.

        Raises:
            TiplError: there is no such factor, or it is not possible.
        """
        other = copy.copy(self)
        if isinstance(physics, Belief):
            other.belief = physics
        else:
            home: dict[str, float | None] = dict.fromkeys(self.prior.names, 1.0)
            told = self._that_count(physics)
            self.prior.given(told)  # refuses names that it does not know
            other.belief = self.prior.given(home | told)
        return other

    def _that_count(self, physics: Mapping[str, float | None]) -> dict[str, float | None]:
        """Factors without those that nothing depends on, which are to be possible, too."""
        idle = {name: physics[name] for name in self.without_effect if name in physics}
        checked_factors({name: one for name, one in idle.items() if one is not None})
        return {name: one for name, one in physics.items() if name not in idle}

    def warn_if_far(self) -> None:
        """Says so if the world that it is asked for is far from those that it learned from."""
        away = np.abs(self.belief.mean - self.prior.mean) / self.prior.std
        far = [name for name, one in zip(self.prior.names, away, strict=True) if one > FAR]
        if far:
            factors = ", ".join(f"{name} {self.belief.factors[name]:.3g}" for name in far)
            warn(
                f"the world's {factors} is far from the worlds that the model learned from "
                f"({self.prior}); run what it makes before you rely on it"
            )

    @torch_threads(1)
    @torch.inference_mode()
    def seen(self, experience: Experience) -> Belief:
        """What transitions in a world say of it: of each factor a mean and a deviation.

        Of more than `MOST_READ` some are read, which lie evenly among them.

        Raises:
            TiplError: they are of another task.
        """
        experience.check_task(self.task)
        every = slice(None, None, -(-len(experience) // MOST_READ))
        with np.errstate(over="ignore"):  # to infinity, which counts as the most that is looked at
            features = transition_features(
                self.task, experience.observations[every], experience.actions[every],
                experience.next_observations[every],
            )  # fmt: skip
        mean, std = self.observer(torch.as_tensor(features)[None])  # [S, F] -> [1, S, F]
        names, wide = self.prior.names, (self.observer.prior_mean, self.observer.prior_std)
        found, before = (
            Belief(names, *(one.double().numpy() for one in two))
            for two in ((mean[0], std[0]), wide)
        )
        # the observer has learned from worlds further off than those with teachers
        return found.under(self.prior, before)

    @property
    def elite_policy(self) -> Policy:
        """The policy of home that the lineage starts from."""
        return Policy(self.teacher.elite.numpy(), self.default_layout, self.task)

    @torch.inference_mode()
    def teacher_policy(self, layout: ParamLayout | None = None) -> Policy:
        """The teacher of the world itself, in the architecture of its paths.

        Where a `layout` has no room for it, a student that fits in.
        """
        belief = [torch.as_tensor(one).float()[None] for one in (self.belief.mean, self.belief.std)]
        teacher, own = self.teacher, self.default_layout
        width = widest_that_fits(layout, own, self.students) if layout else None
        if width is not None:
            teacher, own = self.students[width], student_layout(self.task, own, width)
        return Policy(teacher(*belief)[0].numpy(), own, self.task)

    def stored_policy(self, world: int, layout: ParamLayout | None = None) -> Policy:
        """The teacher of a training world, or a student of it where a `layout` has no room for it.

        What is not stored follows from the world's factors, and so do all students.
        """
        if self.stored.config.num_parameters:
            return self.elite_policy.with_params(self.stored.weights(world))
        factors = np.exp(self.stored.factors[world].double().numpy()).tolist()
        names = self.prior.names
        return self.in_world(dict(zip(names, factors, strict=True))).teacher_policy(layout)

    def carried(self, policy: Policy, teacher: Policy) -> Policy:
        """A policy of any architecture after jumps towards a teacher.

        Raises:
            TiplError: the policy cannot be read.
        """
        other = copy.copy(self)
        other._asked = teacher
        return other.optimize(policy)

    def _optimize(
        self, params: Networks, layout: ParamLayout, horizon: int, steps: int | None
    ) -> Networks:
        teacher = self._asked or self.teacher_policy(layout)
        return self.carrier.carried(params, layout, teacher, steps)

    def _forecast(self, histories: Histories, horizons: list[int], layout: Layout) -> Forecasts:
        layout = layout or self.default_layout
        return self._optimize(histories[:, -1], layout, horizons[0], None)[:, None]

    def check_policy(self, policy: Policy) -> None:
        """Raises a TiplError unless the policy can be carried, and its world is a possible one."""
        super().check_policy(policy)
        self.prior.given(self._that_count(dict(policy.task.physics)))

    def check_layout(self, layout: ParamLayout) -> None:
        """Raises a TiplError unless they are of an actor of its task that can be carried."""
        super().check_layout(layout)
        self.carrier.forecaster.check_layout(layout)

    def _config(self) -> dict[str, Any]:
        return {
            "teacher": msgspec.to_builtins(self.teacher.config),
            "observer": msgspec.to_builtins(self.observer.config),
            "stored": msgspec.to_builtins(self.stored.config),
            "carrier": msgspec.to_builtins(self.carrier.model.config),
            "carrier_checkpoints": self.carrier.forecaster.num_checkpoints,
            "physics": list(self.prior.names),
            "hidden_sizes": list(self.hidden_sizes),
            "students": list(self.students),
            "without_effect": list(self.without_effect),
        }

    def _tensors(self) -> dict[str, Array]:
        parts = {
            "teacher": self.teacher, "observer": self.observer, "stored": self.stored,
            "carrier": self.carrier.model, "students": by_width(self.students),
        }  # fmt: skip
        tensors = torch.nn.ModuleDict(parts).state_dict()
        return {name: tensor.numpy() for name, tensor in tensors.items()}

    @classmethod
    def _check_config(cls, config: Mapping[str, Any], task: TaskSpec, num_checkpoints: int) -> None:
        said = conforming(config, _Described, f"a {cls.kind}'s description")
        check_hidden_sizes(said.hidden_sizes)
        check_depth(len(said.hidden_sizes))
        layout = actor_layout(task, said.hidden_sizes)
        carrier, teacher, observer = said.carrier, said.teacher, said.observer
        found = (
            teacher.num_parameters, teacher.num_factors, said.stored.num_parameters,
            said.stored.num_factors, observer.num_factors,
            observer.num_features, carrier.observation_size, carrier.action_size,
            carrier.num_checkpoints, carrier.context,
        )  # fmt: skip
        V, seen, acted = len(set(said.physics)), task.observation_size, task.action_size
        features = 2 * seen + acted
        stored = layout.size if said.stored.num_parameters else 0
        expected = (
            layout.size,
            V,
            stored,
            V,
            V,
            features,
            seen,
            acted,
            said.carrier_checkpoints,
            1,
        )
        if found != expected or not carrier.memory or said.physics != sorted({*said.physics}):
            raise TiplError(
                f"a {cls.kind} has the sizes {found} and a memory of {carrier.memory}, but those "
                f"of {task.env_id} are {expected}; restore its config.json from a copy, or train "
                "it again"
            )

    @classmethod
    def _array_types(cls, config: Mapping[str, Any]) -> dict[str, ArrayType]:
        return array_types(cls._outline(config))

    @classmethod
    def _outline(cls, config: Mapping[str, Any]) -> torch.nn.ModuleDict:
        """The networks of a checked `config.json`, without their weights."""
        said, task = conforming(config, _Described, cls.kind), TaskSpec.from_json(config["task"])
        layout = actor_layout(task, said.hidden_sizes)
        return outlined(
            lambda: torch.nn.ModuleDict(
                {
                    "teacher": WorldTeacher(said.teacher),
                    "observer": WorldObserver(said.observer),
                    "stored": StoredTeachers(said.stored),
                    "carrier": NeuronTransformer(said.carrier),
                    "students": by_width(
                        {
                            width: untrained_student(width, said.teacher, layout, task)
                            for width in said.students
                        }
                    ),
                }
            )
        )

    @classmethod
    def _from_files(cls, config: Mapping[str, Any], tensors: Arrays) -> WorldForecaster:
        parts = filled(cls._outline(config), tensors)
        said, task = conforming(config, _Described, cls.kind), TaskSpec.from_json(config["task"])
        teacher = cast("WorldTeacher", parts["teacher"])
        observer = cast("WorldObserver", parts["observer"])
        stored = cast("StoredTeachers", parts["stored"])
        models: dict[Target, NeuronTransformer] = {
            "elite": cast("NeuronTransformer", parts["carrier"])
        }
        shape = said.hidden_sizes, said.carrier_checkpoints
        carrier = Carrier(NeuronTransformerForecaster(models, task, *shape))
        return cls(
            teacher, observer, stored, carrier, task, said.physics, said.hidden_sizes,
            config["num_checkpoints"], config["settings"],
            from_parts(parts["students"]), said.without_effect,
        )  # fmt: skip
