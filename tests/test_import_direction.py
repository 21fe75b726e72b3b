"""The rooms of tipl, in the order of the data flow: a room imports only rooms before it.

The test knows rooms, not files: a new file needs no entry. It sees imports at any depth of a file,
and what is named by a string to be imported later: `import_module("tipl.cli")`, the beginnings of
f-strings, and entries such as "tipl.models.kinds" or "tipl.models.kinds:load" in a table.
"""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Container, Iterator, Mapping, Sequence
from pathlib import Path

import pytest

SOURCE = Path(__file__).parents[1] / "src" / "tipl"

ROOMS = (
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
RANK = {name: rank for rank, name in enumerate(ROOMS)}
# Beside rooms, and `errors.py`, the root holds the package's front doors. They reach everywhere,
# lazily; test_the_package_loads_lazily watches them.
FRONT_DOORS = {"__init__.py", "__main__.py"}
# Where a room reaches into a later one, by a string that is imported when it is asked for; why.
DOORS = {
    # Policy.from_sb3 and Policy.to_sb3: methods of a policy that need stable-baselines3. What they
    # open does not know policies, so that the door makes no circle.
    ("tipl.policies.policy", "tipl.integrations.sb3.weights"),
    # Policy.to_torch: a module of PyTorch, which does not know policies either.
    ("tipl.policies.policy", "tipl.integrations.pytorch.module"),
    # Forecaster.from_pretrained: reads models of every kind, all of which are forecasters.
    ("tipl.forecast.description", "tipl.models.kinds"),
}
# The only one that may lead back.
ROUND_DOORS = {("tipl.forecast.description", "tipl.models.kinds")}
# Forecasting works on machines without a simulator. By the order above, what these may import is
# free of physics as well.
PHYSICS = {"gymnasium", "mujoco"}
PHYSICS_FREE = ROOMS[: RANK["envs"]]
# Torch takes seconds to import; what learns needs it, and what talks to other PyTorch code.
TORCH_USERS = {"models", "experiments", "integrations"}
# Who may import by a name that is no constant: these are given names that others state.
READERS_OF_NAMES = {"tipl.core.lazy", "tipl.core.trust"}

ENTRY = re.compile(r"(tipl(?:\.\w+)+)(?::\w+)?")
"""A string that names a module of tipl, or one of its attributes, to be imported later."""


def _runtime_nodes(node: ast.AST) -> Iterator[ast.AST]:
    """All nodes below `node`, except what only a type checker executes."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.If) and ast.unparse(child.test).endswith("TYPE_CHECKING"):
            yield from _runtime_nodes(ast.Module(child.orelse, []))
        else:
            yield child
            yield from _runtime_nodes(child)


def _imported_names(path: Path, package: str) -> Iterator[str]:
    """Absolute dotted names that a file in `package` imports, now or later, at any depth.

    A module whose name cannot be read from the file is an ellipsis after what can be read.
    """
    text = path.read_text(encoding="utf-8")
    # What `lazy_names` imports later is what the package tells type checkers.
    nodes = ast.walk if "lazy_names(" in text else _runtime_nodes
    for node in nodes(ast.parse(text)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            parents = package.split(".")[: len(package.split(".")) - node.level + 1]
            origin = ".".join((parents if node.level else []) + ([node.module or ""]))
            yield from (f"{origin.rstrip('.')}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            if found := ENTRY.fullmatch(node.value):
                yield found[1]
        elif isinstance(node, ast.Call) and ast.unparse(node.func).endswith(
            ("import_module", "__import__")
        ):
            yield _named_by(node.args[0])


def _named_by(argument: ast.expr) -> str:
    """The module that an argument of `import_module` names, or what can be read of it."""
    if isinstance(argument, ast.Constant):
        return str(argument.value)
    if isinstance(argument, ast.JoinedStr) and isinstance(argument.values[0], ast.Constant):
        return f"{argument.values[0].value}…"
    return "…"


def _modules(source: Path) -> dict[str, Path]:
    """The modules of tipl that lie under `source`, by name."""
    names = {
        path: ".".join(("tipl", *path.relative_to(source).with_suffix("").parts))
        for path in sorted(source.rglob("*.py"))
    }
    return {name.removesuffix(".__init__"): path for path, name in names.items()}


def _imports(source: Path) -> dict[str, set[str]]:
    """What each module under `source` imports, by dotted names; the front doors are left out."""
    return {
        name: set(
            _imported_names(path, name if path.stem == "__init__" else name.rpartition(".")[0])
        )
        for name, path in _modules(source).items()
        if name not in {"tipl", "tipl.__main__"}
    }


def _violations(source: Path) -> Iterator[str]:
    """One sentence for each import under `source` that goes against the data flow."""
    for module, names in _imports(source).items():
        found = {_objection(module, name) for name in names if (module, name) not in DOORS}
        yield from sorted(f"{module} {objection}" for objection in found if objection)


def _objection(module: str, name: str) -> str | None:
    """Why a module of tipl may not import a name, or None where it may."""
    importer = module.split(".")[1]
    root, member = (*name.split("."), "")[:2]
    if root == "…" or (root == "tipl" and member.startswith("…")):
        return None if module in READERS_OF_NAMES else "imports what this test cannot read"
    if root in PHYSICS and importer in PHYSICS_FREE:
        return f"imports {root}: this room works without a simulator"
    if root == "torch" and importer not in TORCH_USERS:
        return "imports torch: only what learns needs it"
    if root != "tipl" or member in {importer, "__version__"}:
        return None
    if member not in RANK:
        return f"imports {name}: no room; import a name from the module that defines it"
    return None if RANK[member] < RANK[importer] else f"imports {name}: against the data flow"


def _things_without_a_room(source: Path) -> list[str]:
    """What lies in the package's root and is neither a room nor one of its few files."""
    rooms = {path.name for path in source.iterdir() if (path / "__init__.py").exists()}
    files = {*FRONT_DOORS, "errors.py", "py.typed", "__pycache__"}
    here = {path.name for path in source.iterdir()}
    return sorted(here - files - (rooms & RANK.keys()))


def test_the_root_holds_nothing_but_rooms() -> None:
    assert _things_without_a_room(SOURCE) == []
    assert (SOURCE / "py.typed").exists()
    assert {path.name for path in SOURCE.iterdir() if path.is_dir()} - {"__pycache__"} == {
        *ROOMS[1:]
    }


def test_the_house_shows_the_rooms_in_their_order() -> None:
    text = (SOURCE.parents[1] / "docs/design.md").read_text(encoding="utf-8")
    tree = re.search(r"```text\nsrc/tipl/\n((?:  \S.*\n)+)", text)
    assert tree is not None
    assert re.findall(r"^  (\w+)(?:/|\.py) ", tree[1], re.MULTILINE) == [*ROOMS]


@pytest.mark.parametrize("name", ["policy.py", "attic/__init__.py", "specs.json", "paths/x.txt"])
def test_a_thing_without_a_room_is_found(tmp_path: Path, name: str) -> None:
    _plant(tmp_path / "core/__init__.py", "")
    _plant(tmp_path / "errors.py", "")
    assert _things_without_a_room(tmp_path) == []
    _plant(tmp_path / name, "")
    assert _things_without_a_room(tmp_path) == [name.split("/")[0]]


def test_imports_follow_the_data_flow() -> None:
    assert list(_violations(SOURCE)) == []


def test_each_door_is_used() -> None:
    imports = _imports(SOURCE)
    assert [door for door in sorted(DOORS) if door[1] not in imports.get(door[0], set())] == []


@pytest.mark.parametrize(
    ("file", "code"),
    [
        ("policies/policy.py", "import tipl.models.train"),
        ("policies/policy.py", "from tipl import models"),
        ("policies/policy.py", "from ..models import train"),
        ("policies/policy.py", "from tipl import Policy"),
        ("policies/policy.py", "def late():\n    from tipl.envs import make_vec"),
        ("policies/policy.py", "def late():\n    import mujoco.batch"),
        ("policies/policy.py", "if TYPE_CHECKING:\n    pass\nelse:\n    import gymnasium"),
        ("policies/policy.py", "import torch"),
        ("policies/policy.py", "importlib.import_module('tipl.models.train')"),
        ("policies/policy.py", "import_module('tipl.integrations.sb3.recorder')"),
        ("policies/policy.py", "import_module(f'tipl.models.{name}')"),
        ("policies/policy.py", "import_module(f'tipl.{name}')"),
        ("policies/policy.py", "import_module(name)"),
        ("policies/policy.py", "import_module('torch')"),
        ("policies/policy.py", "HOMES = {'train': 'tipl.models.train'}"),
        (
            "policies/__init__.py",
            "if TYPE_CHECKING:\n    from tipl.models.train import train\nlazy_names('policies')",
        ),
        ("policies/policy.py", "TRAIN = 'tipl.models.train:train'"),
        ("policies/tasks.py", "import_module('tipl.integrations.sb3.weights')"),
        ("experiments/demo.py", "from tipl.cli import main"),
        ("forecast/inner.py", "from ..models import train"),
        ("forecast/inner.py", "from .. import models"),
        ("forecast/__init__.py", "from ..models import train"),
        ("unheard_of.py", "from tipl.unheard_of_too import thing"),
    ],
)
def test_an_import_against_the_data_flow_is_found(tmp_path: Path, file: str, code: str) -> None:
    _plant(tmp_path / file, code)
    assert len(list(_violations(tmp_path))) == 1


@pytest.mark.parametrize(
    ("file", "code"),
    [
        (
            "models/train.py",
            "import torch\nfrom tipl.policies.policy import Policy\nfrom tipl import errors",
        ),
        ("models/train.py", "from tipl import __version__"),
        ("policies/policy.py", "if TYPE_CHECKING:\n    from tipl.models.train import train"),
        ("policies/policy.py", "import_module('tipl.integrations.sb3.weights')"),
        ("policies/policy.py", "'''As `tipl.models.train` does.'''\nprint('tipl')"),
        ("models/inner.py", "from . import other\nfrom .other import thing\nimport tipl.models"),
        ("models/kinds.py", "'tipl.models.nowcasters.training:train'\nimport_module('torch')"),
        ("models/__init__.py", "from . import other\nfrom ..paths import PathDataset"),
        ("envs/inner.py", "import gymnasium\nfrom ..policies import tasks"),
        ("evaluation/pictures.py", "import_module(f'mujoco.{backend}')"),
        ("core/lazy.py", "import_module(name)"),
        (
            "cli/__init__.py",
            "from tipl.experiments.demo import run\nimport_module(f'tipl.cli.{x}')",
        ),
        ("__init__.py", "from tipl.cli import main"),
    ],
)
def test_an_import_along_the_data_flow_is_allowed(tmp_path: Path, file: str, code: str) -> None:
    _plant(tmp_path / file, code)
    assert list(_violations(tmp_path)) == []


def _circles(imports: Mapping[str, set[str]]) -> list[list[str]]:
    """The groups of modules that import one another, now or later, save through a round door."""
    arrows = {
        module: {_home(name, imports) for name in names if (module, name) not in ROUND_DOORS}
        & imports.keys() - {module}
        for module, names in imports.items()
    }
    reached = {module: _all_reached(module, arrows) for module in arrows}
    groups = {
        tuple(sorted(other for other in reached[module] if module in reached[other]))
        for module in arrows
        if module in reached[module]
    }
    return [list(group) for group in sorted(groups)]


def _home(name: str, modules: Container[str]) -> str:
    """The module that a dotted name is, or else the one that it stands in."""
    return name if name in modules else name.rpartition(".")[0]


def _all_reached(start: str, arrows: Mapping[str, set[str]]) -> set[str]:
    reached: set[str] = set()
    ahead = [start]
    while ahead:
        new = arrows[ahead.pop()] - reached
        reached |= new
        ahead += new
    return reached


def test_no_modules_import_one_another() -> None:
    assert _circles(_imports(SOURCE)) == []


@pytest.mark.parametrize(
    "back",
    [
        "from tipl.core.first import thing",
        "from . import first",
        "def late():\n    import tipl.core.first",
        "import_module('tipl.core.first')",
        "HOME = 'tipl.core.first:thing'",
    ],
)
def test_modules_that_import_one_another_are_found(tmp_path: Path, back: str) -> None:
    _plant(tmp_path / "core/first.py", "from tipl.core.second import thing")
    _plant(tmp_path / "core/second.py", "from tipl.core.third import thing")
    _plant(tmp_path / "core/third.py", "import numpy")
    assert _circles(_imports(tmp_path)) == []
    _plant(tmp_path / "core/third.py", back)
    assert _circles(_imports(tmp_path)) == [
        ["tipl.core.first", "tipl.core.second", "tipl.core.third"]
    ]


def _plant(path: Path, code: str) -> None:
    path.parent.mkdir(exist_ok=True)
    path.write_text(code, encoding="utf-8")


def _loaded_by(modules: Sequence[str], suspects: set[str]) -> str:
    """Those of `suspects` that a fresh interpreter holds after importing modules of tipl."""
    imports = ", ".join(["tipl", *modules])
    code = f"import sys, {imports}; print(*sorted({suspects} & set(sys.modules)))"
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stderr
    return result.stdout.strip()


def _modules_of(rooms: Sequence[str]) -> list[str]:
    return [
        name for name in _modules(SOURCE) if name.split(".")[1:2] and name.split(".")[1] in rooms
    ]


def test_the_package_loads_lazily() -> None:
    assert _loaded_by([], {*PHYSICS, "torch", "numpy", "matplotlib", "scipy", "numba"}) == ""


def test_acting_and_forecasting_load_no_simulator_compiler_or_torch() -> None:
    assert _loaded_by(_modules_of(PHYSICS_FREE), {*PHYSICS, "numba", "torch"}) == ""


def test_what_learns_nothing_loads_no_torch() -> None:
    others = [room for room in ROOMS if room not in {*TORCH_USERS, "cli"}]
    assert _loaded_by(_modules_of(others), {"torch"}) == ""


def test_the_lookout_sees_what_is_loaded() -> None:
    assert _loaded_by(["tipl.policies.policy"], {"numpy", "torch"}) == "numpy"
