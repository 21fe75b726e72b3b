"""Training what observes a world: on worlds that need nothing but to be stepped in."""

from __future__ import annotations

import math
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
import torch
from jaxtyping import Float, Float32
from torch import Tensor

from tipl.core.seeds import HELD_OUT_SEED, Stream
from tipl.evaluation.behaviour import transitions
from tipl.models.loop import Curve, fit
from tipl.models.parallel import Share
from tipl.models.world import WorldTrainConfig
from tipl.models.world.belief import Belief
from tipl.models.world.observer import (
    MOST_TRANSITIONS,
    ObserverConfig,
    WorldObserver,
    transition_features,
)
from tipl.policies.layout import initial_params

if TYPE_CHECKING:
    from tipl.models.world.lineage import Lineage

BEYOND = 1.5
"""How far the ranges of factors go beyond those of the worlds with teachers: a world further off is
to be seen as one."""

NOISES = (0.0, 0.1, 0.2, 0.2, 0.4, 1.0)
"""Of the actions of the policies that are watched, in units of half their range."""

UNTRAINED = 0.2
"""Share of the watched policies that have learned nothing."""

FEWEST = 10
"""Transitions of a world that are looked at together, at least."""

BATCH = 48
"""Worlds of each step."""

HELD_OUT_SHARE = 0.1
"""Of the worlds, for the curve."""


def train_observer(
    lineage: Lineage, config: WorldTrainConfig, progress: bool
) -> tuple[WorldObserver, Curve]:
    """Trains an observer on fresh worlds, in which policies of many kinds are watched.

    The worlds are drawn evenly, in the logarithm, from ranges beyond those of the lineage's; the
    policies are untrained ones, and any between the elite and a teacher of some other world.
    """
    factors, features = _watched_worlds(lineage, config)
    V, F = factors.shape[1], features.shape[-1]
    seeds = torch.random.get_rng_state()
    torch.manual_seed(config.seed)
    observer = WorldObserver(ObserverConfig(F, V, config.observer_width))
    torch.random.set_rng_state(seeds)
    prior = Belief.among(lineage.names, np.exp(factors.numpy().astype(np.float64)))
    rows = features.flatten(0, 1)  # [W, S, F] -> [W S, F]
    known = {
        "feature_mean": rows.mean(dim=0), "feature_std": rows.std(dim=0).clamp(min=1e-6),
        "prior_mean": torch.as_tensor(prior.mean), "prior_std": torch.as_tensor(prior.std),
    }  # fmt: skip
    for name, values in known.items():
        getattr(observer, name).copy_(values)
    count = max(1, round(len(factors) * HELD_OUT_SHARE))
    loss = partial(_loss, observer, factors[count:], features[count:])
    held_out = partial(_held_out, observer, factors[:count], features[:count])
    curve = fit(
        observer, config.of_observer(), loss, held_out, label="train (observer)", progress=progress
    )
    return observer.eval(), curve


def _watched_worlds(
    lineage: Lineage, config: WorldTrainConfig
) -> tuple[Float[Tensor, "W V"], Float[Tensor, "W S F"]]:
    """Logarithms of the factors of fresh worlds, and features of transitions in each."""
    W, rng = config.observer_worlds, Stream.WORLDS.rng(config.seed, 0)
    low, high = lineage.factors.min(axis=0) / BEYOND, lineage.factors.max(axis=0) * BEYOND
    logarithms = rng.uniform(np.log(low), np.log(high), (W, len(low)))
    seen = transitions(
        _watched_policies(lineage, W, rng), lineage.layout, lineage.task, MOST_TRANSITIONS,
        noise=rng.choice(NOISES, W), seed=config.seed,
        physics=dict(zip(lineage.names, np.exp(logarithms).T, strict=True)),
    )  # fmt: skip
    lineage.env_steps += W * MOST_TRANSITIONS
    features = transition_features(lineage.task, *seen)
    return torch.as_tensor(logarithms.astype(np.float32)), torch.as_tensor(features)


def _watched_policies(
    lineage: Lineage, count: int, rng: np.random.Generator
) -> Float32[np.ndarray, "W P"]:
    """Policies of many kinds, so that a log of any is understood."""
    teachers = lineage.teachers[rng.integers(len(lineage.teachers), size=count)]
    share = rng.uniform(-0.5, 1.2, (count, 1)).clip(min=0.0)  # the elite itself, more often
    made = lineage.elite + share.astype(np.float32) * (teachers - lineage.elite)
    for w in np.flatnonzero(rng.random(count) < UNTRAINED):
        made[w] = initial_params(lineage.layout, int(rng.integers(2**31)))
    return np.ascontiguousarray(made, np.float32)


def _loss(
    observer: WorldObserver,
    factors: Float[Tensor, "W V"],
    features: Float[Tensor, "W S F"],
    rng: torch.Generator,
) -> Tensor:
    """The loss on some worlds, of as many transitions as chance will have it, in a row."""
    worlds = torch.randint(len(factors), (min(BATCH, len(factors)),), generator=rng)
    most = features.shape[1]
    few = math.log(min(FEWEST, most))
    drawn = few + float(torch.rand((), generator=rng)) * (math.log(most) - few)
    length = int(math.exp(drawn))
    start = int(torch.randint(most - length + 1, (), generator=rng))
    share = Share.of(len(worlds))
    worlds = share(worlds)
    return share.scaled(observer.loss(features[worlds, start : start + length], factors[worlds]))


@torch.inference_mode()
def _held_out(
    observer: WorldObserver,
    factors: Float[Tensor, "W V"],
    features: Float[Tensor, "W S F"],
    *,
    still: bool = False,
) -> float:
    """The loss on worlds that are not learned from; standing still, of knowing the prior alone."""
    if still:
        away = (factors - observer.prior_mean) / observer.prior_std
        return float(away.square().mean() / 2)
    rng = torch.Generator().manual_seed(HELD_OUT_SEED)
    return float(torch.stack([_loss(observer, factors, features, rng) for _ in range(4)]).mean())
