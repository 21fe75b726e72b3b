"""Environments as users write them: unusual, broken, and registered when this file is imported."""

from __future__ import annotations

from typing import Any, ClassVar

import gymnasium
import numpy as np
from gymnasium.spaces import Box


class Cart(gymnasium.Env[Any, Any]):
    """A position and a velocity, pushed by the first action value; rewards are minus distances."""

    metadata: ClassVar[dict[str, Any]] = {"render_modes": ["rgb_array"]}
    action_space = Box(-2, 2, (1,), np.float32)
    observation_space = Box(-np.inf, np.inf, (2,), np.float32)

    def __init__(self, render_mode: str | None = None) -> None:
        self.render_mode = render_mode

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        super().reset(seed=seed)
        self.state = self.np_random.uniform(-1, 1, 2)
        return self.shown(), {}

    def step(self, action: Any) -> Any:
        self.state[1] = 0.8 * self.state[1] + 0.05 * float(action[0])
        self.state[0] += self.state[1]
        return self.shown(), -abs(self.state[0]), False, False, {}

    def shown(self) -> Any:
        return self.state.astype(np.float32)

    def render(self) -> Any:
        return np.full((6, 8, 3), 200, np.uint8)


class Strict(Cart):
    """Takes elements of its action space alone."""

    def step(self, action: Any) -> Any:
        assert action.dtype == self.action_space.dtype
        assert self.action_space.contains(action)
        return super().step(action)


class Thirds(Strict):
    action_space = Box(-1 / 3, 1 / 3, (1,), np.float64)  # no float32 is this far from 0


class Narrow(Strict):
    action_space = Box(np.array([-0.7, 0.1]), np.array([-0.6, 0.3]), dtype=np.float64)


class Gears(Strict):
    action_space = Box(np.array([-3, 0]), np.array([5, 200]), dtype=np.int64)


class Bytes(Strict):
    action_space = Box(0, 255, (1,), np.uint8)


class Stuck(Cart):
    action_space = Box(np.array([-1, 4], np.float32), np.array([1, 4], np.float32))


class Endless(Cart):
    action_space = Box(-(2**60), 2**60, (1,), np.int64)


class Vast(Cart):
    action_space = Box(-1e308, 1e308, (1,), np.float64)


class Column(Cart):
    """Rewards are columns, ends arrays, observations lists."""

    def step(self, action: Any) -> Any:
        _, reward, *_ = super().step(action)
        return self.state.tolist(), np.full((1, 1), reward), np.array([False]), np.bool_(False), {}


class Map(Cart):
    """Names its map as wrappers name what they wrap."""

    def __init__(self, render_mode: str | None = None) -> None:
        super().__init__(render_mode)
        self.env = np.eye(3)
        self.envs = [None, 3]


class Ragged(Cart):
    """What it adds as info is never of the same form."""

    def step(self, action: Any) -> Any:
        *result, _ = super().step(action)
        return *result, {"hits": np.zeros(self.np_random.integers(1, 9)), "": None}


class ClosesBadly(Cart):
    def close(self) -> None:
        raise OSError("no connection")


class Fickle(Cart):
    """No two copies have the same actions."""

    made: ClassVar[list[int]] = []

    def __init__(self, render_mode: str | None = None) -> None:
        super().__init__(render_mode)
        self.made.append(0)
        self.action_space = Box(-len(self.made), 1, (1,), np.float32)


class Four(Cart):
    def step(self, action: Any) -> Any:
        observation, reward, *_ = super().step(action)
        return observation, reward, False, {}


class Bare(Cart):
    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        return super().reset(seed=seed)[0]


class Longer(Cart):
    def shown(self) -> Any:
        return np.zeros(3, np.float32)


class NoReward(Cart):
    def step(self, action: Any) -> Any:
        observation, _, *rest = super().step(action)
        return observation, None, *rest


class Fails(Cart):
    """Breaks down in its twentieth step, in several lines."""

    steps = 0

    def step(self, action: Any) -> Any:
        self.steps += 1
        if self.steps == 20:
            raise KeyError("wheel\n  came off")
        return super().step(action)


class NeverStarts(Cart):
    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        raise RuntimeError("simulator not found")


class Undrawn(Cart):
    def render(self) -> Any:
        raise SystemError


class Needs(Cart):
    def __init__(self, level: int, render_mode: str | None = None) -> None:
        super().__init__(render_mode)


class Builds(Cart):
    def __init__(self, render_mode: str | None = None) -> None:
        raise ZeroDivisionError


class Goal(Cart):
    def __init__(self, goal: Any = None, render_mode: str | None = None) -> None:
        super().__init__(render_mode)


class PaysNothing(Cart):
    def step(self, action: Any) -> Any:
        observation, _, *rest = super().step(action)
        return observation, float("nan"), *rest


class BlindNow(Cart):
    def shown(self) -> Any:
        return np.full(2, np.nan, np.float32)


def register() -> None:
    for name, kind in list(globals().items()):
        if isinstance(kind, type) and issubclass(kind, Cart):
            gymnasium.register(f"User{name}-v0", f"{__name__}:{name}", max_episode_steps=12)
    gymnasium.register("UserForever-v0", f"{__name__}:Cart")
    gymnasium.register("UserLambda-v0", lambda **kwargs: Cart(**kwargs), max_episode_steps=9)
    gymnasium.register("UserClass-v0", Cart, max_episode_steps=9)
    gymnasium.register(
        "UserArray-v0", f"{__name__}:Goal", max_episode_steps=9, kwargs={"goal": np.ones(2)}
    )


register()
