"""The paper's model: a causal Transformer over tokens of whole checkpoints."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tipl.core.lazy import lazy_names

__all__ = ["PathTransformer", "PathTransformerConfig"]

if TYPE_CHECKING:
    from tipl.models.path_transformer.net import PathTransformer, PathTransformerConfig
else:
    __getattr__, __dir__ = lazy_names(
        __name__,
        {
            "tipl.models.path_transformer.net": "PathTransformer PathTransformerConfig",
        },
    )
