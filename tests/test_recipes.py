"""The recipes of the models that ship with tipl: all of them, in commands that there are."""

from __future__ import annotations

import importlib
import shlex
import sys
from pathlib import Path

import pytest
import tyro

from tipl.cli import prepared_command
from tipl.cli.parsing import parsed
from tipl.forecast.hub import shipped_models

ROOT = Path(__file__).parents[1]
sys.path += [str(ROOT / "benchmarks"), str(ROOT / "scripts")]  # scripts, not packages
pretrain = importlib.import_module("pretrain")
optimize_networks = importlib.import_module("optimize_networks")


def test_each_model_that_ships_has_a_recipe() -> None:
    shipped = {name for name in shipped_models() if not name.endswith("-worlds")}
    assert shipped <= pretrain.RECIPES.keys()


@pytest.mark.parametrize("env_id", pretrain.RECIPES)
def test_a_recipe_is_of_commands_that_are_understood(env_id: str) -> None:
    seen = []
    for line in pretrain.commands(env_id):
        program, name, *arguments = shlex.split(line)
        seen.append(name)
        if program == "tipl":
            command, _ = prepared_command(name, arguments)
            call = parsed(command, arguments)
            assert env_id in str((call.positional, call.named))
        elif name.endswith("optimize_networks.py"):
            args = tyro.cli(optimize_networks.Args, args=arguments)
            assert args.model == env_id
        else:
            assert (ROOT / name).is_file()
    assert seen[0] == "collect"
    assert "train" in seen


def test_it_prints_what_it_would_run(capsys: pytest.CaptureFixture[str]) -> None:
    pretrain.main("CartPole-v1", dry_run=True)
    assert capsys.readouterr().out.splitlines() == pretrain.commands("CartPole-v1")
    with pytest.raises(SystemExit, match="no recipe for Walker"):
        pretrain.main("Walker")
