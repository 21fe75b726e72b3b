"""Temporal SVD: checkpoints to tokens and back (the paper's representation).

The rows of `Theta [T, P]` are the checkpoints of a path, in order, and `Theta = U S V^T`. A
checkpoint's token is its row of `U S`: its coordinates in the first K right singular vectors. As
in Tang et al.'s study of policy paths (PPTB, NeurIPS 2024), the information of the first k
directions is the share of the singular values themselves, not of their squares.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, NamedTuple

import numpy as np
from jaxtyping import Float

from tipl.core.arrays import Array
from tipl.core.options import at_least
from tipl.errors import TiplError, shown

Basis = Literal["joint", "path"]
Center = Literal["none", "initial", "mean"]


class EncodedHistory(NamedTuple):
    """The tokens of histories, and the weights that a change of a token stands for.

    A forecast moves the last checkpoint by `change of the token @ directions`, so what the tokens
    cannot express of a history is kept, never lost. All is float64.
    """

    tokens: Float[np.ndarray, "B T K"]
    directions: Float[np.ndarray, "_ K P"]  # of each history, or once if they are the same for all


class SingularVectors(NamedTuple):
    """The leading right singular vectors of a matrix, and all of its singular values, float64."""

    basis: Float[np.ndarray, "K P"]  # orthonormal rows
    singular_values: Float[np.ndarray, " S"]  # descending, S = min(R, P)


def singular_vectors(rows: Float[np.ndarray, "R P"], rank: int) -> SingularVectors:
    """Leading right singular vectors, from the smaller Gram matrix in float64.

    A Gram matrix squares the condition number, so the vectors found are orthonormalised and
    rotated once more on the data itself (a Rayleigh-Ritz step): at full rank this makes small
    directions as good as `numpy.linalg.svd`'s at a fraction of its cost.

    Args:
        rows: the matrix, one checkpoint a row.
        rank: vectors wanted; fewer come back if the matrix has a lower numerical rank. Each one's
            sign is such that the last row's coordinate is not negative.
    """
    rows = np.asarray(rows, np.float64)
    wide = rows.shape[0] <= rows.shape[1]
    eigenvalues, vectors = np.linalg.eigh(rows @ rows.T if wide else rows.T @ rows)
    vectors = vectors[:, ::-1][:, :rank]
    basis = np.linalg.qr(rows.T @ vectors if wide else vectors)[0].T
    _, leading, rotation = np.linalg.svd(rows @ basis.T, full_matrices=False)
    rounding = max(rows.shape) * np.finfo(np.float64).eps  # as numpy.linalg.matrix_rank has it
    basis = rotation[leading > rounding * leading[0]] @ basis
    basis *= np.where(basis @ rows[-1] < 0, -1.0, 1.0)[:, None]
    squares = eigenvalues[::-1]
    others = np.where(squares > rounding * squares[0], squares, 0.0)[len(leading) :]
    return SingularVectors(basis, np.concatenate([leading, np.sqrt(others)]))


def information(singular_values: Float[np.ndarray, " S"]) -> Float[np.ndarray, " S"]:
    """`a_k = sum_{i<=k} s_i / sum_i s_i` for k = 1, 2, ... (PPTB, NeurIPS 2024)."""
    total = singular_values.sum()
    if total == 0:
        return np.ones_like(singular_values)
    return np.asarray(np.cumsum(singular_values) / total)


def information_dimension(cumulative: Float[np.ndarray, " S"], beta: float) -> int:
    """`D(beta) = min{k: a_k >= beta}` of the information `a_k`; S + 1 if none has that much."""
    return int(np.searchsorted(cumulative, beta - 1e-12)) + 1


class _Tokenizer:
    """What both have in common: the arrays that `fitted` names are stored with a model."""

    fitted: tuple[str, ...] = ()

    def __init__(self, rank: int) -> None:
        at_least(1, rank=rank)
        self.rank = rank

    def state(self) -> dict[str, Array]:
        """The fitted arrays."""
        return {name: getattr(self, name) for name in self.fitted}

    def set_state(self, state: Mapping[str, Array]) -> None:
        """Restores what `state` returned."""
        for name in self.fitted:
            setattr(self, name, state[name])


class TemporalSVD(_Tokenizer):
    """Tokens in one basis for all paths: `fit`, then `encode` and `decode`.

    Checkpoints of another number of parameters than the fitted ones are refused (TiplError).

    Args:
        rank: largest number K of coordinates in a token.
        center: what is subtracted from a path's checkpoints: `"none"` nothing (the paper's),
            `"initial"` the path's own first checkpoint (tokens of displacements), `"mean"` the
            mean checkpoint of the fitted paths.

    Attributes:
        basis: orthonormal rows `[K, P]`, float64; K may be below `rank` after `fit`.
        singular_values: of the fitted, centred rows, all of them, descending.
        mean: mean of the fitted checkpoints `[P]`; zeros unless `center == "mean"`.

    Examples:
        >>> params = tipl.PathDataset.open("runs/paths").select([0, 1]).params()
        >>> svd = tipl.TemporalSVD(rank=2).fit(params)
        >>> svd.basis.shape
        (2, 20)
        >>> center = svd.center(params)
        >>> svd.encode(params, center).shape
        (2, 7, 2)
    """

    min_history = 1
    fitted = ("basis", "singular_values", "mean")

    def __init__(self, rank: int, center: Center = "initial") -> None:
        super().__init__(rank)
        self.center_kind: Center = center
        self.basis = np.zeros((0, 0))
        self.singular_values = np.zeros(0)
        self.mean = np.zeros(0)

    def fit(self, params: Float[np.ndarray, "N T P"]) -> TemporalSVD:
        """Finds the basis of many paths' checkpoints; returns itself.

        Raises:
            TiplError: the parameters are not finite, or the checkpoints do not differ at all.
        """
        if not np.isfinite(params).all():
            raise TiplError(
                "the paths hold weights that are NaN or infinite; leave diverged trials out "
                "(`PathDataset.split` does)"
            )
        if self.center_kind == "mean":
            self.mean = params.mean(axis=(0, 1), dtype=np.float64)
        else:
            self.mean = np.zeros(params.shape[-1])
        centred = params - self.center(params)  # [N, T, P]
        rows = centred.reshape(-1, params.shape[-1])  # [N, T, P] -> [N * T, P]
        self.basis, self.singular_values = singular_vectors(rows, self.rank)
        if len(self.basis) == 0:
            raise TiplError(
                f"the {len(rows)} checkpoints given do not differ from their centre "
                f"({self.center_kind}); give paths of at least two different checkpoints"
            )
        return self

    @property
    def num_coordinates(self) -> int:
        """Number K of coordinates in a token."""
        return len(self.basis)

    def dimension(self, beta: float) -> int:
        """`D(beta)` of the fitted checkpoints."""
        return information_dimension(information(self.singular_values), beta)

    def center(self, params: Float[np.ndarray, "*batch T P"]) -> Float[np.ndarray, "*batch 1 P"]:
        """What is subtracted from paths whose first checkpoint is `params[..., 0, :]`."""
        self._check_size(params)
        first = params[..., :1, :].astype(np.float64)
        if self.center_kind == "initial":
            return first
        return np.broadcast_to(self.mean, first.shape)

    def encode(
        self, params: Float[np.ndarray, "*batch T P"], center: Float[np.ndarray, "*batch 1 P"]
    ) -> Float[np.ndarray, "*batch T K"]:
        """Tokens of checkpoints, float64; `center` is what `self.center` gave for their path."""
        self._check_size(params)
        return np.asarray((params - center) @ self.basis.T)

    def decode(
        self, tokens: Float[np.ndarray, "*batch T K"], center: Float[np.ndarray, "*batch 1 P"]
    ) -> Float[np.ndarray, "*batch T P"]:
        """Checkpoints of tokens, float64: exact for fitted rows at full rank."""
        return np.asarray(tokens @ self.basis + center)

    def _check_size(self, params: Float[np.ndarray, "*batch T P"]) -> None:
        if params.shape[-1] != self.mean.size:
            raise TiplError(
                f"checkpoints of {params.shape[-1]} parameters were given, but this basis was "
                f"fitted to {self.mean.size}; use paths of the same architecture"
            )

    def encode_history(self, histories: Float[np.ndarray, "B T P"]) -> EncodedHistory:
        """Tokens of histories that begin with their path's first checkpoint."""
        return EncodedHistory(self.encode(histories, self.center(histories)), self.basis[None])


class PathSVD(_Tokenizer):
    """Tokens in each history's own basis: the temporal SVD of its displacements from its start.

    Nothing is fitted: the basis of a history is found from that history alone, whatever its
    initial network. Coordinates are in units of the history's last displacement, so histories
    look alike whatever their scale.

    Args:
        rank: coordinates K in a token; a history of fewer directions has zeros in the rest.
    """

    min_history = 2

    @property
    def num_coordinates(self) -> int:
        """Number K of coordinates in a token."""
        return self.rank

    def encode_history(self, histories: Float[np.ndarray, "B T P"]) -> EncodedHistory:
        """Tokens of histories that begin with their path's first checkpoint."""
        displacements = histories - histories[:, :1].astype(np.float64)
        directions = np.zeros((len(histories), self.rank, histories.shape[-1]))
        for rows, found in zip(displacements, directions, strict=True):
            basis = singular_vectors(rows, self.rank).basis
            found[: len(basis)] = basis * np.linalg.norm(rows[-1])
        return EncodedHistory(_coordinates(displacements, directions), directions)

    def encode_next(
        self, encoded: EncodedHistory, displacements: Float[np.ndarray, "B T P"]
    ) -> Float[np.ndarray, "B T K"]:
        """Tokens of further checkpoints of the same paths, given as displacements."""
        return _coordinates(displacements, encoded.directions)


def _coordinates(rows: Array, directions: Array) -> Array:
    """Coordinates `[B, T, K]` of rows `[B, T, P]` in orthogonal directions `[B, K, P]`."""
    squared = np.einsum("bkp,bkp->bk", directions, directions)[:, None]
    products = rows @ directions.swapaxes(1, 2)
    return np.asarray(np.divide(products, squared, out=np.zeros_like(products), where=squared > 0))


def make_tokenizer(basis: Basis, rank: int, center: Center) -> TemporalSVD | PathSVD:
    """A joint basis to be fitted to many paths, or a basis for each path.

    Raises:
        TiplError: a path's own basis is asked for with another centre than its start.
    """
    if basis == "joint":
        return TemporalSVD(rank, center)
    if center != "initial":
        raise TiplError(
            f"center={shown(center)} was given with basis='path'; a path's own basis describes its "
            "displacements from its start: use center='initial'"
        )
    return PathSVD(rank)
