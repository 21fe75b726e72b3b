"""Terminals: nothing untrusted commands them, and broken or poor ones are put up with."""

from __future__ import annotations

import ast
import contextlib
import io
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from rich.text import Text

from path_data import make_dataset
from tipl.cli import COMMANDS, main
from tipl.core import storage, terminal
from tipl.core.progress import progress_bar
from tipl.errors import LONGEST, TiplError, printable, shown
from tipl.experiments.forecasts import forecast_held_out
from tipl.forecast.hub import model_directory
from tipl.paths import PathDataset
from tipl.policies.policy import Policy

SOURCE = Path(__file__).parents[1] / "src" / "tipl"

EVIL = "a\x1b]0;title\x07\x1b[2J\x9b31m\x7f\r\b\u202eb\u2028c\u2066\udcff[bold]x[/bold]\nfake: d"
"""Commands to a terminal, marks that reverse text, line breaks, markup, and no text at all."""


def tipl(*arguments: str) -> tuple[int, str, str]:
    """Runs a command in this process."""
    out, err, code = io.StringIO(), io.StringIO(), 0
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            main(arguments)
        except SystemExit as stop:
            code = int(stop.code or 0)
    return code, out.getvalue(), err.getvalue()


def commands_in(text: str) -> set[str]:
    """What of a text a terminal would obey, or not show."""
    return {one for one in text if not one.isprintable() and one != "\n"}


# --- what is printed -------------------------------------------------------------------------


def test_escapes_stand_for_what_a_terminal_obeys() -> None:
    assert printable("7 × 6 – é 漢 🙂 𝜃") == "7 × 6 – é 漢 🙂 𝜃"
    assert printable("\x1b[2J\n\t\x00\x7f\x9b") == r"\x1b[2J\n\t\x00\x7f\x9b"
    assert printable("\u202e\u2028\u2066\ufeff\udcff") == r"\u202e\u2028\u2066\ufeff\udcff"
    every = "".join(map(chr, range(sys.maxunicode + 1)))
    assert printable(every).isprintable()
    assert printable(printable(EVIL)) == printable(EVIL)


def test_an_error_is_one_line_that_says_what_to_do() -> None:
    for given in (EVIL, "x" * 5_000_000, "x y " * 1_000_000, "\x1b" * 5_000_000, "\n" * 5_000_000):
        message = str(TiplError(f"the task {given} was given; spell it otherwise"))
        assert len(message) <= LONGEST
        assert message.isprintable()
        assert message.startswith("the task ")
        assert message.endswith("; spell it otherwise")
        assert str(TiplError(message)) == message
    path = "/".join(["directory"] * 15)
    assert str(TiplError(f"there is no {path}; make it")) == f"there is no {path}; make it"


def test_a_value_in_a_message_is_a_line() -> None:
    class Unwilling:
        def __repr__(self) -> str:
            raise RuntimeError

    assert shown("InvertedPendulum-v4") == "'InvertedPendulum-v4'"
    assert shown([1, 2.5, None, {"a": "b"}]) == "[1, 2.5, None, {'a': 'b'}]"
    huge: list[Any] = ["x" * 5_000_000, b"x" * 5_000_000, 10**5_000, Unwilling(), "\x1b" * 99]
    huge += [[huge] * 1_000, dict.fromkeys(range(100_000), "y" * 90), [["z" * 99] * 9] * 9, EVIL]
    for value in huge:
        assert len(shown(value)) <= 80
        assert shown(value).isprintable()


def test_consoles_and_progress_bars_show_what_strangers_wrote() -> None:
    out = io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(out):
        terminal.console().print(EVIL)
        terminal.console().print(Text(EVIL))
        terminal.say(EVIL)
        terminal.complain(EVIL)
        with progress_bar() as bar:
            bar.add_task(EVIL, note=EVIL)
    assert commands_in(out.getvalue()) == set()
    assert out.getvalue().count("[bold]x[/bold]") >= 4
    assert out.getvalue().count(r"\x1b]0;title") >= 4


def test_warnings_show_what_strangers_wrote(caplog: pytest.LogCaptureFixture) -> None:
    terminal.warn(EVIL)
    assert caplog.messages == [printable(EVIL)]
    terminal.warn("x y " * 1_000_000)
    assert len(caplog.messages[1]) <= LONGEST


@pytest.mark.parametrize("given", ["x" * 5_000, "\x1b" * 5_000, ["y"] * 5_000, {"z": 10**300}])
def test_files_are_quoted_in_part(given: Any, tmp_path: Path) -> None:
    Policy.initial("InvertedPendulum-v4", 1).save(tmp_path)
    said = storage.read_json(tmp_path / "policy.json")
    storage.write_json(tmp_path / "policy.json", said | {"format_version": given})
    with pytest.raises(
        TiplError, match=r"has format version .{9,60}, but this tipl reads versions"
    ):
        Policy.load(tmp_path)
    with pytest.raises(TiplError, match=r", and .{9,80} is not one of the models that ship"):
        model_directory(str(given)[:200])


@pytest.fixture(scope="module")
def strangers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder with a dataset, a policy and whatever else, all of which mean harm."""
    hostile = EVIL.replace("\udcff", "")  # which no file of ours can hold, and no command takes
    folder = tmp_path_factory.mktemp("strangers") / hostile.replace("/", "")
    folder.mkdir()
    make_dataset(folder / "paths", versions={"tipl": hostile, hostile: "1"})
    Policy.initial("InvertedPendulum-v4", 1).save(folder / "policy")
    (folder / "file").write_text(EVIL, encoding="utf-8", errors="replace")
    here = Path.cwd()
    os.chdir(folder)
    yield folder
    os.chdir(here)


@pytest.mark.parametrize(
    "command",
    [
        "paths show {}/paths",
        "paths verify {}/paths",
        "evaluate {}/policy --episodes 1",
        "evaluate {}/missing",
        "train {}/file --out {}/out",
        "optimize {}/file --out {}/out",
        "film {}/policy --out {}/film",
        "report {}",
        "costs {}",
        "forecast {} --paths {}/paths --out {}/out",
        "collect {} --out {}/out",
        "train {}/paths --model {} --out {}/out",
        "evaluate {}/policy --{} 3",
        "evaluate {}/policy --episodes {}",
        "benchmark {}",
        "{}",
        "paths {}",
    ],
)
def test_no_command_lets_a_stranger_command_the_terminal(command: str, strangers: Path) -> None:
    arguments = [word.replace("{}", str(strangers)) for word in command.split()]
    code, out, err = tipl(*arguments)
    assert code in (0, 2)
    assert commands_in(out + err) == set()
    assert not any(line.startswith("fake") for line in (out + err).splitlines())
    assert len(err) < 2 * LONGEST
    assert "Traceback" not in err


def test_bytes_that_are_no_text_are_refused_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for command in COMMANDS:
        for word in ("x\udcff", "--out=x\udcff"):
            code, out, err = tipl(*command.split(), word)
            assert (code, out) == (2, "")
            assert r"x\udcff' was given, with bytes that are no characters: expected text" in err
            assert err.count("\n") == 1
    assert not list(tmp_path.iterdir())


def test_folders_whose_names_are_no_text_are_refused_where_they_would_be_recorded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "x\udcff"
    folder.mkdir()
    monkeypatch.chdir(folder)
    make_dataset(folder / "paths")
    with pytest.raises(TiplError, match="bytes that are no characters: expected text"):
        forecast_held_out([], PathDataset.open("paths"))
    code, _, err = tipl("film", ".", "--out", "film.gif")
    assert code == 2
    assert "bytes that are no characters: expected text" in err
    assert tipl("paths", "show", "paths")[0] == 0  # keeps no record


LONG, LOOP = "x" * 5_000, "loop"
SEVERAL = (
    *("demo", "benchmark", "accelerate", "scaling", "worlds benchmark", "film", "forecast"),
    "collect",
    "worlds make",
    *("models", "completion", "paths copy"),
)
"""Commands that take a task first, or more than one path, or none."""
WITH_OUT = ("train", "optimize", "adapt", "paths best")


@pytest.mark.parametrize("given", ["a\0b", LONG, "/".join(["y" * 200] * 30), LOOP, "file/x", ""])
def test_a_path_that_cannot_be_is_refused_in_a_sentence(
    given: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path(LOOP).symlink_to(LOOP)
    Path("file").touch()
    for command in COMMANDS:
        if command in SEVERAL:
            continue
        more = ["--out", "out"] if command in WITH_OUT else []
        code, out, err = tipl(*command.split(), given, *more)
        said = out + err
        assert code == (1 if out else 2)  # of `paths verify`, whose findings are its output
        assert said.startswith("tipl: " if err else "")
        assert said.count("\n") == 1
        assert len(said) <= 600


# --- the one way -----------------------------------------------------------------------------

WAYS = {
    *("print", "pprint.pprint", "rich.print", "input", "os.write", "Console", "Progress"),
    *("sys.stdout", "sys.stderr", "sys.__stdout__", "sys.__stderr__", "traceback.print_exc"),
    *("warnings.warn", "logging.getLogger", "logging.warning", "getLogger"),
}
"""What reaches a terminal."""

ALLOWED = {
    ("core/terminal.py", way)
    for way in ("print", "sys.stdout", "sys.stderr", "sys.__stdout__", "sys.__stderr__", "Console",
                "logging.getLogger")
} | {
    ("core/progress.py", "Progress"),  # on the terminal's own console
    ("core/early.py", "sys.stdout"),  # flushed
    ("core/early.py", "sys.stderr"),  # asked whether it is a terminal
    ("core/early.py", "os.write"),  # a constant
    ("core/leash.py", "os.write"),  # to a pipe
    ("core/locks.py", "os.write"),  # to a file
    ("core/processes.py", "sys.stdout"),
    ("cli/__init__.py", "sys.stdout"),  # flushed
    ("integrations/standing_aside.py", "sys.stdout"),  # compared with
    ("integrations/standing_aside.py", "sys.stderr"),
}  # fmt: skip


def test_the_package_has_one_way_to_the_terminal() -> None:
    found = set()
    for path in SOURCE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            named = node.func if isinstance(node, ast.Call) else node
            if isinstance(named, ast.Name) and not isinstance(node, ast.Call):
                continue  # a name alone, such as a type
            if isinstance(named, ast.Name | ast.Attribute) and ast.unparse(named) in WAYS:
                found.add((path.relative_to(SOURCE).as_posix(), ast.unparse(named)))
    assert found - ALLOWED == set()
    assert ("core/terminal.py", "print") in found


# --- streams that are broken or poor ---------------------------------------------------------

RUN = [sys.executable, "-m", "tipl"]


def run(*arguments: str, shell: str = "", **environment: str) -> tuple[int, bytes, bytes]:
    """Runs a command by a shell with redirections."""
    command = ["sh", "-c", f'exec "$@" {shell}', "sh", *RUN, *arguments]
    done = subprocess.run(command, capture_output=True, env=os.environ | environment, timeout=60)
    return done.returncode, done.stdout, done.stderr


@pytest.mark.parametrize("command", ["--version", "--help", "evaluate --help"])
def test_output_that_cannot_be_written(command: str) -> None:
    for where in (">&-", ">/dev/full", "<&- >&-"):
        status, out, err = run(*command.split(), shell=where)
        assert (status, out) == (2, b"")
        assert err.startswith(b"tipl: [Errno ")
        assert err.count(b"\n") == 1
    assert run(*command.split(), shell=">&- 2>&-") == (2, b"", b"")
    reading, writing = os.pipe()
    os.close(reading)
    gone = subprocess.run([*RUN, *command.split()], stdout=writing, stderr=subprocess.PIPE)
    os.close(writing)
    assert (gone.returncode, gone.stderr) == (141, b"")


def test_errors_that_cannot_be_written(tmp_path: Path) -> None:
    Policy.initial("InvertedPendulum-v4", 1).save(tmp_path / "policy")
    for where in ("2>&-", "2>/dev/full"):
        assert run("nonsense", shell=where) == (2, b"", b"")
    status, out, err = run("evaluate", str(tmp_path / "policy"), "--episodes", "1", shell="2>&-")
    assert (status, err) == (0, b"")
    assert out.startswith(b"InvertedPendulum-v4: mean episodic return")


def test_a_closed_output_is_no_other_file(tmp_path: Path) -> None:
    # what is opened next would be standard output, and what is printed would be written into it
    code = "import os, sys; from tipl.cli import main; main(['--version'])"
    command = ["sh", "-c", f'exec {sys.executable} -c "{code}" >&- 2>&-']
    assert subprocess.run(command, cwd=tmp_path, timeout=60).returncode == 2
    assert list(tmp_path.iterdir()) == []


POOR = (
    {"PYTHONIOENCODING": "ascii"},
    {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},
)


@pytest.mark.parametrize("encoding", POOR)
def test_a_terminal_that_knows_ascii_alone(encoding: dict[str, str]) -> None:
    code = "from tipl.core.terminal import console, prepared, say\n"
    code += (
        r"with prepared(): say('7 \xd7 6 \u2013 42 \xb1 1 \u6f22'); console().print('\u2212\xd7')"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, env=os.environ | encoding, timeout=60
    )
    assert done.stdout == b"7 x 6 - 42 +- 1 \\u6f22\n-x\n"
    assert done.stderr == b""
    status, out, err = run("evaluate", "--help", **encoding)
    assert (status, err) == (0, b"")
    assert out.isascii()


# --- homes -----------------------------------------------------------------------------------


def test_kernels_are_compiled_where_nothing_can_be_kept() -> None:
    code = """
import numpy as np
from tipl.ppo import kernels
x = np.zeros((1, 2, 3), np.float32)
kernels.add_bias_tanh(x, np.ones((1, 3), np.float32))
print(x[0, 0, 0])
"""
    # the one place that numba knows then is not given
    homeless = {"NUMBA_CACHE_LOCATOR_CLASSES": "UserProvidedCacheLocator"}
    without = {name: value for name, value in os.environ.items() if name != "NUMBA_CACHE_DIR"}
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=without | homeless
    )
    assert done.stderr == ""
    assert done.stdout.startswith("0.76159")


def test_a_folder_that_is_gone_is_named(tmp_path: Path) -> None:
    (tmp_path / "gone").mkdir()
    command = ["sh", "-c", 'rmdir ../gone; exec "$@"', "sh", *RUN, "evaluate", "policy"]
    done = subprocess.run(command, cwd=tmp_path / "gone", capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stderr == "tipl: the folder that you are in has been removed; go to another one\n"
