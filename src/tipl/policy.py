"""The MLP policy: its parameter layout, initialisation, action and files."""

from __future__ import annotations

import dataclasses
import importlib
import math
from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, Shaped

from tipl import storage
from tipl.actions import best_actions
from tipl.errors import TiplError
from tipl.mlp import StackedMLP
from tipl.tasks import TaskSpec, get_task

__all__ = [
    "OBSERVATION_CLIP",
    "ParamLayout",
    "Policy",
    "actor_layout",
    "initial_params",
    "layer_sizes",
    "normalise_observations",
    "stacked_mlp",
]

OBSERVATION_CLIP = 10.0
"""Normalised observations are clipped to +- this many standard deviations (CleanRL)."""

POLICY_FORMAT_VERSION = 1

Array = np.ndarray[Any, np.dtype[Any]]


@dataclasses.dataclass(frozen=True)
class ParamLayout:
    """Names, shapes and order of the arrays in a flat parameter vector of length P."""

    names: tuple[str, ...]
    shapes: tuple[tuple[int, ...], ...]

    @classmethod
    def mlp(cls, prefix: str, sizes: Sequence[int]) -> ParamLayout:
        """Layout of an MLP with the layer sizes `[inputs, hidden..., outputs]`.

        Weights are `[out, in]`, as in `torch.nn.Linear`, and named `{prefix}.{layer}.weight`.
        """
        names: list[str] = []
        shapes: list[tuple[int, ...]] = []
        for layer, (fan_in, fan_out) in enumerate(pairwise(sizes)):
            names += [f"{prefix}.{layer}.weight", f"{prefix}.{layer}.bias"]
            shapes += [(fan_out, fan_in), (fan_out,)]
        return cls(tuple(names), tuple(shapes))

    @classmethod
    def actor(
        cls, observation_size: int, action_size: int, hidden_sizes: Sequence[int]
    ) -> ParamLayout:
        """Layout of a Gaussian policy: the MLP of its mean action, then `log_std [A]`."""
        mean = cls.mlp("actor", [observation_size, *hidden_sizes, action_size])
        return mean + cls(("log_std",), ((action_size,),))

    @classmethod
    def critic(cls, observation_size: int, hidden_sizes: Sequence[int]) -> ParamLayout:
        """Layout of a state-value MLP."""
        return cls.mlp("critic", [observation_size, *hidden_sizes, 1])

    def __str__(self) -> str:
        arrays = zip(self.names, self.shapes, strict=True)
        return ", ".join(f"{name} {'x'.join(map(str, shape))}" for name, shape in arrays)

    def __add__(self, other: ParamLayout) -> ParamLayout:
        return ParamLayout(self.names + other.names, self.shapes + other.shapes)

    @property
    def size(self) -> int:
        """Length P of the flat vector."""
        return sum(math.prod(shape) for shape in self.shapes)

    @property
    def hidden_sizes(self) -> tuple[int, ...]:
        """Units in each hidden layer of the actor."""
        shapes = dict(zip(self.names, self.shapes, strict=True))
        weights = [name for name in self.names if name.startswith("actor.") and "weight" in name]
        return tuple(shapes[name][0] for name in weights[:-1])

    @property
    def slices(self) -> dict[str, slice]:
        """Where each array lies in the flat vector."""
        ends = np.cumsum([math.prod(shape) for shape in self.shapes]).tolist()
        starts = [0, *ends[:-1]]
        return {
            name: slice(start, end)
            for name, start, end in zip(self.names, starts, ends, strict=True)
        }

    def unflatten(self, params: Float[np.ndarray, "*batch P"]) -> dict[str, Array]:
        """Views of the named arrays, `[*batch, *shape]`, in a flat array `[*batch, P]`."""
        batch = params.shape[:-1]
        slices = self.slices
        return {
            # [*batch, prod(shape)] -> [*batch, *shape]
            name: params[..., slices[name]].reshape(*batch, *shape)
            for name, shape in zip(self.names, self.shapes, strict=True)
        }

    def to_json(self) -> list[list[Any]]:
        """A list of `[name, shape]` pairs."""
        return [[name, list(shape)] for name, shape in zip(self.names, self.shapes, strict=True)]

    @classmethod
    def from_json(cls, data: Sequence[Sequence[Any]]) -> ParamLayout:
        """The inverse of `to_json`.

        Raises:
            TiplError: the data is not a list of `[name, shape]` pairs.
        """
        try:
            return cls(
                tuple(str(name) for name, _ in data),
                tuple(tuple(int(size) for size in shape) for _, shape in data),
            )
        except (TypeError, ValueError) as error:
            raise TiplError(
                f"a parameter layout must be a list of [name, shape] pairs, but {data!r} was "
                "given; the file was not written by tipl or has been edited"
            ) from error


def layer_sizes(task: TaskSpec, hidden_sizes: Sequence[int]) -> tuple[int, ...]:
    """Units of each layer of a policy for a task, from its inputs to its outputs."""
    return (task.observation_size, *hidden_sizes, task.action_size)


def actor_layout(task: TaskSpec, hidden_sizes: Sequence[int]) -> ParamLayout:
    """The layout of a policy for a task: of its means and `log_std`, or of its logits."""
    if task.discrete:
        return ParamLayout.mlp("actor", layer_sizes(task, hidden_sizes))
    return ParamLayout.actor(task.observation_size, task.action_size, hidden_sizes)


def stacked_mlp(arrays: Mapping[str, Array], prefix: str) -> StackedMLP:
    """The N networks `{prefix}.*` among the arrays of `ParamLayout.unflatten(params [N, P])`."""
    depth = sum(name.startswith(f"{prefix}.") and name.endswith("weight") for name in arrays)
    return StackedMLP(
        [arrays[f"{prefix}.{layer}.weight"] for layer in range(depth)],
        [arrays[f"{prefix}.{layer}.bias"] for layer in range(depth)],
    )


def _orthogonal(rng: np.random.Generator, shape: tuple[int, ...], gain: float) -> Array:
    """A (semi-)orthogonal `[out, in]` matrix times `gain` (Saxe et al., 2014)."""
    rows, columns = shape
    gaussian = rng.standard_normal((max(rows, columns), min(rows, columns)))
    q, r = np.linalg.qr(gaussian)
    q *= np.sign(np.diag(r))  # without this, QR's sign convention would bias the draw
    return np.asarray(gain * (q if rows >= columns else q.T))


def initial_params(layout: ParamLayout, seed: int | Sequence[int]) -> Float[np.ndarray, " P"]:
    """A freshly drawn network: CleanRL's initialisation for PPO.

    Orthogonal weights with gain sqrt(2) in hidden layers, 0.01 in the actor's and 1 in the
    critic's output layer; zero biases and `log_std`.

    Args:
        layout: an actor's layout, a critic's, or both.
        seed: any seed that `numpy.random.default_rng` takes; equal seeds give equal weights.

    Returns:
        The flat parameters `[P]`, float32.
    """
    rng = np.random.default_rng(seed)
    params = np.zeros(layout.size, np.float32)
    arrays = layout.unflatten(params)
    weights = [name for name in layout.names if name.endswith(".weight")]
    last = {name.split(".")[0]: name for name in weights}
    for name in weights:
        network = name.split(".")[0]
        output_gain = 0.01 if network == "actor" else 1.0
        gain = output_gain if name == last[network] else math.sqrt(2.0)
        arrays[name][:] = _orthogonal(rng, arrays[name].shape, gain)
    return params


def normalise_observations(
    observations: Float[np.ndarray, "*batch O"],
    mean: Float[np.ndarray, "*#batch O"],
    std: Float[np.ndarray, "*#batch O"],
    dtype: type[np.floating[Any]] = np.float32,
) -> Float[np.ndarray, "*batch O"]:
    """`(observation - mean) / std`, clipped to +- `OBSERVATION_CLIP`: what networks are fed."""
    scaled = (observations - mean) / std
    np.clip(scaled, -OBSERVATION_CLIP, OBSERVATION_CLIP, out=scaled)
    return np.asarray(scaled, dtype)


class Policy:
    """An MLP policy, Gaussian or categorical, with everything it needs to act.

    Attributes:
        params: flat parameters `[P]`, float32.
        layout: names and shapes in `params`: `actor.*`, and `log_std` of a Gaussian policy.
        task: the environment that it acts in.
        observation_mean: mean `[O]` of the observation normaliser, float64.
        observation_std: standard deviation `[O]` of the observation normaliser, float64.

    Raises:
        TiplError: `params` has another length than the layout or is not finite, or layout or
            statistics do not fit the task.
    """

    def __init__(
        self,
        params: Float[np.ndarray, " P"],
        layout: ParamLayout,
        task: TaskSpec,
        observation_mean: Float[np.ndarray, " O"] | None = None,
        observation_std: Float[np.ndarray, " O"] | None = None,
    ) -> None:
        if params.shape != (layout.size,):
            raise TiplError(
                f"the layout holds {layout.size} parameters, but an array of shape "
                f"{params.shape} was given; pass the flat parameters of this architecture"
            )
        task_layout = actor_layout(task, layout.hidden_sizes)
        if layout != task_layout:
            raise TiplError(
                f"the layout {layout.to_json()} was given, but a policy for {task.env_id} with "
                f"these hidden layers has {task_layout.to_json()}; use the task that it is for"
            )
        if not np.isfinite(params).all():
            raise TiplError(
                f"{np.count_nonzero(~np.isfinite(params))} of {params.size} parameters of the "
                "policy are NaN or infinite; it cannot act: use an earlier checkpoint"
            )
        self.params = params.astype(np.float32)
        self.layout = layout
        self.task = task
        self.observation_mean = np.array(
            task.observation_mean if observation_mean is None else observation_mean, np.float64
        )
        self.observation_std = np.array(
            task.observation_std if observation_std is None else observation_std, np.float64
        )
        for statistic in (self.observation_mean, self.observation_std):
            if statistic.shape != (task.observation_size,):
                raise TiplError(
                    f"observation statistics of shape {statistic.shape} were given, but "
                    f"{task.env_id} has {task.observation_size} observed values; give one for each"
                )
        self._arrays = layout.unflatten(self.params[None])
        self._actor = stacked_mlp(self._arrays, "actor")

    @classmethod
    def initial(
        cls,
        task: str | TaskSpec,
        seed: int = 0,
        hidden: Sequence[int] = (64, 64),
    ) -> Policy:
        """An untrained policy with freshly drawn weights.

        Args:
            task: the id of a task that ships with tipl, or a `TaskSpec` (for any other
                Gymnasium id, `tipl.envs.make_task(env_id)` makes one).
            seed: equal seeds give equal weights.
            hidden: units in each hidden layer.

        Raises:
            TiplError: the task is not known, a hidden size is not positive, or the seed negative.
        """
        if seed < 0:
            raise TiplError(f"the seed {seed} was given; expected 0 or more")
        spec = get_task(task) if isinstance(task, str) else task
        check_hidden_sizes(hidden)
        layout = actor_layout(spec, hidden)
        return cls(initial_params(layout, seed), layout, spec)

    @classmethod
    def from_sb3(cls, model: Any, task: TaskSpec | None = None) -> Policy:
        """The policy of a stable-baselines3 model: see `tipl.integrations.sb3_policies`."""
        policy: Policy = _sb3_policies().policy_from_sb3(model, task)
        return policy

    def to_sb3(self, model: Any) -> None:
        """Gives a stable-baselines3 model these weights: see `tipl.integrations.sb3_policies`."""
        _sb3_policies().policy_to_sb3(self, model)

    def with_params(self, params: Float[np.ndarray, " P"]) -> Policy:
        """The same policy with other weights."""
        return Policy(params, self.layout, self.task, self.observation_mean, self.observation_std)

    def act(
        self,
        observation: Float[np.ndarray, "*batch O"],
        rng: np.random.Generator | None = None,
    ) -> Shaped[np.ndarray, "*batch ..."]:
        """The action for an observation, as the environment takes it.

        Args:
            observation: one observation `[O]` or a batch `[..., O]`, as the environment gives it.
            rng: draws a stochastic action; without it the most likely action is returned.

        Returns:
            Actions `[..., A]`, float32, inside the task's action bounds; of a task with discrete
            actions their numbers `[...]`, int64.
        """
        batch = observation.shape[:-1]
        inputs = normalise_observations(
            observation, self.observation_mean, self.observation_std
        ).reshape(1, -1, self.task.observation_size)  # [*batch, O] -> [1, B, O]
        outputs = self._actor.forward(inputs)[0]
        if rng is not None and self.task.discrete:
            outputs += rng.gumbel(size=outputs.shape)  # their largest is a draw from the softmax
        elif rng is not None:
            std = np.exp(self._arrays["log_std"][0])
            outputs += std * rng.standard_normal(outputs.shape, dtype=np.float32)
        actions = best_actions(self.task, outputs)
        return actions.reshape((*batch, *actions.shape[1:]))  # [B, ...] -> [*batch, ...]

    def save(self, directory: str | Path) -> None:
        """Writes `policy.safetensors` and `policy.json`: all that is needed to act.

        An existing policy in the directory is replaced, whole or not at all.
        """
        with storage.new_directory(Path(directory), replaces="policy.json") as new:
            storage.write_tensors(
                new / "policy.safetensors",
                {
                    "params": self.params,
                    "observation_mean": self.observation_mean,
                    "observation_std": self.observation_std,
                },
                {"kind": "policy"},
            )
            storage.write_json(
                new / "policy.json",
                {
                    "kind": "policy",
                    "format_version": POLICY_FORMAT_VERSION,
                    "task": self.task.to_json(),
                    "layout": self.layout.to_json(),
                },
            )

    @classmethod
    def load(cls, directory: str | Path) -> Policy:
        """Reads what `save` wrote.

        Raises:
            TiplError: the directory holds no policy, or a file is damaged.
        """
        directory = Path(directory)
        description = storage.read_json(directory / "policy.json")
        if description.get("format_version") != POLICY_FORMAT_VERSION:
            raise TiplError(
                f"{directory / 'policy.json'} has format version "
                f"{description.get('format_version')!r}, but this tipl reads version "
                f"{POLICY_FORMAT_VERSION}; update tipl"
            )
        tensors, _ = storage.read_tensors(directory / "policy.safetensors", "a policy's weights")
        try:
            return cls(
                tensors["params"],
                ParamLayout.from_json(description["layout"]),
                TaskSpec.from_json(description["task"]),
                tensors["observation_mean"],
                tensors["observation_std"],
            )
        except (KeyError, TiplError) as error:
            raise TiplError(
                f"{directory} holds no usable policy ({error}); restore it from a copy, or make "
                "it again"
            ) from error

    def __repr__(self) -> str:
        return f"Policy({self.task.env_id}, {self.layout.size} parameters)"


def _sb3_policies() -> Any:
    """What knows of stable-baselines3, which policies do without until it is asked for."""
    return importlib.import_module("tipl.integrations.sb3_policies")


def check_hidden_sizes(hidden_sizes: Sequence[int]) -> None:
    """Raises a TiplError unless there is at least one hidden layer and all are positive."""
    if not hidden_sizes or min(hidden_sizes) < 1:
        raise TiplError(
            f"hidden sizes {tuple(hidden_sizes)} were given; expected one positive number of "
            "units for each hidden layer, such as (64, 64)"
        )
