"""`tipl evaluate` and `tipl film`: policies in their environment."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tyro.conf import Positional

from tipl.cli.shared import Factors
from tipl.core.options import at_least
from tipl.core.stores import exists
from tipl.core.terminal import console, note, say
from tipl.errors import TiplError, check_text
from tipl.policies.factors import parse_factors
from tipl.policies.policy import Policy, refuse_zip


def evaluate(
    target: Positional[Path],
    /,
    episodes: int = 20,
    physics: Factors = (),
    seed: int = 0,
    threads: int | None = None,
) -> object:
    """Run a policy, or a set of forecasts, in its environment.

    Policies act by their mean, for whole episodes. The returns of forecasts are also written, as
    results.jsonl, into their directory.

    Args:
        target: directory of a policy (`tipl optimize`) or of forecasts (`tipl forecast`)
        episodes: episodes of each policy
        physics: the world that a policy runs in, instead of its own: factors of the original
            values, such as gravity=1.3 mass=0.8
        seed: of the episodes' starts
        threads: default: one for each processor
    """
    at_least(1, episodes=episodes)
    if exists(target / "policy.json"):
        from tipl.envs.registry import registered_spec

        policy = Policy.load(target)
        registered_spec(policy.task)  # no refusal waits for what evaluates
        if physics:
            policy = policy.with_physics(parse_factors(physics))
        if policy.task.physics:
            from tipl.envs.factory import check_physics

            check_physics(policy.task, dict(policy.task.physics))
        from tipl.evaluation import returns as evaluation

        found = evaluation.evaluate(policy, episodes, seed=seed, threads=threads, progress=True)
        say(str(found))
        return found
    if not exists(target / "forecasts.json"):
        refuse_zip(target)
        raise TiplError(
            f"there is no policy and no set of forecasts in {target}; give a directory that "
            "`tipl optimize` or `tipl forecast` made"
        )
    if physics:
        raise TiplError(
            f"the physics {' '.join(physics)} were given for the set of forecasts in {target}, "
            "each of which runs in its trial's; give a policy, or leave them out"
        )
    from tipl.core.ownership import check_file, refuse_links
    from tipl.evaluation.forecast_sets import FORECAST_FILES, ForecastSet

    refuse_links(target)
    for name in ("returns.safetensors", "results.jsonl"):
        check_file(target / name, FORECAST_FILES.files[name])
    forecasts = ForecastSet.load(target)
    from tipl.experiments.run import forecast_rows
    from tipl.experiments.run_report import print_headline
    from tipl.report.results import write_results

    returns = forecasts.evaluate(episodes, seed=seed, threads=threads, progress=True)
    command = f"tipl evaluate {target} --episodes {episodes} --seed {seed}"
    returns.save(target, command)
    results = forecast_rows(forecasts, returns, command)
    write_results(target / "results.jsonl", results)
    print_headline(results, forecasts.paths.num_checkpoints, console())
    note(f"All numbers: {target / 'results.jsonl'}")
    return results


def film(
    policies: Positional[tuple[Path, ...]],
    /,
    out: Path,
    labels: tuple[str, ...] = (),
    physics: Factors = (),
    seed: int = 0,
) -> dict[str, Any]:
    """Film policies of one task side by side: an animated GIF, and a strip of stills.

    Each acts by its mean from the same start. Of a run, one held-out network is shown as it was,
    as PPO made it, and as the best model made it. MuJoCo needs a renderer, and says which to
    install if there is none.

    Args:
        policies: directories of policies (`tipl optimize`), or of one run (`tipl demo`)
        out: the GIF to write; the stills are beside it, with the ending .png
        labels: one for each policy (default: the names of the directories)
        physics: the world that they all run in, instead of their own, such as gravity=1.3 mass=0.8
        seed: of the episode's start
    """
    from tipl.evaluation.film_files import check_filmstrip, check_gif_name

    check_gif_name(out)
    factors = parse_factors(physics)
    if len(policies) == 1 and not labels and not factors and exists(policies[0] / "forecasts"):
        from tipl.experiments.run import load_run

        run = load_run(policies[0])
        from tipl.experiments.films import film_run

        film_run(run, out, seed)
        return _filmed(out, out.with_suffix(".png"))
    labels = labels or tuple(path.resolve().name for path in policies)
    for label in labels:
        check_text(label)
    if not policies or len(labels) != len(policies):
        raise TiplError(
            f"{len(policies)} policies and {len(labels)} labels were given; expected one policy "
            "or more, and a label for each, or no labels"
        )
    check_filmstrip(out)
    loaded = [Policy.load(path) for path in policies]
    if factors:
        from tipl.envs.factory import check_physics

        check_physics(loaded[0].task, factors)
        loaded = [one.with_physics(factors) for one in loaded]
    from tipl.evaluation import film as films  # brings what draws, for which no refusal waits

    gif, png = films.save_filmstrip(out, [films.film(one, seed) for one in loaded], labels)
    return _filmed(gif, png)


def _filmed(gif: Path, png: Path) -> dict[str, Any]:
    note(f"{gif}: the animation; {png}: stills of it")
    return {"animation": gif, "stills": png}
