"""Methods that find out what a held-out world is, by transitions or by episodes there."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from tipl.envs.single import WorldEnv
from tipl.experiments.worlds.comparing import Made, Maker, Rival, factors_of
from tipl.experiments.worlds.material import Material
from tipl.experiments.worlds.stages import MODEL, UNIVERSAL
from tipl.policies.factors import log_distances
from tipl.policies.policy import Policy
from tipl.report.methods import Method
from tipl.report.palette import ACCENT, PURPLE

if TYPE_CHECKING:
    from tipl.models.world.adapting import AdaptedPolicy

TRANSITIONS = (25, 250, 1000)
"""Steps in the world without rewards, from which the model tells what it is."""

EPISODES = (1, 2, 4, 8)
"""In which the model tries proposals."""

NEAREST_AFTER = 250
"""Transitions from which the model tells the world whose nearest stored policy is copied."""

EXPERIENCE_SEED = 3_000
"""Of the episodes in which the first world is found out; the others have those after it."""


def transitions_key(count: int) -> str:
    """The key of the model after so many transitions."""
    return f"model-{count}-transitions"


def episodes_key(count: int) -> str:
    """The key of the model after so many episodes."""
    return f"model-{count}-episodes"


def experiencing() -> Iterator[Rival]:
    """Those methods, by the model of worlds."""

    def rival(method: Method, knows: str, make: Maker, series: str = "") -> Rival:
        return Rival(method, knows, make, ("training", UNIVERSAL, MODEL), series=series)

    for steps in TRANSITIONS:
        sentence = f"The model sees {steps:,} transitions of its own policies in the world, without"
        name, key = f"model, {steps:,} transitions", transitions_key(steps)
        yield rival(
            Method(name, ACCENT, f"{sentence} rewards.", key, ours=True), f"{steps:,} transitions",
            partial(_by_model, steps=steps), "model, transitions",
        )  # fmt: skip
    yield rival(
        Method(f"nearest stored policy, {NEAREST_AFTER} transitions", PURPLE, "The stored policy "
               "that is nearest to what the model takes the world for, after so many transitions.",
               f"nearest-{NEAREST_AFTER}-transitions", dashes="--"),
        f"{NEAREST_AFTER} transitions", _nearest,
    )  # fmt: skip
    for episodes in EPISODES:
        several = f"{episodes} episode{'s' * (episodes > 1)}"
        yield rival(
            Method(f"model, {several}", ACCENT, f"The model tries proposals in {several}, and "
                   "learns of the world from each.", episodes_key(episodes), dashes="--",
                   ours=True),
            several, partial(_by_model, episodes=episodes), "model, episodes",
        )  # fmt: skip


def adapted(
    material: Material, group: str, place: int, *, steps: int | None = None, episodes: int = 0
) -> AdaptedPolicy:
    """What the model makes for a world of a group, told nothing of it, by what it does there."""
    from tipl.models.world.adapting import adapt

    task, model = material.config.env_id, material.model(MODEL)
    with closing(WorldEnv(task, material.group(group)[place].factors)) as env:
        seed = EXPERIENCE_SEED + place
        return adapt(task, env=env, steps=steps, episodes=episodes, model=model, seed=seed)


def _made(
    material: Material, group: str, policy_of: Callable[[AdaptedPolicy], Policy],
    *, steps: int | None = None, episodes: int = 0,
) -> Made:  # fmt: skip
    policies, env_steps = list[Policy](), list[int]()
    for place, one in enumerate(material.group(group)):
        found = adapted(material, group, place, steps=steps, episodes=episodes)
        policies.append(policy_of(found).with_physics(one.factors))
        env_steps.append(found.env_steps)
    return Made(policies, np.array(env_steps, np.int64))


def _by_model(
    material: Material, group: str, *, steps: int | None = None, episodes: int = 0
) -> Made:
    return _made(material, group, lambda policy: policy, steps=steps, episodes=episodes)


def _nearest(material: Material, group: str) -> Made:
    names = material.worlds.physics

    def nearest(policy: AdaptedPolicy) -> Policy:
        believed = factors_of([policy.world.factors], names)
        return material.stored[int(log_distances(believed, material.stored_factors).argmin())]

    return _made(material, group, nearest, steps=NEAREST_AFTER)
