"""The gate: whether one of several forecasts is worth a jump."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float

__all__ = ["best_choice"]


def best_choice(returns: Float[np.ndarray, "C E"], margin: float) -> int:
    """The row to go on with: 0, staying, unless another is better by enough.

    The forecast with the highest mean return is weighed against staying. It has to be better by
    more than `margin` standard errors of the difference of two means of E episodes, whose variance
    is pooled over all rows; of single episodes nothing is known of the variance, and any gain will
    do.

    Args:
        returns: episodic returns: row 0 of the present policy, the others of forecasts. A row with
            a value that is not finite is out of the question.
        margin: standard errors.
    """
    C, E = returns.shape
    usable = np.isfinite(returns).all(axis=1)
    means = np.where(usable, np.where(usable[:, None], returns, 0.0).mean(axis=1), -np.inf)
    best = int(means[1:].argmax()) + 1 if C > 1 else 0
    if not usable[0] or not usable[best]:
        return best if usable[best] else 0
    variance = returns[usable].var(axis=1, ddof=1).mean() if E > 1 else 0.0
    standard_error = np.sqrt(2 * variance / E)
    return best if means[best] - means[0] > margin * standard_error else 0
