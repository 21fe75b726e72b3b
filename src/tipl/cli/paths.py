"""`tipl paths show`, `verify`, `evaluate`, `best` and `copy`: what to do with a dataset."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from rich.table import Table
from rich.text import Text
from tyro.conf import Positional

from tipl.cli.shared import Wrong
from tipl.core.options import at_least
from tipl.core.ownership import check_directory
from tipl.core.plain_data import plain
from tipl.core.terminal import console, note, say
from tipl.errors import TiplError, printable
from tipl.paths import EvaluationSummary, PathDataset, PathSummary, ReturnRange, summarize, verify
from tipl.paths.checks import being_written
from tipl.policies.actions import OBSERVATION_CLIP


def paths_show(directory: Positional[Path], /, figure: Path | None = None) -> dict[str, Any]:
    """Say what is in a dataset of policy learning paths.

    Args:
        directory: the dataset
        figure: where to draw its learning curves, such as curves.png (an SVG comes with it)
    """
    if figure is None:
        return print_summary(directory)
    from tipl.report.charts import learning_curves
    from tipl.report.files import check_figure
    from tipl.report.style import save_figure

    check_figure(figure.parent, figure.stem)
    summary = print_summary(directory)
    paths = PathDataset.open(directory)
    caption = f"{paths.task.label}, {paths.num_trials} trials"
    returns = paths.episodic_return().astype(np.float64)
    drawing = learning_curves(paths.global_step, returns, note=caption)
    svg, png = save_figure(drawing, figure.parent, figure.stem)
    note(f"drew {png} and {svg}")
    return summary | {"figures": [png, svg]}


def paths_verify(directory: Positional[Path], /) -> dict[str, Any]:
    """Check every byte of a dataset of paths, and say what is wrong and where.

    Exits with status 1 if anything is wrong or not there yet. What another process is writing at
    the moment is told of, and is not wrong.

    Args:
        directory: the dataset
    """
    under_way, problems = being_written(directory), verify(directory)
    for line in (*under_way, *problems):
        say(line)
    found = {"dataset": directory, "problems": problems, "under_way": under_way}
    if problems:
        from tipl.collection.command import remedies

        with contextlib.suppress(TiplError):  # of metadata that cannot be read, which is said
            for line in remedies(directory):
                note(line)
        raise Wrong(found)
    so_far = " so far" if under_way else ""
    note(f"{directory} is intact{so_far}: every byte is as it was written")
    return found


def paths_evaluate(
    directory: Positional[Path],
    /,
    episodes: int = 5,
    every: int = 1,
    seed: int = 0,
    threads: int | None = None,
) -> dict[str, Any]:
    """Run the checkpoints of a dataset in their environment, and store their returns in it.

    Policies act by their mean, for whole episodes. Run the same command again after an
    interruption: it goes on where it was.

    Args:
        directory: the dataset
        episodes: episodes of each checkpoint
        every: run checkpoints 0, EVERY, 2 EVERY, ... of each trial, and the last
        seed: of the episodes' starts
        threads: default: one for each processor
    """
    from tipl.envs.registry import registered_spec

    paths = PathDataset.open(directory)
    registered_spec(paths.task)  # no refusal waits for what evaluates
    paths.usable_trials()  # reads them
    at_least(1, episodes=episodes, every=every)
    from tipl.evaluation.checkpoints import evaluate_paths

    evaluate_paths(directory, episodes, every=every, seed=seed, threads=threads, progress=True)
    return print_summary(directory)


def paths_best(
    directory: Positional[Path],
    /,
    out: Path,
    held_out: float = 0.25,
    episodes: int = 8,
    seed: int = 0,
) -> dict[str, Any]:
    """Find the best policy among the stored ones, and save it.

    The checkpoints with the highest training returns act by their mean for some episodes each.

    Args:
        directory: the dataset
        out: directory of the policy
        held_out: share of the trials to leave out, as in `tipl train`
        episodes: episodes of each policy that is tried
        seed: of the episodes' starts; with that of `tipl train`, a NeuronTransformer learned to
            act as this policy
    """
    from tipl.policies.policy import POLICY_FILES

    check_directory(out, POLICY_FILES)
    paths = PathDataset.open(directory)
    training = paths.split(held_out=held_out)[0] if held_out else paths
    at_least(1, episodes=episodes)
    from tipl.evaluation.behaviour import best_checkpoint  # no refusal waits for it

    best = best_checkpoint(training, episodes, seed)
    best.policy.save(out)
    say(
        f"{out}: checkpoint {best.checkpoint} of trial {best.trial}, mean return "
        f"{best.mean_return:,.1f} over {best.episodes} episodes that did not choose it"
    )
    told = ("checkpoint", "trial", "mean_return", "episodes")
    return {"policy": out} | {name: getattr(best, name) for name in told}


def paths_copy(source: Positional[Path], target: Positional[Path], /) -> dict[str, Any]:
    """Copy a dataset of paths to an object store, from one, or from disk to disk.

    What is finished of the dataset is copied, and what is there already stays: run the same command
    again after an interruption, or when more is finished. In a store metadata.json comes last, when
    all parts are there, of however many collections.

    Args:
        source: the dataset: a directory, or an address such as s3://bucket/paths
        target: where the copy is to be
    """
    from tipl.paths.copying import copy_paths

    copied = copy_paths(source, target, progress=True)
    rest = f"; {copied.missing} parts are missing, and can be copied later" * bool(copied.missing)
    note(f"{target}: copied {copied.files} files, {copied.there} were there already{rest}")
    return {"dataset": target, **plain(copied)}


def print_summary(directory: Path) -> dict[str, Any]:
    """Prints what is in a dataset, complete or not, as a table on standard output."""
    summary = summarize(directory, progress=True)
    table = Table(box=None, show_header=False, padding=(0, 2, 0, 0))
    for name, value in _rows(summary):
        table.add_row(Text(name, style="bold"), Text(printable(value)))
    console().print(table)
    found: dict[str, Any] = plain(summary)
    return found


def _rows(summary: PathSummary) -> Iterator[tuple[str, str]]:
    metadata = summary.metadata
    hidden = f"hidden layers of {', '.join(map(str, metadata.hidden_sizes))}"
    if metadata.layout.activation != "tanh":
        hidden += f" {metadata.layout.activation} units"
    between = f"{metadata.steps_per_checkpoint:,} between checkpoints"
    yield "dataset", str(summary.directory)
    yield "task", metadata.task.label
    lengths = sorted(summary.lengths.values())
    shortest, longest = (lengths[0], lengths[-1]) if lengths else (0, 0)
    number = f"{len(lengths):,} recorded" if metadata.recorded else f"{len(lengths):,}"
    start = f"the policy {metadata.start[:12]}" if metadata.start else ""
    yield "trials", f"{number} from {start or f'{metadata.initial} initial networks'}"
    yield "checkpoints", f"{shortest:,} {'each' if shortest == longest else f'to {longest:,}'}"
    yield "parameters", f"{summary.num_parameters:,} ({metadata.networks}, {hidden})"
    each = "each" if shortest == longest else "at most"
    steps = f"{summary.steps_per_trial:,} {each}, {summary.total_steps:,} in all, {between}"
    yield "environment steps", steps
    yield "return at the start", _range(summary.first_return)
    yield "return at the end", _range(summary.last_return)
    if summary.evaluation is not None:
        yield "deterministic return at the end", _evaluation(summary.evaluation)
    yield "diverged trials", ", ".join(map(str, summary.diverged_trials)) or "none"
    clip = metadata.observation_clip
    clipped = "" if clip == OBSERVATION_CLIP else f", clipped to {clip:g} standard deviations"
    yield "normaliser", metadata.normaliser + (clipped if np.isfinite(clip) else ", not clipped")
    if (worlds := metadata.worlds) is not None:
        each = f", {worlds.trials_per_world} trials in each" * (worlds.trials_per_world > 1)
        yield (
            "worlds",
            f"the first {len(worlds.names)} of {worlds.split} of {worlds.digest[:12]}{each}",
        )
    for name, (low, high) in metadata.vary.items():
        apart = "trials" if metadata.redraw == "never" else "episodes"
        yield "physics", f"{name} differs between {apart} by factors from {low:g} to {high:g}"
    if not metadata.recorded:
        yield "seed", str(metadata.seed)
    settings = {
        metadata.algorithm: metadata.ppo, "PPTB": metadata.pptb, "jumps": metadata.jumps,
        "versions": metadata.versions,
    }  # fmt: skip
    for title, values in settings.items():
        if values:
            yield title, ", ".join(f"{name} {value}" for name, value in values.items())
    missing = len(summary.missing_parts)
    rest = f" ({metadata.remedy('make the rest')})" if missing else ""
    yield "parts", f"{summary.num_parts} of {summary.num_parts + missing}{rest}"
    yield "size on disk", f"{summary.size_on_disk / 1e6:,.1f} MB"


def _evaluation(found: EvaluationSummary) -> str:
    value = (
        f"{_range(found.last_return)} ({found.episodes} episode{'s' * (found.episodes > 1)} each)"
    )
    if found.missing_files:
        total = found.num_files + len(found.missing_files)
        value += (
            f"; {found.num_files} of {total} files are there (run `tipl paths evaluate` again "
            "to make the rest)"
        )
    return value


def _range(returns: ReturnRange | None) -> str:
    if returns is None:
        return "unknown"
    lowest, highest = returns.lowest, returns.highest
    return f"mean {returns.mean:,.1f}, from {lowest:,.1f} to {highest:,.1f} over trials"
