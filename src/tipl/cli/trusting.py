"""`--trust-module` and `--trust-argument`, which every command takes."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Annotated, Any, get_type_hints

from tyro.conf import UseAppendAction, arg

from tipl.core.trust import trust

OPTIONS = {
    "trust_module": Annotated[
        UseAppendAction[tuple[str, ...]],
        arg(
            metavar="NAME",
            help="a module that files may have imported, to register the environments of their "
            "tasks",
        ),
    ],
    "trust_argument": Annotated[
        UseAppendAction[tuple[str, ...]],
        arg(
            metavar="TEXT",
            help="what files may give to an environment though it could name a file or code, such "
            "as a path",
        ),
    ],
}


def trusting(command: Callable[..., Any]) -> Callable[..., Any]:
    """A command with options for what is trusted while it runs: see `tipl.trust`."""
    function = getattr(command, "func", command)  # of a partial one

    @functools.wraps(function)
    def trusting_command(
        *args: Any,
        trust_module: tuple[str, ...] = (),
        trust_argument: tuple[str, ...] = (),
        **options: Any,
    ) -> Any:
        with trust(*trust_module, arguments=trust_argument):
            return command(*args, **options)

    # what tyro reads: else it would read the command's own
    del vars(trusting_command)["__wrapped__"]
    signature = inspect.signature(command)
    ours = [inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=()) for name in OPTIONS]
    vars(trusting_command)["__signature__"] = signature.replace(
        parameters=[*signature.parameters.values(), *ours]
    )
    hints = get_type_hints(function, include_extras=True)
    trusting_command.__annotations__ = hints | OPTIONS
    return trusting_command
