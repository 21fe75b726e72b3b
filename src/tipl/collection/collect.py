"""Collecting policy learning paths: many PPO trials, in groups, into a dataset on disk."""

from __future__ import annotations

import contextlib
import dataclasses
import signal
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path
from typing import TYPE_CHECKING, Any, Unpack

from threadpoolctl import threadpool_limits

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
from tipl.core.options import at_least, config_from_options, thread_count
from tipl.core.processes import interruptible
from tipl.core.progress import CollectionProgress
from tipl.envs import make_task
from tipl.envs.factory import check_physics
from tipl.envs.worlds import Worlds
from tipl.errors import TiplError
from tipl.evaluation.checkpoints import evaluate_paths
from tipl.jumps.forecasters import check_fits, jump_forecaster
from tipl.paths import PathDataset
from tipl.paths.metadata import (
    CHECKPOINTS_PER_PART,
    PathMetadata,
    library_versions,
    networks_layout,
)
from tipl.paths.parts import create_dataset, parts_present
from tipl.policies.policy import Policy

if TYPE_CHECKING:
    from tipl.collection.groups import TrialGroup

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
            trials, steps and seed.
        threads: groups of trials that run at once; by default one for each processor.
        progress: show a progress bar.
        evaluation_episodes: episodes for which each checkpoint then acts by its mean
            (`tipl.evaluation.checkpoints.evaluate_paths`); none by default.
        evaluate_every: the distance of the checkpoints that do; 1 is all of them.
        config: what to collect, as an alternative to `options`.
        **options: fields of `CollectConfig`, such as `num_trials=128` or `total_steps=61_440`. The
            `start` may be a `Policy`, too, and `worlds` may be `Worlds`.

    Raises:
        TiplError: the environment is unknown or unsupported, an option is impossible, the start is
            no policy that trials can go on with, the worlds are of another task, or the directory
            holds something else. Nothing has been written then.
    """
    available = thread_count(threads)
    at_least(0, evaluation_episodes=evaluation_episodes)
    at_least(1, evaluate_every=evaluate_every)
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
    check_machine(directory, config, metadata, available)
    create_dataset(directory, metadata)
    parts_present(directory, metadata)  # raises if one of them is damaged
    from tipl.collection.groups import unfinished_groups  # late: it brings the compiler

    actor = None if start is None else start_for(start, metadata.task, config).params
    chosen = trial_worlds(config, worlds)
    groups = unfinished_groups(directory, config, metadata, actor, chosen)
    if groups:
        steps = config.ppo.rollout_steps * config.trials * (config.num_iterations + 1)
        with CollectionProgress(config.trials, steps, progress) as bar:
            left = sum(len(group.trials) for group in groups) / config.trials
            bar.advance(round(steps * (1 - left)), fresh=False)
            for group in groups:
                group.report = bar.advance
            _run_groups(groups, min(available, len(groups)), directory)
    paths = _open_when_complete(directory, groups)
    if evaluation_episodes == 0:
        return paths
    return evaluate_paths(
        directory, evaluation_episodes, every=evaluate_every, threads=threads, progress=progress
    )


def default_directory(env_id: str, config: CollectConfig) -> Path:
    """Where `collect` puts a dataset that was given no directory."""
    name = f"{env_id}-{config.trials}x{config.total_steps}-seed{config.seed}"
    return Path("runs") / "paths" / name.replace("/", "-")


def _run_groups(groups: list[TrialGroup], threads: int, directory: Path) -> None:
    """Runs groups in threads; an interruption or an error stops all of them soon."""
    # Each thread computes alone: BLAS threads of one group would fight with the other group's.
    with (
        interruptible(signal.SIGTERM),
        threadpool_limits(1, "blas"),
        ThreadPoolExecutor(threads) as pool,
    ):
        futures = [pool.submit(group.run) for group in groups]
        try:
            for future in as_completed(futures):
                future.result()  # raises what ended the group
        except BaseException as error:
            for group in groups:
                group.stop.set()
            pool.shutdown(cancel_futures=True)
            if isinstance(error, KeyboardInterrupt):
                raise TiplError(
                    f"interrupted; finished checkpoints are safe in {directory}: run the same "
                    "command again to go on"
                ) from error
            raise


def _open_when_complete(directory: Path, groups: list[TrialGroup]) -> PathDataset:
    """Opens the dataset, or says who is making the rest of it."""
    held = [group for group in groups if group.holder and not group.is_complete()]
    if held:
        others = "; ".join(
            f"{group.holder} is collecting trials {group.trials[0]} to {group.trials[-1]}"
            for group in held
        )
        raise TiplError(
            f"{directory} is not complete yet: {others}. All other trials are there; wait for "
            "the rest, or run the same command again to take over what its process leaves"
        )
    with contextlib.suppress(OSError):  # not there, or in use by somebody who is about to leave
        (directory / "resume").rmdir()
    return PathDataset.open(directory)


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
    task = make_task(env_id)
    if config.observe == "physics":
        task = task.observing(observed_spread(config, trial_worlds(config, worlds)))
    if start is not None:
        start_for(start, task, config)
    ranges = physics_ranges(config, trial_worlds(config, worlds))
    check_physics(env_id, ranges)
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
