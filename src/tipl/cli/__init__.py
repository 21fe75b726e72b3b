"""The command line: `tipl COMMAND ...`; each command is a function in a module of its own.

A command's module is imported when it is called, so that `tipl --help` need not wait for the
libraries that only some commands use.
"""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Sequence

import tyro
from rich.console import Console
from rich.table import Table
from rich.text import Text

from tipl import __version__
from tipl.errors import TiplError

__all__ = ["COMMANDS", "main"]

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
    "film": "film policies side by side, as an animated GIF and as stills",
    "report": "write the report of a run",
    "benchmark": "test the paper's claims on a task, beside all rivals",
    "accelerate": "train by PPO with jumps to forecasts, beside PPO alone and rivals",
}
"""What each command does; `paths show` is the function `paths_show` in `tipl.cli.paths_show`."""


def main(argv: Sequence[str] | None = None) -> None:
    """Runs a command and exits: 0 if all went well, 2 for bad input, 130 if interrupted.

    Args:
        argv: the arguments; by default those of the process.
    """
    try:
        _run(list(sys.argv[1:] if argv is None else argv))
        sys.stdout.flush()  # a reader that has gone is noticed here, not after us
    except TiplError as error:
        print(f"tipl: {error}", file=sys.stderr)
        interrupted = isinstance(error.__cause__, KeyboardInterrupt)
        raise SystemExit(130 if interrupted else 2) from None
    except KeyboardInterrupt:
        print("tipl: interrupted", file=sys.stderr)
        raise SystemExit(130) from None
    except BrokenPipeError:  # the reader of our output, such as `head`, has gone
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise SystemExit(141) from None


def _run(arguments: list[str]) -> None:
    if arguments in (["--version"], ["-V"]):
        print(f"tipl {__version__}")
        return
    if not arguments or arguments[0] in ("--help", "-h"):
        _print_commands(Console())
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
    function_name = name.replace(" ", "_")
    module = importlib.import_module(f"tipl.cli.{function_name}")
    function = getattr(module, function_name)
    tyro.cli(function, prog=f"tipl {name}", args=arguments[words:])


def _print_commands(console: Console) -> None:
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
