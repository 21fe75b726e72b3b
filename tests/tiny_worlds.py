"""A model of worlds of random weights, which is made in no time, and an environment for it."""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
import torch
from gymnasium.spaces import Box

from tipl.models.neuron_transformer.forecaster import NeuronTransformerForecaster
from tipl.models.neuron_transformer.net import NeuronTransformer, NeuronTransformerConfig
from tipl.models.world.carrier import Carrier
from tipl.models.world.forecaster import WorldForecaster
from tipl.models.world.observer import ObserverConfig, WorldObserver
from tipl.models.world.stored import StoredConfig, StoredTeachers
from tipl.models.world.teacher import TeacherConfig, WorldTeacher
from tipl.policies.layout import actor_layout, initial_params
from tipl.policies.tasks import get_task

TASK = "InvertedPendulum-v4"
NAMES = ("gravity", "mass")
HIDDEN = (5, 4)


def tiny_world_model() -> WorldForecaster:
    """Of random weights; three worlds are stored."""
    seeds = torch.random.get_rng_state()
    torch.manual_seed(0)
    task, V = get_task(TASK), len(NAMES)
    layout = actor_layout(task, HIDDEN)
    sizes = NeuronTransformerConfig(4, 1, 7, 8, 1, 1, 2, 16, ("tanh",))
    carrier = NeuronTransformerForecaster({"elite": NeuronTransformer(sizes)}, task, HIDDEN, 7)
    teacher = WorldTeacher(TeacherConfig(layout.size, V, directions=2, width=4, noise=0.3))
    observer = WorldObserver(ObserverConfig(2 * 4 + 1, V, 4))
    stored = StoredTeachers(StoredConfig(3, layout.size, V))
    with torch.no_grad():
        teacher.elite.copy_(torch.as_tensor(initial_params(layout, 1)))
        teacher.prior_std.fill_(0.3)
        teacher.directions.normal_()
        teacher.scale.fill_(1.0)
        observer.prior_std.fill_(0.3)
        stored.factors.copy_(torch.linspace(-0.3, 0.3, 3)[:, None].expand(3, V))  # [3] -> [3, V]
        for world in range(3):
            stored.params[world] = torch.as_tensor(initial_params(layout, 10 + world))
    torch.random.set_rng_state(seeds)
    return WorldForecaster(teacher, observer, stored, Carrier(carrier), task, NAMES, HIDDEN, 7)


class Somewhere(gymnasium.Env[Any, Any]):
    """A world of the tiny model's task that says how it was used, and by what actions.

    The sum of an episode's rewards is its number in `returns`, again and again.
    """

    observation_space: Any = Box(-np.inf, np.inf, (4,), np.float64)
    action_space: Any = Box(-3, 3, (1,), np.float32)

    def __init__(self, length: int = 5, returns: tuple[float, ...] = (0.0,)) -> None:
        self.length, self.returns = length, returns
        self.seeds: list[int | None] = []
        self.actions: list[Any] = []
        self.left: int | None = None
        self.closed = False
        self.observation = np.zeros(4)

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        super().reset(seed=seed)
        self.seeds.append(seed)
        self.left = self.length
        self.observation[:] = self.np_random.uniform(-0.1, 0.1, 4)
        return self.observation, {}  # the same array each time

    def step(self, action: Any) -> Any:
        assert self.left, "reset comes first"
        assert self.action_space.contains(action)
        self.actions.append(np.copy(action))
        self.left -= 1
        self.observation[:] = np.roll(self.observation, 1) + 0.01 * float(action[0])
        reward = self.returns[(len(self.seeds) - 1) % len(self.returns)] / self.length
        return self.observation, reward, self.left == 0, False, {}

    def close(self) -> None:
        self.closed = True
