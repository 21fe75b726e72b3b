"""Commands of tipl in the process of a test, which need not wait for imports."""

from __future__ import annotations

import contextlib
import io
import time
from collections.abc import Sequence

from tipl.cli import main
from tipl.experiments.pipeline import Ended

LITTLE_LEARNING = ("--ppo.num-minibatches", "2", "--ppo.update-epochs", "2")
"""Where paths are needed and not good ones: 4 updates an iteration instead of 320."""


def run_tipl(words: Sequence[str], quiet: bool) -> Ended:
    """Stands in for `tipl.experiments.pipeline._run_tipl`; PPO learns little."""
    if words[0] == "collect":
        words = [*words, *LITTLE_LEARNING]
    start = time.process_time()
    said = io.StringIO()
    status = 0
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(said):
        try:
            main(words)
        except SystemExit as end:
            status = int(end.code or 0)
    last_words = said.getvalue().strip().rpartition("\n")[2]
    return Ended(status, time.process_time() - start, 300.0, last_words)
