"""One PPO trial in one environment with torch: the usual way, and the measure of the batched one.

    python benchmarks/single_trial_ppo.py --env-id HalfCheetah-v4 --total-steps 200000

The algorithm and its hyperparameters are those of CleanRL's `ppo_continuous_action` (Huang et al.,
2022), and so is the way of computing it: one step at a time, one network, autograd. It shares no
code with `tipl.ppo`, so that its speed and its returns are an answer from elsewhere. Two things
differ from CleanRL: the environment is not a vector environment of one, and the value of a
truncated episode's last observation is bootstrapped, as tipl does (`bootstrap_truncated`).
"""

from __future__ import annotations

import dataclasses
import sys
import time
import warnings
from collections.abc import Iterator
from typing import Any, NamedTuple

import gymnasium as gym
import mujoco
import numpy as np
import torch
import tyro
from torch import Tensor, nn
from torch.distributions import Normal

from tipl import TiplError

BOUND = 10.0
"""Normalised observations and rewards are clipped to +- this."""


@dataclasses.dataclass(frozen=True)
class Hyperparameters:
    """Hyperparameters of a trial; the defaults are CleanRL's for continuous actions."""

    num_steps: int = 2048
    """environment steps between two updates"""
    num_minibatches: int = 32
    """minibatches that a rollout is cut into"""
    update_epochs: int = 10
    """passes over each rollout"""
    learning_rate: float = 3e-4
    """Adam's learning rate at the start"""
    anneal_lr: bool = True
    """let the learning rate fall linearly to 0"""
    gamma: float = 0.99
    """discount factor"""
    gae_lambda: float = 0.95
    """lambda of the generalised advantage estimate"""
    norm_adv: bool = True
    """normalise the advantages of each minibatch"""
    clip_coef: float = 0.2
    """clipping range of the probability ratio and of the value"""
    clip_vloss: bool = True
    """clip the value loss, too"""
    ent_coef: float = 0.0
    """weight of the entropy bonus"""
    vf_coef: float = 0.5
    """weight of the value loss"""
    max_grad_norm: float = 0.5
    """largest norm of the gradient"""
    adam_eps: float = 1e-5
    """epsilon of Adam"""
    hidden_size: int = 64
    """units in each of the two hidden layers of actor and critic"""
    bootstrap_truncated: bool = True
    """after a truncation count the last observation's value; CleanRL counts 0"""


DEFAULTS = Hyperparameters()


class Episode(NamedTuple):
    """A finished training episode."""

    global_step: int
    """environment steps of the trial when it ended"""
    episodic_return: float
    """undiscounted sum of its rewards, not scaled"""


class Rollout(NamedTuple):
    """What happened between two updates, time first."""

    observations: Tensor  # [T, O], normalised
    actions: Tensor  # [T, A], before clipping to the action bounds
    log_probs: Tensor  # [T]
    rewards: Tensor  # [T], scaled
    values: Tensor  # [T], of the observations
    next_values: Tensor  # [T], of what followed them; 0 after a termination
    dones: Tensor  # [T], 1 where an episode ended


def make_env(env_id: str, gamma: float) -> gym.Env[Any, Any]:
    """An environment in the usual wrappers for continuous control."""
    env: gym.Env[Any, Any] = gym.make(env_id)
    env = gym.wrappers.FlattenObservation(env)
    env = gym.wrappers.RecordEpisodeStatistics(env)
    env = gym.wrappers.ClipAction(env)
    env = gym.wrappers.NormalizeObservation(env)
    env = gym.wrappers.TransformObservation(
        env, lambda observation: np.clip(observation, -BOUND, BOUND), env.observation_space
    )
    env = gym.wrappers.NormalizeReward(env, gamma=gamma)
    return gym.wrappers.TransformReward(env, lambda reward: np.clip(reward, -BOUND, BOUND))


def mlp(inputs: int, hidden: int, outputs: int, last_gain: float) -> nn.Sequential:
    """Two hidden tanh layers, orthogonal weights, biases of 0."""
    sizes, gains = (inputs, hidden, hidden, outputs), (2**0.5, 2**0.5, last_gain)
    layers: list[nn.Module] = []
    for fan_in, fan_out, gain in zip(sizes[:-1], sizes[1:], gains, strict=True):
        linear = nn.Linear(fan_in, fan_out)
        nn.init.orthogonal_(linear.weight, gain)
        nn.init.zeros_(linear.bias)
        layers += [linear, nn.Tanh()]
    return nn.Sequential(*layers[:-1])


class Agent(nn.Module):
    """A Gaussian policy whose std does not depend on the observation, and a separate critic."""

    def __init__(self, observation_size: int, action_size: int, hidden_size: int) -> None:
        super().__init__()
        self.actor_mean = mlp(observation_size, hidden_size, action_size, 0.01)
        self.log_std = nn.Parameter(torch.zeros(action_size))
        self.critic = mlp(observation_size, hidden_size, 1, 1.0)

    def policy(self, observations: Tensor) -> Normal:
        """Distribution of each action value, `[..., A]`."""
        mean = self.actor_mean(observations)
        return Normal(mean, self.log_std.exp().expand_as(mean))

    def value(self, observations: Tensor) -> Tensor:
        """Values `[...]` of observations `[..., O]`."""
        return self.critic(observations)[..., 0]


class Trial:
    """The agent, its optimiser and its environment, in the middle of an episode."""

    def __init__(self, env_id: str, seed: int, config: Hyperparameters = DEFAULTS) -> None:
        torch.manual_seed(seed)
        self.config, self.global_step = config, 0
        self.env = make_env(env_id, config.gamma)
        self.observation_size = int(np.prod(self.env.observation_space.shape))
        self.action_size = int(np.prod(self.env.action_space.shape))
        self.agent = Agent(self.observation_size, self.action_size, config.hidden_size)
        self.optimizer = torch.optim.Adam(
            self.agent.parameters(), lr=config.learning_rate, eps=config.adam_eps
        )
        self.observation = as_tensor(self.env.reset(seed=seed)[0])

    @torch.no_grad()
    def rollout(self) -> tuple[Rollout, list[Episode]]:
        """Acts for `num_steps` steps; also returns the episodes that ended."""
        T = self.config.num_steps
        observations = torch.zeros(T, self.observation_size)
        actions = torch.zeros(T, self.action_size)
        log_probs, rewards, values = torch.zeros(T), torch.zeros(T), torch.zeros(T)
        dones, final_values = torch.zeros(T), torch.zeros(T)
        episodes = []
        for t in range(T):
            observations[t] = self.observation
            policy = self.agent.policy(self.observation)
            actions[t] = policy.sample()
            log_probs[t] = policy.log_prob(actions[t]).sum()
            values[t] = self.agent.value(self.observation)
            received, reward, terminated, truncated, info = self.env.step(actions[t].numpy())
            self.global_step += 1
            rewards[t] = float(reward)
            if terminated or truncated:
                dones[t] = 1.0
                if self.config.bootstrap_truncated and not terminated:
                    final_values[t] = self.agent.value(as_tensor(received))
                episodes.append(Episode(self.global_step, float(info["episode"]["r"])))
                received, _ = self.env.reset()
            self.observation = as_tensor(received)
        following = torch.cat([values[1:], self.agent.value(self.observation)[None]])
        next_values = torch.where(dones == 1.0, final_values, following)
        done = Rollout(observations, actions, log_probs, rewards, values, next_values, dones)
        return done, episodes

    def update(self, rollout: Rollout, learning_rate: float) -> None:
        """Improves the agent on a rollout, `update_epochs` times over."""
        self.optimizer.param_groups[0]["lr"] = learning_rate
        advantages = advantages_of(rollout, self.config.gamma, self.config.gae_lambda)
        returns = advantages + rollout.values
        for _ in range(self.config.update_epochs):
            order = torch.randperm(len(advantages))
            for indices in torch.tensor_split(order, self.config.num_minibatches):
                loss = self.loss(Rollout(*(x[indices] for x in rollout)),
                                 advantages[indices], returns[indices])  # fmt: skip
                self.optimizer.zero_grad()
                loss.backward()
                nn.utils.clip_grad_norm_(self.agent.parameters(), self.config.max_grad_norm)
                self.optimizer.step()

    def loss(self, batch: Rollout, advantages: Tensor, returns: Tensor) -> Tensor:
        """The PPO loss of one minibatch, whose fields, advantages and returns are `[B, ...]`."""
        config, clip = self.config, self.config.clip_coef
        policy = self.agent.policy(batch.observations)
        ratio = (policy.log_prob(batch.actions).sum(1) - batch.log_probs).exp()
        if config.norm_adv:
            advantages = (advantages - advantages.mean()) / (advantages.std() + 1e-8)
        gain = torch.min(advantages * ratio, advantages * ratio.clamp(1 - clip, 1 + clip))

        values = self.agent.value(batch.observations)
        value_loss = (values - returns) ** 2
        if config.clip_vloss:
            kept = batch.values + (values - batch.values).clamp(-clip, clip)
            value_loss = torch.max(value_loss, (kept - returns) ** 2)

        entropy = policy.entropy().sum(1).mean()
        critic_loss = 0.5 * value_loss.mean()
        return -gain.mean() - config.ent_coef * entropy + config.vf_coef * critic_loss


def advantages_of(rollout: Rollout, gamma: float, gae_lambda: float) -> Tensor:
    """Generalised advantage estimates `[T]` (Schulman et al., 2016)."""
    advantages, running = torch.zeros_like(rollout.rewards), torch.tensor(0.0)
    for t in reversed(range(len(advantages))):
        delta = rollout.rewards[t] + gamma * rollout.next_values[t] - rollout.values[t]
        running = delta + gamma * gae_lambda * (1.0 - rollout.dones[t]) * running
        advantages[t] = running
    return advantages


def as_tensor(observation: np.ndarray) -> Tensor:
    """An observation `[O]` as the networks take it."""
    return torch.as_tensor(observation, dtype=torch.float32)


def iterations(
    env_id: str, total_steps: int, seed: int, config: Hyperparameters = DEFAULTS
) -> Iterator[list[Episode]]:
    """Runs a trial, and after each iteration gives the episodes that ended in its rollout.

    Args:
        env_id: a Gymnasium id with Box observations and actions.
        total_steps: environment steps, rounded down to whole iterations.
        seed: of the network, the actions, the minibatches and the environment.
        config: hyperparameters.

    Raises:
        TiplError: the steps are too few for one iteration.
    """
    num_iterations = total_steps // config.num_steps
    if num_iterations < 1:
        raise TiplError(
            f"{total_steps} steps were given, but one iteration takes {config.num_steps}; give more"
        )
    trial = Trial(env_id, seed, config)
    for iteration in range(num_iterations):
        left = 1.0 - iteration / num_iterations if config.anneal_lr else 1.0
        rollout, episodes = trial.rollout()
        trial.update(rollout, left * config.learning_rate)
        yield episodes
    trial.env.close()


def train(
    env_id: str, total_steps: int, seed: int, config: Hyperparameters = DEFAULTS
) -> list[Episode]:
    """Runs a whole trial and returns its training episodes in order; see `iterations`."""
    return [episode for ended in iterations(env_id, total_steps, seed, config) for episode in ended]


def be_single_and_quiet() -> None:
    """Prepares this process for small networks in Gymnasium's MuJoCo environments."""
    torch.set_num_threads(1)  # with networks this small, more of them only wait for each other
    mujoco.set_mju_user_warning(lambda message: None)  # or half_cheetah.xml leaves a log file
    warnings.filterwarnings("ignore", ".*is out of date", DeprecationWarning)


def main(
    env_id: str = "HalfCheetah-v4",
    total_steps: int = 1_000_000,
    seed: int = 1,
    config: tyro.conf.OmitArgPrefixes[Hyperparameters] = DEFAULTS,
) -> None:
    """Runs one trial and prints how it goes.

    Args:
        env_id: a Gymnasium id with Box observations and actions
        total_steps: environment steps
        seed: seed of everything random
        config: hyperparameters
    """
    be_single_and_quiet()
    start = time.perf_counter()
    for i, episodes in enumerate(iterations(env_id, total_steps, seed, config), start=1):
        steps, line = i * config.num_steps, "no episode ended"
        if episodes:
            mean = np.mean([episode.episodic_return for episode in episodes])
            line = f"mean return of {len(episodes)} episodes {mean:,.1f}"
        print(f"step {steps:,}: {line}, {steps / (time.perf_counter() - start):,.0f} steps/s")


if __name__ == "__main__":
    try:
        tyro.cli(main)
    except TiplError as error:
        sys.exit(f"error: {error}")
