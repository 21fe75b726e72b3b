"""Pieces as jobs of SLURM, by submitit, which takes up again what is preempted or out of time."""

from __future__ import annotations

import contextlib
import shutil
import signal
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from tipl.core.engines.driver import Driver, LostError, run_remotely
from tipl.core.engines.work import Outcome, Work
from tipl.core.options import thread_count
from tipl.core.processes import interruptible
from tipl.core.progress import CollectionProgress
from tipl.core.trust import trusted
from tipl.errors import TiplError, one_sentence, shown

MINUTES = 240
"""Of a job, unless a time is given: then it is taken up again where it was."""


def check_submitit(address: str) -> None:
    """Raises a TiplError if submitit is not installed, or there is no SLURM here."""
    if find_spec("submitit") is None:
        raise TiplError(
            "the engine submitit was given, but submitit is not installed: install it with pip "
            "install 'tipl[slurm]'"
        )
    if address == "slurm" and shutil.which("sbatch") is None:
        raise TiplError(
            "the engine submitit was given, but there is no SLURM here (no sbatch): run it on a "
            "machine of the cluster, or add --address local, which runs the jobs here"
        )


class Submitit:
    """Runs pieces as jobs of one processor each and the memory they need.

    submitit keeps what it sends to jobs, and what they print, in a folder beside the directory.

    Args:
        address: `"slurm"` or `"local"`.
        parameters: of SLURM's jobs, such as `"partition=cpu"`, or `"time=240"` in minutes.
        at_once: jobs that may run at once; None for all, and of local ones one for each processor.
    """

    def __init__(self, address: str, parameters: Sequence[str], at_once: int | None) -> None:
        self.address, self.at_once = address, at_once
        if address == "local":
            self.at_once = thread_count(at_once)
        given = dict(text.split("=", 1) for text in parameters)
        self.parameters = {
            f"slurm_{name}": int(value) if value.isdigit() else value
            for name, value in given.items()
        }

    def run(self, work: Work, pieces: Sequence[int], bar: CollectionProgress) -> dict[int, Outcome]:
        """Runs pieces to their end; what came of each."""
        jobs = _Jobs(self.executor(work.directory, work.memory))
        # those of SLURM wait in its queue, and the array says how many run at once
        at_once = self.at_once if self.address == "local" else None
        with interruptible(signal.SIGTERM):
            return Driver(jobs, at_once).run(work, pieces, bar)

    def executor(self, directory: Path, memory: int) -> Any:
        """Who submits the jobs of a work in a directory, of which each needs so many bytes.

        Raises:
            TiplError: jobs have no such parameters.
        """
        import submitit

        folder = directory.absolute()
        folder = folder.with_name(f"{folder.name}.jobs")
        executor = submitit.AutoExecutor(folder, cluster=self.address)
        parameters: dict[str, Any] = {
            "name": "tipl", "timeout_min": MINUTES, "cpus_per_task": 1,
            "mem_gb": max(1, -(-memory // 2**30)),
        }  # fmt: skip
        if self.address == "slurm" and self.at_once is not None:
            parameters["slurm_array_parallelism"] = self.at_once
        try:
            executor.update_parameters(**parameters | self.parameters)
        except (AssertionError, NameError, TypeError, ValueError) as error:
            given = {name.removeprefix("slurm_"): v for name, v in self.parameters.items()}
            raise TiplError(
                f"submitit does not take the parameters {shown(given)}: "
                f"{one_sentence(str(error))}; give those that sbatch has"
            ) from error
        return executor


class _Jobs:
    """Where jobs are submitted."""

    def __init__(self, executor: Any) -> None:
        self.executor = executor

    def submit(self, work: Work, pieces: Sequence[int]) -> list[_Job]:
        """A job for each piece, in one array."""
        call = Attempt(work, trusted())
        if len(pieces) == 1:  # SLURM needs no array for it
            return [_Job(self.executor.submit(call, pieces[0]))]
        return [_Job(job) for job in self.executor.map_array(call, pieces)]


class Attempt:
    """What a job calls; submitit submits it again when the job is preempted or out of time."""

    def __init__(self, work: Work, names: dict[str, list[str]]) -> None:
        self.work, self.names = work, names

    def __call__(self, piece: int) -> Outcome:
        """Runs a piece."""
        return run_remotely(self.work, piece, self.names)

    def checkpoint(self, piece: int) -> Any:
        """The same once more, which goes on from the disk."""
        import submitit

        return submitit.helpers.DelayedSubmission(self, piece)


class _Job:
    """A job of submitit."""

    def __init__(self, job: Any) -> None:
        self.job = job

    def is_over(self) -> bool:
        """Whether it has ended, somehow."""
        return bool(self.job.done())

    def outcome(self) -> Outcome:
        """What came of it; a LostError if that is not known."""
        import submitit

        try:
            outcome: Outcome = self.job.result()
        except (submitit.core.utils.UncompletedJobError, OSError) as error:
            lines = [line for line in str(error).splitlines() if line.strip()]
            said = " ".join(lines[:1] + lines[-1:][len(lines) < 2 :])
            raise LostError(one_sentence(f"job {self.job.job_id}: {said}")) from error
        return outcome

    def cancel(self) -> None:
        """Ends it."""
        with contextlib.suppress(OSError):
            self.job.cancel()
