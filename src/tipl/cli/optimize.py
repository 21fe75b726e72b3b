"""`tipl optimize`."""

from __future__ import annotations

from pathlib import Path

from tyro.conf import Positional

from tipl.atomic import check_replaceable
from tipl.forecast import load_forecaster
from tipl.policy import Policy

__all__ = ["optimize"]


def optimize(
    model: Positional[Path],
    /,
    out: Path,
    policy: Path | None = None,
    seed: int = 1,
    horizon: int | None = None,
) -> None:
    """Make a better policy from an untrained one: no gradient step, no environment step.

    Args:
        model: directory of a trained model
        out: directory of the policy that is made
        policy: directory of the policy to start from (default: a fresh random one)
        seed: of the fresh random policy
        horizon: checkpoints to jump ahead (default: to the end of the training paths)
    """
    check_replaceable(out, replaces="policy.json")
    forecaster = load_forecaster(model)
    if policy is not None:
        start = Policy.load(policy)
    else:
        start = Policy.initial(forecaster.task, seed, forecaster.layout.hidden_sizes)
    better = forecaster.optimize(start, horizon)
    better.save(out)
    print(f"{out}: a policy for {better.task.env_id}; run `tipl evaluate {out}` to test it")
