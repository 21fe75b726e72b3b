"""tipl: optimise the weights of reinforcement-learning policies by inference.

The path that a policy's weights take during PPO is data; a Transformer over that data takes
weights and gives better ones, with no gradient step and no environment step. After H. Tang, "Can
We Optimize Deep RL Policy Weights as Trajectory Modeling?", arXiv 2503.04074 (2025).
"""

from __future__ import annotations

import importlib
from typing import Any

__version__ = "0.1.0"

_HOME_OF = {
    "CollectConfig": "collection.config",
    "Forecaster": "forecast",
    "ParamLayout": "policies.layout",
    "PathDataset": "paths",
    "PathTransformer": "models.path_transformer.net",
    "Policy": "policies.policy",
    "PolicyPath": "paths",
    "PPOConfig": "ppo.config",
    "TemporalSVD": "paths.svd",
    "TiplError": "errors",
    "TrainConfig": "models.config",
    "collect": "collection.collect",
    "evaluate": "evaluation.returns",
    "train": "models.train",
}

__all__ = [*_HOME_OF, "__version__"]


def __getattr__(name: str) -> Any:
    """Imports a public name when it is first used, so that `import tipl` is quick and light."""
    if name not in _HOME_OF:
        raise AttributeError(f"module 'tipl' has no attribute {name!r}")
    return getattr(importlib.import_module(f"tipl.{_HOME_OF[name]}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)
