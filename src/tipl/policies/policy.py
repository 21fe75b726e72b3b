"""The MLP policy: its parameter layout, initialisation, action and files."""

from __future__ import annotations

import dataclasses
import importlib
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
from jaxtyping import Float, Shaped

from tipl.core import atomic, storage
from tipl.core.arrays import Array
from tipl.core.cards import card
from tipl.core.options import at_least
from tipl.core.ownership import OwnDirectory
from tipl.core.schemas import ArrayType, JsonFile, Positive, TensorsFile, conforming
from tipl.errors import TiplError, shown
from tipl.policies.actions import (
    OBSERVATION_CLIP,
    best_actions,
    checked_clip,
    mlp_outputs,
    normalise_observations,
)
from tipl.policies.factors import checked_factors
from tipl.policies.layout import ParamLayout, actor_layout, check_hidden_sizes, initial_params
from tipl.policies.tasks import TaskSpec, check_normaliser, get_task

POLICY_FORMAT_VERSION = 2
"""Plain policies are written in version 1, which every tipl reads."""

_SAVED_ARRAYS = ("params", "observation_mean", "observation_std")


@dataclasses.dataclass(frozen=True)
class _Said:
    """What stands in `policy.json`."""

    kind: Literal["policy"]
    task: dict[str, Any]
    layout: list[Any] | dict[str, Any]
    observation_clip: Positive | None = OBSERVATION_CLIP  # None of a policy without


@dataclasses.dataclass(frozen=True)
class _Description:
    """What `policy.json` says of a policy."""

    task: TaskSpec
    layout: ParamLayout
    observation_clip: float

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> _Description:
        """What stands in the file; raises a TiplError if it is of another version or wrong."""
        version = data.get("format_version")
        if type(version) is not int or version not in (1, POLICY_FORMAT_VERSION):
            raise TiplError(
                f"the policy has format version {shown(version, 60)}, but this tipl reads versions "
                f"1 and {POLICY_FORMAT_VERSION}; update tipl"
            )
        said = conforming(data, _Said, "the policy's description")
        clip = math.inf if said.observation_clip is None else said.observation_clip
        return cls(TaskSpec.from_json(said.task), ParamLayout.from_json(said.layout), clip)


@dataclasses.dataclass(frozen=True)
class _Header:
    """What the header of a policy's weights says."""

    kind: Literal["policy"]


POLICY = JsonFile("policy.json", _Description, "a policy (made by `Policy.save`)")
POLICY_WEIGHTS = TensorsFile("policy.safetensors", _Header, "a policy's weights")


class Policy:
    """An MLP policy, Gaussian or categorical, with everything it needs to act.

    Attributes:
        params: flat parameters `[P]`, float32.
        layout: names and shapes in `params`: `actor.*`, and `log_std` of a Gaussian policy.
        task: the environment that it acts in.
        observation_mean: mean `[O]` of the observation normaliser, float64.
        observation_std: standard deviation `[O]` of the observation normaliser, float64.
        observation_clip: normalised observations are clipped to +- this; infinity for no clip.

    Raises:
        TiplError: `params` has another length than the layout, is not of floating-point numbers
            or not finite in float32, or layout or statistics do not fit the task.

    Examples:
        >>> policy = tipl.Policy.initial("InvertedPendulum-v4", seed=1)
        >>> policy.act(np.zeros(4)).shape
        (1,)
        >>> policy.save("runs/mine")
        >>> tipl.Policy.load("runs/mine").digest == policy.digest
        True
    """

    def __init__(
        self,
        params: Array,
        layout: ParamLayout,
        task: TaskSpec,
        observation_mean: Array | None = None,
        observation_std: Array | None = None,
        observation_clip: float = OBSERVATION_CLIP,
    ) -> None:
        whose = f"a policy for {task.env_id}"
        params = checked_floats(whose, "parameters", params)
        if params.shape != (layout.size,):
            raise TiplError(
                f"the layout holds {layout.size} parameters, but an array of shape "
                f"{params.shape} was given; pass the flat parameters of this architecture"
            )
        task_layout = actor_layout(task, layout.hidden_sizes, layout.activation, layout.squashed)
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
        self.params, self.layout, self.task = params, layout, task
        frozen_mean, frozen_std = task.observation_statistics
        mean = frozen_mean if observation_mean is None else observation_mean
        std = frozen_std if observation_std is None else observation_std
        check_normaliser(whose, mean, std, task.observation_size)
        self.observation_mean = np.array(mean, np.float64)
        self.observation_std = np.array(std, np.float64)
        self.observation_clip = checked_clip(observation_clip)
        self._arrays = layout.unflatten(self.params)

    @classmethod
    def initial(
        cls,
        task: str | TaskSpec,
        seed: int = 0,
        hidden: Sequence[int] = (64, 64),
        activation: str = "tanh",
    ) -> Policy:
        """An untrained policy with freshly drawn weights; equal seeds give equal ones.

        The task is the id of one that ships with tipl, or a `TaskSpec` (for any other Gymnasium
        id, `tipl.envs.make_task(env_id)` makes one); `hidden` are the units in each hidden layer,
        of one of `tipl.policies.activations.ACTIVATIONS`.

        Raises:
            TiplError: the task or the activation is not known, a hidden size is not positive, or
                the seed negative.
        """
        at_least(0, seed=seed)
        spec = get_task(task) if isinstance(task, str) else task
        check_hidden_sizes(hidden)
        layout = actor_layout(spec, hidden, activation)
        return cls(initial_params(layout, seed), layout, spec)

    @classmethod
    def from_sb3(cls, model: Any, task: TaskSpec | str | None = None) -> Policy:
        """The policy of a stable-baselines3 model, exactly as the model acts.

        The model is one of PPO, A2C or TRPO, or of SAC, TD3, DDPG or TQC, whose means are squashed;
        the task, or its id, is by default that of the model's environment, whose observation
        normaliser becomes the policy's. See `tipl.integrations.sb3.weights`.

        Raises:
            TiplError: the model acts by another kind of network, or its task is not known.
        """
        return cls(*_sb3_weights().weights_from_sb3(model, task))

    def to_sb3(self, model: Any) -> None:
        """Gives a stable-baselines3 model these weights: see `tipl.integrations.sb3.weights`.

        Raises:
            TiplError: the model is of another architecture or task.
        """
        normaliser = self.observation_mean, self.observation_std, self.observation_clip
        sb3 = _sb3_weights()
        sb3.weights_to_sb3(model, sb3.Weights(self.params, self.layout, self.task, *normaliser))

    def to_torch(self) -> Any:
        """The policy as a module of PyTorch, normaliser included: `torch.nn.Module`.

        It takes observations `[..., O]` as the environment gives them, and returns what `act` does;
        its parameters can be trained: see `tipl.integrations.pytorch.module.PolicyModule`.
        """
        made = importlib.import_module("tipl.integrations.pytorch.module").PolicyModule
        statistics = self.observation_mean, self.observation_std
        return made(self.params, self.layout, self.task, statistics, self.observation_clip)

    def predict(
        self,
        observation: Any,
        state: tuple[Array, ...] | None = None,
        episode_start: Array | None = None,
        deterministic: bool = True,
    ) -> tuple[Array, tuple[Array, ...] | None]:
        """The action as stable-baselines3's models give it, so that its `evaluate_policy` runs it.

        Args:
            observation: one observation `[O]` or a batch `[..., O]`.
            state: returned as it is, since these policies have none.
            episode_start: not looked at.
            deterministic: act by the mean; otherwise a random action is drawn.

        Raises:
            TiplError: as `act`.
        """
        rng = None if deterministic else np.random.default_rng()
        return self.act(np.asarray(observation), rng), state

    def with_params(self, params: Array) -> Policy:
        """The same policy with other weights `[P]`."""
        normaliser = self.observation_mean, self.observation_std, self.observation_clip
        return Policy(params, self.layout, self.task, *normaliser)

    def with_physics(self, physics: Mapping[str, float]) -> Policy:
        """The same policy in another world: by factors of the original physics, by name.

        They replace those of its task; without any it is at home.

        Raises:
            TiplError: one of them is no factor that its name may have.
        """
        task = self.task.with_physics(checked_factors(physics))
        normaliser = self.observation_mean, self.observation_std, self.observation_clip
        return Policy(self.params, self.layout, task, *normaliser)

    def act(
        self, observation: Float[np.ndarray, "*batch O"], rng: np.random.Generator | None = None
    ) -> Shaped[np.ndarray, " ..."]:
        """The action for an observation, as the environment takes it.

        Args:
            observation: one observation `[O]` or a batch `[..., O]`, as the environment gives it.
            rng: draws a stochastic action; without it the most likely action is returned.

        Returns:
            Actions `[..., A]` of the task's `action_dtype`, inside its action bounds; of a task
            with discrete actions their numbers `[...]`, int64.

        Raises:
            TiplError: the observation has another length, or a stochastic action is asked for of a
                squashed policy, which has no noise.
        """
        if observation.shape[-1:] != (self.task.observation_size,):
            raise TiplError(
                f"an observation of the shape {observation.shape} was given, but those of "
                f"{self.task.env_id} end in {self.task.observation_size} numbers; give what the "
                "environment returns"
            )
        batch = observation.shape[:-1]
        normaliser = self.observation_mean, self.observation_std
        # [*batch, O] -> [B, O]
        inputs = normalise_observations(
            observation, *normaliser, clip=self.observation_clip
        ).reshape(-1, self.task.observation_size)
        outputs = mlp_outputs(self._arrays, "actor", inputs, self.layout.activation)
        if rng is not None:
            outputs += self._noise(outputs, rng)
        actions = best_actions(self.task, outputs, self.layout.squashed)
        return actions.reshape((*batch, *actions.shape[1:]))  # [B, ...] -> [*batch, ...]

    def _noise(
        self, outputs: Float[np.ndarray, "B A"], rng: np.random.Generator
    ) -> Float[np.ndarray, "B A"]:
        """What makes outputs those of stochastic actions."""
        if self.layout.squashed:
            raise TiplError(
                "a stochastic action was asked for of a squashed policy, of which the mean alone "
                "is known; leave rng out"
            )
        if self.task.discrete:
            return rng.gumbel(size=outputs.shape)  # their largest is a draw from the softmax
        std = np.exp(self._arrays["log_std"])
        return np.asarray(std * rng.standard_normal(outputs.shape, dtype=np.float32))

    @property
    def digest(self) -> str:
        """SHA-256 of the weights, the layout and the normaliser: all that it acts by."""
        arrays = {name: getattr(self, name).tolist() for name in _SAVED_ARRAYS}
        clip = self.observation_clip if np.isfinite(self.observation_clip) else None
        rest = {"layout": self.layout.to_json(), "observation_clip": clip}
        return storage.content_digest(arrays | rest)

    def save(self, directory: str | Path) -> None:
        """Writes `policy.safetensors` and `policy.json`: all that is needed to act.

        An existing policy in the directory is replaced, whole or not at all.
        """
        with atomic.new_directory(directory, POLICY_FILES) as new:
            arrays = {name: getattr(self, name) for name in _SAVED_ARRAYS}
            storage.write_tensors(new / POLICY_WEIGHTS.name, arrays, {"kind": "policy"})
            version = 1 if self._plain() else POLICY_FORMAT_VERSION
            description = {"kind": "policy", "format_version": version}
            description |= {"task": self.task.to_json(), "layout": self.layout.to_json()}
            if self.observation_clip != OBSERVATION_CLIP:  # null: none
                clip = self.observation_clip
                description["observation_clip"] = clip if np.isfinite(clip) else None
            storage.write_json(new / POLICY.name, description)

    def _plain(self) -> bool:
        """Whether a tipl of before there was anything else would do alike with it."""
        layout = self.layout.activation, self.layout.squashed
        task = self.task
        other = self.observation_clip, task.action_dtype, task.variant, task.observed
        return (*layout, *other) == ("tanh", False, OBSERVATION_CLIP, "float32", "", ())

    @classmethod
    def load(cls, directory: str | Path) -> Policy:
        """Reads what `save` wrote.

        Raises:
            TiplError: the directory holds no policy, or a file is damaged.
        """
        directory = Path(directory)
        refuse_zip(directory)
        said = POLICY.read(directory / POLICY.name)
        layout, size = said.layout, said.task.observation_size
        arrays = {name: ArrayType("float64", (size,)) for name in _SAVED_ARRAYS}
        arrays["params"] = ArrayType("float32", (layout.size,))
        tensors, _ = POLICY_WEIGHTS.read(directory / POLICY_WEIGHTS.name, arrays)
        params, mean, std = (tensors[name] for name in _SAVED_ARRAYS)
        try:
            return cls(params, layout, said.task, mean, std, said.observation_clip)
        except TiplError as error:
            raise TiplError(
                f"{directory} holds no usable policy ({error}); restore it from a copy, or make "
                "it again"
            ) from error

    @classmethod
    def of(cls, given: Policy | str | Path) -> Policy:
        """A policy that is given as such, or by its directory; raises what `load` does."""
        return given if isinstance(given, Policy) else cls.load(given)

    def __repr__(self) -> str:
        return f"Policy({self.task.label}, {self.layout.size} parameters)"

    def _repr_html_(self) -> str:
        layout = self.layout
        units = ", ".join(map(str, layout.hidden_sizes))
        facts = {
            "task": self.task.label,
            "network": f"hidden layers of {units} {layout.activation} units",
            "parameters": f"{layout.size:,}",
            "digest": self.digest[:12],
        }
        return card(type(self).__name__, facts)


def checked_floats(whose: str, what: str, values: Any) -> Array:
    """Numbers as float32, a copy; raises a TiplError unless they are floating-point ones."""
    values = np.asarray(values)
    if values.dtype.kind != "f":
        raise TiplError(
            f"{what} of {values.dtype} were given for {whose}; expected floating-point numbers, "
            "as they were trained"
        )
    with np.errstate(over="ignore"):  # what overflows is no longer finite
        return np.asarray(values.astype(np.float32))


POLICY_FILES = OwnDirectory(
    "a policy",
    {
        "policy.json": storage.own_json("a policy", lambda found: found.get("kind") == "policy"),
        "policy.safetensors": storage.own_tensors("policy"),
    },
)
"""What `Policy.save` writes, and replaces."""


def refuse_zip(path: Path) -> None:
    """Raises a TiplError for what stable-baselines3 has saved."""
    file = path if path.suffix == ".zip" else path.parent / f"{path.name}.zip"
    if (file == path or file.is_file()) and not path.is_dir():
        raise TiplError(
            f"{file} is no directory of a policy: a model that stable-baselines3 saved is read by "
            f"Policy.from_sb3(PPO.load({str(file)!r}), 'Env-v0'), with its algorithm and "
            "environment; save it by Policy.save"
        )


def _sb3_weights() -> Any:
    """What knows of stable-baselines3, which policies do without until it is asked for."""
    return importlib.import_module("tipl.integrations.sb3.weights")
