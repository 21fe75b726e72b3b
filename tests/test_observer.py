"""What observes a world: it learns, it says how sure it is, and the order does not matter."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from tipl.evaluation.behaviour import transitions
from tipl.models.loop import Curve
from tipl.models.world import WorldTrainConfig, observing
from tipl.models.world.lineage import Lineage
from tipl.models.world.observer import (
    SUREST,
    UNSUREST,
    ObserverConfig,
    WorldObserver,
    transition_features,
)
from tipl.models.world.observing import train_observer
from tipl.policies.layout import actor_layout, initial_params
from tipl.policies.tasks import get_task

STEPS = 100
PENDULUM = get_task("InvertedPendulum-v4")
LAYOUT = actor_layout(PENDULUM, (4,))


@pytest.fixture(scope="module")
def trained() -> tuple[WorldObserver, Curve]:
    """On worlds that differ in the strength of the motor, in some seconds."""
    lineage = object.__new__(Lineage)
    lineage.task, lineage.layout, lineage.seed = PENDULUM, LAYOUT, 1
    lineage.names, lineage.factors = ("actuator_gear",), np.array([[0.5], [2.0]])
    lineage.elite = initial_params(LAYOUT, 1)
    lineage.teachers = np.stack([initial_params(LAYOUT, seed) for seed in (2, 3)])
    lineage.env_steps = lineage.rollouts = 0
    config = WorldTrainConfig(observer_worlds=120, observer_steps=200, observer_width=24)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(observing, "MOST_TRANSITIONS", STEPS)
        found = train_observer(lineage, config, progress=False)
    assert lineage.env_steps == 120 * STEPS
    return found


def watched(gear: float, count: int = STEPS) -> torch.Tensor:
    """Features of transitions in a world `[1, S, F]`."""
    seen = transitions(
        initial_params(LAYOUT, 9)[None], LAYOUT, PENDULUM, count, noise=0.4, seed=4,
        physics={"actuator_gear": np.array([gear])},
    )  # fmt: skip
    return torch.as_tensor(transition_features(PENDULUM, *seen))


def test_it_learns_more_than_the_prior(trained: tuple[WorldObserver, Curve]) -> None:
    curve = trained[1]
    still, learned = (curve[name][-1] for name in ("standing_still_loss", "held_out_loss"))
    assert isinstance(still, float)
    assert isinstance(learned, float)
    assert learned < still - 0.5


@torch.inference_mode()
def test_the_strength_of_a_motor_is_seen(trained: tuple[WorldObserver, Curve]) -> None:
    weak, strong = (trained[0](watched(gear)) for gear in (0.5, 2.0))
    assert weak[0][0, 0] + weak[1][0, 0] < strong[0][0, 0] - strong[1][0, 0]


@torch.inference_mode()
def test_more_transitions_leave_no_more_doubt(trained: tuple[WorldObserver, Curve]) -> None:
    few, many = (
        torch.stack([trained[0](watched(gear)[:, :count])[1][0] for gear in (0.6, 1.0, 1.7)])
        for count in (12, STEPS)
    )
    assert (many.mean(dim=0) < few.mean(dim=0)).all()


@torch.inference_mode()
def test_the_order_of_transitions_says_nothing(trained: tuple[WorldObserver, Curve]) -> None:
    seen = watched(1.3, 50)
    shuffled = seen[:, torch.randperm(50, generator=torch.Generator().manual_seed(0))]
    for one, other in zip(trained[0](seen), trained[0](shuffled), strict=True):
        assert torch.allclose(one, other, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("count", [1, 2, 1000])
@torch.inference_mode()
def test_deviations_are_bounded_whatever_is_seen(count: int) -> None:
    torch.manual_seed(1)
    observer = WorldObserver(ObserverConfig(9, 2, 8))
    observer.prior_std.fill_(0.3)
    for size in (0.0, 1.0, 1e30):
        mean, std = observer(size * torch.randn(3, count, 9))
        assert torch.isfinite(mean).all()
        assert (std >= 0.999 * SUREST * 0.3).all()
        assert (std <= 1.001 * UNSUREST * 0.3).all()


def test_what_is_as_unsure_as_can_be_learns_to_be_surer() -> None:
    observer = WorldObserver(ObserverConfig(9, 1, 4))
    last = observer.all[-1]
    assert isinstance(last, torch.nn.Linear)
    with torch.no_grad():
        last.weight.zero_()
        last.bias.copy_(torch.tensor([0.0, 3.0]))  # far beyond the bound
    observer.loss(torch.zeros(2, 5, 9), torch.zeros(2, 1)).backward()  # it is right, and unsure
    assert last.bias.grad is not None
    assert last.bias.grad[1] > 0
