"""Collecting policy learning paths: many PPO trials, in groups, into a dataset on disk."""

from __future__ import annotations

import contextlib
import dataclasses
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Unpack

from tipl.collection.config import CollectConfig, CollectOptions
from tipl.collection.limits import check_machine
from tipl.collection.start import read_start, start_for, with_start
from tipl.collection.trial_worlds import (
    as_stored,
    observed_spread,
    physics_ranges,
    read_worlds,
    trial_worlds,
    with_worlds,
)
from tipl.core.addresses import is_address, located
from tipl.core.engines.config import EngineConfig
from tipl.core.engines.shards import Shard
from tipl.core.engines.threads import Threads
from tipl.core.engines.work import Engine, Outcome, run_pieces
from tipl.core.options import at_least, config_from_options, thread_count
from tipl.core.stores import working_copy
from tipl.core.terminal import warn
from tipl.envs import make_task
from tipl.envs.effects import physics_with_effect
from tipl.envs.factory import check_physics
from tipl.envs.worlds import Worlds
from tipl.errors import TiplError
from tipl.evaluation.checkpoints import evaluate_paths
from tipl.jumps.forecasters import check_fits, jump_forecaster
from tipl.paths import PathDataset
from tipl.paths.copying import copy_paths
from tipl.paths.metadata import (
    CHECKPOINTS_PER_PART,
    PathMetadata,
    library_versions,
    networks_layout,
)
from tipl.paths.parts import create_dataset, parts_present
from tipl.policies.policy import Policy

if TYPE_CHECKING:
    from tipl.collection.trial_groups import TrialGroups

SHARED = ("networks", "initial", "normaliser", "checkpoint_interval", "seed", "redraw")
"""What a dataset says of itself as its collection was told."""


def collect(
    env_id: str,
    *,
    out: str | Path | None = None,
    threads: int | None = None,
    progress: bool = True,
    evaluation_episodes: int = 0,
    evaluate_every: int = 1,
    engine: EngineConfig | None = None,
    config: CollectConfig | None = None,
    **options: Unpack[CollectOptions],
) -> PathDataset:
    """Runs independent PPO trials and stores the path of each policy's weights.

    What is already in the directory is kept: a complete dataset of the same configuration is
    opened, an interrupted one goes on where it was and ends in the same bytes as an undisturbed
    one.

    Args:
        env_id: a Gymnasium id, such as `"InvertedPendulum-v4"`.
        out: the dataset's directory; by default a name under `runs/paths/` that tells the task,
            trials, steps and seed. For an address, such as `"s3://bucket/paths"`, the trials are
            collected in a folder of the cache (`TIPL_CACHE`), and copied once they are complete.
        threads: groups of trials that run at once; by default one for each processor, and on
            other machines as many as they have room for.
        progress: show a progress bar.
        evaluation_episodes: episodes for which each checkpoint then acts by its mean
            (`tipl.evaluation.checkpoints.evaluate_paths`); none by default.
        evaluate_every: the distance of the checkpoints that do; 1 is all of them.
        engine: where groups of trials run: in threads here, by default, or on other machines that
            share the directory.
        config: what to collect, as an alternative to `options`.
        **options: fields of `CollectConfig`, such as `num_trials=128` or `total_steps=61_440`. The
            `start` may be a `Policy`, too, and `worlds` may be `Worlds`.

    Raises:
        TiplError: the environment is unknown or unsupported, an option is impossible, the start is
            no policy that trials can go on with, the worlds are of another task, or the directory
            holds something else. Nothing has been written then.

    Examples:
        >>> little = tipl.PPOConfig(num_steps=64, num_minibatches=2, update_epochs=1)
        >>> options = tipl.CollectConfig(num_trials=2, total_steps=128, ppo=little)
        >>> paths = tipl.collect("InvertedPendulum-v4", config=options, out="runs/collected")
        >>> paths.params().shape
        (2, 3, 4546)
    """
    if out is not None and is_address(place := located(Path(out))):
        if engine is not None and engine.elsewhere:
            raise TiplError(
                f"the address {place} was given with engine={engine.engine}, whose machines share "
                f"a directory: give one, then run `tipl paths copy DIRECTORY {place}`"
            )
        made = collect(
            env_id, out=working_copy(place), threads=threads, progress=progress,
            evaluation_episodes=evaluation_episodes, evaluate_every=evaluate_every,
            config=config, **options,
        )  # fmt: skip
        copy_paths(made.directory, place, progress)
        return PathDataset.open(place)
    at_least(0, evaluation_episodes=evaluation_episodes)
    at_least(1, evaluate_every=evaluate_every)
    engine = engine or EngineConfig()
    engine.check()
    work = _begin(env_id, out, threads, engine, config, options)
    outcomes = _run(work, range(len(work)), engine.make(threads), progress)
    paths = _open_when_complete(work, outcomes)
    if evaluation_episodes == 0:
        return paths
    return evaluate_paths(
        work.directory, evaluation_episodes, every=evaluate_every, threads=threads,
        progress=progress,
    )  # fmt: skip


def collect_shard(
    env_id: str,
    shard: str,
    *,
    out: str | Path | None = None,
    threads: int | None = None,
    progress: bool = True,
    config: CollectConfig | None = None,
    **options: Unpack[CollectOptions],
) -> Path:
    """Runs a share of the groups of trials of `collect`, for one of several processes.

    They may run on machines that share the directory, in any order and again; the last one leaves
    a complete dataset.

    Args:
        env_id: a Gymnasium id, and so on: see `collect`.
        shard: `"3/16"`, counted from 0, is groups 3, 19, 35, ...; in a job of an array (SLURM,
            Kubernetes, AWS Batch) `"auto"` or `"auto/16"`.
        out: the dataset's directory; for an address, see `collect`: the shards need no directory
            that they share, and the last one that is copied makes the dataset one to be opened.
        threads: groups that run at once.
        progress: show a progress bar.
        config: what to collect, as an alternative to `options`.
        **options: fields of `CollectConfig`.

    Returns:
        The dataset's directory.

    Raises:
        TiplError: as `collect` does, or the shard is none.
    """
    if out is not None and is_address(place := located(Path(out))):
        made = collect_shard(
            env_id, shard, out=working_copy(place), threads=threads, progress=progress,
            config=config, **options,
        )  # fmt: skip
        copy_paths(made, place, progress)
        return made
    mine = Shard.parse(shard, os.environ)
    work = _begin(env_id, out, threads, EngineConfig(), config, options)
    outcomes = _run(work, mine.of(len(work)), Threads(thread_count(threads)), progress)
    _others_at(work, outcomes)
    return work.directory


def _begin(
    env_id: str,
    out: str | Path | None,
    threads: int | None,
    engine: EngineConfig,
    config: CollectConfig | None,
    options: CollectOptions,
) -> TrialGroups:
    """What there is to collect, in a directory that says so."""
    available = thread_count(threads)
    given, given_worlds = options.get("start"), options.get("worlds")
    if given is not None:  # a configuration is text
        options["start"] = str(given)
    if given_worlds is not None:
        options["worlds"] = str(given_worlds)
    config = config_from_options(CollectConfig, config, options, "collect")
    start = None if config.start is None else read_start(given or config.start)
    worlds = read_worlds(given_worlds or config.worlds, env_id)
    config = with_worlds(with_start(config, start), worlds)
    metadata = dataset_metadata(env_id, config, start, worlds)
    directory = Path(out) if out is not None else default_directory(env_id, config)
    check_machine(directory, config, metadata, 0 if engine.elsewhere else available)
    create_dataset(directory, metadata)
    parts_present(directory, metadata)  # raises if one of them is damaged
    from tipl.collection.trial_groups import TrialGroups  # late: it brings the compiler

    actor = None if start is None else start_for(start, metadata.task, config).params
    return TrialGroups(directory, config, metadata, actor, trial_worlds(config, worlds))


def _run(
    work: TrialGroups, groups: Sequence[int], engine: Engine, progress: bool
) -> Mapping[int, Outcome]:
    """Runs groups that are not finished, in whatever order."""
    outcomes = run_pieces(engine, work, groups, progress)
    with contextlib.suppress(OSError):  # not there, or there is more to do
        (work.directory / "resume").rmdir()
    return outcomes


def default_directory(env_id: str, config: CollectConfig) -> Path:
    """Where `collect` puts a dataset that was given no directory."""
    name = f"{env_id}-{config.trials}x{config.total_steps}-seed{config.seed}"
    return Path("runs") / "paths" / name.replace("/", "-")


def _open_when_complete(work: TrialGroups, outcomes: Mapping[int, Outcome]) -> PathDataset:
    """Opens the dataset, or says who is making the rest of it."""
    _others_at(work, outcomes)
    return PathDataset.open(work.directory)


def _others_at(work: TrialGroups, outcomes: Mapping[int, Outcome]) -> None:
    """Raises a TiplError if other processes are collecting some of the groups."""
    held = [
        f"{outcome.holder} is collecting {work.name(group)}"
        for group, outcome in sorted(outcomes.items())
        if outcome.holder and not work.is_done(group)
    ]
    if held:
        raise TiplError(
            f"{work.directory} is not complete yet: {'; '.join(held)}. All other trials are there; "
            "wait for the rest, or run the same command again to take over what its process leaves"
        )


def _worth_observing(
    env_id: str, ranges: Mapping[str, Sequence[float]], spread: Mapping[str, float]
) -> dict[str, float]:
    """The physics on which something depends: of any other, policies would learn noise.

    Raises:
        TiplError: there are none.
    """
    names = physics_with_effect(env_id, ranges)
    idle = [name for name in spread if name not in names]
    if not names:
        raise TiplError(
            f"policies are to observe {', '.join(idle)}, but nothing in {env_id} depends on that; "
            "vary other physics, or leave out observe"
        )
    if idle:
        warn(f"nothing in {env_id} depends on {', '.join(idle)}, which policies do not observe")
    return {name: spread[name] for name in names}


def dataset_metadata(
    env_id: str,
    config: CollectConfig,
    start: Policy | None = None,
    worlds: Worlds | None = None,
) -> PathMetadata:
    """What the dataset of a collection says of itself; nothing is written.

    A task that does not ship with tipl is measured. The start is the policy, and the worlds are
    those, that the configuration names.

    Raises:
        TiplError: the environment is unknown or unsupported, its physics cannot vary as asked, or
            the start or the forecaster of jumps does not fit the trials.
    """
    task, chosen = make_task(env_id), trial_worlds(config, worlds)
    ranges = physics_ranges(config, chosen)
    check_physics(env_id, ranges)
    if config.observe == "physics":
        task = task.observing(_worth_observing(env_id, ranges, observed_spread(config, chosen)))
    if start is not None:
        start_for(start, task, config)
    jumps: dict[str, Any] = {}
    if config.jumps.forecaster is not None:
        forecaster = jump_forecaster(config.jumps.forecaster, config.jumps.target)
        lowest = {name: low for name, (low, _) in ranges.items()}
        check_fits(forecaster, Policy.initial(task.with_physics(lowest), hidden=config.hidden))
        jumps = dataclasses.asdict(config.jumps) | {"horizons": list(config.jumps.horizons)}
    return PathMetadata(
        task=task,
        layout=networks_layout(task, config.hidden, config.networks),
        hidden_sizes=config.hidden,
        **{name: getattr(config, name) for name in SHARED},
        num_trials=config.trials,
        num_checkpoints=config.num_iterations // config.checkpoint_interval + 1,
        trials_per_part=config.group_size,
        checkpoints_per_part=CHECKPOINTS_PER_PART,
        steps_per_checkpoint=config.checkpoint_interval * config.ppo.rollout_steps,
        vary=dict(ranges),
        worlds=as_stored(config, worlds),
        ppo=config.ppo.settings(),
        pptb={} if config.pptb.rank is None else dataclasses.asdict(config.pptb),
        jumps=jumps,
        start="" if start is None else start.digest,
        versions=library_versions(),
    )
