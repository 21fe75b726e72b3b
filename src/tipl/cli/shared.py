"""What every command has: what it trusts, and how it prints what it found."""

from __future__ import annotations

import functools
import inspect
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any, get_type_hints

from tyro.conf import FlagCreatePairsOff, OmitArgPrefixes, UseAppendAction, arg

from tipl.core.terminal import Manner, answer, speaking
from tipl.core.trust import trust

Factors = Annotated[tuple[str, ...], arg(metavar="NAME=FACTOR")]
"""Options that name a world, such as `gravity=1.3 mass=0.8`."""


@dataclass(frozen=True)
class Shared:
    """Options of every command."""

    json: FlagCreatePairsOff[bool] = False
    """print the results as one JSON value, and nothing else on standard output"""
    quiet: FlagCreatePairsOff[bool] = False
    """print results, warnings and errors alone: no progress, and no word on what was done"""
    trust_module: Annotated[UseAppendAction[tuple[str, ...]], arg(metavar="NAME")] = ()
    """a module that files may have imported, to register the environments of their tasks; may be
    given several times"""
    trust_argument: Annotated[UseAppendAction[tuple[str, ...]], arg(metavar="TEXT")] = ()
    """what files may give to an environment though it could name a file or code, such as a path;
    may be given several times"""


class Wrong(SystemExit):
    """Ends a command with status 1 that has found what it looked for: something wrong."""

    def __init__(self, found: object) -> None:
        super().__init__(1)
        self.found = found


@dataclass(frozen=True)
class Call:
    """A command with its arguments, as they were given."""

    command: Callable[..., object]
    positional: tuple[Any, ...]
    named: dict[str, Any]
    shared: Shared

    def run(self) -> None:
        """Runs the command, and prints what it returns, its results as data, if that is wanted."""
        trusted = self.shared.trust_module, self.shared.trust_argument
        manner = Manner(self.shared.json, self.shared.quiet)
        with trust(*trusted[0], arguments=trusted[1]), speaking(manner):
            try:
                found = self.command(*self.positional, **self.named)
            except Wrong as wrong:
                answer(wrong.found)
                raise
            answer(found)


def calling(command: Callable[..., object]) -> Callable[..., Call]:
    """What makes calls of a command, with its options and those of every command."""
    function = getattr(command, "func", command)  # of a partial one

    @functools.wraps(function)
    def call(*positional: Any, shared: Shared = Shared(), **named: Any) -> Call:
        return Call(command, positional, named, shared)

    # what tyro reads: else it would read the command's own
    del vars(call)["__wrapped__"]
    signature = inspect.signature(command)
    ours = inspect.Parameter("shared", inspect.Parameter.KEYWORD_ONLY, default=Shared())
    vars(call)["__signature__"] = signature.replace(
        parameters=[*signature.parameters.values(), ours]
    )
    hints = get_type_hints(function, include_extras=True)
    hints["shared"] = Annotated[Shared, OmitArgPrefixes, arg(name="common")]
    call.__annotations__ = hints | {"return": Call}
    # what is said of an argument is one line, however long it may be
    call.__doc__ = re.sub(r"\n {8,}(?=\S)", " ", inspect.getdoc(function) or "")
    return call
