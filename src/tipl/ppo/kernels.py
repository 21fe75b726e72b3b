"""The inner loops of learning, compiled by Numba.

One minibatch of a trial is so small that NumPy spends most of its time walking over arrays that
have just left the cache, and its float32 `tanh` costs more than the matrix products around it. Each
kernel here does in one pass what NumPy needs several for. They release the interpreter lock, so
groups of trials learn in parallel threads, and they are compiled once for each dtype and kept on
disk.

Kernels take arrays as they are, check nothing, and write their results in place. Of N trials they
learn from a minibatch: the steps at `indices [B]` of all T that `actions`, `old_log_probs`,
`returns` and `old_values` tell of, `[N, T, ...]`. Outputs of networks, their gradients `d_...`
(written) and `advantages` are the minibatch's own, `[N, B, ...]`.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable
from itertools import zip_longest
from typing import Any, TypeVar, no_type_check

import numba
import numpy as np
from numba.core.caching import FunctionCache
from numba.extending import overload

Function = TypeVar("Function", bound=Callable[..., Any])


class _Kept(FunctionCache):
    """Compiled code on the disk: where none can be kept, or read, it is made again, no more."""

    def load_overload(self, sig: Any, target_context: Any) -> Any:
        try:
            return super().load_overload(sig, target_context)  # type: ignore[no-untyped-call]
        except Exception:  # a damaged file may raise anything
            with contextlib.suppress(Exception):
                self.flush()  # type: ignore[no-untyped-call]
            return None

    def save_overload(self, sig: Any, data: Any) -> None:
        with contextlib.suppress(Exception):  # a full disk, or one that is read-only by now
            super().save_overload(sig, data)  # type: ignore[no-untyped-call]


def _kernel(function: Function) -> Function:
    """Compiles a function when it is first called with a dtype.

    The rounding of sums may be reordered, which SIMD needs; NaN and infinity keep their meaning,
    by which a trial that diverges is found.
    """
    compile_function: Any = numba.njit(
        nogil=True,
        error_model="numpy",  # Python's would check each division, which rules out SIMD
        fastmath={"contract", "nsz", "arcp", "reassoc"},
    )
    compiled = compile_function(function)
    with contextlib.suppress(RuntimeError):  # neither the package's folder nor the user's is there
        compiled._cache = _Kept(function)  # type: ignore[no-untyped-call]
    kernel: Function = compiled
    return kernel


def _lambert_fraction(depth: int) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Coefficients P, Q with tanh(x) ~ x P(x^2) / Q(x^2): Lambert's continued fraction.

    tanh(x) = x / (1 + x^2 / (3 + x^2 / (5 + ...))), cut off after `depth` levels.
    """
    numerator, denominator = [2 * depth - 1], [1]
    for level in reversed(range(1, depth)):  # r <- (2 level - 1) + x^2 / r
        scaled, shifted = [(2 * level - 1) * c for c in numerator], [0, *denominator]
        added = [a + b for a, b in zip_longest(scaled, shifted, fillvalue=0)]
        numerator, denominator = added, numerator
    unit = denominator[0]  # the coefficients grow like factorials: float32 wants them small
    return tuple(c / unit for c in denominator), tuple(c / unit for c in numerator)


# Thirteen levels are exact to 5e-8, float32's own precision, up to 9, where tanh has become 1.
_P, _Q = (tuple(map(np.float32, side)) for side in _lambert_fraction(13))
_P0, _P1, _P2, _P3, _P4, _P5, _P6 = _P
_Q0, _Q1, _Q2, _Q3, _Q4, _Q5, _Q6 = _Q
_LARGEST = np.float32(9)

HALF_LOG_TWO_PI = 0.5 * math.log(2 * math.pi)


@no_type_check
def _tanh(x):
    """Hyperbolic tangent of a scalar; in float32 a rational function that SIMD can evaluate."""
    raise NotImplementedError  # compiled kernels use one of the two below


@no_type_check
def _tanh32(x):
    # comparisons, not min and max: they let NaN through
    x = -_LARGEST if x < -_LARGEST else x
    x = _LARGEST if x > _LARGEST else x
    y = x * x
    p = _P0 + y * (_P1 + y * (_P2 + y * (_P3 + y * (_P4 + y * (_P5 + y * _P6)))))
    q = _Q0 + y * (_Q1 + y * (_Q2 + y * (_Q3 + y * (_Q4 + y * (_Q5 + y * _Q6)))))
    return x * p / q


@no_type_check
def _tanh64(x):
    return math.tanh(x)


@no_type_check
@overload(_tanh, inline="always")
def _choose_tanh(x):
    return _tanh32 if x == numba.float32 else _tanh64


@_kernel
@no_type_check
def add_bias_tanh(hidden, bias):
    """`hidden [N, B, H]` becomes `tanh(hidden + bias [N, H])`."""
    N, B, H = hidden.shape
    row = np.empty(H, hidden.dtype)  # the biases are strided, which rules out SIMD
    for n in range(N):
        row[:] = bias[n]
        for b in range(B):
            for h in range(H):
                hidden[n, b, h] = _tanh(hidden[n, b, h] + row[h])


@_kernel
@no_type_check
def backward_tanh(d_hidden, hidden, bias_gradient):
    """`d_hidden [N, B, H]` becomes the gradient before the tanh; its sum is `bias_gradient`.

    `hidden [N, B, H]` is what the tanh gave.
    """
    N, B, H = hidden.shape
    one = hidden.dtype.type(1)
    row = np.empty(H, hidden.dtype)
    for n in range(N):
        row[:] = 0
        for b in range(B):
            for h in range(H):
                d_hidden[n, b, h] *= one - hidden[n, b, h] * hidden[n, b, h]
                row[h] += d_hidden[n, b, h]
        bias_gradient[n] = row


@_kernel
@no_type_check
def normalised_advantages(advantages, indices, out):
    """Writes the advantages of a minibatch, `[N, T]` at `indices [B]`, with mean 0 and std 1."""
    N, B = out.shape
    one, eps = out.dtype.type(1), out.dtype.type(1e-8)
    for n in range(N):
        total, squares = out.dtype.type(0), out.dtype.type(0)
        for b in range(B):
            out[n, b] = advantages[n, indices[b]]
            total += out[n, b]
        mean = total / B
        for b in range(B):
            out[n, b] -= mean
            squares += out[n, b] * out[n, b]
        scale = one / (np.sqrt(squares / (B - 1)) + eps)
        for b in range(B):
            out[n, b] *= scale


@numba.njit(inline="always")
@no_type_check
def _surrogate_slope(log_prob, old_log_prob, advantage, clip):
    """Derivative of `max(-advantage ratio, -advantage clip(ratio))` with respect to log_prob.

    That is PPO's clipped surrogate loss (Schulman et al., 2017, eq. 7).
    """
    ratio = np.exp(log_prob - old_log_prob)
    # Not by comparing products: those of a ratio inside the range may differ by their rounding.
    if (advantage > 0 and ratio > 1 + clip) or (advantage < 0 and ratio < 1 - clip):
        return 0.0  # clipped: the loss is flat (and NaN is not clipped)
    return -advantage * ratio


@_kernel
@no_type_check
def gaussian_gradient(
    mean, log_std, indices, actions, old_log_probs, advantages, clip, d_mean, d_log_std
):
    """Gradient of the mean surrogate loss of a minibatch under a Gaussian policy.

    `log_std` and its gradient are `[N, A]`; `clip` is the range of the probability ratio.
    """
    N, B, A = mean.shape
    one, half = mean.dtype.type(1), mean.dtype.type(0.5)
    constant = mean.dtype.type(A * HALF_LOG_TWO_PI)
    inverse_std = np.empty(A, mean.dtype)
    for n in range(N):
        log_normaliser = constant
        for a in range(A):
            inverse_std[a] = np.exp(-log_std[n, a])
            log_normaliser += log_std[n, a]
            d_log_std[n, a] = 0
        for b in range(B):
            t = indices[b]
            squares = mean.dtype.type(0)
            for a in range(A):
                error = (actions[n, t, a] - mean[n, b, a]) * inverse_std[a]
                d_mean[n, b, a] = error
                squares += error * error
            log_prob = -half * squares - log_normaliser
            slope = _surrogate_slope(log_prob, old_log_probs[n, t], advantages[n, b], clip) / B
            for a in range(A):
                error = d_mean[n, b, a]
                d_log_std[n, a] += slope * (error * error - one)
                d_mean[n, b, a] = slope * error * inverse_std[a]


@_kernel
@no_type_check
def categorical_gradient(
    logits, indices, actions, old_log_probs, advantages, clip, ent_coef, d_logits
):
    """Gradient of the mean surrogate loss, less the entropy bonus, under a categorical policy.

    `actions [N, T, 1]` are their numbers; `clip` is the range of the probability ratio.
    """
    N, B, A = logits.shape
    log_probs, zero = np.empty(A, logits.dtype), logits.dtype.type(0)
    for n in range(N):
        for b in range(B):
            t = indices[b]
            highest = logits[n, b].max()
            total, entropy = zero, zero
            for a in range(A):
                total += np.exp(logits[n, b, a] - highest)
            for a in range(A):
                log_probs[a] = logits[n, b, a] - highest - np.log(total)
                entropy -= np.exp(log_probs[a]) * log_probs[a]
            chosen = int(actions[n, t, 0])
            log_prob, advantage = log_probs[chosen], advantages[n, b]
            slope = _surrogate_slope(log_prob, old_log_probs[n, t], advantage, clip) / B
            for a in range(A):
                probability = np.exp(log_probs[a])
                bonus = ent_coef / B * probability * (log_probs[a] + entropy)
                d_logits[n, b, a] = bonus - slope * probability
            d_logits[n, b, chosen] += slope


@_kernel
@no_type_check
def value_gradient(values, indices, returns, old_values, clip, weight, d_values):
    """Gradient of `weight / 2` times the mean of `max((v - R)^2, (clip(v) - R)^2)`.

    The values v `[N, B, 1]` are clipped to +- `clip` around the old ones; R are the returns.
    """
    N, B, _ = values.shape
    scale = weight / B
    for n in range(N):
        for b in range(B):
            t = indices[b]
            error = values[n, b, 0] - returns[n, t]
            change = values[n, b, 0] - old_values[n, t]
            d_values[n, b, 0] = error * scale
            if abs(change) > clip:
                nearest = clip if change > 0 else -clip
                if abs(error) < abs(old_values[n, t] + nearest - returns[n, t]):
                    d_values[n, b, 0] = 0  # the clipped loss is the larger one, and flat


@_kernel
@no_type_check
def adam_step(params, gradients, moments, betas, max_norm, step_size, eps):
    """One step of Adam on each trial's parameters `[N, P]`, after clipping its gradient's norm.

    Args:
        params: changed.
        gradients: of the loss.
        moments: the first and the second, without their factors (1 - beta); changed.
        betas: decay of both moments.
        max_norm: largest Euclidean norm of a trial's gradient.
        step_size: learning rate with all corrections `[N]`.
        eps: added to the root of the second moment `[N]`.
    """
    first, second = moments
    beta1, beta2 = betas
    N, P = params.shape
    one, tiny = params.dtype.type(1), params.dtype.type(1e-6)
    for n in range(N):
        squares = params.dtype.type(0)
        for p in range(P):
            squares += gradients[n, p] * gradients[n, p]
        scale = max_norm / (np.sqrt(squares) + tiny)
        if scale > one:
            scale = one
        for p in range(P):
            gradient = gradients[n, p] * scale
            first[n, p] = first[n, p] * beta1 + gradient
            second[n, p] = second[n, p] * beta2 + gradient * gradient
            params[n, p] -= step_size[n] * first[n, p] / (np.sqrt(second[n, p]) + eps[n])
