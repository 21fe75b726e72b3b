"""Shape and type checks of every function of tipl while tests run, at a small part of the price.

jaxtyping's import hook decorates every function with `jaxtyping.jaxtyped`, which binds the
arguments, lets beartype check them, calls the function, and lets beartype check them again with
the result. `checked` stands in for it: beartype checks the same annotations in the same scope of
axis names, once, around the function itself. A call with arrays then costs 10 µs instead of 85,
one without them 0.4 instead of 17. `test_shape_checks.py` holds both to the same verdicts.

A loop of thousands of steps calls the same functions with the same shapes: in each test, a function
is checked `ALWAYS` times, and from then on once in `SOMETIMES` calls.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import inspect
import types
from collections.abc import Callable, Mapping
from inspect import CO_VARARGS, CO_VARKEYWORDS
from typing import Any, Union, get_args, get_origin, get_type_hints

import jaxtyping
from beartype.door import die_if_unbearable
from jaxtyping._array_types import _FixedDim, _MetaAbstractArray, _NamedDim, _NamedVariadicDim
from jaxtyping._storage import _shape_storage, pop_shape_memo, push_shape_memo
from typing_extensions import is_protocol

ALWAYS = 24
SOMETIMES = 32

original = jaxtyping.jaxtyped
slow_check = _MetaAbstractArray.__instancecheck__


_test = object()  # another one in each test


def start_test() -> None:
    """All functions are checked again in each of their calls, for a while."""
    global _test
    _test = object()


def install() -> None:
    """Modules that jaxtyping's import hook loads from now on are checked by `checked`."""
    jaxtyping.jaxtyped = jaxtyped
    _MetaAbstractArray.__instancecheck__ = is_array


def jaxtyped(*, typechecker: Any) -> Callable[[Any], Any]:
    """What the import hook writes above each function and class."""
    return functools.partial(checked, check=typechecker)


def checked(thing: Any, check: Callable[..., Any]) -> Any:
    """A function, method or property whose calls are checked, or a class, if it is a dataclass."""
    if inspect.isclass(thing):
        if dataclasses.is_dataclass(thing) and "__init__" in vars(thing):
            thing.__init__ = checked(thing.__init__, check)
        return thing
    if isinstance(thing, classmethod | staticmethod):
        return type(thing)(checked(thing.__func__, check))
    if isinstance(thing, property):
        parts = (part and checked(part, check) for part in (thing.fget, thing.fset, thing.fdel))
        return property(*parts)
    if not isinstance(thing, types.FunctionType) or getattr(thing, "__no_type_check__", False):
        return thing
    return _checked_function(thing, check)


def _checked_function(function: types.FunctionType, check: Callable[..., Any]) -> Any:
    if not function.__annotations__:
        return function
    if inspect.isgeneratorfunction(function):  # arguments are checked before the first step
        return _checked_generator(function, original(function, typechecker=check))
    quick: Callable[..., Any] | None = None
    hints: dict[str, Any] = {}
    has_arrays = decided_by_kinds = False
    right: dict[tuple[Any, ...], set[Any]] = {}  # kinds of arguments: kinds of results
    calls, test = 0, _test

    @functools.wraps(function)
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        __tracebackhide__ = True
        nonlocal quick, hints, has_arrays, decided_by_kinds, calls, test
        if test is not _test:
            calls, test = 0, _test
        calls += 1
        if calls > ALWAYS and calls % SOMETIMES:
            return function(*args, **kwargs)
        if quick is None:  # the first call: all names that annotations use are there by now
            hints = _hints(function)
            has_arrays = any(map(_mentions_arrays, hints.values()))
            decided_by_kinds = has_arrays and all(map(_is_decided_by_kind, hints.values()))
            decided_by_kinds &= not function.__code__.co_flags & (CO_VARARGS | CO_VARKEYWORDS)
            quick = check(_copy(function, hints))
        if not has_arrays:
            return quick(*args, **kwargs)
        if decided_by_kinds:
            kinds = _kinds(args) if not kwargs else _kinds((*args, *kwargs.values(), *kwargs))
            if kinds in right:
                result = function(*args, **kwargs)
                if _kinds((result,)) not in right[kinds]:
                    _check_result(function, hints, args, kwargs, result)
                    right[kinds].add(_kinds((result,)))
                return result
        push_shape_memo({})
        try:
            result = quick(*args, **kwargs)
        finally:
            pop_shape_memo()
        if decided_by_kinds:
            right.setdefault(kinds, set()).add(_kinds((result,)))
        return result

    return wrapper


def _checked_generator(function: types.FunctionType, slow: Callable[..., Any]) -> Any:
    if function.__annotations__.keys() - {"return"}:
        return slow
    was_right = False

    @functools.wraps(function)
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        nonlocal was_right
        if was_right:  # and is for ever: no argument is checked, and the result is a generator
            return function(*args, **kwargs)
        result = slow(*args, **kwargs)
        was_right = True
        return result

    return wrapper


class _HowToTell(dict[type, Callable[[Any], Any]]):
    """By the class of a value, what tells its kind."""

    def __missing__(self, kind: type) -> Callable[[Any], Any]:
        if hasattr(kind, "shape") and hasattr(kind, "dtype"):
            self[kind] = lambda array: (kind, array.dtype, array.shape)
        elif issubclass(kind, tuple):
            self[kind] = lambda values: (kind, _kinds(values))
        elif issubclass(kind, type):
            self[kind] = lambda value: (kind, value)
        elif issubclass(kind, Mapping):
            self[kind] = lambda values: (kind, _kinds((*values, *values.values())))
        else:
            self[kind] = (lambda text: text) if kind is str else lambda _: kind
        return self[kind]


_how_to_tell = _HowToTell()


def _kinds(values: tuple[Any, ...]) -> tuple[Any, ...]:
    """All that checks ask for, where nothing but classes, shapes and dtypes decides; and texts."""
    return tuple([_how_to_tell[value.__class__](value) for value in values])


def _is_decided_by_kind(hint: Any) -> bool:
    origin = get_origin(hint)
    if origin in (Union, types.UnionType, tuple, dict, Mapping):
        return all(map(_is_decided_by_kind, get_args(hint)))
    if origin in (Callable, type) or hint in (Any, None, ...):
        return True
    return type(hint) is _MetaAbstractArray or (
        inspect.isclass(hint) and origin is None and not is_protocol(hint)
    )


def _check_result(
    function: types.FunctionType,
    hints: dict[str, Any],
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    result: Any,
) -> None:
    """Checks a result of a new kind in the scope of arguments that are known to be right."""
    given = inspect.signature(function).bind(*args, **kwargs).arguments
    push_shape_memo({})
    try:
        for name, value in given.items():
            die_if_unbearable(value, hints.get(name, Any))
        die_if_unbearable(result, hints.get("return", Any))
    finally:
        pop_shape_memo()


def _hints(function: types.FunctionType) -> dict[str, Any]:
    """The annotations without those whose names exist for type checkers alone."""
    hints = {}
    for name, annotation in function.__annotations__.items():
        stub = types.FunctionType((lambda: None).__code__, function.__globals__)
        stub.__annotations__ = {name: annotation}
        with contextlib.suppress(NameError):
            hints |= get_type_hints(stub, include_extras=True)
    return hints


def _mentions_arrays(hint: Any) -> bool:
    if inspect.isclass(hint) and issubclass(hint, jaxtyping.AbstractArray):
        return True
    inner = hint if isinstance(hint, list | tuple) else get_args(hint)  # Callable's are in a list
    return any(map(_mentions_arrays, inner))


def _copy(function: types.FunctionType, hints: dict[str, Any]) -> types.FunctionType:
    copy = types.FunctionType(
        function.__code__,
        function.__globals__,
        function.__name__,
        function.__defaults__,
        function.__closure__,
    )
    functools.update_wrapper(copy, function)
    del copy.__wrapped__  # type: ignore[attr-defined]
    copy.__kwdefaults__ = function.__kwdefaults__
    copy.__annotations__ = hints
    return copy


# --- one array -------------------------------------------------------------------------------


class _Plan:
    """What is asked of arrays whose annotation has plain axes, such as "N 2 P" or "*batch P"."""

    def __init__(self, annotation: Any) -> None:
        self.array_type = annotation.array_type
        self.axes: list[str | int] = []
        self.place, self.group = None, None  # of axes that stand for any number of axes
        self.right_dtypes: set[Any] = set()  # of those seen
        for place, axis in enumerate(annotation.dims):
            if type(axis) is _FixedDim and not axis.broadcastable:
                self.axes.append(axis.size)
            elif type(axis) is _NamedDim and not (axis.broadcastable or axis.treepath):
                self.axes.append(axis.name)
            elif type(axis) is _NamedVariadicDim and not (axis.broadcastable or axis.treepath):
                self.place, self.group = place, axis.name
            else:
                self.array_type = ()  # nothing is an instance of that: jaxtyping is asked


_plan = functools.cache(_Plan)


def is_array(annotation: Any, value: Any) -> bool:
    """What jaxtyping answers, which is asked itself where the answer may be no."""
    plan = _plan(annotation)
    if not isinstance(value, plan.array_type):
        return slow_check(annotation, value)
    shape, axes = value.shape, plan.axes
    more = len(shape) - len(axes)
    if more if plan.place is None else more < 0:
        return False
    if value.dtype not in plan.right_dtypes:
        right = slow_check(annotation, value)
        if right:
            plan.right_dtypes.add(value.dtype)
        return right
    stack = getattr(_shape_storage, "memo_stack", None)
    sizes, groups, *_ = stack[-1] if stack else ({}, {})
    if plan.place is not None:
        group = (False, shape[plan.place : plan.place + more])  # False: it is not broadcast
        if groups.get(plan.group, group) != group:
            return False
        shape = shape[: plan.place] + shape[plan.place + more :]
    before = len(sizes)
    for axis, size in zip(axes, shape, strict=True):
        known = sizes.setdefault(axis, size) if axis.__class__ is str else axis
        if known != size:
            while len(sizes) > before:  # what does not fit leaves no sizes behind
                sizes.popitem()
            return False
    if plan.place is not None:
        groups[plan.group] = group
    return True
