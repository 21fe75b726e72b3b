"""Signals in the first moments of a command, when nothing has begun and little is imported.

`import tipl` calls `end_quietly` before all else; where tipl is a library, nothing changes.
"""

import os
import signal
import sys

ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
"""The signals that end a command."""


def leave(number: int, frame: object = None) -> None:
    """Ends the process at once; files are whole or not there whenever that happens."""
    try:
        sys.stdout.flush()
        shown = "\x1b[?25h" if sys.stderr.isatty() else ""  # the cursor, which a progress bar hides
        os.write(2, f"{shown}tipl: interrupted\n".encode())
    finally:
        os._exit(128 + number)


def end_quietly() -> None:
    """Lets signals that are not ignored end the process with a sentence, if it is a command."""
    program = sys.argv[0] if sys.argv else ""
    if program == "-m" or program.endswith("/tipl"):  # `python -m tipl`, or `tipl`
        for number in ENDING:
            if signal.getsignal(number) != signal.SIG_IGN:
                signal.signal(number, leave)
