"""Every name that `tipl` exports has an example in its docstring, and all examples run."""

from __future__ import annotations

import doctest
import importlib
import inspect
import pkgutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

import tipl
from path_data import make_dataset
from tipl.evaluation.pictures import missing_renderer

GIVEN = {"tipl": tipl, "np": np}
"""Names that examples use without importing them."""


@pytest.fixture(scope="module", autouse=True)
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Where examples run: it has the directories of a dataset and a policy, which they read."""
    place = tmp_path_factory.mktemp("examples")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(place)
        make_dataset(Path("runs/paths"))
        tipl.Policy.initial("InvertedPendulum-v4", seed=0).save("runs/policy")
        yield


def _examples() -> dict[str, doctest.DocTest]:
    """The examples of what packages export, by its first name; `tipl` comes before its rooms."""
    found: dict[int, tuple[str, doctest.DocTest]] = {}
    packages = [one.name for one in pkgutil.walk_packages(tipl.__path__, "tipl.") if one.ispkg]
    for package in ["tipl", *packages]:
        module = importlib.import_module(package)
        for name in getattr(module, "__all__", []):
            exported = getattr(module, name)
            text = "" if isinstance(exported, str) else inspect.getdoc(exported) or ""
            test = doctest.DocTestParser().get_doctest(text, dict(GIVEN), name, None, None)
            if test.examples:
                found.setdefault(id(exported), (f"{package}.{name}", test))
    return dict(found.values())


EXAMPLES = _examples()


@pytest.mark.parametrize("name", [one for one in tipl.__all__ if one != "__version__"])
def test_what_tipl_exports_has_an_example(name: str) -> None:
    assert f"tipl.{name}" in EXAMPLES


@pytest.mark.filterwarnings("ignore:.*is out of date:DeprecationWarning")  # v4, by choice
@pytest.mark.parametrize("name", EXAMPLES)
def test_an_example_says_what_is_so(name: str) -> None:
    missing = missing_renderer() if name == "tipl.film" else None
    if missing:
        pytest.skip(missing)
    said: list[str] = []
    runner = doctest.DocTestRunner(optionflags=doctest.NORMALIZE_WHITESPACE)
    result = runner.run(EXAMPLES[name], out=said.append)
    assert result.failed == 0, "".join(said)
