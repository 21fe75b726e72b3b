"""The command line: `tipl COMMAND ...`; each command is a function in a module of its own.

A command's module is imported when it is called, and at its top are only what its options need:
the libraries that do the work are imported in the function, after the options have been read. So
`tipl COMMAND --help` waits for none of them.
"""

from __future__ import annotations

import gc
import importlib
import os
import shlex
import sys
from collections.abc import Callable, Sequence
from contextvars import ContextVar

from tipl import __version__
from tipl.core import processes
from tipl.core.early import ENDING
from tipl.errors import TiplError, check_text, one_sentence, shown

__all__ = ["COMMANDS", "given_command", "main", "prepared_command"]

COMMANDS = {
    "demo": ("run", "do everything below on InvertedPendulum-v4, and write a report"),
    "collect": ("collect", "run PPO trials and store the paths of their weights"),
    "worlds make": ("worlds", "draw worlds: a task in other physics, in splits"),
    "worlds show": ("worlds", "say what is in a file of worlds"),
    "worlds check": ("worlds", "read back what worlds are, from environments stepped in them"),
    "worlds benchmark": ("run", "adapt to worlds that nobody has trained in, beside all rivals"),
    "paths show": ("paths", "say what is in a dataset of paths"),
    "paths verify": ("paths", "check every byte of a dataset of paths"),
    "paths evaluate": ("paths", "run the checkpoints of a dataset of paths in their environment"),
    "paths best": ("paths", "find the best policy in a dataset of paths, and save it"),
    "paths copy": ("paths", "copy a dataset of paths to an object store, from one, or on disk"),
    "train": ("train", "train a model on a dataset of paths"),
    "forecast": ("forecast", "forecast the weights of held-out trials"),
    "optimize": ("forecast", "make a better policy from an untrained one, by inference"),
    "adapt": ("adapt", "make a policy for a world that nobody has trained in, by inference"),
    "evaluate": ("evaluate", "run a policy, or a set of forecasts, in its environment"),
    "costs": ("run", "measure what the models and forecasts of a run take"),
    "film": ("evaluate", "film policies side by side, as an animated GIF and as stills"),
    "models": ("models", "list the models that ship with tipl"),
    "completion": ("completion", "print what lets a shell complete commands, options and files"),
    "report": ("run", "write the report of a run"),
    "benchmark": ("run", "test the paper's claims on a task, beside all rivals"),
    "accelerate": ("run", "train by PPO with jumps to forecasts, beside PPO alone and rivals"),
    "scaling": ("run", "grow data, model and training, and predict the largest before it is run"),
}
"""The module in `tipl.cli` that has each command, `paths show` as `paths_show`, and its purpose."""

GROUPS = {name.partition(" ")[0] for name in COMMANDS if " " in name}
"""First words of commands of two words."""

BETWEEN_COLLECTIONS = 50_000
"""Objects that are made before Python looks for garbage: imports make many, and keep all."""

Prepared = tuple[Callable[..., object], str | None]
"""A command for given arguments, and what it does, if its docstring does not say it."""

_given: ContextVar[tuple[str, ...]] = ContextVar("_given", default=())


def main(argv: Sequence[str] | None = None) -> None:
    """Runs a command and exits, with a sentence on standard error if anything went wrong.

    The exit status is 0 if all went well; 1 if `tipl paths verify` found something wrong, or after
    a fault of tipl itself; 2 for bad input, and for output that cannot be written; 130, 143 and 129
    if SIGINT, SIGTERM or SIGHUP ended it, also by way of a command that it had started; and 141 if
    the reader of its output has gone.

    Args:
        argv: the arguments; by default those of the process.
    """
    if argv is None:  # the process is ours, and a tenth of a refusal's time went into it
        gc.set_threshold(BETWEEN_COLLECTIONS)
    arguments = list(sys.argv[1:] if argv is None else argv)
    before = _given.set(("tipl", *arguments))
    try:
        with processes.interruptible(*ENDING, to_the_end=argv is None):
            from tipl.core import terminal

            with terminal.prepared():
                status = _status(arguments)
    except KeyboardInterrupt as interruption:  # in the moment before the command, or after it
        status = processes.exit_status(interruption)
    finally:
        _given.reset(before)
    if status is not None:
        raise SystemExit(status)


def _status(arguments: list[str]) -> int | None:
    """Runs a command, says what went wrong, and returns the exit status; None if all is done."""
    from tipl.core.system_errors import refusal
    from tipl.core.terminal import complain, drop_output

    status: int | None = None
    try:
        try:
            _run(arguments)
        except SystemExit as end:  # after some help, say
            status = end.code if isinstance(end.code, int) else int(bool(end.code))
        sys.stdout.flush()  # a reader that has gone is noticed here, not after us
        return status
    except TiplError as error:
        message, status = str(error), 2
        if isinstance(error.__cause__, KeyboardInterrupt):
            status = processes.exit_status(error.__cause__)
    except KeyboardInterrupt as interruption:
        message, status = "interrupted", processes.exit_status(interruption)
    except BrokenPipeError:  # the reader of our output, such as `head`, has gone
        drop_output()
        return 141
    except MemoryError as error:
        message, status = f"there is too little memory: {error}; ask for less at once", 2
    except (OSError, ValueError, RuntimeError) as error:
        reason = refusal(error)
        if reason is None:
            raise
        drop_output()  # nothing of ours, whose errors say more: such as a full disk at `>`
        what = error if isinstance(error, OSError) else f"{reason}: {error}"
        message, status = f"{what}; see to it, then run the same command again", 2
    complain(one_sentence(f"tipl: {message}"))
    return status


def given_command() -> str:
    """The command that `main` is running, as one would type it, whatever it is to print."""
    return shlex.join(one for one in _given.get() if one not in ("--json", "--quiet"))


def _run(arguments: list[str]) -> None:
    if arguments in (["--version"], ["-V"], ["version"]):
        from tipl.core.terminal import say

        say(f"tipl {__version__}")
        return
    if arguments[:1] == ["help"]:
        arguments = [*arguments[1:], "--help"]
    if not arguments or arguments[0] in ("--help", "-h"):
        _print_commands()
        return
    if arguments[0] in GROUPS and arguments[1:] in ([], ["--help"], ["-h"]):
        _print_commands(arguments[0])
        return
    try:
        os.getcwd()
    except FileNotFoundError as error:
        message = "the folder that you are in has been removed; go to another one"
        raise TiplError(message) from error
    words = 2 if " ".join(arguments[:2]) in COMMANDS else 1
    name = " ".join(arguments[:words])
    if name not in COMMANDS:
        from tipl.core.options import spelling_hint

        grouped = name in GROUPS
        given = " ".join(arguments[: 1 + grouped])
        wanted = [one for one in COMMANDS if one.startswith(f"{name} ")] if grouped else [*COMMANDS]
        # the words of a group are alike where it is named
        last = [one.rpartition(" ")[2] for one in wanted] if grouped else [*wanted, *GROUPS]
        hint = spelling_hint(arguments[grouped], last)
        raise TiplError(
            f"there is no command {shown(given)}; expected one of: {', '.join(wanted)}, each of "
            f"which --help explains; {hint}"
        )
    for argument in arguments:
        check_text(argument)  # before it is to be recorded
    from tipl.cli.parsing import parsed, words_of_tyro

    with words_of_tyro(name, arguments):
        command, description = prepared_command(name, arguments[words:])
        call = parsed(command, arguments[words:], f"tipl {name}", description)
    call.run()


def prepared_command(name: str, arguments: list[str]) -> Prepared:
    """The function of a command, for given arguments."""
    module = importlib.import_module(f"tipl.cli.{COMMANDS[name][0]}")
    command: Callable[..., object] = getattr(module, name.replace(" ", "_"))
    if hasattr(module, "prepared"):  # some options depend on others, or on the task
        prepared: Prepared = module.prepared(command, arguments)
        return prepared
    return command, None


def _print_commands(group: str | None = None) -> None:
    """Prints all commands, or those of a group, and what each is for."""
    from rich.table import Table
    from rich.text import Text

    from tipl.core import terminal

    console = terminal.console()
    purpose = "optimise the weights of reinforcement-learning policies by inference."
    console.print(Text.assemble(("tipl", "bold"), f" {__version__}: {purpose}"))
    usage = "COMMAND" if group is None else f"{group} COMMAND"
    console.print(f"\nUsage: tipl {usage} [--help] ...\n")
    table = Table(box=None, show_header=False, padding=(0, 2))
    for name, (_, purpose) in COMMANDS.items():
        if group is None or name.startswith(f"{group} "):
            table.add_row(Text(name, "bold"), purpose)
    console.print(table)
    if group is None:
        console.print(
            "\nStart with: tipl demo\nOr step by step: collect, train, forecast, evaluate."
        )
