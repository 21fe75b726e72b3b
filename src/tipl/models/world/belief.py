"""What is known of a world: the factors of its physics, each as surely as it is known."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64

from tipl.core.options import spelling_hint
from tipl.errors import TiplError, shown
from tipl.policies.factors import can_reverse, checked_factors

WIDTH = 1.96
"""Standard deviations to both sides of the mean that hold 95%."""


@dataclass(frozen=True, eq=False)
class Belief:
    """Factors that are independent, and normally distributed in the logarithm.

    A standard deviation of 0 is a factor that is known.
    """

    names: tuple[str, ...]
    """of the factors, V of them, sorted"""
    mean: Float64[np.ndarray, " V"]
    """of the factors' logarithms"""
    std: Float64[np.ndarray, " V"]
    """of the factors' logarithms"""

    @classmethod
    def among(cls, names: Sequence[str], factors: Float64[np.ndarray, "W V"]) -> Belief:
        """What is known of a world that is one of many alike, by the factors of these.

        Raises:
            TiplError: a factor is below 0, where there are no logarithms.
        """
        if (factors <= 0).any():
            raise TiplError(
                "worlds with reversed motors were given, but a belief is in the logarithms of "
                "factors above 0; leave those worlds out"
            )
        logarithms = np.log(factors)
        return cls(tuple(names), logarithms.mean(axis=0), logarithms.std(axis=0))

    def given(self, physics: Mapping[str, float | None]) -> Belief:
        """The same with some factors known; those that are None are as they were.

        Raises:
            TiplError: there is no such factor, or it is not possible.
        """
        for name in physics:
            if name not in self.names:
                raise TiplError(
                    f"the physics {shown(name)} were given, but the model learned from worlds that "
                    f"differ in {', '.join(self.names)}; {spelling_hint(name, self.names)}"
                )
        known = checked_factors({n: f for n, f in physics.items() if f is not None})
        mean, std = self.mean.copy(), self.std.copy()
        for name, factor in known.items():
            if can_reverse(name) and factor < 0:
                raise TiplError(
                    f"the physics {shown(name)} have the factor {factor:g}, but the model learned "
                    "from worlds without reversed motors; give a factor above 0"
                )
            at = self.names.index(name)
            mean[at], std[at] = np.log(factor), 0.0
        return Belief(self.names, mean, std)

    def under(self, prior: Belief, instead_of: Belief) -> Belief:
        """What would have been believed with another prior, by the same evidence.

        Of normal distributions the precisions add up: those of the prior that it was made with
        are taken away, those of the other one added. What the evidence does not show is then as
        the other prior has it.
        """
        with np.errstate(all="ignore"):  # of a damaged model: what is no number is refused later
            old, own, new = (one.std**-2.0 for one in (instead_of, self, prior))
            told = np.maximum(own - old, 0.0)  # by the evidence alone
            evidence = np.where(told > 0, self.mean * own - instead_of.mean * old, 0.0)
            mean = (evidence + prior.mean * new) / (told + new)
            return Belief(self.names, mean, (told + new) ** -0.5)

    @property
    def factors(self) -> dict[str, float]:
        """The median of each factor, by name."""
        return dict(zip(self.names, np.exp(self.mean).tolist(), strict=True))

    def __str__(self) -> str:
        words = []
        for name, mean, std in zip(self.names, self.mean, self.std, strict=True):
            low, high = np.exp([mean - WIDTH * std, mean + WIDTH * std])
            interval = f" ({low:.2f} to {high:.2f})" if std else ""
            words.append(f"{name} {np.exp(mean):.3g}{interval}")
        return ", ".join(words)
