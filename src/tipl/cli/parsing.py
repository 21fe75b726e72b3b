"""Arguments of a command, read by tyro: what its help says, and what is said of wrong ones."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import inspect
import io
from collections.abc import Callable, Iterator, Sequence
from typing import Annotated, Any

import tyro
from tyro.conf import PositionalMetavarFromFieldName, arg
from tyro.constructors import (
    ConstructorRegistry,
    PrimitiveConstructorSpec,
    PrimitiveTypeInfo,
    StructConstructorSpec,
    StructFieldSpec,
    StructTypeInfo,
)

from tipl.cli.shared import Call, calling
from tipl.core import terminal
from tipl.errors import LONGEST_WORD, TiplError


def parsed(
    command: Callable[..., object], arguments: Sequence[str], name: str | None = None,
    description: str | None = None,
) -> Call:  # fmt: skip
    """A command with the arguments that are given; if they are no such, tyro says so and exits.

    Raises:
        TiplError: a configuration of them is not possible.
    """
    try:
        return tyro.cli(
            _with_hints(calling(command)),
            prog=name,
            description=description,
            args=arguments,
            config=(PositionalMetavarFromFieldName,),
            registry=registry(),
        )
    except _Refused as refused:
        raise refused.error from None


class _Refused(Exception):  # noqa: N818 since it is no error of its own
    """Carries what a configuration says past tyro, which would put it into a box."""

    def __init__(self, error: TiplError) -> None:
        super().__init__()
        self.error = error


def _in_our_words(make: Callable[..., Any]) -> Callable[..., Any]:
    """What makes a configuration, of whose errors tyro does not know what to think."""

    def made(*positional: Any, **named: Any) -> Any:
        try:
            return make(*positional, **named)
        except TiplError as error:
            raise _Refused(error) from error

    return made


@contextlib.contextmanager
def words_of_tyro(name: str, arguments: list[str]) -> Iterator[None]:
    """Lets tyro say what is wrong with arguments as it does, unless no terminal should show them.

    Raises:
        TiplError: they are wrong, and one of them is very long or holds control characters.
    """
    ordinary = all(one.isprintable() and len(one) <= LONGEST_WORD for one in arguments)
    words = io.StringIO()
    try:
        with contextlib.redirect_stderr(words), contextlib.ExitStack() as plain:
            if not ordinary:  # tyro has no colours where standard output is no terminal
                plain.enter_context(contextlib.redirect_stdout(io.StringIO()))
            yield
    except SystemExit as end:
        if end.code and not ordinary:
            said = terminal.without_boxes(words.getvalue())
            raise TiplError(f"{said}; `tipl {name} --help` explains its arguments") from None
        terminal.relay(words.getvalue())
        raise


# --- help ------------------------------------------------------------------------------------


def _default(label: str) -> str:
    """What the help adds to an option's own words; of none and nothing these say more."""
    return f"(default: {label})" if label not in ("None", "") else ""


_HINT = arg(help_behavior_hint=_default)


def _with_hints(command: Callable[..., Call]) -> Callable[..., Call]:
    """A function whose arguments have our hint."""
    hints = inspect.get_annotations(command)
    command.__annotations__ = {name: Annotated[one, _HINT] for name, one in hints.items()}
    return command


def _field(spec: StructFieldSpec) -> StructFieldSpec:
    """A field of a configuration with our hint, and its words on one line, as long as it may be."""

    def words() -> str | None:
        said = spec.helptext() if callable(spec.helptext) else spec.helptext
        return said and " ".join(said.split())

    hinted: Any = Annotated[spec.type, _HINT]
    return dataclasses.replace(spec, type=hinted, helptext=words)


@functools.cache
def registry() -> ConstructorRegistry:
    """What the help says of options that may be left out: their type, and no default None."""
    made, asked = ConstructorRegistry(), set[Any]()

    @made.struct_rule
    def configuration(info: StructTypeInfo) -> StructConstructorSpec | None:
        """Of a dataclass, as tyro has it, with our hints."""
        if info.type in asked or not dataclasses.is_dataclass(info.type):
            return None
        asked.add(info.type)
        spec = ConstructorRegistry.get_struct_spec(info)
        asked.remove(info.type)
        if not isinstance(spec, StructConstructorSpec):
            return None
        return StructConstructorSpec(
            _in_our_words(spec.instantiate), tuple(map(_field, spec.fields))
        )

    @made.primitive_rule
    def optional(info: PrimitiveTypeInfo) -> PrimitiveConstructorSpec[Any] | None:
        """Of what may be None: `INT` instead of `{None}|INT`."""
        if id(info) in asked:
            return None
        asked.add(id(info))
        spec = ConstructorRegistry.get_primitive_spec(info)
        asked.remove(id(info))
        if not isinstance(spec, PrimitiveConstructorSpec):
            return None
        metavar = spec.metavar.removeprefix("{None}|")
        if metavar == spec.metavar:
            return None
        if metavar.startswith("{[") and metavar.endswith("]}"):
            metavar = metavar[1:-1]
        return dataclasses.replace(spec, metavar=metavar)

    return made
