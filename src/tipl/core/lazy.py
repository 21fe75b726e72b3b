"""Names that are imported when they are first used, and modules that have moved, by old names."""

from __future__ import annotations

import functools
import importlib
import importlib.util
import sys
from collections.abc import Callable
from importlib.machinery import ModuleSpec, PathFinder
from types import ModuleType
from typing import Any

from tipl.errors import TiplError


def resolve(entry: Any) -> Any:
    """What an entry of a table, `"tipl.models.train:train"`, names; its module is imported.

    What an entry holds itself, rather than by its name, is returned as it is.
    """
    if not isinstance(entry, str):
        return entry
    module, _, name = entry.partition(":")
    return getattr(importlib.import_module(module), name)


def is_installed(module: str) -> bool:
    """Whether a module that is part of an extra can be imported."""
    return importlib.util.find_spec(module) is not None


def check_installed(module: str, package: str, extra: str, needed_by: str) -> None:
    """Raises a TiplError unless a package that is part of an extra of tipl can be imported."""
    if not is_installed(module):
        raise TiplError(
            f"{needed_by} needs {package}, which is not installed; run `pip install "
            f"'tipl[{extra}]'`, or `pip install {package}`"
        )


def lazy_names(package: str) -> tuple[Callable[[str], Any], Callable[[], list[str]]]:
    """The `__getattr__` and `__dir__` of a package that imports its names on first use.

    The package says where they are to type checkers, by imports under `if TYPE_CHECKING:`, and
    these are read when a name is first asked for. Names that have moved are found as well.
    """

    @functools.cache
    def homes() -> dict[str, str | None]:
        import ast  # late, for `import tipl` alone
        import inspect

        blocks = ast.parse(inspect.getsource(sys.modules[package])).body
        told = [node for block in blocks if isinstance(block, ast.If) for node in block.body]
        imports = [node for node in told if isinstance(node, ast.ImportFrom)]
        return {alias.name: node.module for node in imports for alias in node.names}

    def getattr_(name: str) -> Any:
        if name in sys.modules[package].__all__:
            return resolve(f"{homes()[name]}:{name}")
        return find_moved(package, name)

    return getattr_, lambda: sorted(sys.modules[package].__all__)


_KEPT = {
    "core": "options progress storage",
    "evaluation": "behaviour forecast_sets stats",
    "experiments": "acceleration benchmark demo rivals",
    "forecast": "extrapolation",
    "policies": "tasks",
    "ppo": "rollout",
}
"""Old modules of tipl that kept their names, by the package that they are in now."""

MOVED = {
    name: f"{package}.{name}" for package, names in _KEPT.items() for name in names.split()
} | {
    "actions": "policies.actions ppo.networks",
    "atomic": "core.atomic core.locks core.system_errors core.unfinished",
    "adam": "ppo.learner",
    "baselines": "forecast.extrapolation forecast.memory",
    "collect_config": "collection.config",
    "dynamic_modes": "forecast.extrapolation",
    "envs.pictures": "evaluation.pictures",
    "figure_style": "report.style",
    "forecast": "models.readout models.path_transformer.forecaster "
    "models.neuron_transformer.forecaster models.nowcasters.forecaster models.loop",
    "forecast.fitted_output_layer": "models.readout",
    "forecast.neuron_transformer": "models.neuron_transformer.forecaster",
    "forecast.nowcasters": "models.nowcasters.forecaster",
    "forecast.path_transformer": "models.path_transformer.forecaster",
    "forecast.shipped": "forecast.hub",
    "held_out_forecasts": "experiments.forecasts forecast.memory",
    "integrations.run_normaliser": "integrations.environment.normaliser",
    "integrations.sb3_collection": "integrations.sb3.trials",
    "integrations.sb3_policies": "integrations.sb3.weights",
    "integrations.sb3_recording": "integrations.sb3.recorder",
    "integrations.torch_agent": "integrations.pytorch.agent",
    "integrations.torch_jumps": "integrations.pytorch.jumps",
    "jump_config": "jumps.config",
    "mlp": "ppo.networks",
    "models.neuron_transformer": "models.neuron_transformer.net models.network",
    "models.nowcasters": "models.nowcasters.net",
    "models.path_transformer": "models.path_transformer.net",
    "normalisers": "ppo.rollout",
    "path_dimension": "paths.dimension",
    "path_evaluation": "evaluation.checkpoints",
    "path_trimming": "forecast.extrapolation",
    "policy": "policies.policy policies.layout policies.actions",
    "pptb": "jumps.plug_in jumps.config",
    "report": "report.page report.tables",
    "results": "report.results report.tables",
    "return_regression": "forecast.memory",
    "runs": "experiments.run",
    "tokenizers": "paths.svd",
    "training": "models models.train forecast.base",
    "variation": "collection.config collection.collect",
}
"""Where the contents of old modules are now, all named within tipl. Those of a module whose name a
package has are found when the package has no such name."""


def find_moved(module: str, name: str) -> Any:
    """What an old module, or a package that has one's name, had by a name (or AttributeError)."""
    # `from tipl.forecast import hub` asks for an attribute before it imports the module.
    is_module = PathFinder.find_spec(f"{module}.{name}", sys.modules[module].__path__) is not None
    for home in _homes(module) if not (is_module or name.startswith("__")) else []:
        found = importlib.import_module(home)
        if hasattr(found, name):
            return getattr(found, name)
    raise AttributeError(f"module {module!r} has no attribute {name!r}")


def _homes(module: str) -> list[str]:
    return [f"tipl.{home}" for home in MOVED.get(module.removeprefix("tipl."), "").split()]


class MovedModules:
    """Finds modules under their old names, where `import` finds nothing else.

    A module that has moved is empty until a name is asked for: then its new homes are imported.
    """

    def find_spec(self, name: str, *others: object) -> ModuleSpec | None:
        """The module of that name, if there was one; called by `import`."""
        package, _, module = name.partition(".")
        if package != "tipl" or module not in MOVED:
            return None
        # It may have had modules that moved, too. Finders need not be of a class of importlib.abc,
        # which takes longer to import than all of this.
        return ModuleSpec(name, self, is_package=True)  # type: ignore[arg-type]

    def create_module(self, spec: ModuleSpec) -> None:
        """Leaves it to `import` to make an empty module."""

    def exec_module(self, module: ModuleType) -> None:
        """Lets the module find its names in its new homes."""
        module.__doc__ = f"Now {' and '.join(_homes(module.__name__))}."
        vars(module)["__getattr__"] = functools.partial(find_moved, module.__name__)
