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
from collections.abc import Callable, Sequence
from contextvars import ContextVar

from tipl import __version__
from tipl.errors import TiplError

__all__ = ["COMMANDS", "given_command", "main"]

COMMANDS = {
    "demo": ("run", "do everything below on InvertedPendulum-v4, and write a report"),
    "collect": ("collect", "run PPO trials and store the paths of their weights"),
    "paths show": ("paths", "say what is in a dataset of paths"),
    "paths verify": ("paths", "check every byte of a dataset of paths"),
    "paths evaluate": ("paths", "run the checkpoints of a dataset of paths in their environment"),
    "paths best": ("paths", "find the best policy in a dataset of paths, and save it"),
    "train": ("train", "train a model on a dataset of paths"),
    "forecast": ("forecast", "forecast the weights of held-out trials"),
    "optimize": ("forecast", "make a better policy from an untrained one, by inference"),
    "evaluate": ("evaluate", "run a policy, or a set of forecasts, in its environment"),
    "costs": ("run", "measure what the models and forecasts of a run take"),
    "film": ("evaluate", "film policies side by side, as an animated GIF and as stills"),
    "report": ("run", "write the report of a run"),
    "benchmark": ("run", "test the paper's claims on a task, beside all rivals"),
    "accelerate": ("run", "train by PPO with jumps to forecasts, beside PPO alone and rivals"),
}
"""The module in `tipl.cli` that has each command, `paths show` as `paths_show`, and its purpose."""

Prepared = tuple[Callable[..., None], str | None]
"""A command for given arguments, and what it does, if its docstring does not say it."""

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
        return
    except TiplError as error:
        message, code = str(error), 130 if isinstance(error.__cause__, KeyboardInterrupt) else 2
    except KeyboardInterrupt:
        message, code = "interrupted", 130
    except BrokenPipeError:  # the reader of our output, such as `head`, has gone
        _drop_output()
        raise SystemExit(141) from None
    except MemoryError as error:
        message, code = f"there is too little memory: {error}; ask for less at once", 2
    except OSError as error:  # nothing of ours, whose errors say more: such as a full disk at `>`
        _drop_output()
        message, code = f"{error}; see to it, then run the same command again", 2
    finally:
        _given.reset(before)
    print(f"tipl: {message}", file=sys.stderr)
    raise SystemExit(code)


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

    from tipl.cli.trusting import trusting

    module = importlib.import_module(f"tipl.cli.{COMMANDS[name][0]}")
    command, arguments = getattr(module, name.replace(" ", "_")), arguments[words:]
    description = None  # but for the function's own
    if hasattr(module, "prepared"):  # some options depend on others, or on the task
        command, description = module.prepared(command, arguments)
    tyro.cli(trusting(command), prog=f"tipl {name}", description=description, args=arguments)


def _print_commands() -> None:
    from rich.console import Console
    from rich.table import Table

    console = Console(highlight=False)
    console.print(
        f"[bold]tipl[/] {__version__}: optimise the weights of reinforcement-learning policies by "
        "inference.\n\nUsage: tipl COMMAND [--help] ...\n"
    )
    table = Table(box=None, show_header=False, padding=(0, 2))
    for name, (_, purpose) in COMMANDS.items():
        table.add_row(f"[bold]{name}", purpose)
    console.print(table)
    console.print("\nStart with: tipl demo\nOr step by step: collect, train, forecast, evaluate.")
