"""Who is compared in worlds that nobody has trained in: what each knows, and what it runs there."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial

import numpy as np

from tipl.envs.worlds import World
from tipl.experiments.worlds.comparing import Made, Maker, Rival, factors_of
from tipl.experiments.worlds.config import WorldsConfig
from tipl.experiments.worlds.experiencing import episodes_key, experiencing, transitions_key
from tipl.experiments.worlds.material import Material
from tipl.experiments.worlds.searching import searching
from tipl.experiments.worlds.stages import MODEL, RANDOMISED, UNIVERSAL, lineage_models
from tipl.policies.factors import log_distances
from tipl.policies.policy import Policy
from tipl.ppo.config import PPOConfig
from tipl.report.methods import Method, register_method
from tipl.report.palette import ACCENT, BLUE, GREEN, GREY, PURPLE

ARCHITECTURES = ((32, 32), (128, 128), (192, 192), (64, 64, 64))
"""Hidden layers of fresh networks that are carried to a world's teacher."""

ELITE, KNOWN, BLIND, SHUFFLED = "elite", "model", "model-blind", "model-shuffled"
SINGLE_BEST, NEAREST = "best-stored", "nearest"
JUDGED = (KNOWN, transitions_key(250), episodes_key(8))
"""The model's ways that are set beside every other method, where they are measured."""

NOTHING, PHYSICS = "nothing", "the physics"


def ppo_key(steps: int) -> str:
    """The key of PPO in the held-out world after so many environment steps."""
    return f"ppo-{steps}"


def rivals(config: WorldsConfig) -> list[Rival]:
    """All methods of a benchmark, in the order of tables; they are made known to reports."""
    found = [
        *_policies_of_home(config), *_models(config), *experiencing(),
        *searching(config.num_worlds), *_ppo(config),
    ]  # fmt: skip
    for one in found:
        register_method(one.method)
    return found


# --- those that try nothing out ---------------------------------------------------------------


def _policies_of_home(config: WorldsConfig) -> Iterator[Rival]:
    yield Rival(
        Method("elite of home, copied", GREY, "The policy that all trials start from.", ELITE),
        NOTHING, _elite,
    )  # fmt: skip
    yield Rival(
        Method("best stored policy", PURPLE, "The last policy of the training trial that returns "
               "most over the training worlds.", SINGLE_BEST, dashes=":"),
        NOTHING, _best_stored,
    )  # fmt: skip
    yield from _redrawn_policies(config)
    yield Rival(
        Method("nearest stored policy", PURPLE, "The last policy of the training world whose "
               "factors' logarithms are nearest.", NEAREST),
        PHYSICS, _nearest,
    )  # fmt: skip


def _redrawn_policies(config: WorldsConfig) -> Iterator[Rival]:
    how = (
        "One policy that PPO trains from the elite in all worlds of the split training at once, "
        f"drawn anew at each episode, for {config.redrawn_share} environment steps as all training "
        "trials together"
    )
    if config.randomised:
        yield Rival(
            Method("domain randomisation", GREEN, f"{how}.", RANDOMISED),
            NOTHING, partial(_redrawn, RANDOMISED), ("training", RANDOMISED),
        )  # fmt: skip
    yield Rival(
        Method("universal policy", GREEN, f"{how}, and that observes the factors at each step. The "
               "model is made of this one.", UNIVERSAL, dashes="--"),
        PHYSICS, partial(_redrawn, UNIVERSAL), ("training", UNIVERSAL),
    )  # fmt: skip


def _everywhere(policy: Policy, worlds: Sequence[World]) -> Made:
    """One policy in each world."""
    return _unspent([policy.with_physics(one.factors) for one in worlds])


def _unspent(policies: list[Policy]) -> Made:
    """Policies that took no environment step in their worlds."""
    return Made(policies, np.zeros(len(policies), np.int64))


def _elite(material: Material, group: str) -> Made:
    return _everywhere(material.elite, material.group(group))


def _best_stored(material: Material, group: str) -> Made:
    best = material.returns_in_training.mean(axis=1).argmax()
    return _everywhere(material.stored[best], material.group(group))


def _redrawn(name: str, material: Material, group: str) -> Made:
    return _everywhere(material.last_policy(name, 0), material.group(group))


def _nearest(material: Material, group: str) -> Made:
    worlds = material.group(group)
    factors = factors_of([one.factors for one in worlds], material.worlds.physics)
    nearest = log_distances(factors, material.stored_factors).argmin(axis=1)
    pairs = zip(nearest, worlds, strict=True)
    return _unspent([material.stored[i].with_physics(one.factors) for i, one in pairs])


# --- the model --------------------------------------------------------------------------------


def _models(config: WorldsConfig) -> Iterator[Rival]:
    def model(key: str, name: str, sentence: str, make: Maker, knows: str = PHYSICS,
              reads: tuple[str, str] = (UNIVERSAL, MODEL), dashes: str | None = None,
              ablation: bool = True) -> Rival:  # fmt: skip
        method = Method(name, ACCENT, sentence, key, dashes=dashes, ours=True)
        return Rival(method, knows, make, reads, ablation)

    yield model(
        KNOWN, "model, physics known", "The model's teacher for the world, whose factors it is "
        "told.", partial(_told, MODEL), ablation=False,
    )  # fmt: skip
    yield model(
        BLIND, "model, nothing known", "The model's teacher for a world of which it is told "
        "nothing.", partial(_blind, MODEL), NOTHING, dashes=":", ablation=False,
    )  # fmt: skip
    yield model(
        SHUFFLED, "model, shuffled physics", "The model is told the factors of another world of "
        "the split: an ablation, which shows whether it uses them.",
        partial(_told, MODEL, shuffled=True), "another's physics", dashes="-.",
    )  # fmt: skip
    for count, place in lineage_models(config).items():
        yield model(
            lineage_key(count), f"model of a lineage, {count} worlds", "A model that is told the "
            f"physics, and has learned from the trials in the first {count} training worlds.",
            partial(_told, place), reads=("training", place),
        )  # fmt: skip
    for hidden in ARCHITECTURES:
        units = "-".join(map(str, hidden))
        yield model(
            f"model-{units}", f"model, layers of {units}", f"A fresh network of {units} units that "
            "is carried to the model's teacher, physics known.",
            partial(_told, MODEL, hidden=hidden),
        )  # fmt: skip


def lineage_key(count: int) -> str:
    """The key of the model that has learned from the trials in so many training worlds."""
    return f"model-first-{count}"


def _told(
    place: str, material: Material, group: str, *, shuffled: bool = False,
    hidden: Sequence[int] | None = None,
) -> Made:  # fmt: skip
    """What the model makes of factors: of each world's own, or of another world's."""
    from tipl.models.world.adapting import adapt

    worlds, model = material.group(group), material.model(place)
    told = np.roll(np.arange(len(worlds)), len(worlds) // 2) if shuffled else range(len(worlds))
    policies = [
        adapt(material.config.env_id, physics=worlds[i].factors, model=model, hidden=hidden)
        for i in told
    ]
    pairs = zip(policies, worlds, strict=True)
    return _unspent([policy.with_physics(one.factors) for policy, one in pairs])


def _blind(place: str, material: Material, group: str) -> Made:
    return _everywhere(material.model(place).teacher_policy(), material.group(group))


# --- PPO --------------------------------------------------------------------------------------


def _ppo(config: WorldsConfig) -> Iterator[Rival]:
    for number, steps in enumerate(ppo_steps(config), 1):
        yield Rival(
            Method(f"PPO, {steps:,} steps", BLUE, "PPO from the elite in the world itself, for so "
                   "many environment steps.", ppo_key(steps)),
            "rewards", partial(_trained, number), ("training", "ppo/{}"),
            ablation=steps < config.total_steps, series="PPO from the elite",
        )  # fmt: skip


def ppo_steps(config: WorldsConfig) -> list[int]:
    """Environment steps before each checkpoint of PPO after its start; the last is its end."""
    apart = PPOConfig().rollout_steps * config.checkpoint_interval
    return [apart * (number + 1) for number in range(config.total_steps // apart)]


def _trained(checkpoint: int, material: Material, group: str) -> Made:
    worlds, name = material.group(group), f"ppo/{group}"
    steps = int(material.paths(name).global_step[checkpoint])
    policies = [
        material.last_policy(name, i, checkpoint).with_physics(one.factors)
        for i, one in enumerate(worlds)
    ]
    return Made(policies, np.full(len(worlds), steps, np.int64))
