"""How far float32 values may lie apart that are computed alike: it follows from the arithmetic.

Processors differ in the order of sums, and in whether they round between a product and a sum.
"""

from __future__ import annotations

from typing import Any

import numpy as np

EPS = float(np.finfo(np.float32).eps)


def assert_equal_but_for_rounding(found: Any, expected: Any, *, sums: int, terms: int) -> None:
    """Compares values of a float32 computation of sums that follow one another.

    A sum of so many terms is rounded as often, by no more than an eps of the largest of them, and
    what a later sum is given is off by what the earlier ones add up to. The unit is the largest of
    the values: a small one is what is left of large ones, and no more exact than they are.

    Args:
        found: array or tensor.
        expected: likewise, of the same shape.
        sums: that follow one another: the layers of a network, a normalisation or softmax among
            them.
        terms: of the longest of them: the widest layer.
    """
    found, expected = np.asarray(found), np.asarray(expected)
    scale = max(1.0, float(np.abs(expected).max()))
    np.testing.assert_allclose(found, expected, rtol=0, atol=sums * terms * EPS * scale)
