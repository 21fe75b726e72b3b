"""Training in several processes, each of which learns from its share of every batch.

All processes begin with the same weights, draw the same batches, and look at their shares alone;
the gradients are averaged, so that they end with the same weights as one process that looks at all.
They are started by `torchrun --nproc-per-node 2 -m tipl train ...`; the first one alone prints and
writes.
"""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Iterator
from contextvars import ContextVar
from dataclasses import dataclass
from typing import TypeVar

import torch
from torch import Tensor, distributed, nn

from tipl.core.options import thread_count
from tipl.core.terminal import LOGGER
from tipl.errors import TiplError
from tipl.models.network import Network

Batch = TypeVar("Batch", Tensor, Network)


_place: ContextVar[tuple[int, int]] = ContextVar("_place", default=(0, 1))


@contextlib.contextmanager
def joined() -> Iterator[None]:
    """Trains with the processes that torchrun has started beside this one, if it has.

    All of them have to train the same. Nobody is waited for outside of this, so that a process of
    somebody's own distributed program may train a model by itself.

    Raises:
        TiplError: one of them does not come, or has gone.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) < 2 or "MASTER_ADDR" not in os.environ:
        yield
        return
    with _together():
        distributed.init_process_group("gloo")
    before = _place.set((distributed.get_rank(), distributed.get_world_size()))
    level = LOGGER.level
    if not is_first():
        LOGGER.setLevel(logging.ERROR)
    try:
        yield
        with _together():
            distributed.barrier()  # the first one may still be writing
    finally:
        LOGGER.setLevel(level)
        _place.reset(before)
        distributed.destroy_process_group()


def place() -> tuple[int, int]:
    """The number of this process among those that train together, from 0, and their number."""
    return _place.get()


def is_first() -> bool:
    """Whether this process is the one that prints and writes."""
    return place()[0] == 0


def threads_each(threads: int | None) -> int:
    """Threads of this process; by default the processors are shared with those on its machine."""
    if threads is not None:
        return thread_count(threads)
    return max(1, thread_count(None) // int(os.environ.get("LOCAL_WORLD_SIZE", "1")))


@dataclass(frozen=True)
class Share:
    """The part of a batch that this process learns from: all of it, where it is alone."""

    part: slice
    weight: float
    """of its mean in the mean over processes, which is that over the batch"""

    @classmethod
    def of(cls, count: int) -> Share:
        """The share of a batch of so many."""
        rank, processes = place()
        start, stop = (count * edge // processes for edge in (rank, rank + 1))
        weight = (stop - start) * processes / count
        return cls(slice(start, max(stop, start + 1)), weight)  # never empty, but it may weigh 0

    def __call__(self, batch: Batch) -> Batch:
        """What of a batch `[B, ...]` belongs to it."""
        if isinstance(batch, Network):
            return batch.map(self)
        return batch[self.part]

    def scaled(self, loss: Tensor, counts: Tensor | None = None) -> Tensor:
        """The mean loss of the share, so that its mean over processes is that over the batch.

        Args:
            loss: of the share.
            counts: over how much each member of the batch `[B]` has its mean, if that differs.
        """
        weight = self.weight
        if weight and counts is not None:
            weight = float(self(counts).sum() / counts.sum()) * place()[1]
        return loss if weight == 1 else loss * weight


@contextlib.contextmanager
def _together() -> Iterator[None]:
    """Raises a TiplError where another process does not come."""
    try:
        yield
    except RuntimeError as error:  # of torch.distributed, whose message is a page
        raise TiplError(
            "another process that trains this model has gone; see what it said, and start all of "
            "them again, with --resume to go on from the last state that was kept"
        ) from error


def average(value: Tensor) -> Tensor:
    """The mean of a value over all processes, without its gradient."""
    processes = place()[1]
    if processes == 1:
        return value
    total = value.detach().clone()
    with _together():
        distributed.all_reduce(total)
    return total / processes


def average_gradients(model: nn.Module) -> None:
    """Replaces the gradients of a model's weights by their means over all processes."""
    if place()[1] == 1:
        return
    gradients = [one.grad for one in model.parameters() if one.grad is not None]
    flat = average(torch.cat([one.flatten() for one in gradients]))
    parts = torch.split(flat, [one.numel() for one in gradients])
    for gradient, part in zip(gradients, parts, strict=True):
        gradient.copy_(part.view_as(gradient))


def gathered(share: Network, count: int) -> Network:
    """The networks of a whole batch of so many, from the shares `[B, L, ...]` of all processes."""
    processes = place()[1]
    if processes == 1:
        return share
    whole = share.map(lambda one: torch.zeros(count, *one.shape[1:]))
    own = Share.of(count)
    if own.weight:
        whole.map(lambda to, one: to[own.part].copy_(one), share)
    return whole.map(lambda one: average(one) * processes)
