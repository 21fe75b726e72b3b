"""`tipl adapt`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from tyro.conf import Positional, arg

from tipl.core.ownership import check_directory
from tipl.core.terminal import say
from tipl.forecast.hub import check_model
from tipl.policies.factors import parse_factors
from tipl.policies.policy import POLICY_FILES, Policy


def adapt(
    model: Positional[str],
    /,
    out: Path,
    physics: Annotated[tuple[str, ...], arg(metavar="NAME=FACTOR")] = (),
    unknown: tuple[str, ...] = (),
    policy: Path | None = None,
    hidden: tuple[int, ...] = (),
    seed: int = 1,
) -> None:
    """Make a policy for a world that nobody has trained in: no gradient step, no environment step.

    Args:
        model: directory of a model of worlds (`tipl train LINEAGE --model world`)
        out: directory of the policy that is made
        physics: the world, such as gravity=1.3 mass=0.8: factors of the model's own values; all
            others are 1, as at home
        unknown: names of factors that are not known
        policy: directory of a policy to carry (default: the model's own, or a fresh one)
        hidden: units in each hidden layer of a fresh policy (default: as the model's own)
        seed: of the fresh policy
    """
    check_directory(out, POLICY_FILES)
    world: dict[str, float | None] = {**parse_factors(physics), **dict.fromkeys(unknown)}
    task = check_model(model)
    given: str | Policy = task.env_id
    if policy is not None:
        given = Policy.load(policy)
    elif hidden:
        Policy.initial(task, seed, hidden)  # what is impossible waits for nothing heavy
    from tipl.models.world.adapting import adapt as adapted
    from tipl.models.world.forecaster import WorldForecaster

    found = WorldForecaster.from_pretrained(model).in_world(world)
    better = adapted(given, model=found, hidden=hidden or None, seed=seed)
    better.save(out)
    say(f"{out}: a policy for {better.task.label} in the world {found.belief}")
    say(f"run `tipl evaluate {out}` to test it")
