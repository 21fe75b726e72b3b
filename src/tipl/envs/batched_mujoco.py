"""Gymnasium's MuJoCo tasks, stepped all at once by `mujoco.batch`."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import gymnasium
import mujoco  # type: ignore[import-untyped]
import numpy as np
from gymnasium.spaces import Box
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space
from jaxtyping import Float, Float64, Integer
from mujoco import batch as mujoco_batch

from tipl.core.options import at_least
from tipl.envs.mujoco_functions import Flags, StepResult, Values
from tipl.envs.mujoco_tasks import MUJOCO_TASKS, find_mujoco_task
from tipl.envs.physics import PhysicsVariants, Redraw
from tipl.errors import TiplError, shown
from tipl.policies.factors import observed_factors

_WORD = 2**64


class BatchedMujocoEnv(VectorEnv[np.ndarray, np.ndarray, np.ndarray]):
    """Many copies of one MuJoCo task, bit-identical to `gymnasium.make(env_id)` but faster.

    Observations, rewards, terminations and truncations are those of Gymnasium's own environment
    with its default settings, for the same seeds and actions. Actions are not clipped: as in
    Gymnasium, MuJoCo clips the forces and the reward sees the action as given. Finished episodes
    reset in the same step (`AutoresetMode.SAME_STEP`): the observation returned is the next
    episode's first one and `info["final_obs"]` holds the finished episode's last one.

    The differences, all on the side of keeping independent trials independent:

    - a NaN or infinite action value counts as 0;
    - a simulation in which MuJoCo raises an error ends its episode, and the others go on;
    - MuJoCo's warnings are silenced (MuJoCo resets an unstable simulation, as in Gymnasium);
    - `info` leaves out the measurements that some tasks add, such as `x_velocity`.

    Args:
        env_id: a key of `tipl.envs.mujoco_tasks.MUJOCO_TASKS`.
        num_envs: number of copies, E.
        num_threads: threads that step them; the results do not depend on it.
        physics: for each name of `tipl.envs.physics`, such as `"gravity"` or
            `"body_mass:torso"`, the factors between the model's values and each copy's, `[E]`.
            None or empty: all run the model as it is.
        redraw: says the physics of each episode instead, when it begins.
        observed: names of physics, what is observed of which follows each observation, see
            `tipl.policies.factors.observed_factors`.

    Raises:
        TiplError: the task is not built in, a number is below 1, or a name or factor of the
            physics is not as expected, or they are given in both ways.
    """

    def __init__(
        self,
        env_id: str,
        num_envs: int,
        *,
        num_threads: int = 1,
        physics: Mapping[str, np.ndarray] | None = None,
        max_episode_steps: int | None = None,
        redraw: Redraw | None = None,
        observed: Sequence[str] = (),
    ) -> None:
        task = find_mujoco_task(env_id)
        if task is None:
            raise TiplError(
                f"no batched task {shown(env_id)}: expected one of {', '.join(MUJOCO_TASKS)}; "
                "tipl.envs.make_vec runs any other Gymnasium id"
            )
        at_least(1, num_envs=num_envs, num_threads=num_threads)
        with silent_mujoco():  # half_cheetah.xml has a deprecated attribute
            model = mujoco.MjModel.from_xml_path(str(task.xml_path))
        # Only a persistent batch can show the contacts that contact forces are computed from.
        persistent = "cfrc_ext" in task.derived
        batch = mujoco_batch.Batch(model, num_envs, nthread=num_threads, persistent=persistent)
        # The batch's own derived fields cannot be written, as set_state() must: these are copies.
        fields = {name: batch.bind(name).copy() for name in task.derived}
        fields |= {"qpos": batch.bind("qpos"), "qvel": batch.bind("qvel")}

        self.spec = gymnasium.spec(env_id.rpartition(":")[2])
        self.num_envs = num_envs
        self.metadata = {"autoreset_mode": AutoresetMode.SAME_STEP}
        low, high = model.actuator_ctrlrange.astype(np.float32).T
        self._observed, self._seen_factors = tuple(observed), np.zeros((num_envs, len(observed)))
        observation_size = task.observe(fields).shape[1] + len(observed)
        self.single_action_space = Box(low, high, dtype=np.float32)
        self.single_observation_space = Box(-np.inf, np.inf, (observation_size,), np.float64)
        self.action_space = batch_space(self.single_action_space, num_envs)
        self.observation_space = batch_space(self.single_observation_space, num_envs)

        self._task, self._batch, self._fields = task, batch, fields
        self._scratch = mujoco.MjData(model)
        self._ctrl = batch.bind("ctrl")
        self._default_state = batch.state[0].copy()
        self._initial_qpos, self._initial_qvel = model.qpos0, np.zeros(model.nv)
        self._dt = model.opt.timestep * task.frame_skip
        limit = max_episode_steps or self.spec.max_episode_steps
        self._max_episode_steps = np.inf if limit is None else limit
        self._elapsed_steps = np.zeros(num_envs, dtype=np.int64)
        self._rngs = [np.random.default_rng() for _ in range(num_envs)]
        self._started = False
        if physics and redraw is not None:
            raise TiplError("physics were given that are redrawn at each episode; give one of both")
        everyone, self._redraw = np.arange(num_envs), redraw
        self._episodes = np.zeros(num_envs, dtype=np.int64)  # that have begun
        first = physics or {} if redraw is None else redraw(everyone, self._episodes)
        self._physics = PhysicsVariants(batch, tuple(first))
        self.set_physics(everyone, first)

    def reset(
        self,
        *,
        seed: int | Sequence[int | None] | Integer[np.ndarray, " E"] | None = None,
        options: dict[str, Any] | None = None,
    ) -> tuple[Float64[np.ndarray, "E O"], dict[str, Any]]:
        """Starts a new episode in every environment, or in some.

        Args:
            seed: one seed s, which seeds environment i with s + i; or one for each environment.
                None, here or in the sequence, goes on with the environment's present generator.
            options: `{"reset_mask": mask}` resets only where the bool array `[E]` is true, as in
                Gymnasium's own vector environments; seeds elsewhere are ignored.

        Raises:
            TiplError: the seeds are negative or not one for each environment; the options hold
                anything but a mask.
        """
        seeds = self._one_seed_each(seed)
        ids = self._reset_ids(options or {})
        for i in ids:
            if seeds[i] is not None:
                self._rngs[i] = np.random.default_rng(seeds[i])
        self._reset(ids)
        self._started = True
        return self._observations(), {}

    def step(
        self, actions: Float[np.ndarray, "E A"]
    ) -> tuple[Float64[np.ndarray, "E O"], Values, Flags, Flags, dict[str, Any]]:
        """Takes one action in every environment and resets those whose episode ends.

        Actions are float32 for Gymnasium's rewards. The info is empty unless an episode ends; the
        arrays are the caller's to keep.

        Raises:
            TiplError: the actions have another shape, or `reset` was never called.
        """
        self._ctrl[:] = actions = self._checked(actions)
        position_before = self._task.position(self._fields).copy()
        failed = self._simulate()
        self._read_derived(np.flatnonzero(~failed))
        self._add_contact_forces(np.flatnonzero(~failed))
        observations = self._task.observe(self._fields)
        position = self._task.position(self._fields)
        result = StepResult(
            actions, position_before, position, observations, self._fields, self._dt
        )
        terminations = self._task.terminate(result) | failed
        rewards = self._task.reward(result, terminations)
        self._elapsed_steps += 1
        truncations = self._elapsed_steps >= self._max_episode_steps

        done = terminations | truncations
        observations = self._with_physics(observations)
        info = self._start_next_episodes(observations, done) if done.any() else {}
        return observations, rewards, terminations, truncations, info

    def state(self) -> dict[str, np.ndarray]:
        """Returns all that is needed to continue bit-identically, as plain arrays.

        Returns:
            `simulation` `[E, S]` float64 (MuJoCo's integration state), `elapsed_steps` `[E]`
            int64 and `rng` `[E, 6]` uint64 (each PCG64 generator: state and increment, high and
            low word, then its spare 32 bits, if any); and the fields that the last step derived,
            where the task reads some (`xpos`, ...). The physics is not in it; but where it is
            redrawn, `episodes` `[E]` int64 have begun.
        """
        counted = {} if self._redraw is None else {"episodes": self._episodes.copy()}
        return counted | {
            "simulation": self._batch.state.copy(),
            "elapsed_steps": self._elapsed_steps.copy(),
            "rng": np.stack([_generator_to_words(rng) for rng in self._rngs]),
            **{name: self._fields[name].copy() for name in self._task.derived},
        }

    def set_state(self, state: dict[str, np.ndarray]) -> None:
        """Continues from what `state` returned, in this or another process.

        Raises:
            TiplError: the state is of another task, another number of environments, or damaged.
        """
        for name, present in self.state().items():
            given = state.get(name)
            if given is None or given.shape != present.shape or given.dtype != present.dtype:
                got = "nothing" if given is None else f"{given.dtype} {given.shape}"
                raise TiplError(
                    f"the environment state has {got} for {shown(name)}: expected {present.dtype} "
                    f"{present.shape}; give the state() of {self.num_envs} envs of this task"
                )
        if self._redraw is not None:
            self._episodes[:] = state["episodes"]
            everyone = np.arange(self.num_envs)
            self.set_physics(everyone, self._redraw(everyone, np.maximum(self._episodes - 1, 0)))
        self._batch.state[:] = state["simulation"]
        self._elapsed_steps[:] = state["elapsed_steps"]
        self._rngs = [_generator_from_words(words) for words in state["rng"]]
        for name in self._task.derived:
            self._fields[name][:] = state[name]
        self._started = True

    def set_physics(
        self, ids: Integer[np.ndarray, " n"], physics: Mapping[str, np.ndarray]
    ) -> None:
        """Gives some environments new physics; reset them before they step again.

        For each of the constructor's names, the factors of the model's values replace those that
        the environments had.

        Raises:
            TiplError: the ids are not n different environments, the names are not the
                constructor's, or the factors not possible ones, one for each environment.
        """
        self._physics.set(ids, physics)
        if self._observed:
            self._seen_factors[ids] = observed_factors(self._observed, physics, len(ids))

    def model(self, i: int) -> Any:
        """A copy of the `mujoco.MjModel` that an environment is stepped with, in its physics."""
        return self._batch.get_model(i)

    def _one_seed_each(self, seed: Any) -> list[int | None]:
        if seed is None:
            return [None] * self.num_envs
        if isinstance(seed, (int, np.integer)):
            seed = range(seed, seed + self.num_envs)
        seeds = [None if one is None else int(one) for one in seed]
        if len(seeds) != self.num_envs or any(one is not None and one < 0 for one in seeds):
            raise TiplError(
                f"reset got the seeds {seeds}: expected {self.num_envs} numbers of 0 or more; "
                "give one number for all environments or one for each"
            )
        return seeds

    def _reset_ids(self, options: dict[str, Any]) -> np.ndarray:
        mask = options.get("reset_mask", np.ones(self.num_envs, dtype=np.bool_))
        shape, dtype = getattr(mask, "shape", None), getattr(mask, "dtype", None)
        if set(options) - {"reset_mask"} or shape != (self.num_envs,) or dtype != np.bool_:
            raise TiplError(
                f"reset got the options {options}: expected at most 'reset_mask', a bool array "
                f"of {self.num_envs}; leave the others out"
            )
        return np.flatnonzero(mask)

    def _checked(self, actions: np.ndarray) -> np.ndarray:
        """Returns the actions as rewards sum them: C-contiguous (its order), finite."""
        actions = np.ascontiguousarray(actions)
        if actions.shape != self._ctrl.shape:
            raise TiplError(
                f"step got actions of shape {actions.shape}: expected {self._ctrl.shape}, "
                "one action for each environment; stack them in this shape"
            )
        if not self._started:
            raise TiplError("step was called before reset: expected reset first; call reset()")
        finite = np.isfinite(actions)
        # MuJoCo would zero all of an environment's controls, warn, and write a log file.
        return actions if finite.all() else np.where(finite, actions, actions.dtype.type(0))

    def _simulate(self) -> np.ndarray:
        """Advances all simulations by one environment step; returns which failed, `[E]`."""
        failed = np.zeros(self.num_envs, dtype=np.bool_)
        with silent_mujoco():
            try:
                self._batch.step(nstep=self._task.frame_skip)
            except mujoco_batch.SimulationError as error:
                failed[error.ids] = True  # they kept their state; the others were stepped
        return failed

    def _observations(self) -> np.ndarray:
        """What is observed now, `[E, O]`."""
        return self._with_physics(self._task.observe(self._fields))

    def _with_physics(self, observations: np.ndarray) -> np.ndarray:
        """Observations with what is observed of the physics after them."""
        if not self._observed:
            return observations
        return np.concatenate([observations, self._seen_factors], axis=1)

    def _start_next_episodes(self, observations: np.ndarray, done: np.ndarray) -> dict[str, Any]:
        """Resets the done environments and puts their first observations in place; the info."""
        ids = np.flatnonzero(done)
        last = np.full(self.num_envs, None, dtype=object)
        for i in ids:
            last[i] = observations[i].copy()
        self._reset(ids)
        observations[ids] = self._observations()[ids]
        # The keys of Gymnasium's SyncVectorEnv.
        return {"final_obs": last, "_final_obs": done, "final_info": {}, "_final_info": done.copy()}

    def _reset(self, ids: np.ndarray) -> None:
        """Starts new episodes as Gymnasium does: default state, drawn start, forward pass."""
        if self._redraw is not None:  # first: what is observed of the start may depend on it
            self.set_physics(ids, self._redraw(ids, self._episodes[ids]))
            self._episodes[ids] += 1
        self._batch.state[ids] = self._default_state  # the row is all of a simulation's state
        self._fields["qpos"][ids], self._fields["qvel"][ids] = self._task.draw_states(
            [self._rngs[i] for i in ids], self._initial_qpos, self._initial_qvel
        )
        # No step needs the forward pass, but derived fields are of the new start only after it.
        self._batch.forward(ids)
        self._read_derived(ids)
        self._elapsed_steps[ids] = 0

    def _read_derived(self, ids: np.ndarray) -> None:
        """Copies the derived fields of simulations that have just run."""
        for name in self._task.derived:
            self._fields[name][ids] = 0.0 if name == "cfrc_ext" else self._batch.bind(name)[ids]

    def _add_contact_forces(self, ids: np.ndarray) -> None:
        """Computes `cfrc_ext`, if the task reads it, where there are contacts.

        Gymnasium computes it after each step, since MuJoCo's step leaves it out. A sensor would
        make MuJoCo's step compute it, but at an earlier stage of the integrator.
        """
        if "cfrc_ext" not in self._task.derived:
            return
        for i in ids[self._batch.bind("ncon")[ids] > 0]:
            data = self._batch.get_data(i, self._scratch)
            # The physics of a simulation scales nothing that contact forces are computed with.
            mujoco.mj_rnePostConstraint(self._batch.model, data)
            self._fields["cfrc_ext"][i] = data.cfrc_ext


def _generator_to_words(rng: np.random.Generator) -> np.ndarray:
    pcg: Any = rng.bit_generator.state
    state, increment = pcg["state"]["state"], pcg["state"]["inc"]
    words = [*divmod(state, _WORD), *divmod(increment, _WORD), pcg["has_uint32"], pcg["uinteger"]]
    return np.array(words, dtype=np.uint64)


def _generator_from_words(words: np.ndarray) -> np.random.Generator:
    state_high, state_low, inc_high, inc_low, has_uint32, uinteger = map(int, words)
    pcg = np.random.PCG64()
    pcg.state = {
        "bit_generator": "PCG64",
        "state": {"state": state_high * _WORD + state_low, "inc": inc_high * _WORD + inc_low},
        "has_uint32": has_uint32,
        "uinteger": uinteger,
    }
    return np.random.Generator(pcg)


class _Silence:
    """Keeps MuJoCo from printing warnings and writing MUJOCO_LOG.TXT where the user works.

    MuJoCo has one warning handler for the whole process, and several threads may be stepping: the
    handler goes back to the user's when the last of them is done.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._users = 0
        self._previous: Any = None

    @contextlib.contextmanager
    def __call__(self) -> Iterator[None]:
        with self._lock:
            if self._users == 0:
                self._previous = mujoco.get_mju_user_warning()
                mujoco.set_mju_user_warning(lambda message: None)
            self._users += 1
        try:
            yield
        finally:
            with self._lock:
                self._users -= 1
                if self._users == 0:
                    mujoco.set_mju_user_warning(self._previous)


silent_mujoco = _Silence()
"""`with silent_mujoco():` nothing that MuJoCo warns of is printed or logged."""
