"""tipl in other people's training loops: stable-baselines3 and scripts of CleanRL's style."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from tipl.errors import TiplError

__all__ = ["sb3_required"]


@contextmanager
def sb3_required(by: str) -> Iterator[None]:
    """Makes a failing import of stable-baselines3 a TiplError that says what needs it."""
    try:
        yield
    except ImportError as error:
        raise TiplError(
            f"{by} needs stable-baselines3, which is not installed; `pip install 'tipl[sb3]'` "
            "brings it"
        ) from error
