"""The one exception that tipl raises for bad input."""

from __future__ import annotations


class TiplError(ValueError):
    """Bad input, explained in one sentence.

    The message names what was given, what was expected and what to do. The command line prints
    it without a traceback and exits with status 2. Where it ends work that had begun, what had been
    finished by then stays on the disk, and no file is left half written.
    """
