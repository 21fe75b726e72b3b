"""What shells complete, and the list of models."""

from __future__ import annotations

import contextlib
import io
import json
import shutil
import subprocess
from pathlib import Path

import pytest

from tipl.cli import COMMANDS, main
from tipl.forecast.base import Forecaster
from tipl.forecast.hub import shipped_models

PATHS = [name.removeprefix("paths ") for name in COMMANDS if name.startswith("paths ")]

COMPLETE = """
source tipl.bash
COMP_WORDS=("$@")
COMP_CWORD=$(($# - 1))
_tyro_tipl
printf '%s\\n' "${COMPREPLY[@]}"
"""


def tipl(command: str) -> str:
    """What a command prints."""
    out = io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.suppress(SystemExit):
        main(command.split())
    return out.getvalue()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the script is."""
    made = tmp_path_factory.mktemp("completion")
    (made / "tipl.bash").write_text(tipl("completion bash"))
    (made / "complete").write_text(COMPLETE)
    return made


@pytest.mark.skipif(shutil.which("bash") is None, reason="no bash")
@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (("tipl", "opt"), {"optimize"}),
        (("tipl", "paths", ""), {*PATHS, "-h", "--help"}),
        (("tipl", "worlds", "ch"), {"check"}),
        (("tipl", "collect", "X", "--ppo.num-m"), {"--ppo.num-minibatches"}),
        (("tipl", "paths", "show", "paths", "--js"), {"--json"}),
        (("tipl", "collect", "X", "--normaliser", ""), {"frozen", "running"}),
        (("tipl", "evaluate", "pol"), {""}),  # bash itself completes names of files
        (("tipl", "evaluate", "p", "--tr"), {"--trust-module", "--trust-argument"}),
    ],
)
def test_bash_completes(words: tuple[str, ...], expected: set[str], folder: Path) -> None:
    done = subprocess.run(
        ["bash", "complete", *words], cwd=folder, capture_output=True, text=True, check=True
    )
    assert {*done.stdout.split("\n")[:-1]} == expected
    assert done.stderr == ""


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_scripts_know_all_commands(shell: str) -> None:
    script = tipl(f"completion {shell}")
    for name in COMMANDS:
        assert f"{name.rpartition(' ')[2]}" in script
    assert "complete -o default" in script or shell != "bash"
    assert json.loads(tipl(f"completion {shell} --json")) == script


def test_help_says_how_completion_is_installed() -> None:
    words = " ".join(tipl("completion --help").split())
    assert "tipl completion bash > ~/.local/share/bash-completion/completions/tipl" in words


def test_models_that_ship_are_listed() -> None:
    found = json.loads(tipl("models --json"))
    assert [one["name"] for one in found] == shipped_models()
    told = tipl("models")
    for one in found:
        model = Forecaster.from_pretrained(one["name"])
        assert one["tasks"] == [model.task.bare_id, *model.serves]
        assert one["kind"] == model.kind
        assert one["name"] in told
        assert one["kind"] in told
