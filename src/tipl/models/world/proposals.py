"""What is worth an episode in a world."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np

from tipl.models.proposals import Proposal
from tipl.models.world.forecaster import WorldForecaster
from tipl.policies.layout import ParamLayout
from tipl.policies.policy import Policy

CHANGED = 0.5
"""By how much a factor is to be known better, in units of the prior's deviation, before what the
model makes of it is worth another episode; one, since each is one less for something else."""


def proposals(
    world: Callable[[], WorldForecaster],
    given: str | Policy,
    network: Callable[[Policy], Policy],
    layout: ParamLayout | None = None,
) -> Iterator[Proposal]:
    """Policies for a world, of which more may be known each time that one is asked for.

    Args:
        world: the model, asked for what is known by now.
        given: a policy that somebody has, which is one of the proposals, or the id of a task.
        network: makes a teacher a policy of the architecture that was asked for.
        layout: that of such a policy, if it is not the teacher's.
    """
    if isinstance(given, Policy):
        yield Proposal("as given", given)
    yield Proposal("elite of home", network(world().elite_policy))
    proposed, again = world().belief, False
    yield Proposal("model", network(world().teacher_policy(layout)))
    stored, taken = world().stored, set[int]()
    while len(taken) < stored.config.num_worlds:
        now = world()
        away = np.abs(now.belief.mean - proposed.mean) / now.prior.std
        if away.max() > CHANGED and not again:
            again = True
            yield Proposal("model, which knows more", network(now.teacher_policy(layout)))
            now = world()
        nearest = next(w for w in stored.nearest(now.belief, now.prior) if w not in taken)
        taken.add(nearest)
        teacher = now.stored_policy(nearest, layout)
        yield Proposal(f"teacher of training world {nearest}", network(teacher))
