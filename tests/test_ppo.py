"""PPO against hand-computed numbers, a naive rival, and environments with a known answer."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from gymnasium.vector import VectorEnv, VectorWrapper
from gymnasium.wrappers.utils import RunningMeanStd

from naive_ppo import NaiveAgent, NaivePPO, NaiveRollout, scaled_together
from probe_envs import (
    ActionProbe,
    ConstantProbe,
    DiscountProbe,
    ObservationActionProbe,
    ObservationProbe,
    Probe,
    TruncationProbe,
    Wanderer,
)
from tipl.core import storage
from tipl.core.seeds import Stream
from tipl.envs import make_vec
from tipl.errors import TiplError
from tipl.policies.tasks import get_task
from tipl.ppo.config import PPOConfig
from tipl.ppo.ppo import PPO
from tipl.ppo.rollout import Rollout, advantages_and_returns

PENDULUM = "InvertedPendulum-v4"
SMALL = PPOConfig(num_steps=128, num_minibatches=4, update_epochs=4, learning_rate=1e-2)


def pendulum_ppo(trials: Sequence[int], config: PPOConfig = SMALL, **options: Any) -> PPO:
    envs = make_vec(PENDULUM, len(trials) * config.num_envs)
    return PPO(envs, get_task(PENDULUM), trials, 4, config, **options)


def probe_ppo(
    probe: type[Probe], trials: Sequence[int], config: PPOConfig = SMALL, **options: Any
) -> PPO:
    envs = probe(len(trials) * config.num_envs)
    return PPO(envs, probe.task(), trials, 4, config, **options)


def rollout_bytes(rollout: Rollout, trials: Sequence[int] | None = None) -> list[bytes]:
    """All that some of the trials, of one environment each, saw; or all of any."""
    if trials is None:
        final = [np.array([t, m, *seen]) for t, m, seen in rollout.final_observations]
        arrays = [a for name, a in vars(rollout).items() if name != "final_observations"]
        return [np.ascontiguousarray(array).tobytes() for array in arrays + final]
    theirs = [(t, seen) for t, n, seen in rollout.final_observations if n in trials]
    seen = [rollout.next_observation[trials], *(np.array([t, *o]) for t, o in theirs)]
    for name, array in vars(rollout).items():
        if name not in ("next_observation", "final_observations"):
            seen.append(array[trials] if array.ndim == 1 else array[:, trials])
    return [np.ascontiguousarray(array).tobytes() for array in seen]


# --- advantages ----------------------------------------------------------------------------


def test_advantages_by_hand() -> None:
    # gamma 1/2 and lambda 1/2, so each step decays by 1/4; one column for each trial.
    #
    # Trial 0 terminates with step 1, is truncated with step 3, and goes on after step 4:
    #   delta_t = r + next / 2 - v  =  1+4/2-2=1,  2+0-4=-2,  0+2/2-1=0,  3+6/2-2=4,  1+8/2-3=2
    #   A_4 = 2;  A_3 = 4;  A_2 = 0 + 4/4 = 1;  A_1 = -2;  A_0 = 1 - 2/4 = 1/2
    # Trial 1 never ends, with values of 0 and rewards of 16:
    #   A_4 = 16;  A_3 = 16 + 16/4 = 20;  A_2 = 16 + 20/4 = 21;  A_1 = 21.25;  A_0 = 21.3125
    rewards = np.array([[1.0, 16], [2, 16], [0, 16], [3, 16], [1, 16]])
    values = np.array([[2.0, 0], [4, 0], [1, 0], [2, 0], [3, 0]])
    next_values = np.array([[4.0, 0], [0, 0], [2, 0], [6, 0], [8, 0]])
    dones = np.array([[False, False], [True, False], [False] * 2, [True, False], [False] * 2])
    advantages, returns = advantages_and_returns(rewards, values, next_values, dones, 0.5, 0.5)
    expected = np.array([[0.5, 21.3125], [-2, 21.25], [1, 21], [4, 20], [2, 16]])
    np.testing.assert_array_equal(advantages, expected)
    np.testing.assert_array_equal(returns, expected + values)


# --- one update against the naive rival ----------------------------------------------------


def naive_agent(ppo: PPO, n: int) -> NaiveAgent:
    sizes = [shape[0] for name, shape in zip(ppo.layout.names, ppo.layout.shapes, strict=True)
             if name.startswith("critic") and name.endswith("weight")]  # fmt: skip
    task = ppo.task
    return NaiveAgent(ppo.params[n], task.observation_size, task.action_size, sizes[:-1])


def naive_rollouts(rollout: Rollout, n: int, envs: int) -> list[NaiveRollout]:
    """What a trial saw in each of its environments."""
    fields = [field.name for field in dataclasses.fields(NaiveRollout)]
    return [
        NaiveRollout(*(torch.from_numpy(getattr(rollout, name)[:, m].copy()) for name in fields))
        for m in range(n * envs, (n + 1) * envs)
    ]


def minibatch_orders(ppo: PPO) -> list[np.ndarray]:
    """The orders in which the next update's epochs see the steps."""
    rng = Stream.MINIBATCHES.rng(ppo.seed, ppo.iteration)
    return [
        rng.permutation(ppo.config.num_steps * ppo.config.num_envs)
        for _ in range(ppo.config.update_epochs)
    ]


UPDATES: dict[str, tuple[Callable[..., PPO], tuple[int, ...], dict[str, Any]]] = {
    "pendulum, CleanRL's": (pendulum_ppo, (64, 64), {}),
    "pendulum, nothing clipped but the ratio": (
        pendulum_ppo,
        (8,),
        {"clip_vloss": False, "norm_adv": False, "anneal_lr": False, "max_grad_norm": 1e9},
    ),
    "entropy bonus": (
        lambda *args, **options: probe_ppo(Wanderer, *args, **options),
        (8,),
        {"ent_coef": 0.02, "vf_coef": 0.9, "gae_lambda": 0.8},
    ),
    "raw advantages": (
        lambda *args, **options: probe_ppo(Wanderer, *args, **options),
        (64, 64),
        {"ent_coef": 0.1, "norm_adv": False, "clip_coef": 0.1},
    ),
    "pendulum, three environments": (pendulum_ppo, (64, 64), {"num_envs": 3, "num_steps": 48}),
    "two environments, truncated episodes": (
        lambda *args, **options: probe_ppo(Wanderer, *args, **options),
        (8,),
        {"num_envs": 2, "num_steps": 66, "ent_coef": 0.02, "vf_coef": 0.9, "gae_lambda": 0.8},
    ),
}


@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize("case", UPDATES)
def test_updates_equal_the_naive_ones(case: str, seed: int) -> None:
    make, hidden_sizes, changes = UPDATES[case]
    config = dataclasses.replace(SMALL, **changes)
    trials = [0, 5]
    ppo = make(trials, config, hidden_sizes=hidden_sizes, seed=seed, dtype=np.float64)
    naive = [NaivePPO(naive_agent(ppo, n), config, ppo.num_iterations) for n in range(len(trials))]
    for _ in range(2):  # the second with the moments of the first and a lower learning rate
        rollout, orders = ppo.rollout(), minibatch_orders(ppo)
        before = ppo.params.copy()
        ppo.update(rollout)
        for n, rival in enumerate(naive):
            rival.update(naive_rollouts(rollout, n, config.num_envs), orders)
            np.testing.assert_allclose(ppo.params[n], rival.agent.flat(), rtol=0, atol=1e-9)
        assert np.abs(ppo.params - before).max() > 0.01  # it moved, a lot more than the tolerance
    assert ppo.iteration == 2
    assert not ppo.diverged.any()
    used = {"ratio": True, "value": config.clip_vloss, "gradient": config.max_grad_norm < 1e9}
    for rival in naive:
        for what, (clipped, of) in rival.counts.items():
            assert (clipped > 0.01 * of) == used[what], what


# --- the rollout ---------------------------------------------------------------------------


class Recorder(VectorWrapper):
    """Keeps what the environments were given and returned."""

    def __init__(self, envs: VectorEnv) -> None:
        super().__init__(envs)
        self.steps: list[tuple[Any, ...]] = []

    def reset(self, **options: Any) -> tuple[np.ndarray, dict[str, Any]]:
        self.first, info = super().reset(**options)
        self.first = self.first.copy()
        return self.first.copy(), info

    def step(self, actions: np.ndarray) -> tuple[Any, ...]:
        result = super().step(actions)
        self.steps.append((actions.copy(), *(np.copy(array) for array in result[:4]), result[4]))
        return result


@dataclasses.dataclass
class Seen:
    """What one trial's environment was given and returned, time first."""

    observations: np.ndarray  # [T, O], those acted on
    executed: np.ndarray  # [T, A]
    followers: np.ndarray  # [T, O], after the step: of a finished episode, its last one
    rewards: np.ndarray  # [T]
    terminations: np.ndarray  # [T]
    truncations: np.ndarray  # [T]


def seen_by(recorder: Recorder, n: int) -> Seen:
    executed, returned, rewards, terminations, truncations, infos = zip(
        *recorder.steps, strict=True
    )
    followers = [
        infos[t]["final_obs"][n] if terminations[t][n] or truncations[t][n] else returned[t][n]
        for t in range(len(returned))
    ]
    return Seen(
        np.stack([recorder.first[n], *(array[n] for array in returned[:-1])]),
        np.stack(executed)[:, n],
        np.stack(followers),
        np.stack(rewards)[:, n],
        np.stack(terminations)[:, n],
        np.stack(truncations)[:, n],
    )


def recorded_ppo(num_envs: int = 1, **options: Any) -> tuple[PPO, Recorder]:
    config = PPOConfig(
        num_steps=64,
        num_envs=num_envs,
        num_minibatches=4,
        update_epochs=2,
        learning_rate=0.03,
        reward_clip=1.0,
    )
    recorder = Recorder(Wanderer(3 * num_envs))
    task = Wanderer.task()
    ppo = PPO(recorder, task, [4, 1, 7], 3, config, (8,), dtype=np.float64, **options)
    return ppo, recorder


def assert_close(got: np.ndarray, expected: Any) -> None:
    np.testing.assert_allclose(got, expected, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("envs", [1, 3])
def test_rollouts_say_what_the_environments_did(envs: int) -> None:
    ppo, recorder = recorded_ppo(envs)
    T, columns = ppo.config.num_steps, range(3 * envs)
    mean, std = np.array(ppo.task.observation_mean), np.array(ppo.task.observation_std)

    def normalised(observations: np.ndarray) -> torch.Tensor:
        return torch.from_numpy(np.clip((observations - mean) / std, -10.0, 10.0))

    for iteration in range(3):
        agents = [naive_agent(ppo, n) for n in range(3)]
        rollout = ppo.rollout()
        now = slice(iteration * T, (iteration + 1) * T)
        ended_now: list[list[float]] = [[] for _ in agents]
        for m in columns:
            seen, agent = seen_by(recorder, m), agents[m // envs]
            done = seen.terminations | seen.truncations
            inputs = normalised(seen.observations[now])
            actions = torch.from_numpy(rollout.actions[:, m].copy())
            with torch.no_grad():
                log_probs = agent.action_distribution(inputs).log_prob(actions).sum(1).numpy()
                values = agent.get_value(inputs).numpy()
                next_values = agent.get_value(normalised(seen.followers[now])).numpy()
            next_values[seen.terminations[now]] = 0.0

            assert_close(rollout.observations[:, m], inputs)
            assert_close(seen.executed[now], actions.clip(-3.0, 3.0).float())
            assert_close(rollout.log_probs[:, m], log_probs)
            assert_close(rollout.values[:, m], values)
            assert_close(rollout.next_values[:, m], next_values)
            np.testing.assert_array_equal(rollout.dones[:, m], done[now])
            # Episodes go on from one rollout to the next.
            ends = np.flatnonzero(done)
            returns = [part.sum() for part in np.split(seen.rewards, ends + 1)[:-1]]
            pairs = zip(returns, ends, strict=True)
            ended_now[m // envs] += [r for r, end in pairs if end >= now.start]
        for n, ended in enumerate(ended_now):
            own = [seen_by(recorder, m) for m in columns[n * envs : (n + 1) * envs]]
            stacked = (
                np.stack([s.rewards for s in own], 1),
                np.stack([s.terminations for s in own], 1),
            )
            rewards = scaled_together(*stacked, ppo.config.gamma, 1.0)
            assert_close(rollout.rewards[:, n * envs : (n + 1) * envs], rewards[now])
            assert rollout.num_episodes[n] == len(ended)
            assert rollout.episodic_return[n] == pytest.approx(np.mean(ended))
        ppo.update(rollout)

    # All of it was put to the test.
    terminations, truncations = (
        np.array([getattr(seen_by(recorder, m), name) for m in columns])
        for name in ("terminations", "truncations")
    )
    for kind in (
        terminations & ~truncations,
        truncations & ~terminations,
        truncations & terminations,
    ):
        assert kind.sum() > 5
    assert (np.abs(rollout.observations) == 10.0).any()
    assert (np.abs(rollout.actions) > 3.0).any()
    assert (np.abs(rollout.rewards) == 1.0).any()


@pytest.mark.parametrize("envs", [1, 2])
def test_a_running_normaliser_is_gymnasiums(envs: int) -> None:
    ppo, recorder = recorded_ppo(envs, normaliser="running")
    rollouts = []
    for _ in range(2):
        rollouts.append(ppo.rollout())
        ppo.update(rollouts[-1])
    recorded = np.concatenate([rollout.observations for rollout in rollouts])
    for n in range(3):
        statistics, own = RunningMeanStd(shape=(3,)), slice(n * envs, (n + 1) * envs)
        received = [recorder.first[own], *(step[1][own] for step in recorder.steps)]
        for t, observations in enumerate(received):
            statistics.update(observations)
            scaled = (observations - statistics.mean) / np.sqrt(statistics.var + 1e-8)
            expected = np.clip(scaled, -10.0, 10.0)
            now = recorded[t, own] if t < len(recorded) else ppo.observation[own]
            assert_close(now, expected)
        mean, std = ppo.observation_statistics()
        assert_close(mean[n], statistics.mean)
        assert_close(std[n], np.sqrt(statistics.var + 1e-8))


def test_the_environments_of_a_trial_start_and_act_differently_and_the_first_as_ever() -> None:
    several = pendulum_ppo([0, 4], dataclasses.replace(SMALL, num_envs=3))
    one = pendulum_ppo([0, 4])
    assert len(np.unique(several.observation, axis=0)) == 6
    np.testing.assert_array_equal(several.observation[::3], one.observation)
    actions = several.rollout().actions
    assert len(np.unique(actions[:, :, 0], axis=1).T) == 6


def test_action_noise_is_standard_normal_and_new_each_time() -> None:
    config = dataclasses.replace(SMALL, num_steps=2048, update_epochs=1)
    ppo = probe_ppo(Wanderer, [0, 1], config, dtype=np.float64)
    noises = []
    for _ in range(2):
        std = np.exp(ppo.layout.unflatten(ppo.params)["log_std"])
        rollout = ppo.rollout()
        inputs = rollout.observations.swapaxes(0, 1)  # [T, N, O] -> [N, T, O]
        noises.append((rollout.actions - ppo.actor.forward(inputs).swapaxes(0, 1)) / std)
        ppo.update(rollout)
    noise = np.concatenate(noises, axis=2).reshape(2048, -1)  # [T, 2 trials x (2 + 2) actions]
    np.testing.assert_allclose(noise.mean(axis=0), 0.0, atol=0.1)
    np.testing.assert_allclose(noise.std(axis=0), 1.0, atol=0.07)
    correlations = np.corrcoef(noise.T) - np.eye(noise.shape[1])
    assert np.abs(correlations).max() < 0.1


def test_no_return_is_told_of_trials_in_which_no_episode_ended() -> None:
    config = dataclasses.replace(SMALL, num_steps=2, num_minibatches=1)
    rollout = probe_ppo(TruncationProbe, [0, 1], config).rollout()
    assert rollout.num_episodes.tolist() == [0, 0]
    assert np.isnan(rollout.episodic_return).all()


# --- trials are independent ----------------------------------------------------------------


@pytest.mark.parametrize("normaliser", ["frozen", "running"])
@pytest.mark.parametrize(("dtype", "tolerance"), [(np.float64, 1e-9), (np.float32, 1e-3)])
def test_a_trial_is_the_same_alone_and_among_others(
    dtype: type[np.floating[Any]], tolerance: float, normaliser: str
) -> None:
    config = dataclasses.replace(SMALL, num_steps=256, learning_rate=3e-3)
    options: dict[str, Any] = {"seed": 3, "dtype": dtype, "normaliser": normaliser}
    together = pendulum_ppo(range(8), config, **options)
    alone = pendulum_ppo([5], config, **options)
    start = alone.params[0].copy()
    for _ in range(2):
        many, one = together.rollout(), alone.rollout()
        np.testing.assert_array_equal(many.dones[:, 5], one.dones[:, 0])
        np.testing.assert_allclose(many.actions[:, 5], one.actions[:, 0], rtol=0, atol=tolerance)
        together.update(many)
        alone.update(one)
    assert together.params.dtype == dtype
    np.testing.assert_allclose(together.params[5], alone.params[0], rtol=0, atol=tolerance)
    assert np.abs(alone.params[0] - start).max() > 20 * tolerance
    for other in set(range(8)) - {5}:
        assert np.abs(together.params[other] - together.params[5]).max() > 0.1
        assert not np.array_equal(many.dones[:, other], many.dones[:, 5])


def test_a_shared_initial_network_is_shared_and_nothing_else_is() -> None:
    ppo = pendulum_ppo([0, 1, 2], initial="shared")
    assert np.ptp(ppo.params, axis=0).max() == 0.0
    assert ppo.params[0].tobytes() == pendulum_ppo([0]).params[0].tobytes()
    rollout = ppo.rollout()
    assert not np.array_equal(rollout.actions[:, 0], rollout.actions[:, 1])
    assert not np.array_equal(ppo.params[0], pendulum_ppo([0], seed=1).params[0])


# --- diverging trials ----------------------------------------------------------------------


class Explosive(Wanderer):
    """The second copy pays an infinite reward from its 200th step on."""

    steps = 0

    def step(self, actions: np.ndarray) -> tuple[Any, ...]:
        observations, rewards, *rest = super().step(actions)
        self.steps += 1
        if self.steps >= 200:
            rewards[1] = np.inf
        return (observations, rewards, *rest)


def assert_only_trial_1_was_disturbed(disturbed: PPO, undisturbed: PPO) -> None:
    assert disturbed.diverged.tolist() == [False, True, False]
    assert not undisturbed.diverged.any()
    assert np.isfinite(disturbed.params).all()
    others = [0, 2]
    for name, array in disturbed.adam.state().items():
        expected = undisturbed.adam.state()[name]
        array, expected = (a[others] if a.ndim else a for a in (array, expected))
        assert array.tobytes() == expected.tobytes(), name
    assert disturbed.params[others].tobytes() == undisturbed.params[others].tobytes()


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_trial_set_to_nan_is_held_and_touches_no_other(bad: float) -> None:
    disturbed, undisturbed = pendulum_ppo(range(3)), pendulum_ppo(range(3))
    for ppo in (disturbed, undisturbed):
        ppo.update(ppo.rollout())
    last_finite = disturbed.params[1].tobytes()
    disturbed.params[1, 7] = bad
    for _ in range(3):
        rollouts = [ppo.rollout() for ppo in (disturbed, undisturbed)]
        assert rollout_bytes(rollouts[0], [0, 2]) == rollout_bytes(rollouts[1], [0, 2])
        disturbed.update(rollouts[0])
        undisturbed.update(rollouts[1])
        assert_only_trial_1_was_disturbed(disturbed, undisturbed)
        assert disturbed.params[1].tobytes() == last_finite
    assert undisturbed.params[1].tobytes() != last_finite


def test_a_trial_with_infinite_rewards_is_held_and_touches_no_other() -> None:
    disturbed, undisturbed = probe_ppo(Explosive, range(3)), probe_ppo(Wanderer, range(3))
    for iteration in range(4):
        before = disturbed.params[1].tobytes()
        rollouts = [ppo.rollout() for ppo in (disturbed, undisturbed)]
        assert rollout_bytes(rollouts[0], [0, 2]) == rollout_bytes(rollouts[1], [0, 2])
        disturbed.update(rollouts[0])
        undisturbed.update(rollouts[1])
        if iteration == 0:  # 128 steps
            assert not disturbed.diverged.any()
            assert disturbed.params.tobytes() == undisturbed.params.tobytes()
        else:
            assert_only_trial_1_was_disturbed(disturbed, undisturbed)
            assert disturbed.params[1].tobytes() == before


def test_steps_that_overflow_are_undone() -> None:
    ppo = pendulum_ppo(range(2), dataclasses.replace(SMALL, learning_rate=1e38))
    before = ppo.params.tobytes()
    for _ in range(2):
        ppo.update(ppo.rollout())
        assert ppo.diverged.all()
        assert ppo.params.tobytes() == before


# --- resuming ------------------------------------------------------------------------------


@pytest.mark.parametrize("envs", [1, 2])
@pytest.mark.parametrize("normaliser", ["frozen", "running"])
def test_a_trial_goes_on_from_its_stored_state_in_the_same_bytes(
    normaliser: str, envs: int, tmp_path: Path
) -> None:
    trials = [2, 0, 9]
    options: dict[str, Any] = {
        "normaliser": normaliser, "seed": 4, "config": dataclasses.replace(SMALL, num_envs=envs)
    }  # fmt: skip
    undisturbed = pendulum_ppo(trials, **options)
    undisturbed.update(undisturbed.rollout())
    undisturbed.params[1, 0] = np.nan  # a diverged trial is resumed as one
    undisturbed.update(undisturbed.rollout())
    assert undisturbed.episode_return[[0, -1]].all()  # in the middle of episodes
    path = tmp_path / "state.safetensors"
    storage.write_tensors(path, undisturbed.state(), {})

    state, _ = storage.read_tensors(path)
    continued = pendulum_ppo(trials, **options)
    continued.rollout()  # whatever it did before is forgotten
    continued.set_state(state)
    for _ in range(2):
        rollouts = [ppo.rollout() for ppo in (undisturbed, continued)]
        assert rollout_bytes(*rollouts[:1]) == rollout_bytes(*rollouts[1:])
        undisturbed.update(rollouts[0])
        continued.update(rollouts[1])
        expected = undisturbed.state()
        assert {name: a.tobytes() for name, a in continued.state().items()} == {
            name: a.tobytes() for name, a in expected.items()
        }
    assert continued.diverged.tolist() == [False, True, False]
    assert continued.iteration == 4


def test_a_state_does_not_change_as_the_trials_go_on() -> None:
    ppo = pendulum_ppo([0, 1], normaliser="running")
    ppo.update(ppo.rollout())
    state = ppo.state()
    before = {name: array.tobytes() for name, array in state.items()}
    ppo.update(ppo.rollout())
    assert {name: array.tobytes() for name, array in state.items()} == before


# --- environments whose answer is known ----------------------------------------------------

PROBING = PPOConfig(
    num_steps=32,
    num_minibatches=2,
    update_epochs=4,
    learning_rate=1e-2,
    gamma=0.5,
    reward_clip=1.0,  # where all rewards are 0 or 1, they are just that after scaling, too
)


def learned(
    probe: type[Probe], num_iterations: int, config: PPOConfig = PROBING
) -> tuple[PPO, Callable[[float], tuple[np.ndarray, np.ndarray]]]:
    """Trained trials, and the function from an observation to their values and mean actions."""
    trials = [0, 1, 2]
    ppo = PPO(probe(len(trials)), probe.task(), trials, num_iterations, config, (16,))
    for _ in range(num_iterations):
        ppo.update(ppo.rollout())

    def evaluate(observation: float) -> tuple[np.ndarray, np.ndarray]:
        inputs = np.full((len(trials), 1, 1), observation, np.float32)
        return ppo.critic.forward(inputs)[:, 0, 0], ppo.actor.forward(inputs)[:, 0, 0]

    return ppo, evaluate


def test_probe_value_of_a_constant() -> None:
    _, evaluate = learned(ConstantProbe, 25)
    np.testing.assert_allclose(evaluate(0.0)[0], 1.0, atol=0.02)


def test_probe_value_of_an_observation() -> None:
    _, evaluate = learned(ObservationProbe, 40)
    np.testing.assert_allclose(evaluate(1.0)[0], 1.0, atol=0.02)
    np.testing.assert_allclose(evaluate(-1.0)[0], -1.0, atol=0.02)


def test_probe_discounting() -> None:
    _, evaluate = learned(DiscountProbe, 40)
    np.testing.assert_allclose(evaluate(1.0)[0], 1.0, atol=0.02)
    np.testing.assert_allclose(evaluate(0.0)[0], 0.5, atol=0.02)


def test_probe_value_beyond_a_truncation() -> None:
    _, evaluate = learned(TruncationProbe, 50)
    np.testing.assert_allclose(evaluate(0.0)[0], 2.0, atol=0.02)


@pytest.mark.parametrize(
    ("probe", "best"),
    [(ActionProbe, {0.0: 0.5}), (ObservationActionProbe, {1.0: 0.5, -1.0: -0.5})],
)
def test_probe_action(probe: type[Probe], best: dict[float, float]) -> None:
    config = dataclasses.replace(PROBING, reward_clip=10.0)
    ppo, evaluate = learned(probe, 110, config)
    log_std = ppo.layout.unflatten(ppo.params)["log_std"]
    for observation, action in best.items():
        values, actions = evaluate(observation)
        np.testing.assert_allclose(actions, action, atol=0.05)
        # The mean reward of a Gaussian action, in units of the reward scaler.
        mean_reward = 1.0 - (actions - action) ** 2 - np.exp(2 * log_std[:, 0])
        np.testing.assert_allclose(values * ppo.reward_scaler.moments.std, mean_reward, atol=0.05)
    assert (np.exp(log_std) < 0.1).all()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_steps": 0}, "num_steps is 0"),
        ({"num_minibatches": 0}, "num_minibatches is 0; expected at least 1"),
        ({"num_steps": 64, "num_minibatches": 64}, "64 with 64 minibatches"),
        ({"update_epochs": 0}, "update_epochs is 0; expected at least 1"),
        ({"learning_rate": float("nan")}, "learning_rate is nan"),
    ],
)
def test_impossible_hyperparameters_are_refused(options: dict[str, Any], message: str) -> None:
    config = PPOConfig(**options)
    for refuse in (config.check, lambda: pendulum_ppo([0], config)):
        with pytest.raises(TiplError, match=message):
            refuse()
