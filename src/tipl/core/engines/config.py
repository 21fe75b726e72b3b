"""Which engine runs the pieces of something long, and where."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Annotated, Literal, get_args

from tyro.conf import UseAppendAction

from tipl.core.options import one_of
from tipl.errors import TiplError, shown

if TYPE_CHECKING:
    from tipl.core.engines.work import Engine

Name = Literal["threads", "ray", "submitit"]


@dataclasses.dataclass(frozen=True)
class EngineConfig:
    """Where groups of trials run. Their bytes are the same everywhere."""

    engine: Name = "threads"
    """where groups of trials run: in threads here, on a Ray cluster, or in jobs of SLURM"""
    address: str | None = None
    """of a Ray cluster: auto (the one that this machine belongs to, the default), host:port, or
    local, which starts one here; of submitit: slurm (default), or local, which runs jobs here"""
    slurm: Annotated[tuple[str, ...], UseAppendAction] = ()
    """a parameter of submitit's jobs, such as partition=cpu or time=240, in minutes (may be given
    several times)"""

    def __post_init__(self) -> None:
        one_of(get_args(Name), engine=self.engine)
        if self.engine == "threads" and self.address is not None:
            raise TiplError(
                f"the address {shown(self.address)} was given with the engine threads, which runs "
                "here; give an engine that has one, such as --engine ray"
            )
        if self.engine == "submitit":
            one_of(("slurm", "local"), "submitit", address=self.address or "slurm")
        if self.slurm and self.engine != "submitit":
            raise TiplError(
                f"parameters of SLURM's jobs were given with the engine {self.engine}; give them "
                "with --engine submitit"
            )
        for text in self.slurm:
            name, equals, value = text.partition("=")
            if not (name.isidentifier() and equals and value):
                raise TiplError(
                    f"{shown(text)} was given as a parameter of SLURM's jobs; expected a name and "
                    "a value, such as partition=cpu"
                )

    @property
    def elsewhere(self) -> bool:
        """Whether other processes run the pieces."""
        return self.engine != "threads"

    def check(self) -> None:
        """Raises a TiplError if the engine is not installed, or nothing answers at its address."""
        if self.engine == "ray":
            from tipl.core.engines.ray import check_ray

            check_ray(self.address or "auto")
        elif self.engine == "submitit":
            from tipl.core.engines.submitit import check_submitit

            check_submitit(self.address or "slurm")

    def make(self, at_once: int | None) -> Engine:
        """The engine, for so many pieces at once; None is as many as it has room for."""
        self.check()
        if self.engine == "ray":
            from tipl.core.engines.ray import Ray

            return Ray(self.address or "auto", at_once)
        if self.engine == "submitit":
            from tipl.core.engines.submitit import Submitit

            return Submitit(self.address or "slurm", self.slurm, at_once)
        from tipl.core.engines.threads import Threads
        from tipl.core.options import thread_count

        return Threads(thread_count(at_once))
