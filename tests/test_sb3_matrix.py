"""Every kind of vector, wrapper and algorithm: it works as the run's own environment says, or not.

Where it does not, one sentence says why. The table in docs/training-loops.md is made here:

    TIPL_WRITE_TABLES=1 python -m pytest tests/test_sb3_matrix.py
"""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Callable
from functools import partial, reduce
from pathlib import Path
from typing import Any, NamedTuple

import gymnasium as gym
import numpy as np
import pytest
import torch
from sb3_contrib import MaskablePPO, RecurrentPPO
from stable_baselines3 import A2C, PPO, SAC, TD3
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.policies import ActorCriticPolicy
from stable_baselines3.common.vec_env import (
    DummyVecEnv,
    SubprocVecEnv,
    VecEnv,
    VecEnvWrapper,
    VecFrameStack,
    VecNormalize,
)
from torch import nn

from tipl import PathDataset, Policy, TiplError
from tipl.evaluation.returns import episode_seed, evaluate
from tipl.integrations.sb3 import ForecastCallback, PathRecorder

pytestmark = [
    pytest.mark.usefixtures("one_thread"),
    pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::UserWarning"),  # of the libraries' own
]

PAGE = Path(__file__).parent.parent / "docs" / "training-loops.md"
STEPS = 32  # of a rollout


class Point(gym.Env[Any, Any]):
    """A point that is pushed to and fro; where it starts is all that is random."""

    observation_space = gym.spaces.Box(-10, 10, (2,), np.float32)
    action_space: gym.spaces.Space[Any] = gym.spaces.Box(-2, 2, (1,), np.float32)

    def __init__(self, drag: float = 0.9, render_mode: str | None = None) -> None:
        self.drag, self.render_mode = drag, render_mode

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self.state = self.np_random.uniform(-1, 1, 2)
        return self.state.astype(np.float32), {}

    def push(self, action: Any) -> float:
        assert self.action_space.contains(action), action
        return float(action[0])

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        self.state = self.drag * self.state + 0.1 * self.push(action)
        return self.state.astype(np.float32), -float(np.abs(self.state).sum()), False, False, {}


class Switch(Point):
    """The same with three actions, of which all may be taken."""

    action_space = gym.spaces.Discrete(3)

    def push(self, action: Any) -> float:
        assert self.action_space.contains(action), action
        return float(action) - 1

    def action_masks(self) -> Any:
        return np.ones(3, bool)


for name, kind in (("MatrixPoint-v0", Point), ("MatrixSwitch-v0", Switch)):
    gym.register(
        name, entry_point=f"{__name__}:{kind.__name__}", max_episode_steps=12,
        kwargs={"drag": 0.8},
    )  # fmt: skip


class Doubled(gym.ObservationWrapper[Any, Any, Any]):
    """A wrapper of somebody's own."""

    def observation(self, observation: Any) -> Any:
        return 2 * observation


class OwnVecEnv(VecEnv):
    """A vector of somebody's own, which knows its simulators by no name that others use."""

    def __init__(self, makers: list[Callable[[], Any]]) -> None:
        self.simulators = [make() for make in makers]
        first = self.simulators[0]
        super().__init__(len(makers), first.observation_space, first.action_space)

    def reset(self) -> Any:
        return np.stack([simulator.reset()[0] for simulator in self.simulators])

    def step_async(self, actions: Any) -> None:
        self.actions = actions

    def step_wait(self) -> Any:
        seen, rewards, dones, infos = [], [], [], []
        for simulator, action in zip(self.simulators, self.actions, strict=True):
            observation, reward, terminated, truncated, info = simulator.step(action)
            if terminated or truncated:
                info["terminal_observation"] = observation
                observation = simulator.reset()[0]
            seen.append(observation)
            rewards.append(reward)
            dones.append(terminated or truncated)
            infos.append(info)
        return np.stack(seen), np.array(rewards), np.array(dones), infos

    def close(self) -> None:
        pass

    def get_attr(self, attr_name: str, indices: Any = None) -> list[Any]:
        if attr_name == "render_mode":
            return [None] * self.num_envs
        if attr_name == "action_masks" and hasattr(self.simulators[0].unwrapped, attr_name):
            return [simulator.unwrapped.action_masks for simulator in self.simulators]
        raise AttributeError(f"there is no {attr_name}")

    def set_attr(self, attr_name: str, value: Any, indices: Any = None) -> None:
        raise NotImplementedError

    def env_method(self, method_name: str, *args: Any, **kwargs: Any) -> list[Any]:
        if method_name == "action_masks":
            return [simulator.unwrapped.action_masks() for simulator in self.simulators]
        raise NotImplementedError

    def env_is_wrapped(self, wrapper_class: Any, indices: Any = None) -> list[bool]:
        return [False] * self.num_envs


class Through(VecEnvWrapper):
    """A wrapper of a vector, of somebody's own."""

    def reset(self) -> Any:
        return self.venv.reset()

    def step_wait(self) -> Any:
        return self.venv.step_wait()


class Gained(nn.Module):
    """Two perceptrons behind a gain of the inputs."""

    def __init__(self, inputs: int) -> None:
        super().__init__()
        self.latent_dim_pi = self.latent_dim_vf = 8
        self.policy_net, self.value_net = (
            nn.Sequential(nn.Linear(inputs, 8), nn.Tanh()) for _ in range(2)
        )
        self.gain = nn.Parameter(torch.full((inputs,), 0.5))

    def forward_actor(self, features: Any) -> Any:
        return self.policy_net(self.gain * features)

    def forward_critic(self, features: Any) -> Any:
        return self.value_net(self.gain * features)

    def forward(self, features: Any) -> Any:
        return self.forward_actor(features), self.forward_critic(features)


class OwnPolicy(ActorCriticPolicy):
    """A policy of somebody's own."""

    def _build_mlp_extractor(self) -> None:
        self.mlp_extractor = Gained(self.features_dim)


ON_POLICY = {"n_steps": STEPS // 2, "device": "cpu", "seed": 1}
OFF_POLICY = {"device": "cpu", "seed": 1, "learning_starts": 8, "batch_size": 8, "buffer_size": 99}
OFF_POLICY |= {"train_freq": 16}


def network() -> dict[str, Any]:
    """The libraries write into what they are given."""
    return {"policy_kwargs": {"net_arch": [8, 8]}}


ALGORITHMS: dict[str, Callable[[Any], Any]] = {
    "PPO": lambda env: PPO("MlpPolicy", env, batch_size=16, n_epochs=1, **ON_POLICY, **network()),
    "A2C": lambda env: A2C("MlpPolicy", env, **ON_POLICY, **network()),
    "SAC": lambda env: SAC("MlpPolicy", env, **OFF_POLICY, **network()),
    "TD3": lambda env: TD3("MlpPolicy", env, **OFF_POLICY, **network()),
    "RecurrentPPO": lambda env: RecurrentPPO(
        "MlpLstmPolicy", env, batch_size=16, n_epochs=1, **ON_POLICY,
        policy_kwargs={"net_arch": [8], "lstm_hidden_size": 8},
    ),
    "MaskablePPO": lambda env: MaskablePPO(
        "MlpPolicy", env, batch_size=16, n_epochs=1, **ON_POLICY, **network()
    ),
    "own policy": lambda env: PPO(OwnPolicy, env, batch_size=16, n_epochs=1, **ON_POLICY),
}  # fmt: skip

VECTORS: dict[str, Callable[[list[Any]], Any]] = {
    "DummyVecEnv": DummyVecEnv,
    "SubprocVecEnv": partial(SubprocVecEnv, start_method="fork"),
    "a VecEnv of one's own": OwnVecEnv,
}


class Wrapping(NamedTuple):
    of_each: tuple[Callable[[Any], Any], ...] = ()
    of_vector: Callable[[Any], Any] = lambda vector: vector


def halved(env: Any) -> Any:
    return gym.wrappers.RescaleAction(env, np.float32(-1), np.float32(1))


def mirrored(env: Any) -> Any:
    """For discrete actions, of which none can be scaled."""
    return gym.wrappers.TransformAction(env, lambda action: 2 - action, env.action_space)


def acting(env: Any) -> Any:
    return halved(env) if isinstance(env.action_space, gym.spaces.Box) else mirrored(env)


WRAPPINGS = {
    "none": Wrapping(),
    "Monitor": Wrapping((Monitor,)),
    "TimeLimit": Wrapping((partial(gym.wrappers.TimeLimit, max_episode_steps=7), Monitor)),
    "observations": Wrapping((Doubled, Monitor)),
    "actions": Wrapping((acting, Monitor)),
    "rewards": Wrapping((partial(gym.wrappers.ClipReward, min_reward=-0.5, max_reward=0.0),)),
    "VecFrameStack": Wrapping((Monitor,), partial(VecFrameStack, n_stack=3)),
    "VecNormalize": Wrapping((Monitor,), VecNormalize),
    "VecNormalize, clips": Wrapping((Monitor,), partial(VecNormalize, clip_obs=0.5)),
    "a VecEnvWrapper": Wrapping((Monitor,), Through),
}


def vector_of(make_vector: Any, env_id: str, wrapping: Wrapping, count: int = 2) -> Any:
    def make() -> Any:
        return reduce(lambda env, wrap: wrap(env), wrapping.of_each, gym.make(env_id))

    return wrapping.of_vector(make_vector([make] * count))


# --- what the run's own environment says -----------------------------------------------------


def own_return(model: Any, env_id: str, wrapping: Wrapping, seed: int) -> float:
    """Return of a seeded episode in an environment that is made as the run's was."""
    vector = vector_of(DummyVecEnv, env_id, wrapping, 1)
    layer, trained = vector, model.get_env()
    if isinstance(layer, VecNormalize):
        layer.obs_rms, layer.training, layer.norm_reward = trained.obs_rms, False, False
    vector.seed(seed)
    observations, total, done = vector.reset(), 0.0, np.zeros(1, bool)
    while not done[0]:
        actions = model.predict(observations, deterministic=True)[0]
        observations, rewards, done, _ = vector.step(actions)
        total += float(rewards[0])
    vector.close()
    return total


def outcomes(
    algorithm: str, vector: str, wrapping: Wrapping, directory: Path, log: Any
) -> tuple[dict[str, str], str]:
    """A sentence for each of jumps, recording and reading; empty where it works."""
    env_id = "MatrixSwitch-v0" if algorithm == "MaskablePPO" else "MatrixPoint-v0"
    env = vector_of(VECTORS[vector], env_id, wrapping)
    model = ALGORITHMS[algorithm](env)
    jumps = ForecastCallback("relex", every=1, min_history=2, budget=9.0, seed=5)
    off_policy = algorithm in ("SAC", "TD3")
    recorder = PathRecorder(directory / "paths", every_steps=STEPS if off_policy else None)
    log.clear()
    model.learn(4 * STEPS, callback=[jumps, recorder])
    told = [record.getMessage() for record in log.records if record.name == "tipl"]
    found = {"jumps": "", "paths": "", "policy": ""}
    if jumps.jumps is None:
        found["jumps"] = told.pop(0)
    else:
        assert jumps.jumps.jumper.counters["jump_steps"][0] > 0
        mine, _ = jumps.jumps.test_env.episode(jumps.jumps.agent.act, 3)
        assert mine == pytest.approx(own_return(model, env_id, wrapping, 3), abs=1e-4)
    if (directory / "paths").exists():
        paths = PathDataset.open(directory / "paths")
        assert paths.num_trials == 1
        assert paths.num_checkpoints >= 3
        last = paths.policy(0, -1)
    else:
        found["paths"] = told.pop(0)
        last = None
    try:
        policy = Policy.from_sb3(model)
    except TiplError as error:
        found["policy"] = str(error)
    else:
        expected = own_return(model, env_id, wrapping, episode_seed(2, 0))
        for one in [policy, *([] if last is None else [last])]:
            assert evaluate(one, 1, seed=2).episodic_return[0] == pytest.approx(expected, abs=1e-3)
    assert not told, told
    env.close()
    return found, env_id


# --- the table -------------------------------------------------------------------------------

FOUND: dict[tuple[str, str, str], dict[str, str]] = {}


@pytest.mark.parametrize("algorithm", ALGORITHMS)
@pytest.mark.parametrize("vector", VECTORS)
def test_it_works_as_the_run_s_environment_says_or_one_sentence_says_why_not(
    vector: str, algorithm: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING, "tipl")
    for n, (name, wrapping) in enumerate(WRAPPINGS.items()):
        found, _ = outcomes(algorithm, vector, wrapping, tmp_path / str(n), caplog)
        for sentence in found.values():
            assert "\n" not in sentence
            assert not re.search(r"Traceback|0x[0-9a-f]+", sentence)
        FOUND[vector, name, algorithm] = found


def table() -> str:
    """What was found, a table for each kind of vector: J jumps, R recording, P reading."""
    lines = []
    for vector in VECTORS:
        rows = {name: [cell(FOUND[vector, name, one]) for one in ALGORITHMS] for name in WRAPPINGS}
        if all(one == "· · ·" for cells in rows.values() for one in cells):
            lines += [f"In {vector} all of them are refused in one sentence.", ""]
            continue
        lines += [f"| {vector} | " + " | ".join(ALGORITHMS) + " |"]
        lines += ["|---|" + ":---:|" * len(ALGORITHMS)]
        lines += [f"| {name} | " + " | ".join(cells) + " |" for name, cells in rows.items()]
        lines.append("")
    return "\n".join(lines)


def cell(found: dict[str, str]) -> str:
    marks = zip("JRP", ("jumps", "paths", "policy"), strict=True)
    return " ".join("·" if found[what] else mark for mark, what in marks)


def test_the_table_of_the_page_is_what_was_found() -> None:
    if len(FOUND) < len(VECTORS) * len(WRAPPINGS) * len(ALGORITHMS):
        pytest.skip("only a part of the matrix was run")
    page = PAGE.read_text(encoding="utf-8")
    before, rest = page.split("<!-- matrix -->\n")
    _, after = rest.split("<!-- end of matrix -->")
    wanted = f"{before}<!-- matrix -->\n{table()}<!-- end of matrix -->{after}"
    if os.environ.get("TIPL_WRITE_TABLES"):
        PAGE.write_text(wanted, encoding="utf-8")
    assert page == wanted
