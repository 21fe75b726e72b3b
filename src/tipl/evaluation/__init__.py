"""Running policies: returns, the states that they visit, statistics, films."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tipl.core.lazy import lazy_names

__all__ = ["Episodes", "Evaluation", "episode_seed", "evaluate", "evaluate_stack"]

if TYPE_CHECKING:
    from tipl.evaluation.returns import Episodes, Evaluation, episode_seed, evaluate, evaluate_stack
else:
    __getattr__, __dir__ = lazy_names(__name__)
