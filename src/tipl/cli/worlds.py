"""`tipl worlds make`, `show` and `check`: a task in other physics than its own."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
from rich.table import Table
from rich.text import Text
from tyro.conf import Positional, UseAppendAction

from tipl.cli import given_command
from tipl.cli.shared import Factors, Wrong
from tipl.core.ownership import check_file
from tipl.core.terminal import console, note, say
from tipl.core.trust import split_id
from tipl.envs.world_presets import Preset
from tipl.envs.worlds import TRAINING, WORLDS_FILE, World, Worlds
from tipl.errors import TiplError, shown
from tipl.policies.factors import parse_factors

if TYPE_CHECKING:
    from tipl.envs.world_checks import Reading

_MOST_VALUES = 6
"""Of a field in one line."""


def worlds_make(
    env_id: Positional[str],
    /,
    out: Path,
    vary: Annotated[tuple[str, ...], UseAppendAction] = (),
    splits: tuple[str, ...] = (),
    corner: tuple[str, ...] = (),
    beyond: tuple[str, ...] = (),
    preset: Preset | None = None,
    seed: int = 0,
) -> dict[str, Any]:
    """Draw worlds of a task, in splits, and write them to a file.

    Ranges are even in the logarithm and independent of each other. A longer list of worlds begins
    with the shorter one, and no world is in two splits.

    Args:
        env_id: a Gymnasium id, such as HalfCheetah-v4
        out: the file to write, such as worlds.json
        vary: factors of the original values: a range, such as gravity=0.6..1.6, or exact ones, such
            as mass=0.5,1,2 (given once for each name)
        splits: how many worlds each split has: training=256, interpolation=24 (fresh draws, as any
            other name), combination=24 (in the corner), extrapolation=24 (one factor beyond)
        corner: what all splits but combination leave out: where all of these hold, such as
            "actuator_gear<0.8" "mass>1.25"
        beyond: ranges outside of all others, such as 0.4..0.6 1.6..2.2, for extrapolation
        preset: worlds that have a name, instead of all that: v1 (five factors, 256 worlds to learn
            from), cadm (HalfCheetah), inversion (Hopper, Walker2d), flip (motors reversed)
        seed: equal seeds draw equal worlds
    """
    check_file(out, WORLDS_FILE)
    made = {"command": given_command()}
    if preset is not None:
        if given := [*vary, *splits, *corner, *beyond]:
            raise TiplError(
                f"the preset {preset} was given with {shown(' '.join(given))}, which it says "
                "itself; give one of both"
            )
        _check_task(env_id)
        from tipl.envs.world_presets import preset_worlds

        worlds = preset_worlds(env_id, preset, seed, made)
    else:
        from tipl.envs import world_drawing as drawing

        recipe = drawing.Recipe(
            drawing.parse_choices(vary),
            drawing.parse_splits(splits),
            drawing.parse_corner(corner),
            drawing.parse_beyond(beyond),
        )
        made = recipe.said() | made
        worlds = drawing.draw_worlds(env_id, recipe.plans(), recipe.corner, seed=seed, made=made)
        _check_task(env_id)
    from tipl.envs.factory import check_physics

    check_physics(env_id, worlds.physics)
    worlds.save(out)
    return _print_splits(out, worlds)


def worlds_show(file: Positional[Path], /, split: str | None = None) -> object:
    """Say what is in a file of worlds, and how far from training the held-out worlds are.

    Args:
        file: the worlds
        split: the worlds of one split, each with its factors
    """
    worlds = Worlds.load(file)
    if split is None:
        return _print_splits(file, worlds)
    table = _table("world", *worlds.physics)
    for one in worlds.worlds(split):
        table.add_row(Text(one.name), *(f"{one.factors[name]:g}" for name in worlds.physics))
    console().print(table)
    return worlds.worlds(split)


def worlds_check(
    target: Positional[str],
    /,
    split: str | None = None,
    world: str | None = None,
    physics: Factors = (),
) -> dict[str, Any]:
    """Step an environment in each world, and say what its model is there, beside home.

    Exits with status 1 if any value is not its factor times that at home, or anything else has
    changed.

    Args:
        target: a file of worlds, or a Gymnasium id, such as HalfCheetah-v4, for home
        split: the worlds of one split alone
        world: one world alone, by its name, with all that a factor changes
        physics: one world of a task, such as gravity=1.3 mass=0.8
    """
    if Path(target).exists() or target.endswith(".json"):
        if physics:
            raise TiplError(
                f"both the file {target} and the physics {' '.join(physics)} were given; give the "
                "id of a task with these"
            )
        worlds = Worlds.load(target)
        chosen = _chosen_worlds(worlds, split, world)
        from tipl.envs.registry import registered_spec

        registered_spec(worlds.env_id)  # the file's word: its module is imported if it is trusted
        env_id = split_id(worlds.env_id)[1]
    else:
        if split is not None or world is not None:
            raise TiplError(
                f"a split or a world of the task {shown(target)} was asked for; give a file of "
                "worlds with these"
            )
        factors = parse_factors(physics)
        env_id, chosen = target, [World("this world", factors)] if factors else []
        _check_task(env_id)
    from tipl.envs.world_checks import NUM_STEPS, home_world, read_back

    chosen = chosen or [home_world(env_id)]
    readings = read_back(env_id, chosen)
    _print_readings(readings, in_full=len(chosen) == 1)
    wrong = [one for one in readings if not one.right]
    found = {"readings": readings, "wrong": wrong}
    if wrong:
        first = wrong[0]
        say(
            f"{len(wrong):,} of {len(readings):,} rows of the models are not their factors times "
            f"those at home, the first of them {first.field} of {first.owner or 'the model'} in "
            f"{first.world}: {_numbers(first.here)}, where {_numbers(first.expected)} was expected"
        )
        raise Wrong(found)
    note(
        f"{len(readings):,} rows of models were read after {NUM_STEPS} steps in {len(chosen):,} "
        f"world{'s' * (len(chosen) > 1)}: each is its factors times the row at home, and nothing "
        "else differs"
    )
    return found


def _check_task(env_id: str) -> None:
    """Raises a TiplError if there is no environment of an id that the user gives.

    Before anything is imported that takes longer.
    """
    from tipl.core.trust import trust_own
    from tipl.envs.registry import registered_spec

    trust_own(env_id)
    registered_spec(env_id)


def _chosen_worlds(worlds: Worlds, split: str | None, world: str | None) -> list[World]:
    """All worlds, those of a split, or one."""
    if world is not None:
        return [World(world, worlds[world])]
    splits = worlds.splits if split is None else [split]
    return [one for name in splits for one in worlds.worlds(name)]


def _table(*columns: str) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="bold")
    for column in columns:
        table.add_column(Text(column))
    return table


def _print_splits(file: Path, worlds: Worlds) -> dict[str, Any]:
    """Prints what a file holds: counts, ranges, distances, and how it was made."""
    say(f"{file}: {len(worlds):,} worlds of {worlds.env_id}, digest {worlds.digest[:12]}")
    table = _table("", *worlds.splits)
    table.add_row("worlds", *(f"{len(those):,}" for those in worlds.splits.values()))
    factors = {split: worlds.split(split) for split in worlds.splits}
    for name in worlds.physics:
        table.add_row(Text(name), *(_range(factors[split][name]) for split in worlds.splits))
    if TRAINING in worlds.splits:
        held_out = {split: worlds.distances(split) for split in worlds.splits if split != TRAINING}
        ranges = {split: _range(distances) for split, distances in held_out.items()}
        medians = {split: f"{np.median(distances):.3g}" for split, distances in held_out.items()}
        for what, told in {"distance": ranges, "its median": medians}.items():
            table.add_row(what, *(told.get(split, "") for split in worlds.splits))
    console().print(table)
    say("distance: of log-factors, from the nearest world of training")
    for name, value in sorted(worlds.made.items()):
        say(f"{name}: {value if isinstance(value, str) else json.dumps(value)}")
    about = {"file": file, "task": worlds.env_id, "digest": worlds.digest, "made": worlds.made}
    return about | {"splits": {name: worlds.worlds(name) for name in worlds.splits}}


def _range(values: Any) -> str:
    return f"{np.min(values):.3g} to {np.max(values):.3g}"


def _print_readings(readings: Sequence[Reading], in_full: bool) -> None:
    """Prints rows of models: each, or one line for each field of each world."""
    table = _table("world", "field", *(["of"] if in_full else []), "at home", "there")
    for row in _full_rows(readings) if in_full else _short_rows(readings):
        table.add_row(*map(Text, row))
    console().print(table)


def _full_rows(readings: Sequence[Reading]) -> Iterator[tuple[str, ...]]:
    for one in readings:
        yield one.world, one.field, one.owner, _numbers(one.home), _numbers(one.here)


def _short_rows(readings: Sequence[Reading]) -> Iterator[tuple[str, ...]]:
    """The different values of each field of a world."""
    pairs: dict[tuple[str, str], dict[tuple[float, float], None]] = {}
    for one in readings:
        found = pairs.setdefault((one.world, one.field), {})
        found.update(dict.fromkeys(zip(one.home, one.here, strict=True)))
    for (world, field), found in pairs.items():
        yield world, field, *(_numbers(values) for values in zip(*found, strict=True))


def _numbers(values: Sequence[float]) -> str:
    more = " ..." if len(values) > _MOST_VALUES else ""
    return " ".join(f"{value:.4g}" for value in values[:_MOST_VALUES]) + more
