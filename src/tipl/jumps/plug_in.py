"""Plug-ins of `tipl.ppo.PPO`: jumps to forecasts, and policy path trimming and boosting (PPTB)."""

from __future__ import annotations

import functools
from collections import deque

import numpy as np
from jaxtyping import Int

from tipl.core.arrays import Array
from tipl.core.seeds import Stream
from tipl.errors import TiplError
from tipl.evaluation.returns import Episodes, evaluate_stack
from tipl.forecast.base import Forecaster
from tipl.forecast.extrapolation import trimmed_and_boosted
from tipl.jumps.config import CRITIC_LEARNING_RATE, EPOCHS_OF_TARGETS, JumpConfig, PPTBConfig
from tipl.jumps.forecasters import jump_forecaster
from tipl.jumps.jumper import Jumper
from tipl.policies.layout import ParamLayout
from tipl.ppo.learner import StackedAdam, write_value_gradient
from tipl.ppo.networks import stacked_mlp
from tipl.ppo.ppo import PPO, PlugIn
from tipl.ppo.rollout import Rollout, steps_by_trial


class PathBooster(PlugIn):
    """Replaces each trial's actor by a trimmed and boosted one every few iterations.

    A trial is replaced by what its own recent path makes of it; where that is not finite, it keeps
    its weights. The critic and Adam's moments stay as they are: PPO goes on from the new weights as
    from its own. The path is that of the weights that acted, replaced ones included.

    Source: Tang et al., NeurIPS 2024, arXiv 2303.01391, who did this within TD3 and RAD.

    Raises:
        TiplError: the configuration has no rank, or a setting is not possible.
    """

    def __init__(self, config: PPTBConfig) -> None:
        config.check()
        if config.rank is None:
            raise TiplError("PPTB was given no rank; give one, such as 16, or leave PPTB out")
        self.config, self.rank = config, config.rank
        self.recent: deque[Array] = deque(maxlen=config.window)  # arrays [N, P], the newest last

    def start(self, ppo: PPO) -> None:
        """Remembers the actors' weights before their first update."""
        self.recent.append(ppo.actors.copy())
        self._forget(ppo)

    def after_update(self, ppo: PPO, rollout: Rollout) -> None:
        """Remembers the actors' weights, and replaces them when it is time."""
        actors = ppo.actors
        self.recent.append(actors.copy())
        if ppo.iteration % self.config.interval == 0:
            # one trial at a time: all windows in float64 would be the largest arrays by far
            for n in range(len(actors)):
                path = np.stack([weights[n] for weights in self.recent])
                ahead = trimmed_and_boosted(path[None], self.rank, self.config.boost)[0]
                with np.errstate(over="ignore"):
                    ahead = ahead.astype(actors.dtype)
                if np.isfinite(ahead).all():
                    actors[n] = ahead
            self.recent[-1] = actors.copy()
        self._forget(ppo)

    def _forget(self, ppo: PPO) -> None:
        """Leaves only those weights that the next replacement, if there is one, will read."""
        until = self.config.interval - ppo.iteration % self.config.interval
        read = self.config.window - until if ppo.iteration + until <= ppo.num_iterations else 0
        while len(self.recent) > max(read, 0):
            self.recent.popleft()

    def state(self) -> dict[str, Array]:
        """Everything needed to continue, as arrays: the recent weights `[N, T, P]`, if any."""
        return {"recent": np.stack(self.recent, axis=1)} if self.recent else {}

    def set_state(self, ppo: PPO, state: dict[str, Array]) -> None:
        """Continues from what `state` returned."""
        self.recent.clear()
        if "recent" in state:
            self.recent.extend(state["recent"].swapaxes(0, 1).copy())  # [N, T, P] -> T of [N, P]


class ForecastJumps(PlugIn):
    """Lets trials jump to forecasts of their weights, and go on as correct PPO.

    After a jump Adam's moments are reset (unless `moments="keep"`), and the critic is refitted to
    the first rollout before the actor moves. A jump that does worse is undone with all of that;
    what was learned since is lost.

    Args:
        physics: each trial's factors of the original physics `[N]` by name, for the tests and for
            a forecaster that knows worlds.
        forecaster: of the weights; by default the one that the configuration names.

    Raises:
        TiplError: the configuration names no forecaster, or one that cannot be found.
    """

    def __init__(
        self,
        config: JumpConfig,
        physics: dict[str, Array] | None = None,
        forecaster: Forecaster | None = None,
    ) -> None:
        config.check()
        if forecaster is None and config.forecaster is None:
            raise TiplError("jumps were given no forecaster; give one, such as relex")
        self.config, self.physics = config, physics or {}
        self.forecaster = forecaster or jump_forecaster(config.forecaster or "", config.target)

    def start(self, ppo: PPO) -> None:
        """Lets the untrained trials jump, where the forecaster needs no more history.

        Raises:
            TiplError: there is no such forecaster, or it does not fit the trials' networks.
        """
        self._prepare(ppo)
        self._jump(ppo)

    def _prepare(self, ppo: PPO) -> None:
        """Makes what `start` and `set_state` go on from."""
        evaluate, steps = functools.partial(self._evaluate, ppo), ppo.config.rollout_steps
        look = self._in_its_world
        self.jumper = Jumper(
            self.config, self.forecaster, len(ppo.trials), ppo.actor_layout, evaluate, steps, look
        )
        self.fresh = np.zeros(len(ppo.trials), bool)  # jumped, and the critic not refitted yet
        # what an undone jump goes back to: rows of trials whose jump is still to be judged
        self.before = {name: array.copy() for name, array in _undoable(ppo).items()}

    def before_update(self, ppo: PPO, rollout: Rollout) -> None:
        """Refits the critics of the trials that have just jumped."""
        jumped = np.flatnonzero(self.fresh & ~ppo.diverged)
        if len(jumped) and self.config.critic_epochs:
            refit_critics(ppo, rollout, jumped, self.config.critic_epochs, ppo.seed)
        self.fresh[:] = False

    def after_update(self, ppo: PPO, rollout: Rollout) -> None:
        """Undoes the jumps that did worse, and lets trials jump whose time it is."""
        undone = self.jumper.judge(rollout.episodic_return)
        for name, array in _undoable(ppo).items():
            array[undone] = self.before[name][undone]
        if ppo.iteration < ppo.num_iterations:  # nothing would come of a jump of the last weights
            self._jump(ppo, rollout)

    def _jump(self, ppo: PPO, last: Rollout | None = None) -> None:
        """Lets trials jump whose time it is, given the last rollout, and remembers old weights."""
        last_return = episode_steps = np.full(len(ppo.trials), np.nan)
        S = ppo.config.rollout_steps
        if last is not None:
            last_return = last.episodic_return
            # no episode ended: one takes as long as the rollout, at least
            episode_steps = S / np.maximum(last.num_episodes, 1)
        steps = ppo.iteration * S + self.jumper.counters["jump_steps"]
        actors = ppo.actors.astype(np.float32)
        params, jumped, _ = self.jumper.before_rollout(
            actors, steps, last_return, ~ppo.diverged, episode_steps
        )
        for name, array in _undoable(ppo).items():
            self.before[name][jumped] = array[jumped]
        ppo.actors[jumped] = params[jumped]
        if self.config.moments == "reset":
            ppo.adam.reset(jumped)
        self.fresh |= jumped

    def _in_its_world(self, trial: int) -> tuple[Forecaster, int]:
        """The forecaster for a trial's physics, which takes no steps to know."""
        factors = {name: float(those[trial]) for name, those in self.physics.items()}
        return self.forecaster.in_world(factors), 0

    def _evaluate(self, ppo: PPO, params: Array, trials: Array, when: int) -> Episodes:
        """An episode of each of some trials' policies, in the trial's physics."""
        return evaluate_stack(
            np.ascontiguousarray(params, np.float32),
            ppo.actor_layout,
            ppo.task,
            1,
            physics={name: factors[trials] for name, factors in self.physics.items()},
            seed=Stream.JUMP_TESTS.number(ppo.seed, when),
            threads=1,  # other groups of trials have their own
        )

    def checkpoint(self) -> dict[str, Array]:
        """Of each trial: steps of tests, jumps, and jumps that were undone, so far."""
        return self.jumper.counters

    def state(self) -> dict[str, Array]:
        """Everything needed to continue, as arrays."""
        state = self.jumper.state() | {"fresh": self.fresh}
        if self.jumper.arrays["pending"].any():
            state |= {f"before_{name}": array for name, array in self.before.items()}
        return state

    def set_state(self, ppo: PPO, state: dict[str, Array]) -> None:
        """Continues, with fresh trials, from what `state` returned."""
        self._prepare(ppo)
        self.jumper.set_state(state)
        self.fresh[:] = state["fresh"]
        for name, array in self.before.items():
            if f"before_{name}" in state:
                array[:] = state[f"before_{name}"]


def _undoable(ppo: PPO) -> dict[str, Array]:
    """What a jump changes and an undone one restores, shared with the trials, by name."""
    return {"params": ppo.params, **ppo.adam.state()}


def refit_critics(
    ppo: PPO, rollout: Rollout, trials: Int[np.ndarray, " n"], epochs: int, seed: int
) -> None:
    """Fits some trials' critics to a rollout, and tells the rollout what they say now.

    The targets are the critics' own lambda-returns, made anew every few passes (`epochs`). Of the
    trials, `rollout.values` and `rollout.next_values` are those of the new critics; their actors
    and Adam's moments stay as they are.
    """
    config, start = ppo.config, ppo.actor_layout.size
    layout = ParamLayout.critic(ppo.task.observation_size, ppo.layout.hidden_sizes)
    params = ppo.params[trials, start:]
    adam = StackedAdam(params, config.adam_eps, config.max_grad_norm)
    critic = stacked_mlp(layout.unflatten(params), "critic")
    gradients = stacked_mlp(layout.unflatten(adam.gradients), "critic")
    E = config.num_envs
    columns = (trials[:, None] * E + np.arange(E)).ravel()  # [n, E] -> [n E]
    # [T, n E, O] -> [n, T E, O]
    observations = np.ascontiguousarray(steps_by_trial(rollout.observations[:, columns], E))
    for first in range(0, epochs, EPOCHS_OF_TARGETS):
        _, returns = ppo.advantages_and_returns(rollout)
        # [T, n E] -> [n, T E]
        targets = np.ascontiguousarray(steps_by_trial(returns[:, columns], E))
        for epoch in range(first, min(first + EPOCHS_OF_TARGETS, epochs)):
            order = np.random.default_rng((seed, epoch)).permutation(config.rollout_steps)
            for indices in np.array_split(order, config.num_minibatches):
                minibatch = observations[:, indices]
                write_value_gradient(critic, gradients, minibatch, indices, targets, targets)
                adam.step(CRITIC_LEARNING_RATE)
        ppo.params[trials, start:] = params
        values, next_values = ppo.values_of(rollout)
        rollout.values[:, columns] = values[:, columns]
        rollout.next_values[:, columns] = next_values[:, columns]
