"""Everything, again and again in one process: do memory, threads or open files grow?

    python benchmarks/soak.py --seconds 3600 --out runs/soak

Each cycle collects and runs a dataset, reads it in every way, trains, saves and reads a model of
each kind that trains fast, forecasts, optimises, evaluates, draws a figure, and is refused a
damaged file. What the process holds after each is a line of `soak.csv`, and a curve. The slope of
its memory is that of the median of all pairs of cycles after the warm-up (Theil-Sen), so that
no single one decides.
"""

from __future__ import annotations

import csv
import dataclasses
import gc
import os
import shutil
import sys
import tempfile
import threading
import time
from pathlib import Path

import numpy as np
import tyro
from rich.console import Console
from scipy.stats import theilslopes

import tipl
from tipl.core.progress import progress_bar
from tipl.evaluation.checkpoints import evaluate_paths
from tipl.evaluation.forecast_sets import ForecastReturns, ForecastSet
from tipl.experiments.forecasts import make_forecasts
from tipl.experiments.run import forecast_rows
from tipl.paths import summarize, verify
from tipl.ppo.config import PPOConfig
from tipl.report.charts import learning_curves
from tipl.report.results import write_results
from tipl.report.style import panel_grid, save_figure

MOST_MB_PER_HOUR = 1.0
"""What the memory may grow by."""


@dataclasses.dataclass(frozen=True)
class Args:
    """How long, and where the curve goes."""

    seconds: float = 3600.0
    """how long the cycles go on"""
    warm_up: float = 0.25
    """share of the time that is not counted: caches fill, and allocators find their size"""
    threads: int = 2
    """of collections and evaluations"""
    out: Path = Path("runs/soak")
    """directory of soak.csv and soak.svg"""


@dataclasses.dataclass(frozen=True)
class Held:
    """What the process holds."""

    seconds: float
    """since the start"""
    rss_mb: float
    """resident memory"""
    threads: int
    """of the process, as the system counts them"""
    files: int
    """open file descriptors"""
    objects: int
    """Python objects that the garbage collector knows"""


def cycle(place: Path, seed: int, threads: int) -> None:
    """One of everything, in an empty directory."""
    paths = tipl.collect(
        "InvertedPendulum-v4", out=place / "paths", num_trials=4, total_steps=8 * 64, seed=seed,
        hidden_sizes=(8, 8), threads=threads, progress=False,
        ppo=PPOConfig(num_steps=64, num_minibatches=4, update_epochs=2),
    )  # fmt: skip
    evaluate_paths(place / "paths", 1, threads=threads, progress=False)
    summarize(place / "paths")
    if verify(place / "paths"):
        raise RuntimeError(f"{place} is damaged")
    list(paths)
    training, held_out = paths.split(held_out=0.5, seed=0)
    models = {}
    for kind, options in (("path", {}), ("neuron", {"targets": ("own",)}), ("wnn", {})):
        model = tipl.train(
            training, held_out=held_out, model=kind, num_steps=5, threads=1, progress=False,
            **options,
        )  # type: ignore[call-overload]  # fmt: skip
        model.save_pretrained(place / kind)
        models[kind] = tipl.Forecaster.from_pretrained(place / kind)
    forecasts = make_forecasts(list(models.values()), paths, (0.0, 0.5), (1,))
    forecasts.save(place / "forecasts")
    forecasts = ForecastSet.load(place / "forecasts")
    forecasts.evaluate(1, threads=threads).save(place / "forecasts", "soak")
    returns, command = ForecastReturns.load(place / "forecasts")
    write_results(place / "results.jsonl", forecast_rows(forecasts, returns, command))
    policy = models["neuron"].optimize(tipl.Policy.initial("InvertedPendulum-v4", hidden=(8, 8)))
    policy.save(place / "policy")
    tipl.evaluate(tipl.Policy.load(place / "policy"), 2, threads=threads)
    curves = paths.deterministic_return().mean(axis=-1, dtype=np.float64)
    drawing = learning_curves(paths.global_step, curves, note="soak")
    save_figure(drawing, place, "curves")
    broken = place / "policy" / "policy.safetensors"
    broken.write_bytes(broken.read_bytes()[:-1])
    try:
        tipl.Policy.load(place / "policy")
    except tipl.TiplError:
        return
    raise RuntimeError("a policy that was cut off was read")


def held(start: float) -> Held:
    """What the process holds now."""
    gc.collect()
    status = dict(
        line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines() if line
    )
    return Held(
        seconds=round(time.monotonic() - start, 1),
        rss_mb=int(status["VmRSS"].split()[0]) / 1e3,
        threads=int(status["Threads"]),
        files=len(os.listdir("/proc/self/fd")),
        objects=len(gc.get_objects()),
    )


def soak(args: Args) -> list[Held]:
    """Cycles until the time is over; what is held after each is written as it comes."""
    args.out.mkdir(parents=True, exist_ok=True)
    start, found = time.monotonic(), list[Held]()
    with progress_bar() as bar, (args.out / "soak.csv").open("w", newline="") as file:
        task = bar.add_task("soak", total=args.seconds, note="")
        lines = csv.DictWriter(file, [one.name for one in dataclasses.fields(Held)])
        lines.writeheader()
        while not found or found[-1].seconds < args.seconds:
            place = Path(tempfile.mkdtemp(prefix="soak-"))
            try:
                cycle(place, len(found), args.threads)
            finally:
                shutil.rmtree(place)
            found.append(held(start))
            lines.writerow(dataclasses.asdict(found[-1]))
            file.flush()
            note = f"{len(found)} cycles, {found[-1].rss_mb:,.0f} MB"
            bar.update(task, completed=found[-1].seconds, note=note)
    return found


def draw(found: list[Held], out: Path, warm: float) -> None:
    """The curves of memory, threads and open files."""
    names = {"rss_mb": "resident memory, MB", "threads": "threads", "files": "open files"}
    note = f"{len(found)} cycles; shaded: the warm-up"
    figure, panels = panel_grid(3, 7, 2.2, "minutes", "held after each cycle", note)
    for axes, (name, label) in zip(panels, names.items(), strict=True):
        axes.plot([one.seconds / 60 for one in found], [getattr(one, name) for one in found])
        axes.axvspan(0, warm / 60, alpha=0.12)
        axes.set_title(label, fontsize=9)
        axes.set_ylim(bottom=0)
    save_figure(figure, out, "soak")


def main(args: Args) -> None:
    """Runs the cycles, draws the curves, and says whether anything grows."""
    found = soak(args)
    counted = [one for one in found if one.seconds >= args.warm_up * args.seconds]
    draw(found, args.out, args.warm_up * args.seconds)
    hours = np.array([one.seconds / 3600 for one in counted])
    slope, _, low, high = theilslopes([one.rss_mb for one in counted], hours)
    threads, files = ({getattr(one, name) for one in counted} for name in ("threads", "files"))
    Console().print(
        f"{len(found)} cycles in {found[-1].seconds:,.0f} s, of which {len(counted)} after the "
        f"warm-up: memory {slope:+.2f} MB/h (95% interval {low:+.2f} to {high:+.2f}), from "
        f"{counted[0].rss_mb:,.1f} to {counted[-1].rss_mb:,.1f} MB; threads {sorted(threads)}, "
        f"Python's {threading.active_count()}; open files {sorted(files)}"
    )
    sys.exit(slope > MOST_MB_PER_HOUR or len(threads) > 1 or len(files) > 1)


if __name__ == "__main__":
    main(tyro.cli(Args))
