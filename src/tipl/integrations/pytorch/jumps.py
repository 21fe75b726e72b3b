"""Jumps of one PyTorch run, whatever library trains it."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable

import numpy as np
import torch

from tipl.core.arrays import Array
from tipl.errors import TiplError
from tipl.evaluation.experience import WorldSteps
from tipl.evaluation.returns import Episodes, episode_seed
from tipl.forecast.base import Forecaster
from tipl.integrations.environment.members import quiet
from tipl.integrations.environment.run_environment import RunEnvironment
from tipl.integrations.pytorch.agent import TorchAgent
from tipl.integrations.standing_aside import Guard, Restore
from tipl.jumps.config import CRITIC_LEARNING_RATE, EPOCHS_OF_TARGETS, JumpConfig
from tipl.jumps.forecasters import fitting_forecaster, task_of
from tipl.jumps.jumper import Jumper, JumpTry
from tipl.models.world.adapting import USUAL_STEPS, explored
from tipl.models.world.belief import Belief
from tipl.models.world.forecaster import WorldForecaster
from tipl.policies.actions import Statistics, refolded
from tipl.policies.policy import Policy
from tipl.policies.tasks import TaskSpec

STAYING = JumpTry(0, 0, False, np.nan, np.nan, 0)
"""What came of no try at all."""


@dataclasses.dataclass(frozen=True)
class JumpReport:
    """What happened before one rollout."""

    tried: bool
    """whether forecasts were tried"""
    undone: bool
    """whether the run's last jump was undone"""
    horizon: int
    """checkpoints that it jumped ahead; 0 if it stayed"""
    accepted: bool
    """whether it jumped"""
    return_before: float
    """mean return of the policy before the try; NaN if it was not run"""
    return_after: float
    """of the best forecast"""
    steps: int
    """of the environment, in the tests of this try"""
    steps_spent: int
    """in all tests so far"""


def checked(config: JumpConfig) -> JumpConfig:
    """A configuration that is possible in a run, where naming no forecaster is, too.

    Raises:
        TiplError: it is not.
    """
    dataclasses.replace(config, forecaster=config.forecaster or "relex").check()
    return config


class TorchJumps:
    """Lets a run jump to forecasts of its weights, and go on as correct PPO.

    Without a forecaster in its configuration it jumps to those of the model that ships for the
    task. The `rollout_steps`, of the environment, are None if they are not known.

    Forecasters that know the task read weights as they would be under the task's frozen observation
    normaliser. Where the run has a normaliser of its own, a jump sets it to that one; where it has
    none, the difference is folded into the first layer. Where another forecaster takes the place of
    the one that was asked for, the guard says why.

    A model of worlds first makes some steps in the environment for tests, to see what world the run
    is in, and forecasts for that one from then on; what it has seen is the `world`.

    The `guard` is that of whoever owns these jumps, and sets back what a call that fails has
    changed; by default exceptions are the caller's.

    Raises:
        TiplError: there is no such forecaster, or an option is impossible.
    """

    def __init__(
        self,
        config: JumpConfig,
        agent: TorchAgent,
        environment: RunEnvironment,
        rollout_steps: int | None,
        seed: int = 0,
        guard: Guard | None = None,
    ) -> None:
        self.config, self.agent, self.seed = checked(config), agent, seed
        self.guard = guard or Guard(strict=True)
        self.normaliser, self.env_id, self.test_env, self.differing = environment
        forecaster, reason = fitting_forecaster(config, self._policy, self.env_id)
        if reason is not None:
            self.guard.tell(f"{reason}: {forecaster.name} forecasts instead")
        task = task_of(forecaster)
        # the normaliser under which the forecaster reads weights, if not the run's own
        self.frame = None if task is None else task.observation_statistics
        look = None
        if isinstance(forecaster, WorldForecaster):
            look = functools.partial(self._look, forecaster)
        self.world: Belief | None = None  # what was seen of it; None before that
        self.jumper = Jumper(
            config, forecaster, 1, agent.layout, self._evaluate, rollout_steps, look
        )
        self.fresh = False  # jumped, and the critic not refitted yet
        self.before: Restore | None = None  # goes back to before the last jump

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
            self.guard.remember(self._present())
            self.before()
        jumps = self.jumper.before_rollout(
            self._refolded(self.agent.params(), self.frame)[None],
            np.array([env_steps]),
            returns,
            episode_steps=np.array([episode_steps]),
        )
        (try_,) = jumps.tries or [STAYING]
        if try_.accepted:
            self._jump(jumps.params[0])
        steps_spent = int(self.jumper.counters["jump_steps"][0])
        return JumpReport(bool(jumps.tries), undone, *try_[1:], steps_spent)

    def _policy(self, task: TaskSpec) -> Policy | None:
        """The run's policy under a task's frozen normaliser; None if tipl cannot read it."""
        if self.env_id is None or self.agent.layout is None:
            return None
        here, there = (name.rpartition(":")[2] for name in (self.env_id, task.env_id))
        if here != there:
            raise TiplError(f"the run acts in {here}, and what should forecast is for {there}")
        params = self._refolded(self.agent.params(), task.observation_statistics)
        return Policy(params, self.agent.layout, task)

    def _refolded(self, params: Array, frame: Statistics | None, back: bool = False) -> Array:
        """Weights under the forecaster's normaliser, made from those under the run's; or back.

        A network that has not seen what its normaliser will be is as untrained under any.
        """
        if frame is None or self.normaliser.unsettled:
            return params
        frames = (self.normaliser.statistics, frame)
        old, new = frames[::-1] if back else frames
        return refolded(params, self.agent.known_layout, old, new)

    def _jump(self, params: Array) -> None:
        """Gives the run its new weights, and remembers what an undone jump goes back to."""
        self.before = self._present()
        self.guard.remember(self.before)
        self._put_on(params)
        self._scale_steps(True)
        if self.config.moments == "reset":
            self.agent.reset_moments()
        self.fresh = True

    def _present(self) -> Restore:
        """Remembers all that a jump or a test changes, to the bit."""
        agent, normaliser = self.agent.snapshot(), self.normaliser.snapshot()
        scale = self.agent.step_scale

        def restore() -> None:
            self.agent.restore(agent)
            self.normaliser.restore(normaliser)
            self.agent.scale_first_steps(scale, self.guard)

        return restore

    def _put_on(self, params: Array) -> None:
        """Gives the agent weights as its forecaster writes them, and the normaliser they need."""
        if self.frame is not None:
            mean, std = self.frame
            self.normaliser.settle(mean.copy(), std.copy())
            params = self._refolded(params, self.frame, back=True)
        self.agent.set_params(params)

    def _scale_steps(self, jumped: bool) -> None:
        """Lets weights of normalised observations learn as such in a run that does not normalise.

        Without this HalfCheetah's velocities, which are up to seven times as large, let PPO walk
        away from where it has jumped to.
        """
        if self.frame is not None and self.normaliser.moments is None:
            self.agent.scale_first_steps(self.frame[1] if jumped else None, self.guard)

    def take_steps_over(self, before: TorchJumps) -> None:
        """Scales steps as jumps of the same optimiser did before these, and in their place."""
        scale = before.agent.step_scale
        before.agent.scale_first_steps(None)
        self.agent.scale_first_steps(scale, self.guard)

    # --- what world it is --------------------------------------------------------------------

    def _look(self, model: WorldForecaster, run: int) -> tuple[Forecaster, int]:
        """The model for the world of the run, and the environment steps that showed it."""
        if self.differing:
            raise TiplError(
                "the run's environment and the one for tests differ in their physics: "
                f"{', '.join(self.differing)}, so that steps in one do not show the other; give an "
                "eval_env that was changed as the run's was"
            )
        with quiet():
            world = WorldSteps(self.test_env.bare, model.task, episode_seed(self.seed, 0))
            seen = explored(world, model.teacher_policy(), USUAL_STEPS, self.seed)
        found = model.having_seen(seen)
        self.world = found.belief
        self.guard.tell(f"the run's world, as seen in {len(seen)} steps: {self.world}")
        return found, world.num_steps

    # --- tests -------------------------------------------------------------------------------

    def _evaluate(self, params: Array, runs: Array, when: int) -> Episodes:
        """An episode of each of several policies, which act in the agent's place."""
        returns, lengths = np.zeros((len(params), 1)), np.zeros((len(params), 1), np.int64)
        go_back = self._present()
        try:
            for m, candidate in enumerate(params):
                self._put_on(candidate)
                seed = episode_seed(self.seed + when, 0)
                returns[m, 0], lengths[m, 0] = self.test_env.episode(self.agent.act, seed)
        finally:
            go_back()
        return Episodes(returns, lengths)

    # --- the critic --------------------------------------------------------------------------

    def refit_critic(self, observations: torch.Tensor, targets: Callable[[], torch.Tensor]) -> None:
        """Fits the critic to the first rollout after a jump: one that is `fresh`.

        Args:
            observations: of the rollout, normalised, `[B, O]`.
            targets: gives the returns `[B]` to fit, by the present critic's values: it is called
                anew every few passes, and once more at the end.
        """
        self.fresh = False
        self.guard.remember(self._present())
        for first in range(0, self.config.critic_epochs, EPOCHS_OF_TARGETS):
            epochs = min(EPOCHS_OF_TARGETS, self.config.critic_epochs - first)
            self.agent.refit_critic(
                observations, targets(), epochs, CRITIC_LEARNING_RATE, self.seed + first
            )
        targets()

    # --- resuming ----------------------------------------------------------------------------

    def set_state(self, state: dict[str, Array]) -> None:
        """Continues from what `Jumper.state` returned; a jump still to be judged stands."""
        self.jumper.set_state(state)
        counts = self.jumper.counters
        self._scale_steps(bool(counts["jumps"][0] > counts["rollbacks"][0]))
        self.jumper.arrays["pending"][:] = False
