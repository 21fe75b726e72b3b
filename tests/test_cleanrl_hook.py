"""Jumps in a script of CleanRL's style: the hook's two calls, and both examples."""

from __future__ import annotations

import math
import runpy
import sys
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from torch import nn

from tipl import Policy, TiplError
from tipl.integrations.cleanrl import ForecastHook
from tipl.integrations.pytorch.agent import agent_of_cleanrl
from tipl.policies.tasks import get_task

pytestmark = [
    pytest.mark.usefixtures("one_thread"),
    pytest.mark.filterwarnings("ignore:.*is out of date:DeprecationWarning"),
]

ROOT = Path(__file__).parents[1]
PENDULUM = "InvertedPendulum-v4"
T = 40  # steps of a rollout


class Agent(nn.Module):
    def __init__(self, hidden: int = 64) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.critic = self.mlp(hidden)
        self.actor_mean = self.mlp(hidden)
        self.actor_logstd = nn.Parameter(torch.zeros(1, 1))

    @staticmethod
    def mlp(hidden: int) -> nn.Sequential:
        return nn.Sequential(
            *(nn.Linear(4, hidden), nn.Tanh(), nn.Linear(hidden, hidden), nn.Tanh()),
            nn.Linear(hidden, 1),
        )


def pendulum(normalise: bool = True) -> gym.Env[Any, Any]:
    env = gym.wrappers.RecordEpisodeStatistics(gym.make(PENDULUM))
    return gym.wrappers.NormalizeObservation(env) if normalise else env


def vector(normalise: bool = True, count: int = 1) -> gym.vector.SyncVectorEnv:
    return gym.vector.SyncVectorEnv([lambda: pendulum(normalise)] * count)


def script(hook_options: dict[str, Any], hidden: int = 64) -> tuple[Any, Agent, Any, ForecastHook]:
    envs, agent = vector(), Agent(hidden)
    optimizer = torch.optim.Adam(agent.parameters(), lr=1e-3)
    return envs, agent, optimizer, ForecastHook(envs, **hook_options)


def rollout(envs: Any, agent: Agent) -> dict[str, torch.Tensor]:
    """What a script knows after a rollout, by the names of the hook's arguments."""
    seen: dict[str, list[torch.Tensor]] = {name: [] for name in ("obs", "rewards", "dones")}
    next_obs = torch.as_tensor(envs.reset(seed=1)[0], dtype=torch.float32)
    next_done = torch.zeros(1)
    for _ in range(T):
        seen["obs"].append(next_obs)
        seen["dones"].append(next_done)
        received, reward, terminated, truncated, _ = envs.step(np.ones((1, 1), np.float32))
        next_obs = torch.as_tensor(received, dtype=torch.float32)
        next_done = torch.as_tensor(terminated | truncated, dtype=torch.float32)
        seen["rewards"].append(torch.as_tensor(reward, dtype=torch.float32))
    told = {name: torch.stack(parts) for name, parts in seen.items()}
    with torch.no_grad():
        told["values"] = agent.critic(told["obs"])[..., 0]
    return told | {"next_obs": next_obs, "next_done": next_done}


def test_an_untrained_agent_jumps_to_balance_and_pays_for_the_tests() -> None:
    envs, agent, optimizer, hook = script({"model": PENDULUM})
    spent = hook.before_rollout(agent, optimizer, 0)
    assert 1900 < spent < 2500
    assert hook.report is not None
    assert hook.report.return_after == 1000
    assert hook.before_rollout(agent, optimizer, spent + T) == spent + T  # once is enough
    task, moments = get_task(PENDULUM), envs.envs[0].obs_rms
    np.testing.assert_allclose(moments.mean, task.observation_mean)
    rng = np.random.default_rng(0)
    observations = rng.normal(task.observation_mean, task.observation_std, (9, 4))
    scaled = (observations - moments.mean) / np.sqrt(moments.var + envs.envs[0].epsilon)
    layout = agent_of_cleanrl(agent, optimizer).layout
    assert layout is not None
    policy = Policy(agent_of_cleanrl(agent, optimizer).params(), layout, task)
    mean = agent.actor_mean(torch.as_tensor(scaled, dtype=torch.float32)).detach().numpy()
    low, high = task.action_bounds
    np.testing.assert_allclose(np.clip(mean, low, high), policy.act(observations), atol=2e-5)


def test_the_critic_is_refitted_and_tells_the_script_its_values() -> None:
    envs, agent, optimizer, hook = script({"model": PENDULUM, "gae_lambda": 1.0})
    hook.before_rollout(agent, optimizer, 0)
    told = rollout(envs, agent)
    actor = agent_of_cleanrl(agent, optimizer).params()
    before = told["values"].clone()
    hook.after_rollout(**told)
    np.testing.assert_array_equal(agent_of_cleanrl(agent, optimizer).params(), actor)
    with torch.no_grad():
        torch.testing.assert_close(told["values"], agent.critic(told["obs"])[..., 0])
        following = agent.critic(told["next_obs"])[0, 0]
    # with lambda 1 the targets are discounted rewards, and the value of what came last
    returns, running = torch.zeros(T), following * (1 - told["next_done"][0])
    for t in reversed(range(T)):
        running = told["rewards"][t, 0] + 0.99 * running
        returns[t] = running
        running = running * (1 - told["dones"][t, 0])
    errors = [
        float((values[:, 0] - returns).square().mean()) for values in (before, told["values"])
    ]
    assert errors[1] < 0.2 * errors[0]
    values = told["values"].clone()
    hook.after_rollout(**told)  # only once after a jump
    assert torch.equal(told["values"], values)


def test_a_jump_that_does_worse_is_undone(tmp_path: Path) -> None:
    policy = Policy.initial(PENDULUM, hidden=(8, 8))
    policy.save(tmp_path / "policy")
    envs, agent, optimizer, hook = script(
        {"model": tmp_path / "policy", "gate": False, "every": 1}, hidden=8
    )
    rollout(envs, agent)
    before = agent_of_cleanrl(agent, optimizer).params()
    hook.before_rollout(agent, optimizer, T)
    assert (agent_of_cleanrl(agent, optimizer).params() != before).any()
    assert hook.jumps is not None
    assert hook.jumps.jumper.arrays["reference"][0] == envs.envs[0].env.return_queue[-1]
    hook.jumps.jumper.arrays["reference"][:] = 1e9
    rollout(envs, agent)
    hook.before_rollout(agent, optimizer, 2 * T)
    assert hook.report is not None
    assert hook.report.undone
    np.testing.assert_array_equal(agent_of_cleanrl(agent, optimizer).params(), before)


def test_the_last_episodes_are_those_since_the_last_call() -> None:
    envs, agent, _, hook = script({"model": "relex"})
    assert all(map(math.isnan, hook._last_episodes()))
    rollout(envs, agent)
    counter = envs.envs[0].env
    returns, lengths = list(counter.return_queue), list(counter.length_queue)
    assert len(returns) > 1
    assert hook._last_episodes() == pytest.approx((np.mean(returns), np.mean(lengths)))
    assert all(map(math.isnan, hook._last_episodes()))
    rollout(envs, agent)
    new = [list(queue)[len(returns) :] for queue in (counter.return_queue, counter.length_queue)]
    assert hook._last_episodes() == pytest.approx((np.mean(new[0]), np.mean(new[1])))


def test_wrong_uses_are_explained() -> None:
    with pytest.raises(TiplError, match="2 wrappers were found that each normalise observations"):
        ForecastHook(vector(count=2), PENDULUM, strict=True)
    with pytest.raises(TiplError, match="ForecastHook has no option 'often'"):
        ForecastHook(vector(), PENDULUM, often=3)
    with pytest.raises(TiplError, match="every of the jumps is 0"):
        ForecastHook(vector(), PENDULUM, every=0)
    _, agent, optimizer, hook = script({"model": "no-such-model", "strict": True})
    with pytest.raises(TiplError, match="jumps take a model"):
        hook.before_rollout(agent, optimizer, 0)
    with pytest.raises(TiplError, match="an agent of the class Linear was given"):
        hook.before_rollout(nn.Linear(1, 1), optimizer, 0)


@pytest.mark.parametrize(
    ("name", "options", "expected"),
    [
        (
            "sb3_accelerate",
            (*("--total-timesteps", "256", "--rollout", "256"), "--episodes", "2"),
            "with jumps: ",
        ),
        (
            "cleanrl_accelerate",
            (
                *("--total-timesteps", "3200", "--num-steps", "1024"),
                *("--num-minibatches", "8", "--update-epochs", "1", "--seed", "2"),
            ),
            "global_step=3",
        ),
    ],
)
@pytest.mark.usefixtures("one_thread")
def test_the_examples_run_as_they_say(
    name: str,
    options: tuple[str, ...],
    expected: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    script = str(ROOT / "examples" / f"{name}.py")
    monkeypatch.setattr(sys, "argv", [script, *options])
    runpy.run_path(script, run_name="__main__")
    line = next(line for line in capsys.readouterr().out.splitlines() if line.startswith(expected))
    value = line.split("return")[-1].strip(" =").split()[0].replace(",", "")
    assert float(value) > 500
