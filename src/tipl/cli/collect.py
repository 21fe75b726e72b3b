"""`tipl collect`."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Any

from tyro.conf import Positional, arg

from tipl.cli.paths import print_summary
from tipl.collection.config import CollectConfig
from tipl.core.engines.config import EngineConfig
from tipl.core.engines.shards import Shard
from tipl.errors import TiplError


def collect(
    env_id: Positional[str],
    /,
    config: Annotated[CollectConfig, arg(name="")],
    machines: Annotated[EngineConfig, arg(name="")],
    shard: str | None = None,
    out: Path | None = None,
    threads: int | None = None,
    evaluation_episodes: int = 0,
    evaluate_every: int = 1,
    from_sb3: bool = False,
) -> dict[str, Any]:
    """Run independent PPO trials and store the path that each policy's weights take.

    Run the same command again after an interruption: it goes on where it was.

    Args:
        env_id: a Gymnasium id, such as InvertedPendulum-v4 or HalfCheetah-v4
        config: what to collect
        machines: where to
        shard: collect a share of the groups of trials, such as 3/16: groups 3, 19, 35, ..., counted
            from 0; in a job of an array (SLURM, Kubernetes, AWS Batch) auto, or auto/16
        out: directory of the dataset, or an address that it is copied to once it is complete
            (default: a telling name under runs/paths)
        threads: groups of trials that run at once (default: one for each processor, and on other
            machines as many as they have room for)
        evaluation_episodes: episodes for which each checkpoint then acts by its mean, as
            `tipl paths evaluate` does; 0 for none
        evaluate_every: the distance of the checkpoints that do
        from_sb3: run the PPO of stable-baselines3 instead, one trial after the other
    """
    from tipl.collection.trial_worlds import read_worlds, with_worlds
    from tipl.core.addresses import is_address
    from tipl.core.system_errors import explained
    from tipl.core.trust import trust_own
    from tipl.paths.parts import check_new

    # no refusal waits for what collects
    _check_machines(machines, shard, evaluation_episodes, from_sb3)
    trust_own(env_id)
    with_worlds(config, read_worlds(config.worlds, env_id))
    if out is not None and (from_sb3 or not is_address(out)):
        with explained("use", out):
            check_new(out)
    from tipl.envs.registry import registered_spec

    registered_spec(env_id)
    if from_sb3:
        from tipl.evaluation.checkpoints import evaluate_paths
        from tipl.integrations.sb3.trials import collect_with_sb3

        directory = collect_with_sb3(env_id, config, out).directory
        if evaluation_episodes:
            evaluate_paths(directory, evaluation_episodes, every=evaluate_every, threads=threads)
        return print_summary(directory)
    from tipl.collection import collect as collection

    if shard is not None:
        directory = collection.collect_shard(env_id, shard, out=out, threads=threads, config=config)
        return print_summary(directory)
    paths = collection.collect(
        env_id,
        out=out,
        threads=threads,
        evaluation_episodes=evaluation_episodes,
        evaluate_every=evaluate_every,
        engine=machines,
        config=config,
    )
    return print_summary(paths.directory)


def _check_machines(
    machines: EngineConfig, shard: str | None, evaluation_episodes: int, from_sb3: bool
) -> None:
    """Raises a TiplError if no engine runs what is asked for."""
    if shard is not None:
        Shard.parse(shard, os.environ)
        others = {
            f"--engine {machines.engine}": machines.elsewhere,
            "--evaluation-episodes": bool(evaluation_episodes),
            "--from-sb3": from_sb3,
        }
        for other in (name for name, given in others.items() if given):
            raise TiplError(
                f"--shard {shard} was given with {other}, which is for whole datasets; leave one "
                "of them out (`tipl paths evaluate` evaluates a dataset once all shards are there)"
            )
    if from_sb3 and machines.elsewhere:
        raise TiplError(
            f"--from-sb3 was given with --engine {machines.engine}, but runs its trials here; "
            "leave one of them out"
        )
    machines.check()
