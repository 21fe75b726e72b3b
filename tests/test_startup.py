"""What starting up does not import: the libraries that only the work needs."""

from __future__ import annotations

import importlib
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tipl.cli import COMMANDS
from tipl.policies.policy import Policy

sys.path.append(str(Path(__file__).parents[1] / "benchmarks"))  # scripts, not a package
refusals = importlib.import_module("refusals")

HEAVY = (
    *("torch", "numba", "scipy", "gymnasium", "mujoco", "matplotlib", "PIL", "jinja2"),
    *("pandas", "sklearn", "stable_baselines3", "pydmd"),
)
"""Each takes a tenth of a second or more to import."""

HELPS = """
import contextlib, io, json, sys
from tipl.cli import COMMANDS, main

found = {}
for command in COMMANDS:
    out = io.StringIO()
    with contextlib.suppress(SystemExit), contextlib.redirect_stdout(out):
        main([*command.split(), "--help"])
    assert "usage: tipl " + command in out.getvalue(), command
    found[command] = [name for name in sys.argv[1].split() if name in sys.modules]
print(json.dumps(found))
"""

ACT = """
import json, sys, numpy, tipl

after_import = [name for name in sys.argv[1].split() if name in sys.modules]
policy = tipl.Policy.load(sys.argv[2])
policy.act(numpy.zeros(policy.task.observation_size))
print(json.dumps([after_import, [name for name in sys.argv[1].split() if name in sys.modules]]))
"""


REFUSE = """
import contextlib, io, json, os, sys
from tipl.cli import main

os.chdir(sys.argv[2])
found = {}
for line in json.loads(sys.argv[3]):
    words = io.StringIO()
    status = 0
    with contextlib.redirect_stderr(words), contextlib.redirect_stdout(words):
        try:
            main(line.split())
        except SystemExit as end:
            status = end.code
    said = words.getvalue().splitlines()
    assert status == 2 and said[-1].startswith("tipl: "), (line, said)
    found[line] = [name for name in sys.argv[1].split() if name in sys.modules]
print(json.dumps(found))
"""


def run(code: str, *arguments: str, folder: Path | None = None) -> str:
    """What a fresh Python prints."""
    environment = os.environ | ({} if folder is None else {"NUMBA_CACHE_DIR": str(folder)})
    done = subprocess.run(
        [sys.executable, "-c", code, " ".join(HEAVY), *arguments],
        capture_output=True,
        text=True,
        env=environment,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def loaded_by_help() -> dict[str, list[str]]:
    """The heavy libraries that are there after each command's help, in one process."""
    found: dict[str, list[str]] = json.loads(run(HELPS))
    return found


@pytest.mark.parametrize("command", COMMANDS)
def test_help_imports_nothing_heavy(command: str, loaded_by_help: dict[str, list[str]]) -> None:
    assert loaded_by_help[command] == []


def test_no_refusal_waits_for_what_computes_or_draws(tmp_path: Path) -> None:
    """But for what an id means: Gymnasium and MuJoCo are asked."""
    refusals.make_inputs(tmp_path)
    lines = refusals.refusals()
    before = sorted(tmp_path.rglob("*"))
    loaded = json.loads(run(REFUSE, str(tmp_path), json.dumps(lines)))
    assert {line: {*found} - {"gymnasium", "mujoco"} for line, found in loaded.items()} == {
        line: set() for line in lines
    }
    assert sorted(tmp_path.rglob("*")) == before


def test_a_stored_policy_acts_without_anything_heavy(tmp_path: Path) -> None:
    Policy.initial("HalfCheetah-v4", 1).save(tmp_path / "policy")
    compiled = tmp_path / "numba"
    after_import, after_act = json.loads(run(ACT, str(tmp_path / "policy"), folder=compiled))
    assert (after_import, after_act) == ([], [])
    assert not compiled.exists()


def test_the_lookout_sees_what_is_heavy() -> None:
    code = (
        "import sys, mujoco; print(*[name for name in sys.argv[1].split() if name in sys.modules])"
    )
    assert "mujoco" in run(code).split()


def test_statistics_need_no_scipy() -> None:
    code = "import sys, tipl.evaluation.stats; print('scipy' in sys.modules)"
    assert run(code).strip() == "False"


def test_a_process_of_the_command_line_seldom_looks_for_garbage() -> None:
    """Imports make many objects and keep them; a program that calls `main` keeps its own pace."""
    code = (
        "import gc, sys; from tipl.cli import main; before = gc.get_threshold()[0]\n"
        "def run(*given):\n"
        "    try: main(*given)\n"
        "    except SystemExit: pass\n"
        "    return gc.get_threshold()[0]\n"
        "sys.argv = ['tipl', '--help']\n"
        "print(run(['--help']) == before, run() > 10 * before, file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stderr.split() == ["True", "True"]
