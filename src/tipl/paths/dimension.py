"""How low the dimension of policy learning paths is: spectra, harmonics, detours and activity.

Tang et al. ("The Ladder in Chaos", PPTB, NeurIPS 2024) found for TD3 and RAD that policies advance
monotonically along very few directions, with severe detours, changes like harmonics in all other
directions, and a very uneven activity of the parameters; whether this holds for PPO they left
open. Much of it holds for any path: a random walk in many dimensions has few leading directions
too, and its coordinates in them are exact harmonics (Antognini and Sohl-Dickstein, "PCA of high
dimensional random walks with comparison to neural network training", NeurIPS 2018). So everything
is measured twice: on the paths, and on random walks from the same start with equally long steps.

All is measured trial by trial, for the whole actor and for each of its layers.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, Int64

from tipl.core.arrays import Array
from tipl.errors import TiplError
from tipl.paths import PathDataset
from tipl.paths.svd import Center, information, information_dimension, singular_vectors
from tipl.policies.layout import ParamLayout, layer_names

PPO_PATH, RANDOM_WALK = "PPO path", "random walk"
WHOLE_ACTOR = "whole actor"

CENTERS: Mapping[Center, str] = {"initial": "displacements", "none": "raw weights"}
"""What is subtracted from the checkpoints, and what that leaves; raw weights are PPTB's choice."""

BETAS = (0.8, 0.9, 0.95, 0.99)
"""Shares of the information for which D(beta) is reported."""

NUM_COORDINATES = 6
"""Directions K whose coordinates are looked at."""

ACTIVITY_SHARES = np.linspace(0, 1, 201)
"""Shares F of the parameters at which the curve of activity is known."""


@dataclass(frozen=True, eq=False)
class Spectrum:
    """The temporal SVD of one part of each path, every path in its own basis.

    NaN stands where a path has fewer than K directions.
    """

    information: Float[np.ndarray, "N S"]
    """`a_k` of the first k directions, k = 1, 2, ..."""
    coordinates: Float[np.ndarray, "N T K"]
    """of the checkpoints in the first K directions, in weight units; the last is never negative"""
    monotonicity: Float[np.ndarray, "N K"]
    """absolute rank correlation (Spearman) with time"""
    half_waves: Float[np.ndarray, "N K"]
    """frequency of the sine wave, of any phase and about any mean, that matches a coordinate best;
    a random walk has k - 1/2 half-waves a path in its k-th coordinate (displacements)"""
    harmonic_share: Float[np.ndarray, "N K"]
    """of the coordinate's variance: what the wave explains"""

    def dimension(self, beta: float) -> Int64[np.ndarray, " N"]:
        """`D(beta)` of each trial: the directions that hold the share `beta` of information."""
        return np.array([information_dimension(a, beta) for a in self.information])


@dataclass(frozen=True, eq=False)
class PathDimension:
    """What was measured of one part of the actor in N trials."""

    method: str
    """`PPO_PATH` or `RANDOM_WALK`"""
    part: str
    """`WHOLE_ACTOR`, or a layer's name (see `actor_parts`)"""
    num_parameters: int
    """in the part"""
    spectra: Mapping[Center, Spectrum]
    """for each centre of `CENTERS`"""
    detour_ratio: Float[np.ndarray, " N"]
    """length of the path over the distance of its ends; infinite if it ends where it started"""
    parameter_detour: Float[np.ndarray, " N"]
    """of single parameters: the median of those moved"""
    activity: Float[np.ndarray, "N F"]
    """share of all movement (sum of absolute changes) that the most active parameters make, at
    `ACTIVITY_SHARES` of the parameters"""

    def activity_of(self, share: float) -> Float[np.ndarray, " N"]:
        """Share of all movement that the most active `share` of the parameters make, `[N]`."""
        return np.array([np.interp(share, ACTIVITY_SHARES, curve) for curve in self.activity])


class OwnBasis(NamedTuple):
    """A path in the basis of its own displacements from its start."""

    information: Float[np.ndarray, " S"]  # a_k of the first k directions
    basis: Float[np.ndarray, "K P"]  # the first directions
    coordinates: Float[np.ndarray, "T K"]  # of the checkpoints


def own_basis(path: Float[np.ndarray, "T P"]) -> OwnBasis:
    """A path in its own first K = `NUM_COORDINATES` directions."""
    displacements = path - path[:1].astype(np.float64)
    basis, values = singular_vectors(displacements, NUM_COORDINATES)
    return OwnBasis(information(values), basis, displacements @ basis.T)


def actor_parts(layout: ParamLayout) -> dict[str, slice]:
    """Where the actor and its layers lie in a flat vector; a layer is a weight and its bias.

    The names are "whole actor", "layer 1 (inputs)", "layer 2" and so on, "output layer" and, of
    Gaussian policies, "log_std". A stored critic is in none of them.

    Raises:
        TiplError: the layout has no actor.
    """
    slices = layout.slices
    layers = layer_names(layout.names)
    if not layers:
        raise TiplError(
            f"the layout {layout} was given; expected one with an actor (actor.0.weight, ...), "
            "such as ParamLayout.actor(...)"
        )
    noise = {"log_std": slices["log_std"]} if "log_std" in slices else {}
    end = max(slices[layers[-1][1]].stop, *(at.stop for at in noise.values()), 0)
    parts = {WHOLE_ACTOR: slice(slices[layers[0][0]].start, end)}
    for layer, (weight, bias) in enumerate(layers, 1):
        name = "output layer" if layer == len(layers) else f"layer {layer}"
        name += " (inputs)" if layer == 1 < len(layers) else ""
        parts[name] = slice(slices[weight].start, slices[bias].stop)
    return parts | noise


def random_walk(
    path: Float[np.ndarray, "T P"], rng: np.random.Generator
) -> Float[np.ndarray, "T P"]:
    """A walk from a path's start, with steps of the same lengths in independent directions."""
    path = np.asarray(path, np.float64)
    steps = rng.standard_normal((len(path) - 1, path.shape[1]))
    lengths = np.linalg.norm(np.diff(path, axis=0), axis=1)
    steps *= (lengths / np.linalg.norm(steps, axis=1))[:, None]
    return np.concatenate([path[:1], path[:1] + steps.cumsum(axis=0)])


def path_dimensions(
    params: Float[np.ndarray, "N T P"], layout: ParamLayout, *, seed: int = 0
) -> list[PathDimension]:
    """Measures paths and random walks: for each part of the actor, first one, then the other.

    The `seed` is that of the random walks.

    Raises:
        TiplError: the layout has another size or no actor, there is no trial, a path has fewer
            than three checkpoints, or a weight is not finite.
    """
    if layout.size != params.shape[2]:
        raise TiplError(
            f"checkpoints of {params.shape[2]} parameters were given with a layout of "
            f"{layout.size}; expected the layout that the paths were stored with"
        )
    rng = np.random.default_rng(seed)
    found = []
    for part, at in actor_parts(layout).items():
        walks = (random_walk(path[:, at], rng) for path in params)
        found.append(path_dimension(PPO_PATH, part, (path[:, at] for path in params)))
        found.append(path_dimension(RANDOM_WALK, part, walks))
    return found


def measure_dataset(paths: PathDataset, *, seed: int = 0) -> list[PathDimension]:
    """`path_dimensions` of all paths of a dataset (or of a view of it) that did not diverge.

    Raises:
        TiplError: all trials diverged, or what `path_dimensions` raises.
    """
    usable = paths.usable_trials()
    return path_dimensions(paths.select(usable).params(), paths.layout, seed=seed)


def path_dimension(
    method: str, part: str, paths: Iterable[Float[np.ndarray, "T P"]]
) -> PathDimension:
    """Measures paths `[T, P]`, one a trial, of which only one has to be in memory at a time.

    Raises:
        TiplError: there is no path, one has fewer than three checkpoints or an infinite weight.
    """
    trials = []
    for path in paths:
        if len(path) < 3 or not np.isfinite(path).all():
            raise TiplError(
                f"a path of {len(path)} checkpoints ({part}) was given; expected at least three, "
                "all of finite weights: leave diverged trials out"
            )
        trials.append(_measured(np.asarray(path, np.float64)))
        size = path.shape[1]
    if not trials:
        raise TiplError(f"no path was given ({part}); expected at least one trial")
    *spectra, detour, parameter_detour, activity = zip(*trials, strict=True)
    stacked = [Spectrum(*map(np.stack, zip(*of_trials, strict=True))) for of_trials in spectra]
    return PathDimension(
        method,
        part,
        size,
        dict(zip(CENTERS, stacked, strict=True)),
        np.array(detour),
        np.array(parameter_detour),
        np.stack(activity),
    )


def _measured(path: Array) -> tuple[Any, ...]:
    """Of one path: the fields of its spectra, and the numbers that `PathDimension` has of it."""
    steps = np.diff(path, axis=0)  # [T - 1, P]
    net, movement = np.abs(path[-1] - path[0]), np.abs(steps).sum(axis=0)  # [P]
    length = np.linalg.norm(steps, axis=1).sum()
    moved = movement > 0
    return (
        *(_spectrum(path - start) for start in (path[0], 0.0)),  # in the order of CENTERS
        float(_detours(length, np.linalg.norm(net))),
        float(np.median(_detours(movement[moved], net[moved]))) if moved.any() else np.nan,
        _activity(movement),
    )


def _detours(length: Any, distance: Any) -> Array:
    """Lengths over distances: infinite for a closed path, NaN for one that does not move."""
    ratio = np.where(length > 0, np.inf, np.nan)
    return np.asarray(np.divide(length, distance, out=ratio, where=distance > 0))


def _activity(movement: Array) -> Array:
    """Share of the movement `[P]` that the most active parameters make, at `ACTIVITY_SHARES`.

    Between whole numbers of parameters the curve is straight, so that parts of few and of many
    parameters compare: where all move equally, each share moves as much as its size.
    """
    if not movement.any():
        return np.full(len(ACTIVITY_SHARES), np.nan)
    cumulative = np.concatenate([[0], np.cumsum(np.sort(movement)[::-1])])  # [P + 1]
    shares = np.linspace(0, 1, len(cumulative))
    return np.asarray(np.interp(ACTIVITY_SHARES, shares, cumulative / cumulative[-1]))


def _spectrum(rows: Array) -> tuple[Array, ...]:
    """The fields of `Spectrum` for one path's centred checkpoints `[T, P]`."""
    found = singular_vectors(rows, NUM_COORDINATES)
    coordinates = np.full((len(rows), NUM_COORDINATES), np.nan)
    coordinates[:, : len(found.basis)] = rows @ found.basis.T
    each = np.array([_shape_in_time(coordinate) for coordinate in coordinates.T])  # [K, 3]
    return information(found.singular_values), coordinates, *each.T


def _shape_in_time(coordinate: Array) -> tuple[float, float, float]:
    """Monotonicity, half-waves and harmonic share of one coordinate over time, `[T]`."""
    deviation = coordinate - coordinate.mean()
    variation = float(deviation @ deviation)
    if not variation > (1e-12 * np.linalg.norm(coordinate)) ** 2:  # missing, or constant
        return np.nan, np.nan, np.nan
    explained = np.sum((deviation @ _waves(len(deviation))) ** 2, axis=1) / variation  # [F]
    best = int(np.argmax(explained))
    _, where, count = np.unique(coordinate, return_inverse=True, return_counts=True)
    ranks = (np.cumsum(count) - (count - 1) / 2)[where]  # from 1; equal values share their mean
    monotonicity = abs(np.corrcoef(ranks, np.arange(len(ranks)))[0, 1])
    return float(monotonicity), (best + 1) / 2, float(explained[best])


@lru_cache(maxsize=4)
def _waves(length: int) -> Array:
    """Sine waves of 1/2, 1, 3/2, ... half-waves a path, up to one in two checkpoints: `[F, T, 2]`.

    The two of a frequency are orthonormal and without mean: they make a wave of any phase.
    """
    time = (np.arange(length) + 0.5) / length
    angles = np.pi / 2 * np.arange(1, length + 1)[:, None] * time  # [F, T]
    columns = np.stack([np.ones_like(angles), np.cos(angles), np.sin(angles)], axis=2)
    return np.linalg.qr(columns)[0][..., 1:]
