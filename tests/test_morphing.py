"""Networks of other shapes that do what a teacher does."""

from __future__ import annotations

import numpy as np
import pytest

from tipl import Policy
from tipl.models.world.morphing import can_morph, morphed
from tipl.policies.layout import ParamLayout

TASK = "InvertedPendulum-v4"
RNG = np.random.default_rng(3)
SEEN = RNG.standard_normal((400, 4)).astype(np.float32)


def teacher() -> Policy:
    """One whose output layer is not nearly zero, as that of a fresh network is."""
    fresh = Policy.initial(TASK, 1, (12, 10))
    return fresh.with_params(fresh.params + 0.2 * RNG.standard_normal(fresh.params.size))


def carried(policy: Policy, given: Policy) -> Policy:
    return given.with_params(
        morphed(
            policy.params, policy.layout, given.params, given.layout, SEEN, given.task.action_bounds
        )
    )


def raw(observations: np.ndarray, policy: Policy) -> np.ndarray:
    """Observations that the policy's normaliser makes these of."""
    return observations * policy.observation_std + policy.observation_mean


@pytest.mark.parametrize("hidden", [(12, 10), (20, 16), (12, 10, 14), (40, 30, 10)])
def test_wider_and_deeper_networks_do_the_same(hidden: tuple[int, ...]) -> None:
    policy, given = teacher(), Policy.initial(TASK, 2, hidden)
    made = carried(policy, given)
    seen = raw(SEEN, policy)
    np.testing.assert_allclose(made.act(seen), policy.act(seen), atol=5e-3)
    assert abs(given.act(seen) - policy.act(seen)).max() > 0.1


def test_units_that_are_not_needed_stay() -> None:
    given = Policy.initial(TASK, 2, (20, 16))
    made, before = (one.layout.unflatten(one.params) for one in (carried(teacher(), given), given))
    np.testing.assert_array_equal(made["actor.0.weight"][12:], before["actor.0.weight"][12:])
    assert not made["actor.1.weight"][:10, 12:].any()
    assert not made["actor.2.weight"][:, 10:].any()


def test_narrower_networks_do_nearly_the_same() -> None:
    policy = teacher()
    seen = raw(SEEN, policy)
    apart = {
        width: float(
            np.square(
                carried(policy, Policy.initial(TASK, 2, (width, width))).act(seen)
                - policy.act(seen)
            ).mean()
        )
        for width in (3, 8)
    }
    spread = float(policy.act(seen).var())
    assert apart[8] < 0.05 * spread
    assert apart[8] < apart[3] < spread


@pytest.mark.parametrize(
    ("hidden", "activation", "can"),
    [((3, 3), "tanh", True), ((9, 9, 9), "tanh", True), ((50,), "tanh", False),
     ((12, 10), "relu", False)],
)  # fmt: skip
def test_shallower_networks_and_other_activations_are_not_made_so(
    hidden: tuple[int, ...], activation: str, can: bool
) -> None:
    layout: ParamLayout = Policy.initial(TASK, 2, hidden, activation).layout
    assert can_morph(layout, teacher().layout) is can
