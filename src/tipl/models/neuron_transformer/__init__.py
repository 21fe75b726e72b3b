"""A Transformer whose tokens are the networks' units and whose edges are their weights."""
