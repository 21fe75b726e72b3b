"""How far policies are from the teachers of worlds: by what both do where policies go."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from tipl.core.seeds import HELD_OUT_SEED
from tipl.models.network import ActionError, Network, Normaliser
from tipl.models.parallel import Share
from tipl.models.readout import LeastSquaresReadout
from tipl.models.world import WorldTrainConfig
from tipl.models.world.lineage import Lineage
from tipl.models.world.teacher import WorldTeacher
from tipl.policies.layout import ParamLayout

STATES = 128
"""Observations on which each teacher is compared with the world's own policy."""

VISIT_EVERY = 400
"""Batches after which the model's own teachers are run, to learn where they go."""


class TeacherLoss:
    """The error of the actions of a model's teachers, on observations of their worlds.

    Args:
        lineage: the worlds, and what is right there.
        config: how the model is trained.
        student: layout of the model's teachers, if it is another one than the lineage's; such a
            model is told the worlds' factors as they are.
    """

    def __init__(
        self, lineage: Lineage, config: WorldTrainConfig, student: ParamLayout | None = None
    ) -> None:
        self.layout, self.is_student = student or lineage.layout, student is not None
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
            self.seen.append(torch.as_tensor(self.lineage.visited(known, self.layout)))
        self.num_batches += 1
        count = min(self.batch_size, len(self.teachers))
        worlds = torch.randperm(len(self.teachers), generator=rng)[:count]
        factors = self.factors[worlds]
        sure = factors, torch.zeros_like(factors)
        told = sure if self.is_student else model.told(factors, rng)
        share = Share.of(count)
        made = model(*map(share, told))
        return share.scaled(self._of(made, worlds, rng, share))

    def _of(
        self, made: Float[Tensor, "B P"], worlds: Tensor, rng: torch.Generator, share: Share
    ) -> Float[Tensor, ""]:
        """The error of policies of some worlds: of a share of them."""
        source = self.seen[int(torch.randint(len(self.seen), (), generator=rng))]
        steps = torch.randint(source.shape[1], (len(worlds), STATES), generator=rng)
        worlds, steps = share(worlds), share(steps)
        inputs = self.normalised(source[worlds[:, None], steps].double())[:, None]  # [B, 1, S, O]
        found, wanted = (
            self.error.actions(Network.from_flat(params[:, None], layout), inputs)  # [B, 1, P]
            for params, layout in (
                (made, self.layout), (self.teachers[worlds], self.lineage.layout)
            )
        )  # fmt: skip
        return self.error(found, wanted).mean()

    def of_known(self, model: WorldTeacher | None) -> Float[Tensor, ""]:
        """The error in all worlds, whose factors are told; without a model, of the elite."""
        rng = torch.Generator().manual_seed(HELD_OUT_SEED)
        if model is None:
            made = torch.as_tensor(self.lineage.elite).expand_as(self.teachers)
        else:
            made = model(self.factors, torch.zeros_like(self.factors))
        whole = Share(slice(None), 1.0)
        return self._of(made, torch.arange(len(self.teachers)), rng, whole)

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
