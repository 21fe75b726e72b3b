"""Trials that learn in worlds: which one each has, what the dataset says, and going on."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import tipl
from tipl import PathDataset, Worlds
from tipl.cli import main
from tipl.collection.config import CollectConfig
from tipl.collection.groups import TrialGroup
from tipl.errors import TiplError
from tipl.integrations.sb3.trials import collect_with_sb3
from tipl.paths import read_metadata
from tipl.paths.metadata import PathMetadata
from tipl.ppo.config import PPOConfig

PENDULUM = "InvertedPendulum-v4"
PPO = PPOConfig(num_steps=16, num_minibatches=2, update_epochs=1)
TINY: dict[str, Any] = {"total_steps": 32, "hidden_sizes": (3,), "ppo": PPO}

WORLDS = Worlds.from_factors(
    PENDULUM,
    {
        "training": [
            {"gravity": 0.5, "actuator_gear": 1.0},
            {"gravity": 2.0, "actuator_gear": -1.0},
            {"gravity": 1.5, "actuator_gear": 0.5},
        ],
        "interpolation": [{"gravity": 3.0}],
    },
)


def collect(out: Path, **options: Any) -> PathDataset:
    quiet: dict[str, Any] = {"threads": 1, "progress": False}
    return tipl.collect(PENDULUM, out=out, **(quiet | TINY | options))


def test_one_trial_learns_in_each_world(tmp_path: Path) -> None:
    paths = collect(tmp_path / "paths", worlds=WORLDS)
    assert paths.num_trials == 3
    assert paths.worlds == ("training-000", "training-001", "training-002")
    for name, factors in WORLDS.split("training").items():
        np.testing.assert_array_equal(paths.physics()[name], factors)
    said = paths.metadata.worlds
    assert said is not None
    assert (said.digest, said.split, said.trials_per_world) == (WORLDS.digest, "training", 1)
    assert paths.metadata.vary == {"actuator_gear": [-1.0, 1.0], "gravity": [0.5, 2.0]}
    assert dict(paths.policy(1, -1).task.physics) == WORLDS["training-001"]
    assert PathMetadata.from_json(paths.metadata.to_json()) == paths.metadata


def test_a_trial_learns_as_it_does_in_its_world_alone(tmp_path: Path) -> None:
    """Which it would not, if the environments were not of its world."""
    paths = collect(tmp_path / "worlds", worlds=WORLDS, split="interpolation")
    varied = collect(tmp_path / "vary", num_trials=1, vary=("actuator_gear=1..1", "gravity=3..3"))
    plain = collect(tmp_path / "plain", num_trials=1)
    np.testing.assert_array_equal(paths.params(), varied.params())
    assert (paths.params() != plain.params()).any()


def test_several_trials_learn_in_a_world(tmp_path: Path) -> None:
    paths = collect(tmp_path / "paths", worlds=WORLDS, trials_per_world=2, num_trials=4)
    names = ("training-000", "training-000", "training-001", "training-001")
    assert paths.worlds == names
    assert paths.select([3, 0]).worlds == (names[3], names[0])
    assert paths.physics()["gravity"].tolist() == [0.5, 0.5, 2.0, 2.0]
    params = paths.params()
    assert (params[0] != params[1]).any()  # other networks


def test_fewer_trials_take_the_first_worlds(tmp_path: Path) -> None:
    all_, first = (
        collect(tmp_path / name, worlds=WORLDS, **options)
        for name, options in {"all": {}, "first": {"num_trials": 2}}.items()
    )
    assert first.worlds == all_.worlds[:2]
    np.testing.assert_array_equal(first.params(), all_.params()[:2])


def test_threads_groups_and_kills_change_no_byte(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, threads in {"one": 1, "two": 2}.items():
        collect(tmp_path / name, worlds=WORLDS, threads=threads, trials_per_group=2)
    original, saves = TrialGroup._save, []

    def save(self: TrialGroup, *args: Any) -> None:
        original(self, *args)
        saves.append(self.trials)
        if len(saves) == 1:
            raise KeyboardInterrupt

    monkeypatch.setattr(TrialGroup, "_save", save)
    WORLDS.save(tmp_path / "worlds.json")
    for _ in range(2):
        try:
            collect(tmp_path / "killed", worlds=tmp_path / "worlds.json", trials_per_group=2)
        except TiplError as error:
            assert "interrupted" in str(error)  # noqa: PT017
    files = sorted(path.relative_to(tmp_path / "one") for path in (tmp_path / "one").rglob("*.*"))
    assert len(saves) > 2
    for other in ("two", "killed"):
        assert [(tmp_path / other / file).read_bytes() for file in files] == [
            (tmp_path / "one" / file).read_bytes() for file in files
        ]


@pytest.mark.parametrize(
    ("others", "message"),
    [
        ({"worlds": WORLDS, "num_trials": 2}, "its num_trials is 3, but 2 was given"),
        ({"worlds": WORLDS, "split": "interpolation"}, "already holds another dataset"),
        ({"num_trials": 3}, "already holds another dataset"),
        ({"num_trials": 3, "vary": ("gravity=1..2",)}, "already holds another dataset"),
    ],
)
def test_no_collection_goes_on_with_other_worlds(
    others: dict[str, Any], message: str, tmp_path: Path
) -> None:
    collect(tmp_path / "paths", worlds=WORLDS)
    with pytest.raises(TiplError, match=message):
        collect(tmp_path / "paths", **others)


def test_no_collection_goes_on_with_another_file(tmp_path: Path) -> None:
    """Not even where the ranges, the number and the names of the worlds are the same."""
    collect(tmp_path / "paths", worlds=WORLDS)
    first, second, third = (dict(one.factors) for one in WORLDS.worlds("training"))
    other = Worlds.from_factors(PENDULUM, {"training": [first, second, third | {"gravity": 1.6}]})
    with pytest.raises(TiplError, match=r"its worlds\.digest is .*, but .* was given"):
        collect(tmp_path / "paths", worlds=other)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"worlds": WORLDS, "vary": ("gravity=1..2",)}, "both worlds and the ranges gravity=1..2"),
        ({"worlds": WORLDS, "num_trials": 4}, "num_trials is 4, with 1 in each of 3 worlds"),
        ({"worlds": WORLDS, "num_trials": 3, "trials_per_world": 2}, "a multiple of 2 up to 6"),
        ({"worlds": WORLDS, "trials_per_world": 0}, "trials_per_world is 0; expected at least 1"),
        ({"worlds": WORLDS, "split": "trainin"}, "no split 'trainin' .* did you mean training"),
        ({"split": "interpolation"}, "were given without worlds"),
        ({"trials_per_world": 2}, "were given without worlds"),
        ({"worlds": "none.json"}, "there is no none.json"),
        (
            {"worlds": Worlds.from_factors("Hopper-v4", {"training": [{"gravity": 2.0}]})},
            "worlds of 'Hopper-v4' were given for trials in 'InvertedPendulum-v4'",
        ),
        (
            {"worlds": Worlds.from_factors(PENDULUM, {"training": [{"mass:cat": 2.0}]})},
            "no object 'cat' for the physics",
        ),
    ],
)
def test_what_does_not_go_together_is_refused_before_a_file_is_written(
    options: dict[str, Any], message: str, tmp_path: Path
) -> None:
    with pytest.raises(TiplError, match=message):
        collect(tmp_path / "paths", **options)
    assert not (tmp_path / "paths").exists()


def test_others_run_no_worlds(tmp_path: Path) -> None:
    WORLDS.save(tmp_path / "worlds.json")
    config = CollectConfig(worlds=str(tmp_path / "worlds.json"), **TINY)
    with pytest.raises(TiplError, match="worlds was given together with stable-baselines3"):
        collect_with_sb3(PENDULUM, config, tmp_path / "paths")


def test_metadata_without_worlds_are_as_they_were(tmp_path: Path) -> None:
    collect(tmp_path / "paths", num_trials=1, vary=("gravity=1..2",))
    assert "worlds" not in read_metadata(tmp_path / "paths").to_json()


def test_metadata_say_possible_worlds(tmp_path: Path) -> None:
    metadata = collect(tmp_path / "paths", worlds=WORLDS).metadata
    with pytest.raises(TiplError, match="3 worlds with 1 trials each"):
        dataclasses.replace(metadata, num_trials=4)
    with pytest.raises(TiplError, match=r"gravity varies from -1\.0"):
        dataclasses.replace(metadata, vary={"gravity": [-1.0, 1.0]})
    with pytest.raises(TiplError, match=r"actuator_gear varies from -1\.0"):
        dataclasses.replace(metadata, worlds=None)


def test_the_command_line_takes_worlds(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    WORLDS.save(tmp_path / "worlds.json")
    main(
        f"collect {PENDULUM} --worlds {tmp_path / 'worlds.json'} --trials-per-world 2 --num-trials "
        f"4 --total-steps 32 --hidden-sizes 3 --ppo.num-steps 16 --ppo.num-minibatches 2 "
        f"--ppo.update-epochs 1 --threads 1 --out {tmp_path / 'paths'}".split()
    )
    assert PathDataset.open(tmp_path / "paths").worlds[-1] == "training-001"
    said = " ".join(capsys.readouterr().out.split())
    assert f"the first 2 of training of {WORLDS.digest[:12]}, 2 trials in each" in said
