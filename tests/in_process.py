"""Commands of tipl in the process of a test, which need not wait for imports."""

from __future__ import annotations

import contextlib
import functools
import io
import time
from collections.abc import Sequence

import pytest

from tipl.cli import main
from tipl.evaluation.film import film
from tipl.experiments.pipeline import Ended

SHORTER = 8
"""Rollouts have an eighth of their steps: with such trials, iterations stay as many."""
LITTLE_LEARNING = (
    *("--ppo.num-steps", "256"),
    *("--ppo.num-minibatches", "2", "--ppo.update-epochs", "2"),
)
"""Where paths are needed and not good ones: 4 updates an iteration instead of 320."""

SMALL_BATCHES = ("--batch-size", "4")
"""Where models are needed and not good ones: an eighth of the networks in every loss."""
SMALL_NETWORKS = (
    *("--memory", "64", "--fresh-widths", "16", "--fresh-depths", "1"),
    *("--rounds", "1", "--width", "16"),
)
"""A NeuronTransformer, those that it learns to carry, and what it remembers of the elite policy."""


STARTING = 0.3
"""Seconds of processor time that a process of its own takes to start, and no command is below."""


def do_little(patch: pytest.MonkeyPatch) -> None:
    """Intervals are of few samples, policies are run briefly to see where they go, films small."""
    small = functools.partial(film, num_frames=24, width=240, height=140)
    patch.setattr("tipl.experiments.films.film", small)
    patch.setattr("tipl.evaluation.stats.RESAMPLES", 100)
    patch.setattr("tipl.evaluation.behaviour.NUM_ROLLOUTS", 8)
    patch.setattr("tipl.evaluation.behaviour.STEPS_OF_ROLLOUT", 50)
    patch.setattr("tipl.models.neuron_transformer.losses.VISITING_STEPS", 10)
    patch.setattr("tipl.models.loop.HELD_OUT_BATCHES", 1)


def run_tipl(words: Sequence[str], quiet: bool, shorter: int = SHORTER) -> Ended:
    """Stands in for `tipl.experiments.pipeline._run_tipl`; PPO and models learn little."""
    if words[0] == "collect":
        words = [*words, *LITTLE_LEARNING]
        steps = words.index("--total-steps") + 1
        words[steps] = str(int(words[steps]) // shorter)
    if words[0] == "train":
        words = [*words, *SMALL_BATCHES, *(SMALL_NETWORKS if "neuron" in words else ())]
    start = time.process_time()
    said = io.StringIO()
    status = 0
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(said):
        try:
            main(words)
        except SystemExit as end:
            status = int(end.code or 0)
    last_words = said.getvalue().strip().rpartition("\n")[2]
    return Ended(status, STARTING + time.process_time() - start, 300.0, last_words)
