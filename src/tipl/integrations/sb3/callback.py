"""Faster PPO in stable-baselines3: a callback that jumps to forecasts of the policy's weights."""

from __future__ import annotations

import functools
import inspect
from pathlib import Path
from typing import Any, Unpack

import numpy as np
import torch
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.on_policy_algorithm import OnPolicyAlgorithm
from stable_baselines3.common.vec_env import VecNormalize

from tipl.core import storage
from tipl.core.options import config_from_options
from tipl.core.ownership import check_file
from tipl.core.terminal import say
from tipl.errors import TiplError
from tipl.integrations.environment.run_environment import run_environment
from tipl.integrations.pytorch.jumps import JumpReport, TorchJumps, checked
from tipl.integrations.sb3.agent import agent_of_sb3
from tipl.integrations.standing_aside import (
    Guard,
    attributes,
    contents,
    generators_kept,
    guarded,
    watched,
)
from tipl.jumps.config import JumpConfig, JumpOptions
from tipl.jumps.jumper import JUMPS
from tipl.models.world.belief import Belief


def on_policy(callback: BaseCallback) -> OnPolicyAlgorithm:
    """The algorithm that a callback was given to.

    Raises:
        TiplError: it is none that learns from rollouts.
    """
    if not isinstance(callback.model, OnPolicyAlgorithm):
        raise TiplError(
            f"a {type(callback).__name__} was given to {type(callback.model).__name__}; expected "
            "an algorithm that learns from rollouts, such as stable_baselines3.PPO"
        )
    return callback.model


def check_acts_alone(model: OnPolicyAlgorithm) -> None:
    """Raises a TiplError if an algorithm's actions depend on more than the present observation."""
    seen: Any = model._last_obs
    more = "masks" if "action_masks" in inspect.signature(model.predict).parameters else None
    if more is None and model.predict(seen, deterministic=True)[1] is not None:
        more = "states of earlier steps"
    if more is not None:
        raise TiplError(
            f"actions of {type(model).__name__} may depend on {more}, which tests of a forecast do "
            "not have; use an algorithm that acts by the observation alone, such as PPO"
        )


class ForecastCallback(BaseCallback):
    """Lets a PPO run jump to forecasts of its weights where these are better.

    At the start of a rollout, when it is time, the present policy and forecasts of it act for some
    episodes in an environment beside the run's. These steps count as steps of the run. If a
    forecast is better by the margin, the run goes on from there as correct PPO: Adam forgets the
    moments of the moved weights, `VecNormalize` sees what the forecaster saw, and the critic is
    refitted to the first rollout before the actor moves. A jump that does worse in that rollout is
    undone.

    A model of worlds (`tipl train --model world`) first makes 250 of these steps to see what world
    the run is in, and forecasts networks for that one. What it has seen is the `world`, and is told
    once; to the run's logger as well, as `tipl/world/FACTOR`.

    The run's logger is told `tipl/jump_horizon`, `tipl/jump_accepted`, `tipl/return_before`,
    `tipl/return_after`, `tipl/steps_spent` and `tipl/jump_undone`.

    Where the model does not fit the task or the networks, RELEX takes its place. Where there is no
    way to test forecasts, or anything goes wrong, the callback stands aside: weights, optimiser,
    normaliser and buffer are what they were, and the run goes on as if it were not there. It says
    either once, to the logger "tipl" of Python's `logging` and to the run's own. What it does draws
    nothing from the global generators of random numbers.

    Args:
        model: name of a model that ships with tipl, its directory, that of a policy, or `relex`,
            `line`, `two-point` or `pptb`; by default the model that ships for the run's task.
        eval_env: environment for the tests: an Env, VectorEnv or VecEnv, as the run's is, with or
            without what normalises observations; by default another one like the run's.
        state_file: where what the callback knows is kept from rollout to rollout, so that a run
            that goes on (`reset_num_timesteps=False`) goes on with it.
        seed: of the tests' episodes.
        config: when to jump, as an alternative to `options`.
        strict: raise what goes wrong, instead of standing aside.
        verbose: 1 prints a line for each jump.
        **options: fields of `tipl.jumps.config.JumpConfig`, such as `every=8` or `gate=False`.

    Raises:
        TiplError: an option is impossible. If `strict`, when training starts: there is no such
            forecaster, no way to test forecasts, or the algorithm is none that learns from rollouts
            by what the policy sees alone.
    """

    def __init__(
        self,
        model: str | Path | None = None,
        *,
        eval_env: Any = None,
        state_file: str | Path | None = None,
        seed: int = 0,
        config: JumpConfig | None = None,
        strict: bool = False,
        verbose: int = 0,
        **options: Unpack[JumpOptions],
    ) -> None:
        super().__init__(verbose)
        if model is not None:
            options["forecaster"] = str(model)
        self.config = checked(config_from_options(JumpConfig, config, options, "ForecastCallback"))
        self.guard = Guard(strict, functools.partial(getattr, self, "logger"))
        self.eval_env, self.seed = eval_env, seed
        self.state_file = None if state_file is None else Path(state_file)
        self.jumps: TorchJumps | None = None
        self.told_world = False
        self.trained: tuple[object, ...] = ()  # model and environment whose jumps they are
        # return and steps of the episodes that ended in this rollout
        self.last_episodes: list[tuple[float, float]] = []
        self.truncated: list[tuple[int, int, torch.Tensor, float]] = []
        self.step = 0

    @property
    def world(self) -> Belief | None:
        """The run's physics, as a model of worlds has seen them; None if it has not."""
        return None if self.jumps is None else self.jumps.world

    def _init_callback(self) -> None:
        self.guard.begin(self.model, self.model.get_env())

    @guarded
    def _on_training_start(self) -> None:
        if self.state_file is not None:
            check_file(self.state_file, storage.own_tensors("jumps"))
        model = on_policy(self)
        trained = (model, self.training_env)
        if self.num_timesteps and list(map(id, self.trained)) == list(map(id, trained)):
            return  # the same run goes on
        # elsewhere the path so far and its last jump mean nothing; their tests still count
        before = self.jumps if model in self.trained else None
        self.jumps = None
        check_acts_alone(model)
        environment = run_environment(self.training_env, self.eval_env)
        rollout_steps = model.n_steps * model.n_envs
        jumps = TorchJumps(
            self.config, agent_of_sb3(model), environment, rollout_steps, self.seed, self.guard
        )
        if before is not None and self.num_timesteps:
            jumps.jumper.count(before.jumper.counters)
        elif self.state_file is not None and self.state_file.exists() and self.num_timesteps:
            jumps.set_state(JUMPS.read(self.state_file)[0])
        self._values(jumps, torch.as_tensor(model._last_obs))  # what fails would do so mid-run
        if before is not None:
            jumps.take_steps_over(before)
        self.jumps, self.trained, self.told_world = jumps, trained, False

    @guarded
    def _on_rollout_start(self) -> None:
        if self.jumps is None:
            return
        counts = attributes(self.model, "num_timesteps", "_last_obs")
        self.guard.remember(counts, attributes(self, "num_timesteps"))
        last = np.mean(self.last_episodes or [(np.nan, np.nan)], axis=0)
        report = self.jumps.before_rollout(self.model.num_timesteps, *map(float, last))
        self.model.num_timesteps += report.steps
        self.num_timesteps = self.model.num_timesteps
        if report.accepted or report.undone:
            self._see_again(self.jumps)
        if self.state_file is not None:
            storage.write_tensors(self.state_file, self.jumps.jumper.state(), {"kind": "jumps"})
        self._log(report)
        self.last_episodes, self.truncated, self.step = [], [], 0

    def _on_step(self) -> bool:
        self._see_step()
        return True

    @watched
    def _see_step(self) -> None:
        """Remembers the episodes that ended, and the values that stand for cut ones' rest."""
        jumps = self.jumps
        if jumps is None:
            return
        for env, (info, done) in enumerate(
            zip(self.locals["infos"], self.locals["dones"], strict=True)
        ):
            if "episode" in info:
                self.last_episodes.append((info["episode"]["r"], info["episode"]["l"]))
            if jumps.fresh and done and info.get("TimeLimit.truncated", False):
                observation = torch.as_tensor(info["terminal_observation"])[None]
                with generators_kept():
                    value = self._values(jumps, observation)[0]
                self.truncated.append((self.step, env, observation, float(value)))
        self.step += 1

    def _on_rollout_end(self) -> None:
        if self.jumps is not None and self.jumps.fresh:
            self._refit_critic(self.jumps)

    @guarded
    def _refit_critic(self, jumps: TorchJumps) -> None:
        """Fits the critic to the first rollout after a jump, and tells the buffer what it says."""
        model = on_policy(self)
        buffer, gamma = model.rollout_buffer, model.gamma
        told = [buffer.values, buffer.rewards, buffer.returns, buffer.advantages]
        self.guard.remember(contents(*told), attributes(buffer, "returns", "advantages"))
        # [T, E, O] -> [T * E, O]
        observations = torch.as_tensor(buffer.observations.reshape(-1, *buffer.obs_shape))

        def targets() -> torch.Tensor:
            """Tells the buffer what the critic says now, and returns what it should say."""
            values = self._values(jumps, observations).numpy()
            buffer.values[:] = values.reshape(buffer.values.shape)  # [T * E] -> [T, E]
            for n, (step, env, last, old) in enumerate(self.truncated):
                value = float(self._values(jumps, last)[0])
                buffer.rewards[step, env] += gamma * (value - old)
                self.truncated[n] = (step, env, last, value)
            following = self._values(jumps, torch.as_tensor(self.locals["new_obs"]))
            buffer.compute_returns_and_advantage(following[:, None], self.locals["dones"])
            return torch.as_tensor(buffer.returns.reshape(-1))  # [T, E] -> [T * E]

        jumps.refit_critic(observations, targets)

    # --- the run -----------------------------------------------------------------------------

    def _values(self, jumps: TorchJumps, observations: torch.Tensor) -> torch.Tensor:
        """What the jumps' agent values `[B]` normalised observations `[B, O]` at."""
        with torch.no_grad():
            return jumps.agent.value(observations.to(self.model.device)).cpu()

    def _see_again(self, jumps: TorchJumps) -> None:
        """Shows the policy its last observation as it is normalised now."""
        normalise = self.model.get_vec_normalize_env()
        if jumps.frame is not None and isinstance(normalise, VecNormalize) and normalise.norm_obs:
            self.model._last_obs = normalise.normalize_obs(normalise.get_original_obs())

    def _log(self, report: JumpReport) -> None:
        told: dict[str, float] = {
            "steps_spent": report.steps_spent,
            "jump_undone": int(report.undone),
        }
        if report.tried:
            told |= {"jump_horizon": report.horizon, "jump_accepted": int(report.accepted)}
            told |= {"return_before": report.return_before, "return_after": report.return_after}
        if self.world is not None and not self.told_world:
            self.told_world = True
            told |= {f"world/{name}": factor for name, factor in self.world.factors.items()}
        for name, value in told.items():
            self.logger.record(f"tipl/{name}", value)
        if self.verbose and (report.accepted or report.undone):
            what = "undid its jump" if report.undone else f"jumped {report.horizon} checkpoints"
            say(
                f"tipl: at {self.num_timesteps:,} steps the run {what} (mean return "
                f"{report.return_before:,.1f}, forecast {report.return_after:,.1f})"
            )
