"""`tipl adapt`."""

from __future__ import annotations

from contextlib import ExitStack, closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tyro.conf import Positional

from tipl.cli.proposals import made_data, policy_or_task, print_tried
from tipl.cli.shared import Factors
from tipl.core.options import at_least
from tipl.core.ownership import check_directory
from tipl.core.terminal import note, say
from tipl.errors import TiplError, shown
from tipl.forecast.hub import check_model
from tipl.policies.factors import parse_factors
from tipl.policies.policy import POLICY_FILES
from tipl.policies.tasks import TaskSpec

if TYPE_CHECKING:
    from tipl.models.world.adapting import AdaptedPolicy


def adapt(
    model: Positional[str],
    /,
    out: Path,
    physics: Factors = (),
    unknown: tuple[str, ...] = (),
    experience: Path | None = None,
    env: str | None = None,
    env_physics: Factors = (),
    steps: int | None = None,
    episodes: int = 0,
    policy: Path | None = None,
    hidden: tuple[int, ...] = (),
    seed: int = 1,
) -> dict[str, Any]:
    """Make a policy for a world that nobody has trained in, without a gradient step.

    What is known of the world may be its physics, a log of what happened there, an environment to
    make steps or episodes in, or any of these together.

    Args:
        model: directory of a model of worlds (`tipl train LINEAGE --model world`)
        out: directory of the policy that is made
        physics: the world, such as gravity=1.3 mass=0.8: factors of the model's own values; all
            others are 1, as at home (default: nothing is known)
        unknown: names of factors that are not known
        experience: file of transitions in the world (`tipl.Experience.save`)
        env: the world itself, a Gymnasium id, to make steps in
        env_physics: or the task's own environment in these physics, which the model is not told
        steps: environment steps to make, without rewards (default: 250, or none with --episodes)
        episodes: episodes to try proposals in; the best is taken
        policy: directory of a policy to carry (default: the model's own, or a fresh one)
        hidden: units in each hidden layer of a fresh policy (default: as the model's own)
        seed: of the fresh policy, and of steps and episodes
    """
    check_directory(out, POLICY_FILES)
    at_least(0, steps=steps, episodes=episodes, seed=seed)
    known = _known(physics, unknown)
    hidden_factors = parse_factors(env_physics)
    place = env is not None or bool(env_physics)
    if (env is not None and env_physics) or (not place and (steps or episodes)):
        raise TiplError(
            f"--env {env}, --env-physics {' '.join(env_physics)}, --steps {steps} and --episodes "
            f"{episodes} were given; expected one of --env and --env-physics, for the steps or "
            "episodes to be made in"
        )
    task = check_model(model)
    given = policy_or_task(policy, hidden, task, seed)
    log = _experience(experience, task)
    with ExitStack() as stack:
        world = None
        if place:
            world = stack.enter_context(closing(_environment(env, task, hidden_factors)))
        from tipl.models.world.adapting import adapt as adapted

        better = adapted(
            given, physics=known, experience=log, env=world, steps=steps, episodes=episodes,
            model=model, hidden=hidden or None, seed=seed,
        )  # fmt: skip
    better.save(out)
    return _told(better, out)


def _known(physics: tuple[str, ...], unknown: tuple[str, ...]) -> dict[str, float | None] | None:
    """What is said of the world; None if nothing is."""
    if not physics and not unknown:
        return None
    factors = parse_factors(physics)
    if both := sorted({*factors} & {*unknown}):
        raise TiplError(
            f"{shown(both[0])} was given with --physics and with --unknown; give it with one of "
            "them"
        )
    return {**factors, **dict.fromkeys(unknown)}


def _experience(file: Path | None, task: TaskSpec) -> Any:
    if file is None:
        return None
    from tipl.evaluation.experience import Experience

    found = Experience.load(file)
    found.check_task(task)
    return found


def _environment(env_id: str | None, task: TaskSpec, physics: dict[str, float]) -> Any:
    """One copy of an environment that somebody names, or of the task's own in other physics."""
    if env_id is None:
        from tipl.envs.single import WorldEnv

        return WorldEnv(task, physics)
    from tipl.core.trust import trust_own
    from tipl.envs.gymnasium_vec import EpisodeRecorder
    from tipl.envs.variants import make_one
    from tipl.evaluation.experience import check_spaces

    trust_own(env_id)
    made = make_one(env_id)
    check_spaces(made, task)
    return EpisodeRecorder(made)  # a command says in a sentence what fails in somebody's code


def _told(made: AdaptedPolicy, out: Path) -> dict[str, Any]:
    """Says what was made, what was tried, and what is known of the world."""
    print_tried(made)
    spent = f" after {made.env_steps:,} environment steps there" if made.env_steps else ""
    say(f"the world: {made.world}")
    note(f"{out}: a policy for {made.task.label} in that world{spent}")
    note(f"run `tipl evaluate {out}` to test it")
    return made_data(made, out) | {"world": made.world}
