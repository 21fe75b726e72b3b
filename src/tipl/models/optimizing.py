"""Better policies by inference, of several that are tried the best if some episodes are allowed."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Unpack

import gymnasium
import numpy as np

from tipl.core.options import at_least
from tipl.core.seeds import Stream
from tipl.errors import TiplError, shown
from tipl.evaluation.experience import WorldSteps
from tipl.evaluation.returns import evaluate
from tipl.forecast.base import Asked, Horizon
from tipl.forecast.trained import TrainedForecaster
from tipl.models.proposals import Proposal, TriedPolicy, best_of, refuse_hidden, task_or_policy
from tipl.policies.policy import Policy

JUMPS = (1, 2, 3, 4)
"""Numbers of jumps after which what is made of a policy is worth an episode."""

CHECK_SEED = 4_000
"""Of the episode in which all proposals are tried; its start is none of `evaluate`'s by default."""


def optimize(
    given: str | Path | Policy,
    *,
    model: str | Path | TrainedForecaster | None = None,
    hidden: Sequence[int] | None = None,
    seed: int = 1,
    among: int = 8,
    check: int = 0,
    env: gymnasium.Env[Any, Any] | None = None,
    horizon: Horizon | None = None,
    **asked: Unpack[Asked],
) -> TriedPolicy:
    """A better policy by inference: no gradient step, and without `check` no environment step.

    Args:
        given: id of a task, for a fresh network; or a policy to start from, or its directory.
        model: a trained model, or its directory or name; by default that which ships with tipl for
            the task.
        hidden: units in each hidden layer of a fresh network; by default as the model was trained
            on.
        seed: of the fresh network.
        among: fresh networks that are carried, of which the one is taken that comes nearest to what
            it is to do, as far as the model can tell without an environment step (`misfits`). 1
            takes the one of the seed. Of a policy that is given, numbers of jumps are chosen so,
            unless `steps` says how many.
        check: this many proposals are tried in an episode each, which all start alike, and the best
            is returned: the fresh networks that came nearest; or what the model makes of the policy
            that is given, the policy as it is, and what the model makes in other numbers of jumps,
            as many as there are. 1 tells what the policy returns, and chooses none.
        env: where they are tried: any Gymnasium environment with the spaces of the task, which is
            not closed. By default the task's own.
        horizon: checkpoints to jump ahead; by default to the end of the training paths.
        **asked: `target`, `steps` and `wished_return`: see `Forecaster.optimize`.

    Returns:
        The policy, with the environment steps spent (`env_steps`) and the proposals that were tried
        (`tried`).

    Raises:
        TiplError: as `Forecaster.optimize`; there is no such model, no episode was allowed in the
            environment that was given, or hidden units were given with a policy; or the environment
            has other spaces or gives something that is not usable. What it raises itself is not
            caught.

    Examples:
        >>> policy = tipl.optimize("InvertedPendulum-v4", hidden=(48, 48))
        >>> tipl.evaluate(policy, episodes=1).mean.value
        1000.0
    """
    at_least(0, check=check, seed=seed)
    at_least(1, among=among)
    if env is not None and not check:
        raise TiplError(
            "an environment was given without an episode to make in it; give check, the number of "
            "proposals to try there"
        )
    given = task_or_policy(given)
    task = given if isinstance(given, str) else given.task.env_id
    if not isinstance(model, TrainedForecaster):
        model = TrainedForecaster.from_pretrained(model or task)
    model = model.with_options(asked.get("target"), asked.get("wished_return"))
    made = _proposals(model, given, hidden, seed, max(among, check), horizon, asked)
    if not check:
        return TriedPolicy.taken(made[0].policy, 0, ())
    tried, env_steps = list[Proposal](), 0
    for proposal in made[:check]:
        episodic_return, steps = _episode(proposal.policy, env)
        tried.append(proposal.having_returned(episodic_return))
        env_steps += steps
    return TriedPolicy.taken(best_of(tried).policy, env_steps, tried)


def _proposals(
    model: TrainedForecaster, given: str | Policy, hidden: Sequence[int] | None, seed: int,
    among: int, horizon: Horizon | None, asked: Asked,
) -> list[Proposal]:  # fmt: skip
    """What is worth an episode; the first one is what is to be had without any."""
    if isinstance(given, Policy):
        refuse_hidden(hidden)
        return _of_policy(model, given, horizon, asked)
    if given.rpartition(":")[2] != model.task.bare_id:
        raise TiplError(
            f"a policy for {shown(given)} was asked for, but the model was trained on "
            f"{model.task.env_id}; give a model of that task"
        )
    sizes = model.hidden_sizes if hidden is None else hidden
    seeds = [seed, *(Stream.FRESH_NETWORKS.number(seed, i) for i in range(1, among))]
    made = []
    for number, one in enumerate(seeds, 1):
        fresh = Policy.initial(model.task, one, sizes)
        # each alone, as the last digits of several at once depend on their number
        better = model.optimize(fresh, horizon, **asked)
        made.append(Proposal(f"fresh network {number}", better))
    return _best_first(model, made)


def _of_policy(
    model: TrainedForecaster, policy: Policy, horizon: Horizon | None, asked: Asked
) -> list[Proposal]:
    """What is made of a policy in different numbers of jumps, and after the first the policy."""
    first = Proposal("model", model.optimize(policy, horizon, **asked))
    ahead = model.num_checkpoints - 1 if horizon is None else horizon
    made = [first]
    for steps in JUMPS:
        if steps <= ahead:
            other: Asked = {**asked, "steps": steps}
            better = model.optimize(policy, horizon, **other)
            made.append(Proposal(f"model, {steps} jump{'s' * (steps > 1)}", better))
    best = _best_first(model, made)
    if asked.get("steps") is None:
        first = best[0]
    return [first, Proposal("as given", policy), *(one for one in best if one is not first)]


def _best_first(model: TrainedForecaster, made: list[Proposal]) -> list[Proposal]:
    """Those first that do what they are to do, as far as the model can tell; else as they are.

    Of those that are the same the first one is kept.
    """
    different = list[Proposal]()
    for one in made:
        if not any(np.array_equal(one.policy.params, it.policy.params) for it in different):
            different.append(one)
    order = np.argsort(model.misfits([one.policy for one in different]), kind="stable")
    return [different[i] for i in order]


def _episode(policy: Policy, env: gymnasium.Env[Any, Any] | None) -> tuple[float, int]:
    """The return of the one episode that all proposals are tried in, and its environment steps."""
    if env is None:
        found = evaluate(policy, 1, seed=CHECK_SEED)
        return float(found.episodic_return[0]), int(found.episode_length[0])
    world = WorldSteps(env, policy.task, CHECK_SEED)
    episodic_return, _ = world.episode(policy.act)
    return episodic_return, world.num_steps
