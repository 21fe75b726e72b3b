"""Jumps of one PyTorch run, whatever library trains it."""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Callable
from typing import Any

import gymnasium as gym
import numpy as np
import torch

from tipl.core.arrays import Array
from tipl.envs import make_task
from tipl.envs.batched_mujoco import silent_mujoco
from tipl.errors import TiplError
from tipl.evaluation.returns import Episodes, episode_seed
from tipl.forecast.memory import BestStoredPolicy
from tipl.forecast.trained import TrainedForecaster
from tipl.integrations.pytorch.agent import TorchAgent
from tipl.integrations.pytorch.normaliser import RunNormaliser
from tipl.jumps.config import CRITIC_LEARNING_RATE, EPOCHS_OF_TARGETS, JumpConfig
from tipl.jumps.forecasters import fitting_forecaster
from tipl.jumps.jumper import Jumper
from tipl.policies.actions import refolded
from tipl.policies.policy import Policy
from tipl.policies.tasks import TaskSpec

MINIBATCH = 64
"""Steps of a rollout from which the critic learns at a time, when it is refitted."""


@dataclasses.dataclass(frozen=True)
class JumpReport:
    """What happened before one rollout.

    Attributes:
        tried: whether forecasts were tried.
        accepted: whether the run jumped.
        undone: whether its last jump was undone.
        horizon: checkpoints that it jumped ahead; 0 if it stayed.
        return_before: mean return of the policy before the try; NaN if it was not run.
        return_after: of the best forecast.
        steps: environment steps of the tests of this try.
        steps_spent: of all tests so far.
    """

    tried: bool
    accepted: bool
    undone: bool
    horizon: int
    return_before: float
    return_after: float
    steps: int
    steps_spent: int


def another_environment(spec: Any, **arguments: Any) -> gym.Env[Any, Any]:
    """An environment for tests, of a Gymnasium spec or id that a run has already."""
    with warnings.catch_warnings(), silent_mujoco():
        # whoever trains on an old version has been told so
        warnings.filterwarnings("ignore", ".*is out of date", DeprecationWarning)
        return gym.make(spec, **arguments)


def known_task(find_spec: Callable[[], Any]) -> TaskSpec | None:
    """What a run is trained on; None if it is nothing that tipl's models could know.

    Args:
        find_spec: gives the Gymnasium spec of the run's environments, or raises a TiplError.
    """
    try:
        return make_task(find_spec().id)
    except TiplError:
        return None


class TorchJumps:
    """Lets a run jump to forecasts of its weights, and go on as correct PPO.

    Forecasters that know the task read weights as they would be under the task's frozen observation
    normaliser. Where the run has a normaliser of its own, a jump sets it to that one; where it has
    none, the difference is folded into the first layer.

    Args:
        config: when to jump; without a forecaster, to the model that ships for the task.
        agent: the run's networks and optimiser.
        normaliser: of the run's observations.
        task: what the run is trained on, without a normaliser; None if tipl does not know it.
        test_env: an environment for tests, whose observations are raw.
        rollout_steps: environment steps of a rollout; None if they are not known.
        seed: of the tests' episodes.

    Attributes:
        fallback: why another forecaster takes the place of the one that was asked for; None if
            none does. It is said as a warning.

    Raises:
        TiplError: there is no such forecaster, or an option is impossible.
    """

    def __init__(
        self,
        config: JumpConfig,
        agent: TorchAgent,
        normaliser: RunNormaliser,
        task: TaskSpec | None,
        test_env: gym.Env[Any, Any],
        rollout_steps: int | None,
        seed: int = 0,
    ) -> None:
        dataclasses.replace(config, forecaster=config.forecaster or "relex").check()
        self.config, self.agent, self.normaliser = config, agent, normaliser
        self.task, self.test_env, self.seed = task, test_env, seed
        # the normaliser under which the forecaster reads weights, if not the run's own
        self.frame = None
        if task is not None:
            self.frame = (np.array(task.observation_mean), np.array(task.observation_std))
        forecaster, self.fallback = fitting_forecaster(
            config, self._policy(), None if task is None else task.env_id
        )
        if self.fallback is not None:
            warnings.warn(f"{self.fallback}: {forecaster.name} forecasts instead", stacklevel=3)
        if not isinstance(forecaster, TrainedForecaster | BestStoredPolicy):
            self.frame = None
        self.jumper = Jumper(config, forecaster, 1, agent.layout, self._evaluate, rollout_steps)
        self.fresh = False  # jumped, and the critic not refitted yet
        self.before: tuple[Any, Any] | None = None

    def before_rollout(
        self, env_steps: int, last_return: float, episode_steps: float = np.nan
    ) -> JumpReport:
        """Undoes the last jump if it did worse, and jumps if it is time and worth it.

        Args:
            env_steps: environment steps of the run so far, tests included.
            last_return: mean return of the episodes that ended in the last rollout; NaN if none.
            episode_steps: their mean number of steps; NaN if none.
        """
        returns = np.array([last_return])
        undone = bool(self.jumper.judge(returns)[0])
        if undone and self.before is not None:
            self.agent.restore(self.before[0])
            self.normaliser.restore(self.before[1])
            self._scale_steps(False)
        jumps = self.jumper.before_rollout(
            self._params()[None],
            np.array([env_steps]),
            returns,
            episode_steps=np.array([episode_steps]),
        )
        accepted = bool(jumps.jumped[0])
        if accepted:
            self._jump(jumps.params[0])
        try_ = jumps.tries[0] if jumps.tries else None
        return JumpReport(
            tried=try_ is not None,
            accepted=accepted,
            undone=undone,
            horizon=0 if try_ is None else try_.horizon,
            return_before=np.nan if try_ is None else try_.return_before,
            return_after=np.nan if try_ is None else try_.return_after,
            steps=0 if try_ is None else try_.steps_spent,
            steps_spent=int(self.jumper.counters["jump_steps"][0]),
        )

    def _policy(self) -> Policy | None:
        """The run's policy under the task's frozen normaliser; None if tipl cannot read it."""
        if self.task is None or self.agent.layout is None:
            return None
        try:
            return Policy(self._refolded(self.agent.params()), self.agent.layout, self.task)
        except TiplError:  # of another task than its networks' sizes say
            return None

    def _params(self) -> Array:
        """The run's weights as its forecaster reads them."""
        return self._refolded(self.agent.params())

    def _refolded(self, params: Array, back: bool = False) -> Array:
        """Weights under the forecaster's normaliser, made from those under the run's; or back.

        A network that has not seen what its normaliser will be is as untrained under any.
        """
        if self.frame is None or self.normaliser.unsettled:
            return params
        frames = (self.normaliser.statistics, self.frame)
        old, new = frames[::-1] if back else frames
        return refolded(params, self.agent.known_layout, old, new)

    def _jump(self, params: Array) -> None:
        """Gives the run its new weights, and remembers what an undone jump goes back to."""
        self.before = self.agent.snapshot(), self.normaliser.snapshot()
        self._put_on(params)
        self._scale_steps(True)
        if self.config.moments == "reset":
            self.agent.reset_moments()
        self.fresh = True

    def _put_on(self, params: Array) -> None:
        """Gives the agent weights as its forecaster writes them, and the normaliser they need."""
        if self.frame is not None:
            mean, std = self.frame
            self.normaliser.settle(mean.copy(), std.copy())
            params = self._refolded(params, back=True)
        self.agent.set_params(params)

    def _scale_steps(self, jumped: bool) -> None:
        """Lets weights of normalised observations learn as such in a run that does not normalise.

        Without this HalfCheetah's velocities, which are up to seven times as large, let PPO walk
        away from where it has jumped to.
        """
        if self.frame is not None and self.normaliser.moments is None:
            self.agent.scale_first_steps(self.frame[1] if jumped else None)

    # --- tests -------------------------------------------------------------------------------

    def _evaluate(self, params: Array, runs: Array, when: int) -> Episodes:
        """An episode of each of several policies, which act in the agent's place."""
        returns, lengths = np.zeros((len(params), 1)), np.zeros((len(params), 1), np.int64)
        own, statistics = self.agent.params(), self.normaliser.snapshot()
        try:
            for m, candidate in enumerate(params):
                self._put_on(candidate)
                returns[m, 0], lengths[m, 0] = self._episode(episode_seed(self.seed + when, 0))
        finally:
            self.agent.set_params(own)
            self.normaliser.restore(statistics)
        return Episodes(returns, lengths)

    def _episode(self, seed: int) -> tuple[float, int]:
        """Return and length of one episode of the agent, acting by its mean."""
        observation, _ = self.test_env.reset(seed=seed)
        total, length, done, space = 0.0, 0, False, self.test_env.action_space
        while not done:
            inputs = self.normaliser.normalise(np.asarray(observation)[None])
            action = self.agent.act(inputs)[0]
            if isinstance(space, gym.spaces.Box):
                action = np.clip(action, space.low, space.high)
            observation, reward, terminated, truncated, _ = self.test_env.step(action)
            total, length, done = total + float(reward), length + 1, terminated or truncated
        return total, length

    # --- the critic --------------------------------------------------------------------------

    def refit_critic(self, observations: torch.Tensor, targets: Callable[[], torch.Tensor]) -> None:
        """Fits the critic to the first rollout after a jump; otherwise does nothing.

        Args:
            observations: of the rollout, normalised, `[B, O]`.
            targets: gives the returns `[B]` to fit, by the present critic's values: it is called
                anew every few passes, and once more at the end.
        """
        if not self.fresh:
            return
        self.fresh = False
        for first in range(0, self.config.critic_epochs, EPOCHS_OF_TARGETS):
            epochs = min(EPOCHS_OF_TARGETS, self.config.critic_epochs - first)
            self.agent.refit_critic(
                observations, targets(), epochs, MINIBATCH, CRITIC_LEARNING_RATE, self.seed + first
            )
        targets()

    # --- resuming ----------------------------------------------------------------------------

    def state(self) -> dict[str, Array]:
        """What a later run goes on from, beside the agent itself: arrays by name."""
        return self.jumper.state()

    def set_state(self, state: dict[str, Array]) -> None:
        """Continues from what `state` returned; a jump still to be judged stands."""
        self.jumper.set_state(state)
        counts = self.jumper.counters
        self._scale_steps(bool(counts["jumps"][0] > counts["rollbacks"][0]))
        self.jumper.arrays["pending"][:] = False
