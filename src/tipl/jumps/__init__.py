"""Jumps: forecasts of a run's own weights that replace them while training goes on."""
