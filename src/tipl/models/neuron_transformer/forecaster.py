"""A trained NeuronTransformer as a forecaster: networks in, better networks out, of any width."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, cast, get_args

import msgspec
import numpy as np
import torch
from jaxtyping import Float64

from tipl.core.arrays import Array
from tipl.core.schemas import ArrayType, Count, conforming
from tipl.core.terminal import warn
from tipl.errors import TiplError
from tipl.forecast.base import Forecasts, Histories, Layout, Networks, Target
from tipl.forecast.description import ReturnScale
from tipl.forecast.trained import AnyArchitectureForecaster, Arrays
from tipl.models import check_depth
from tipl.models.building import array_types, filled, outlined
from tipl.models.loop import torch_threads
from tipl.models.network import ActionError, Network
from tipl.models.neuron_transformer.net import (
    Conditions,
    NeuronTransformer,
    NeuronTransformerConfig,
)
from tipl.policies.layout import ParamLayout, check_hidden_sizes
from tipl.policies.policy import Policy
from tipl.policies.tasks import TaskSpec

JUMPS: dict[Target, int] = {"elite": 2, "own": 3}
"""Jumps that follow one another by default. To the elite each is a whole one, and the second
corrects what the first one missed; to the own future they share the horizon."""

MAX_PARAMS_AT_ONCE = 2_000_000
"""Weights that are read in one pass of the model: bounds its memory."""


@functools.lru_cache(maxsize=10_000)
def context_checkpoints(times: Sequence[int], context: int) -> tuple[int, ...]:
    """The checkpoints of a history that a model attends to: the last ones densely, then the start.

    The history is given by its checkpoints' numbers in the path, in order, as a tuple or a range.
    Of the `context` checkpoints at most, the indices are returned in order: the last, those nearest
    to 1, 3, 7, ... before it, and the first; where some are the same, the last of the others too.
    """
    last = len(times) - 1
    wanted = [times[last] - (2**n - 1) for n in range(max(context - 1, 1))]
    nearest = [min(range(len(times)), key=lambda i: (abs(times[i] - time), i)) for time in wanted]
    candidates = [last, *([0] if context > 1 else []), *nearest, *range(last, -1, -1)]
    return tuple(sorted(list(dict.fromkeys(candidates))[:context]))


class _Described(msgspec.Struct):
    """What `config.json` says of this kind of model alone."""

    models: Annotated[dict[Target, NeuronTransformerConfig], msgspec.Meta(min_length=1)]
    hidden_sizes: list[Count]
    return_scale: ReturnScale


class NeuronTransformerForecaster(AnyArchitectureForecaster):
    """Trained NeuronTransformers, one for each target: see `Target`.

    It reads networks of any hidden sizes, with 1 to 3 hidden layers. `elite` is the default of a
    forecaster that has models of both targets; what it takes beside these, see `TrainedForecaster`.
    """

    kind = "NeuronTransformer"

    def __init__(
        self,
        models: Mapping[Target, NeuronTransformer],
        task: TaskSpec,
        hidden_sizes: Sequence[int],
        num_checkpoints: int,
        return_scale: tuple[float, float] = (0.0, 1.0),
        settings: dict[str, Any] | None = None,
    ) -> None:
        # in an order that is the same once it has been saved
        self.models = {t: models[t].eval() for t in get_args(Target) if t in models}
        super().__init__(
            task, hidden_sizes, num_checkpoints, tuple(self.models), return_scale, settings
        )

    @property
    def reads_last(self) -> int | None:  # type: ignore[override]
        """The last one, of what becomes elite; of its own future, it knows the time as well."""
        alone = self.models[self.target].config.context == 1
        return 1 if alone and self.target == "elite" else None

    @property
    def label(self) -> str:
        """The kind of the model and the target."""
        return f"NeuronTransformer ({self.target})"

    @property
    def knows_returns(self) -> bool:
        """Whether it can be asked for a return."""
        train = self.settings.get("train", {})
        return self.target == "own" and bool(train.get("condition_on_return", False))

    @torch_threads(1)
    def _optimize(
        self, params: Networks, layout: ParamLayout, horizon: int, steps: int | None
    ) -> Networks:
        learned = self.models[self.target].config.activations
        if self.target == "elite" and layout.activation not in learned:
            warn(
                f"networks of {layout.activation} units were given to a model that learned to "
                f"carry those of {', '.join(learned)}; run what it makes of them, or train one "
                "with fresh_activations"
            )
        return self._ahead(params[:, None], layout, horizon, steps)

    @torch_threads(1)
    @torch.inference_mode()
    def misfits(self, policies: Sequence[Policy]) -> Float64[np.ndarray, " N"]:
        """See `TrainedForecaster.misfits`: squared differences from the elite policy's actions.

        They are on the observations that the model remembers, in units of half the range of
        actions. A model that leads to a network's own future, or remembers none, cannot tell.
        """
        readout = self.models[self.target].readout
        if self.target != "elite" or readout is None:
            return super().misfits(policies)
        error, found = ActionError(self.task), []
        for policy in policies:
            params = torch.from_numpy(self.as_read(policy).params[None, None])  # [1, 1, P]
            outputs = Network.from_flat(params, policy.layout).outputs(
                readout.observations[None, None]
            )
            found.append(float(error(outputs, readout.outputs[None, None])))
        return np.array(found, np.float64)

    @torch_threads(1)
    def _forecast(self, histories: Histories, horizons: list[int], layout: Layout) -> Forecasts:
        layout = layout or self.default_layout
        if self.target == "elite":  # is where it is, however far ahead
            horizons = horizons[:1]
        ahead = [self._ahead(histories, layout, horizon, None) for horizon in horizons]
        return np.stack(ahead, axis=1)  # H of [B, P] -> [B, H, P]

    def _ahead(
        self, histories: Histories, layout: ParamLayout, horizon: int, steps: int | None
    ) -> Networks:
        """The weights after jumps that follow one another, over the horizon in all."""
        if self.target == "elite":
            horizon = self.num_checkpoints - 1
        times = list(range(histories.shape[1]))
        steps = min(steps or JUMPS[self.target], horizon)
        for jump in np.diff(np.linspace(0, horizon, steps + 1).round().astype(int)).tolist():
            ahead = self._forecast_one(histories, times, layout, jump)
            histories = np.concatenate([histories, ahead[:, None]], axis=1)
            times.append(times[-1] + jump)
        return np.asarray(histories[:, -1])

    @torch.inference_mode()
    def _forecast_one(
        self, histories: Histories, times: list[int], layout: ParamLayout, horizon: int
    ) -> Networks:
        """The weights `[B, P]` at one horizon after histories `[B, T, P]` of known times."""
        model = self.models[self.target]
        chosen = context_checkpoints(tuple(times), model.config.context)
        known = torch.tensor([float(times[index]) for index in chosen])
        read = np.ascontiguousarray(histories[:, chosen], np.float32)
        at_once = max(1, MAX_PARAMS_AT_ONCE // (len(chosen) * layout.size))
        blocks = []
        for block in torch.split(torch.from_numpy(read), at_once):
            if self.target == "elite":
                conditions = Conditions.whole_path(len(block), self.num_checkpoints)
            else:
                asked = (torch.full(block.shape[:2], x) for x in (float(horizon), self.scaled_wish))
                conditions = Conditions(known.expand(len(block), -1), *asked)
            change = model(Network.from_flat(block, layout), conditions).flat()[:, -1]
            blocks.append((block[:, -1] + change).numpy())
        return np.concatenate(blocks)

    def check_policy(self, policy: Policy) -> None:
        """Raises a TiplError unless the policy is one that it can read."""
        super().check_policy(policy)
        if any(factor != 1 for _, factor in policy.task.physics):
            raise TiplError(
                f"a policy for {policy.task.env_id} with varied physics was given, but this model "
                "was trained without; use a policy of the original physics"
            )

    def check_layout(self, layout: ParamLayout) -> None:
        """Raises a TiplError unless they are of an actor of its task, not too deep for it."""
        super().check_layout(layout)
        if layout.squashed and self.target == "elite":
            raise TiplError(
                f"a policy whose outputs are squashed by tanh was given, but {self.name} carries "
                "those whose outputs are actions as they are, of any activation; give such a "
                "policy, or ask for the target 'own'"
            )
        check_depth(len(layout.hidden_sizes))

    def _config(self) -> dict[str, Any]:
        return {
            "models": {
                str(t): dataclasses.asdict(model.config) for t, model in self.models.items()
            },
            "hidden_sizes": list(self.hidden_sizes),
            "return_scale": list(self.return_scale),
        }

    def _tensors(self) -> dict[str, Array]:
        both = torch.nn.ModuleDict({str(target): model for target, model in self.models.items()})
        return {name: tensor.numpy() for name, tensor in both.state_dict().items()}

    @classmethod
    def _check_config(cls, config: Mapping[str, Any], task: TaskSpec, num_checkpoints: int) -> None:
        said = conforming(config, _Described, f"a {cls.kind}'s description")
        check_hidden_sizes(said.hidden_sizes)
        check_depth(len(said.hidden_sizes))
        expected = task.observation_size, task.action_size, num_checkpoints
        for target, sizes in said.models.items():
            found = sizes.observation_size, sizes.action_size, sizes.num_checkpoints
            if found != expected or (target == "elite" and sizes.context != 1):
                raise TiplError(
                    f"a {cls.kind} of the target {target} reads networks of {found[0]} inputs and "
                    f"{found[1]} outputs, {sizes.context} of {found[2]} checkpoints, but those of "
                    f"{task.env_id} have {expected[0]} and {expected[1]}, in paths of "
                    f"{expected[2]}; restore its config.json from a copy, or train it again"
                )

    @classmethod
    def _array_types(cls, config: Mapping[str, Any]) -> dict[str, ArrayType]:
        return array_types(cls._outline(config))

    @classmethod
    def _outline(cls, config: Mapping[str, Any]) -> torch.nn.ModuleDict:
        """The models of a checked `config.json`, by target, without their weights."""
        sizes = conforming(config, _Described, cls.kind).models
        return outlined(
            lambda: torch.nn.ModuleDict(
                {str(t): NeuronTransformer(one) for t, one in sizes.items()}
            )
        )

    @classmethod
    def _from_files(cls, config: Mapping[str, Any], tensors: Arrays) -> NeuronTransformerForecaster:
        both = filled(cls._outline(config), tensors)
        return cls(
            cast("Mapping[Target, NeuronTransformer]", dict(both.items())),
            TaskSpec.from_json(config["task"]),
            config["hidden_sizes"],
            config["num_checkpoints"],
            conforming(config, _Described, cls.kind).return_scale,
            config["settings"],
        )
