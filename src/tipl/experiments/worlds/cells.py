"""What one method returns in the worlds of one group: the cells of a benchmark, a file each."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float64, Int64

from tipl.core import storage
from tipl.core.atomic import make_folder
from tipl.core.schemas import JsonFile, Natural, NotNegative
from tipl.errors import TiplError
from tipl.experiments.clearing import MEASURED


@dataclass(frozen=True)
class Cell:
    """Returns of W policies, each in a world, in E episodes."""

    method: str
    """its key"""
    group: str
    """the split of the worlds, or what else they are called"""
    digest: str
    """of all that the returns follow from"""
    worlds: list[str]
    """their names"""
    returns: list[list[float]]
    """of each world a list of episodes"""
    env_steps: list[Natural]
    """that the method has spent in each world before, in order to make its policy"""
    seconds: NotNegative
    """of wall time that making and running the policies took"""

    def __post_init__(self) -> None:
        lengths = {len(self.worlds), len(self.returns), len(self.env_steps)}
        episodes = {len(those) for those in self.returns}
        if len(lengths) > 1 or len(episodes) != 1 or 0 in episodes:
            raise TiplError(
                f"the returns of {self.method} in {self.group} are of {sorted(lengths)} worlds and "
                f"{sorted(episodes)} episodes; expected one number of each: remove the file, and "
                "run `tipl worlds benchmark` again"
            )

    @property
    def by_world(self) -> Float64[np.ndarray, " W"]:
        """The mean return in each world."""
        return np.asarray(np.array(self.returns, np.float64).mean(axis=1))

    @property
    def num_episodes(self) -> int:
        """Episodes of each policy."""
        return len(self.returns[0])


CELL = JsonFile(
    ".cell.json", Cell, "the returns of a method in worlds (made by `tipl worlds benchmark`)"
)

CELL_FILE = storage.own_json("returns in worlds", lambda said: {"returns", "worlds"} <= {*said})


def cell_file(directory: Path, group: str, key: str) -> Path:
    """Where a cell is, in the directory of a benchmark."""
    return directory / MEASURED / f"{group.replace(' ', '-')}.{key}{CELL.name}"


def kept_cell(file: Path, digest: str) -> Cell | None:
    """A cell that was measured before, of the same things; None where there is none.

    Raises:
        TiplError: it is damaged.
    """
    if not file.exists():
        return None
    cell = CELL.read(file)
    return cell if cell.digest == digest else None


Measured = tuple[Float64[np.ndarray, "W E"], Int64[np.ndarray, " W"]]
"""Returns, and environment steps spent before."""


def measured_cell(
    directory: Path,
    group: str,
    key: str,
    digest: str,
    worlds: list[str],
    measure: Callable[[], Measured],
) -> Cell:
    """A cell that was measured before, or is measured now, and kept.

    Raises:
        TiplError: its file is damaged or cannot be written, or what `measure` raises.
    """
    file = cell_file(directory, group, key)
    if (kept := kept_cell(file, digest)) is not None:
        return kept
    start = time.monotonic()
    returns, env_steps = measure()
    seconds = round(time.monotonic() - start, 2)
    cell = Cell(key, group, digest, worlds, returns.tolist(), env_steps.tolist(), seconds)
    make_folder(file.parent)
    storage.write_json(file, dataclasses.asdict(cell), CELL_FILE)
    return cell
