"""The checks of shapes and types while tests run: what they let through and what they stop."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import beartype
import numpy as np
import pytest
from jaxtyping import Float, Float32, Int

import shape_checks
from tipl.policies.layout import ParamLayout

if TYPE_CHECKING:
    from somewhere import Unknown

Paths = Float32[np.ndarray, "N T P"]


def same_axes(x: Paths, y: Float[np.ndarray, "N P"]) -> Float[np.ndarray, "N T"]:
    return x.mean(axis=2)


def wrong_result(x: Paths) -> Float[np.ndarray, "T N"]:
    return x.mean(axis=2)


def fixed_axis(x: Float[np.ndarray, "N 2"]) -> None: ...


def square(x: Float[np.ndarray, "N N"]) -> None: ...


def batches(x: Float[np.ndarray, "*batch P"], y: Float[np.ndarray, "*batch"]) -> None: ...


def either(
    x: Float[np.ndarray, "N M"] | Int[np.ndarray, " N"], y: Float[np.ndarray, " M"]
) -> None: ...


def in_containers(
    x: list[Float[np.ndarray, " N"]], use: Callable[[Float[np.ndarray, " N"]], None] | None = None
) -> None: ...


def pair_of(pair: tuple[Float[np.ndarray, " N"], Float[np.ndarray, " N"]]) -> None: ...


def named(fields: dict[str, Float[np.ndarray, "N O"]]) -> None: ...


def plain(number: int, *words: str, known: bool = False) -> str:
    return words[0] if words else ""


def wrong_plain() -> int:
    return "one"  # type: ignore[return-value]


def of_type_checkers(thing: Unknown, number: int) -> None: ...


def of_later(thing: Later) -> None: ...


def one_by_one(x: Float[np.ndarray, " N"]) -> Iterator[float]:
    yield from x


def cast(x: Float[np.ndarray, " N"], dtype: type[np.floating[Any]]) -> Float[np.ndarray, " N"]:
    return x.astype(dtype)


def two_numbers() -> Iterator[int]:
    yield from (1, 2)


class Later:
    @property
    def number(self) -> int:
        return 0.5  # type: ignore[return-value]

    @classmethod
    def made(cls, x: Float[np.ndarray, " N"]) -> Later:
        return cls()

    @staticmethod
    def doubled(x: Float[np.ndarray, " N"]) -> Float[np.ndarray, " N"]:
        return np.concatenate([x, x])


@dataclasses.dataclass
class Pair:
    x: Float[np.ndarray, " N"]
    y: Float[np.ndarray, " N"]


def zeros(*shape: int, dtype: type = np.float32) -> np.ndarray:
    return np.zeros(shape, dtype)


CASES: list[tuple[Callable[..., Any], tuple[Any, ...], bool]] = [
    (same_axes, (zeros(2, 3, 4), zeros(2, 4)), True),
    (same_axes, (zeros(2, 3, 4), zeros(3, 4)), False),
    (same_axes, (zeros(2, 3, 4), zeros(2, 4, 1)), False),
    (same_axes, (zeros(2, 3, 4), zeros(2, 4, dtype=int)), False),
    (same_axes, (zeros(2, 3, 4, dtype=np.float64), zeros(2, 4)), False),
    (same_axes, (zeros(2, 3, 4).tolist(), zeros(2, 4)), False),
    (wrong_result, (zeros(2, 3, 4),), False),
    (wrong_result, (zeros(3, 3, 4),), True),
    (fixed_axis, (zeros(5, 2),), True),
    (fixed_axis, (zeros(2, 5),), False),
    (square, (zeros(5, 5),), True),
    (square, (zeros(5, 4),), False),
    (batches, (zeros(2, 3, 4), zeros(2, 3)), True),
    (batches, (zeros(2, 3, 4), zeros(3, 2)), False),
    (either, (zeros(2, 3), zeros(3)), True),
    (either, (zeros(2, dtype=int), zeros(7)), True),
    (either, (zeros(2, 3), zeros(2)), False),
    (in_containers, ([zeros(2), zeros(2)],), True),
    (in_containers, ([1.0],), False),
    (pair_of, ((zeros(2), zeros(2)),), True),
    (pair_of, ((zeros(2), zeros(3)),), False),
    (named, ({"a": zeros(2, 3)},), True),
    (named, ({"a": zeros(2)},), False),
    (plain, (1, "a", "b"), True),
    (plain, (1, "a", 2), False),
    (plain, ("1",), False),
    (wrong_plain, (), False),
    (of_type_checkers, ("anything", 1), True),
    (of_type_checkers, ("anything", "1"), False),
    (one_by_one, (zeros(3),), True),
    (one_by_one, (zeros(3, 3),), False),
    (cast, (zeros(3), np.float64), True),
    (cast, (zeros(3), np.int64), False),
    (cast, (zeros(3), np.float64(1)), False),
    (two_numbers, (), True),
    (two_numbers, (1,), False),
    (vars(Later)["made"], (zeros(3),), True),
    (vars(Later)["made"], (zeros(3, 1),), False),
    (vars(Later)["doubled"], (zeros(0),), True),
    (vars(Later)["doubled"], (zeros(3),), False),
]


def stops(thing: Any, arguments: tuple[Any, ...]) -> bool:
    if isinstance(thing, classmethod | staticmethod):
        thing = thing.__get__(None, Later)
    try:
        thing(*arguments)
    except (beartype.roar.BeartypeException, TypeError):  # jaxtyping's is a TypeError
        return True
    return False


@pytest.mark.parametrize(("function", "arguments", "right"), CASES)
def test_checks_are_those_of_jaxtyping(
    function: Callable[..., Any], arguments: tuple[Any, ...], right: bool
) -> None:
    ours = shape_checks.checked(function, beartype.beartype)
    theirs = shape_checks.original(function, typechecker=beartype.beartype)
    for _ in range(3):  # kinds of arrays that were right once are known
        assert stops(ours, arguments) is not right
        assert stops(theirs, arguments) is not right
    for same, others, fit in CASES:  # what was wrong has left nothing behind
        assert same is not function or stops(ours, others) is not fit


def test_names_that_come_later_are_known_at_the_first_call() -> None:
    ours = shape_checks.checked(of_later, beartype.beartype)
    assert not stops(ours, (Later(),))
    assert stops(ours, (1,))


def test_properties_and_dataclasses_are_checked() -> None:
    number = shape_checks.checked(vars(Later)["number"], beartype.beartype)
    assert stops(number.fget, (Later(),))
    pair = shape_checks.checked(
        dataclasses.make_dataclass("P", [("x", Paths), ("y", Paths)]), beartype.beartype
    )
    assert not stops(pair, (zeros(2, 3, 4), zeros(2, 3, 4)))
    assert stops(pair, (zeros(2, 3, 4), zeros(2, 3, 5)))
    pair = shape_checks.checked(Pair, beartype.beartype)
    assert not stops(pair, (zeros(2), zeros(2)))
    assert stops(pair, (zeros(2), zeros(3)))


def test_axes_are_those_of_one_call() -> None:
    @shape_checks.jaxtyped(typechecker=beartype.beartype)
    def inner(x: Float[np.ndarray, " N"]) -> None: ...

    @shape_checks.jaxtyped(typechecker=beartype.beartype)
    def outer(x: Float[np.ndarray, " N"], size: int) -> Float[np.ndarray, " N"]:
        inner(np.zeros(size))
        return x

    assert outer(np.zeros(3), 4).shape == (3,)


def test_a_wrong_result_is_found_where_the_arguments_are_of_kinds_that_were_right() -> None:
    @shape_checks.jaxtyped(typechecker=beartype.beartype)
    def part(x: Float[np.ndarray, " N"], length: int, *, double: bool) -> Float[np.ndarray, " N"]:
        return np.zeros(length, np.float64 if double else int)

    @shape_checks.jaxtyped(typechecker=beartype.beartype)
    def some(x: Float[np.ndarray, " N"], length: int) -> Float[np.ndarray, " M"]:
        return np.zeros(length)

    for _ in range(3):
        assert part(zeros(3), 3, double=True).shape == (3,)
        for wrong in ({"length": 2, "double": True}, {"length": 3, "double": False}):
            with pytest.raises(beartype.roar.BeartypeException):
                part(zeros(3), **wrong)
        assert [len(some(zeros(3), length)) for length in (3, 2, 5)] == [3, 2, 5]


def test_in_a_long_loop_a_call_in_some_is_checked_and_in_the_next_test_all_are() -> None:
    part = shape_checks.checked(same_axes, beartype.beartype)
    right, wrong = (zeros(2, 3, 4), zeros(2, 4)), (zeros(2, 3, 4), zeros(3, 4))
    for _ in range(shape_checks.ALWAYS):
        assert stops(part, wrong)
    assert sum(stops(part, wrong) for _ in range(10 * shape_checks.SOMETIMES)) == 10
    assert not any(stops(part, right) for _ in range(shape_checks.SOMETIMES))
    shape_checks.start_test()
    assert stops(part, wrong)


def test_tipl_itself_is_checked() -> None:
    with pytest.raises(beartype.roar.BeartypeCallHintParamViolation):
        ParamLayout.actor("4", 1, (3,))  # type: ignore[arg-type]
