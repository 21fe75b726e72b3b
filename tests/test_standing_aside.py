"""What goes wrong in tipl costs nobody a run: it goes on with the same bytes as without."""

from __future__ import annotations

import functools
import io
import random
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from sb3_contrib import MaskablePPO, RecurrentPPO
from stable_baselines3 import A2C, DQN, PPO, SAC, TD3
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.logger import configure
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.vec_env import DummyVecEnv, VecNormalize
from torch import nn

from tipl import PathDataset, Policy, TiplError
from tipl.integrations.cleanrl import ForecastHook
from tipl.integrations.pytorch.agent import agent_of_cleanrl
from tipl.integrations.sb3 import ForecastCallback, PathRecorder
from tipl.integrations.standing_aside import LOGGER, Guard, generators_kept

Array = np.ndarray[Any, np.dtype[Any]]

pytestmark = [
    pytest.mark.usefixtures("one_thread"),
    pytest.mark.filterwarnings("ignore:.*is out of date:DeprecationWarning"),
]

PENDULUM = "InvertedPendulum-v4"
STEPS, ROLLOUTS = 16, 4


class Noisy(gym.Env[Any, Any]):
    """Draws from all global generators, as people's environments do; what it does may fail."""

    observation_space = gym.spaces.Box(-9, 9, (2,), np.float32)
    action_space: gym.Space[Any] = gym.spaces.Box(-1, 1, (1,), np.float32)

    def __init__(self, fail: Callable[[], object] = lambda: None, discrete: bool = False) -> None:
        self.fail, self.left = fail, 0
        if discrete:
            self.action_space = gym.spaces.Discrete(2)

    def _observation(self) -> Array:
        drawn = [np.random.normal() + random.random(), float(torch.rand(()))]  # noqa: NPY002
        return np.array(drawn, np.float32)

    def reset(self, **_: Any) -> tuple[Array, dict[str, Any]]:
        self.left = 5
        return self._observation(), {}

    def step(self, action: Any) -> tuple[Array, float, bool, bool, dict[str, Any]]:
        self.left -= 1
        if self.left == 2:
            self.fail()
        observation = self._observation()
        reward = float(observation[0] - np.square(action).sum())
        return observation, reward, False, self.left == 0, {}

    def action_masks(self) -> Array:
        return np.ones(2, bool)


class StopAfter(BaseCallback):
    """Ends a run after so many rollouts, however many steps it thinks that it has done."""

    def __init__(self, rollouts: int = ROLLOUTS) -> None:
        super().__init__()
        self.left = rollouts

    def _on_rollout_start(self) -> None:
        self.left -= 1

    def _on_step(self) -> bool:
        return self.left >= 0


def run(
    *callbacks: BaseCallback, kind: Any = PPO, env: Any = None, norm: bool = False, **options: Any
) -> Any:
    """A model after a few rollouts, with these callbacks."""
    random.seed(1)
    np.random.seed(1)  # noqa: NPY002
    torch.manual_seed(1)
    settings: dict[str, Any] = {"n_steps": STEPS, "device": "cpu"} | options
    if kind is PPO:
        settings |= {"batch_size": 8, "n_epochs": 2}
    envs: Any = DummyVecEnv([env or (lambda: Monitor(Noisy()))])
    model = kind(
        "MlpPolicy",
        VecNormalize(envs) if norm else envs,
        policy_kwargs={"net_arch": [8, 8]},
        **settings,
    )
    model.learn(10**9, callback=[*callbacks, StopAfter()])
    return model


def trace(model: Any) -> dict[str, bytes]:
    """The bytes of all that a run has made: weights, Adam, rollout, normaliser, generators.

    That of `random` is not asked: checks of types draw from it. Observations of `Noisy` tell.
    """
    buffer, optimizer = model.rollout_buffer, model.policy.optimizer
    tensors = dict(model.policy.named_parameters())
    for number, state in optimizer.state_dict()["state"].items():
        tensors |= {f"{number} {name}": torch.as_tensor(value) for name, value in state.items()}
    arrays = {name: tensor.detach().numpy() for name, tensor in tensors.items()}
    names = ("observations", "actions", "rewards", "values", "log_probs", "returns", "advantages")
    arrays |= {name: getattr(buffer, name) for name in names} | {"last": model._last_obs}
    if normalise := model.get_vec_normalize_env():
        arrays |= {n: np.asarray(v) for n, v in vars(normalise.obs_rms).items()}
    arrays |= {"numpy": np.random.get_state()[1], "torch": torch.get_rng_state().numpy()}  # noqa: NPY002
    return {name: array.tobytes() for name, array in arrays.items()}


def failing(error: BaseException | type[BaseException], after: int = 0) -> Callable[..., Any]:
    """A function that raises an error, from some call on."""
    calls = iter(range(10**9))

    def fail(*_: Any, **__: Any) -> None:
        if next(calls) >= after:
            raise error

    return fail


def forecasts(eval_env: gym.Env[Any, Any], **options: Any) -> ForecastCallback:
    """Tests forecasts before every rollout from the second on, and accepts none."""
    settings: dict[str, Any] = {"every": 1, "min_history": 2, "budget": 99.0, "margin": 1e9}
    return ForecastCallback("relex", eval_env=eval_env, **settings | options)


# --- the run goes on as if tipl were not there ------------------------------------------------


@pytest.mark.parametrize("kind", [PPO, A2C])
def test_tests_draw_no_number_of_the_run_s(kind: Any, caplog: pytest.LogCaptureFixture) -> None:
    callback = forecasts(Monitor(Noisy()))
    model = run(callback, kind=kind)
    assert callback.jumps is not None
    assert callback.jumps.jumper.counters["jump_steps"][0] >= 10
    assert model.num_timesteps > ROLLOUTS * STEPS + 10
    assert caplog.messages == []
    assert trace(model) == trace(run(kind=kind))


@pytest.mark.parametrize(
    ("fail", "told"),
    [
        (failing(RuntimeError("simulation\nbroke down")), "RuntimeError: simulation broke down"),
        (failing(RuntimeError("late"), after=3), "RuntimeError: late"),
        (failing(KeyError("speed"), after=1), "KeyError: 'speed'"),
        (failing(AttributeError), "AttributeError"),
        (failing(OSError(28, "No space left on device")), "OSError: [Errno 28] No space left"),
        (failing(MemoryError), "MemoryError"),
        (failing(StopIteration), "StopIteration"),
        (failing(TiplError("one was given; expected two")), "one was given; expected two"),
    ],
)
def test_a_failing_test_leaves_no_trace(
    fail: Any, told: str, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    model = run(forecasts(Noisy(fail)), norm=True)
    (message,) = caplog.messages
    assert message.startswith(f"tipl stands aside: {told}")
    ours = told.startswith("one")
    assert ("training goes on without tipl, and strict=True raises" in message) != ours
    assert "Traceback" not in "".join(capfd.readouterr())
    assert trace(model) == trace(run(norm=True))


class Broken(ForecastCallback):
    """Fails at a place of its own."""

    def __init__(self, where: str, directory: Path, **options: Any) -> None:
        self.where = where
        options = {"every": 1, "gate": False, "rollback": False} | options
        super().__init__(directory / "policy", **options)

    def _on_training_start(self) -> None:
        super()._on_training_start()
        jumps = self.jumps
        assert jumps is not None
        if self.where == "forecast":  # a warning, which pytest's filters make an error
            old = functools.partial(warnings.warn, "rather old", FutureWarning)
            jumps.jumper.forecaster.forecast = lambda *_, **__: old()  # type: ignore[assignment]
        elif self.where == "moments":
            jumps.agent.reset_moments = failing(ValueError("no"))  # type: ignore[method-assign]
        elif self.where == "critic":
            jumps.jumper.max_jumps, jumps.fresh = 0, True
            refit = jumps.agent.refit_critic

            def refit_and_fail(*arguments: Any) -> None:
                refit(*arguments)
                torch.rand(3)
                if arguments[-1]:  # the second time
                    raise ValueError("no")

            jumps.agent.refit_critic = refit_and_fail  # type: ignore[method-assign]
        elif self.where == "logger":
            self._log = failing(ValueError("no"))  # type: ignore[method-assign]


@pytest.mark.parametrize("norm", [False, True])
@pytest.mark.parametrize("where", ["state file", "forecast", "moments", "critic", "logger"])
def test_a_jump_that_fails_half_way_leaves_no_trace(
    where: str, norm: bool, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    policy = Policy.initial(PENDULUM, hidden=(8, 8))
    policy.with_params(policy.params + 0.5).save(tmp_path / "policy")
    (tmp_path / "file").touch()

    def env() -> gym.Env[Any, Any]:
        return Monitor(gym.make(PENDULUM))

    inside = tmp_path / "file" / "jumps" if where == "state file" else None
    model = run(Broken(where, tmp_path, state_file=inside), env=env, norm=norm, seed=2)
    (message,) = caplog.messages
    assert message.startswith("tipl stands aside: ")
    assert trace(model) == trace(run(env=env, norm=norm, seed=2))
    assert model.num_timesteps == ROLLOUTS * STEPS + 1


def test_what_fails_at_the_start_leaves_no_trace(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    draws_and_fails = failing(AttributeError("mlp_extractor"))
    monkeypatch.setattr(
        "tipl.integrations.sb3.callback.agent_of_sb3",
        lambda _: (torch.rand(3), draws_and_fails()),
    )
    model = run(forecasts(Noisy()))
    (message,) = caplog.messages
    assert "AttributeError: mlp_extractor" in message
    monkeypatch.undo()
    assert trace(model) == trace(run())


class FullDisk(PathRecorder):
    """Has room for so many checkpoints."""

    room = 99

    def _append(self, steps: int, policy: tuple[Array, ...]) -> None:
        self.room -= 1
        if self.room < 0:
            raise OSError(28, "No space left on device")
        super()._append(steps, policy)


@pytest.mark.parametrize("room", [99, 2, 0])
def test_a_recorder_leaves_no_trace_in_the_run(
    room: int, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    def env() -> gym.Env[Any, Any]:
        return Monitor(gym.make(PENDULUM))

    recorder = FullDisk(tmp_path / "paths")
    recorder.room = room
    assert trace(run(recorder, env=env, seed=2)) == trace(run(env=env, seed=2))
    assert ["No space left" in message for message in caplog.messages] == [True] * (room < 99)
    if room:
        paths = PathDataset.open(tmp_path / "paths")
        assert paths.num_checkpoints == min(room, ROLLOUTS + 1)


@pytest.mark.parametrize("stop", [KeyboardInterrupt, SystemExit])
def test_who_stops_a_run_finds_it_as_it_was(stop: type[BaseException]) -> None:
    before: list[tuple[bytes, int]] = []

    class Watching(ForecastCallback):
        def _on_rollout_start(self) -> None:
            before.append((agent_bytes(self.model), self.model.num_timesteps))
            super()._on_rollout_start()

    callback = Watching(
        "relex", eval_env=Noisy(failing(stop, 2)), every=1, min_history=2, budget=99.0
    )
    model = PPO("MlpPolicy", DummyVecEnv([Noisy]), n_steps=STEPS, batch_size=8, device="cpu")
    with pytest.raises(stop):
        model.learn(999, callback=callback)
    assert before[-1] == (agent_bytes(model), model.num_timesteps)
    assert callback.guard.reason is None


def agent_bytes(model: Any) -> bytes:
    return nn.utils.parameters_to_vector(model.policy.parameters()).detach().numpy().tobytes()


def test_strict_raises() -> None:
    with pytest.raises(RuntimeError, match="broke down"):
        run(forecasts(Noisy(failing(RuntimeError("broke down"))), strict=True))
    with pytest.raises(TiplError, match="give an eval_env like it"):
        run(ForecastCallback(strict=True))


def test_another_environment_is_another_try(caplog: pytest.LogCaptureFixture) -> None:
    callback = forecasts(Noisy(failing(RuntimeError("broke down"))))
    model = run(callback)
    model.learn(STEPS, callback=callback, reset_num_timesteps=False)
    model.learn(2 * STEPS, callback=callback)  # the same once more: it has said so
    assert len(caplog.messages) == 1
    callback.eval_env = Noisy()
    model.set_env(DummyVecEnv([lambda: Monitor(Noisy())]))
    model.learn(4 * STEPS, callback=callback)
    assert callback.guard.reason is None
    assert callback.jumps is not None
    assert callback.jumps.jumper.counters["jump_steps"][0] > 0
    assert len(caplog.messages) == 1


# --- algorithms and steps that it was not made for --------------------------------------------


def discrete() -> gym.Env[Any, Any]:
    return Monitor(Noisy(discrete=True))


@pytest.mark.parametrize(
    ("kind", "why"),
    [
        (SAC, "was given to SAC; expected an algorithm that learns from rollouts"),
        (TD3, "was given to TD3; expected"),
        (DQN, "was given to DQN; expected"),
        (RecurrentPPO, "actions of RecurrentPPO may depend on states of earlier steps"),
        (MaskablePPO, "actions of MaskablePPO may depend on masks"),
    ],
)
def test_other_algorithms_are_left_alone(
    kind: Any, why: str, caplog: pytest.LogCaptureFixture
) -> None:
    name = "MlpLstmPolicy" if kind is RecurrentPPO else "MlpPolicy"
    small = (
        {"n_steps": STEPS, "batch_size": 8} if issubclass(kind, RecurrentPPO | MaskablePPO) else {}
    )
    env = discrete if kind in (DQN, MaskablePPO) else Noisy
    model = kind(name, DummyVecEnv([env]), device="cpu", **small)
    callback = forecasts(env())
    model.learn(2 * STEPS, callback=callback)
    (message,) = caplog.messages
    assert message.startswith("tipl stands aside: ")
    assert why in message
    assert model.num_timesteps == 2 * STEPS


def test_a_step_without_infos_is_none_of_ours(caplog: pytest.LogCaptureFixture) -> None:
    class Bare(ForecastCallback):
        def _on_step(self) -> bool:
            self.locals = {}
            return super()._on_step()

    callback = Bare("relex", eval_env=Noisy())
    assert trace(run(callback)) == trace(run())
    (message,) = caplog.messages
    assert "KeyError: 'infos'" in message


# --- how it is said --------------------------------------------------------------------------

SENTENCE = "tipl stands aside: it rains"


def bare(monkeypatch: pytest.MonkeyPatch) -> None:
    """Python's logging as it is without any setup; pytest has one, made anew for each test."""
    monkeypatch.setattr(LOGGER, "propagate", False)


def test_a_sentence_stands_once_on_the_terminal_and_in_the_run_s_files(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    bare(monkeypatch)
    guard = Guard(run_logger=lambda: configure(str(tmp_path), ["stdout", "log", "csv"]))
    capsys.readouterr()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for _ in range(3):
            guard.tell(SENTENCE)
    out, err = capsys.readouterr()
    assert (out.replace(f"Logging to {tmp_path}\n", ""), err) == ("", f"{SENTENCE}\n")
    assert (tmp_path / "log.txt").read_text().splitlines()[1:] == [SENTENCE]


@pytest.mark.parametrize("how", ["closed", "none", "silenced", "fails"])
def test_what_cannot_be_told_one_way_is_told_another(
    how: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    bare(monkeypatch)
    logger = configure(None, ["stdout"])
    guard = Guard(run_logger=lambda: logger)
    if how == "silenced":
        monkeypatch.setattr(LOGGER, "disabled", True)
    else:
        stderr = None if how == "none" else io.StringIO()
        if how == "closed":
            stderr.close()
        monkeypatch.setattr(sys, "stderr", stderr)
    if how == "fails":
        monkeypatch.setattr(LOGGER, "handlers", [None])
    guard.tell(SENTENCE)
    assert capsys.readouterr().out.strip() == SENTENCE
    monkeypatch.undo()


def test_nothing_that_fails_in_telling_leaves() -> None:
    class MuteError(Exception):
        def __str__(self) -> str:
            raise RuntimeError("no words")

    guard = Guard(run_logger=failing(AttributeError))
    with guard:
        raise MuteError
    assert guard.reason is not None
    assert guard.reason.startswith("tipl stands aside: MuteError; ")
    long = Guard()
    with long:
        raise ValueError("x" * 10_000)
    assert long.reason is not None
    assert len(long.reason) < 500


def test_a_guard_sets_back_what_was_remembered_the_last_first() -> None:
    guard, seen = Guard(), list[int]()
    with guard:
        guard.remember(lambda: seen.append(1), failing(ValueError), lambda: seen.append(3))
        raise ValueError
    assert seen == [3, 1]
    with guard:
        guard.remember(lambda: seen.append(4))
    assert seen == [3, 1]


def test_generators_are_kept_whatever_happens() -> None:
    drawn = [(random.random(), np.random.rand(), float(torch.rand(()))) for _ in "ab"]  # noqa: NPY002
    state = random.getstate(), repr(np.random.get_state()), torch.get_rng_state().tolist()  # noqa: NPY002

    @generators_kept()
    def fail() -> None:
        random.seed(0)
        np.random.seed(0)  # noqa: NPY002
        torch.manual_seed(0)
        raise ValueError

    with pytest.raises(ValueError, match=r"^$"):
        fail()
    assert state == (random.getstate(), repr(np.random.get_state()), torch.get_rng_state().tolist())  # noqa: NPY002
    assert drawn[0] != drawn[1]


# --- scripts and the optimiser ----------------------------------------------------------------


class Agent(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.critic = nn.Sequential(nn.Linear(2, 4), nn.Tanh(), nn.Linear(4, 1))
        self.actor_mean = nn.Sequential(nn.Linear(2, 4), nn.Tanh(), nn.Linear(4, 1))
        self.actor_logstd = nn.Parameter(torch.zeros(1, 1))


def script(fail: Callable[[], object] | None, **options: Any) -> tuple[Any, ...]:
    """What a script of CleanRL's style has at its end, with or without the hook."""
    envs = gym.vector.SyncVectorEnv([Noisy])
    agent = Agent()
    optimizer = torch.optim.Adam(agent.parameters(), lr=1e-2)
    hook = None
    if fail is not None:
        settings: dict[str, Any] = {"every": 1, "min_history": 2, "budget": 99.0, "margin": 1e9}
        hook = ForecastHook(envs, "relex", eval_env=Noisy(fail), **settings | options)
    random.seed(1)
    np.random.seed(2)  # noqa: NPY002
    obs, step, told = envs.reset()[0], 0, torch.zeros(5, 1)
    for _ in range(4):
        if hook is not None:
            step = hook.before_rollout(agent, optimizer, step)
        seen = []
        for _ in range(5):
            seen.append(torch.as_tensor(obs))
            obs = envs.step(np.zeros((1, 1), np.float32))[0]
        told = agent.critic(torch.stack(seen))[..., 0].detach()
        last = torch.as_tensor(obs), torch.zeros(1)
        if hook is not None:
            hook.after_rollout(torch.stack(seen), torch.ones(5, 1), torch.zeros(5, 1), told, *last)
        optimizer.zero_grad()
        (agent.actor_mean(seen[0]) + agent.critic(seen[0]) + torch.rand(())).sum().backward()
        optimizer.step()
    weights = nn.utils.parameters_to_vector(agent.parameters()).tolist()
    return weights, told.tolist(), repr(optimizer.state_dict()), obs.tolist(), hook


def test_a_script_goes_on_as_without_the_hook(caplog: pytest.LogCaptureFixture) -> None:
    *plain, _ = script(None)
    *gated, hook = script(lambda: None)
    assert hook.jumps.jumper.counters["jump_steps"][0] > 0
    assert caplog.messages == []
    assert gated == plain
    *failed, hook = script(failing(RuntimeError("broke down"), after=3))
    (message,) = caplog.messages
    assert "RuntimeError: broke down" in message
    assert failed == plain
    assert hook.report is None
    with pytest.raises(RuntimeError, match="broke down"):
        script(failing(RuntimeError("broke down"), after=3), strict=True)


class Faceless(Noisy):
    @property
    def observation_space(self) -> Any:  # type: ignore[override]
        raise AttributeError("no eyes")


@pytest.mark.parametrize(
    ("eval_env", "why"),
    [(Faceless, "AttributeError: no eyes"), (lambda: None, "give an eval_env like it")],
)
def test_a_hook_whose_environment_fails_does_nothing(
    eval_env: Any, why: str, caplog: pytest.LogCaptureFixture
) -> None:
    hook = ForecastHook(gym.vector.SyncVectorEnv([Noisy]), eval_env=eval_env())
    (message,) = caplog.messages
    assert message.startswith("tipl stands aside: ")
    assert why in message
    agent = Agent()
    assert hook.before_rollout(agent, torch.optim.SGD(agent.parameters(), 0.1), 7) == 7


@pytest.mark.parametrize("strict", [False, True])
def test_a_step_that_cannot_be_scaled_is_the_optimiser_s_own(
    strict: bool, caplog: pytest.LogCaptureFixture
) -> None:
    def step(agent: Agent, optimizer: torch.optim.Optimizer) -> None:
        for parameter in agent.parameters():
            parameter.grad = torch.ones_like(parameter)
        optimizer.step()

    agents = Agent(), Agent()
    optimizers = [torch.optim.Adam(agent.parameters(), lr=1e-2) for agent in agents]
    ours = agent_of_cleanrl(agents[0], optimizers[0])
    ours.scale_first_steps(np.ones(3), Guard(strict))  # of three observed values, and it has two
    if strict:
        with pytest.raises(RuntimeError, match="size of tensor"):
            step(agents[0], optimizers[0])
        return
    for _ in range(2):
        for agent, optimizer in zip(agents, optimizers, strict=True):
            step(agent, optimizer)
    (message,) = caplog.messages
    assert "RuntimeError: The size of tensor" in message
    assert all(map(torch.equal, agents[0].parameters(), agents[1].parameters()))
