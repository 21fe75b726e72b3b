"""Silence for MuJoCo, which prints its warnings and logs them to a file."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from typing import Any

import mujoco  # type: ignore[import-untyped]

__all__ = ["silent_mujoco"]


class _Silence:
    """Keeps MuJoCo from printing warnings and writing MUJOCO_LOG.TXT where the user works.

    MuJoCo has one warning handler for the whole process, and several threads may be stepping: the
    handler goes back to the user's when the last of them is done.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._users = 0
        self._previous: Any = None

    @contextlib.contextmanager
    def __call__(self) -> Iterator[None]:
        with self._lock:
            if self._users == 0:
                self._previous = mujoco.get_mju_user_warning()
                mujoco.set_mju_user_warning(lambda message: None)
            self._users += 1
        try:
            yield
        finally:
            with self._lock:
                self._users -= 1
                if self._users == 0:
                    mujoco.set_mju_user_warning(self._previous)


silent_mujoco = _Silence()
"""`with silent_mujoco():` nothing that MuJoCo warns of is printed or logged."""
