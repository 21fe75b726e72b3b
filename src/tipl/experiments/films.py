"""The policies of a run in motion: before, at PPO's end, and after inference."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import msgspec
import numpy as np

from tipl.core import storage
from tipl.core.atomic import write_bytes_atomically
from tipl.core.ownership import ANIMATION, PICTURE, OwnFile, check_file
from tipl.core.regular_files import read_regular
from tipl.core.schemas import JsonFile
from tipl.core.system_errors import explained
from tipl.errors import TiplError
from tipl.evaluation.film import animation, film, still_strip
from tipl.evaluation.film_files import check_gif_name
from tipl.evaluation.pictures import missing_renderer
from tipl.experiments.clearing import FILM_RECORD, film_files
from tipl.experiments.run import Run
from tipl.forecast.trained import TrainedForecaster
from tipl.policies.policy import Policy
from tipl.report.page import Picture, Section

TITLE = "Before, after PPO, and after inference"

MAX_BYTES = 1 << 26
"""Of a picture in a page: many times what ours take."""


def _own_files(gif: Path) -> dict[Path, OwnFile]:
    """What `save_films` replaces: also pictures without a mark, of earlier versions, by the record.

    It is looked at now, before there is a new one.
    """
    *pictures, record = film_files(gif)
    recorded = FILM_RECORD.owns(record)
    kinds = dict(zip(pictures, (ANIMATION, ANIMATION, PICTURE), strict=True))
    earlier = {
        file: OwnFile(kind.what, lambda path, kind=kind: recorded or kind.recognises(path))  # type: ignore[misc]
        for file, kind in kinds.items()
    }
    return earlier | {record: FILM_RECORD}


def film_run(run: Run, gif: Path, seed: int = 0) -> None:
    """Films one held-out network three times: untrained, at PPO's end, and as a model made it.

    The network is that whose return at PPO's end is the median of the held-out trials; the model is
    the one with the highest mean return over all of them. Writes `film_files`.

    Raises:
        TiplError: nothing can be drawn here, a file cannot be written, or something else has its
            name.
    """
    check_films(gif)
    ends = run.returns.checkpoints[:, -1].mean(axis=1)
    trial = int(np.argsort(ends)[len(ends) // 2])
    untrained = run.forecasts.paths.policy(trial, 0)
    model = _best_model(run)
    policies = {
        "untrained": untrained,
        f"PPO, {int(run.paths.global_step[-1]):,} steps": run.forecasts.paths.policy(trial, -1),
        "after inference, 0 steps": model.optimize(untrained),
    }
    save_films(gif, policies, model.name, seed)


def check_films(gif: Path) -> None:
    """Raises a TiplError where `save_films` would write over something else, or by another name."""
    check_gif_name(gif)
    for file, kind in _own_files(gif).items():
        check_file(file, kind)


def save_films(
    gif: Path, policies: Mapping[str, Policy], model: str, seed: int = 0, world: str = "",
    digest: str = "",
) -> None:  # fmt: skip
    """Films policies by their labels, all from the same start, and writes `film_files`.

    Args:
        gif: the wide animation, from which the other files have their names.
        policies: by what is written above each.
        model: that has made one of them.
        seed: of the episode.
        world: in which all of them run, if it has a name.
        digest: of what the films follow from, by which it is known whether they are still true.

    Raises:
        TiplError: as `film_run`.
    """
    check_films(gif)
    own, labels = _own_files(gif), list(policies)
    wide, narrow, stills, record = film_files(gif)
    films = [film(policy, seed) for policy in policies.values()]
    with explained("write", gif):
        gif.parent.mkdir(parents=True, exist_ok=True)
    made = {wide: animation(films, labels), narrow: animation(films, labels, columns=1)}
    for file, data in (made | {stills: still_strip(films, labels)}).items():
        write_bytes_atomically(file, data, own=own[file])
    returns = [one.episodic_return for one in films]
    said = {"labels": labels, "returns": returns, "model": model, "world": world}
    storage.write_json(record, said | {"digest": digest})


class FilmRecord(msgspec.Struct):
    """What is said of a film beside it."""

    labels: list[str]
    returns: list[float]
    model: str
    world: str = ""
    digest: str = ""

    def __post_init__(self) -> None:
        if len(self.labels) != len(self.returns):
            raise ValueError(f"{len(self.labels)} labels and {len(self.returns)} returns")


FILM = JsonFile("film.json", FilmRecord, "the record of a film (made by `tipl film`)")


def _of_run(record: FilmRecord) -> str:
    return (
        "The same held-out network three times, in the same episode: the trial is the median one "
        f"of PPO's, and inference one call of the {record.model}."
    )


def film_section(
    gif: Path, title: str = TITLE, sentence: Callable[[FilmRecord], str] = _of_run
) -> Section:
    """What `save_films` has made, or why there is nothing.

    Args:
        gif: the wide animation.
        title: of the section.
        sentence: what is said of the films beside their returns; by default of those of a run.
    """
    wide, narrow, stills, file = film_files(gif)
    if not file.exists():
        why = missing_renderer() or "the first command at the end, run again, says why"
        return Section(title, f"The films are left out, as nothing can be drawn here: {why}")
    record = FILM.read(file)
    returns = "; ".join(
        f"{label}: {value:,.0f}".replace("-", "−")
        for label, value in zip(record.labels, record.returns, strict=True)
    )
    pictures = [read_regular(one, "a film's picture", MAX_BYTES) for one in (wide, stills, narrow)]
    return Section(
        title,
        f"{sentence(record)} Return: {returns}.",
        pictures=[Picture(pictures[0], f"Three films of policies. {returns}.", *pictures[1:])],
    )


def _best_model(run: Run) -> TrainedForecaster:
    """The model whose optimised networks return most on average.

    Raises:
        TiplError: the run holds no forecast to the path's end of an untrained network by a model.
    """
    means = {
        case.method: float(returns.mean())
        for case, returns in zip(run.forecasts.cases, run.returns.forecasts, strict=True)
        if case.start == 0 and case.horizon == run.end
    }
    ways = [asked for asked in run.ways if asked.name in means]
    if not ways:
        raise TiplError(
            "no model of the run has forecast untrained networks to the end of their paths, so "
            "there is none to film; train one, and forecast with the start 0"
        )
    return max(ways, key=lambda asked: means[asked.name])
