"""Faster PPO in a single-file script of CleanRL's style: a hook of two calls."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Unpack

import gymnasium as gym
import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from tipl.core.options import config_from_options
from tipl.integrations.environment.gate_environment import GateEnvironment
from tipl.integrations.environment.members import all_layers
from tipl.integrations.environment.normaliser import RunNormaliser
from tipl.integrations.environment.run_environment import RunEnvironment, run_environment
from tipl.integrations.pytorch.agent import agent_of_cleanrl
from tipl.integrations.pytorch.jumps import JumpReport, TorchJumps, checked
from tipl.integrations.standing_aside import Guard, contents, guarded
from tipl.jumps.config import JumpConfig, JumpOptions
from tipl.models.world.belief import Belief


class ForecastHook:
    """Lets the PPO of a script jump to forecasts of its weights where these are better.

    ::

        hook = ForecastHook(envs, "HalfCheetah-v4")
        for iteration in range(1, args.num_iterations + 1):
            global_step = hook.before_rollout(agent, optimizer, global_step)
            ...  # the rollout, as ever
            hook.after_rollout(obs, rewards, dones, values, next_obs, next_done)
            ...  # advantages and update, as ever

    What a jump is, and what happens around it, is told at `tipl.integrations.sb3.ForecastCallback`.
    Where something goes wrong, the hook stands aside as that does: it says so once, to the logger
    "tipl" of Python's `logging`, and both calls do nothing.

    Args:
        envs: the script's vector of environments. Observations may be normalised by one
            `NormalizeObservation` for all of them.
        model: as of `ForecastCallback`.
        eval_env: environment for the tests: an Env or VectorEnv as the script's are, with or
            without what normalises observations; by default another one like them.
        gamma: discount factor of the script.
        gae_lambda: lambda of its advantages.
        seed: of the tests' episodes.
        config: when to jump, as an alternative to `options`.
        strict: raise what goes wrong, instead of standing aside.
        **options: fields of `tipl.jumps.config.JumpConfig`.

    Attributes:
        report: what happened before the last rollout; None where the hook stands aside.

    Raises:
        TiplError: an option is impossible. If `strict`: each environment normalises observations by
            itself, there is no way to test forecasts, or the agent is of another kind.
    """

    def __init__(
        self,
        envs: gym.vector.VectorEnv[Any, Any, Any],
        model: str | Path | None = None,
        *,
        eval_env: Any = None,
        gamma: float = 0.99,
        gae_lambda: float = 0.95,
        seed: int = 0,
        config: JumpConfig | None = None,
        strict: bool = False,
        **options: Unpack[JumpOptions],
    ) -> None:
        if model is not None:
            options["forecaster"] = str(model)
        self.config = checked(config_from_options(JumpConfig, config, options, "ForecastHook"))
        self.guard = Guard(strict)
        self.envs, self.gamma, self.gae_lambda, self.seed = envs, gamma, gae_lambda, seed
        self.environment: RunEnvironment | None = None
        self.jumps: TorchJumps | None = None
        self.report: JumpReport | None = None
        self.episodes_seen = 0
        self._look_around(eval_env)

    @guarded
    def _look_around(self, eval_env: Any) -> None:
        """Finds what the run acts in, and another one like it."""
        self.environment = run_environment(self.envs, eval_env)

    @property
    def normaliser(self) -> RunNormaliser:
        """What normalises the script's observations; nothing, where the hook stands aside."""
        return RunNormaliser(None, 0) if self.environment is None else self.environment.normaliser

    @property
    def world(self) -> Belief | None:
        """The script's physics, as a model of worlds has seen them; None if it has not."""
        return None if self.jumps is None else self.jumps.world

    @property
    def test_env(self) -> GateEnvironment | None:
        """The environment that forecasts are tested in; None where the hook stands aside."""
        return None if self.environment is None else self.environment.test_env

    def before_rollout(
        self, agent: nn.Module, optimizer: torch.optim.Optimizer, global_step: int
    ) -> int:
        """Undoes the last jump if it did worse, and jumps if it is time and worth it.

        Args:
            agent: with `actor_mean`, `actor_logstd` and `critic` as in CleanRL's
                `ppo_continuous_action.py`, or `actor` and `critic` as in its `ppo.py`.
            optimizer: of all its parameters.
            global_step: environment steps so far.

        Returns:
            Environment steps so far, with those of this call's tests.
        """
        self.report = None
        self._before_rollout(agent, optimizer, global_step)
        return global_step + (0 if self.report is None else self.report.steps)

    @guarded
    def _before_rollout(
        self, agent: nn.Module, optimizer: torch.optim.Optimizer, global_step: int
    ) -> None:
        """Sets the `report`."""
        if self.environment is None:
            return  # it stands aside
        if self.jumps is None:
            networks = agent_of_cleanrl(agent, optimizer)
            steps = None  # a rollout's steps are the script's own business
            self.jumps = TorchJumps(
                self.config, networks, self.environment, steps, self.seed, self.guard
            )
        self.report = self.jumps.before_rollout(global_step, *self._last_episodes())

    @guarded
    def after_rollout(
        self,
        obs: Float[Tensor, "T E ..."],
        rewards: Float[Tensor, "T E"],
        dones: Float[Tensor, "T E"],
        values: Float[Tensor, "T E"],
        next_obs: Float[Tensor, "E ..."],
        next_done: Float[Tensor, " E"],
    ) -> None:
        """After a jump, refits the critic to the rollout; otherwise does nothing.

        Args:
            obs: observations of the rollout, as the agent saw them.
            rewards: of its steps.
            dones: 1 where an observation is the first of an episode.
            values: of the observations; after a jump rewritten as the refitted critic says.
            next_obs: what followed the last step.
            next_done: whether that is the first of an episode.
        """
        if self.jumps is None or not self.jumps.fresh:
            return
        self.guard.remember(contents(values))
        agent = self.jumps.agent
        flat = obs.reshape(-1, *obs.shape[2:])  # [T, E, O] -> [T * E, O]

        def targets() -> Tensor:
            """Writes what the critic says now into `values`; returns what it should say."""
            with torch.no_grad():
                values[:] = agent.value(flat).reshape(values.shape)  # [T * E] -> [T, E]
                following, alive = agent.value(next_obs), 1.0 - next_done
                returns, advantage = torch.empty_like(values), torch.zeros_like(next_done)
                for t in reversed(range(len(values))):
                    delta = rewards[t] + self.gamma * following * alive - values[t]
                    advantage = delta + self.gamma * self.gae_lambda * alive * advantage
                    returns[t] = advantage + values[t]
                    following, alive = values[t], 1.0 - dones[t]
            return returns.reshape(-1)  # [T, E] -> [T * E]

        self.jumps.refit_critic(flat, targets)

    # --- the run -----------------------------------------------------------------------------

    def _last_episodes(self) -> tuple[float, float]:
        """Mean return and steps of the episodes that ended since the last call; NaN if unknown."""
        counters = [w for w in all_layers(self.envs) if hasattr(w, "return_queue")]
        count = sum(int(counter.episode_count) for counter in counters)
        new, self.episodes_seen = count - self.episodes_seen, count
        if new < max(1, len(counters)):
            return np.nan, np.nan
        each = new // len(counters)
        queues = ("return_queue", "length_queue")
        last = [[list(getattr(c, name))[-each:] for c in counters] for name in queues]
        return float(np.mean(last[0])), float(np.mean(last[1]))
