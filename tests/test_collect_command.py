"""`tipl paths verify` prints the command that makes what is missing of a dataset."""

from __future__ import annotations

import dataclasses
import shlex
from pathlib import Path
from typing import Any

import pytest
import tyro

from test_engines import OPTIONS, TASK, shard
from tipl.cli import main
from tipl.collection.collect import dataset_metadata
from tipl.collection.command import collect_command
from tipl.collection.config import CollectConfig
from tipl.jumps.config import JumpConfig, PPTBConfig
from tipl.ppo.config import PPOConfig

CONFIGS: dict[str, dict[str, Any]] = {
    "as usual": {},
    "few": OPTIONS,
    "everything": {
        "num_trials": 9,
        "total_steps": 4 * 2 * 256,
        "seed": 7,
        "hidden_sizes": (8,),
        "initial": "shared",
        "normaliser": "running",
        "networks": "actor+critic",
        "checkpoint_interval": 2,
        "trials_per_group": 4,
        "redraw": "episode",
        "vary": ("gravity=0.7..1.4", "mass:pole=0.5..2.0"),
        "observe": "physics",
        "ppo": PPOConfig(num_steps=256, num_envs=2, anneal_lr=False, learning_rate=1e-3),
    },
    "boosted": {"pptb": PPTBConfig(rank=4, interval=3)},
    "with jumps": {"jumps": JumpConfig(forecaster="line", horizons=(2, 4))},
}


@pytest.mark.parametrize("name", CONFIGS)
def test_the_command_makes_the_same_dataset(name: str) -> None:
    task = "InvertedPendulum-v4"
    config = CollectConfig(**CONFIGS[name])
    metadata = dataset_metadata(task, config)
    words = shlex.split(collect_command(metadata, Path("a b")) or "")
    assert words[:3] == ["tipl", "collect", task]
    assert words[-2:] == ["--out", "a b"]
    again = tyro.cli(CollectConfig, args=words[3:-2])
    assert dataset_metadata(task, again).to_json() == metadata.to_json()
    assert again == dataclasses.replace(
        config, trials_per_group=config.group_size,
        hidden_sizes=None if config.hidden == (64, 64) else config.hidden,
        num_trials=None if config.trials == 128 else config.trials,
        vary=tuple(sorted(config.vary)),
        total_steps=config.num_iterations * config.ppo.rollout_steps,
    )  # fmt: skip


def test_verify_says_which_jobs_are_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    shard(Path("paths"), "0/2")
    with pytest.raises(SystemExit):
        main(["paths", "verify", "paths"])
    said = "".join(capsys.readouterr())
    command = next(line for line in said.splitlines() if ": tipl collect" in line)
    assert "--array=1,3, in each of them the same with --shard auto/5" in said
    words = shlex.split(command.partition(": tipl ")[2])
    assert words[:2] == ["collect", TASK]
    main([*words, "--threads", "1"])
    main(["paths", "verify", "paths"])
