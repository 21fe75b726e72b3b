"""Rivals that are trained on the same paths: WNN, of each parameter, and NiNo, of a graph."""
