"""When N runs jump, and where to: forecasts of their weights that earn their place."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Literal, NamedTuple

import msgspec
import numpy as np
from jaxtyping import Bool, Float, Float32, Int

from tipl.core.arrays import Array
from tipl.core.schemas import LARGEST, ArrayType, TensorsFile, check_arrays
from tipl.errors import TiplError
from tipl.forecast.base import Forecaster
from tipl.forecast.trained import TrainedForecaster
from tipl.jumps.config import JumpConfig
from tipl.jumps.forecasters import default_horizons, leads_to_one_behaviour
from tipl.jumps.gate import Evaluate, ForecastTest, best_forecast, run_tests
from tipl.paths.values import JUMP_COUNTS
from tipl.policies.layout import ParamLayout

MAX_HISTORY = 64
"""Checkpoints of a run that are remembered, if the forecaster reads as many; the oldest ones are
forgotten first."""

LEAST_FOR_A_LINE = 32
"""Checkpoints before a forecaster that extrapolates a history is tried. The first few go in any
direction: after eight of them on HalfCheetah-v4, what a third of the trials jumped to was better
than an almost untrained network, and worse to learn from."""


Look = Callable[[int], tuple[Forecaster, int]]
"""Finds the forecaster of a run's world, given the run: that, and environment steps it took."""


class JumpTry(NamedTuple):
    """One try of one run."""

    run: int
    horizon: int
    """checkpoints that it jumps ahead; 0 if it stays"""
    accepted: bool
    return_before: float
    """mean return of the present policy in the test; NaN without one"""
    return_after: float
    """likewise of the best forecast"""
    steps_spent: int
    """of the environment, in the test"""


class Jumps(NamedTuple):
    """What N runs do before a rollout."""

    params: Float32[np.ndarray, "N P"]
    """from now on: forecasts of those that jump"""
    jumped: Bool[np.ndarray, " N"]
    tries: list[JumpTry]
    """of those that tried, in order"""


class Jumper:
    """Remembers the paths of N runs, tries forecasts now and then, and judges what came of them.

    Before each rollout `before_rollout` is told the runs' weights; after it, `judge` is told the
    returns. After a jump a run's path begins anew.

    Args:
        config: when to try, and what a forecast has to show.
        layout: of the weights; None where the forecaster does not ask for it.
        rollout_steps: environment steps of a run in one rollout; None if they are not known, and
            every rollout is a checkpoint unless `config.spacing` says otherwise.
        look: finds the forecaster of each run's world, once, before its first try; its steps are
            of that test. None where one forecaster is that of all.
    """

    def __init__(
        self,
        config: JumpConfig,
        forecaster: Forecaster,
        num_runs: int,
        layout: ParamLayout | None,
        evaluate: Evaluate,
        rollout_steps: int | None,
        look: Look | None = None,
    ) -> None:
        self.config, self.forecaster, self.layout = config, forecaster, layout
        self.look, self.of_world = look, dict[int, Forecaster]()
        self.evaluate, self.rollouts = evaluate, 0
        self.spacing = config.spacing or _trained_spacing(forecaster, rollout_steps)
        trained = isinstance(forecaster, TrainedForecaster)
        self.extrapolates = forecaster.min_history > 1 and not trained
        enough = config.min_history or (LEAST_FOR_A_LINE if self.extrapolates else 1)
        self.min_history = max(forecaster.min_history, enough)
        one = 1 if leads_to_one_behaviour(forecaster) else None
        self.max_jumps = config.max_jumps or one
        horizons = config.horizons or default_horizons(forecaster, MAX_HISTORY)
        self.episodes = 1 + len(horizons) + 2 * (config.episodes - 1)  # of a test that ends well
        self.remembered = min(forecaster.reads_last or MAX_HISTORY, MAX_HISTORY)
        N = num_runs
        self.recent: deque[Array] = deque(maxlen=self.remembered)  # of [N, P], the newest last
        self.arrays = {
            "length": np.zeros(N, np.int64),  # checkpoints of each run's path, the last of H
            "elapsed": np.zeros(N, np.int64),  # checkpoints since its path began
            "patience": np.full(N, config.every, np.int64),  # rollouts between tries
            "next_try": np.zeros(N, np.int64),  # the first rollout that may be tried before
            "reference": np.full(N, np.nan),  # what the next rollout has to return
            "pending": np.zeros(N, bool),  # whether the last jump is still to be judged
            "test_steps": np.zeros(N, np.int64),  # of the last test
            **{name: np.zeros(N, np.int64) for name in JUMP_COUNTS},
        }

    # --- before a rollout --------------------------------------------------------------------

    def before_rollout(
        self,
        params: Float32[np.ndarray, "N P"],
        env_steps: Int[np.ndarray, " N"],
        last_return: Float[np.ndarray, " N"],
        alive: Bool[np.ndarray, " N"] | None = None,
        episode_steps: Float[np.ndarray, " N"] | None = None,
    ) -> Jumps:
        """What each run does next.

        Args:
            params: the runs' weights.
            env_steps: environment steps that each has taken, tests included.
            last_return: mean return of each one's last rollout; NaN if no episode ended.
            alive: runs that may be tried; by default all.
            episode_steps: how many steps an episode of each one's last rollout took, by which the
                cost of a test is foreseen; NaN, or None for all, if that is not known.
        """
        due, jumped = np.zeros((2, len(params)), bool)
        if self.rollouts % self.spacing == 0:  # forecasts are of checkpoints
            self._remember(params)
            due = self._due(env_steps, episode_steps)
        if alive is not None:
            due &= alive
        new, tries = params.copy(), []
        for try_, weights in self._try(np.flatnonzero(due), params):
            tries.append(try_)
            run = try_.run
            self.arrays["jump_steps"][run] += try_.steps_spent
            self.arrays["test_steps"][run] = try_.steps_spent
            jumped[run] = try_.accepted
            if try_.accepted:
                # its path begins with these weights
                new[run] = self.recent[-1][run] = weights
                self.arrays["length"][run] = self.arrays["elapsed"][run] = 1
                self.arrays["jumps"][run] += 1
                known = np.isfinite(last_return[run])
                self.arrays["reference"][run] = last_return[run] if known else try_.return_before
                self.arrays["pending"][run] = self.config.rollback
            self._wait(run, in_vain=not try_.accepted)
        self.rollouts += 1
        return Jumps(new, jumped, tries)

    def _remember(self, params: Array) -> None:
        """Adds a checkpoint to every run's path."""
        self.recent.append(params.astype(np.float32))
        length, elapsed = self.arrays["length"], self.arrays["elapsed"]
        length[:] = np.minimum(length + 1, self.remembered)
        elapsed += 1

    def _due(self, env_steps: Array, episode_steps: Array | None) -> Bool[np.ndarray, " N"]:
        """Runs for which it is time for a try."""
        arrays, config = self.arrays, self.config
        due = (self.rollouts >= arrays["next_try"]) & (arrays["elapsed"] >= self.min_history)
        due &= ~arrays["pending"]  # a jump is judged before the next one
        cost = arrays["test_steps"].astype(np.float64)  # as the last test, at least
        if episode_steps is not None:  # an episode gets longer while a run learns not to fall
            cost = np.fmax(cost, self.episodes * episode_steps)
        spent = arrays["jump_steps"]
        free = (spent == 0) & (not self.extrapolates)  # a model is most useful before any steps
        due &= (spent + cost <= config.budget * env_steps) | free
        if self.max_jumps is not None:
            due &= arrays["jumps"] - arrays["rollbacks"] < self.max_jumps
        return np.asarray(due)

    def _wait(self, run: int, in_vain: bool) -> None:
        """Lets time pass before a run's next try."""
        patience = self.arrays["patience"]
        patience[run] = 2 * patience[run] if in_vain else self.config.every
        self.arrays["next_try"][run] = self.rollouts + patience[run]

    def _try(self, runs: Array, params: Array) -> list[tuple[JumpTry, Array]]:
        """The tries of some runs, each with the weights that it would go on with."""
        tests = [self._candidates(int(run), params[run]) for run in runs]
        if not self.config.gate:
            found = []
            for test in tests:
                ahead = int(np.isfinite(test.weights[1]).all())
                if ahead or test.steps:
                    try_ = JumpTry(
                        test.run, test.horizons[ahead], bool(ahead), np.nan, np.nan, test.steps
                    )
                    found.append((try_, test.weights[ahead]))
            return found
        config = self.config
        run_tests(tests, self.evaluate, config.episodes, config.margin, self.rollouts)
        found = []
        for test in tests:
            best, errors = best_forecast(test.returns)
            accepted = bool(errors > config.margin)
            choice = best if accepted else 0
            before, after = (float(test.returns[row].mean()) for row in (0, best))
            try_ = JumpTry(test.run, test.horizons[choice], accepted, before, after, test.steps)
            found.append((try_, test.weights[choice]))
        return found

    def _candidates(self, run: int, params: Array) -> ForecastTest:
        """The present weights of a run, and a forecast for each horizon."""
        length, elapsed = (int(self.arrays[name][run]) for name in ("length", "elapsed"))
        horizons = list(self.config.horizons) or default_horizons(self.forecaster, elapsed - 1)
        if not self.config.gate:
            horizons = horizons[-1:]
        path = np.stack([weights[run] for weights in self.recent][-length:])
        steps = 0
        if self.look is not None and run not in self.of_world:
            self.of_world[run], steps = self.look(run)
        forecaster = self.of_world.get(run, self.forecaster)
        # the gate tests what can act, and nothing jumps to what is not finite
        ahead = forecaster.forecast(path, horizons, layout=self.layout, finite=False)
        weights = np.concatenate([params[None], self._guarded(ahead, params)])  # [C, P]
        return ForecastTest(run, [0, *horizons], weights, steps)

    def _guarded(self, ahead: Array, params: Array) -> Array:
        """Forecasts `[H, P]` whose action noise is neither gone nor more than it was.

        An extrapolation leaves it alone: it would only shrink, and the run would explore no more.
        """
        if self.layout is not None and "log_std" in self.layout.names:
            at = self.layout.slices["log_std"]
            highest = np.maximum(params[at], self.config.min_log_std)
            noise = np.clip(ahead[:, at], self.config.min_log_std, highest)
            ahead[:, at] = params[at] if self.extrapolates else noise
        return ahead

    # --- after a rollout ---------------------------------------------------------------------

    def judge(self, last_return: Float[np.ndarray, " N"]) -> Bool[np.ndarray, " N"]:
        """Runs whose jump has to be undone: their first rollout after it returned less.

        The returns are the means of the last rollout; where one is NaN, the next rollout decides.
        """
        arrays = self.arrays
        known = arrays["pending"] & (np.isfinite(last_return) | np.isnan(arrays["reference"]))
        worse = known & (last_return < arrays["reference"])
        arrays["pending"][known] = False
        arrays["rollbacks"][worse] += 1
        for run in np.flatnonzero(worse):
            self._wait(int(run), in_vain=True)
            arrays["length"][run] = arrays["elapsed"][run] = 0  # the next checkpoint is the first
        return np.asarray(worse)

    # --- resuming ----------------------------------------------------------------------------

    @property
    def counters(self) -> dict[str, Int[np.ndarray, " N"]]:
        """Of each run: steps of tests, jumps, and jumps that were undone, by name."""
        return {name: self.arrays[name].copy() for name in JUMP_COUNTS}

    def count(self, counters: dict[str, Int[np.ndarray, " N"]]) -> None:
        """Goes on counting the steps of tests from the `counters` of another one of these runs."""
        self.arrays["jump_steps"][:] = counters["jump_steps"]

    def state(self) -> dict[str, Array]:
        """Everything needed to continue, as arrays."""
        N = len(self.arrays["length"])
        history = np.stack(self.recent, axis=1) if self.recent else np.zeros((N, 0, 0), np.float32)
        return self.arrays | {"rollouts": np.array(self.rollouts), "history": history}

    def set_state(self, state: dict[str, Array]) -> None:
        """Continues from what `state` returned.

        Raises:
            TiplError: an array of it is missing, has another dtype or shape, or counts what cannot
                be.
        """
        own = self.state()
        specs = {name: (one.dtype.name, one.shape) for name, one in state.items() if name in own}
        expected = {name: ArrayType(one.dtype.name, one.shape) for name, one in own.items()}
        shape = specs.get("history", ("", ()))[1]
        P = "P" if self.layout is None or shape[1:2] == (0,) else self.layout.size
        expected["history"] = ArrayType("float32", (len(self.arrays["length"]), "H", P))
        check_arrays(specs, expected, "the state of jumps")
        for name, one in expected.items():
            most = state["history"].shape[1] if name == "length" else LARGEST
            if one.dtype == "int64" and not ((state[name] >= 0) & (state[name] <= most)).all():
                raise TiplError(
                    f"the state of jumps has {name} of {state[name].min()} to {state[name].max()}: "
                    f"expected 0 to {most}; restore it from a copy, or start the run anew"
                )
        for name, array in self.arrays.items():
            array[:] = state[name]
        self.rollouts = int(state["rollouts"])
        # [N, H, P] -> H of [N, P]; an earlier tipl remembered what its forecaster does not read
        self.recent.extend(state["history"].swapaxes(0, 1).copy())
        np.minimum(self.arrays["length"], self.remembered, out=self.arrays["length"])


class _Header(msgspec.Struct):
    """What the header of a saved state says."""

    kind: Literal["jumps"]


JUMPS = TensorsFile(".safetensors", _Header, "the jumps of a run")


def _trained_spacing(forecaster: Forecaster, rollout_steps: int | None) -> int:
    """Rollouts between two checkpoints of the paths that a forecaster was trained on; or 1."""
    steps = forecaster.steps_per_checkpoint if isinstance(forecaster, TrainedForecaster) else None
    return 1 if steps is None or rollout_steps is None else max(1, round(steps / rollout_steps))
