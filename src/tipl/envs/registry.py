"""What Gymnasium has registered under an id, and what to do about an id that it has not."""

from __future__ import annotations

import json
import textwrap

import gymnasium
from gymnasium.envs.registration import EnvSpec

from tipl.core.options import spelling_hint
from tipl.core.trust import import_trusted, is_trusted, split_id, untrusted
from tipl.errors import TiplError, shown
from tipl.policies.tasks import TaskSpec, known_tasks

# For the beginnings of well-known ids, the package to install and the module that registers them.
_PACKAGES = {
    "ALE/": ("ale-py", "ale_py"),
    "dm_control/": ("shimmy[dm-control]", "shimmy"),
    **dict.fromkeys(("MiniGrid-", "BabyAI-"), ("minigrid", "minigrid")),
    **dict.fromkeys(
        ("Fetch", "Hand", "Adroit", "AntMaze", "PointMaze", "FrankaKitchen"),
        ("gymnasium-robotics", "gymnasium_robotics"),
    ),
    "Panda": ("panda-gym", "panda_gym"),
}


def registered_spec(env: str | TaskSpec) -> EnvSpec:
    """What is registered under an id, or the id of a task.

    Of `"module:id"` the module is imported first, if it is trusted (`tipl.trust`); if it is not,
    an id that is registered already needs no module.

    Raises:
        TiplError: nothing is, or the module cannot be imported, or is not trusted.
    """
    env_id = env if isinstance(env, str) else env.env_id
    module, name = split_id(env_id)
    try:
        import_trusted(env_id)  # also where the id is registered: it may register another
    except Exception as error:  # in somebody's file
        package, _ = _package(name) or (None, None)
        advice = f"install {package}, or see" if package else "see"
        raise TiplError(
            f"the environment {shown(env_id)} could not be made: {one_line(error)} (expected a "
            f"module {shown(module)} that registers it; {advice} that Python finds it, "
            "on PYTHONPATH)"
        ) from error
    if name in gymnasium.registry:
        return gymnasium.registry[name]
    if module and not is_trusted(module):
        raise untrusted(env_id)
    if isinstance(env, TaskSpec):
        _explain_task(env)
    raise TiplError(
        f"unknown environment id {shown(env_id)}: expected one of {', '.join(known_tasks())} or "
        "another id that Gymnasium has registered ('module:id' imports a file of yours); "
        f"{_hint(name)}"
    )


def one_line(error: BaseException) -> str:
    """What somebody's error says, for the middle of a sentence."""
    words = " ".join(str(error).split())
    return textwrap.shorten(words, 300) if words else type(error).__name__


def _hint(name: str) -> str:
    found = _package(name)
    if found is not None:
        package, module = found
        return f"install {package}, which registers it, and use '{module}:{name}'"
    return spelling_hint(name, [*known_tasks(), *gymnasium.registry])


def _package(name: str) -> tuple[str, str] | None:
    return next((found for start, found in _PACKAGES.items() if name.startswith(start)), None)


def _explain_task(task: TaskSpec) -> None:
    """Raises a TiplError for a task of somebody's own class, if its text names one."""
    try:
        module, _, name = json.loads(task.gymnasium_spec)["entry_point"].partition(":")
    except (AttributeError, KeyError, TypeError, ValueError):
        return
    unknown = (
        f"unknown environment id {shown(task.env_id)}: the class {name} of its environment was"
    )
    if module == "__main__":
        raise TiplError(
            f"{unknown} in a script that was run: expected a module that registers it; move class "
            "and gymnasium.register into a module of their own, and make the policy for the task "
            f"tipl.envs.make_task('your_module:{task.bare_id}')"
        )
    if module.partition(".")[0] != "gymnasium":
        raise TiplError(
            f"{unknown} in the module {module}, and no module that registers it has been imported "
            f"here; import it first, or make the policy for the task "
            f"tipl.envs.make_task('{module}:{task.bare_id}'), which names it to --trust-module"
        )
