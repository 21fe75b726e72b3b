"""Environments with other arguments, another limit or other wrappers than registered."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator
from typing import Any

import gymnasium
import numpy as np
import pytest
from gymnasium import wrappers

import path_data
from tipl import Forecaster, Policy, cli, evaluate
from tipl.envs import make_task, make_vec
from tipl.envs.gymnasium_vec import GymnasiumVec
from tipl.errors import TiplError
from tipl.evaluation.behaviour import visited_observations
from tipl.evaluation.checkpoints import evaluate_paths
from tipl.evaluation.film import film
from tipl.evaluation.pictures import missing_renderer
from tipl.policies.layout import actor_layout
from tipl.policies.tasks import TaskSpec, get_task, known_tasks

WRAPPED = {
    "FrameStackObservation": (2,),
    "RescaleAction": (np.float32(0.0), 1),
    "ReshapeObservation": ((3, 1),),
    "RescaleObservation": (-1.0, 1.0),
    "TimeAwareObservation": (),
    "StickyAction": (0.5,),
    "DelayObservation": (2,),
    "ClipReward": (-2.0, 0.0),
}


def task_of(env: gymnasium.Env[Any, Any]) -> TaskSpec:
    """The task of an environment as it was made, read back from JSON."""
    assert env.spec is not None
    return TaskSpec.from_json(json.loads(json.dumps(make_task(env.spec).to_json())))


def assert_same_episodes(task: TaskSpec, env: gymnasium.Env[Any, Any], steps: int = 30) -> None:
    """The task's environment and one that was made by hand return the same, step by step."""
    made: Any = make_vec(task, 1)
    assert isinstance(made, GymnasiumVec)
    assert made.single_action_space == env.action_space
    observations, _ = made.reset(seed=[3])
    observation, _ = env.reset(seed=3)
    env.action_space.seed(0)
    for _ in range(steps):
        np.testing.assert_array_equal(observations[0], np.ravel(observation))
        action = env.action_space.sample()
        observations, *rest, _ = made.step(np.array([action]))
        observation, *expected, _ = env.step(action)
        assert [values[0] for values in rest] == expected
        if any(expected[1:]):
            break
    made.close()


@pytest.mark.filterwarnings("ignore:.*precision lowered")
@pytest.mark.parametrize("name", WRAPPED)
def test_wrappers_of_gymnasium_are_made_again(name: str) -> None:
    def made() -> gymnasium.Env[Any, Any]:
        return getattr(wrappers, name)(gymnasium.make("Pendulum-v1"), *WRAPPED[name])

    task = task_of(made())
    assert task.variant.startswith(name)
    assert task.label == f"Pendulum-v1 ({task.variant})"
    assert_same_episodes(task, made())


def test_arguments_and_limit_are_those_of_the_environment() -> None:
    options: dict[str, Any] = {"terminate_when_unhealthy": False, "max_episode_steps": 12}
    env = gymnasium.make("Hopper-v5", **options, render_mode="rgb_array")
    task = task_of(env)
    assert task.label == "Hopper-v5 (terminate_when_unhealthy=False, 12 steps)"
    assert task.max_episode_steps == 12
    assert_same_episodes(task, gymnasium.make("Hopper-v5", **options))
    # one frozen normaliser does for all environments of a shipped task
    assert task.observation_mean == get_task("Hopper-v5").observation_mean


def test_other_observations_have_statistics_of_their_own() -> None:
    option = {"exclude_current_positions_from_observation": False}
    assert task_of(gymnasium.make("Hopper-v5", **option)).observation_size == 12  # type: ignore[arg-type]


@pytest.mark.parametrize("env_id", ["CartPole-v1", "InvertedPendulum-v5"])
def test_recorders_make_no_variant(env_id: str) -> None:
    spec = wrappers.RecordEpisodeStatistics(
        gymnasium.make(env_id, render_mode="rgb_array", disable_env_checker=True)
    ).spec
    assert spec is not None
    monitor = gymnasium.envs.registration.WrapperSpec(
        "Monitor", "stable_baselines3.common.monitor:Monitor", None
    )
    spec.additional_wrappers += (monitor,)
    assert make_task(spec) == make_task(env_id)


def test_policies_act_inside_the_bounds_that_a_clip_lets_through() -> None:
    spec = wrappers.ClipAction(gymnasium.make("Hopper-v5")).spec
    assert spec is not None
    assert make_task(spec) is get_task("Hopper-v5")


def test_the_shipped_tasks_are_no_variants() -> None:
    for env_id in known_tasks():
        assert make_task(gymnasium.spec(env_id)) is get_task(env_id)
        text = json.loads(get_task(env_id).gymnasium_spec) | {"reward_threshold": 1, "new": []}
        other = dataclasses.replace(get_task(env_id), gymnasium_spec=json.dumps(text))
        assert not isinstance(make_vec(other, 1), GymnasiumVec)


class Mine(gymnasium.Wrapper[Any, Any, Any, Any]):
    """Somebody's wrapper."""


class Point(gymnasium.Env[np.ndarray, np.ndarray]):
    """Stands where its arguments say, which the first of them pays for."""

    metadata: dict[str, Any] = {"render_modes": ["rgb_array"]}  # noqa: RUF012
    observation_space = gymnasium.spaces.Box(-9, 9, (2,), np.float32)
    action_space = gymnasium.spaces.Box(-1, 1, (1,), np.float32)

    def __init__(self, at: Any = (1, 2), render_mode: str | None = None) -> None:
        self.render_mode = render_mode
        self.at = np.asarray((0, 0) if isinstance(at, type) else at, np.float32)

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[np.ndarray, Any]:
        super().reset(seed=seed)
        return self.at.copy(), {}

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        return self.at.copy(), float(self.at[0]), False, False, {}

    def render(self) -> np.ndarray:
        return np.zeros((8, 8, 3), np.uint8)


def wrapped_point(**kwargs: Any) -> gymnasium.Env[Any, Any]:
    """An entry point that wraps what it makes."""
    return Mine(Point(**kwargs))


@pytest.fixture
def _point() -> Iterator[None]:
    for name in ("Point", "wrapped_point"):
        gymnasium.register(f"{name}-v0", f"{__name__}:{name}", max_episode_steps=9)
    gymnasium.register(
        "AtPoint-v0", f"{__name__}:Point", max_episode_steps=9, kwargs={"at": (3, 4)}
    )
    yield
    for name in ("Point", "wrapped_point", "AtPoint"):
        del gymnasium.registry[f"{name}-v0"]


@pytest.mark.usefixtures("_point")
@pytest.mark.parametrize(
    ("made", "message"),
    [
        (lambda: Mine(gymnasium.make("Point-v0")), r"wrapper Mine .*register an environment under"),
        (
            lambda: wrappers.TransformReward(gymnasium.make("Point-v0"), lambda reward: 2 * reward),
            r"the argument func=<lambda>.* of the wrapper TransformReward, which cannot be",
        ),
        (lambda: gymnasium.make("Point-v0", at=np.ones(2)), r"argument at=array\(\[1., 1.\]\)"),
        (lambda: gymnasium.make("Point-v0", at=Point), r"argument at=Point, .*'module:Env-v0'"),
        (
            lambda: wrappers.NormalizeObservation(gymnasium.make("Point-v0")),
            "NormalizeObservation, whose running statistics",
        ),
        (lambda: gymnasium.make("Point-v0", max_episode_steps=-1), "no limit of episode steps"),
    ],
)
def test_what_cannot_be_written_down_is_named(made: Any, message: str) -> None:
    with pytest.raises(TiplError, match=message):
        make_task(made().spec)


@pytest.mark.usefixtures("_point")
def test_an_entry_point_may_wrap_what_it_makes() -> None:
    assert make_task(gymnasium.make("wrapped_point-v0").spec or "").variant == ""
    env = wrappers.FlattenObservation(gymnasium.make("wrapped_point-v0", at=(5, 6)))
    task = task_of(env)
    assert task.variant == "at=[5, 6], FlattenObservation()"
    assert_same_episodes(task, env)


@pytest.mark.usefixtures("_point")
def test_an_argument_as_registered_is_no_other() -> None:
    task = task_of(gymnasium.make("AtPoint-v0", at=[3, 4]))
    assert task.variant == ""
    assert make_vec(task, 1).reset()[0].tolist() == [[3, 4]]


@pytest.mark.usefixtures("_point")
def test_another_class_under_the_id_is_refused() -> None:
    spec = gymnasium.make("Point-v0").spec
    assert spec is not None
    spec.entry_point = f"{__name__}:wrapped_point"
    with pytest.raises(TiplError, match=r"was made by .*wrapped_point.* registered .*:Point"):
        make_task(spec)
    spec.id = "Nowhere-v0"
    with pytest.raises(TiplError, match="unknown environment id 'Nowhere-v0'"):
        make_task(spec)


def with_text(**changes: Any) -> TaskSpec:
    """A task whose text somebody has changed."""
    task = task_of(wrappers.FlattenObservation(gymnasium.make("Point-v0")))
    text = json.loads(task.gymnasium_spec) | changes
    return dataclasses.replace(task, gymnasium_spec=json.dumps(text))


@pytest.mark.usefixtures("_point")
def test_no_code_is_named_by_a_file() -> None:
    others = {"entry_point": "os:system", "vector_entry_point": "os:system"}
    assert make_vec(with_text(**others), 1).reset()[0].tolist() == [[1, 2]]


@pytest.mark.usefixtures("_point")
@pytest.mark.parametrize(
    ("name", "entry_point", "kwargs"),
    [
        ("system", "os:system", {}),
        ("Mine", f"{__name__}:Mine", {}),
        ("np", "gymnasium.wrappers.common:np", {}),
        ("vector", "gymnasium.wrappers:vector", {}),
        ("Mine", "gymnasium.wrappers.common:Mine", {}),
        ("FlattenObservation", "gymnasium.wrappers.x:FlattenObservation", None),
        ("NormalizeReward", "gymnasium.wrappers.x:NormalizeReward", {}),
    ],
)
def test_wrappers_of_a_file_are_gymnasiums_alone(name: str, entry_point: str, kwargs: Any) -> None:
    wrapper = {"name": name, "entry_point": entry_point, "kwargs": kwargs}
    with pytest.raises(TiplError, match=f"with the wrapper {name}"):
        make_vec(with_text(additional_wrappers=[wrapper]), 1)


@pytest.mark.usefixtures("_point")
@pytest.mark.parametrize(
    "changes",
    [
        {"kwargs": 3},
        {"additional_wrappers": 3},
        {"additional_wrappers": [{"name": "x"}]},
        {"additional_wrappers": [{"name": [], "entry_point": "gymnasium.wrappers.x", "kwargs": 1}]},
        {"additional_wrappers": [{"name": "x", "entry_point": 4, "kwargs": {}}]},
        {"max_episode_steps": "x"},
        {"kwargs": {"no": 4}},
    ],
)
def test_a_damaged_text_ends_in_a_sentence(changes: dict[str, Any]) -> None:
    with pytest.raises(TiplError, match=r"is damaged|could not be made"):
        make_vec(with_text(**changes), 1)
    with pytest.raises(TiplError, match="is damaged"):
        make_vec(dataclasses.replace(with_text(), gymnasium_spec="[}"), 1)


def test_tasks_are_told_apart_by_what_they_are_made_of() -> None:
    base, short = get_task("Hopper-v5"), gymnasium.make("Hopper-v5", max_episode_steps=5)
    assert base.same_environment(dataclasses.replace(base, env_id="some_module:Hopper-v5"))
    assert base.same_environment(base.with_physics({"gravity": 2.0}))
    assert not base.same_environment(task_of(short))
    assert task_of(short).same_environment(task_of(short))
    assert not base.same_environment(get_task("Hopper-v4"))


@pytest.fixture
def far(_point: None) -> TaskSpec:
    """Four steps of a point that is not where it is registered, shown as a column."""
    env = gymnasium.make("Point-v0", at=(5, 6), max_episode_steps=4)
    return task_of(wrappers.ReshapeObservation(env, (2, 1)))


def test_policies_are_saved_evaluated_and_filmed_where_they_are_from(
    far: TaskSpec, tmp_path: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    Policy.initial(far).save(tmp_path / "policy")
    policy = Policy.load(tmp_path / "policy")
    assert policy.task == far
    assert "Point-v0 (at=[5, 6], 4 steps, ReshapeObservation(shape=[2, 1]))" in repr(policy)
    found = evaluate([policy, policy], 2)
    assert found.episodic_return.tolist() == [[20, 20], [20, 20]]
    assert str(found).startswith(f"{far.label}: mean episodic return 20.0")
    assert film(policy).episodic_return == 20
    cli.main(["evaluate", str(tmp_path / "policy"), "--episodes", "1"])
    assert f"{far.label}: mean episodic return 20.0" in capsys.readouterr().out
    with pytest.raises(
        TiplError, match=r"policy 0 is for Point-v0 \(at.* and policy 1 for Point-v0;"
    ):
        evaluate([policy, Policy.initial(make_task("Point-v0"))])


def test_another_mujoco_environment_is_filmed_as_its_task_is() -> None:
    if complaint := missing_renderer():
        pytest.skip(complaint)
    option: dict[str, Any] = {"terminate_when_unhealthy": False}
    policy = Policy.initial(task_of(gymnasium.make("Hopper-v5", max_episode_steps=9, **option)))
    shown = film(policy, num_frames=2, every=8, width=60, height=40)
    usual = film(Policy.initial("Hopper-v5"), num_frames=2, every=8, width=60, height=40)
    np.testing.assert_array_equal(shown.frames, usual.frames)  # eight steps are alike
    assert shown.seconds == usual.seconds
    assert shown.episodic_return == evaluate(policy, 1).mean.value


def test_states_are_visited_in_the_tasks_own_environment(far: TaskSpec) -> None:
    policy = Policy.initial(far)
    seen = visited_observations(policy.params[None], policy.layout, far, 5)
    np.testing.assert_array_equal(seen, 0)  # which the registered one's would not be


def test_checkpoints_run_in_the_tasks_own_environment(far: TaskSpec, tmp_path: Any) -> None:
    layout = actor_layout(far, (3,))
    path_data.make_dataset(tmp_path / "paths", task=far, layout=layout)
    returns = evaluate_paths(tmp_path / "paths", 1, every=6).deterministic_return()
    assert set(returns[np.isfinite(returns)].tolist()) == {20}


@pytest.mark.filterwarnings("ignore:.*is out of date")
def test_models_read_networks_of_other_limits_but_not_of_other_wrappers() -> None:
    model = Forecaster.from_pretrained("InvertedPendulum-v4")
    short = gymnasium.make("InvertedPendulum-v4", max_episode_steps=5)
    model.check_policy(Policy.initial(task_of(short)))
    with pytest.raises(
        TiplError, match=r"ReshapeObservation\(.* trained on InvertedPendulum-v4, w"
    ):
        model.check_policy(Policy.initial(task_of(wrappers.ReshapeObservation(short, (2, 2)))))
