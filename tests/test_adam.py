"""Many Adams in one are the same as torch's, one by one."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from tipl.ppo.learner import StackedAdam

N, P, STEPS = 3, 11, 20
EPS, MAX_GRAD_NORM = 1e-5, 0.5


def gradients_of(step: int) -> np.ndarray:
    """Gradients `[N, P]` with norms far below, about and far above the limit."""
    rng = np.random.default_rng(step)
    scale = 10.0 ** rng.uniform(-3, 1, (N, 1))
    return scale * rng.normal(size=(N, P))


def learning_rate(step: int) -> float:
    return 0.1 * (1 - step / STEPS)


def initial() -> np.ndarray:
    return np.random.default_rng(99).normal(size=(N, P))


def stacked(params: np.ndarray) -> StackedAdam:
    return StackedAdam(params, EPS, MAX_GRAD_NORM)


def steps(adam: StackedAdam, first: int, last: int) -> None:
    for step in range(first, last):
        adam.gradients[:] = gradients_of(step)
        adam.step(learning_rate(step))


def test_equals_torch_with_clipped_gradients() -> None:
    params = initial()
    adam = stacked(params)
    tensors = [torch.nn.Parameter(torch.tensor(row)) for row in initial()]
    rivals = [torch.optim.Adam([tensor], eps=EPS) for tensor in tensors]
    clipped = 0
    for step in range(STEPS):
        steps(adam, step, step + 1)
        for tensor, rival, gradient in zip(tensors, rivals, gradients_of(step), strict=True):
            tensor.grad = torch.tensor(gradient)
            norm = torch.nn.utils.clip_grad_norm_([tensor], MAX_GRAD_NORM)
            clipped += int(norm > MAX_GRAD_NORM)
            rival.param_groups[0]["lr"] = learning_rate(step)
            rival.step()
        expected = np.stack([tensor.detach().numpy() for tensor in tensors])
        np.testing.assert_allclose(params, expected, rtol=1e-10, atol=1e-12)
    assert 5 < clipped < N * STEPS - 5


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_gradient_that_is_not_finite_touches_no_other_trial(bad: float) -> None:
    params, undisturbed = initial(), initial()
    adam, reference = stacked(params), stacked(undisturbed)
    steps(reference, 0, STEPS)
    with np.errstate(all="ignore"):
        for step in range(STEPS):
            adam.gradients[:] = gradients_of(step)
            adam.gradients[1, 3] = bad
            adam.step(learning_rate(step))
    assert np.isnan(params[1]).any()
    for array, expected in (
        (params, undisturbed),
        (adam.first_moment, reference.first_moment),
        (adam.second_moment, reference.second_moment),
    ):
        assert array[[0, 2]].tobytes() == expected[[0, 2]].tobytes()


def test_continues_from_its_state() -> None:
    undisturbed = initial()
    steps(stacked(undisturbed), 0, STEPS)

    params = initial()
    adam = stacked(params)
    steps(adam, 0, 7)
    continued = stacked(params)
    continued.set_state({name: array.copy() for name, array in adam.state().items()})
    steps(continued, 7, STEPS)
    assert params.tobytes() == undisturbed.tobytes()
