"""Policies for worlds that nobody has trained in."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np

from tipl.core.options import at_least
from tipl.errors import TiplError, shown
from tipl.evaluation.behaviour import action_unit
from tipl.evaluation.experience import Experience, WorldSteps
from tipl.models.proposals import Proposal, TriedPolicy, best_of, refuse_hidden, task_or_policy
from tipl.models.world.belief import Belief
from tipl.models.world.forecaster import WorldForecaster
from tipl.models.world.proposals import proposals
from tipl.policies.policy import Policy

USUAL_STEPS = 250
"""In an environment that was given without a number."""

ACTION_NOISE = 0.2
"""With which steps are made whose only use is what they show of the world, in units of half the
range of actions."""


class AdaptedPolicy(TriedPolicy):
    """A policy for a world, and what is known of that world."""

    world: Belief
    """the factors of its physics, each as surely as it is known"""


def adapt(
    given: str | Path | Policy,
    *,
    physics: Mapping[str, float | None] | Belief | None = None,
    experience: Experience | Sequence[Any] | None = None,
    env: gymnasium.Env[Any, Any] | None = None,
    steps: int | None = None,
    episodes: int = 0,
    model: str | Path | WorldForecaster | None = None,
    hidden: Sequence[int] | None = None,
    seed: int = 1,
) -> AdaptedPolicy:
    """A policy for a world, by inference alone: no gradient step.

    What is known of the world may be its physics, a log of what happened there, an environment to
    make steps or episodes in, or any of these together.

    Args:
        given: id of a task, for a policy of its own; or a policy, which is carried, or its
            directory.
        physics: the world: factors of the model's own values by name. Those that are left out are
            1, as at home; those that are None are not known. By default nothing is known.
        experience: transitions in the world: an `Experience`, or its observations `[S, O]`, actions
            `[S, A]` and next observations `[S, O]` as a sequence of three. No rewards are needed.
        env: the world itself: any Gymnasium environment with the spaces of the task. It is not
            closed.
        steps: environment steps to make first, whose rewards are not looked at; by default 250, or
            none if there are episodes.
        episodes: then these are spent on trying proposals, one each: the elite of home (and the
            policy that is given), what the model makes of all that is known by then, and policies
            of training worlds like this one. The best is returned, so that by this test it is no
            worse than the elite of home. A single episode shows the world alone.
        model: a model of worlds (`tipl train --model world`), or its directory or name; by default
            the one that ships with tipl under the task's id and `-worlds`.
        hidden: units in each hidden layer of a policy of its own, where none is given; by default
            those of the model's training paths, whose teacher is then the policy itself. Others are
            carried to it from a fresh network.
        seed: of the fresh network, of the episodes and of the noise of actions.

    Returns:
        The policy, with what is known of the world (`world`), the environment steps spent
        (`env_steps`) and the proposals that were tried. If all factors are known its task is that
        world, so that `tipl.evaluate` runs it there; if not, its task is at home.

    Raises:
        TiplError: there is no such model, it is of another task, knows no such factor or cannot
            read the policy; the experience or the environment is not of the task, or is not usable;
            steps or episodes were given without an environment, or hidden units with a policy.
            What an environment raises itself is not caught.

    Examples:
        >>> policy = tipl.adapt("HalfCheetah-v4", physics={"gravity": 1.3, "mass": 0.8})
        >>> policy.env_steps
        0
    """
    at_least(0, steps=steps, episodes=episodes, seed=seed)
    if env is None and (steps or episodes):
        raise TiplError(
            f"{steps or 0} steps and {episodes} episodes were asked for without an environment; "
            "give the world as env, any Gymnasium environment with the spaces of the task"
        )
    given = task_or_policy(given)
    task = given if isinstance(given, str) else given.task.env_id
    if not isinstance(model, WorldForecaster):
        model = WorldForecaster.from_pretrained(model or f"{task}-worlds")
    if task.rpartition(":")[2] != model.task.bare_id:
        raise TiplError(
            f"a policy for {shown(task)} was asked for, but the model is of worlds of "
            f"{model.task.env_id}; give a model of worlds of that task"
        )
    asked = model.in_world(physics) if physics is not None else model
    search = _Search(asked, given, hidden, seed)
    world = None if env is None else WorldSteps(env, model.task, seed)
    if experience is not None:
        search.learn(_log(experience))
    if world is not None:
        search.explore(world, USUAL_STEPS if steps is None and not episodes else steps or 0)
        search.try_proposals(world, episodes)
    search.world.warn_if_far()
    return search.best(0 if world is None else world.num_steps)


def _log(experience: Experience | Sequence[Any]) -> Experience:
    """Experience that was given as such, or as three arrays."""
    if isinstance(experience, Experience):
        return experience
    arrays = experience if isinstance(experience, Sequence | np.ndarray) else ()
    if isinstance(experience, str) or len(arrays) != 3:
        raise TiplError(
            f"{shown(experience)} was given as experience; expected a tipl.Experience (of a file: "
            "Experience.load), or three arrays: observations, actions and next observations"
        )
    return Experience.of(*arrays)


def explored(world: WorldSteps, policy: Policy, steps: int, seed: int) -> Experience:
    """Steps of a policy whose only use is what they show of a world: with noise on its actions.

    Raises:
        TiplError: the environment gives something that is not usable.
    """
    rng = np.random.default_rng(seed)
    unit = ACTION_NOISE * action_unit(policy.task).astype(np.float64)
    return world.run(lambda seen: policy.act(seen) + unit * rng.standard_normal(unit.size), steps)


class _Search:
    """What is known of a world by now, and what was tried there."""

    def __init__(
        self,
        asked: WorldForecaster,
        given: str | Policy,
        hidden: Sequence[int] | None,
        seed: int,
    ) -> None:
        self.asked = self.world = asked
        self.given, self.seed = given, seed
        self.start = self._start(given, hidden)
        self.layout = None if self.start is None else self.start.layout
        self.experience: Experience | None = None
        self.tried: list[Proposal] = []

    def learn(self, experience: Experience) -> None:
        """Sees what more transitions say of the world; what was known for sure stays so."""
        before = self.experience
        self.experience = experience if before is None else before + experience
        self.world = self.asked.having_seen(self.experience)

    def explore(self, world: WorldSteps, steps: int) -> None:
        """Makes steps to see the world, with a policy for what is known of it by now."""
        if steps:
            self.learn(explored(world, self.world.teacher_policy(), steps, self.seed))

    def try_proposals(self, world: WorldSteps, episodes: int) -> None:
        """Runs proposals for an episode each, and learns of the world from each."""
        made = proposals(lambda: self.world, self.given, self._network, self.layout)
        for _, proposal in zip(range(episodes), made, strict=False):
            policy = proposal.policy
            episodic_return, seen = world.episode(policy.act)
            self.tried.append(proposal.having_returned(episodic_return))
            self.learn(seen)

    def best(self, env_steps: int) -> AdaptedPolicy:
        """The proposal that returned most; where no two were tried, what the model makes."""
        if len(self.tried) > 1:
            policy = best_of(self.tried).policy
        else:
            policy = self._network(self.world.teacher_policy(self.layout))
        belief = self.world.belief
        policy = policy.with_physics({} if belief.std.any() else belief.factors)
        made = AdaptedPolicy.taken(policy, env_steps, self.tried)
        made.world = belief
        return made

    def _network(self, teacher: Policy) -> Policy:
        """A teacher in the architecture that was asked for."""
        return teacher if self.start is None else self.asked.carried(self.start, teacher)

    def _start(self, given: str | Policy, hidden: Sequence[int] | None) -> Policy | None:
        """What is to be carried to teachers; None if they are what was asked for."""
        if isinstance(given, Policy):
            refuse_hidden(hidden)
            start = given.with_physics({})
        elif hidden is None or tuple(hidden) == self.asked.hidden_sizes:
            return None
        else:
            start = Policy.initial(self.asked.task, self.seed, hidden)
        self.asked.check_policy(start)  # before a step is made for it
        return start
