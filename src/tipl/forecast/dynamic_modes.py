"""A rival that takes a path for a linear dynamical system: dynamic mode decomposition.

It needs PyDMD, which tipl installs only as an extra: `pip install tipl[dmd]`.
"""

from __future__ import annotations

import importlib.util
import warnings

import numpy as np
from jaxtyping import Complex, Float

from tipl.errors import TiplError
from tipl.forecast.base import Forecaster, Forecasts, Histories
from tipl.paths.svd import singular_vectors
from tipl.policies.layout import ParamLayout

__all__ = ["DynamicModeDecomposition", "pydmd_is_installed"]


TOLERANCE = 1e-6
"""Directions that are smaller than the first by this factor are rounding."""


class DynamicModeDecomposition(Forecaster):
    """Finds the linear map that leads from each checkpoint to the next, and applies it again.

    The map is found in the first directions of the history's raw weights, where the history is a
    short sequence of a few numbers; its growing modes are held at their size, as they would outgrow
    everything. What these directions do not hold of the last checkpoint is kept.

    Source: Schmid, "Dynamic mode decomposition of numerical and experimental data" (2010), by
    PyDMD.

    Args:
        rank: directions of each history; fewer where it is shorter.

    Raises:
        TiplError: the rank is below 1, or PyDMD is not installed.
    """

    name = "dynamic mode decomposition"
    min_history = 3

    def __init__(self, rank: int = 5) -> None:
        if rank < 1:
            raise TiplError(f"a rank of {rank} was given; expected at least 1")
        if not pydmd_is_installed():
            raise TiplError(
                "dynamic mode decomposition needs PyDMD, which is not installed; install it: pip "
                "install tipl[dmd]"
            )
        self.rank = rank

    def _forecast(
        self, histories: Histories, horizons: list[int], layout: ParamLayout | None
    ) -> Forecasts:
        return np.stack([self._ahead(history, horizons) for history in histories])

    def _ahead(self, history: Float[np.ndarray, "T P"], horizons: list[int]) -> np.ndarray:
        rows = history.astype(np.float64)
        # the map is found from all checkpoints but the last, and has no more directions than those
        basis = singular_vectors(rows, min(self.rank, len(rows) - 1)).basis
        coordinates = rows @ basis.T  # [T, R]
        modes, eigenvalues = _modes(coordinates)
        eigenvalues = eigenvalues / np.maximum(np.abs(eigenvalues), 1.0)
        amplitudes = np.linalg.lstsq(modes, coordinates[-1].astype(complex), rcond=None)[0]
        factors = eigenvalues ** np.array(horizons)[:, None] - 1  # [H, R]
        changes = ((factors * amplitudes) @ modes.T).real  # [H, R]
        return np.asarray(rows[-1] + changes @ basis)


def _modes(
    coordinates: Float[np.ndarray, "T R"],
) -> tuple[Complex[np.ndarray, "R M"], Complex[np.ndarray, " M"]]:
    """The modes of a sequence, as columns, and what each is multiplied by in a step."""
    from pydmd import DMD  # an extra, and slow to import

    sizes = np.linalg.svd(coordinates[:-1], compute_uv=False)
    decomposition = DMD(svd_rank=int((sizes > TOLERANCE * sizes[0]).sum()))
    with warnings.catch_warnings():
        # short histories are ill-conditioned by nature: the rank leaves out what is not there
        warnings.simplefilter("ignore")
        decomposition.fit(coordinates.T)
    return decomposition.modes.astype(complex), decomposition.eigs.astype(complex)


def pydmd_is_installed() -> bool:
    """Whether PyDMD can be imported."""
    return importlib.util.find_spec("pydmd") is not None
