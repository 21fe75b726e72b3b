"""What a collection is told: its trials, their networks and what is stored of them."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal, TypedDict

from tyro.conf import UseAppendAction

from tipl.core.options import at_least, at_most
from tipl.core.schemas import LARGEST
from tipl.envs.worlds import TRAINING, Worlds
from tipl.errors import TiplError, shown
from tipl.jumps.config import JumpConfig, PPTBConfig
from tipl.paths.metadata import MAX_TRIALS, Initial, Networks, Normaliser, Redraw
from tipl.policies.factors import check_name, is_range, numbers
from tipl.policies.layout import check_hidden_sizes
from tipl.policies.policy import Policy
from tipl.ppo.config import PPOConfig

DEFAULT_TRIALS, DEFAULT_SPLIT = 128, TRAINING
"""Number of trials, and the split of worlds that they learn in, unless somebody says otherwise."""

Observe = Literal["nothing", "physics"]
"""What policies see of the physics that vary."""

DEFAULT_HIDDEN = (64, 64)
"""Units in each hidden layer, unless somebody says otherwise."""

MAX_TOTAL_STEPS = 10**12
"""Environment steps of a trial: what takes months at any speed."""


@dataclasses.dataclass(frozen=True)
class CollectConfig:
    """What to collect. Equal configurations give equal bytes, whatever the number of threads.

    Examples:
        >>> config = tipl.CollectConfig(num_trials=4, total_steps=61_440)
        >>> config.num_iterations
        30
    """

    num_trials: int | None = None
    """independent PPO trials (default: 128, or those that there are worlds for)"""
    total_steps: int = 61_440
    """environment steps of each trial (rounded down to whole PPO iterations)"""
    seed: int = 0
    """seed from which every trial's own random numbers are derived"""
    hidden_sizes: tuple[int, ...] | None = None
    """units in each hidden layer of actor and critic (default: 64 64, or those of the start)"""
    initial: Initial = "independent"
    """give each trial its own random initial network, or all the same"""
    normaliser: Normaliser = "frozen"
    """observation statistics: the task's, the same for all, or running ones as in CleanRL"""
    networks: Networks = "actor"
    """what is stored of each checkpoint"""
    checkpoint_interval: int = 1
    """PPO iterations between checkpoints"""
    trials_per_group: int | None = None
    """trials in one batched loop, which one thread runs; by default at most 64, and half of all"""
    vary: Annotated[tuple[str, ...], UseAppendAction] = ()
    """give each trial its own physics, such as gravity=0.7..1.4 or body_mass:pole=0.5..2: factors
    of the original values, drawn from a range (may be given several times)"""
    worlds: str | None = None
    """file of worlds (tipl worlds make), instead of ranges: the first trials learn in the first
    world of the split, and so on"""
    split: str = DEFAULT_SPLIT
    """split of the worlds that trials learn in"""
    trials_per_world: int = 1
    """trials in each of the worlds; a given number of trials takes the first of them"""
    redraw: Redraw = "never"
    """when to draw the physics of an environment anew, from the ranges or from all worlds of the
    split alike: never, so that each trial has its own; or at each episode (domain randomisation)"""
    observe: Observe = "nothing"
    """what policies see of the physics that vary: nothing, or the logarithm of each factor (of
    motors, which may be reversed, the factor less 1) after the environment's own observations"""
    start: str | None = None
    """directory of a policy that all trials start from, instead of random actors; their critics are
    refitted to the first rollout before the actors move"""
    ppo: PPOConfig = dataclasses.field(default_factory=PPOConfig)
    """hyperparameters of PPO"""
    pptb: PPTBConfig = dataclasses.field(default_factory=PPTBConfig)
    """policy path trimming and boosting: replace the weights every few PPO iterations"""
    jumps: JumpConfig = dataclasses.field(default_factory=JumpConfig)
    """jump to forecasts of the weights where these are better"""

    @property
    def hidden(self) -> tuple[int, ...]:
        """Units in each hidden layer; those of a start are known once it has been read."""
        return DEFAULT_HIDDEN if self.hidden_sizes is None else tuple(self.hidden_sizes)

    @property
    def trials(self) -> int:
        """Number of trials; with worlds, it is known once these have been read."""
        return DEFAULT_TRIALS if self.num_trials is None else self.num_trials

    @property
    def group_size(self) -> int:
        """Trials in one batched loop, the last of which may have fewer."""
        if self.trials_per_group is not None:
            return min(self.trials_per_group, self.trials)
        return min(64, -(-self.trials // 2))  # two threads have work

    @property
    def num_iterations(self) -> int:
        """PPO iterations of each trial."""
        return self.total_steps // self.ppo.rollout_steps

    def __post_init__(self) -> None:
        check_hidden_sizes(self.hidden)
        at_least(
            1,
            num_trials=self.num_trials,
            checkpoint_interval=self.checkpoint_interval,
            trials_per_group=self.trials_per_group,
            trials_per_world=self.trials_per_world,
        )
        at_least(0, seed=self.seed)
        at_most(MAX_TRIALS, num_trials=self.trials)
        at_most(MAX_TOTAL_STEPS, total_steps=self.total_steps)
        at_most(LARGEST, seed=self.seed)
        parse_ranges(self.vary)
        if self.worlds is not None and self.vary:
            raise TiplError(
                f"both worlds and the ranges {' '.join(self.vary)} of what varies were given; give "
                "one of them"
            )
        if self.worlds is None and (self.split, self.trials_per_world) != (DEFAULT_SPLIT, 1):
            raise TiplError(
                f"the split {shown(self.split)} and trials_per_world={self.trials_per_world} were "
                "given without worlds, of which they say something; give a file of worlds, too"
            )
        self._check_varied()
        self.ppo.check()
        self.pptb.check()
        self.jumps.check()
        if self.pptb.rank is not None and self.jumps.forecaster is not None:
            raise TiplError(
                "both PPTB and jumps were given, and both replace weights; give one of them"
            )
        given = {"jumps were": self.jumps.forecaster, "a start was": self.start}
        for what in (name for name, value in given.items() if value is not None):
            if self.normaliser == "running":
                raise TiplError(
                    f"{what} given with normaliser='running', under which no two policies see the "
                    "same observations; collect with normaliser='frozen'"
                )
        if self.num_iterations < self.checkpoint_interval:
            raise TiplError(
                f"total_steps is {self.total_steps}, but one checkpoint takes "
                f"{self.ppo.rollout_steps * self.checkpoint_interval} steps (num_steps x "
                f"{'num_envs x ' * (self.ppo.num_envs > 1)}checkpoint_interval); give more steps"
            )
        if self.num_iterations % self.checkpoint_interval:
            raise TiplError(
                f"{self.total_steps} steps are {self.num_iterations} iterations, which "
                f"a checkpoint_interval of {self.checkpoint_interval} does not divide; the last "
                "weights would be lost: choose a divisor"
            )

    def _check_varied(self) -> None:
        """Raises a TiplError unless there is something to redraw or to observe, and it may be."""
        given = {"redraw": (self.redraw, "never"), "observe": (self.observe, "nothing")}
        for name, (value, without) in given.items():
            if value != without and not self.vary and self.worlds is None:
                raise TiplError(
                    f"{name}={value!r} was given without physics that vary; give ranges (vary), "
                    "such as gravity=0.7..1.4, or a file of worlds"
                )
        if self.redraw == "never":
            return
        if self.trials_per_world != 1:
            raise TiplError(
                f"trials_per_world={self.trials_per_world} was given with redraw={self.redraw!r}, "
                "with which all trials learn in all worlds; give one of them"
            )
        if self.jumps.forecaster is not None:
            raise TiplError(
                f"jumps were given with redraw={self.redraw!r}, under which no two tests of "
                "forecasts meet the same world; leave one of them out"
            )


class CollectOptions(TypedDict, total=False):
    """The fields of `CollectConfig` as options of `tipl.collect`, for type checkers."""

    num_trials: int | None
    total_steps: int
    seed: int
    hidden_sizes: tuple[int, ...] | None
    initial: Initial
    normaliser: Normaliser
    networks: Networks
    checkpoint_interval: int
    trials_per_group: int | None
    vary: tuple[str, ...]
    worlds: str | Path | Worlds | None
    split: str
    trials_per_world: int
    redraw: Redraw
    observe: Observe
    start: str | Path | Policy | None
    ppo: PPOConfig
    pptb: PPTBConfig
    jumps: JumpConfig


def parse_ranges(vary: Sequence[str]) -> dict[str, tuple[float, float]]:
    """Ranges of factors by name, from texts such as `"body_mass:pole=0.5..2"`.

    Returns:
        For each name the lowest and the highest factor of the original value, sorted by name.

    Raises:
        TiplError: a text is not `name=low..high` with low <= high, which are factors that the name
            may have and of one sign, or a name comes twice.
    """
    ranges: dict[str, tuple[float, float]] = {}
    for text in vary:
        name, _, interval = text.partition("=")
        bounds = numbers(interval, "..")
        if not name or len(bounds) != 2 or not is_range(name, *bounds):
            raise TiplError(
                f"{shown(text)} was given as what varies; expected a name and a range of positive "
                "factors of the original value, such as gravity=0.7..1.4 (of actuator_gear also of "
                "negative ones)"
            )
        check_name(name)
        if name in ranges:
            raise TiplError(f"{name} varies twice; give one range for each name")
        ranges[name] = bounds[0], bounds[1]
    return dict(sorted(ranges.items()))
