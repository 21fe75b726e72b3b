"""One held-out world of a benchmark in motion: the elite of home, the model, and PPO there."""

from __future__ import annotations

import numpy as np

from tipl.core.terminal import note
from tipl.errors import TiplError
from tipl.experiments.clearing import FILM_PLACE, film_files
from tipl.experiments.films import FILM, FilmRecord, film_section, save_films
from tipl.experiments.worlds.cells import CELL, cell_file
from tipl.experiments.worlds.experiencing import adapted, transitions_key
from tipl.experiments.worlds.material import Material
from tipl.experiments.worlds.outcome import WorldsBenchmark
from tipl.experiments.worlds.rivals import ELITE, ppo_steps
from tipl.experiments.worlds.stages import MODEL
from tipl.report.page import Section

SEEN = 250
"""Transitions after which the model's policy is filmed."""


def film_world(material: Material) -> None:
    """Films three policies in one world of the first held-out split, unless this was done before.

    It is the world in which the gain of the model after `SEEN` transitions over the elite is the
    median. Where nothing can be drawn it says why, and leaves no film.

    Raises:
        TiplError: a cell is missing or damaged, or a file cannot be written.
    """
    gif, split = material.directory / FILM_PLACE, material.config.splits[0]
    own, elite = (
        CELL.read(cell_file(material.directory, split, key))
        for key in (transitions_key(SEEN), ELITE)
    )
    if (record := film_files(gif)[-1]).exists():
        if FILM.read(record).digest == own.digest:
            return
        record.unlink()  # no report shows a film of other policies
    place = int(np.argsort(own.by_world - elite.by_world)[(len(own.worlds) - 1) // 2])
    world, steps = material.group(split)[place], ppo_steps(material.config)
    policies = {
        "elite of home": material.elite,
        f"model, {SEEN} steps": adapted(material, split, place, steps=SEEN),
        f"PPO, {steps[-1]:,} steps": material.last_policy(f"ppo/{split}", place),
    }
    model = material.model(MODEL).name
    there = {label: policy.with_physics(world.factors) for label, policy in policies.items()}
    try:
        save_films(gif, there, model, world=world.name, digest=own.digest)
    except TiplError as error:
        note(f"The film is left out: {error}")


def film(found: WorldsBenchmark) -> Section:
    """What `film_world` has made."""
    splits = found.config.splits

    def sentence(record: FilmRecord) -> str:
        world = next(one for one in found.worlds.worlds(splits[0]) if one.name == record.world)
        factors = ", ".join(f"{name} × {factor:.2f}" for name, factor in world.factors.items())
        return (
            f"The elite of home, what the model makes after {SEEN} steps without rewards, and PPO "
            f"from the elite after its last step, in the same episode of {world.name}: {factors}. "
            "It is the world in which the model's gain over the elite is the median of its split."
        )

    return film_section(found.directory / FILM_PLACE, "One world, seen", sentence)
