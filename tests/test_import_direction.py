"""Imports follow the data flow: a module may import only what stands left of it in HOUSE."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

SOURCE = Path(__file__).parents[1] / "src" / "tipl"

# The rooms of tipl in the order of the data flow; the root holds nothing else.
HOUSE = (
    "errors",
    "core",
    "policies",
    "paths",
    "forecast",
    "envs",
    "ppo",
    "evaluation",
    "models",
    "jumps",
    "collection",
    "report",
    "experiments",
    "integrations",
    "cli",
)
RANK = {name: rank for rank, name in enumerate(HOUSE)}
# Forecasting works on machines without a simulator. By the order above, what these may import is
# free of physics as well.
PHYSICS = {"gymnasium", "mujoco"}
PHYSICS_FREE = HOUSE[: RANK["envs"]]
# Torch takes seconds to import, and only a Transformer needs it.
TORCH_USERS = {"models", "experiments", "integrations"}
# Where a room reaches into a later one, by `import_module` when it is asked to; and why.
DOORS = {
    "policies/policy": "tipl.integrations.sb3.weights",  # Policy.from_sb3 and to_sb3
    "forecast/base": "tipl.models.kinds",  # Forecaster.from_pretrained reads any kind of model
}


def _runtime_nodes(node: ast.AST) -> Iterator[ast.AST]:
    """All nodes below `node`, except what only a type checker executes."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.If) and ast.unparse(child.test).endswith("TYPE_CHECKING"):
            yield from _runtime_nodes(ast.Module(child.orelse, []))
        else:
            yield child
            yield from _runtime_nodes(child)


def _imported_names(path: Path, package: str) -> Iterator[str]:
    """Absolute dotted names that a file in `package` imports, at any depth of the file."""
    for node in _runtime_nodes(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            parents = package.split(".")[: len(package.split(".")) - node.level + 1]
            origin = ".".join((parents if node.level else []) + ([node.module or ""]))
            yield from (f"{origin.rstrip('.')}.{alias.name}" for alias in node.names)


def _violations(source: Path) -> Iterator[str]:
    """One sentence for each import under `source` that goes against the data flow."""
    for path in sorted(source.rglob("*.py")):
        place = path.relative_to(source).with_suffix("").parts
        if place in {("__init__",), ("__main__",)}:
            continue  # the package's front doors; test_the_package_loads_lazily watches them
        if place[0] not in RANK:
            yield f"{place[0]} has no place in HOUSE"
            continue
        names = _imported_names(path, ".".join(("tipl", *place[:-1])))
        for root, member in sorted({(*name.split("."), "")[:2] for name in names}):
            if reason := _objection(place[0], root, member):
                yield f"{'/'.join(place)} imports {root}.{member}".rstrip(".") + f": {reason}"


def _objection(importer: str, root: str, member: str) -> str | None:
    """Why a module of tipl may not import `root.member`, or None where it may."""
    if root in PHYSICS and importer in PHYSICS_FREE:
        return "this part works without a simulator"
    if root == "torch" and importer not in TORCH_USERS:
        return "only the Transformer's modules need torch"
    if root != "tipl" or member in {importer, "__version__"}:
        return None
    if member not in RANK:
        return "no module of HOUSE; import a name from the module that defines it"
    return None if RANK[member] < RANK[importer] else "against the data flow"


def test_imports_follow_the_data_flow() -> None:
    assert list(_violations(SOURCE)) == []


@pytest.mark.parametrize(
    ("file", "code"),
    [
        ("policy.py", "import tipl.models.train"),
        ("policy.py", "from tipl import training"),
        ("policy.py", "from .training import TrainConfig"),
        ("policy.py", "from tipl import Policy"),
        ("policy.py", "def late():\n    from tipl.envs import make_vec"),
        ("policy.py", "def late():\n    import mujoco.batch"),
        ("policy.py", "if TYPE_CHECKING:\n    pass\nelse:\n    import gymnasium"),
        ("policy.py", "import torch"),
        ("demo.py", "from tipl.cli import main"),
        ("models/inner.py", "from ..forecast import Forecaster"),
        ("models/inner.py", "from .. import forecast"),
        ("unheard_of.py", ""),
    ],
)
def test_an_import_against_the_data_flow_is_found(tmp_path: Path, file: str, code: str) -> None:
    _plant(tmp_path / file, code)
    assert len(list(_violations(tmp_path))) == 1


@pytest.mark.parametrize(
    ("file", "code"),
    [
        (
            "training.py",
            "import torch\nfrom tipl.policies.policy import Policy\nfrom tipl import errors",
        ),
        ("training.py", "from tipl import __version__"),
        ("policy.py", "if TYPE_CHECKING:\n    from tipl.models.train import TrainConfig"),
        ("models/inner.py", "from . import other\nfrom .other import thing\nimport tipl.models"),
        ("envs/inner.py", "import gymnasium\nfrom ..tasks import TaskSpec"),
        ("cli.py", "from tipl.experiments.demo import run"),
    ],
)
def test_an_import_along_the_data_flow_is_allowed(tmp_path: Path, file: str, code: str) -> None:
    _plant(tmp_path / file, code)
    assert list(_violations(tmp_path)) == []


def _plant(path: Path, code: str) -> None:
    path.parent.mkdir(exist_ok=True)
    path.write_text(code, encoding="utf-8")


def _loaded_by(modules: Sequence[str], suspects: set[str]) -> str:
    """Those of `suspects` that a fresh interpreter holds after importing modules of tipl.

    Modules that are not there are left out; what is left may be the package itself.
    """
    present = [
        name
        for name in modules
        if (SOURCE / f"{name}.py").exists() or (SOURCE / name / "__init__.py").exists()
    ]
    imports = ", ".join(["tipl", *(f"tipl.{name}" for name in present)])
    code = f"import sys, {imports}; print(*sorted({suspects} & set(sys.modules)))"
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stderr
    return result.stdout.strip()


def test_the_package_loads_lazily() -> None:
    assert _loaded_by([], {*PHYSICS, "torch", "matplotlib", "scipy"}) == ""


def test_learning_and_forecasting_load_no_simulator() -> None:
    assert _loaded_by(PHYSICS_FREE, PHYSICS) == ""


def test_policies_and_paths_load_no_torch() -> None:
    assert _loaded_by(["policy", "paths"], {"torch"}) == ""


def test_the_lookout_sees_what_is_loaded() -> None:
    assert _loaded_by(["policy"], {"numpy", "torch"}) == "numpy"
