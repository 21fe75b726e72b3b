"""The command line: `tipl COMMAND ...`; each command is a function in a module of its own.

A command's module is imported when it is called, and at its top are only what its options need:
the libraries that do the work are imported in the function, after the options have been read. So
`tipl COMMAND --help` waits for none of them.
"""

from __future__ import annotations

import contextlib
import importlib
import os
import shlex
import sys
from collections.abc import Sequence
from contextvars import ContextVar

from tipl import __version__
from tipl.errors import TiplError

__all__ = ["COMMANDS", "MODULES", "given_command", "main"]

COMMANDS = {
    "demo": "do everything below on InvertedPendulum-v4, and write a report",
    "collect": "run PPO trials and store the paths of their weights",
    "paths show": "say what is in a dataset of paths",
    "paths verify": "check every byte of a dataset of paths",
    "paths evaluate": "run the checkpoints of a dataset of paths in their environment",
    "paths best": "find the best policy in a dataset of paths, and save it",
    "train": "train a model on a dataset of paths",
    "forecast": "forecast the weights of held-out trials",
    "optimize": "make a better policy from an untrained one, by inference",
    "evaluate": "run a policy, or a set of forecasts, in its environment",
    "costs": "measure what the models and forecasts of a run take",
    "film": "film policies side by side, as an animated GIF and as stills",
    "report": "write the report of a run",
    "benchmark": "test the paper's claims on a task, beside all rivals",
    "accelerate": "train by PPO with jumps to forecasts, beside PPO alone and rivals",
}
"""What each command does; `paths show` is the function `paths_show` in `tipl.cli.paths`."""

MODULES = {
    "costs": "run",
    "demo": "run",
    "film": "evaluate",
    "optimize": "forecast",
    "report": "run",
    "benchmark": "run",
    "accelerate": "run",
}
"""The module in `tipl.cli` of each command that is not in the one of its own first word."""

_given: ContextVar[tuple[str, ...]] = ContextVar("_given", default=())


def main(argv: Sequence[str] | None = None) -> None:
    """Runs a command and exits: 0 if all went well, 2 for bad input, 130 if interrupted.

    Args:
        argv: the arguments; by default those of the process.
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    before = _given.set(("tipl", *arguments))
    try:
        _run(arguments)
        sys.stdout.flush()  # a reader that has gone is noticed here, not after us
    except TiplError as error:
        print(f"tipl: {error}", file=sys.stderr)
        interrupted = isinstance(error.__cause__, KeyboardInterrupt)
        raise SystemExit(130 if interrupted else 2) from None
    except KeyboardInterrupt:
        print("tipl: interrupted", file=sys.stderr)
        raise SystemExit(130) from None
    except BrokenPipeError:  # the reader of our output, such as `head`, has gone
        _drop_output()
        raise SystemExit(141) from None
    except MemoryError as error:
        print(f"tipl: there is too little memory: {error}; ask for less at once", file=sys.stderr)
        raise SystemExit(2) from None
    except OSError as error:  # nothing of ours, whose errors say more: such as a full disk at `>`
        print(f"tipl: {error}; see to it, then run the same command again", file=sys.stderr)
        _drop_output()
        raise SystemExit(2) from None
    finally:
        _given.reset(before)


def _drop_output() -> None:
    """Lets nothing complain any more, at the process' end, that output could not be written."""
    with contextlib.suppress(OSError):
        sys.stdout.flush()
    with contextlib.suppress(OSError):  # what stands in for a file has no number
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def given_command() -> str:
    """The command that `main` is running, as one would type it."""
    return shlex.join(_given.get())


def _run(arguments: list[str]) -> None:
    if arguments in (["--version"], ["-V"]):
        print(f"tipl {__version__}")
        return
    if not arguments or arguments[0] in ("--help", "-h"):
        _print_commands()
        return
    words = 2 if " ".join(arguments[:2]) in COMMANDS else 1
    name = " ".join(arguments[:words])
    if name not in COMMANDS:
        relatives = [command for command in COMMANDS if command.startswith(f"{name} ")]
        wanted = relatives or COMMANDS
        raise TiplError(
            f"there is no command {' '.join(arguments[:2])!r}; expected one of: "
            f"{', '.join(wanted)}. `tipl COMMAND --help` explains each"
        )
    import tyro

    module = importlib.import_module(f"tipl.cli.{MODULES.get(name, name.split()[0])}")
    function = getattr(module, name.replace(" ", "_"))
    if hasattr(function, "for_arguments"):  # some options depend on others, or on the task
        function = function.for_arguments(arguments[words:])
    tyro.cli(function, prog=f"tipl {name}", args=arguments[words:])


def _print_commands() -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console = Console()
    console.print(
        Text.assemble(
            ("tipl", "bold"),
            f" {__version__}: optimise the weights of reinforcement-learning policies by "
            "inference.\n\nUsage: tipl COMMAND [--help] ...\n",
        )
    )
    table = Table(box=None, show_header=False, padding=(0, 2))
    for name, purpose in COMMANDS.items():
        table.add_row(Text(name, style="bold"), purpose)
    console.print(table)
    console.print(
        "\nStart with: tipl demo\nOr step by step: collect, train, forecast, evaluate.",
        highlight=False,
    )
