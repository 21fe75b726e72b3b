"""A single-file PPO in the style of CleanRL, with jumps to forecasts of its weights.

    python examples/cleanrl_accelerate.py --env-id HalfCheetah-v4 --total-timesteps 100000

Three lines make the difference; each is marked with `tipl`.
"""

from __future__ import annotations

import dataclasses
import warnings

import gymnasium as gym
import numpy as np
import torch
import tyro
from torch import nn
from torch.distributions import Normal

from tipl.integrations.cleanrl import ForecastHook


@dataclasses.dataclass
class Args:
    """PPO for continuous actions; the defaults are CleanRL's."""

    env_id: str = "InvertedPendulum-v4"
    """a Gymnasium id"""
    total_timesteps: int = 10_000
    """environment steps, tests of forecasts included"""
    seed: int = 1
    """of the network, the environment and the actions"""
    jump: bool = True
    """jump to forecasts where these are better"""
    num_steps: int = 2048
    """environment steps between two updates"""
    num_minibatches: int = 32
    """minibatches of a rollout"""
    update_epochs: int = 10
    """passes over a rollout"""
    learning_rate: float = 3e-4
    """at the start; it falls linearly to 0"""
    gamma: float = 0.99
    """discount factor"""
    gae_lambda: float = 0.95
    """of the generalised advantage estimates"""
    clip_coef: float = 0.2
    """range of the probability ratio"""
    vf_coef: float = 0.5
    """weight of the value loss"""
    max_grad_norm: float = 0.5
    """largest gradient norm"""


def make_env(env_id: str, gamma: float) -> gym.Env:
    env = gym.wrappers.RecordEpisodeStatistics(gym.make(env_id))
    env = gym.wrappers.NormalizeObservation(gym.wrappers.ClipAction(env))
    env = gym.wrappers.TransformObservation(
        env, lambda observation: np.clip(observation, -10, 10), env.observation_space
    )
    env = gym.wrappers.NormalizeReward(env, gamma=gamma)
    return gym.wrappers.TransformReward(env, lambda reward: np.clip(reward, -10, 10))


def linear(inputs: int, outputs: int, gain: float = 2**0.5) -> nn.Linear:
    layer = nn.Linear(inputs, outputs)
    nn.init.orthogonal_(layer.weight, gain)
    nn.init.zeros_(layer.bias)
    return layer


class Agent(nn.Module):
    def __init__(self, envs: gym.vector.VectorEnv) -> None:
        super().__init__()
        inputs = int(np.prod(envs.single_observation_space.shape))
        outputs = int(np.prod(envs.single_action_space.shape))
        self.critic = nn.Sequential(
            *(linear(inputs, 64), nn.Tanh(), linear(64, 64), nn.Tanh(), linear(64, 1, 1.0))
        )
        self.actor_mean = nn.Sequential(
            *(linear(inputs, 64), nn.Tanh(), linear(64, 64), nn.Tanh(), linear(64, outputs, 0.01))
        )
        self.actor_logstd = nn.Parameter(torch.zeros(1, outputs))

    def get_value(self, obs: torch.Tensor) -> torch.Tensor:
        return self.critic(obs).flatten()

    def policy(self, obs: torch.Tensor) -> Normal:
        mean = self.actor_mean(obs)
        return Normal(mean, self.actor_logstd.exp().expand_as(mean))


def advantages_of(args, rewards, dones, values, next_value, next_done):
    """Generalised advantage estimates [T, E]."""
    advantages, last = torch.zeros_like(rewards), torch.zeros_like(next_done)
    for t in reversed(range(args.num_steps)):
        alive = 1.0 - (next_done if t == args.num_steps - 1 else dones[t + 1])
        following = next_value if t == args.num_steps - 1 else values[t + 1]
        delta = rewards[t] + args.gamma * following * alive - values[t]
        advantages[t] = last = delta + args.gamma * args.gae_lambda * alive * last
    return advantages


def main(args: Args) -> float:
    """Trains an agent; returns the mean return of its last ten training episodes."""
    torch.manual_seed(args.seed)
    torch.set_num_threads(1)  # at this size more only wait for each other
    warnings.filterwarnings("ignore", ".*is out of date", DeprecationWarning)
    envs = gym.vector.SyncVectorEnv(
        [lambda: make_env(args.env_id, args.gamma)],
        autoreset_mode=gym.vector.AutoresetMode.SAME_STEP,
    )
    agent = Agent(envs)
    optimizer = torch.optim.Adam(agent.parameters(), lr=args.learning_rate, eps=1e-5)
    hook = ForecastHook(envs, gamma=args.gamma, gae_lambda=args.gae_lambda)  # tipl

    shape = (args.num_steps, envs.num_envs)
    obs = torch.zeros(shape + envs.single_observation_space.shape)
    actions = torch.zeros(shape + envs.single_action_space.shape)
    logprobs, rewards, dones, values = (torch.zeros(shape) for _ in range(4))
    next_obs = torch.as_tensor(envs.reset(seed=args.seed)[0], dtype=torch.float32)
    next_done = torch.zeros(envs.num_envs)
    global_step, returns_of_episodes = 0, []
    while global_step < args.total_timesteps:
        optimizer.param_groups[0]["lr"] = args.learning_rate * (
            1.0 - global_step / args.total_timesteps
        )
        if args.jump:
            global_step = hook.before_rollout(agent, optimizer, global_step)  # tipl
        for step in range(args.num_steps):
            global_step += envs.num_envs
            obs[step], dones[step] = next_obs, next_done
            with torch.no_grad():
                policy = agent.policy(next_obs)
                actions[step] = policy.sample()
                logprobs[step] = policy.log_prob(actions[step]).sum(1)
                values[step] = agent.get_value(next_obs)
            received, reward, terminated, truncated, info = envs.step(actions[step].numpy())
            rewards[step] = torch.as_tensor(reward)
            next_obs = torch.as_tensor(received, dtype=torch.float32)
            next_done = torch.as_tensor(terminated | truncated, dtype=torch.float32)
            if "final_info" in info:
                returns_of_episodes += info["final_info"]["episode"]["r"].tolist()
        if args.jump:
            hook.after_rollout(obs, rewards, dones, values, next_obs, next_done)  # tipl

        with torch.no_grad():
            next_value = agent.get_value(next_obs)
        advantages = advantages_of(args, rewards, dones, values, next_value, next_done)
        returns = (advantages + values).flatten()
        data = obs.flatten(0, 1), actions.flatten(0, 1), logprobs.flatten(), advantages.flatten()
        for _ in range(args.update_epochs):
            order = torch.randperm(len(returns))
            for chosen in torch.tensor_split(order, args.num_minibatches):
                b_obs, b_actions, b_logprobs, b_advantages = (part[chosen] for part in data)
                b_advantages = (b_advantages - b_advantages.mean()) / (b_advantages.std() + 1e-8)
                ratio = (agent.policy(b_obs).log_prob(b_actions).sum(1) - b_logprobs).exp()
                clipped = ratio.clamp(1 - args.clip_coef, 1 + args.clip_coef)
                policy_loss = -torch.min(ratio * b_advantages, clipped * b_advantages).mean()
                value_loss = 0.5 * (agent.get_value(b_obs) - returns[chosen]).square().mean()
                optimizer.zero_grad()
                (policy_loss + args.vf_coef * value_loss).backward()
                nn.utils.clip_grad_norm_(agent.parameters(), args.max_grad_norm)
                optimizer.step()
        recent = np.mean(returns_of_episodes[-10:]) if returns_of_episodes else np.nan
        print(f"global_step={global_step}, episodic_return={recent:,.1f}")
    envs.close()
    return float(recent)


if __name__ == "__main__":
    main(tyro.cli(Args))
