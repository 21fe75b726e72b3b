"""Checks of what configurations and calls are given."""

from __future__ import annotations

import math
import re

import pytest

from tipl.core.options import at_least, one_of, thread_count
from tipl.errors import TiplError


def test_what_is_high_enough_or_not_given_passes() -> None:
    at_least(1, episodes=1, every=2.5, threads=None)
    at_least(0, "the jumps", margin=0.0)


@pytest.mark.parametrize("value", [0, -1, math.nan, -math.inf])
def test_what_is_too_low_is_named(value: float) -> None:
    with pytest.raises(TiplError, match=f"^every is {value}; expected at least 1$"):
        at_least(1, episodes=1, every=value)
    with pytest.raises(TiplError, match=f"^every of the jumps is {value}; expected at least 1$"):
        at_least(1, "the jumps", every=value)


def test_what_is_no_choice_is_named() -> None:
    one_of(("elite", "own"), target="own")
    message = "target is 'best'; expected one of elite, own"
    with pytest.raises(TiplError, match=f"^{re.escape(message)}$"):
        one_of(("elite", "own"), target="best")


def test_threads_are_counted() -> None:
    assert thread_count(3) == 3
    assert thread_count(None) >= 1
    with pytest.raises(TiplError, match="threads is 0; expected at least 1"):
        thread_count(0)
