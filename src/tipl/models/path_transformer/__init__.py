"""The paper's model: a causal Transformer over tokens of whole checkpoints."""
