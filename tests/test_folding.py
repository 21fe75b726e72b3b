"""Policies that observe their physics, as plain networks of one world each."""

from __future__ import annotations

import math

import numpy as np
import pytest

import tipl
from tipl import Policy, TiplError
from tipl.policies.folding import folded, folding_slopes
from tipl.policies.tasks import get_task

TASK = get_task("InvertedPendulum-v4")
OBSERVING = TASK.observing({"gravity": 0.5, "actuator_gear": 0.25})
WORLD = {"actuator_gear": -0.7, "gravity": 1.3}
SEEN = np.random.default_rng(1).normal(size=(20, 4))


@pytest.fixture
def policy() -> Policy:
    return Policy.initial(OBSERVING, 1, (8, 8))


def shown(policy: Policy, world: dict[str, float]) -> np.ndarray:
    """What it observes in a world."""
    physics = policy.task.observed_values(world)
    return np.concatenate([SEEN, np.tile(physics, (len(SEEN), 1))], axis=1)


@pytest.mark.parametrize("world", [{}, WORLD, {"gravity": 1e9}])  # the last one is clipped
def test_a_folded_policy_acts_as_the_other_one_does_there(
    policy: Policy, world: dict[str, float]
) -> None:
    plain = folded(policy, world)
    assert plain.task == TASK.with_physics(world)
    assert plain.layout.hidden_sizes == (8, 8)
    np.testing.assert_allclose(plain.act(SEEN), policy.act(shown(policy, world)), atol=1e-6)
    assert not np.allclose(plain.act(SEEN), folded(policy, {"gravity": 0.3}).act(SEEN))


def test_its_episodes_are_the_same(policy: Policy) -> None:
    world = {"gravity": 1.3}
    policies = policy.with_physics(world), folded(policy, world)
    one, other = (tipl.evaluate(each, 3, seed=1, threads=1).episode_length for each in policies)
    assert one.tolist() == other.tolist()


def test_its_own_normaliser_goes_with_it(policy: Policy) -> None:
    mean, std = np.linspace(-0.3, 0.4, 6), np.linspace(0.4, 2, 6)
    other = Policy(policy.params, policy.layout, policy.task, mean, std, 2.0)
    plain = folded(other, WORLD)
    np.testing.assert_allclose(plain.act(SEEN), other.act(shown(other, WORLD)), atol=1e-6)
    assert plain.observation_mean.tolist() == mean[:4].tolist()
    assert plain.observation_clip == 2.0


def test_slopes_lead_from_home_to_a_world(policy: Policy) -> None:
    observed = np.array([WORLD["actuator_gear"] - 1, math.log(WORLD["gravity"])])
    there = folded(policy).params + observed @ folding_slopes(policy)
    np.testing.assert_allclose(there, folded(policy, WORLD).params, atol=1e-6)


def test_a_policy_that_observes_nothing_is_refused() -> None:
    plain = Policy.initial(TASK, 1, (8,))
    for fold in (folded, folding_slopes):
        with pytest.raises(TiplError, match="does not observe its physics"):
            fold(plain)
