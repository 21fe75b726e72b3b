"""The one training loop of all models, and the threads that they use."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator

import torch
from threadpoolctl import threadpool_limits
from torch import Tensor, nn

from tipl.core.progress import progress_bar
from tipl.core.seeds import HELD_OUT_SEED
from tipl.errors import TiplError
from tipl.models import TrainConfig

LOG_INTERVAL = 25
"""Training steps between two entries of the training curve."""

HELD_OUT_BATCHES = 4
"""Batches in which a held-out loss is measured: always the same ones."""

CURVES = ("step", "train_loss", "held_out_loss", "standing_still_loss")

Curve = dict[str, list[int | float | None]]
"""The training curve: a list for each of `CURVES`; None is a loss that is not known."""


def fit(
    model: nn.Module,
    config: TrainConfig,
    batch_loss: Callable[[torch.Generator], Tensor],
    held_out_loss: Callable[..., float] | None,
    *,
    label: str,
    progress: bool = True,
) -> Curve:
    """Trains a model in place by AdamW on a one-cycle schedule.

    Each step takes the loss of a batch that is drawn with the generator. The loss on what the model
    does not learn from, if there is any, is recorded now and then; with `still=True` it is that of
    standing still.

    Raises:
        TiplError: the training diverges.
    """
    still = held_out_loss(still=True) if held_out_loss else math.nan
    if held_out_loss and not math.isfinite(still):
        raise TiplError(
            f"{label}: the loss of standing still on what is held out is {still}; leave out held-"
            "out trials whose weights or actions are too large, or hold out none"
        )
    rng = torch.Generator().manual_seed(config.seed)
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=config.peak_learning_rate, weight_decay=config.weight_decay
    )
    rising = 0.1 if config.steps != 9 else 0.11  # of 10 in all, a tenth would have no length
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, config.peak_learning_rate, total_steps=config.steps + 1, pct_start=rising
    )
    rows: list[tuple[int | float, ...]] = []
    with progress_bar(progress) as bar:
        task = bar.add_task(label, total=config.steps, note="")
        for step in range(1, config.steps + 1):
            loss = batch_loss(rng)
            _check_finite(label, step, config, float(loss.detach()))
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            norm = torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            _check_finite(label, step, config, float(norm), "norm of its gradient")
            optimizer.step()
            schedule.step()
            if step % LOG_INTERVAL == 0 or step == config.steps:
                held_out = held_out_loss() if held_out_loss else math.nan
                if held_out_loss:
                    _check_finite(label, step, config, held_out, "held-out loss")
                rows.append((step, loss.item(), held_out, still))
                note = f"loss {loss.item():.3f}"
                if not math.isnan(held_out):
                    note += f", held-out {held_out:.3f} (standing still {still:.3f})"
                bar.update(task, note=note)
            bar.advance(task)
    _check_finite(label, config.steps, config, _square(model), "square of its weights")
    return {
        name: [None if math.isnan(value) else value for value in values]
        for name, values in zip(CURVES, zip(*rows, strict=True), strict=True)
    }


def _square(model: nn.Module) -> float:
    """The sum of the squares of a model's weights, the last of which no loss has seen."""
    return sum(float(parameter.detach().square().sum()) for parameter in model.parameters())


def _check_finite(
    label: str, step: int, config: TrainConfig, value: float, what: str = "loss"
) -> None:
    if not math.isfinite(value):
        raise TiplError(
            f"{label}: the training diverged at step {step} of {config.steps} (the {what} is "
            f"{value}) with a learning rate of {config.peak_learning_rate:g}, and nothing was "
            "saved; train with a smaller one"
        )


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
