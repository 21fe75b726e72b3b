"""What files of tipl may say: each kind of file once, with the types of all that is in it.

A kind of file is a `JsonFile` or a `TensorsFile`; what is read through one is an instance of its
schema, whose types and bounds `msgspec` has checked, so that no code behind it meets a text where a
number should be. `file_kinds` lists all of them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Generic, TypeAlias, TypeVar, cast

import msgspec

from tipl.core import storage
from tipl.core.arrays import Array
from tipl.errors import TiplError

LARGEST = 2**53
"""Of whole numbers: what a float64 still tells from its neighbours."""

Natural: TypeAlias = Annotated[int, msgspec.Meta(ge=0, le=LARGEST)]
"""A whole number of 0 or more."""

Count: TypeAlias = Annotated[int, msgspec.Meta(ge=1, le=LARGEST)]
"""A whole number of 1 or more."""

Positive: TypeAlias = Annotated[float, msgspec.Meta(gt=0)]
"""A finite number above 0 (JSON has no infinity)."""

NotNegative: TypeAlias = Annotated[float, msgspec.Meta(ge=0)]
"""A finite number of 0 or more."""

SchemaT = TypeVar("SchemaT")

_KINDS: list[JsonFile[Any] | TensorsFile[Any]] = []


@dataclass(frozen=True)
class JsonFile(Generic[SchemaT]):
    """A kind of JSON file that tipl writes."""

    name: str
    """of such a file, or how such names end"""
    schema: type[SchemaT]
    """a dataclass or `msgspec.Struct`: what the file says, without its hash; a class that does not
    have its fields as they stand there has a `from_json`"""
    expected: str
    """what it is and how it is made, for messages"""

    def __post_init__(self) -> None:
        _KINDS.append(self)

    def read(self, path: str | Path) -> SchemaT:
        """What a file says.

        Raises:
            TiplError: there is none, it is damaged, or it says something impossible.
        """
        data = storage.read_json(path, self.expected)
        from_json = getattr(self.schema, "from_json", None)
        if from_json is None:
            return conforming(data, self.schema, str(path))
        try:
            return cast("SchemaT", from_json(data))
        except TiplError as error:
            raise TiplError(f"{path}: {error}") from error


@dataclass(frozen=True)
class TensorsFile(Generic[SchemaT]):
    """A kind of safetensors file that tipl writes."""

    name: str
    """of such a file, or how such names end"""
    schema: type[SchemaT]
    """a dataclass or `msgspec.Struct`: what its header says beside the arrays' types and shapes"""
    expected: str
    """what it is and how it is made, for messages"""

    def __post_init__(self) -> None:
        _KINDS.append(self)

    def read(
        self, path: str | Path, arrays: Mapping[str, ArrayType] | None = None
    ) -> tuple[dict[str, Array], SchemaT]:
        """The arrays of a file by name, and what its header says.

        Args:
            path: the file.
            arrays: types and shapes of those that it may have, seen to before one of them is read.

        Raises:
            TiplError: there is none, it is damaged, or it holds something impossible.
        """
        said: list[SchemaT] = []

        def check(metadata: Mapping[str, Any], specs: storage.ArraySpecs) -> None:
            said.append(conforming(metadata, self.schema, str(path)))
            if arrays is not None:
                check_arrays(specs, arrays, str(path))

        tensors, _ = storage.read_tensors(path, self.expected, check)
        return tensors, said[-1]


@dataclass(frozen=True)
class ArrayType:
    """What an array in a file should be."""

    dtype: str
    """NumPy's name"""
    shape: tuple[int | str, ...]
    """lengths; of those with a name, all arrays of a file have the same"""
    optional: bool = False
    """whether files do without it"""


def file_kinds() -> tuple[JsonFile[Any] | TensorsFile[Any], ...]:
    """All kinds of files of the modules that have been imported."""
    return tuple(_KINDS)


def conforming(data: Any, schema: type[SchemaT], owner: str) -> SchemaT:
    """Plain data of JSON as an instance of a schema.

    Args:
        data: of objects, lists, texts and numbers.
        schema: a dataclass, `msgspec.Struct` or another type that msgspec knows.
        owner: whose data it is, for the message.

    Raises:
        TiplError: something is missing, or of another type or size than the schema says.
    """
    try:
        return msgspec.convert(data, schema, dec_hook=_from_text)
    except msgspec.ValidationError as error:
        cause = error.__cause__
        if isinstance(cause, TiplError):
            raise TiplError(f"{owner}: {cause}") from error
        raise TiplError(
            f"{owner} is not as tipl writes it: {error}; restore it from a copy, or make it again"
        ) from error


def _from_text(schema: type[Any], text: Any) -> Any:
    """A value of a type that JSON has as text, and msgspec does not know."""
    if schema is Path and isinstance(text, str):
        return Path(text)
    raise NotImplementedError(f"a {schema.__name__} of JSON")


def check_arrays(specs: storage.ArraySpecs, expected: Mapping[str, ArrayType], owner: str) -> None:
    """Raises a TiplError unless the arrays of a file are of the types and shapes expected."""
    needed = {name for name, one in expected.items() if not one.optional}
    if needed - set(specs) or set(specs) - set(expected):
        raise TiplError(
            f"{owner} holds the arrays {_listed(specs)}, but {_listed(expected)} are expected; "
            "restore it from a copy, or make it again"
        )
    lengths: dict[str, int] = {}
    for name, (dtype, shape) in specs.items():
        wanted = expected[name]
        fits = dtype == wanted.dtype and len(shape) == len(wanted.shape)
        for one, size in zip(wanted.shape, shape, strict=False):
            fits &= size == (lengths.setdefault(one, size) if isinstance(one, str) else one)
        if not fits:
            known = ", ".join(str(lengths.get(str(one), one)) for one in wanted.shape)
            raise TiplError(
                f"{owner} holds the array {name} of {dtype} {list(shape)}, but {wanted.dtype} "
                f"[{known}] is expected; restore it from a copy, or make it again"
            )


def _listed(names: Mapping[str, object]) -> str:
    shown = ", ".join(sorted(names)[:6]) or "(none)"
    return f"{shown} and {len(names) - 6} more" if len(names) > 6 else shown
