"""What a training needs to go on after a kill, an interruption or a divergence, in one file.

Every so often the loop of all models hands over the state of what it fits: weights, moments of the
optimiser, random numbers, the curve, and what a loss remembers. The file is written now and then
beside the model that is to be, and removed when the model is there.
"""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Iterator, Mapping
from contextvars import ContextVar
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec
import torch
from torch import Tensor

from tipl.core import storage
from tipl.core.addresses import is_address
from tipl.core.arrays import Array
from tipl.core.ownership import check_file
from tipl.core.schemas import Natural, TensorsFile
from tipl.core.stores import working_copy
from tipl.core.system_errors import explained
from tipl.core.terminal import warn
from tipl.errors import TiplError, shown
from tipl.models import TRAINING_STATE, TrainConfig
from tipl.models.parallel import is_first
from tipl.paths import PathDataset

SECONDS, SHARE = 30.0, 0.01
"""Between two writings, and the share of the time that they may take."""

Tensors = dict[str, Tensor]

_MAY_CHANGE = "learning_rate"


class DivergedError(TiplError):
    """A training has diverged."""


@dataclass(frozen=True)
class _Header:
    """What the header of a training's state says."""

    kind: Literal["training"]
    format_version: Literal[1]
    options: dict[str, Any]
    data: str  # a digest of datasets and trials
    steps: dict[str, Natural]  # done of each fit
    strides: dict[str, list[Annotated[int, msgspec.Meta(ge=0)]]]
    """of arrays that lie otherwise in memory than by their axes: sums may round as they lie"""


STATE = TensorsFile(TRAINING_STATE, _Header, "the state of a training")


@dataclass
class TrainingState:
    """The state of one training, and the file that keeps it.

    A training fits a model or several, one after the other, each under a label.
    """

    path: Path
    options: dict[str, Any]
    """of the training, as JSON has them"""
    data: str
    """what it learns from"""
    read: dict[str, tuple[int, Tensors]] = field(default_factory=dict)
    """by label, the step after which a fit goes on, and its state there"""
    fits: dict[str, list[tuple[int, Tensors]]] = field(default_factory=dict)
    """by label, the last states, the newest at the end: two of them"""
    written: float = field(default_factory=time.monotonic)
    cost: float = 0.0
    """seconds that the last writing took"""

    @property
    def due(self) -> bool:
        """Whether it is time to write the file."""
        return time.monotonic() - self.written > max(SECONDS, self.cost / SHARE)

    def keep(self, label: str, step: int, tensors: Mapping[str, Tensor]) -> None:
        """Remembers the state of a fit after a step, a copy, and writes the file if it is due."""
        state = step, {name: _copied(tensor.detach()) for name, tensor in tensors.items()}
        self.fits[label] = [*self.fits.get(label, [])[-1:], state]
        if self.due:
            try:
                self.write()
            except TiplError as error:  # the training goes on without
                warn(f"the training's state is not kept: {error}")
                self.written = time.monotonic()

    def write(self, *, earlier: bool = False) -> int:
        """Writes the file; returns the step after which the last fit would go on.

        Args:
            earlier: of the last fit the state before the newest one, if there is one: where
                weights have diverged, those just before are no good ones.
        """
        start = time.monotonic()
        if not is_first():
            return self.fits[next(reversed(self.fits))][-1][0]
        chosen = {label: states[-1] for label, states in self.fits.items()}
        last = next(reversed(self.fits))
        if earlier:
            chosen[last] = self.fits[last][0]
        tensors, strides = dict[str, Any](), dict[str, list[int]]()
        for label, (_, state) in chosen.items():
            for name, tensor in state.items():
                tensors[f"{label}.{name}"] = tensor.numpy()
                if not tensor.is_contiguous():
                    strides[f"{label}.{name}"] = list(tensor.stride())
        steps = {label: step for label, (step, _) in chosen.items()}
        header = _Header("training", 1, self.options, self.data, steps, strides)
        with explained("write", self.path):
            self.path.parent.mkdir(parents=True, exist_ok=True)  # as for the model that is to be
        storage.write_tensors(self.path, tensors, asdict(header))
        self.written = time.monotonic()
        self.cost = self.written - start
        return steps[last]

    @contextlib.contextmanager
    def refusing_others(self) -> Iterator[None]:
        """Raises a TiplError if what was read turns out not to fit this training."""
        try:
            yield
        except (ArithmeticError, LookupError, RuntimeError, TypeError, ValueError) as error:
            raise TiplError(
                f"{self.path} does not hold the state of this training; remove it, or train "
                "without --resume"
            ) from error

    def remove(self) -> None:
        """Removes the file, when the model is there."""
        if is_first():
            self.path.unlink(missing_ok=True)


def _copied(tensor: Tensor) -> Tensor:
    return tensor.clone(memory_format=torch.preserve_format)


def open_state(
    out: Path,
    config: TrainConfig,
    datasets: list[PathDataset],
    held_out: list[PathDataset],
    *,
    resume: bool,
    **more: str,
) -> TrainingState:
    """The state of a training whose model will be in a directory: a new one, or one to go on with.

    Raises:
        TiplError: what is there is no state of a training, or to be resumed and of another one.
    """
    path = working_copy(out) if is_address(out) else out
    path = path.with_name(path.name + TRAINING_STATE)
    check_file(path, storage.own_tensors("training"))
    options = msgspec.json.decode(msgspec.json.encode(asdict(config) | more))
    trials = [
        [[data.metadata.digest, data.num_checkpoints, data.trials.tolist()] for data in several]
        for several in (datasets, held_out)
    ]
    state = TrainingState(path, options, storage.content_digest({"paths": trials}))
    if not path.exists():
        if resume:
            warn(f"there is no {path} to go on with: the training starts from the beginning")
        return state
    arrays, header = STATE.read(path)
    if not resume:
        warn(
            f"{path} holds {_progress(header)} of a training that was not finished, and is "
            "replaced: --resume goes on with such a one"
        )
        return state
    _check_same(path, header, state)
    with state.refusing_others():
        tensors = {n: _laid_out(array, header.strides.get(n)) for n, array in arrays.items()}
        if not all(tensor.isfinite().all() for n, tensor in tensors.items() if ".curve" not in n):
            raise ValueError("numbers that are not finite")
        for label, step in header.steps.items():
            state.read[label] = step, part_of(tensors, label)
    return state


def _progress(header: _Header) -> str:
    return " and ".join(f"{step:,} steps of {label}" for label, step in header.steps.items())


def _check_same(path: Path, header: _Header, state: TrainingState) -> None:
    """Raises a TiplError that names the first difference between two trainings."""
    for name in dict.fromkeys([*state.options, *header.options]):
        before, now = header.options.get(name), state.options.get(name)
        if before != now and name != _MAY_CHANGE:
            raise TiplError(
                f"{path} is of a training with {name} {shown(before, 60)}, but {shown(now, 60)} "
                "was given to go on with it; give the same options (the learning rate alone may be "
                "another), or train without --resume"
            )
    if header.data != state.data:
        raise TiplError(
            f"{path} is of a training on other paths or trials than those given to go on with it; "
            "give the same datasets and the same share held out, or train without --resume"
        )


def _laid_out(array: Array, strides: list[int] | None) -> Tensor:
    """An array as a tensor that lies in memory as it lay."""
    tensor = torch.from_numpy(array)
    if strides is None:
        return tensor
    reach = sum((size - 1) * stride for size, stride in zip(tensor.shape, strides, strict=True))
    if reach >= max(tensor.numel(), 1):
        raise ValueError("strides that lead beyond an array")
    return torch.empty_strided(tensor.shape, strides, dtype=tensor.dtype).copy_(tensor)


_current: ContextVar[TrainingState | None] = ContextVar("_current", default=None)


def current_state() -> TrainingState | None:
    """The state of the training that is under way; None if nobody keeps it."""
    return _current.get()


@contextlib.contextmanager
def keeping(state: TrainingState | None) -> Iterator[None]:
    """Keeps the state of what is fitted meanwhile, and writes it whatever ends the training.

    Raises:
        TiplError: the training has diverged.
    """
    before = _current.set(state)
    try:
        yield
    except BaseException as error:
        if state is None or not state.fits:
            raise
        diverged = isinstance(error, DivergedError)
        try:
            step = state.write(earlier=diverged)
        except TiplError as unwritten:
            warn(f"the training's state is not kept: {unwritten}")
            raise error from None
        if diverged:
            raise TiplError(
                f"{error}, from the start or, with --resume, from step {step}"
            ) from None
        warn(f"{state.path} keeps the training after step {step:,}: go on with --resume")
        raise
    finally:
        _current.reset(before)


# --- what a fit consists of -----------------------------------------------------------------------


def fit_state(
    model: torch.nn.Module, optimizer: torch.optim.Optimizer, rng: torch.Generator
) -> Tensors:
    """The weights, the optimiser's moments and the random numbers of a fit."""
    moments = {
        f"optimizer.{index}.{name}": value
        for index, values in optimizer.state_dict()["state"].items()
        for name, value in values.items()
    }
    numbers = {"rng": rng.get_state(), "global rng": torch.get_rng_state()}
    return {f"model.{name}": one for name, one in model.state_dict().items()} | moments | numbers


def set_fit_state(
    model: torch.nn.Module,
    optimizer: torch.optim.Optimizer,
    rng: torch.Generator,
    state: Tensors,
) -> None:
    """Goes on from what `fit_state` returned; raises as `refusing_others` expects."""
    model.load_state_dict(part_of(state, "model"))
    parameters, moments = list(model.parameters()), dict[int, Tensors]()
    for name, tensor in part_of(state, "optimizer").items():
        index, _, own = name.partition(".")
        if tensor.shape != (() if own == "step" else parameters[int(index)].shape):
            raise ValueError(f"{name} is of another shape")
        moments.setdefault(int(index), {})[own] = tensor
    optimizer.load_state_dict(optimizer.state_dict() | {"state": moments})
    rng.set_state(state["rng"])
    torch.set_rng_state(state["global rng"])


def part_of(state: Tensors, part: str) -> Tensors:
    """What is named `part.name`, by name."""
    start = f"{part}."
    return {n.removeprefix(start): one for n, one in state.items() if n.startswith(start)}


def square(model: torch.nn.Module) -> float:
    """The sum of the squares of a model's weights: not finite if they have diverged."""
    total = sum(float(one.detach().square().sum()) for one in model.parameters())
    return total if math.isfinite(total) else math.inf
