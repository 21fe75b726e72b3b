"""PPO for N independent trials in one batched loop.

The algorithm and its defaults are CleanRL's `ppo_continuous_action` (Huang et al., 2022), after
Schulman et al. (2017): one environment a trial or several, clipped surrogate and value losses,
generalised advantages, reward scaling, Adam with an annealed learning rate. The trial is a batch
axis: every array starts with N, and nothing is ever summed over it, so trials stay independent.
Unlike CleanRL, a truncated episode is bootstrapped with the value of its last observation, and the
environments of one trial share the statistics by which rewards (and, if these are running ones,
observations) are scaled.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import Any

import gymnasium as gym
import numpy as np

from tipl.core.arrays import Array
from tipl.core.seeds import Stream
from tipl.policies.actions import executable, normalise_observations
from tipl.policies.layout import ParamLayout, actor_layout, initial_params
from tipl.policies.tasks import TaskSpec
from tipl.ppo.config import PPOConfig
from tipl.ppo.learner import Learner, StackedAdam
from tipl.ppo.rollout import (
    RewardScaler,
    Rollout,
    RunningMoments,
    advantages_and_returns,
    steps_by_time,
    steps_by_trial,
)


class PlugIn:
    """What changes the trials' weights between iterations, beside PPO itself.

    This one changes nothing; a subclass overrides what it needs.
    """

    def start(self, ppo: PPO) -> None:
        """Is called once, before the first rollout; may write other weights into `ppo.params`."""

    def before_update(self, ppo: PPO, rollout: Rollout) -> None:
        """Is called before each update; may change what the update is told of the rollout."""

    def after_update(self, ppo: PPO, rollout: Rollout) -> None:
        """Is called after each update; may write other weights into `ppo.params`."""

    def checkpoint(self) -> dict[str, Array]:
        """What a checkpoint tells of the plug-in's work so far: arrays `[N]` by name."""
        return {}

    def state(self) -> dict[str, Array]:
        """Everything needed to continue, as arrays."""
        return {}

    def set_state(self, ppo: PPO, state: dict[str, Array]) -> None:
        """Continues, with fresh trials, from what `state` returned; instead of `start`."""


TRIALS_PER_LEARNER = 16
"""An update takes so many trials at a time: few, so that what it touches stays in the cache."""

STATE_ARRAYS = ("params", "diverged", "episode_return", "observation")
"""What `PPO.state` holds of the trials' own arrays."""


class StoppedError(Exception):
    """What ends `rollout` and `update` half-way when `PPO.stop` is set."""


class PPO:
    """N independent PPO trials, each in `config.num_envs` environments, E.

    `rollout()` then `update(rollout)` is one iteration. The actor's parameters come first in
    `params`, then the critic's. Once the event `stop` is set, whatever is under way raises
    `StoppedError`, after which the trials are good for nothing but `set_state`. The `plug_in`, once
    it is set, is called by `start()`, which then comes first, and before and after every update;
    its state is part of the trials'.

    Args:
        envs: N E environments, the first E of them the first trial's, with same-step autoreset, as
            `tipl.envs.make_vec` makes them.
        task: the task of `envs`; its observation statistics are the frozen normaliser.
        trials: number of each trial, N of them: with `seed`, they fix all random numbers.
        num_iterations: iterations over which the learning rate falls to 0.
        hidden_sizes: units in each hidden layer of actor and critic.
        normaliser: `"frozen"` (the task's statistics) or `"running"` (each trial's own, as
            CleanRL).
        initial: `"independent"` or `"shared"` initial networks of the trials.
        seed: seed of the whole collection.
        dtype: of all network arithmetic.
    """

    def __init__(
        self,
        envs: gym.vector.VectorEnv[Any, Any, Any],
        task: TaskSpec,
        trials: Sequence[int],
        num_iterations: int,
        config: PPOConfig | None = None,
        hidden_sizes: Sequence[int] = (64, 64),
        normaliser: str = "frozen",
        initial: str = "independent",
        seed: int = 0,
        dtype: type[np.floating[Any]] = np.float32,
    ) -> None:
        self.envs, self.task, self.trials = envs, task, list(trials)
        self.config = config or PPOConfig()
        self.config.check()
        self.num_iterations, self.seed, self.dtype = num_iterations, seed, dtype
        self.iteration = 0
        self.stop = threading.Event()
        self.plug_in = PlugIn()
        N, observation_size = len(self.trials), task.observation_size
        self.actor_layout = actor_layout(task, hidden_sizes)
        self.layout = self.actor_layout + ParamLayout.critic(observation_size, hidden_sizes)
        networks = self.trials if initial == "independent" else [0] * N
        keys = [Stream.INITIAL_NETWORK.key(seed, network) for network in networks]
        self.params = np.stack([initial_params(self.layout, key) for key in keys]).astype(dtype)
        self.last_finite = self.params.copy()
        # what follows shares the flat arrays
        self.adam = StackedAdam(self.params, self.config.adam_eps, self.config.max_grad_norm)
        starts = range(0, N, TRIALS_PER_LEARNER)
        together, *self.learners = [
            Learner(rows, task, self.layout, self.adam, self.config)
            for rows in (slice(None), *(slice(i, i + TRIALS_PER_LEARNER) for i in starts))
        ]
        self.actor, self.critic, self.head = together.actor, together.critic, together.head
        self.diverged = np.zeros(N, bool)
        self.observation_moments = (
            RunningMoments(N, (observation_size,)) if normaliser == "running" else None
        )
        E = self.config.num_envs
        self.reward_scaler = RewardScaler(N, self.config.gamma, self.config.reward_clip, E)
        self.episode_return = np.zeros(N * E)
        own = [(trial, e) for trial in self.trials for e in range(E)]
        # that of a trial's only environment has always been without a number
        env_seeds = [Stream.ENVIRONMENT.number(seed, n, *([e] if e else [])) for n, e in own]
        observation, _ = envs.reset(seed=env_seeds)  # type: ignore[arg-type]
        self.observation = self._receive(observation)

    @property
    def actors(self) -> Array:
        """The actors' weights `[N, P]`: a view of `params`."""
        return np.asarray(self.params[:, : self.actor_layout.size])

    def start(self) -> None:
        """Lets the plug-in begin before the first rollout."""
        self.plug_in.start(self)
        self._hold_diverged()

    # --- rollout ---------------------------------------------------------------------------

    def observation_statistics(self) -> tuple[Array, Array]:
        """Mean and std of the observation normaliser, `[N, O]` each."""
        if self.observation_moments is not None:
            return self.observation_moments.mean, self.observation_moments.std
        shape = (len(self.trials), self.task.observation_size)
        mean, std = self.task.observation_statistics
        return np.broadcast_to(mean, shape), np.broadcast_to(std, shape)

    def _receive(self, observations: Array) -> Array:
        """The environments' observations `[N E, O]`, normalised for the networks."""
        apart = self._apart(observations)
        if self.observation_moments is not None:
            self.observation_moments.update(apart)
        mean, std = (of_trials[:, None] for of_trials in self.observation_statistics())
        # [N, E, O] -> [N E, O]
        return normalise_observations(apart, mean, std, self.dtype).reshape(observations.shape)

    def _apart(self, columns: Array) -> Array:
        """What belongs to environments, `[N E, ...]`, by trials: `[N, E, ...]`."""
        return columns.reshape(len(self.trials), self.config.num_envs, *columns.shape[1:])

    @np.errstate(all="ignore")  # a trial about to diverge may overflow; `update` labels it
    def rollout(self) -> Rollout:
        """Lets every trial act for `num_steps` steps with its present weights."""
        T, M = self.config.num_steps, len(self.episode_return)
        observations = np.empty((T, M, self.task.observation_size), self.dtype)
        actions = np.empty((T, M, self.head.size), self.dtype)
        log_probs, rewards = (np.empty((T, M), self.dtype) for _ in range(2))
        dones, terminated = np.empty((T, M), bool), np.empty((T, M), bool)
        final_observations: list[tuple[int, int, Array]] = []  # of truncated episodes
        return_sum, ended = np.zeros(M), np.zeros(M, np.int32)
        noise = self._action_noise()
        for t in range(T):
            self._check_stop()
            observations[t] = self.observation
            outputs = self.actor.forward(self._apart(self.observation))  # [N, E, A]
            drawn, densities = self.head.draw(outputs, noise[t])
            # [N, E, A] -> [N E, A], and [N, E] -> [N E]
            actions[t], log_probs[t] = drawn.reshape(M, -1), densities.reshape(M)
            received, reward, terminated[t], truncated, info = self.envs.step(
                executable(self.task, actions[t])
            )
            dones[t] = terminated[t] | truncated
            rewards[t] = self.reward_scaler(reward, terminated[t])
            self.episode_return += reward
            if dones[t].any():
                return_sum += np.where(dones[t], self.episode_return, 0.0)
                ended += dones[t]
                self.episode_return[dones[t]] = 0.0
                bootstrapped = np.flatnonzero(truncated & ~terminated[t])
                final_observations += [(t, int(m), info["final_obs"][m]) for m in bootstrapped]
            self.observation = self._receive(received)
        steps = observations, actions, log_probs, rewards, dones, terminated
        num_episodes = self._apart(ended).sum(axis=1, dtype=np.int32)
        total = self._apart(return_sum).sum(axis=1)
        mean_return = np.where(num_episodes, total, np.nan) / np.maximum(num_episodes, 1)
        rollout = Rollout(*steps, self.observation, final_observations, mean_return, num_episodes)
        rollout.values, rollout.next_values = self.values_of(rollout)
        return rollout

    def _action_noise(self) -> Array:
        """What actions are drawn with, `[T, N, E, A]`, each trial's from its own generator."""
        rngs = [Stream.ACTION_NOISE.rng(self.seed, trial, self.iteration) for trial in self.trials]
        T, E = self.config.num_steps, self.config.num_envs
        # N of [T E, A] -> [T, E, A]
        noise = [self.head.noise(rng, T * E).reshape(T, E, -1) for rng in rngs]
        return np.stack(noise, axis=1).astype(self.dtype)

    @np.errstate(all="ignore")  # as in `rollout`
    def values_of(self, rollout: Rollout) -> tuple[Array, Array]:
        """`values` and `next_values` of a rollout, `[T, N E]` each, by the present critics."""
        E = self.config.num_envs
        inputs = np.concatenate([rollout.observations, rollout.next_observation[None]])
        values = steps_by_time(self._critic_values(steps_by_trial(inputs, E)), E)  # [T + 1, N E]
        next_values = np.where(rollout.terminated, self.dtype(0), values[1:])
        if rollout.final_observations:
            steps, columns, raw = map(np.array, zip(*rollout.final_observations, strict=True))
            trials, (mean, std) = columns // E, self.observation_statistics()
            # place k of the padded [N, K, O] holds each trial's k-th truncated episode
            places = [np.count_nonzero(trials[:i] == n) for i, n in enumerate(trials)]
            final = np.zeros((len(self.trials), max(places) + 1, inputs.shape[2]), self.dtype)
            final[trials, places] = normalise_observations(
                raw, mean[trials], std[trials], self.dtype
            )
            next_values[steps, columns] = self._critic_values(final)[trials, places]
        return values[:-1], next_values

    def _critic_values(self, inputs: Array) -> Array:
        """Values `[N, B]` of normalised observations `[N, B, O]`, in pieces that fit the cache."""
        pieces = [inputs[:, start : start + 64] for start in range(0, inputs.shape[1], 64)]
        return np.concatenate([self.critic.forward(piece)[:, :, 0] for piece in pieces], axis=1)

    # --- update ----------------------------------------------------------------------------

    def advantages_and_returns(self, rollout: Rollout) -> tuple[Array, Array]:
        """Advantages of a rollout's actions, and what its values shall become, `[T, N E]` each."""
        steps = rollout.rewards, rollout.values, rollout.next_values, rollout.dones
        return advantages_and_returns(*steps, self.config.gamma, self.config.gae_lambda)

    def update(self, rollout: Rollout) -> None:
        """Improves every trial's weights on its own rollout, `update_epochs` times over.

        A trial whose weights stop being finite keeps its last finite ones from then on, and is
        marked in `diverged`.
        """
        config = self.config
        self.plug_in.before_update(self, rollout)
        advantages, returns = self.advantages_and_returns(rollout)
        learning_rate = config.learning_rate
        if config.anneal_lr:
            learning_rate *= 1.0 - self.iteration / self.num_iterations
        # The order is the same for all trials; their data differ.
        rng = Stream.MINIBATCHES.rng(self.seed, self.iteration)
        orders = [rng.permutation(config.rollout_steps) for _ in range(config.update_epochs)]
        for learner in self.learners:
            learner.update(rollout, advantages, returns, orders, learning_rate, self._check_stop)
        self.iteration += 1
        self._hold_diverged()
        self.plug_in.after_update(self, rollout)
        self._hold_diverged()  # against what the plug-in made of the weights

    def _hold_diverged(self) -> None:
        """Labels trials with weights that are not finite and holds them at their last finite."""
        self.diverged |= ~np.isfinite(self.params).all(axis=1)
        held = self.diverged
        self.params[held] = self.last_finite[held]
        self.adam.reset(held)
        self.last_finite[:] = self.params

    # --- stopping and resuming -------------------------------------------------------------

    def _check_stop(self) -> None:
        if self.stop.is_set():
            raise StoppedError

    def _parts(self) -> dict[str, Any]:
        """What the trials are made of that has a state of its own, by name."""
        parts = {"adam": self.adam, "reward_scaler": self.reward_scaler, "envs": self.envs}
        if self.observation_moments is not None:
            parts["observation_moments"] = self.observation_moments
        return parts

    def state(self) -> dict[str, Array]:
        """Everything needed to go on as if never interrupted: copies, by dotted name."""
        parts = {name: part.state() for name, part in self._parts().items()}
        parts["plug_in"] = self.plug_in.state()
        parts["ppo"] = {name: getattr(self, name) for name in STATE_ARRAYS}
        parts["ppo"]["iteration"] = np.array(self.iteration)
        return {
            f"{part}.{name}": np.array(array)
            for part, arrays in parts.items()
            for name, array in arrays.items()
        }

    def set_state(self, state: dict[str, Array]) -> None:
        """Continues from what `state` returned.

        Raises:
            LookupError, ValueError: it is the state of other trials, or impossible.
        """
        parts: dict[str, dict[str, Array]] = {}
        for dotted, array in state.items():
            part, name = dotted.split(".", 1)
            parts.setdefault(part, {})[name] = array
        for name, resumable in self._parts().items():
            resumable.set_state(parts[name])
        self.plug_in.set_state(self, parts.get("plug_in", {}))
        for name in STATE_ARRAYS:
            getattr(self, name)[...] = parts["ppo"][name]
        self.last_finite[:] = self.params
        self.iteration = int(parts["ppo"]["iteration"])
        if not 0 <= self.iteration <= self.num_iterations or (self.adam.num_steps < 0).any():
            raise ValueError(f"iteration {self.iteration} of {self.num_iterations}")
