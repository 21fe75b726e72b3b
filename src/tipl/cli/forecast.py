"""`tipl forecast` and `tipl optimize`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tyro.conf import Positional

from tipl.cli.proposals import made_data, policy_or_task, print_tried
from tipl.core.options import at_least
from tipl.core.ownership import check_directory
from tipl.core.terminal import note
from tipl.errors import TiplError
from tipl.experiments.config import HORIZONS, STARTS, check_places
from tipl.forecast.base import Forecaster, Target
from tipl.forecast.hub import check_model
from tipl.policies.policy import POLICY_FILES


def forecast(
    models: Positional[tuple[str, ...]],
    /,
    paths: Path,
    out: Path,
    starts: tuple[float, ...] = STARTS,
    horizons: tuple[int, ...] = HORIZONS,
) -> dict[str, Any]:
    """Forecast the weights of all trials that the models have not seen.

    All rivals are forecast beside them: standing still, what extrapolates a history, and what
    remembers the models' training paths. `tipl evaluate` then runs the forecasts in the
    environment.

    Args:
        models: directories of trained models, or names of models that ship with tipl
        paths: the dataset of paths
        out: directory of the forecasts
        starts: where histories end, as fractions of the path; 0 is the untrained network alone
        horizons: checkpoints ahead, one or more; the jump to the path's end comes on top
    """
    from tipl.evaluation.forecast_sets import FORECAST_FILES
    from tipl.paths import PathDataset

    if not models:
        raise TiplError(
            "no model was given; expected one or more before the options: directories that "
            "`tipl train` made, or names of models that ship with tipl"
        )
    check_directory(out, FORECAST_FILES)
    check_places(starts, horizons)
    dataset = PathDataset.open(paths)
    dataset.usable_trials()  # reads them
    for model in models:
        check_model(model)
    forecasters = [Forecaster.from_pretrained(model) for model in models]
    from tipl.experiments.forecasts import make_forecasts  # no refusal waits for it

    forecasts = make_forecasts(forecasters, dataset, starts, horizons)
    forecasts.save(out)
    note(
        f"{out}: {len(forecasts.cases)} forecasts of each of {len(forecasts.paths)} trials; run "
        f"`tipl evaluate {out}` to see what they return"
    )
    return {"forecasts": out, "num_trials": len(forecasts.paths), "cases": forecasts.cases}


def optimize(
    model: Positional[str],
    /,
    out: Path,
    policy: Path | None = None,
    seed: int = 1,
    hidden: tuple[int, ...] = (),
    target: Target | None = None,
    horizon: int | None = None,
    steps: int | None = None,
    wished_return: float | None = None,
    among: int = 8,
    check: int = 0,
) -> dict[str, Any]:
    """Make a better policy from an untrained one: no gradient step, no environment step.

    Args:
        model: directory of a trained model, or name of a model that ships with tipl
        out: directory of the policy that is made
        policy: directory of the policy to start from (default: a fresh random one)
        seed: of the fresh random policy
        hidden: units in each of its hidden layers (default: as the model was trained on)
        target: elite, to the best behaviour that the training paths know; own, to what PPO would
            have made of the policy (default: elite, if the model was trained for it)
        horizon: checkpoints to jump ahead (default: to the end of the training paths)
        steps: jumps that follow one another (default: 3 to own, 2 to elite; of a policy that is
            given as many as lead nearest to the elite, as far as the model can tell)
        wished_return: return to ask for, of a model that was trained with returns
        among: fresh random policies that the model carries, of which the one is taken that comes
            nearest to the elite, as far as it can tell
        check: episodes to try proposals in, one each, of which the best is taken: the fresh
            policies that came nearest; or what the model makes of the one that is given, that one
            as it is, and what the model makes in other numbers of jumps
    """
    check_directory(out, POLICY_FILES)
    at_least(1, horizon=horizon, steps=steps, among=among)
    at_least(0, check=check, seed=seed)
    task = check_model(model)
    given = policy_or_task(policy, hidden, task, seed)
    from tipl.models.optimizing import optimize as optimized  # brings PyTorch

    better = optimized(
        given, model=model, hidden=hidden or None, seed=seed, among=among, check=check,
        horizon=horizon, target=target, steps=steps, wished_return=wished_return,
    )  # fmt: skip
    better.save(out)
    print_tried(better)
    spent = f" after {better.env_steps:,} environment steps" if better.env_steps else ""
    note(f"{out}: a policy for {better.task.label}{spent}; run `tipl evaluate {out}` to test it")
    return made_data(better, out)
