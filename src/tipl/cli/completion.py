"""`tipl completion`."""

from __future__ import annotations

import contextlib
import dataclasses
import io
from collections.abc import Callable
from typing import Annotated, Any, Literal, Union

import tyro
from tyro.conf import OmitSubcommandPrefixes, Positional, arg, subcommand

from tipl.cli import COMMANDS, prepared_command
from tipl.cli.parsing import registry
from tipl.cli.shared import calling
from tipl.core.terminal import say


def completion(shell: Positional[Literal["bash", "zsh", "fish"]], /) -> str:
    """Print what lets a shell complete commands, options and the names of files.

    Once for all shells that are opened from then on:

    bash: tipl completion bash > ~/.local/share/bash-completion/completions/tipl

    zsh: tipl completion zsh > "${fpath[1]}/_tipl"

    fish: tipl completion fish > ~/.config/fish/completions/tipl.fish

    Args:
        shell: that the script is for
    """
    script = io.StringIO()
    asked = ["--tyro-print-completion", shell]
    with contextlib.redirect_stdout(script), contextlib.suppress(SystemExit):
        tyro.cli(
            _all_commands(),
            prog="tipl",
            args=asked,
            config=(OmitSubcommandPrefixes,),
            registry=registry(),
        )
    # where it knows nothing, bash is to complete names of files
    text = script.getvalue().replace("complete -F ", "complete -o default -F ")
    text = text.expandtabs(1)  # in comments alone
    say(*text.splitlines())
    return text


def _all_commands() -> Any:
    """All commands as one type that tyro reads, groups as choices within a choice."""
    groups: dict[str, list[Any]] = {}
    for name, (_, purpose) in COMMANDS.items():
        group, _, last = name.rpartition(" ")
        one = calling(prepared_command(name, [])[0])
        groups.setdefault(group, []).append(_choice(last, one, purpose))
    commands = groups.pop("")
    for group, those in groups.items():
        chosen: Any = Annotated[Union[tuple(those)], arg(name="")]  # noqa: UP007
        made = dataclasses.make_dataclass(group, [("command", chosen)])
        commands.append(_choice(group, made, f"commands of {group}"))
    return Union[tuple(commands)]  # noqa: UP007 since they are known here alone


def _choice(name: str, made: Callable[..., object], description: str) -> Any:
    return Annotated[Any, subcommand(name, constructor=made, description=description)]
