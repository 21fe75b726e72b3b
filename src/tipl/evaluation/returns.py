"""Episodic returns of many policies at once, by running them in their environment."""

from __future__ import annotations

import dataclasses
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

import numpy as np
from jaxtyping import Float, Float32, Float64, Int64, Shaped
from threadpoolctl import threadpool_limits

from tipl.core.arrays import Array
from tipl.core.cards import card
from tipl.core.options import at_least, thread_count
from tipl.core.progress import progress_bar
from tipl.core.seeds import Stream
from tipl.envs import BatchedMujocoEnv, make_vec
from tipl.errors import TiplError
from tipl.evaluation.stats import Interval, mean_interval
from tipl.paths.returns import MAX_EPISODES
from tipl.policies.actions import (
    OBSERVATION_CLIP,
    best_actions,
    checked_clip,
    normalise_observations,
)
from tipl.policies.layout import ParamLayout
from tipl.policies.policy import Policy
from tipl.policies.tasks import TaskSpec, check_normaliser, task_label
from tipl.ppo.networks import StackedMLP, stacked_actors

NUM_SLOTS = 64
"""Environments that one thread steps together."""


class Episodes(NamedTuple):
    """The E episodes of each of M policies."""

    returns: Float64[np.ndarray, "M E"]
    """undiscounted"""
    lengths: Int64[np.ndarray, "M E"]
    """in environment steps"""


_Given: TypeAlias = Policy | str | Path


@dataclasses.dataclass(frozen=True)
class Evaluation:
    """The returns of episodes of one policy, or of N policies of one task in the order given."""

    env_id: str
    episodic_return: Float64[np.ndarray, " E"] | Float64[np.ndarray, "N E"]
    """undiscounted return of each episode"""
    mean: Interval
    """their mean with its 95% interval: over episodes of one policy, over policies of several"""
    episode_length: Int64[np.ndarray, " E"] | Int64[np.ndarray, "N E"]
    """environment steps of each episode"""
    variant: str = ""
    """what of the environment was not as registered, in words, physics that all share included"""

    def __str__(self) -> str:
        value, low, high = self.mean.value, self.mean.low, self.mean.high
        interval = f" (95% interval {low:,.1f} to {high:,.1f})" if np.isfinite(low) else ""
        label = task_label(self.env_id, self.variant)
        return f"{label}: mean episodic return {value:,.1f}{interval} over {self._extent()}"

    def _repr_html_(self) -> str:
        value, low, high = self.mean.value, self.mean.low, self.mean.high
        facts = {"mean episodic return": f"{value:,.1f}"}
        if np.isfinite(low):
            facts["95% interval"] = f"{low:,.1f} to {high:,.1f}"
        facts["over"] = self._extent()
        facts["episode length"] = f"{self.episode_length.mean():,.1f} steps on average"
        return card(f"Evaluation in {task_label(self.env_id, self.variant)}", facts)

    def _extent(self) -> str:
        """What the mean is over, and of several policies the range of their own means."""
        *policies, count = self.episodic_return.shape
        episodes = f"{count} episode{'s' * (count > 1)}"
        if not policies:
            return episodes
        if policies == [1]:
            return f"1 policy of {episodes}"
        means = self.episodic_return.mean(axis=1)
        return (
            f"{policies[0]} policies of {episodes} each; lowest policy's mean "
            f"{means.min():,.1f}, highest {means.max():,.1f}"
        )


def evaluate(
    policies: _Given | Sequence[_Given],
    episodes: int = 20,
    *,
    physics: Mapping[str, float] | None = None,
    seed: int = 0,
    threads: int | None = None,
    progress: bool = False,
) -> Evaluation:
    """Runs the mean actions of one or several policies for whole episodes of their task.

    Several policies may differ in architecture, in normaliser and clip of observations, and in
    physics. Each one's returns are those that it has alone.

    Args:
        policies: the policy to run, or a sequence of N policies of one task; each may be given by
            its directory.
        episodes: number of episodes of each policy, E.
        physics: runs all of them in one world: factors of the original physics by name, such as
            `{"gravity": 1.3}`, instead of those of their tasks; `{}` is home.
        seed: fixes the episodes' starts: episode e starts alike for every policy.
        threads: by default one for each processor.
        progress: show a progress bar for each group of policies of one architecture and clip.

    Raises:
        TiplError: the sequence is empty or its policies are of different tasks, `episodes` or
            `threads` is below 1, the seed below 0, the task's environment cannot be made, or it has
            no physics of a name, or not of a factor.

    Examples:
        >>> tipl.evaluate("runs/policy", episodes=2).episodic_return.shape
        (2,)
    """
    several = [Policy.of(one) for one in _as_sequence(policies)]
    if physics is not None:
        several = [policy.with_physics(physics) for policy in several]
    _check_one_task(several)
    stacks: dict[tuple[Any, ...], list[int]] = {}  # indices of those that may share it
    for i, policy in enumerate(several):
        task = policy.task  # its normaliser and factors may be each policy's own
        actions = (task.action_low, task.action_high, task.action_dtype, task.first_action)
        key = (policy.layout, policy.observation_clip, *actions, *dict(task.physics))
        stacks.setdefault(key, []).append(i)
    run = [
        _evaluate_group([several[i] for i in stack], episodes, seed, threads, progress)
        for stack in stacks.values()
    ]
    order = np.argsort(np.concatenate([*stacks.values()]))
    # [N, E] group after group -> [N, E] in the order given
    returns, lengths = (np.concatenate(arrays)[order] for arrays in zip(*run, strict=True))
    if not isinstance(policies, Sequence) or isinstance(policies, str):
        returns, lengths = returns[0], lengths[0]
    task = several[0].task
    if not np.isfinite(returns).all():
        raise TiplError(
            f"{np.count_nonzero(~np.isfinite(returns))} of {returns.size} episodes in "
            f"{task.label} returned NaN or infinity: expected finite rewards; mend the environment"
        )
    worlds = {policy.task.physics_label for policy in several}
    label = [task.variant, *(worlds if len(worlds) == 1 else ())]  # of one world, or of several
    variant = ", ".join(filter(None, label))
    return Evaluation(task.env_id, returns, mean_interval(returns), lengths, variant)


def _as_sequence(given: _Given | Sequence[_Given]) -> Sequence[_Given]:
    return [given] if isinstance(given, Policy | str | Path) else given


def _check_one_task(policies: Sequence[Policy]) -> None:
    if not policies:
        raise TiplError(
            "an empty sequence of policies was given to evaluate; expected a policy or a sequence "
            "of at least one: see why what selects them selects none"
        )
    first = policies[0].task
    for i, policy in enumerate(policies):
        if not policy.task.same_environment(first):
            raise TiplError(
                f"policies of different tasks were given: policy 0 is for {first.label} and policy "
                f"{i} for {policy.task.label}; expected one task: evaluate those of each task apart"
            )


def _evaluate_group(
    policies: Sequence[Policy], episodes: int, seed: int, threads: int | None, progress: bool
) -> Episodes:
    """Episodes of policies that may run in one stack."""
    mean = np.stack([policy.observation_mean for policy in policies])
    std = np.stack([policy.observation_std for policy in policies])
    factors = [dict(policy.task.physics) for policy in policies]
    physics = {name: np.array([own[name] for own in factors], np.float64) for name in factors[0]}
    params, first = np.stack([policy.params for policy in policies]), policies[0]
    return evaluate_stack(
        params, first.layout, first.task, episodes, statistics=(mean, std),
        clip=first.observation_clip, physics=physics, seed=seed, threads=threads, progress=progress,
    )  # fmt: skip


def episode_seed(seed: int, episode: int) -> int:
    """The seed that the environment of an episode is reset with, for every policy."""
    return Stream.EPISODES.number(seed, episode)


def mean_actions(
    task: TaskSpec,
    actor: StackedMLP,
    observations: Float[np.ndarray, "M O"],
    mean: Float[np.ndarray, "M O"],
    std: Float[np.ndarray, "M O"],
    clip: float = OBSERVATION_CLIP,
    squashed: bool = False,
) -> Shaped[np.ndarray, "M ..."]:
    """What each policy does by its mean for an observation of its own, with its own normaliser.

    They share the clip of normalised observations, and whether their outputs are squashed.
    """
    inputs = normalise_observations(observations, mean, std, clip=clip)[:, None]
    # [M, 1, O] -> [M, 1, A] -> [M, A]
    return best_actions(task, actor.forward(inputs)[:, 0], squashed)


def evaluate_stack(
    params: Float32[np.ndarray, "M P"],
    layout: ParamLayout,
    task: TaskSpec,
    episodes: int,
    *,
    statistics: tuple[Float[np.ndarray, "M O"], Float[np.ndarray, "M O"]] | None = None,
    clip: float = OBSERVATION_CLIP,
    physics: Mapping[str, Float[np.ndarray, " M"]] | None = None,
    seed: int = 0,
    threads: int | None = None,
    progress: bool = False,
) -> Episodes:
    """Episodes of M policies of one architecture, acting by their mean.

    Each (policy, episode) pair runs in the first environment that falls free, so short episodes
    do not wait for long ones. Episode e starts from the same state for every policy: returns are
    paired by episode. Of the weights, anything but the actor is ignored.

    Each policy may have its own `statistics`, mean and std of its observation normaliser, and its
    own `physics`, factors by name (see `tipl.envs.physics`); by default both are the task's.
    Normalised observations of all are clipped to +- `clip`. The seed fixes the episodes' starts;
    threads are by default one for each processor.

    Raises:
        TiplError: `episodes` or `threads` is below 1, the seed below 0, the weights are not
            finite or do not fit the layout, statistics are not finite or standard deviations not
            above 0, or the physics cannot be scaled.
    """
    available, count = thread_count(threads), len(params)
    _check(params, layout, episodes, seed)
    if statistics is None:
        mean, std = task.observation_statistics
        statistics = np.tile(mean, (count, 1)), np.tile(std, (count, 1))
    if physics is None:
        physics = {name: np.full(count, factor) for name, factor in task.physics}
    mean, std = (one.reshape(-1) for one in statistics)  # [M, O] -> [M * O]
    check_normaliser("a stack of policies", mean, std, count * task.observation_size)
    found = Episodes(np.full((count, episodes), np.nan), np.zeros((count, episodes), np.int64))
    stack = _Stack(params, layout, task, *statistics, checked_clip(clip), physics, seed, found)
    pairs = [(m, e) for m in range(count) for e in range(episodes)]
    workers = min(available, -(-len(pairs) // NUM_SLOTS))
    with (
        progress_bar(progress) as bar,
        threadpool_limits(1, "blas"),
        ThreadPoolExecutor(workers) as pool,
    ):
        bar_task = bar.add_task(
            f"evaluate {count} polic{'y' if count == 1 else 'ies'}", total=len(pairs), note=""
        )
        shares = [_Worker(stack, pairs[i::workers]) for i in range(workers)]
        try:
            list(pool.map(lambda worker: worker.run(lambda n: bar.advance(bar_task, n)), shares))
        except BaseException:  # an error, or Ctrl-C: nobody waits for the others' episodes
            stack.stop.set()
            raise
    return found


def _check(params: Array, layout: ParamLayout, episodes: int, seed: int) -> None:
    at_least(1, episodes=episodes)
    at_least(0, seed=seed)
    if len(params) * episodes > MAX_EPISODES:
        raise TiplError(
            f"{episodes:,} episodes of each of {len(params):,} policies were asked for; expected "
            f"at most {MAX_EPISODES:,} at once: give fewer episodes, or fewer policies"
        )
    if len(params) == 0:
        raise TiplError("no policy was given to evaluate; expected at least one")
    if params.shape[-1] != layout.size:
        raise TiplError(
            f"policies of {params.shape[-1]} parameters were given with a layout of "
            f"{layout.size}; use the layout that the weights were stored with"
        )
    broken = np.flatnonzero(~np.isfinite(params).all(axis=1))
    if len(broken):
        raise TiplError(
            f"policy {broken[0]} of the {len(params)} given has NaN or infinite weights; it "
            "cannot act: leave it out"
        )


@dataclasses.dataclass(frozen=True)
class _Stack:
    """M policies, and what their episodes have returned so far."""

    params: Array  # [M, P]
    layout: ParamLayout
    task: TaskSpec
    mean: Array  # [M, O]
    std: Array  # [M, O]
    clip: float
    physics: Mapping[str, Array]  # [M] each
    seed: int
    found: Episodes
    stop: threading.Event = dataclasses.field(default_factory=threading.Event)


class _Worker:
    """One thread's environments, each of which runs one episode of one policy at a time."""

    def __init__(self, stack: _Stack, pairs: Sequence[tuple[int, int]]) -> None:
        self.stack, self.waiting = stack, list(reversed(pairs))
        slots = min(NUM_SLOTS, len(pairs))
        self.running: list[tuple[int, int] | None] = [None] * slots  # policy and episode
        self.params = np.zeros((slots, stack.layout.size), np.float32)
        self.mean = np.zeros((slots, stack.task.observation_size))
        self.std = np.ones((slots, stack.task.observation_size))
        self._open()

    def _open(self) -> None:
        """Makes the environments of the slots, and the networks that act in them."""
        self.actor = stacked_actors(self.params, self.stack.layout)
        ones = {name: np.ones(len(self.running)) for name in self.stack.physics}
        self.envs: Any = make_vec(self.stack.task, len(self.running), physics=ones)

    def run(self, advance: Callable[[int], None]) -> None:
        """Fills in what this worker's pairs return, unless it is stopped."""
        running = np.ones(len(self.running), bool)
        totals, steps = np.zeros(len(running)), np.zeros(len(running), np.int64)
        observations = self._start_episodes(running)
        task, acting = self.stack.task, (self.stack.clip, self.stack.layout.squashed)
        while running.any() and not self.stack.stop.is_set():
            actions = mean_actions(task, self.actor, observations, self.mean, self.std, *acting)
            observations, rewards, terminated, truncated, _ = self.envs.step(actions)
            totals += rewards
            steps += 1
            done = (terminated | truncated) & running
            if done.any():
                for slot in np.flatnonzero(done):
                    self.stack.found.returns[self.running[slot]] = totals[slot]
                    self.stack.found.lengths[self.running[slot]] = steps[slot]
                advance(int(done.sum()))
                totals[done], steps[done] = 0.0, 0
                observations = self._start_episodes(done)
                running = np.array([pair is not None for pair in self.running])
                if self._mostly_idle():
                    kept = self._close_idle_slots()
                    observations, totals, steps = observations[kept], totals[kept], steps[kept]
                    running = running[kept]
        self.envs.close()

    def _mostly_idle(self) -> bool:
        """Whether it is worth a few milliseconds to be rid of the slots that have no episode."""
        count, idle = len(self.running), self.running.count(None)
        return count > 4 and 2 * idle >= count > idle and isinstance(self.envs, BatchedMujocoEnv)

    def _close_idle_slots(self) -> Array:
        """Goes on with the slots whose episodes are not over; returns their indices.

        The others would be stepped for nothing. A simulation does not depend on those beside it.
        """
        kept = np.flatnonzero([pair is not None for pair in self.running])
        state = {name: array[kept] for name, array in self.envs.state().items()}
        self.envs.close()
        self.running = [self.running[slot] for slot in kept]
        self.params, self.mean, self.std = self.params[kept], self.mean[kept], self.std[kept]
        self._open()
        self._set_physics(np.arange(len(kept)))
        self.envs.set_state(state)
        return kept

    def _start_episodes(self, free: Array) -> Array:
        """Gives the free slots their next episodes; returns all present observations."""
        stack = self.stack
        seeds: list[int | None] = [None] * len(free)
        for slot in np.flatnonzero(free):
            self.running[slot] = pair = self.waiting.pop() if self.waiting else None
            if pair is not None:
                policy, episode = pair
                self.params[slot] = stack.params[policy]
                self.mean[slot], self.std[slot] = stack.mean[policy], stack.std[policy]
                seeds[slot] = episode_seed(stack.seed, episode)
        self._set_physics(np.flatnonzero(free))
        observations: Array = self.envs.reset(seed=seeds, options={"reset_mask": free.copy()})[0]
        return observations

    def _set_physics(self, slots: Array) -> None:
        """Gives those of the slots that have an episode the physics of its policy."""
        pairs = {int(slot): pair for slot in slots if (pair := self.running[slot]) is not None}
        if self.stack.physics and pairs:
            policies = [policy for policy, _ in pairs.values()]
            factors = {name: values[policies] for name, values in self.stack.physics.items()}
            self.envs.set_physics(np.array([*pairs]), factors)
