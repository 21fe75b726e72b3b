"""Puts the model of a benchmark of worlds into the package, with its card.

    python scripts/ship_world_model.py runs/worlds/HalfCheetah-v4

Writes `src/tipl/forecast/pretrained/TASK-worlds`. What made the model, and what it returns, are the
benchmark's own commands and numbers.
"""

from __future__ import annotations

from pathlib import Path

import tyro
from result_pages import markdown
from tyro.conf import Positional
from update_collection_docs import ROOT
from update_worlds_docs import command_of

from tipl.core.atomic import write_bytes_atomically
from tipl.core.ownership import ANYTHING
from tipl.envs.worlds import TRAINING
from tipl.experiments.worlds.outcome import WorldsBenchmark, load_worlds
from tipl.experiments.worlds.report import worlds_report
from tipl.experiments.worlds.stages import MODEL, UNIVERSAL
from tipl.models.world.forecaster import WorldForecaster
from tipl.paths import PathDataset

CARD = """# A model of worlds for {task}

A policy for a world that nobody has trained in, from what is known of the world: its physics, a log
of transitions, 250 steps without rewards, or some episodes, with no gradient step. How it works:
`docs/worlds.md`.

    tipl adapt {task}-worlds --physics {example} --out policy/
    tipl adapt {task}-worlds --env my_module:MyEnv-v0 --steps 250 --out policy/

It is made of one universal policy: {steps:,} environment steps of PPO from the elite of home, in
{worlds} worlds that were drawn anew at each episode and that it observed. {more:,} more were taken
to see what policies do. Its worlds differ in {physics}.

## In worlds that were held out

{lead}

{headline}

Scores, verdicts, the worst worlds, ablations and figures: `docs/worlds-benchmark.md`.

## What it is not for

Other tasks, and worlds that differ in something else: that it cannot know. Far from its worlds it
says so. Where policies of one world are run for many episodes anyhow, PPO goes on from what it
makes.

## How it was made

```bash
{commands}
```
"""

MADE_BY = ("worlds", "elite", UNIVERSAL, MODEL)
"""Stages of the benchmark that lead to the model."""


def card(found: WorldsBenchmark, model: WorldForecaster, run: Path) -> str:
    """The model's card."""
    report = worlds_report(found)
    config, commands = found.config, {stage.name: stage.command for stage in found.stages}
    made = [commands[name] for name in MADE_BY if name in commands]
    return CARD.format(
        task=config.env_id,
        example=f"{model.prior.names[-1]}=0.8",
        worlds=len(found.worlds.worlds(TRAINING)),
        steps=int(PathDataset.open(run / UNIVERSAL).global_step[-1]),
        more=model.settings["env_steps"],
        physics=str(model.prior),
        lead="\n".join([" ".join(report.lead), "", *(f"- {point}" for point in report.points)]),
        headline=markdown(report.headline),
        commands="\n".join([f"# {command_of(found)}", *made]),
    )


def main(run: Positional[Path], /) -> None:
    """Puts the model into the package.

    Args:
        run: directory of a whole benchmark of worlds
    """
    found = load_worlds(run)
    model = WorldForecaster.from_pretrained(run / MODEL)
    place = ROOT / "src" / "tipl" / "forecast" / "pretrained" / f"{found.config.env_id}-worlds"
    (place / "README.md").unlink(missing_ok=True)  # only a model's own files are replaced
    model.save_pretrained(place)
    write_bytes_atomically(place / "README.md", card(found, model, run).encode(), own=ANYTHING)


if __name__ == "__main__":
    tyro.cli(main)
