from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import gymnasium
import mujoco
import numpy as np
import pytest
import safetensors.numpy
from gymnasium.spaces import Box
from gymnasium.vector import AutoresetMode, SyncVectorEnv
from mujoco.batch import SimulationError

from tipl.envs import BatchedMujocoEnv, make_task, make_vec
from tipl.envs.factory import OBSERVATION_STD_FLOOR
from tipl.envs.mujoco_tasks import MUJOCO_TASKS, StepResult
from tipl.errors import TiplError
from tipl.policies.tasks import get_task

IDS = tuple(MUJOCO_TASKS)
PENDULUM, CHEETAH = "InvertedPendulum-v4", "HalfCheetah-v4"
ENDLESS = ("HalfCheetah", "Swimmer", "Reacher")  # no episode ends before its limit of steps


@pytest.fixture(autouse=True)
def _in_an_empty_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)  # Gymnasium's own HalfCheetah writes MUJOCO_LOG.TXT


def gymnasiums_own(env_id: str, num_envs: int) -> SyncVectorEnv:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".*is out of date", DeprecationWarning)
        return SyncVectorEnv(
            [lambda: gymnasium.make(env_id)] * num_envs, autoreset_mode=AutoresetMode.SAME_STEP
        )


def random_actions(env: Any, num_steps: int, seed: int = 0) -> np.ndarray:
    """Float32 actions, [num_steps, E, A], some of them beyond the bounds."""
    space = env.action_space
    rng = np.random.default_rng(seed)
    return rng.uniform(1.2 * space.low, 1.2 * space.high, (num_steps, *space.shape)).astype("f4")


def run(env: Any, actions: np.ndarray) -> list[np.ndarray]:
    """Observations, rewards, terminations, truncations and final observations of all steps."""
    steps, final_obs = [], []
    for action in actions:
        *results, info = env.step(action)
        steps.append(results)
        final_obs += [obs for obs in info.get("final_obs", ()) if obs is not None]
    return [*map(np.array, zip(*steps, strict=True)), np.array(final_obs)]


def same(left: list[np.ndarray], right: list[np.ndarray]) -> bool:
    return all(
        (a.dtype, a.shape, a.tobytes()) == (b.dtype, b.shape, b.tobytes())
        for a, b in zip(left, right, strict=True)
    )


@pytest.mark.parametrize("env_id", IDS)
def test_bit_identical_to_gymnasium(env_id: str) -> None:
    ours, theirs = BatchedMujocoEnv(env_id, 3), gymnasiums_own(env_id, 3)
    assert ours.single_observation_space == theirs.single_observation_space
    assert ours.single_action_space == theirs.single_action_space
    assert ours.observation_space == theirs.observation_space
    assert ours.action_space == theirs.action_space
    assert ours.metadata["autoreset_mode"] == theirs.metadata["autoreset_mode"]
    assert same([ours.reset(seed=7)[0]], [theirs.reset(seed=7)[0]])

    limit = gymnasium.spec(env_id).max_episode_steps
    # A random Ant falls once in some hundred steps.
    num_steps = limit + 5 if env_id.startswith((*ENDLESS, "Ant")) else 400
    actions = random_actions(ours, num_steps)
    first, last = actions[:-15], actions[-15:]
    got = run(ours, first)
    state = safetensors.numpy.save(ours.state())
    got_last = run(ours, last)
    assert same(got, run(theirs, first))
    expected_last = run(theirs, last)
    assert same(got_last, expected_last)

    terminations, truncations = (np.concatenate([got[i], got_last[i]]) for i in (2, 3))
    if env_id.startswith(ENDLESS):
        assert not terminations.any()
        assert truncations.sum() == 3
    else:
        assert terminations.sum() >= 6
    assert len(got[4]) + len(got_last[4]) == (terminations | truncations).sum()
    # A reset without a seed goes on with the generators.
    assert same([ours.reset()[0]], [theirs.reset()[0]])
    assert same(run(ours, actions[:20]), run(theirs, actions[:20]))

    other = BatchedMujocoEnv(env_id, 3)
    one_reset = []
    for again in (ours, other):
        again.set_state(safetensors.numpy.load(state))
        assert safetensors.numpy.save(again.state()) == state
        assert same(run(again, last), expected_last)
        again.set_state(safetensors.numpy.load(state))
        mask = np.array([False, True, False])
        one_reset.append(again.reset(options={"reset_mask": mask})[0])
        assert same([one_reset[-1][[0, 2]]], [got[0][-1][[0, 2]]])
    assert same(one_reset[:1], one_reset[1:])


@pytest.mark.parametrize("env_id", IDS)
def test_simulations_hold_the_bits_of_gymnasiums(env_id: str) -> None:
    # What no observation shows: time, controls, the solver's start, derived fields.
    ours, theirs = BatchedMujocoEnv(env_id, 2), gymnasiums_own(env_id, 2)
    body_positions = ours._batch.bind("xpos")

    def check() -> None:
        rows = ours.state()["simulation"]
        for i, env in enumerate(theirs.envs):
            inner: Any = env.unwrapped
            expected = np.empty_like(rows[i])
            state = mujoco.mjtState.mjSTATE_INTEGRATION
            mujoco.mj_getState(inner.model, inner.data, expected, state)
            assert np.array_equal(rows[i], expected)
            assert np.array_equal(body_positions[i], inner.data.xpos)

    for seed in (4, None):
        ours.reset(seed=seed)
        theirs.reset(seed=seed)
        check()
        for action in random_actions(ours, 40):
            ours.step(action)
            theirs.step(action)
            check()


def test_truncates_a_balanced_pole_at_the_limit() -> None:
    ours, theirs = BatchedMujocoEnv(PENDULUM, 2), gymnasiums_own(PENDULUM, 2)
    obs, _ = ours.reset(seed=3)
    theirs.reset(seed=3)
    for step in range(1, 1_003):
        # A hand-made linear controller keeps the first pole up; the second one falls.
        action = (obs @ np.array([[1.0], [12.0], [1.0], [3.0]])).astype("f4")
        action[1] = 3.0
        expected = theirs.step(action)
        obs, rewards, terminations, truncations, info = ours.step(action)
        assert same([obs, rewards, terminations, truncations], list(expected[:4]))
        assert not terminations[0]
        assert truncations[0] == (step == 1_000)
        if truncations[0]:
            assert np.array_equal(info["final_obs"][0], expected[4]["final_obs"][0])


@pytest.mark.parametrize("env_id", [PENDULUM, CHEETAH])
def test_info_has_the_keys_of_gymnasiums_autoreset(env_id: str) -> None:
    ours, theirs = BatchedMujocoEnv(env_id, 3), gymnasiums_own(env_id, 3)
    assert ours.reset(seed=0)[1] == {}
    theirs.reset(seed=0)
    endings = 0
    for action in random_actions(ours, 1_000):
        *_, terminations, truncations, info = ours.step(action)
        expected = {k: v for k, v in theirs.step(action)[4].items() if "final" in k}
        assert info.keys() == expected.keys()
        if (terminations | truncations).any():
            endings += 1
            for key in ("_final_obs", "_final_info"):
                assert np.array_equal(info[key], expected[key])
                assert info[key].dtype == np.bool_
            assert info["final_obs"].dtype == object
            for got, wanted in zip(info["final_obs"], expected["final_obs"], strict=True):
                assert (got is None) == (wanted is None)
        else:
            assert info == {}
    assert endings


def test_float64_actions_cost_what_gymnasium_says() -> None:
    ours, theirs = BatchedMujocoEnv(CHEETAH, 2), gymnasiums_own(CHEETAH, 2)
    ours.reset(seed=0)
    theirs.reset(seed=0)
    actions = random_actions(ours, 5).astype(np.float64) + 1e-9
    assert same(run(ours, actions), run(theirs, actions))


def test_seeds_one_for_each_environment() -> None:
    env = BatchedMujocoEnv(PENDULUM, 3)
    first, _ = env.reset(seed=5)
    assert np.array_equal(env.reset(seed=[5, 6, 7])[0], first)
    assert np.array_equal(env.reset(seed=np.array([7, 6, 5]))[0], first[::-1])
    env.reset(seed=5)
    second, _ = env.reset()
    env.reset(seed=5)
    mixed, _ = env.reset(seed=[None, 6, None])
    assert np.array_equal(mixed, [second[0], first[1], second[2]])


@pytest.mark.parametrize("env_id", [PENDULUM, CHEETAH, "Ant-v5"])
def test_results_do_not_depend_on_the_threads(env_id: str) -> None:
    one, two = BatchedMujocoEnv(env_id, 5), BatchedMujocoEnv(env_id, 5, num_threads=2)
    one.reset(seed=1)
    two.reset(seed=1)
    actions = random_actions(one, 200)
    assert same(run(one, actions), run(two, actions))


@pytest.mark.parametrize("env_id", [PENDULUM, CHEETAH])
def test_a_saved_state_continues_in_the_same_bytes(env_id: str) -> None:
    env = BatchedMujocoEnv(env_id, 4)
    env.reset(seed=2)
    actions = random_actions(env, 1_030)
    run(env, actions[:995])  # HalfCheetah truncates after 5 more steps
    # A spare half of a 64-bit draw is part of a generator's state too.
    env._rngs[1].integers(10, dtype=np.uint32)
    saved = safetensors.numpy.save(env.state())
    expected = run(env, actions[995:])
    assert (expected[2] | expected[3]).any()

    other = BatchedMujocoEnv(env_id, 4)
    for again in (env, other):
        again.set_state(safetensors.numpy.load(saved))
        assert safetensors.numpy.save(again.state()) == saved
        assert same(run(again, actions[995:]), expected)
    assert safetensors.numpy.save(other.state()) == safetensors.numpy.save(env.state())


def test_a_foreign_state_is_refused_and_changes_nothing() -> None:
    env, other = BatchedMujocoEnv(PENDULUM, 2), BatchedMujocoEnv(CHEETAH, 2)
    env.reset(seed=0)
    before = safetensors.numpy.save(env.state())
    for bad in (
        other.state(),
        BatchedMujocoEnv(PENDULUM, 3).state(),
        {"simulation": env.state()["simulation"]},
        {**env.state(), "rng": env.state()["rng"].astype(np.int64)},
    ):
        with pytest.raises(TiplError, match=r"environment state has .* expected .* give the"):
            env.set_state(bad)
    assert safetensors.numpy.save(env.state()) == before


def test_what_was_returned_stays_as_it_was() -> None:
    env = BatchedMujocoEnv(PENDULUM, 2)
    first, _ = env.reset(seed=0)
    actions = random_actions(env, 40)
    kept: list[np.ndarray] = [first, *env.state().values()]
    for action in actions:
        *results, info = env.step(action)
        kept += [*results, *(obs for obs in info.get("final_obs", ()) if obs is not None)]
        kept += [mask for key, mask in info.items() if key.startswith("_")]
        if len(kept) < 20:
            copies = [array.copy() for array in kept]
    assert len(kept) > 150
    assert same(kept[: len(copies)], copies)


@pytest.fixture
def mujoco_messages() -> Iterator[list[str]]:
    """The warnings of MuJoCo that nobody silenced."""
    messages: list[str] = []
    previous = mujoco.get_mju_user_warning()
    mujoco.set_mju_user_warning(messages.append)
    yield messages
    mujoco.set_mju_user_warning(previous)


def test_loading_a_model_warns_nobody_and_restores_the_handler(mujoco_messages: list[str]) -> None:
    handler = mujoco.get_mju_user_warning()
    BatchedMujocoEnv(CHEETAH, 1).reset(seed=0)
    assert mujoco_messages == []
    assert mujoco.get_mju_user_warning() is handler


def test_loading_a_model_writes_no_log(tmp_path: Path) -> None:
    BatchedMujocoEnv(CHEETAH, 1).reset(seed=0)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_a_non_finite_action_counts_as_zero(bad: float, tmp_path: Path) -> None:
    env, expected = BatchedMujocoEnv(CHEETAH, 3), BatchedMujocoEnv(CHEETAH, 3)
    env.reset(seed=0)
    expected.reset(seed=0)
    actions = random_actions(env, 20)
    actions[:, 1, 2] = 0.0
    wanted = run(expected, actions)
    actions[:, 1, 2] = bad
    assert same(run(env, actions), wanted)
    assert np.isnan(actions[:, 1, 2]).any() or np.isinf(actions[:, 1, 2]).any()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("num_threads", [1, 2])
def test_an_unstable_simulation_leaves_the_others_alone(tmp_path: Path, num_threads: int) -> None:
    env = BatchedMujocoEnv(CHEETAH, 3, num_threads=num_threads)
    env.reset(seed=0)
    actions = random_actions(env, 30)
    state = env.state()
    wanted = run(env, actions)
    state["simulation"][1] = np.nan
    env.set_state(state)
    got = run(env, actions)
    for a, b in zip(got[:4], wanted[:4], strict=True):
        assert np.array_equal(a[:, [0, 2]], b[:, [0, 2]])
        assert not np.array_equal(got[0][:, 1], wanted[0][:, 1])
    assert list(tmp_path.iterdir()) == []


def test_a_failed_simulation_ends_its_episode_and_the_others_go_on(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    env, expected = BatchedMujocoEnv(CHEETAH, 3), BatchedMujocoEnv(CHEETAH, 3)
    env.reset(seed=0)
    first, _ = expected.reset(seed=0)
    step_all = env._batch.step

    def step_but_one(nstep: int) -> None:
        step_all(ids=[0, 2], nstep=nstep)
        raise SimulationError(np.array([1]), "out of memory")

    actions = random_actions(env, 2)
    with monkeypatch.context() as patch:
        patch.setattr(env._batch, "step", step_but_one)
        obs, rewards, terminations, _, info = env.step(actions[0])
    wanted_obs, wanted_rewards, *_ = expected.step(actions[0])
    assert terminations.tolist() == [False, True, False]
    assert np.array_equal(info["final_obs"][1], first[1])
    assert not np.array_equal(obs[1], first[1])
    assert np.array_equal(obs[[0, 2]], wanted_obs[[0, 2]])
    assert np.array_equal(rewards[[0, 2]], wanted_rewards[[0, 2]])
    got, wanted = env.step(actions[1]), expected.step(actions[1])
    assert np.array_equal(got[0][[0, 2]], wanted[0][[0, 2]])
    assert not got[2].any()


def test_a_pole_that_is_not_finite_has_fallen() -> None:
    observations = np.array(
        [[0, 0.2, 0, 0], [0, -0.21, 0, 0], [np.nan, 0, 0, 0], [0, 0, 0, np.inf]]
    )
    x = np.zeros(4)
    step = StepResult(np.zeros((4, 1)), x, x, observations, {}, 0.04)
    fell = np.array([False, True, True, True])
    v4, v5 = MUJOCO_TASKS["InvertedPendulum-v4"], MUJOCO_TASKS["InvertedPendulum-v5"]
    assert np.array_equal(v4.terminate(step), fell)
    assert v4.reward(step, fell).tolist() == [1, 1, 1, 1]
    assert v5.reward(step, fell).tolist() == [1, 0, 0, 0]


@pytest.mark.parametrize("env_id", ["Hopper-v4", "Walker2d-v4", "Ant-v4"])
def test_an_episode_ends_where_gymnasium_calls_the_body_unhealthy(env_id: str) -> None:
    env: Any = gymnasiums_own(env_id, 1).envs[0].unwrapped
    start, rest = env.init_qpos.copy(), env.init_qvel.copy()
    values = (0.1, 0.2, 0.5, 0.7, 0.8, 1.0, 1.5, 2.0, 100.0, -0.2, -1.0, -100.0, np.nan, np.inf)
    states = [(start, rest)]
    for value in (*values, *np.nextafter(values, 1)):
        states += [(np.where(here, value, start), rest) for here in np.eye(start.size, dtype=bool)]
        states += [(start, np.where(here, value, rest)) for here in np.eye(rest.size, dtype=bool)]
    healthy = []
    for env.data.qpos[:], env.data.qvel[:] in states:
        healthy.append(bool(env.is_healthy))
    assert {True, False} <= set(healthy)

    qpos, qvel = map(np.array, zip(*states, strict=True))
    x, fields = np.zeros(len(states)), {"qpos": qpos, "qvel": qvel}
    step = StepResult(np.zeros((len(states), 1)), x, x, qpos, fields, 0.01)
    assert np.array_equal(MUJOCO_TASKS[env_id].terminate(step), ~np.array(healthy))


@pytest.mark.parametrize("env_id", ["InvertedDoublePendulum-v4", "InvertedDoublePendulum-v5"])
def test_a_double_pole_is_paid_by_gymnasiums_own_formula(env_id: str) -> None:
    # One in a thousand squares by pow differs from x * x in its last bit.
    rng = np.random.default_rng(0)
    tips, qvel = rng.uniform(-2, 2, (10_000, 1, 3)), 10 * rng.standard_normal((10_000, 3))
    x = np.zeros(len(tips))
    fields = {"site_xpos": tips, "qvel": qvel}
    fell = MUJOCO_TASKS[env_id].terminate(StepResult(qvel, x, x, qvel, fields, 0.05))
    assert np.array_equal(fell, tips[:, 0, 2] <= 1)

    env: Any = gymnasiums_own("InvertedDoublePendulum-v5", 1).envs[0].unwrapped
    expected = []
    for (tip,), env.data.qvel[:], ended in zip(tips, qvel, fell, strict=True):
        paid_when_falling = env_id.endswith("v4")
        expected.append(env._get_rew(tip[0], tip[2], bool(ended) and not paid_when_falling)[0])
    step = StepResult(qvel, x, x, qvel, fields, 0.05)
    assert same([MUJOCO_TASKS[env_id].reward(step, fell)], [np.array(expected)])


def test_a_masked_reset_restarts_only_those_envs_as_gymnasium_does() -> None:
    ours, theirs = BatchedMujocoEnv(PENDULUM, 3), gymnasiums_own(PENDULUM, 3)
    for env in (ours, theirs):
        env.reset(seed=0)
        env.step(np.ones((3, 1), dtype="f4"))
    mask = np.array([True, False, True])
    results = [
        env.reset(seed=[5, None, None], options={"reset_mask": mask.copy()})[0]
        for env in (ours, theirs)
    ]
    assert np.array_equal(*results)
    none = np.zeros(3, dtype=np.bool_)
    assert np.array_equal(ours.reset(options={"reset_mask": none})[0], results[0])
    assert np.array_equal(results[0][0], ours.reset(seed=5)[0][0])


def test_bad_calls_get_one_clear_sentence() -> None:
    env = BatchedMujocoEnv(PENDULUM, 2)
    with pytest.raises(TiplError, match="before reset"):
        env.step(np.zeros((2, 1), dtype="f4"))
    env.reset(seed=0)
    bad_calls: list[tuple[str, Callable[[], object]]] = [
        (r"shape \(1, 1\): expected \(2, 1\)", lambda: env.step(np.zeros((1, 1), dtype="f4"))),
        (r"seeds \[1\]: expected 2", lambda: env.reset(seed=[1])),
        (r"seeds \[-1, 0\]: expected 2", lambda: env.reset(seed=-1)),
        ("options", lambda: env.reset(options={"x": 1})),
        ("bool array of 2", lambda: env.reset(options={"reset_mask": np.array([True])})),
        ("num_envs is 0", lambda: make_vec(PENDULUM, 0)),
        ("num_envs is -1", lambda: make_vec("Pendulum-v1", -1)),
        ("num_threads is 0", lambda: make_vec(PENDULUM, 1, num_threads=0)),
        ("no batched task 'Humanoid-v5'", lambda: BatchedMujocoEnv("Humanoid-v5", 1)),
    ]
    for message, call in bad_calls:
        with pytest.raises(TiplError, match=message):
            call()


@pytest.mark.parametrize(
    ("env_id", "message"),
    [
        ("InvertedPendulm-v4", "unknown environment id.*did you mean.*InvertedPendulum-v4"),
        ("InvertedPendulum", "unknown environment id.*did you mean.*InvertedPendulum-v"),
        ("json:Pendulum-v9", "unknown environment id"),
        ("qqqqqqqqqq", "check its spelling"),
        ("Blackjack-v1", "the observations Tuple.*expected a Box"),
        ("no_such_module:Pendulum-v1", "could not be made"),
    ],
)
def test_an_id_that_cannot_be_run_is_explained(env_id: str, message: str) -> None:
    for call in (lambda: make_vec(env_id, 2), lambda: make_task(env_id)):
        with pytest.raises(TiplError, match=message):
            call()


def test_any_other_environment_runs_in_gymnasiums_vector_env() -> None:
    env = make_vec("Pendulum-v1", 2)
    assert isinstance(env, SyncVectorEnv)
    assert env.metadata["autoreset_mode"] == AutoresetMode.SAME_STEP
    env.reset(seed=0)
    for step in range(1, 201):
        obs, _, _, truncations, info = env.step(np.zeros((2, 1), dtype="f4"))
        assert truncations.all() == (step == 200)
    assert not np.array_equal(obs, np.stack(info["final_obs"]))


def test_an_old_version_gives_no_warning() -> None:
    make_vec("Humanoid-v4", 1).close()  # pytest turns warnings into errors


class Echo(gymnasium.Env[np.ndarray, np.ndarray]):
    """Shows the action just taken beside a constant; episodes of 10 steps."""

    def __init__(self, bound: float = 2.0, constant: float = 5.0) -> None:
        self.constant = constant
        self.observation_space = Box(-10, 10, (2,), np.float32)
        self.action_space = Box(0.0, bound, (1,), np.float32)

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[np.ndarray, dict]:
        return np.array([1.0, self.constant], dtype=np.float32), {}

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool, dict]:
        return np.array([action[0], self.constant], dtype=np.float32), 0.0, False, False, {}


@pytest.fixture
def _register_echo() -> Iterator[None]:
    here = f"{__name__}:Echo"
    gymnasium.register("Echo-v0", here, max_episode_steps=10)
    gymnasium.register("EchoForever-v0", here)
    gymnasium.register("EchoByClass-v0", Echo, max_episode_steps=10)
    gymnasium.register("EchoUnbounded-v0", here, max_episode_steps=10, kwargs={"bound": np.inf})
    gymnasium.register(
        "EchoNaN-v0",
        here,
        max_episode_steps=10,
        disable_env_checker=True,  # it would warn
        kwargs={"constant": np.nan},
    )
    yield
    for name in ("Echo", "EchoForever", "EchoByClass", "EchoUnbounded", "EchoNaN"):
        del gymnasium.registry[f"{name}-v0"]


@pytest.mark.usefixtures("_register_echo")
def test_make_task_measures_what_uniform_actions_show() -> None:
    task = make_task("Echo-v0")
    assert (task.observation_size, task.action_size, task.max_episode_steps) == (2, 1, 10)
    assert (task.action_low, task.action_high) == ((0.0,), (2.0,))
    # Nine of ten observations are uniform in [0, 2] and the first of each episode is its mean, 1.
    np.testing.assert_allclose(task.observation_mean, [1.0, 5.0], atol=0.02)
    np.testing.assert_allclose(task.observation_std[0], np.sqrt(0.9 * 4 / 12), rtol=0.02)
    assert task.observation_std[1] == OBSERVATION_STD_FLOOR
    assert task.gymnasium_spec == gymnasium.spec("Echo-v0").to_json()
    assert make_task("Echo-v0") == task


@pytest.mark.usefixtures("_register_echo")
@pytest.mark.parametrize(
    ("env_id", "message"),
    [
        ("EchoUnbounded-v0", "expected finite bounds"),
        ("EchoForever-v0", "no limit of episode steps"),
        ("EchoNaN-v0", "observations that are not finite"),
        ("EchoByClass-v0", "register the environment as 'module:Class'"),
    ],
)
def test_make_task_refuses_what_it_cannot_measure(env_id: str, message: str) -> None:
    with pytest.raises(TiplError, match=message):
        make_task(env_id)


def test_make_task_gives_the_shipped_spec() -> None:
    assert make_task(PENDULUM) is get_task(PENDULUM)
