"""Physics that differ between the simulations of a batch, as factors of the model's own values.

A name says what is scaled:

- `gravity`, `wind`, `density`, `viscosity` or `impratio`, of MuJoCo's options;
- a float64 field of `mujoco.MjModel` that belongs to bodies, joints (`jnt_`), degrees of
  freedom (`dof_`), geoms or actuators: `body_mass`, `dof_damping`, `geom_friction`, ...;
- `mass`: masses of bodies together with their inertias, by one factor, as if their density
  changed (`body_mass` alone leaves a heavy body turning like a light one);
- any of the last two and an object's name, `mass:torso` or `actuator_gear:bthigh`: the object's
  part. The object of a `dof_` field is a joint; an actuator without a name goes by its joint's.

The constants that MuJoCo derives (`mj_setConst`) follow; what only its compiler derives, such as
inertias from masses or bounding volumes from sizes, does not. Where names overlap, their factors
multiply. What factors may be says `tipl.policies.factors`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import mujoco  # type: ignore[import-untyped]
import numpy as np
from jaxtyping import Bool, Float64, Integer
from mujoco import batch as mujoco_batch

from tipl.core.options import spelling_hint
from tipl.errors import TiplError, shown
from tipl.policies.factors import (
    OPTIONS,
    TOGETHER,
    are_factors,
    check_name,
    expected_factors,
)

# The objects that a field belongs to, by the start of its name: their type and their number.
_OBJECTS = {
    "body": (mujoco.mjtObj.mjOBJ_BODY, "nbody"),
    "jnt": (mujoco.mjtObj.mjOBJ_JOINT, "njnt"),
    "dof": (mujoco.mjtObj.mjOBJ_JOINT, "njnt"),
    "geom": (mujoco.mjtObj.mjOBJ_GEOM, "ngeom"),
    "actuator": (mujoco.mjtObj.mjOBJ_ACTUATOR, "nu"),
}

# Derived from other fields, which a factor would contradict, or of length 1, which it would spoil.
_NOT_SCALED = {
    *("body_subtreemass", "body_invweight0", "body_margin", "dof_M0", "dof_invweight0"),
    *("dof_length", "geom_aabb", "geom_rbound", "actuator_acc0", "actuator_length0"),
    *("actuator_lengthrange", "body_quat", "body_iquat", "geom_quat", "jnt_axis"),
}


Redraw = Callable[[Integer[np.ndarray, " n"], Integer[np.ndarray, " n"]], Mapping[str, np.ndarray]]
"""Says the physics of environments `[n]` in their episodes `[n]`, counted from 0: factors `[n]` by
name. It says the same whenever it is asked."""


class Target(NamedTuple):
    """A field that a name scales, or a part of it."""

    field: str
    """as `mujoco.batch` names it"""
    values: Float64[np.ndarray, "*shape"]
    """the model's own values of the field"""
    scaled: Bool[np.ndarray, "*shape"]
    """which of them the name scales"""


class PhysicsVariants:
    """The physics of each simulation of a batch, of which what `names` name can be scaled.

    Raises:
        TiplError: a name scales nothing in the model.
    """

    def __init__(self, batch: mujoco_batch.Batch, names: tuple[str, ...]) -> None:
        self._batch = batch
        self._targets = {name: find_targets(batch.model, name) for name in names}

    def set(self, ids: Integer[np.ndarray, " n"], physics: Mapping[str, np.ndarray]) -> None:
        """Replaces the physics of some simulations; see `BatchedMujocoEnv.set_physics`."""
        ids = _checked_ids(ids, self._batch.nsim)
        if physics.keys() != self._targets.keys():
            raise TiplError(
                f"the physics have the names {sorted(physics)}: expected "
                f"{sorted(self._targets)}, those that the environments were made with; "
                "give all of them, and no others"
            )
        values: dict[str, np.ndarray] = {}
        for name, targets in self._targets.items():
            factors = _checked_factors(name, physics[name], ids.size)
            for target in targets:
                per_simulation = factors.reshape(-1, *[1] * target.values.ndim)  # [n, 1, ...]
                scaled = np.where(target.scaled, per_simulation, 1.0)  # [n, ...], as the values
                values[target.field] = values.get(target.field, target.values) * scaled
        if not values:
            return
        for field, new in values.items():
            self._batch.expand(field)[ids] = new
        self._batch.set_const(np.sort(ids))


def find_targets(model: Any, name: str) -> tuple[Target, ...]:
    """Finds what a name scales in a `mujoco.MjModel`: one field, or several by one factor.

    Raises:
        TiplError: there is no such field or object, or all the values are 0.
    """
    first, colon, object_name = name.partition(":")
    known = _float_fields(model)
    check_name(name, known)
    if name in OPTIONS:
        values = np.array(getattr(model.opt, name), dtype=np.float64)
        targets = [Target(f"opt.{name}", values, np.ones(values.shape, np.bool_))]
    else:
        chosen = object_name if colon else None
        targets = [_part(model, field, chosen) for field in TOGETHER.get(first, (first,))]
    if not any(target.values[target.scaled].any() for target in targets):
        raise TiplError(
            f"the physics {shown(name)} are all 0 in this model: expected values that a factor "
            "changes; leave the name out, or scale something else"
        )
    return tuple(targets)


def _part(model: Any, field: str, object_name: str | None) -> Target:
    """A field of the model, or an object's part of it."""
    values = getattr(model, field).copy()
    scaled = np.ones(values.shape, dtype=np.bool_)
    if object_name is not None:
        scaled &= _rows(model, field, object_name).reshape(-1, *[1] * (values.ndim - 1))
    return Target(field, values, scaled)


def model_fields(model: Any) -> dict[str, Float64[np.ndarray, "*shape"]]:
    """All that names can scale in a `mujoco.MjModel`: copies of its fields, by name."""
    options = {f"opt.{name}": np.array(getattr(model.opt, name), np.float64) for name in OPTIONS}
    return options | {field: getattr(model, field).copy() for field in _float_fields(model)}


def _float_fields(model: Any) -> list[str]:
    return sorted(
        field
        for field in mujoco_batch.MODEL_FIELDS - _NOT_SCALED
        if field.partition("_")[0] in _OBJECTS and getattr(model, field).dtype == np.float64
    )


def _rows(model: Any, field: str, object_name: str) -> Bool[np.ndarray, " rows"]:
    """Says which rows of a field belong to an object."""
    kind = field.partition("_")[0]
    names = object_names(model, kind)
    named = [name for name in names if name]
    if object_name not in named:
        raise TiplError(
            f"no object {shown(object_name)} for the physics '{field}:{object_name}': expected one "
            f"of {', '.join(named) or '(none has a name)'}; {spelling_hint(object_name, named)}"
        )
    owners = model.dof_jntid if kind == "dof" else np.arange(len(names))
    return np.asarray(owners == names.index(object_name))


def object_names(model: Any, kind: str) -> list[str]:
    """The names of the objects that fields of a kind (`"body"`, `"dof"`, ...) belong to, in order.

    An actuator without a name has its joint's, if it moves one; what has none has an empty one.
    """
    object_type, count = _OBJECTS[kind]
    names = [mujoco.mj_id2name(model, object_type, i) for i in range(getattr(model, count))]
    if kind == "actuator":
        joints = object_names(model, "jnt")
        moves_joint = model.actuator_trntype == mujoco.mjtTrn.mjTRN_JOINT
        for i in np.flatnonzero(moves_joint):
            names[i] = names[i] or joints[model.actuator_trnid[i, 0]]
    return [name or "" for name in names]


def _checked_ids(ids: np.ndarray, num_envs: int) -> np.ndarray:
    ids = np.asarray(ids)
    is_list = ids.ndim == 1 and (ids.size == 0 or np.issubdtype(ids.dtype, np.integer))
    if not is_list or np.unique(ids).size < ids.size or ((ids < 0) | (ids >= num_envs)).any():
        raise TiplError(
            f"the physics are for the environments {ids.tolist()}: expected different integers "
            f"from 0 to {num_envs - 1}; give each environment once"
        )
    return ids.astype(np.int64)


def _checked_factors(name: str, factors: np.ndarray, num: int) -> Float64[np.ndarray, " n"]:
    factors = np.asarray(factors)
    is_real = factors.dtype.kind in "fiu" and factors.shape == (num,)
    if not is_real or not are_factors(name, factors).all():
        raise TiplError(
            f"the physics {shown(name)} have the factors {factors.tolist()}: expected {num} "
            f"{expected_factors(name)}, one for each environment; give 1 where nothing is to change"
        )
    return factors.astype(np.float64)
