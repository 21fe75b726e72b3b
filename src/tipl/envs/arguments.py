"""Arguments of environments and wrappers that come from a file: which of them are believed.

They reach constructors, of Gymnasium or of somebody's own, which open what a text names and work as
often as a number says. So texts that could be paths, addresses or code need the user's word, and
numbers of which there could be too many are bounded.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from tipl.core.trust import is_trusted_argument, trust
from tipl.errors import TiplError, shown

# Of a plain word Gymnasium makes no path outside its own files, and nobody an address or an option.
_PLAIN = re.compile(r"(?:\w[\w .,+=-]*)?")

# Numbers of simulation steps, pixels, copies of observations, ...
_COUNTS = {
    *("frame_skip", "width", "height", "max_geom", "stack_size", "delay", "skip", "noop_max"),
    *("screen_size", "shape", "bins", "num_repeats", "repeat_action_duration"),
}
_HIGHEST = 10_000


def trust_arguments(kwargs: Mapping[str, Any]) -> None:
    """Trusts all texts among the arguments of an environment that the user has made."""
    trust(arguments=[text for text in _texts(kwargs) if not _PLAIN.fullmatch(text)])


def check_believed(task: str, kwargs: Mapping[str, Any]) -> None:
    """Raises a TiplError unless arguments from the text of a task may reach a constructor.

    Args:
        task: the task's name, for readers.
        kwargs: those that are not as registered.
    """
    for name, value in kwargs.items():
        for text in _texts(value):
            if not _PLAIN.fullmatch(text) and not is_trusted_argument(text):
                raise TiplError(
                    f"the task {shown(task)} gives its environment the argument {shown(name)} with "
                    f"the text {shown(text, 200)}, which may name a file or code: expected your "
                    "word before a file names either; if you trust it, give it to --trust-argument "
                    "of the command, or to tipl.trust(arguments=[...]) first"
                )
        if name in _COUNTS and any(abs(number) > _HIGHEST for number in _numbers(value)):
            raise TiplError(
                f"the task {shown(task)} gives its environment {name}={shown(value)}: expected at "
                f"most {_HIGHEST:,}; register an environment with it under an id of its own"
            )


def _texts(value: Any) -> Iterator[str]:
    return (one for one in _leaves(value) if isinstance(one, str))


def _numbers(value: Any) -> Iterator[float]:
    return (one for one in _leaves(value) if isinstance(one, int | float))


def _leaves(value: Any) -> Iterator[Any]:
    """Everything that is in lists and mappings, and the names in these."""
    left = [value]  # no recursion: a file may be as deep as it likes
    while left:
        one = left.pop()
        if isinstance(one, Mapping):
            left += [*one, *one.values()]
        elif isinstance(one, list | tuple):
            left += one
        else:
            yield one
