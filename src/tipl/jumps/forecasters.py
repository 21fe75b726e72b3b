"""What forecasts for jumps: models, stored policies, and the rivals that need no training."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from tipl.core.stores import exists
from tipl.errors import TiplError
from tipl.forecast.base import Forecaster, Target
from tipl.forecast.extrapolation import (
    RELEX,
    LeastSquaresLine,
    PathTrimmingAndBoosting,
    TwoPointLine,
)
from tipl.forecast.hub import shipped_models
from tipl.forecast.memory import BestStoredPolicy
from tipl.forecast.trained import TrainedForecaster
from tipl.jumps.config import JumpConfig
from tipl.policies.policy import Policy
from tipl.policies.tasks import TaskSpec

UNTRAINED: dict[str, Callable[[], Forecaster]] = {
    "relex": RELEX,
    "line": LeastSquaresLine,
    "two-point": TwoPointLine,
    "pptb": PathTrimmingAndBoosting,
}
"""Forecasters that extrapolate a run's own history, of any task and architecture."""

FALLBACK = "relex"
"""What forecasts where no model fits."""

PARTS = (0.25, 0.5, 1.0)
"""How far ahead an extrapolation is tried, in units of the path so far: no further than it has
come. Five times as far it drives units into saturation, where tests find it better and PPO then
learns nothing any more."""


def jump_forecaster(source: str | Path, target: Target | None = None) -> Forecaster:
    """The forecaster that a name or a directory stands for.

    Args:
        source: a model that ships with tipl, the directory of a model or of a policy (which is
            then copied), or a key of `UNTRAINED`.
        target: where a trained model's forecasts lead, see `tipl.forecast.Target`.

    Raises:
        TiplError: there is no such forecaster, it was not trained for the target, or a file is
            damaged.
    """
    if str(source) in UNTRAINED:
        return UNTRAINED[str(source)]()
    if exists(Path(source) / "policy.json"):
        return BestStoredPolicy.of(Policy.load(source))
    try:
        model = Forecaster.from_pretrained(source)
    except TiplError as error:
        known = ", ".join([*shipped_models(), *UNTRAINED])
        raise TiplError(
            f"{error}; jumps take a model, the directory of a policy, or one of {known}"
        ) from error
    return model.with_options(target=target)


def fitting_forecaster(
    config: JumpConfig,
    read: Callable[[TaskSpec], Policy | None],
    env_id: str | None = None,
) -> tuple[Forecaster, str | None]:
    """The forecaster for a run, and why `FALLBACK` takes another one's place; None if it does not.

    Args:
        config: names the forecaster; without a name, a model that ships with tipl for the task.
        read: gives the run's policy under a task's frozen observation normaliser; None if it is
            none that tipl can read. Raises a TiplError if the run is of another task.
        env_id: the run's environment, if it is known.

    Raises:
        TiplError: there is no such forecaster.
    """
    source = config.forecaster
    if source is None:
        if env_id not in shipped_models():
            reason = f"no model for {env_id or 'this environment'} ships with tipl"
            return jump_forecaster(FALLBACK), reason
        source = env_id
    forecaster = jump_forecaster(source, config.target)
    task = task_of(forecaster)
    try:
        check_fits(forecaster, None if task is None else read(task))
    except TiplError as error:
        return jump_forecaster(FALLBACK), str(error)
    return forecaster, None


def task_of(forecaster: Forecaster) -> TaskSpec | None:
    """The task under whose frozen observation normaliser a forecaster reads and writes weights.

    None of those that extrapolate, which take weights as they are.
    """
    if isinstance(forecaster, TrainedForecaster | BestStoredPolicy):
        return forecaster.task
    return None


def check_fits(forecaster: Forecaster, policy: Policy | None) -> None:
    """Raises a TiplError unless a forecaster fits a run's policy, None if tipl cannot read it."""
    if policy is None:
        if isinstance(forecaster, TrainedForecaster) or forecaster.layout is not None:
            raise TiplError(
                f"{forecaster.name} reads multi-layer perceptrons that share nothing with the "
                "critic, in a known environment, and the run's policy is none"
            )
    elif isinstance(forecaster, TrainedForecaster):
        forecaster.check_policy(policy)
    elif forecaster.layout not in (None, policy.layout):
        raise TiplError(
            f"{forecaster.name} fits hidden layers of {forecaster.layout.hidden_units}, and the "
            f"run's policy has {policy.layout.hidden_units}"
        )


def leads_to_one_behaviour(forecaster: Forecaster) -> bool:
    """Whether forecasts behave alike, whatever they start from: a second jump brings nothing."""
    if isinstance(forecaster, TrainedForecaster):
        return forecaster.target == "elite"
    return isinstance(forecaster, BestStoredPolicy)


def default_horizons(forecaster: Forecaster, elapsed: int) -> list[int]:
    """Checkpoints ahead to try, for a history that has gone on for some.

    One where forecasts lead to one behaviour. Of a model of a run's own future an eighth of the
    training paths, half of them, and what is left of them. Of an extrapolation a quarter, half and
    all of what has passed.
    """
    whole = forecaster.num_checkpoints - 1 if isinstance(forecaster, TrainedForecaster) else None
    if leads_to_one_behaviour(forecaster):
        return [whole or 1]
    if whole is None:
        return sorted({max(1, int(part * elapsed)) for part in PARTS})
    return sorted({max(1, min(whole - elapsed, part)) for part in (whole // 8, whole // 2, whole)})
