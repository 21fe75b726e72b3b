"""Worlds and the policies that PPO has made for them, as a model of worlds learns from them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float32, Float64

from tipl.core.seeds import Stream
from tipl.errors import TiplError
from tipl.evaluation.behaviour import raw_observations
from tipl.models.learning_paths import usable
from tipl.models.world.belief import Belief
from tipl.paths import PathDataset
from tipl.policies.folding import folded
from tipl.policies.layout import ParamLayout
from tipl.policies.policy import Policy
from tipl.policies.tasks import TaskSpec

NOISES = (0.0, 0.13, 0.27, 0.4)
"""Of the actions with which policies are run to see where they go, in units of half their range."""

STEPS_OF_ROLLOUT = 200

DRAWN_WORLDS = 192
"""Worlds in which a policy that observes its physics is taken for their teacher."""


@dataclass(eq=False)
class Lineage:
    """Worlds, the policy of home that all began with, and the teacher of each world.

    Of trials that each learned in a world of their own, the teachers are their last policies. Of a
    universal policy, which learned in all worlds and observes their physics, they are what it is in
    each (`tipl.policies.folding`).
    """

    task: TaskSpec
    """of its policies, which do not observe their physics"""
    layout: ParamLayout
    names: tuple[str, ...]
    """of the factors, sorted"""
    factors: Float64[np.ndarray, "W V"]
    elite: Float32[np.ndarray, " P"]
    """the weights that all began with"""
    teachers: Float32[np.ndarray, "W P"]
    seed: int
    universal: Policy | None = None
    """the policy that observes the physics, if all teachers are one"""
    env_steps: int = 0
    """that were made to see where policies go"""
    rollouts: int = 0
    without_effect: tuple[str, ...] = ()
    """physics that differ between its worlds though nothing depends on them"""

    @classmethod
    def of(cls, paths: PathDataset, seed: int) -> Lineage:
        """That of trials in worlds of their own, or of a universal policy.

        Raises:
            TiplError: the paths are neither, or nothing can be learned from them.
        """
        metadata = paths.metadata
        is_universal = metadata.redraw != "never" and bool(paths.task.observed)
        if metadata.normaliser == "frozen" and is_universal:
            return _of_universal(usable(paths, checkpoints=2), seed)
        is_lineage = metadata.start and paths.physics() and not paths.task.observed
        if metadata.normaliser == "frozen" and is_lineage:
            return _of_trials(usable(paths), seed)
        start = "one policy" if metadata.start else "networks of their own"
        raise TiplError(
            f"the paths in {paths.directory} start from {start}, know {len(paths.physics())} "
            f"physics each, observe {len(paths.task.observed)} of them, and have "
            f"normaliser={metadata.normaliser!r}; a model of worlds learns from a universal policy "
            "(collect with --redraw episode --observe physics), or from paths of one start, each "
            "in its own physics, which it does not observe (collect with --start and --worlds), "
            "with the frozen normaliser"
        )

    @property
    def logarithms(self) -> Float32[np.ndarray, "W V"]:
        """Those of the factors."""
        Belief.among(self.names, self.factors)  # refuses reversed motors
        return np.asarray(np.log(self.factors).astype(np.float32))

    def physics(self) -> dict[str, Float64[np.ndarray, " W"]]:
        """The factors of the worlds, by name."""
        return dict(zip(self.names, self.factors.T, strict=True))

    def visited(
        self, params: Float32[np.ndarray, "W Q"], layout: ParamLayout | None = None
    ) -> Float32[np.ndarray, "W S O"]:
        """Observations where policies go, each in its world, with more or less action noise.

        They are of the layout of its own policies, or of another one.
        """
        seen, physics = [], self.physics()
        for noise in NOISES:
            entropy = np.random.SeedSequence((self.seed, self.rollouts)).generate_state(1)
            seen.append(
                raw_observations(
                    params, layout or self.layout, self.task, STEPS_OF_ROLLOUT, noise=noise,
                    seed=int(entropy[0]), physics=physics,
                )
            )  # fmt: skip
            self.rollouts += 1
            self.env_steps += len(params) * STEPS_OF_ROLLOUT
        return np.concatenate(seen, axis=1).astype(np.float32)


def _of_trials(paths: PathDataset, seed: int) -> Lineage:
    layout, physics = paths.metadata.actor_layout, paths.physics()
    ends = paths.params(slice(0, None, paths.num_checkpoints - 1))[:, :, : layout.size]  # [W, 2, P]
    return Lineage(
        paths.task, layout, tuple(physics), np.stack(list(physics.values()), axis=1),
        np.ascontiguousarray(ends[0, 0]), np.ascontiguousarray(ends[:, 1]), seed,
    )  # fmt: skip


def _of_universal(paths: PathDataset, seed: int) -> Lineage:
    """That of the trial whose last episodes returned most."""
    names, ranges = paths.task.observed, paths.metadata.vary
    low, high = np.array([ranges[name] for name in names]).T  # [V, 2] -> 2 x [V]
    Belief.among(names, np.stack([low, high]))  # refuses reversed motors
    rng = Stream.WORLDS.rng(seed, 1)
    factors = np.exp(rng.uniform(np.log(low), np.log(high), (DRAWN_WORLDS, len(names))))
    last = np.nan_to_num(paths.episodic_return()[:, -1], nan=-np.inf)
    best = int(last.argmax())
    universal = paths.policy(best, -1)
    # the start observes nothing yet, or is what was trained before; without one it is untrained
    began = paths.policy(best, 0) if paths.metadata.start else universal
    home = folded(began)
    columns = [dict(zip(names, row, strict=True)) for row in factors.tolist()]
    teachers = np.stack([folded(universal, world).params for world in columns])
    return Lineage(
        home.task.with_physics({}), home.layout, names, factors, home.params, teachers, seed,
        universal, without_effect=tuple(sorted({*ranges} - {*names})),
    )  # fmt: skip
