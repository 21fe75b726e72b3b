"""Commands of tipl in the process of a test, which need not wait for imports."""

from __future__ import annotations

import contextlib
import io
import resource
from collections.abc import Sequence

from tipl.cli import main


def run_tipl(words: Sequence[str], quiet: bool) -> tuple[int, resource.struct_rusage, str]:
    """Stands in for `tipl.experiments.stages._run_tipl`."""
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        try:
            main(words)
        except SystemExit as end:
            return int(end.code or 0), resource.getrusage(resource.RUSAGE_SELF), "failed"
    return 0, resource.getrusage(resource.RUSAGE_SELF), ""
