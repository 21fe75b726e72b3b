"""From PPO trials to a dataset of policy learning paths."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tipl.core.lazy import lazy_names

__all__ = ["CollectConfig"]

if TYPE_CHECKING:
    from tipl.collection.config import CollectConfig
else:
    __getattr__, __dir__ = lazy_names(__name__)
