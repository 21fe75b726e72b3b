"""What commands print of what they found: for people, as one JSON value, or nothing but that."""

from __future__ import annotations

import contextlib
import io
import json
import math
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from path_data import make_dataset
from tipl.cli import COMMANDS, main
from tipl.core.plain_data import json_text, plain
from tipl.core.terminal import Manner, answer, console, note, say, speaking
from tipl.envs.worlds import Worlds
from tipl.evaluation.returns import evaluate
from tipl.evaluation.stats import Interval
from tipl.paths import PathDataset
from tipl.policies.policy import Policy

TASK = "InvertedPendulum-v4"
MODEL = "--rank 2 --width 8 --depth 1 --heads 2 --num-steps 2"


def tipl(command: str) -> tuple[int, str, str]:
    """Runs a command in this process."""
    out, err, code = io.StringIO(), io.StringIO(), 0
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            main(shlex.split(command))
        except SystemExit as stop:
            code = int(stop.code or 0)
    return code, out.getvalue(), err.getvalue()


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The working directory, with a dataset, a policy, worlds and a model."""
    directory = tmp_path_factory.mktemp("answers")
    with contextlib.chdir(directory):
        make_dataset(directory / "paths")
        Policy.initial(TASK, 1, (4,)).save("policy")
        factors = [{"gravity": 0.5}, {"gravity": 2.0}]
        Worlds.from_factors(TASK, {"training": factors}).save("worlds.json")
        assert tipl(f"train paths --out model {MODEL} --quiet")[::2] == (0, "")
        yield directory


ANSWERS = {
    "paths show paths": {"directory": "paths", "missing_parts": []},
    "paths verify paths": {"dataset": "paths", "problems": [], "under_way": []},
    "paths best paths --out best --episodes 1": {"policy": "best", "episodes": 1},
    "paths copy paths copied": {"dataset": "copied", "there": 0, "missing": 0},
    f"train paths --out another {MODEL}": {"model": "another", "kind": "PathTransformer"},
    "forecast model --paths paths --out forecasts --starts 0 --horizons 1": {"num_trials": 1},
    "optimize model --out better": {"policy": "better", "env_steps": 0, "tried": []},
    "evaluate policy --episodes 2": {"env_id": TASK},
    "worlds show worlds.json": {"file": "worlds.json", "task": TASK},
    "worlds check worlds.json": {"wrong": []},
    f"worlds make {TASK} --vary gravity=1..2 --splits training=2 --out new.json": {"task": TASK},
}
"""Commands, and some of what they answer."""


@pytest.mark.parametrize("command", ANSWERS)
def test_an_answer_is_one_json_value(command: str, here: Path) -> None:
    code, out, err = tipl(f"{command} --json")
    assert code == 0, err
    found = json.loads(out)
    assert ANSWERS[command].items() <= found.items()
    assert "Traceback" not in err


@pytest.mark.parametrize("command", ANSWERS)
def test_who_wants_quiet_gets_results_alone(command: str, here: Path) -> None:
    _, told, _ = tipl(command)
    code, out, err = tipl(f"{command} --quiet")
    assert (code, err) == (0, "")
    assert {*out.splitlines()} <= {*told.splitlines()}
    code, out, err = tipl(f"{command} --quiet --json")
    assert (code, err) == (0, "")
    assert json.loads(out)


def test_numbers_are_those_that_are_printed(here: Path) -> None:
    expected = evaluate(Policy.load("policy"), 2, seed=3)
    found = json.loads(tipl("evaluate policy --episodes 2 --seed 3 --json")[1])
    assert found["episodic_return"] == expected.episodic_return.tolist()
    assert found["mean"] == expected.mean._asdict()
    summary = json.loads(tipl("paths show paths --json")[1])
    paths = PathDataset.open("paths")
    assert summary["lengths"] == {str(trial): paths.num_checkpoints for trial in paths.trials}
    assert summary["metadata"] == plain(paths.metadata.to_json())


def test_what_is_wrong_is_an_answer_as_well(here: Path, tmp_path: Path) -> None:
    make_dataset(tmp_path / "paths")
    (tmp_path / "paths" / "notes.txt").write_text("mine")
    code, out, _ = tipl(f"paths verify {tmp_path}/paths --json")
    assert code == 1
    assert "notes.txt" in json.loads(out)["problems"][0]


@pytest.mark.parametrize("command", ["paths show none", "evaluate none", "paths show paths --so"])
def test_errors_are_no_answers(command: str, here: Path) -> None:
    code, out, err = tipl(f"{command} --json")
    assert (code, out) == (2, "")
    assert err == tipl(command)[2] != ""


def test_records_do_not_say_how_they_were_printed(here: Path) -> None:
    command = f"worlds make {TASK} --vary gravity=1..2 --splits training=2 --out said.json"
    tipl(f"{command} --json --quiet")
    assert Worlds.load("said.json").made["command"] == f"tipl {command}"


def test_every_command_says_how_to_have_it_otherwise() -> None:
    for command in COMMANDS:
        said = tipl(f"{command} --help")[1]
        assert "--json " in said
        assert "--quiet " in said


# --- the ways of printing --------------------------------------------------------------------


@pytest.mark.parametrize(
    ("manner", "out", "err"),
    [
        (Manner(), "result\ntable\nnote\n", "progress\n"),
        (Manner(json=True), '{\n  "a": 1\n}\n', "note\nprogress\n"),
        (Manner(quiet=True), "result\ntable\n", ""),
        (Manner(json=True, quiet=True), '{\n  "a": 1\n}\n', ""),
    ],
)
def test_results_notes_and_progress_go_their_ways(
    manner: Manner, out: str, err: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with speaking(manner):
        say("result")
        console().print("table")
        note("note")
        console(stderr=True).print("progress")
        answer({"a": 1})
    assert capsys.readouterr() == (out, err)


def test_plain_data() -> None:
    given: dict[Any, Any] = {
        1: np.float32(0.5),
        "nan": [math.nan, np.float64(math.inf)],
        "array": np.arange(4).reshape(2, 2),  # [4] -> [2, 2]
        "path": Path("here"),
        "interval": Interval(1.0, 0.5, math.nan),
        "yes": np.bool_(True),
        "none": None,
    }
    assert plain(given) == {
        "1": 0.5,
        "nan": [None, None],
        "array": [[0, 1], [2, 3]],
        "path": "here",
        "interval": {"value": 1.0, "low": 0.5, "high": None},
        "yes": True,
        "none": None,
    }
    with pytest.raises(TypeError, match="object is no plain data"):
        plain([object()])


def test_json_is_nothing_that_a_terminal_obeys() -> None:
    text = "\x1b[2J\x7f\x9b\u202e\udcff é"
    assert json.loads(json_text(text)) == text
    assert json_text(text).isascii()
    assert json_text(text).isprintable()
