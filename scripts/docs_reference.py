"""The reference of the site, made of the code: public names, commands, kinds of files.

`scripts/docs_site.py` hands its pages to mkdocs; `python scripts/docs_reference.py` prints them.
"""

from __future__ import annotations

import contextlib
import importlib
import io
import os
import pkgutil
import re
import sys
from collections.abc import Iterator
from typing import Any
from unittest.mock import patch

import tipl
from tipl import cli
from tipl.core.schemas import JsonFile, TensorsFile, file_kinds
from tipl.models.kinds import all_kinds

ALONE = {
    "tipl.envs.single": ["WorldEnv"],
    "tipl.integrations.cleanrl": ["ForecastHook"],
    "tipl.integrations.pytorch.jumps": ["TorchJumps"],
}
"""Names that users are told of and that no package exports."""

WIDTH = 80
"""Columns of the terminal for which help is printed."""


def pages() -> dict[str, str]:
    """Markdown by the name of its page."""
    made = {f"reference/{room}.md": page for room, page in _rooms()}
    return made | {"reference/commands.md": _commands(), "reference/files.md": _files()}


# --- public names ----------------------------------------------------------------------------


def public_names() -> dict[str, list[str]]:
    """What each package exports, but for the commands, and what stands in modules alone."""
    packages = [one.name for one in pkgutil.walk_packages(tipl.__path__, "tipl.") if one.ispkg]
    exported = {
        name: [*getattr(importlib.import_module(name), "__all__", [])]
        for name in ["tipl", *packages]
        if name != "tipl.cli"
    }
    return {name: those for name, those in (exported | ALONE).items() if those}


def _rooms() -> Iterator[tuple[str, str]]:
    """A page for each room of the package."""
    rooms: dict[str, list[str]] = {}
    for module, names in public_names().items():
        room = ".".join(module.split(".")[:2])
        rooms.setdefault(room, [f"# {room}\n", _purpose(room)])
        if module != room:
            rooms[room].append(f"## In {module}\n\n{_purpose(module)}")
        known = [one for one in names if module != "tipl" and _is_exported(module, one)]
        if known:
            those = ", ".join(f"[`tipl.{one}`][tipl.{one}]" for one in known)
            rooms[room].append(f"Also {'exports' if module == room else 'has'} {those}.\n")
        level = 2 if module == room else 3
        for name in sorted(names, key=lambda one: one[0].isupper()):  # functions come first
            if name not in known and not name.startswith("__"):
                option = f"    options:\n      heading_level: {level}\n"
                rooms[room].append(f"::: {module}.{name}\n{option}")
    for room, parts in rooms.items():
        yield room, "\n".join(parts)


def _is_exported(module: str, name: str) -> bool:
    """Whether it is what `tipl` itself exports under the same name."""
    return name in tipl.__all__ and getattr(tipl, name) is getattr(sys.modules[module], name)


def _purpose(module: str) -> str:
    """The docstring of a module."""
    return f"{(importlib.import_module(module).__doc__ or '').strip()}\n"


# --- commands --------------------------------------------------------------------------------

BOX = re.compile("╭─ (?P<title>.+?) ─*╮\n(?P<lines>.*?)╰─*╯", re.DOTALL)


def _commands() -> str:
    """What `--help` says of every command; what all have in common once."""
    parts = [
        "# All commands\n",
        "What `tipl COMMAND --help` says. [The command line](../command-line.md) tells what is "
        "printed where, and how shells complete commands.\n",
    ]
    common = ""
    for name, (_, purpose) in cli.COMMANDS.items():
        words = _help(name)
        said = [box[0] for box in BOX.finditer(words)]
        common = said.pop()
        usage, *prose = BOX.sub("", words).strip().splitlines()
        parts.append(f"## tipl {name}\n\n*{purpose}*\n")
        parts.append(_block(usage))
        parts += [*prose, ""]
        if name == "train":
            parts += [_boxes("\n".join(said[:-1])), *(_of_kind(kind.name) for kind in all_kinds())]
        else:
            parts.append(_boxes("\n".join(said)))
    parts.append(f"## Options of every command\n\n{_boxes(common)}")
    return "\n".join(parts)


def _of_kind(kind: str) -> str:
    """The options of a kind of model."""
    [words] = [box[0] for box in BOX.finditer(_help(f"train --model {kind}")) if "model" in box[1]]
    return f"### --model {kind}\n\n{_boxes(words)}"


def _help(command: str) -> str:
    """What a command's help prints on a terminal."""
    printed = io.TextIOWrapper(io.BytesIO(), encoding="utf-8")  # of which boxes are known to tyro
    with (
        patch.dict(os.environ, COLUMNS=str(WIDTH)),
        contextlib.redirect_stdout(printed),
        contextlib.suppress(SystemExit),
    ):
        cli.main([*command.split(), "--help"])
    printed.seek(0)
    return printed.read()


def _boxes(text: str) -> str:
    """The lines of boxes, without the boxes."""
    made = []
    for box in BOX.finditer(text):
        lines = [line.strip("│")[1:].rstrip() for line in box["lines"].splitlines()]
        made.append(f"{box['title'].capitalize()}:\n\n{_block(chr(10).join(lines))}")
    return "\n".join(made)


def _block(text: str) -> str:
    return f"```text\n{text}\n```\n"


# --- kinds of files --------------------------------------------------------------------------

FILES = """# All kinds of files

tipl writes JSON and safetensors, each file with the SHA-256 of what it holds, and reads every kind of file through one schema: a file with a value of a wrong type, or out of its bounds, is refused in a sentence. [Files from others](../files-from-others.md) says what a file of a stranger can do, and [the dataset on disk](../path-dataset.md) describes a dataset's arrays.

The schemas stand below as the code states them. `Natural` is a whole number of 0 or more, `Count` one of 1 or more, `Positive` a finite number above 0.

| file | name, or how it ends | |
|---|---|---|"""  # noqa: E501 since it is a page


def _files() -> str:
    """All kinds of files, and what stands in them."""
    for module in pkgutil.walk_packages(tipl.__path__, "tipl."):
        if not module.name.startswith(("tipl.integrations", "tipl.__main__")):
            importlib.import_module(module.name)  # where kinds of files are stated
    kinds = sorted(file_kinds(), key=_title)
    forms = {JsonFile: "JSON", TensorsFile: "safetensors"}
    rows = [
        f"| [{kind.expected}](#{_anchor(kind)}) | `{kind.name}` | {forms[type(kind)]} |"
        for kind in kinds
    ]
    return "\n".join([FILES, *rows, *map(_schema, kinds)])


def _schema(kind: JsonFile[Any] | TensorsFile[Any]) -> str:
    """What stands in a kind of file."""
    said: dict[str, str] = {}
    for owner in reversed(kind.schema.__mro__):
        said |= vars(owner).get("__annotations__", {})
    where = "" if isinstance(kind, JsonFile) else ", in its header beside the arrays"
    rows = [f"| `{name}` | `{of}` |" for name, of in said.items() if of != "ClassVar"]
    heading = f"\n## {_title(kind)} {{ #{_anchor(kind)} }}"
    return "\n".join([heading, f"\n`{kind.name}`{where}:\n", "| | type |", "|---|---|", *rows])


def _title(kind: JsonFile[Any] | TensorsFile[Any]) -> str:
    """What a kind of file is, without an article and without how it is made."""
    words = re.sub("^(the|a) ", "", kind.expected.partition(" (")[0])
    return words[0].upper() + words[1:]


def _anchor(kind: JsonFile[Any] | TensorsFile[Any]) -> str:
    return re.sub(r"\W+", "-", _title(kind).lower())


if __name__ == "__main__":
    for text in pages().values():
        print(text)
