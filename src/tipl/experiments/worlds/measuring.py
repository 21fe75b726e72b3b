"""Measuring every method in every world, a cell at a time: what is kept is not measured again."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator

import numpy as np

from tipl.core.lazy import is_installed
from tipl.core.progress import progress_bar
from tipl.core.terminal import LOGGER
from tipl.experiments.worlds.cells import Cell, Measured, measured_cell
from tipl.experiments.worlds.comparing import Rival
from tipl.experiments.worlds.material import HOME, RETURNS_SEED, SINGLE, Material
from tipl.experiments.worlds.rivals import ELITE, rivals


def measure(material: Material, *, progress: bool = True) -> None:
    """Measures what has not been measured of a benchmark whose stages are done.

    Raises:
        TiplError: a stage's result is missing or damaged, or a cell cannot be written.
    """
    places = list(cell_places(material))
    with progress_bar(progress) as bar, _far_worlds():
        task = bar.add_task("measure returns", total=len(places), note="")
        for group, rival in places:
            bar.update(task, note=f"{group}: {rival.name}")
            measure_cell(material, group, rival)
            bar.advance(task)


def cell_places(material: Material) -> Iterator[tuple[str, Rival]]:
    """Groups of worlds, and who is measured in each: all in the splits, the elite elsewhere.

    A method that needs an extra which is not installed is left out.
    """
    every = [one for one in rivals(material.config) if not one.extra or is_installed(one.extra)]
    elite = next(one for one in every if one.key == ELITE)
    for group in (HOME, SINGLE):
        yield group, elite
    for split in material.config.splits:
        for rival in every:
            yield split, rival


def measure_cell(material: Material, group: str, rival: Rival) -> Cell:
    """The returns of a method in a group of worlds, measured now unless they were before."""

    def run() -> Measured:
        made = rival.make(material, group)
        found = material.run(made.policies, material.config.episodes, RETURNS_SEED)
        return found.returns, np.asarray(made.env_steps, np.int64)

    reads = [name.format(group) for name in rival.reads]
    digest = material.digest(reads, group, rival.key)
    names = [one.name for one in material.group(group)]
    return measured_cell(material.directory, group, rival.key, digest, names, run)


@contextlib.contextmanager
def _far_worlds() -> Iterator[None]:
    """Without warnings that worlds are far from those of training: some splits are meant to be."""
    before = LOGGER.level
    LOGGER.setLevel(logging.ERROR)
    try:
        yield
    finally:
        LOGGER.setLevel(before)
