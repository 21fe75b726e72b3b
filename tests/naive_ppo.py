"""PPO as one writes it first: one trial, plain loops, torch's autograd and optimiser, float64.

After CleanRL's `ppo_continuous_action.py` (Huang et al., 2022). It shares no code with `tipl.ppo`,
which does the same for many trials at once with gradients written out by hand.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterable, Sequence

import gymnasium
import numpy as np
import torch
from gymnasium.spaces import Box
from gymnasium.wrappers import NormalizeReward
from gymnasium.wrappers.utils import RunningMeanStd
from torch import Tensor, nn
from torch.distributions import Normal

from tipl.ppo.config import PPOConfig

__all__ = ["NaiveAgent", "NaivePPO", "NaiveRollout", "scaled_rewards", "scaled_together"]


@dataclasses.dataclass
class NaiveRollout:
    """What one trial saw in one environment, float64 (`dones`: bool)."""

    observations: Tensor  # [T, O], normalised
    actions: Tensor  # [T, A]
    log_probs: Tensor  # [T]
    rewards: Tensor  # [T], scaled
    values: Tensor  # [T]
    next_values: Tensor  # [T]
    dones: Tensor  # [T]

    def __len__(self) -> int:
        return len(self.rewards)


def _mlp(sizes: Sequence[int]) -> nn.Sequential:
    layers: list[nn.Module] = []
    for fan_in, fan_out in itertools.pairwise(sizes):
        layers += [nn.Linear(fan_in, fan_out, dtype=torch.float64), nn.Tanh()]
    return nn.Sequential(*layers[:-1])


class NaiveAgent:
    """Actor and critic of one trial with the weights of a flat array `[P]`."""

    def __init__(
        self,
        params: np.ndarray,
        observation_size: int,
        action_size: int,
        hidden_sizes: Sequence[int],
    ) -> None:
        self.actor_mean = _mlp([observation_size, *hidden_sizes, action_size])
        self.log_std = nn.Parameter(torch.zeros(action_size, dtype=torch.float64))
        self.critic = _mlp([observation_size, *hidden_sizes, 1])
        self.parameters = [
            *self.actor_mean.parameters(),
            self.log_std,
            *self.critic.parameters(),
        ]
        nn.utils.vector_to_parameters(torch.tensor(params, dtype=torch.float64), self.parameters)

    def flat(self) -> np.ndarray:
        return nn.utils.parameters_to_vector(self.parameters).detach().numpy()

    def get_value(self, observations: Tensor) -> Tensor:
        return self.critic(observations)[..., 0]

    def action_distribution(self, observations: Tensor) -> Normal:
        mean = self.actor_mean(observations)
        return Normal(mean, self.log_std.exp().expand_as(mean), validate_args=False)


class NaivePPO:
    """The updates of one trial.

    Attributes:
        counts: how often what was clipped, of how many: to see that a test exercises it.
    """

    def __init__(self, agent: NaiveAgent, config: PPOConfig, num_iterations: int) -> None:
        self.agent, self.config, self.num_iterations = agent, config, num_iterations
        self.optimizer = torch.optim.Adam(agent.parameters, lr=config.learning_rate, eps=1e-5)
        self.iteration = 0
        self.counts = {"ratio": [0, 0], "value": [0, 0], "gradient": [0, 0]}

    def advantages(self, rollout: NaiveRollout) -> Tensor:
        """The sum of later TD errors of the same episode, each weighted (gamma lambda)^distance."""
        config = self.config
        rewards, values, next_values, dones = (  # numbers of Python, whose loops are quicker
            tensor.tolist()
            for tensor in (rollout.rewards, rollout.values, rollout.next_values, rollout.dones)
        )
        advantages = [0.0] * len(rollout)
        for t in range(len(rollout)):
            weight = 1.0
            for later in range(t, len(rollout)):
                advantages[t] += weight * (
                    rewards[later] + config.gamma * next_values[later] - values[later]
                )
                weight *= config.gamma * config.gae_lambda
                if dones[later]:
                    break
        return torch.tensor(advantages, dtype=torch.float64)

    def update(self, rollouts: Sequence[NaiveRollout], orders: Iterable[np.ndarray]) -> None:
        """One PPO update.

        Args:
            rollouts: what the trial saw, in each of its E environments.
            orders: for each epoch, the order `[T E]` in which it sees the steps; those of all
                environments at one time follow one another.
        """
        config = self.config
        if config.anneal_lr:
            fraction = 1.0 - self.iteration / self.num_iterations
            self.optimizer.param_groups[0]["lr"] = fraction * config.learning_rate
        advantages = _together([self.advantages(one) for one in rollouts])
        names = [field.name for field in dataclasses.fields(NaiveRollout)]
        parts = [[getattr(one, name) for one in rollouts] for name in names]
        rollout = NaiveRollout(*map(_together, parts))
        returns = advantages + rollout.values
        minibatch_size = len(rollout) // config.num_minibatches
        for order in orders:
            for start in range(0, len(rollout), minibatch_size):
                indices = torch.from_numpy(order[start : start + minibatch_size])
                self._minibatch(rollout, advantages, returns, indices)
        self.iteration += 1

    def _minibatch(
        self, rollout: NaiveRollout, advantages: Tensor, returns: Tensor, indices: Tensor
    ) -> None:
        config, clip = self.config, self.config.clip_coef
        observations = rollout.observations[indices]
        distribution = self.agent.action_distribution(observations)
        new_log_prob = distribution.log_prob(rollout.actions[indices]).sum(1)
        entropy = distribution.entropy().sum(1)
        new_value = self.agent.get_value(observations)
        ratio = (new_log_prob - rollout.log_probs[indices]).exp()

        advantage = advantages[indices]
        if config.norm_adv:
            advantage = (advantage - advantage.mean()) / (advantage.std() + 1e-8)
        pg_loss1 = -advantage * ratio
        pg_loss2 = -advantage * torch.clamp(ratio, 1 - clip, 1 + clip)
        pg_loss = torch.max(pg_loss1, pg_loss2).mean()

        v_loss_unclipped = (new_value - returns[indices]) ** 2
        old_value = rollout.values[indices]
        v_clipped = old_value + torch.clamp(new_value - old_value, -clip, clip)
        v_loss_clipped = (v_clipped - returns[indices]) ** 2
        if config.clip_vloss:
            v_loss = 0.5 * torch.max(v_loss_unclipped, v_loss_clipped).mean()
        else:
            v_loss = 0.5 * v_loss_unclipped.mean()

        loss = pg_loss - config.ent_coef * entropy.mean() + v_loss * config.vf_coef
        self.optimizer.zero_grad()
        loss.backward()
        norm = nn.utils.clip_grad_norm_(self.agent.parameters, config.max_grad_norm)
        self.optimizer.step()

        self._count("ratio", pg_loss2 > pg_loss1)
        far = (new_value - old_value).abs() > clip
        self._count("value", config.clip_vloss & far & (v_loss_clipped > v_loss_unclipped))
        self._count("gradient", norm > config.max_grad_norm)

    def _count(self, name: str, clipped: Tensor) -> None:
        self.counts[name][0] += int(clipped.sum())
        self.counts[name][1] += clipped.numel()


def _together(parts: Sequence[Tensor]) -> Tensor:
    """E tensors `[T, ...]` as CleanRL makes one of them: `b_obs = obs.reshape((-1,) + shape)`."""
    return torch.stack(list(parts), dim=1).flatten(0, 1)  # [T, E, ...] -> [T E, ...]


class _Replay(gymnasium.Env[np.ndarray, np.ndarray]):
    """Gives the rewards and terminations of a list, whatever is done."""

    observation_space = action_space = Box(-1, 1, (1,))

    def __init__(self, rewards: np.ndarray, terminations: np.ndarray) -> None:
        self.steps = iter(zip(rewards.tolist(), terminations.tolist(), strict=True))

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool, dict]:
        reward, terminated = next(self.steps)
        return np.zeros(1), reward, terminated, False, {}


def scaled_rewards(
    rewards: np.ndarray, terminations: np.ndarray, gamma: float, clip: float
) -> np.ndarray:
    """The rewards `[T]` of one trial as Gymnasium's wrapper scales them, then clipped."""
    env = NormalizeReward(_Replay(rewards, terminations), gamma=gamma)
    scaled = [float(env.step(np.zeros(1))[1]) for _ in rewards]
    return np.clip(scaled, -clip, clip)


def scaled_together(
    rewards: np.ndarray, terminations: np.ndarray, gamma: float, clip: float
) -> np.ndarray:
    """The rewards `[T, E]` of one trial, scaled by the statistics of all its environments."""
    statistics, scaled = RunningMeanStd(), []
    discounted = [0.0] * rewards.shape[1]
    for reward, terminated in zip(rewards.tolist(), terminations.tolist(), strict=True):
        for e, ended in enumerate(terminated):  # each as Gymnasium's wrapper does
            discounted[e] = discounted[e] * gamma * (1 - ended) + reward[e]
        statistics.update(np.array(discounted))
        scaled.append(np.array(reward) / np.sqrt(statistics.var + 1e-8))
    return np.clip(scaled, -clip, clip)
