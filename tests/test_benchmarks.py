"""The benchmarks' own arithmetic, and the single-trial loop that they compare with."""

from __future__ import annotations

import contextlib
import dataclasses
import importlib
import math
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
import scipy.stats
import torch
from gymnasium.spaces import Box
from torch.distributions import Normal

from tipl import PPOConfig, TiplError
from tipl.cli import COMMANDS
from tipl.core import storage

sys.path.append(str(Path(__file__).parents[1] / "benchmarks"))  # scripts, not a package
collect = importlib.import_module("collect")
measuring = importlib.import_module("measuring")
reference = importlib.import_module("reference_returns")
single = importlib.import_module("single_trial_ppo")
speeds = importlib.import_module("speeds")
startup = importlib.import_module("startup")


# --- the single-trial loop -----------------------------------------------------------------


class Stairs(gymnasium.Env[np.ndarray, np.ndarray]):
    """Counts 3 steps and pays 1 for each; first truncated, then terminated, and so on."""

    observation_space = Box(-np.inf, np.inf, (1,))
    action_space = Box(-1.0, 1.0, (2,))

    def __init__(self) -> None:
        self.episode = -1

    def reset(self, **options: Any) -> tuple[np.ndarray, dict[str, Any]]:
        super().reset(**options)
        self.episode, self.count = self.episode + 1, 0
        return np.zeros(1, np.float32), {}

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        self.count += 1
        over, terminates = self.count == 3, self.episode % 2 == 1
        observation = np.array([self.count], np.float32)
        return observation, 1.0, over and terminates, over and not terminates, {}


class Target(gymnasium.Env[np.ndarray, np.ndarray]):
    """One step an episode, which pays less the further the action is from 0.5."""

    observation_space, action_space = Box(-1.0, 1.0, (1,)), Box(-1.0, 1.0, (1,))

    def reset(self, **options: Any) -> tuple[np.ndarray, dict[str, Any]]:
        super().reset(**options)
        return np.zeros(1, np.float32), {}

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        return np.zeros(1, np.float32), -float((action[0] - 0.5) ** 2), True, False, {}


@pytest.fixture(autouse=True)
def _environments() -> Iterator[None]:
    for env in (Stairs, Target):
        gymnasium.register(f"{env.__name__}-v0", env, disable_env_checker=True)
    yield
    for env in (Stairs, Target):
        del gymnasium.registry[f"{env.__name__}-v0"]


@pytest.mark.parametrize(("bootstrap", "after_truncation"), [(True, 3.0), (False, 0.0)])
def test_a_rollout_by_hand(
    bootstrap: bool, after_truncation: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gymnasium.wrappers, "NormalizeObservation", lambda env: env)
    monkeypatch.setattr(gymnasium.wrappers, "NormalizeReward", lambda env, gamma: env)
    config = single.Hyperparameters(num_steps=8, bootstrap_truncated=bootstrap)
    trial = single.Trial("Stairs-v0", 0, config)
    trial.agent.value = lambda observations: observations[..., 0]  # so that values tell where
    rollout, episodes = trial.rollout()
    assert rollout.observations[:, 0].tolist() == [0, 1, 2, 0, 1, 2, 0, 1]
    assert rollout.values.tolist() == [0, 1, 2, 0, 1, 2, 0, 1]
    assert rollout.next_values.tolist() == [1, 2, after_truncation, 1, 2, 0, 1, 2]
    assert rollout.dones.tolist() == [0, 0, 1, 0, 0, 1, 0, 0]
    assert rollout.rewards.tolist() == [1] * 8
    with torch.no_grad():
        policy = trial.agent.policy(rollout.observations)
        log_probs = policy.log_prob(rollout.actions).sum(1)
    np.testing.assert_allclose(rollout.log_probs, log_probs, rtol=1e-5)
    assert episodes == [(3, 3.0), (6, 3.0)]
    _, later = trial.rollout()  # which goes on in the middle of an episode
    assert later == [(9, 3.0), (12, 3.0), (15, 3.0)]


def test_advantages_by_hand() -> None:
    # gamma 1/2 and lambda 1/2; step 1 terminates, step 3 is truncated before a value of 6:
    #   delta_t = r + next / 2 - v  =  1+4/2-2=1,  2+0-4=-2,  0+2/2-1=0,  3+6/2-2=4,  1+8/2-3=2
    #   A_4 = 2;  A_3 = 4;  A_2 = 0 + 4/4 = 1;  A_1 = -2;  A_0 = 1 - 2/4 = 1/2
    rewards, values = torch.tensor([1.0, 2, 0, 3, 1]), torch.tensor([2.0, 4, 1, 2, 3])
    next_values, dones = torch.tensor([4.0, 0, 2, 6, 8]), torch.tensor([0.0, 1, 0, 1, 0])
    unused = torch.zeros(5)
    rollout = single.Rollout(unused, unused, unused, rewards, values, next_values, dones)
    assert single.advantages_of(rollout, 0.5, 0.5).tolist() == [0.5, -2, 1, 4, 2]


def test_the_loss_by_hand() -> None:
    # Ratios 2 and 1/2 with advantages 1 and -1, so both are clipped (to 1.2 and 0.8):
    #   policy loss: -(1.2 - 0.8) / 2 = -0.2
    # Values 1 and 0 where they were 0; the first is clipped to 0.2, which is further from 2:
    #   value loss: (1.8^2 + 0) / 2 / 2 = 0.81
    # Entropy of a standard normal action: log(2 pi e) / 2
    trial = single.Trial("Target-v0", 0, single.Hyperparameters(norm_adv=False, ent_coef=0.1))
    trial.agent.policy = lambda observations: Normal(torch.zeros(2, 1), torch.ones(2, 1))
    trial.agent.value = lambda observations: torch.tensor([1.0, 0.0])
    zeros, actions = torch.zeros(2), torch.zeros(2, 1)
    old_log_probs = -0.5 * math.log(2 * math.pi) - torch.tensor([2.0, 0.5]).log()
    batch = single.Rollout(actions, actions, old_log_probs, zeros, zeros, zeros, zeros)
    loss = trial.loss(batch, torch.tensor([1.0, -1.0]), torch.tensor([2.0, 0.0]))
    entropy = 0.5 * math.log(2 * math.pi * math.e)
    assert loss.item() == pytest.approx(-0.2 + 0.5 * 0.81 - 0.1 * entropy, abs=1e-6)


def test_episodes_are_those_that_gymnasium_records(monkeypatch: pytest.MonkeyPatch) -> None:
    recorders = []
    recorder = gymnasium.wrappers.RecordEpisodeStatistics

    def record(env: gymnasium.Env[Any, Any]) -> gymnasium.Env[Any, Any]:
        recorders.append(recorder(env, buffer_length=1000))
        return recorders[-1]

    monkeypatch.setattr(gymnasium.wrappers, "RecordEpisodeStatistics", record)
    config = single.Hyperparameters(num_steps=256, num_minibatches=4, update_epochs=1)
    episodes = single.train("InvertedPendulum-v5", 600, seed=3, config=config)
    assert len(episodes) > 10
    assert [episode.episodic_return for episode in episodes] == list(recorders[0].return_queue)
    ends = np.cumsum(recorders[0].length_queue)
    assert [episode.global_step for episode in episodes] == ends.tolist()
    assert 450 < ends[-1] <= 512  # 600 steps are two whole iterations
    assert episodes == single.train("InvertedPendulum-v5", 600, seed=3, config=config)
    assert episodes != single.train("InvertedPendulum-v5", 600, seed=4, config=config)


def test_a_single_trial_learns() -> None:
    config = single.Hyperparameters(num_steps=128, num_minibatches=4, learning_rate=1e-2)
    returns = [e.episodic_return for e in single.train("Target-v0", 1_920, 0, config)]
    assert np.mean(returns[:128]) < -0.5
    assert np.mean(returns[-128:]) > -0.05


def test_too_few_steps_are_an_error() -> None:
    with pytest.raises(TiplError, match="one iteration takes 2048"):
        single.train("Target-v0", 2000, 0)


def test_the_single_trial_has_the_hyperparameters_of_tipl() -> None:
    ours, theirs = dataclasses.asdict(PPOConfig()), dataclasses.asdict(single.DEFAULTS)
    assert set(theirs) - set(ours) == {"hidden_size", "bootstrap_truncated"}
    assert all(ours[name] == value for name, value in theirs.items() if name in ours)
    assert ours["reward_clip"] == single.BOUND
    assert reference.same_hyperparameters() == PPOConfig()


# --- speeds --------------------------------------------------------------------------------


def test_medians_of_ratios_by_hand() -> None:
    # In the second repetition everything took twice as long; the ratio hardly sees it.
    rates = [{"a": 100.0, "b": 10.0}, {"a": 50.0, "b": 5.0}, {"a": 90.0, "b": 30.0}]
    ratios = {"a_to_b": ("a", "b"), "a_to_missing": ("a", "missing")}
    repetitions = [measuring.with_ratios(one, ratios) for one in rates]
    assert repetitions[2] == {"a": 90.0, "b": 30.0, "a_to_b": 3.0}
    assert measuring.medians(repetitions) == {"a": 90.0, "b": 10.0, "a_to_b": 10.0}
    assert rates[0] == {"a": 100.0, "b": 10.0}


def test_last_rollouts_are_left_out_of_a_collection() -> None:
    # Three groups in two threads: 6 thread-seconds of 10 s each are 3 s of both.
    assert speeds.iteration_seconds(10.0, [1.0, 2.0, 3.0], threads=2) == 7.0
    assert speeds.iteration_seconds(10.0, [2.0], threads=2) == 8.0  # the other thread is idle


def test_functions_run_at_once_in_processes_of_their_own() -> None:
    assert measuring.in_fresh_processes(os.getpid)[0] != os.getpid()
    # each waits until the other is there
    assert measuring.in_fresh_processes(measuring.wait_for_the_others, count=2) == [None, None]


def test_the_command_of_a_benchmark() -> None:
    args = collect.Args(scaling=(1, 8), threads=2, json=Path("out.json"))
    assert measuring.command_line("collect.py", args) == (
        "python benchmarks/collect.py --task InvertedPendulum-v4 --trials 128 --iterations 2 "
        "--rollouts 3 --repeats 3 --scaling 1 8 --threads 2"
    )


# --- start-up ------------------------------------------------------------------------------


def test_a_process_that_starts_is_measured(tmp_path: Path) -> None:
    code = "import os, pathlib; pathlib.Path('ran').write_text(os.environ['CACHE'])"
    with contextlib.chdir(tmp_path):
        assert startup.processor_seconds(["-c", code], os.environ | {"CACHE": "here"}) > 0
        assert Path("ran").read_text() == "here"
    with pytest.raises(TiplError, match="python -c 1 / 0 failed: ZeroDivisionError"):
        startup.processor_seconds(["-c", "1 / 0"], os.environ)


def test_start_up_is_measured_for_every_command(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    taken = iter([0.05, 0.3, 0.02, 2.0, 0.09, 0.4])  # two rows, three repetitions
    folders = []

    def seconds(arguments: list[str], environment: dict[str, str]) -> float:
        folders.append(environment["NUMBA_CACHE_DIR"])
        return next(taken)

    monkeypatch.setattr(startup, "processor_seconds", seconds)
    assert {f"tipl {name} --help" for name in COMMANDS} < startup.processes(tmp_path).keys()
    monkeypatch.setattr(startup, "COMMANDS", {})
    startup.main(startup.Args(repeats=3, json=tmp_path / "out.json"))
    assert storage.read_json(tmp_path / "out.json")["rows"] == [
        {"what": "import tipl", "seconds": 0.05, "target": 0.1},
        {"what": "tipl.Policy.load(...).act(...)", "seconds": 0.4, "target": 1.0},
    ]
    assert len(set(folders)) == 3  # empty in each repetition
    assert "missed" not in capsys.readouterr().out
    startup.print_table([startup.Row("import tipl", 0.2, 0.1)])
    assert "missed" in capsys.readouterr().out
    with pytest.raises(TiplError, match="repeats is 0"):
        startup.Args(repeats=0)


# --- final training returns ----------------------------------------------------------------


def test_final_returns_by_hand() -> None:
    # Ten rollouts of 10 steps, of which 8 and 9 (steps 81 to 100) are the last fifth.
    episodes = [(80, 1000.0), (81, 1.0), (90, 2.0), (91, 6.0)]
    episodes = [single.Episode(*pair) for pair in episodes]
    assert reference.final_return_of_episodes(episodes, 10, 10) == 3.0
    assert math.isnan(reference.final_return_of_episodes(episodes[:1], 10, 10))
    # The same as a path, whose 11th rollout is of the last weights; then a trial whose last
    # episodes ended in rollout 8 alone, and one whose never did.
    episodic_return, num_episodes = np.full((3, 11), np.nan), np.zeros((3, 11), np.int32)
    episodic_return[0, 7:] = [1000.0, 1.5, 6.0, 1000.0]
    num_episodes[0, 7:] = [1, 2, 1, 4]
    episodic_return[1, 8], num_episodes[1, 8] = 5.0, 3
    np.testing.assert_array_equal(
        reference.final_returns_of_paths(episodic_return, num_episodes), [3.0, 5.0, np.nan]
    )


@pytest.mark.parametrize(
    ("num_iterations", "expected"), [(1, (0, 1)), (5, (4, 5)), (6, (4, 6)), (97, (77, 97))]
)
def test_the_last_fifth_is_rounded_up(num_iterations: int, expected: tuple[int, int]) -> None:
    last = reference.last_rollouts(num_iterations)
    assert (last.start, last.stop) == expected


def test_the_difference_of_means_by_hand() -> None:
    # Variances 1 of 3 and 20/3 of 4 values: squared errors 1/3 and 5/3, which sum up to 2.
    # Degrees of freedom: 2^2 / ((1/3)^2 / 2 + (5/3)^2 / 3) = 4 / (53/54)
    a, b = [1.0, 2.0, 3.0], [2.0, 4.0, 6.0, 8.0]
    margin = scipy.stats.t.ppf(0.975, 4 * 54 / 53) * math.sqrt(2)
    compared = reference.compare(a, b)
    np.testing.assert_allclose(compared[:3], [-3.0, -3.0 - margin, -3.0 + margin])
    assert compared.contains_0
    assert not reference.compare(a, [value + 10 for value in b]).contains_0
    assert reference.compare([7.0, 7.0], [7.0, 7.0]) == (0.0, 0.0, 0.0, True)
    assert reference.compare([7.0, 7.0], [5.0, 5.0]) == (2.0, 2.0, 2.0, False)


def test_the_summary_by_hand() -> None:
    margin = 4.302652729911275 / math.sqrt(3)  # the 97.5% point of t with 2 degrees of freedom
    expected = {"n": 3, "mean": 2, "low": 2 - margin, "high": 2 + margin, "std": 1}
    assert reference.summary([1.0, 2.0, 3.0]) == pytest.approx(expected | {"min": 1, "max": 3})


def test_finished_seeds_are_not_run_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    args = reference.Args(task="Target-v0", seeds=3, steps=4096, cache=tmp_path / "cache")
    ran = []

    def run(args: Any, files: dict[int, Path]) -> None:
        ran.append(list(files))
        for seed, file in files.items():
            storage.write_json(file, {"episodes": [[1, 0.0], [2049, float(seed)], [4096, 0.0]]})

    monkeypatch.setattr(reference, "_run_single_trials", run)
    assert reference.single_trials(args) == [0.5, 1.0, 1.5]
    (tmp_path / "cache" / reference._seed_file(args, 2).name).unlink()
    assert reference.single_trials(args) == [0.5, 1.0, 1.5]
    assert reference.single_trials(args) == [0.5, 1.0, 1.5]
    assert ran == [[1, 2, 3], [2]]


def test_tipl_alone_and_against_single_trials(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    little = PPOConfig(num_minibatches=2, update_epochs=1)
    monkeypatch.setattr(reference, "same_hyperparameters", lambda: little)
    args = reference.Args(
        "InvertedPendulum-v5", seeds=0, steps=2048, trials=2, normaliser=("frozen", "running"),
        threads=1, cache=tmp_path, json=tmp_path / "out.json",
    )  # fmt: skip
    reference.main(args)
    content = storage.read_json(tmp_path / "out.json")
    assert [row["normaliser"] for row in content["rows"]] == ["frozen", "running"]
    for row in content["rows"]:
        paths = reference.collect(args, row["normaliser"])  # opens what is there
        assert paths.metadata.normaliser == row["normaliser"]
        np.testing.assert_allclose(row["mean"], paths.episodic_return()[:, 0].mean())
        assert (row["method"], row["n"], row["num_diverged"]) == ("tipl", 2, 0)
        assert "against_single_trial" not in row
    assert "--seeds 0" in content["command"]

    monkeypatch.setattr(reference, "single_trials", lambda args: [10.0, 20.0])
    single_row, *rows = reference.measure(dataclasses.replace(args, seeds=2))
    assert (single_row["method"], single_row["mean"]) == ("single trial", 15.0)
    for row in rows:
        assert row["against_single_trial"]["difference"] == pytest.approx(row["mean"] - 15.0)
    reference.print_report(args, [single_row, *rows])
    assert "less the single trials:" in capsys.readouterr().out


@pytest.mark.parametrize("options", [{"seeds": 1}, {"trials": 1}, {"steps": 2000}, {"threads": 0}])
def test_impossible_options_are_errors(options: dict[str, int]) -> None:
    with pytest.raises(TiplError, match="at least"):
        reference.Args(**options)


def test_no_finished_episode_is_an_error() -> None:
    with pytest.raises(TiplError, match="last fifth"):
        reference._finite([1.0, math.nan], "a single trial")
