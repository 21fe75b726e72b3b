"""Compiled kernels against NumPy and autograd."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from tipl.ppo import kernels

N, T, B, A = 2, 40, 24, 3


def test_tanh_is_exact_to_single_precision() -> None:
    x = np.concatenate([np.linspace(-12, 12, 200_001), np.logspace(-6, 0, 1_000)]).astype("f4")
    hidden = x[None, :, None].copy()  # [points] -> [1, points, 1]
    kernels.add_bias_tanh(hidden, np.zeros((1, 1), "f4"))
    expected = np.tanh(x.astype("f8"))
    np.testing.assert_allclose(hidden[0, :, 0], expected, rtol=4e-7, atol=0)
    assert np.abs(hidden).max() <= 1 + 3e-7


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_tanh_of_what_is_not_finite(dtype: type[np.floating]) -> None:
    hidden = np.array([[[np.nan, np.inf, -np.inf]]], dtype)
    kernels.add_bias_tanh(hidden, np.zeros((1, 3), dtype))
    np.testing.assert_allclose(hidden[0, 0], [np.nan, 1, -1], rtol=1e-6)


def surrogate_loss(
    log_probs: torch.Tensor, old: np.ndarray, advantages: np.ndarray
) -> tuple[torch.Tensor, float]:
    """PPO's clipped loss as CleanRL has it, and the share of clipped ratios."""
    ratio = (log_probs - torch.tensor(old)).exp()
    gains = torch.tensor(advantages)
    unclipped, clipped = -gains * ratio, -gains * ratio.clamp(0.8, 1.2)
    share = float((clipped > unclipped).double().mean())
    return torch.max(unclipped, clipped).mean(), share


@pytest.mark.parametrize(("dtype", "tolerance"), [(np.float64, 1e-12), (np.float32, 1e-5)])
@pytest.mark.parametrize("change", [0.0, 0.02, 0.5])
def test_gaussian_gradient_is_autograds(
    dtype: type[np.floating], tolerance: float, change: float
) -> None:
    # After no change of the policy every ratio is 1 but for rounding; after a large one most are
    # clipped.
    rng = np.random.default_rng(0)
    log_std, actions = rng.normal(size=(N, A)) / 2, rng.normal(size=(N, T, A))
    indices, advantages = rng.permutation(T)[:B], rng.normal(size=(N, B))
    old_mean = rng.normal(size=(N, T, A))
    mean = old_mean[:, indices] + change * rng.normal(size=(N, B, A))
    deviations = (actions - old_mean) / np.exp(log_std)[:, None]
    old = (-0.5 * deviations**2 - log_std[:, None] - 0.5 * np.log(2 * np.pi)).sum(axis=2)
    d_mean, d_log_std = np.full((N, B, A), np.nan, dtype), np.full((N, A), np.nan, dtype)
    arrays = [array.astype(dtype) for array in (mean, log_std, actions, old, advantages)]
    kernels.gaussian_gradient(
        arrays[0], arrays[1], indices, *arrays[2:], dtype(0.2), d_mean, d_log_std
    )
    for n in range(N):
        tensors = [torch.tensor(mean[n], requires_grad=True), torch.tensor(log_std[n])]
        tensors[1].requires_grad_()
        distribution = torch.distributions.Normal(tensors[0], tensors[1].exp())
        log_probs = distribution.log_prob(torch.tensor(actions[n, indices])).sum(1)
        loss, clipped = surrogate_loss(log_probs, old[n, indices], advantages[n])
        expected = torch.autograd.grad(loss, tensors)
        np.testing.assert_allclose(d_mean[n], expected[0], rtol=0, atol=tolerance)
        np.testing.assert_allclose(d_log_std[n], expected[1], rtol=0, atol=tolerance)
        assert (clipped > 0.2) == (change == 0.5)


def autograd_of_categorical(
    logits: np.ndarray,
    actions: np.ndarray,
    old: np.ndarray,
    advantages: np.ndarray,
    ent_coef: float,
) -> tuple[np.ndarray, float]:
    """Gradient of the loss with its entropy bonus, and the share of clipped ratios."""
    tensor = torch.tensor(logits, requires_grad=True)
    distribution = torch.distributions.Categorical(logits=tensor)
    loss, clipped = surrogate_loss(distribution.log_prob(torch.tensor(actions)), old, advantages)
    (gradient,) = torch.autograd.grad(loss - ent_coef * distribution.entropy().mean(), tensor)
    return gradient.numpy(), clipped


@pytest.mark.parametrize("ent_coef", [0.0, 0.3])
@pytest.mark.parametrize(("dtype", "tolerance"), [(np.float64, 1e-12), (np.float32, 1e-5)])
def test_categorical_gradient_is_autograds(
    dtype: type[np.floating], tolerance: float, ent_coef: float
) -> None:
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(N, B, A)) * 2
    actions = rng.integers(0, A, (N, T))
    old, advantages = np.log(rng.uniform(0.1, 1, (N, T))), rng.normal(size=(N, B))
    indices = rng.permutation(T)[:B]
    gradient = np.full((N, B, A), np.nan, dtype)
    kernels.categorical_gradient(
        logits.astype(dtype),
        indices,
        actions[:, :, None].astype(dtype),
        old.astype(dtype),
        advantages.astype(dtype),
        dtype(0.2),
        dtype(ent_coef),
        gradient,
    )
    for n in range(N):
        expected, clipped = autograd_of_categorical(
            logits[n], actions[n, indices], old[n, indices], advantages[n], ent_coef
        )
        np.testing.assert_allclose(gradient[n], expected, rtol=0, atol=tolerance)
        assert 0.1 < clipped < 0.9
        assert np.abs(expected).max() > 0.01


def test_advantages_are_normalised_as_torch_does() -> None:
    rng = np.random.default_rng(1)
    advantages, indices = 5 + 3 * rng.normal(size=(N, T)), rng.permutation(T)[:B]
    out = np.empty((N, B))
    kernels.normalised_advantages(advantages, indices, out)
    chosen = torch.tensor(advantages[:, indices])
    expected = (chosen - chosen.mean(1, keepdim=True)) / (chosen.std(1, keepdim=True) + 1e-8)
    np.testing.assert_allclose(out, expected, rtol=1e-12, atol=1e-12)
