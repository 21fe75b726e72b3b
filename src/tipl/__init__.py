"""tipl: optimise the weights of reinforcement-learning policies by inference.

The path that a policy's weights take during PPO is data; a Transformer over that data takes
weights and gives better ones, with no gradient step and no environment step. After H. Tang, "Can
We Optimize Deep RL Policy Weights as Trajectory Modeling?", arXiv 2503.04074 (2025).
"""

from __future__ import annotations

from tipl.core.early import end_quietly

end_quietly()  # on the command line, since what follows takes a moment

import sys  # noqa: E402
from typing import TYPE_CHECKING  # noqa: E402

from tipl.core.lazy import MovedModules, lazy_names  # noqa: E402

__version__ = "0.1.0"

__all__ = [
    "CollectConfig",
    "Experience",
    "Forecaster",
    "NeuronTransformer",
    "PPOConfig",
    "ParamLayout",
    "PathDataset",
    "PathTransformer",
    "Policy",
    "PolicyPath",
    "TemporalSVD",
    "TiplError",
    "TrainConfig",
    "Worlds",
    "__version__",
    "adapt",
    "collect",
    "evaluate",
    "film",
    "optimize",
    "train",
    "trust",
]

if TYPE_CHECKING:
    from tipl.collection.collect import collect
    from tipl.collection.config import CollectConfig
    from tipl.core.trust import trust
    from tipl.envs.worlds import Worlds
    from tipl.errors import TiplError
    from tipl.evaluation.experience import Experience
    from tipl.evaluation.film import film
    from tipl.evaluation.returns import evaluate
    from tipl.forecast.base import Forecaster
    from tipl.models import TrainConfig
    from tipl.models.neuron_transformer.net import NeuronTransformer
    from tipl.models.optimizing import optimize
    from tipl.models.path_transformer.net import PathTransformer
    from tipl.models.train import train
    from tipl.models.world.adapting import adapt
    from tipl.paths.dataset import PathDataset, PolicyPath
    from tipl.paths.svd import TemporalSVD
    from tipl.policies.layout import ParamLayout
    from tipl.policies.policy import Policy
    from tipl.ppo.config import PPOConfig
else:
    # Names are imported when they are first used, so that `import tipl` is quick and light.
    __getattr__, __dir__ = lazy_names(__name__)
    sys.meta_path.append(MovedModules())
