"""A Transformer whose tokens are the networks' units and whose edges are their weights."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tipl.core.lazy import lazy_names

__all__ = ["NeuronTransformer", "NeuronTransformerConfig"]

if TYPE_CHECKING:
    from tipl.models.neuron_transformer.net import NeuronTransformer, NeuronTransformerConfig
else:
    __getattr__, __dir__ = lazy_names(
        __name__,
        {
            "tipl.models.neuron_transformer.net": "NeuronTransformer NeuronTransformerConfig",
        },
    )
