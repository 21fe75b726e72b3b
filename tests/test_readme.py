"""Every code block of README, of the pages for beginners and of notebooks is executed, in order.

python blocks share one namespace, and `tipl` commands run through the command line's entry point;
both in one empty directory for each page, so that a block may use what an earlier one wrote.
`make` commands are checked against the Makefile without being run, and text and json blocks are
left alone. A block that would take long is scaled down by a comment directly above it:

    <!-- readme-test: replace `num_trials=128` by `num_trials=4`, `epochs=40` by `epochs=1` -->

Such a replacement may change numbers and append arguments, and nothing else.
"""

from __future__ import annotations

import importlib
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

import pytest

from in_process import do_little

ROOT = Path(__file__).parents[1]
README = ROOT / "README.md"

PAGES = ["README.md", "docs/step-by-step.md", "docs/pretrained.md"] + [
    path.relative_to(ROOT).as_posix() for path in sorted((ROOT / "docs/tutorials").glob("*.md"))
]
NOTEBOOKS = sorted((ROOT / "docs/notebooks").glob("*.ipynb"))

BLOCK = re.compile(
    r"(?:<!-- readme-test: replace\s+(?P<changes>(?:(?!-->).)*?)\s*-->\n)?"
    r"^(?P<indent>[ \t]*)(?P<fence>`{3,}|~{3,})(?P<language>[^\n]*)\n"
    r"(?P<code>.*?)^(?P=indent)(?P=fence)[ \t]*$",
    re.DOTALL | re.MULTILINE,
)
CHANGE = re.compile(r"`([^`]+)`\s+by\s+`([^`]+)`(?:,\s+|$)")
SHELLS = {"bash", "sh", "console"}
NOT_EXECUTED = {"text", "json", "bibtex"}
# What a shell has to do before there is a `tipl` to run.
PREPARATIONS = (
    "git clone ", "cd ", "source .venv/bin/activate", "python3 -m venv .venv", "pip install ",
)  # fmt: skip


class Block(NamedTuple):
    line: int
    language: str
    code: str


def _blocks(text: str) -> Iterator[Block]:
    """The fenced blocks of a Markdown text, scaled down as their comments say."""
    attached = 0
    for match in BLOCK.finditer(text):
        line = text.count("\n", 0, match.start("fence")) + 1
        code = re.sub(rf"^{match['indent']}", "", match["code"], flags=re.MULTILINE)
        if match["changes"] is not None:
            attached += 1
            code = _scaled_down(code, match["changes"], line)
        yield Block(line, match["language"].strip(), code)
    if re.search("^[ \\t]*(```|~~~)", BLOCK.sub("", text), flags=re.MULTILINE):
        pytest.fail("README.md: a block is not closed")
    if attached != text.count("readme-test:"):
        pytest.fail("README.md: a readme-test comment is misspelt or not directly above a block")


def _scaled_down(code: str, changes: str, line: int) -> str:
    if CHANGE.sub("", changes):
        pytest.fail(f"README.md:{line}: {changes!r} is not of the form `this` by `that`, `...`")
    for old, new in CHANGE.findall(changes):
        if old not in code:
            pytest.fail(f"README.md:{line}: there is no {old!r} to be replaced in this block")
        if not _without_numbers(new).startswith(_without_numbers(old)):
            pytest.fail(f"README.md:{line}: {old!r} by {new!r} changes more than the size")
        code = code.replace(old, new)
    return code


def _without_numbers(code: str) -> str:
    return re.sub(r"\b\d[\d_.e]*", "0", code)


def _commands(block: Block) -> Iterator[list[str]]:
    """The commands of a shell block as words; in console blocks, the lines after a prompt."""
    lines = block.code.replace("\\\n", " ").splitlines()
    if block.language == "console":
        lines = [line.removeprefix("$ ") for line in lines if line.startswith("$ ")]
    for line in lines:
        for command in line.split(" && "):
            if words := shlex.split(command, comments=True):
                yield words


def _run_command(words: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    if words[0] == "make":
        _check_make(words)
    elif Path(words[0]).name == "tipl":
        _run_tipl(words, monkeypatch)
    elif not shlex.join(words).startswith(PREPARATIONS):
        pytest.fail(f"README.md: no way is known to execute {shlex.join(words)!r}")


def _check_make(words: list[str]) -> None:
    """A dry run: the targets are there, and so are the variables that are set."""
    environment = {name: value for name, value in os.environ.items() if "MAKE" not in name}
    dry_run = subprocess.run(
        ["make", "--dry-run", "--always-make", *words[1:]],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert dry_run.returncode == 0, f"{shlex.join(words)}: {dry_run.stderr}"
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    for name in (word.split("=")[0] for word in words[1:] if "=" in word):
        assert f"$({name})" in makefile, f"{shlex.join(words)}: the Makefile does not use {name}"


def _run_tipl(words: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """What the installed `tipl` script does."""
    monkeypatch.setattr(sys, "argv", ["tipl", *words[1:]])
    try:
        status = importlib.import_module("tipl.cli").main()
    except SystemExit as stop:
        status = stop.code
    assert not status, f"{shlex.join(words)} ends with status {status}"


def _run_all(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    namespace: dict[str, Any] = {"__name__": "readme"}
    for block in _blocks(text):
        if block.language == "python":
            source = "\n" * block.line + block.code  # so that tracebacks show the README's lines
            exec(compile(source, README, "exec", dont_inherit=True), namespace)
        elif block.language in SHELLS:
            for words in _commands(block):
                _run_command(words, monkeypatch)
        elif block.language not in NOT_EXECUTED:
            pytest.fail(f"README.md:{block.line}: no way is known to execute {block.language!r}")


@pytest.mark.filterwarnings("ignore:.*is out of date:DeprecationWarning")  # v4, by choice
@pytest.mark.parametrize("page", PAGES)
def test_every_code_block_of_a_page_runs(
    page: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = (ROOT / page).read_text(encoding="utf-8")
    languages = {block.language for block in _blocks(text)}
    assert "python" in languages
    assert languages & SHELLS
    monkeypatch.chdir(tmp_path)
    do_little(monkeypatch)
    _run_all(text, monkeypatch)


@pytest.mark.filterwarnings("ignore:.*is out of date:DeprecationWarning")
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_every_cell_of_a_notebook_runs(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(ROOT / "scripts")
    monkeypatch.chdir(tmp_path)
    do_little(monkeypatch)
    _run_all(importlib.import_module("notebook_pages").as_markdown(path), monkeypatch)


def _markdown(code: str, language: str = "python", comment: str = "") -> str:
    return f"# Title\n{comment}\n```{language}\n{code}\n```\n"


def test_blocks_are_run_in_order_in_one_namespace(monkeypatch: pytest.MonkeyPatch) -> None:
    text = (
        _markdown("a = [1]") + _markdown("ignored", "text") + _markdown("a.append(1 / (len(a)-1))")
    )
    with pytest.raises(ZeroDivisionError):
        _run_all(text, monkeypatch)


@pytest.mark.parametrize(
    ("changes", "scaled"),
    [
        ("`n=128` by `n=4`", "run(n=4, steps=61_440)"),
        ("`n=128` by `n=4`, `61_440` by `2_048`", "run(n=4, steps=2_048)"),
        ("`61_440` by `2_048, epochs=1`", "run(n=128, steps=2_048, epochs=1)"),
    ],
)
def test_a_block_is_scaled_down_as_its_comment_says(changes: str, scaled: str) -> None:
    comment = f"<!-- readme-test: replace {changes} -->"
    [block] = _blocks(_markdown("run(n=128, steps=61_440)", comment=comment))
    assert block.code.strip() == scaled


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (_markdown("x", "fortran"), "'fortran'"),
        (_markdown("x", ""), "no way is known to execute ''"),
        (_markdown("curl example.org", "bash"), "curl"),
        (_markdown("x=1", comment="<!-- readme-test: replace `y=1` by `y=2` -->"), "'y=1'"),
        (_markdown("x=1", comment="<!-- readme-test: replace `x=1` by `pass` -->"), "more than"),
        (_markdown("x=1", comment="<!-- readme-test: replace x=1 by x=2 -->"), "not of the form"),
        (_markdown("x=1", comment="<!-- readme-test: repalce `1` by `2` -->"), "misspelt"),
        (_markdown("x=1", comment="<!-- readme-test: replace `1` by `2` -->\n"), "directly above"),
        ("```python\nx = 1\n", "not closed"),
    ],
)
def test_a_block_that_cannot_be_run_as_written_fails(
    text: str, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(pytest.fail.Exception, match=re.escape(message)):
        _run_all(text, monkeypatch)


@pytest.mark.parametrize("command", ["make no-such-target", "make test NO_SUCH_VARIABLE=1"])
def test_a_make_command_that_does_not_exist_fails(
    command: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(AssertionError, match=re.escape(command)):
        _run_all(_markdown(command, "bash"), monkeypatch)


@pytest.mark.parametrize("status", [None, 0, 2])
@pytest.mark.parametrize("finish", [lambda status: status, sys.exit])
def test_a_tipl_command_runs_and_has_to_succeed(
    finish: Callable[[int | None], int | None], status: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[str] = []
    command_line = SimpleNamespace(main=lambda: seen.extend(sys.argv) or finish(status))
    monkeypatch.setitem(sys.modules, "tipl.cli", command_line)
    outcome = pytest.raises(AssertionError, match="status 2") if status else nullcontext()
    with outcome:
        _run_all(_markdown("tipl paths show a", "bash"), monkeypatch)
    assert seen == ["tipl", "paths", "show", "a"]


def test_commands_of_shell_blocks() -> None:
    code = "# set-up\ngit clone here && cd here\ntipl collect \\\n  --out 'a b'  # comment"
    assert list(_commands(Block(1, "bash", code))) == [
        ["git", "clone", "here"],
        ["cd", "here"],
        ["tipl", "collect", "--out", "a b"],
    ]
    assert list(_commands(Block(1, "console", "$ make test\n3 passed"))) == [["make", "test"]]
