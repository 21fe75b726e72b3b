"""The additions of docs/extending.md, performed as they are written there."""

from __future__ import annotations

import re
import runpy
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest

import tipl
from in_process import do_little
from results_files import read_results
from test_readme import _blocks, _commands
from tipl.envs.mujoco_tasks import MUJOCO_TASKS
from tipl.experiments import rivals, run_report
from tipl.models import kinds
from tipl.report import methods

TEXT = (Path(__file__).parents[1] / "docs" / "extending.md").read_text(encoding="utf-8")


class Performed:
    """What has been done: the names that the blocks define, and the directory they ran in."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.names: dict[str, Any] = {"__name__": "extending"}


@pytest.fixture(scope="module")
def performed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Performed]:
    """Writes the files that begin with their names, and executes all else, in order."""
    done = Performed(tmp_path_factory.mktemp("researcher"))
    registries: list[Any] = [gymnasium.registry, MUJOCO_TASKS, kinds._REGISTERED]
    registries += [rivals.RIVALS, methods._METHODS, run_report.SECTIONS]
    before = [registry.copy() for registry in registries]
    modules = set(sys.modules)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(done.directory)
        do_little(patch)
        patch.syspath_prepend(done.directory)
        for block in _blocks(TEXT):
            if file := re.match(r"# (\w+\.py)\n", block.code):
                (done.directory / file[1]).write_text(block.code, encoding="utf-8")
            elif block.language == "python":
                exec(compile("\n" * block.line + block.code, "extending.md", "exec"), done.names)
            else:
                for python, *arguments in _commands(block):
                    assert python == "python"
                    patch.setattr(sys, "argv", arguments)
                    runpy.run_path(arguments[0], run_name="__main__")
        yield done
    for registry, entries in zip(registries, before, strict=True):
        registry.clear()
        registry.extend(entries) if isinstance(registry, list) else registry.update(entries)
    for name in {name for name in sys.modules if name.startswith("my_")} - modules:
        del sys.modules[name]


def test_a_task_of_ones_own_is_collected(performed: Performed) -> None:
    paths = tipl.PathDataset.open(performed.directory / "runs/calm/paths")
    assert paths.task.env_id == "CalmPendulum-v0"
    assert paths.task.max_episode_steps == 200


def test_a_model_of_ones_own_is_trained_saved_and_read(performed: Performed) -> None:
    drift, again = performed.names["drift"], performed.names["again"]
    assert type(again).__name__ == "DriftForecaster"
    assert again.settings == drift.settings
    assert again.settings["train"]["strength"] == 0.5
    history = performed.names["held_out"].params()[:, :2]
    assert (again.forecast(history, [1, 3]) == drift.forecast(history, [1, 3])).all()


def test_a_rival_and_a_model_of_ones_own_have_rows_and_lines(performed: Performed) -> None:
    results = read_results(performed.directory / "runs/calm/results.jsonl")
    for name in ("fading line", "Drift"):
        found = results.where(method=name, metric="episodic_return", experiment="forecast")
        assert len(found) > 3
        assert np.isfinite([row.value for row in found]).all()
    page = (performed.directory / "runs/calm/report.html").read_text(encoding="utf-8")
    assert re.search(r"<t[hd][^>]*>\s*fading line", page)  # a row
    figures = re.findall(r"<svg.*?</svg>", page, re.DOTALL)
    for colour in ("#2f7f86", "#a03070"):  # their lines
        assert sum(colour in figure for figure in figures) >= 2


def test_a_figure_of_ones_own_is_in_the_report(performed: Performed) -> None:
    page = (performed.directory / "runs/calm/report.html").read_text(encoding="utf-8")
    _, _, section = page.partition("Errors of weights beside returns")
    assert "would fall from the left to the right" in section
    assert "<svg" in section
