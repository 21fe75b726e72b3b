"""The rival that fits the output layers of networks to a policy's actions."""

from __future__ import annotations

import numpy as np
import pytest

from tipl import Policy, TiplError, evaluate
from tipl.envs import make_task
from tipl.models.readout import FittedOutputLayer
from tipl.policies.layout import actor_layout
from tipl.ppo.networks import stacked_mlp

PENDULUM = make_task("InvertedPendulum-v4")
RNG = np.random.default_rng(0)
OBSERVATIONS = RNG.standard_normal((200, 4)).astype(np.float32)
LAYOUT = actor_layout(PENDULUM, (16, 8))
HISTORY = RNG.standard_normal((3, 2, LAYOUT.size)).astype(np.float32)


def outputs(params: np.ndarray, observations: np.ndarray = OBSERVATIONS) -> np.ndarray:
    """Outputs `[N, S, A]` of networks for the same observations."""
    actor = stacked_mlp(LAYOUT.unflatten(np.ascontiguousarray(params)), "actor")
    return actor.forward(np.repeat(observations[None], len(params), axis=0))


def test_what_a_network_can_do_is_fitted_and_the_rest_stays() -> None:
    last = HISTORY[:, -1]
    other = last.copy()
    at = LAYOUT.slices["actor.2.weight"]
    other[:, at] += 1.0  # another output layer on the same features
    for n in range(3):
        wanted = outputs(other)[n]
        rival = FittedOutputLayer(PENDULUM, OBSERVATIONS, wanted)
        fitted = rival.forecast(HISTORY[[n]], [1, 5], layout=LAYOUT)
        np.testing.assert_array_equal(fitted[:, 0], fitted[:, 1])  # whatever the horizon
        missed = np.abs(outputs(fitted[:, 0])[0] - wanted).mean()
        assert missed < 0.2 * np.abs(outputs(last)[n] - wanted).mean()
        hidden = slice(0, at.start)
        np.testing.assert_array_equal(fitted[0, 0, hidden], last[n, hidden])


def test_it_needs_a_layout() -> None:
    rival = FittedOutputLayer(PENDULUM, OBSERVATIONS, outputs(HISTORY[:1, -1])[0])
    with pytest.raises(TiplError, match=r"no layout was given.*give the layout"):
        rival.forecast(HISTORY, 1)


def test_it_balances_a_pendulum_as_the_elite_does() -> None:
    elite = Policy.initial(PENDULUM, seed=0, hidden=(4,))
    params = np.zeros_like(elite.params)
    arrays = actor_layout(PENDULUM, (4,)).unflatten(params)
    # a linear controller, through units that hardly bend
    arrays["actor.0.weight"][:] = 0.05 * np.eye(4, dtype=np.float32)
    arrays["actor.1.weight"][:] = 20 * np.array([[0.3, 3.0, 0.6, 1.5]], np.float32)
    policy = elite.with_params(params)
    assert evaluate(policy, 2).episodic_return.min() == 1000
    rival = FittedOutputLayer.of(policy)
    start = [Policy.initial(PENDULUM, seed=s, hidden=(64, 64)) for s in range(4)]
    ahead = rival.forecast(np.stack([p.params for p in start])[:, None], 1, layout=start[0].layout)
    better = [p.with_params(row) for p, row in zip(start, ahead, strict=True)]
    assert evaluate(start, 2).episodic_return.max() < 100
    assert evaluate(better, 2).episodic_return.min() > 900
