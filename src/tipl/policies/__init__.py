"""Policies: tasks, weights and their layout, and how they act."""
