"""Shape and type checks of every function of tipl while tests run, at a small part of the price.

jaxtyping's import hook decorates every function with `jaxtyping.jaxtyped`, which binds the
arguments, lets beartype check them, calls the function, and lets beartype check them again with
the result. `checked` stands in for it: beartype checks the same annotations in the same scope of
axis names, once, around the function itself. A call with arrays then costs 10 µs instead of 85,
one without them 0.4 instead of 17. `test_shape_checks.py` holds both to the same verdicts.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import inspect
import types
from collections.abc import Callable
from typing import Any, get_args, get_type_hints

import jaxtyping
from jaxtyping._array_types import _FixedDim, _MetaAbstractArray, _NamedDim, _NamedVariadicDim
from jaxtyping._storage import _shape_storage, pop_shape_memo, push_shape_memo

original = jaxtyping.jaxtyped
slow_check = _MetaAbstractArray.__instancecheck__


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
        return original(function, typechecker=check)
    quick: Callable[..., Any] | None = None
    has_arrays = False

    @functools.wraps(function)
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        __tracebackhide__ = True
        nonlocal quick, has_arrays
        if quick is None:  # the first call: all names that annotations use are there by now
            hints = _hints(function)
            has_arrays = any(map(_mentions_arrays, hints.values()))
            quick = check(_copy(function, hints))
        if not has_arrays:
            return quick(*args, **kwargs)
        push_shape_memo({})
        try:
            return quick(*args, **kwargs)
        finally:
            pop_shape_memo()

    return wrapper


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
