"""What is public is documented, keeps its name, and says nothing of the machine it was made on."""

from __future__ import annotations

import ast
import functools
import importlib
import inspect
import pkgutil
import re
import shutil
import subprocess
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import tipl

ROOT = Path(__file__).parents[1]

# Folders of one machine or one person, and addresses of people.
PERSONAL = re.compile(
    r"(?<![\w.~-])/(?:home|Users|root|work|tmp|private|mnt)(?:/|\b)"
    r"|\b[A-Z]:\\Users\b"
    r"|[\w.+-]+@[\w-]+(?:\.[\w-]+)*\.[A-Za-z]{2,}\b"
)


@functools.cache
def _module_names() -> list[str]:
    found = pkgutil.walk_packages(tipl.__path__, "tipl.")
    return ["tipl", *(module.name for module in found if "._" not in module.name)]


@pytest.mark.parametrize("name", _module_names())
def test_everything_public_has_a_docstring(name: str) -> None:
    assert list(_undocumented(importlib.import_module(name))) == []


def _undocumented(owner: Any) -> Iterator[str]:
    """Names of the public classes, functions and methods in a module or class without docstring."""
    if not _has_docstring(owner):
        yield owner.__name__
    for name, member in vars(owner).items():
        if name.startswith("_"):
            continue
        target = _function_of(member)
        if getattr(target, "__module__", None) != getattr(owner, "__module__", owner.__name__):
            continue  # imported or inherited from elsewhere, and documented there
        if inspect.isclass(target):
            yield from _undocumented(target)
        elif inspect.isroutine(target) and not _has_docstring(target):
            yield f"{owner.__name__}.{name}"


def _function_of(member: Any) -> Any:
    """The function behind a property or cached property; any other member as it is."""
    return getattr(member, "fget", getattr(member, "func", member))


def _has_docstring(thing: Any) -> bool:
    text = (thing.__doc__ or "").strip()
    if thing.__name__ == "<lambda>":  # the default of a field, which its class documents
        return True
    written_by_dataclass = text.startswith(f"{thing.__name__}(")
    return bool(text) and not written_by_dataclass


def test_missing_docstrings_are_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "planted.py").write_text(PLANTED, encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    missing = ["planted", "Bare", "Bare.act", "Bare.size", "Bare.norm", "Bare.make"]
    missing += ["Inner", "planted.late"]
    assert list(_undocumented(importlib.import_module("planted"))) == missing


PLANTED = '''
import dataclasses, functools
from pathlib import Path

@dataclasses.dataclass
class Bare:
    x: int = 0
    key: object = lambda self: 0
    def act(self): ...
    @property
    def size(self): ...
    @functools.cached_property
    def norm(self): ...
    @classmethod
    def make(cls): ...
    def _hidden(self): ...

class Full:
    """Documented."""
    class Inner: ...
    def act(self):
        """Documented."""

@functools.cache
def late(): ...

def _hidden(): ...
'''


@pytest.mark.parametrize("name", _module_names())
def test_every_exported_name_exists(name: str) -> None:
    module = importlib.import_module(name)
    exported = getattr(module, "__all__", [])
    assert [public for public in exported if not hasattr(module, public)] == []
    assert len(set(exported)) == len(exported)


def test_no_public_name_is_that_of_a_module() -> None:
    # Importing a module tipl.train would bind it to the package as `train`, in place of what
    # tipl.train is meant to be.
    assert set(tipl.__all__) & {name.removeprefix("tipl.") for name in _module_names()} == set()


def test_the_version_is_the_same_everywhere() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    citation = (ROOT / "CITATION.cff").read_text(encoding="utf-8")
    assert project["version"] == tipl.__version__
    assert f"\nversion: {tipl.__version__}\n" in citation


def test_committed_text_names_no_personal_folder_or_address() -> None:
    found = []
    for path in _files_for_git():
        try:
            lines = path.read_text(encoding="utf-8").splitlines()
        except UnicodeDecodeError:
            continue  # not a text
        found += [
            f"{path.relative_to(ROOT)}:{number}: {line.strip()[:100]}"
            for number, line in enumerate(lines, start=1)
            if PERSONAL.search(line)
        ]
    assert found == []


def _files_for_git() -> list[Path]:
    """What is committed, and what is there to be committed."""
    if not (ROOT / ".git").exists() or shutil.which("git") is None:
        pytest.skip("not a git checkout")
    listing = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    paths = [ROOT / name for name in listing.stdout.split("\0") if name]
    return [path for path in paths if path.is_file()]


@pytest.mark.parametrize(
    "text",
    [
        "/" + "home/ann/tipl",
        "see '/" + "tmp'",
        "file:///" + "work/x",
        "C:" + r"\Users\ann",
        "ann" + "@" + "example.org",
    ],
)
def test_personal_folders_and_addresses_are_found(text: str) -> None:
    assert PERSONAL.search(text)


@pytest.mark.parametrize(
    "text",
    ["runs/demo/tmp", "https://example.org/work/x", "A @ B.T", "@pytest.mark", "/usr/bin/env"],
)
def test_ordinary_text_is_left_alone(text: str) -> None:
    assert not PERSONAL.search(text)


# Names of files and modules that texts put between backticks.
NAMED_FILE = re.compile(r"`((?:[\w.-]+/)*[\w.-]+\.(?:py|sh))`")
NAMED_MODULE = re.compile(r"`(tipl(?:\.\w+)+)")
LINK = re.compile(r"\]\(([^)#:\s]+)(?:#[^)\s]*)?\)")
# Files of CleanRL's, of which the texts about scripts in its style speak.
OF_OTHERS = {"ppo.py", "ppo_continuous_action.py"}


def _texts() -> list[Path]:
    """All that is written for readers of the code: documents, and the code with its docstrings."""
    documents = [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *(ROOT / "src").rglob("*.md")]
    folders = ("src", "scripts", "benchmarks", "examples")
    return [*documents, *(path for folder in folders for path in (ROOT / folder).rglob("*.py"))]


def test_files_that_texts_name_are_there() -> None:
    homes = (ROOT, ROOT / "src" / "tipl")  # from the repository's root, or the package's
    named = {
        (path.relative_to(ROOT).as_posix(), name)
        for path in _texts()
        for name in NAMED_FILE.findall(path.read_text(encoding="utf-8"))
    }
    assert [
        (path, name)
        for path, name in sorted(named)
        if name not in OF_OTHERS and not any((home / name).exists() for home in homes)
    ] == []


def test_links_between_documents_lead_somewhere() -> None:
    links = [
        (path, link)
        for path in _texts()
        if path.suffix == ".md"
        for link in LINK.findall(path.read_text(encoding="utf-8"))
    ]
    assert [(path, link) for path, link in links if not (path.parent / link).exists()] == []


def test_modules_that_texts_name_are_there() -> None:
    named = {
        (path.relative_to(ROOT).as_posix(), name)
        for path in _texts()
        if path.name != "CHANGELOG.md"  # which tells of what was, too
        for name in NAMED_MODULE.findall(path.read_text(encoding="utf-8"))
    }
    assert [(path, name) for path, name in sorted(named) if not _exists(name)] == []


def _exists(name: str) -> bool:
    """Whether a dotted name is a module, or something in one, at its present address."""
    module, _, rest = name.partition(".")
    found: Any = importlib.import_module(module)
    for part in rest.split("."):
        module = f"{module}.{part}"
        if module in _module_names():
            found = importlib.import_module(module)
        else:
            found = getattr(found, part, None)
            if found is None or inspect.ismodule(found):  # such as one that has moved
                return False
    return True


@pytest.mark.parametrize("name", ["tipl.stats", "tipl.policies.Policies", "tipl.ppo.ppo.PPO.quick"])
def test_a_name_of_nothing_is_found(name: str) -> None:
    assert not _exists(name)


def test_the_package_asserts_nothing() -> None:
    # Wrong input is a TiplError; what cannot be is left to the type checker.
    found = [
        f"{path.relative_to(ROOT)}:{node.lineno}"
        for path in (ROOT / "src").rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Assert)
    ]
    assert found == []


def test_docstrings_are_markdown() -> None:
    source = Path(tipl.__file__).parent
    roles = re.compile(r":(?:class|func|meth|mod|attr|data):`|``|^#: ", re.MULTILINE)
    found = [
        f"{path.relative_to(source)}: {match[0]}"
        for path in source.rglob("*.py")
        for match in roles.finditer(path.read_text(encoding="utf-8").replace("```", ""))
    ]
    assert found == []


def test_modules_can_be_read_in_one_sitting() -> None:
    lengths = {
        path.relative_to(ROOT).as_posix(): len(path.read_text(encoding="utf-8").splitlines())
        for path in (ROOT / "src").rglob("*.py")
    }
    assert {path: lines for path, lines in lengths.items() if lines > 400} == {}
