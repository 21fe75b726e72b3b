"""PPO with policy path trimming and boosting: the weights, trials by themselves, and resuming."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from test_collection import KilledError
from tipl import TiplError
from tipl.collection.collect import collect
from tipl.collection.config import CollectConfig
from tipl.envs import make_vec
from tipl.jumps.config import PPTBConfig
from tipl.jumps.plug_in import PathBooster
from tipl.paths import PathDataset, verify
from tipl.paths.metadata import PathMetadata
from tipl.policies.tasks import get_task
from tipl.ppo.config import PPOConfig
from tipl.ppo.ppo import PPO
from tipl.ppo.rollout import Rollout

Array = np.ndarray[Any, np.dtype[Any]]

PENDULUM = "InvertedPendulum-v4"
STEPS = 32  # between two updates
FAST_PPO = PPOConfig(num_steps=STEPS, num_minibatches=2, update_epochs=2, learning_rate=3e-3)
ITERATIONS = 10
PPTB = PPTBConfig(rank=2, boost=0.5, interval=3, window=5)
OPTIONS: dict[str, Any] = {
    "num_trials": 3,
    "trials_per_group": 2,
    "total_steps": ITERATIONS * STEPS,
    "hidden_sizes": (8, 6),
    "ppo": FAST_PPO,
}


def learning(trials: Sequence[int], pptb: PPTBConfig | None = PPTB) -> PPO:
    ppo = PPO(
        make_vec(PENDULUM, len(trials)), get_task(PENDULUM), trials, ITERATIONS, FAST_PPO, (8, 6)
    )
    if pptb is not None:
        ppo.plug_in = PathBooster(pptb)
        ppo.start()
    return ppo


class Recorder(PathBooster):
    """Knows the weights of before and after each call."""

    def start(self, ppo: PPO) -> None:
        super().start(ppo)
        self.before: list[Array] = []
        self.after = [ppo.params.copy()]

    def after_update(self, ppo: PPO, rollout: Rollout) -> None:
        self.before.append(ppo.params.copy())
        super().after_update(ppo, rollout)
        self.after.append(ppo.params.copy())


def naively_boosted(path: Array, rank: int, boost: float) -> Array:
    """What the paper does to the last row of a path `[T, P]`."""
    u, s, directions = np.linalg.svd(path.astype(np.float64), full_matrices=False)
    row = u[-1].copy()
    row[:2] += boost * (u[-1, :2] - u[0, :2])
    return np.asarray((row * s)[:rank] @ directions[:rank])


def content(directory: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(directory)): path.read_bytes()
        for path in directory.rglob("*")
        if path.is_file()
    }


def run(out: Path, **changes: Any) -> PathDataset:
    return collect(PENDULUM, out=out, threads=1, progress=False, **(OPTIONS | changes))


@pytest.fixture(scope="module")
def boosted(tmp_path_factory: pytest.TempPathFactory) -> PathDataset:
    return run(tmp_path_factory.mktemp("boosted") / "paths", pptb=PPTB)


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> PathDataset:
    return run(tmp_path_factory.mktemp("plain") / "paths")


# --- the weights -----------------------------------------------------------------------------


def test_actors_become_what_the_paper_makes_of_their_recent_paths() -> None:
    ppo = learning([0, 4])
    recorder = Recorder(PPTB)
    ppo.plug_in = recorder
    ppo.start()
    for _ in range(ITERATIONS):
        ppo.update(ppo.rollout())
    P = ppo.actor_layout.size
    for iteration in range(1, ITERATIONS + 1):
        before, after = recorder.before[iteration - 1], recorder.after[iteration]
        np.testing.assert_array_equal(after[:, P:], before[:, P:])  # the critic
        if iteration % 3:
            np.testing.assert_array_equal(after, before)
            continue
        # the weights that acted, of which there are 4 at the first time, and those made last
        acted = recorder.after[max(0, iteration - 4) : iteration]
        for n in range(2):
            path = np.stack([weights[n, :P] for weights in [*acted, before]])
            expected = naively_boosted(path, 2, 0.5)
            np.testing.assert_allclose(after[n, :P], expected, rtol=1e-4, atol=1e-5)
        assert np.abs(after - before)[:, :P].max() > 1e-3


def test_the_whole_path_without_a_boost_changes_nothing() -> None:
    ppo = learning([0], PPTBConfig(rank=5, boost=0.0, interval=1, window=5))
    untouched = learning([0], None)
    for some in (ppo, untouched):
        some.update(some.rollout())
    np.testing.assert_allclose(ppo.params, untouched.params, atol=1e-6)


def test_adams_moments_and_the_steps_stay() -> None:
    ppo, untouched = learning([0, 1], dataclasses.replace(PPTB, interval=1)), learning([0, 1], None)
    for some in (ppo, untouched):
        some.update(some.rollout())
    for name, array in untouched.adam.state().items():
        np.testing.assert_array_equal(ppo.adam.state()[name], array)
    assert not np.array_equal(ppo.params, untouched.params)


def test_a_trial_alone_is_what_it_is_among_others() -> None:
    together, alone = learning([0, 4, 7]), learning([4])
    for some in (together, alone):
        for _ in range(7):
            some.update(some.rollout())
    np.testing.assert_array_equal(together.params[1], alone.params[0])


def test_weights_that_would_not_be_finite_are_kept() -> None:
    ppo = learning([0, 1], PPTBConfig(rank=2, boost=1e300, interval=1))
    untouched = learning([0, 1], None)
    for some in (ppo, untouched):
        some.update(some.rollout())
    np.testing.assert_array_equal(ppo.params, untouched.params)
    assert not ppo.diverged.any()


def test_a_diverged_trial_stays_where_it_is() -> None:
    ppo = learning([0, 1], dataclasses.replace(PPTB, interval=1))
    for iteration in range(4):
        rollout = ppo.rollout()
        if iteration == 2:
            rollout.rewards[:, 1] = np.nan
            held = ppo.params[1].copy()
        ppo.update(rollout)
    assert ppo.diverged.tolist() == [False, True]
    np.testing.assert_array_equal(ppo.params[1], held)


def test_a_plug_in_that_breaks_weights_makes_a_trial_diverge() -> None:
    class Breaking(PathBooster):
        def after_update(self, ppo: PPO, rollout: Rollout) -> None:
            ppo.params[1] = np.nan

    ppo = learning([0, 1])
    ppo.plug_in = Breaking(PPTB)
    ppo.start()
    ppo.update(ppo.rollout())
    assert ppo.diverged.tolist() == [False, True]
    assert np.isfinite(ppo.params).all()


# --- collections -----------------------------------------------------------------------------


def test_a_trial_is_paired_with_the_plain_one(plain: PathDataset, boosted: PathDataset) -> None:
    np.testing.assert_array_equal(boosted.params()[:, :3], plain.params()[:, :3])
    assert (boosted.params()[:, 3] != plain.params()[:, 3]).any(axis=1).all()
    np.testing.assert_array_equal(boosted.episodic_return()[:, :3], plain.episodic_return()[:, :3])
    assert verify(boosted.directory) == []


def test_what_is_stored_are_the_weights_that_act(boosted: PathDataset) -> None:
    ppo = learning([0, 1])
    for iteration in range(ITERATIONS + 1):
        actors = ppo.params[:, : ppo.actor_layout.size]
        np.testing.assert_array_equal(boosted.params()[:2, iteration], actors)
        ppo.update(ppo.rollout())


def test_without_a_rank_nothing_differs(plain: PathDataset, tmp_path: Path) -> None:
    run(tmp_path / "paths", pptb=PPTBConfig())
    assert content(tmp_path / "paths") == content(plain.directory)
    assert "pptb" not in plain.metadata.to_json()
    ppo = learning([0], None)
    assert not [name for name in ppo.state() if "plug_in" in name]


def test_the_metadata_tell_of_it(plain: PathDataset, boosted: PathDataset) -> None:
    assert boosted.metadata.pptb == {"rank": 2, "boost": 0.5, "interval": 3, "window": 5}
    assert PathMetadata.from_json(boosted.metadata.to_json()) == boosted.metadata
    assert boosted.metadata.digest != plain.metadata.digest
    assert plain.metadata.pptb == {}
    with pytest.raises(TiplError, match="already holds another dataset: its pptb"):
        run(plain.directory, pptb=PPTB)


@pytest.mark.parametrize("iteration", [2, 4, 9])
def test_a_stopped_collection_ends_in_the_same_bytes(
    boosted: PathDataset, iteration: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = PPO.update

    def failing(self: PPO, rollout: Any) -> None:
        if self.iteration == iteration:
            raise KilledError
        original(self, rollout)

    with monkeypatch.context() as patch:
        patch.setattr(PPO, "update", failing)
        with pytest.raises(KilledError):
            run(tmp_path / "paths", pptb=PPTB)
    iterations: list[int] = []

    def counting(self: PPO, rollout: Any) -> None:
        iterations.append(self.iteration)
        original(self, rollout)

    monkeypatch.setattr(PPO, "update", counting)
    run(tmp_path / "paths", pptb=PPTB)
    assert iterations[0] == iteration  # it went on, and did not start over
    assert content(tmp_path / "paths") == content(boosted.directory)


# --- settings --------------------------------------------------------------------------------


def test_a_state_that_remembers_more_than_is_read_is_gone_on_from() -> None:
    """An earlier tipl stored the whole window, read or not."""
    config = PPTBConfig(rank=2, boost=0.5, interval=4, window=2)
    booster = Recorder(config)
    ppo = learning([0, 1], None)
    ppo.plug_in = booster
    ppo.start()
    for _ in range(5):
        ppo.update(ppo.rollout())
    state = ppo.state()
    actors = [after[:, : ppo.actor_layout.size] for after in booster.after[-2:]]
    old = {name: array for name, array in state.items() if not name.endswith("recent")}
    old |= {"plug_in.recent": np.stack(actors, axis=1)}
    resumed = learning([0, 1], None)
    resumed.plug_in = PathBooster(config)
    resumed.set_state(old)
    for one in (ppo, resumed):
        for _ in range(3):
            one.update(one.rollout())
    np.testing.assert_array_equal(resumed.params, ppo.params)


@pytest.mark.parametrize(("interval", "window"), [(3, 5), (4, 2), (3, 64)])
def test_only_what_the_next_replacement_reads_is_remembered(interval: int, window: int) -> None:
    booster = Recorder(PPTBConfig(rank=2, boost=0.5, interval=interval, window=window))
    ppo = learning([0, 1], None)
    ppo.plug_in = booster
    ppo.start()
    for iteration in range(ITERATIONS + 1):
        if iteration:
            ppo.update(ppo.rollout())
        following = (iteration // interval + 1) * interval
        read = range(max(0, following - window + 1), iteration + 1)
        if following > ITERATIONS:
            read = range(0)
        state = booster.state()
        assert ("recent" in state) == bool(read)
        if read:
            actors = [booster.after[i][:, : ppo.actor_layout.size] for i in read]
            np.testing.assert_array_equal(state["recent"], np.stack(actors, axis=1))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"rank": 0}, "a rank of 0"),
        ({"rank": 2, "boost": -0.1}, r"a boost of -0\.1"),
        ({"rank": 2, "boost": float("nan")}, "a boost of nan"),
        ({"rank": 2, "boost": float("inf")}, "a boost of inf"),
        ({"rank": 2, "interval": 0}, "interval of PPTB is 0; expected at least 1"),
        ({"rank": 2, "window": 1}, "window of PPTB is 1; expected at least 2"),
        ({"boost": 0.5}, "given boost but no rank.*give a rank"),
    ],
)
def test_impossible_settings_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(TiplError, match=message):
        PathBooster(PPTBConfig(**settings))
    with pytest.raises(TiplError, match=message):
        CollectConfig(pptb=PPTBConfig(**settings))


def test_a_booster_needs_a_rank() -> None:
    with pytest.raises(TiplError, match="no rank"):
        PathBooster(PPTBConfig())
    assert CollectConfig().pptb.rank is None
