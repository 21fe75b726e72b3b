"""The one training loop of all models, and the threads that they use."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator, Mapping
from typing import Protocol, runtime_checkable

import torch
from threadpoolctl import threadpool_limits
from torch import Tensor, nn

from tipl.core.progress import progress_bar
from tipl.core.seeds import HELD_OUT_SEED
from tipl.errors import TiplError
from tipl.models import TrainConfig
from tipl.models.parallel import average, average_gradients, is_first
from tipl.models.resuming import (
    DivergedError,
    TrainingState,
    current_state,
    fit_state,
    part_of,
    set_fit_state,
    square,
)

LOG_INTERVAL = 25
"""Training steps between two entries of the training curve."""

HELD_OUT_BATCHES = 4
"""Batches in which a held-out loss is measured: always the same ones."""

CURVES = ("step", "train_loss", "held_out_loss", "standing_still_loss")

Curve = dict[str, list[int | float | None]]
"""The training curve: a list for each of `CURVES`; None is a loss that is not known."""


@runtime_checkable
class Remembers(Protocol):
    """What a loss has to have if it remembers anything from one batch to the next."""

    def state(self) -> dict[str, Tensor]:
        """All that it remembers; none of it is changed in place later on."""

    def set_state(self, state: Mapping[str, Tensor]) -> None:
        """Goes on from what `state` returned."""


def fit(
    model: nn.Module,
    config: TrainConfig,
    batch_loss: Callable[[torch.Generator], Tensor],
    held_out_loss: Callable[..., float] | None,
    *,
    label: str,
    progress: bool = True,
    remembers: Remembers | None = None,
) -> Curve:
    """Trains a model in place by AdamW on a one-cycle schedule.

    Each step takes the loss of a batch that is drawn with the generator. The loss on what the model
    does not learn from, if there is any, is recorded now and then; with `still=True` it is that of
    standing still. Within `tipl.train(..., out=...)` the state of all this is kept, with what the
    loss `remembers` if it does: a training that is resumed goes on from there, to the same bytes.

    Raises:
        TiplError: the training diverges, or the state to go on from is of another one.
    """
    still = _averaged(held_out_loss(still=True)) if held_out_loss else math.nan
    if held_out_loss and not math.isfinite(still):
        raise TiplError(
            f"{label}: the loss of standing still on what is held out is {still}; leave out held-"
            "out trials whose weights or actions are too large, or hold out none"
        )
    run = _Fit(model, config, label, remembers)
    with progress_bar(progress and is_first()) as bar:
        task = bar.add_task(label, total=config.steps, completed=run.step, note="")
        while run.step < config.steps:
            loss = run.advance(batch_loss)
            if logged := run.is_logged(run.step):
                held_out = _averaged(held_out_loss()) if held_out_loss else math.nan
                if held_out_loss:
                    run.check_finite(held_out, "held-out loss")
                run.rows.append((run.step, loss, held_out, still))
                note = f"loss {loss:.3f}"
                if not math.isnan(held_out):
                    note += f", held-out {held_out:.3f} (standing still {still:.3f})"
                bar.update(task, note=note)
            if logged or run.due:
                run.keep()
            bar.advance(task)
    return {
        name: [None if math.isnan(value) else value for value in values]
        for name, values in zip(CURVES, zip(*run.rows, strict=True), strict=True)
    }


def _averaged(loss: float) -> float:
    """A loss that each process knows of its share, as one number of all."""
    return float(average(torch.tensor(loss, dtype=torch.float64)))


class _Fit:
    """A model, what moves it, and how far it has come."""

    def __init__(
        self, model: nn.Module, config: TrainConfig, label: str, remembers: Remembers | None
    ) -> None:
        self.model, self.config, self.label, self.remembers = model, config, label, remembers
        self.step = 0
        self.rows: list[tuple[int | float, ...]] = []
        """of the curve"""
        self.rng = torch.Generator().manual_seed(config.seed)
        rate = config.peak_learning_rate
        self.optimizer = torch.optim.AdamW(
            model.parameters(), lr=rate, weight_decay=config.weight_decay
        )
        rising = 0.1 if config.steps != 9 else 0.11  # of 10 in all, a tenth would have no length
        self.schedule = torch.optim.lr_scheduler.OneCycleLR(
            self.optimizer, rate, total_steps=config.steps + 1, pct_start=rising
        )
        self.keeping = current_state()
        if self.keeping is not None and label in self.keeping.read:
            self._resume(self.keeping)
        self.keep()

    def is_logged(self, step: int) -> bool:
        """Whether the curve tells the losses of a step."""
        return step % LOG_INTERVAL == 0 or step == self.config.steps

    def advance(self, batch_loss: Callable[[torch.Generator], Tensor]) -> float:
        """Takes a step; returns the loss before it."""
        self.step += 1
        loss = batch_loss(self.rng)
        self.check_finite(value := float(average(loss.detach())), "loss")
        self.optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        average_gradients(self.model)
        norm = torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        self.check_finite(float(norm), "norm of its gradient")
        self.optimizer.step()
        self.schedule.step()
        return value

    def check_finite(self, value: float, what: str) -> None:
        """Raises a TiplError if the training has diverged."""
        if not math.isfinite(value):
            raise DivergedError(
                f"{self.label}: the training diverged at step {self.step} of {self.config.steps} "
                f"(the {what} is {value}) with a learning rate of "
                f"{self.config.peak_learning_rate:g}, and nothing was saved; train with a smaller "
                "one"
            )

    # --- keeping the state -----------------------------------------------------------------------

    @property
    def due(self) -> bool:
        """Whether it is time to keep the state."""
        return self.keeping is not None and self.keeping.due

    def keep(self) -> None:
        """Keeps the state, if anybody does, once it is known to be finite."""
        # what no loss has seen
        self.check_finite(square(self.model), "square of its weights")
        if self.keeping is not None:
            state = fit_state(self.model, self.optimizer, self.rng)
            state["curve"] = torch.tensor(self.rows, dtype=torch.float64)
            memory = self.remembers.state() if self.remembers else {}
            state |= {f"loss.{name}": tensor for name, tensor in memory.items()}
            self.keeping.keep(self.label, self.step, state)

    def _resume(self, keeping: TrainingState) -> None:
        self.step, state = keeping.read[self.label]
        with keeping.refusing_others():
            set_fit_state(self.model, self.optimizer, self.rng, state)
            rows = state["curve"].reshape(-1, len(CURVES)).tolist()
            self.rows = [(int(row[0]), *row[1:]) for row in rows]
            steps = range(1, min(self.step, self.config.steps) + 1)
            logged = [step for step in steps if self.is_logged(step)]
            if self.step > self.config.steps or logged != [row[0] for row in self.rows]:
                raise ValueError("the curve is of other steps")
            if self.remembers:
                self.remembers.set_state(part_of(state, "loss"))
        if self.step:  # the rate and the moments' decay follow from the step
            self.schedule.load_state_dict({"last_epoch": self.step - 1, "_step_count": 2})
            self.schedule.step()


@torch.inference_mode()
def mean_of_batches(loss: Callable[..., Tensor], model: nn.Module, *, still: bool = False) -> float:
    """The loss of a model, or of standing still, on what it does not learn from."""
    rng = torch.Generator().manual_seed(HELD_OUT_SEED)
    batches = [loss(model, rng, still=still) for _ in range(HELD_OUT_BATCHES)]
    return float(torch.stack(batches).mean())


@contextlib.contextmanager
def torch_threads(threads: int) -> Iterator[None]:
    """Lets torch and BLAS use so many threads.

    At the sizes of most models here more than one gains little, they wait for each other when
    other processes are busy, and results depend on the number of processors.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        with threadpool_limits(threads, "blas"):
            yield
    finally:
        torch.set_num_threads(before)
