"""Which physics of a task anything depends on: tried out, step by step, to the last bit."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from tipl.envs.factory import make_vec

STEPS = 500
"""That copies of the environment are stepped by random actions before a factor counts as without
effect."""


def physics_with_effect(env_id: str, ranges: Mapping[str, Sequence[float]]) -> tuple[str, ...]:
    """The names of physics on which something depends that a policy could see.

    Copies of the environment, each with one factor at an end of its range, start alike and take the
    same random actions. A factor has an effect if observations, rewards or ends of episodes differ
    from home's in a single bit.

    Args:
        env_id: a task whose physics can vary.
        ranges: lowest and highest factor by name. Of a factor that does not vary there is no
            effect to be seen, and it is among those that are returned.

    Raises:
        TiplError: the task has no such physics, or they cannot vary so.
    """
    varying = [name for name, (low, high) in ranges.items() if low < high]
    if not varying:
        return tuple(ranges)
    copies = 1 + 2 * len(varying)  # home, then each factor at both ends
    factors = {name: np.ones(copies) for name in varying}
    for place, name in enumerate(varying):
        factors[name][1 + 2 * place : 3 + 2 * place] = ranges[name][0], ranges[name][-1]
    envs: Any = make_vec(env_id, copies, physics=factors)
    differs = np.zeros(copies, bool)
    try:
        envs.reset(seed=[0] * copies)
        envs.single_action_space.seed(0)
        for _ in range(STEPS):
            action = envs.single_action_space.sample()
            stepped = envs.step(np.repeat(action[None], copies, axis=0))[:4]
            for seen in stepped:  # observations, rewards and ends of episodes
                rows = np.asarray(seen).reshape(copies, -1)  # [E, ...] -> [E, X]
                differs |= (rows != rows[0]).any(axis=1)
    finally:
        envs.close()
    effective = {
        name for place, name in enumerate(varying) if differs[1 + 2 * place : 3 + 2 * place].any()
    }
    return tuple(name for name in ranges if name in effective or name not in varying)
