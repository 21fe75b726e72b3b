"""`--trust-module`, which every command takes."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Annotated, Any, get_type_hints

from tyro.conf import UseAppendAction, arg

from tipl.core.trust import trust

Modules = Annotated[
    UseAppendAction[tuple[str, ...]],
    arg(
        metavar="NAME",
        help="a module that files may have imported, to register the environments of their tasks",
    ),
]


def trusting(command: Callable[..., Any]) -> Callable[..., Any]:
    """A command with an option for modules that are trusted while it runs: see `tipl.trust`."""
    function = getattr(command, "func", command)  # of a partial one

    @functools.wraps(function)
    def trusting_command(*args: Any, trust_module: tuple[str, ...] = (), **options: Any) -> Any:
        with trust(*trust_module):
            return command(*args, **options)

    # what tyro reads: else it would read the command's own
    del vars(trusting_command)["__wrapped__"]
    signature = inspect.signature(command)
    option = inspect.Parameter("trust_module", inspect.Parameter.KEYWORD_ONLY, default=())
    vars(trusting_command)["__signature__"] = signature.replace(
        parameters=[*signature.parameters.values(), option]
    )
    hints = get_type_hints(function, include_extras=True)
    trusting_command.__annotations__ = hints | {"trust_module": Modules}
    return trusting_command
