"""Policies for worlds that nobody has trained in."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from tipl.models.world.belief import Belief
from tipl.models.world.forecaster import WorldForecaster
from tipl.policies.policy import Policy


def adapt(
    given: str | Policy,
    *,
    physics: Mapping[str, float | None] | Belief | None = None,
    model: str | Path | WorldForecaster | None = None,
    hidden: Sequence[int] | None = None,
    seed: int = 1,
) -> Policy:
    """A policy for a world, by inference alone: no gradient step, no environment step.

    Args:
        given: id of a task, for a policy of its own; or a policy, which is carried.
        physics: the world: factors of the model's own values by name. Those that are left out are
            1, as at home; those that are None are not known. By default nothing is known.
        model: a model of worlds (`tipl train --model world`), or its directory or name; by default
            the one that ships with tipl under the task's id and `-worlds`.
        hidden: units in each hidden layer, of a policy of its own; by default those of the model's
            training paths, whose teacher is then the policy itself. Others are carried to it from
            a fresh network.
        seed: of the fresh network.

    Returns:
        The policy. If all factors are known its task is that world, so that `tipl.evaluate` runs it
        there; if not, its task is at home.

    Raises:
        TiplError: there is no such model, it knows no such factor, or it cannot read the policy.
    """
    task = given if isinstance(given, str) else given.task.env_id
    if not isinstance(model, WorldForecaster):
        model = WorldForecaster.from_pretrained(model or f"{task}-worlds")
    world = model.in_world(physics) if physics is not None else model
    if isinstance(given, Policy):
        made = world.optimize(given.with_physics({}))
    elif hidden is None or tuple(hidden) == world.hidden_sizes:
        made = world.teacher_policy()
    else:
        made = world.optimize(Policy.initial(world.task, seed, hidden))
    known = not world.belief.std.any()
    return made.with_physics(world.belief.factors) if known else made
