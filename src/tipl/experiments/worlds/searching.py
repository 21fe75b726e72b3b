"""Methods that search for a policy by episodes in a held-out world: they run many, and keep one."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial

import numpy as np
from jaxtyping import Float64, Int64

from tipl.envs.worlds import TRAINING, World
from tipl.experiments.worlds.comparing import Made, Rival
from tipl.experiments.worlds.material import Material
from tipl.experiments.worlds.stages import UNIVERSAL
from tipl.policies.folding import folded, folding_slopes
from tipl.policies.policy import Policy
from tipl.report.methods import Method
from tipl.report.palette import GOLD, GREEN

LIBRARY = (8, 24)
"""Stored policies that are tried out, one episode each."""

DRAWING_SEED = 0
"""Of the stored policies that are tried out in each world."""

HALVING = ((12, 1), (6, 1), (3, 2))
"""Stored policies in each round of successive halving, and the episodes of each: 24 in all."""


POPULATION, GENERATIONS = 8, (3, 12)
"""Physics that CMA-ES tries at once in a world, and how often until it stops."""

CMA_SEED = 100
"""Of its candidates, and of the episodes of its first generation."""


def searching(num_worlds: int) -> Iterator[Rival]:
    """Those methods, for a benchmark with so many training worlds."""
    yield from _library(num_worlds)
    yield from _by_cma()


# --- among stored policies --------------------------------------------------------------------


def _library(num_worlds: int) -> Iterator[Rival]:
    for count in sorted({min(count, num_worlds) for count in LIBRARY}):
        yield Rival(
            Method(f"best of {count} stored policies", GOLD, f"{count} stored policies, drawn for "
                   "each world, are run there for an episode each.", best_of_key(count)),
            f"{count} episodes", partial(_best_of, count), series="best of some stored policies",
        )  # fmt: skip
    yield Rival(
        Method("successive halving", GOLD, "Of 12 stored policies, an episode each, the better 6 "
               "are run once more, and the best 3 of these twice more: 24 episodes.", "halving",
               dashes="--"),
        "24 episodes", _halving, series="successive halving",
    )  # fmt: skip


def best_of_key(count: int) -> str:
    """The key of trying out so many stored policies."""
    return f"best-of-{count}"


def _drawn(material: Material, worlds: int) -> Int64[np.ndarray, "W M"]:
    """The stored policies in an order of its own for each world."""
    rng = np.random.default_rng(DRAWING_SEED)
    return np.stack([rng.permutation(len(material.stored)) for _ in range(worlds)])


def _there(
    material: Material, worlds: Sequence[World], chosen: Int64[np.ndarray, "W K"]
) -> list[list[Policy]]:
    """Stored policies, each in the world of its row."""
    return [
        [material.stored[i].with_physics(one.factors) for i in row]
        for row, one in zip(chosen, worlds, strict=True)
    ]


def _best_of(count: int, material: Material, group: str) -> Made:
    worlds = material.group(group)
    candidates = _there(material, worlds, _drawn(material, len(worlds))[:, :count])
    returns, env_steps = material.try_out(candidates, 1, seed=0)
    best = returns.argmax(axis=1)
    return Made([those[i] for those, i in zip(candidates, best, strict=True)], env_steps)


def _halving(material: Material, group: str) -> Made:
    worlds = material.group(group)
    chosen = _drawn(material, len(worlds))
    totals = np.zeros(chosen.shape)
    env_steps, run = np.zeros(len(worlds), np.int64), 0
    for number, (count, episodes) in enumerate(HALVING):
        chosen, totals = chosen[:, :count], totals[:, :count]
        there = _there(material, worlds, chosen)
        returns, steps = material.try_out(there, episodes, seed=1 + number)
        totals, env_steps, run = totals + returns * episodes, env_steps + steps, run + episodes
        order = np.argsort(-totals, axis=1)
        chosen, totals = (np.take_along_axis(one, order, axis=1) for one in (chosen, totals))
    return Made([those[0] for those in _there(material, worlds, chosen)], env_steps)


# --- among the physics that a universal policy is told ----------------------------------------


def _by_cma() -> Iterator[Rival]:
    for generations in GENERATIONS:
        episodes = POPULATION * generations
        yield Rival(
            Method(f"CMA-ES, {episodes} episodes", GREEN, "What the universal policy is told of "
                   "the physics is searched for by CMA-ES (Hansen) between the least and the most "
                   f"of the training worlds: {generations} generations of {POPULATION} candidates, "
                   "an episode each. The best is kept.", cma_key(episodes), dashes=":"),
            f"{episodes} episodes", partial(_cma, generations), ("training", UNIVERSAL),
            series="CMA-ES over physics", extra="cma",
        )  # fmt: skip


def cma_key(episodes: int) -> str:
    """The key of CMA-ES after so many episodes."""
    return f"cma-{episodes}-episodes"


def _cma(generations: int, material: Material, group: str) -> Made:
    """A strategy for each world, over what the policy observes of the training worlds."""
    from cma import CMAEvolutionStrategy  # an extra, and slow to import

    worlds, universal = material.group(group), material.last_policy(UNIVERSAL, 0)
    home, slopes, observed = folded(universal), folding_slopes(universal), universal.task
    training = material.worlds.worlds(TRAINING)
    known = np.stack([observed.observed_values(one.factors) for one in training])
    lowest, highest = known.min(axis=0), known.max(axis=0)

    def policy(place: Float64[np.ndarray, " V"], world: World) -> Policy:
        values = lowest + place * (highest - lowest) - observed.observed_values({})
        return home.with_params(home.params + values @ slopes).with_physics(world.factors)

    rng = np.random.default_rng(CMA_SEED)
    options = {
        "popsize": POPULATION, "bounds": [0, 1], "verbose": -9,
        "seed": np.nan, "randn": lambda *shape: rng.standard_normal(shape),  # NumPy's stays as is
    }  # fmt: skip
    searches = [CMAEvolutionStrategy([0.5] * len(lowest), 0.3, options) for _ in worlds]
    spent = np.zeros(len(worlds), np.int64)
    for generation in range(generations):
        places = [search.ask() for search in searches]
        candidates = [
            [policy(place, one) for place in those]
            for those, one in zip(places, worlds, strict=True)
        ]
        returns, steps = material.try_out(candidates, 1, seed=CMA_SEED + generation)
        spent += steps
        for search, those, found in zip(searches, places, returns, strict=True):
            search.tell(those, (-found).tolist())
    best = [policy(search.result.xbest, one) for search, one in zip(searches, worlds, strict=True)]
    return Made(best, spent)
