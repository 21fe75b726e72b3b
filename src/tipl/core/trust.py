"""What files may name: modules that are imported and files that are opened on the user's word.

A task's id is `"module:id"` where an environment registers itself when its module is imported, and
the arguments of its environment may be paths. So a file names code and files, and it may come from
anybody: nothing here imports what nobody has named.
"""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Iterable
from contextlib import ExitStack
from itertools import accumulate

from tipl.core.addresses import is_address
from tipl.errors import TiplError, shown

LONGEST_NAME = 150
"""Of a module: longer ones are no names."""

# of the whole process: environments are made in threads as well
_trusted: set[str] = set()
_trusted_arguments: set[str] = set()


def trust(*modules: str, arguments: Iterable[str] = ()) -> ExitStack:
    """Lets files name modules, which are imported where an environment is made, and arguments.

    The files of policies, datasets, models and forecasts name their task, and with it the module
    that registers its environment, as in `"my_package.envs:MyEnv-v0"`. Such a module is imported
    only if it, or a package that it is in, is trusted. Ids that you give yourself, as in
    `tipl.collect("my_package.envs:MyEnv-v0")`, need no more words: their modules are trusted, too.

    Trust lasts as long as the process; `with tipl.trust("my_package"):` ends it with the block, but
    environments that have been registered by then stay so.

    Args:
        *modules: names such as `"my_package"`, which covers `"my_package.envs"`.
        arguments: texts that files may give to an environment though they could name a file or
            code, such as `xml_file="./my_ant.xml"`: `["./my_ant.xml"]`. Those of an
            environment that you have made yourself, `tipl.envs.make_task(env.spec)`, are trusted.

    Raises:
        TiplError: one is not the name of a module.

    Examples:
        >>> with tipl.trust("my_package"):
        ...     policy = tipl.Policy.load("runs/policy")
    """
    for module in modules:
        if not is_module_name(module):
            raise TiplError(
                f"{shown(module)} was given as the name of a module to trust: expected one such as "
                "'my_package.envs'; give the name that an import statement would have"
            )
    end = ExitStack()
    for known, names in ((_trusted, set(modules)), (_trusted_arguments, set(arguments))):
        new = names - known
        known.update(new)
        end.callback(known.difference_update, new)
    return end


def trust_own(env_id: str) -> None:
    """Trusts the module, if any, of an id that is the user's own word.

    Raises:
        TiplError: what stands before the colon is not the name of a module.
    """
    if module := split_id(env_id)[0]:
        trust(module)


def split_id(env_id: str) -> tuple[str, str]:
    """The module of an id, empty if there is none, and the id under which it registers."""
    module, _, name = env_id.rpartition(":")
    return module, name


def is_module_name(module: str) -> bool:
    """Whether an import statement could name it: no relative, and no path of a file, could."""
    return len(module) <= LONGEST_NAME and all(part.isidentifier() for part in module.split("."))


def is_trusted(module: str) -> bool:
    """Whether a module, or a package that it is in, is trusted."""
    parts = accumulate(module.split("."), lambda package, name: f"{package}.{name}")
    return is_module_name(module) and not _trusted.isdisjoint(parts)


def is_trusted_argument(text: str) -> bool:
    """Whether a text may reach an environment though it could name a file or code."""
    return text in _trusted_arguments


def check_named(path: object, owner: object) -> None:
    """Raises a TiplError if a path that a file names is an address that nobody has trusted."""
    if is_address(str(path)) and not is_trusted_argument(str(path)):
        raise TiplError(
            f"{owner} names the address {path}, and nothing is fetched because a file says so: if "
            f"you trust that address, add `--trust-argument {path}` to the command, or call "
            f"tipl.trust(arguments=[{str(path)!r}]) first"
        )


def import_trusted(env_id: str) -> None:
    """Imports the module, if any, of an id, if it is trusted; its errors are its own."""
    module, _ = split_id(env_id)
    if is_trusted(module):
        importlib.import_module(module)


def trusted_words() -> list[str]:
    """The options by which another command of tipl trusts what this process does."""
    options = (("--trust-module", _trusted), ("--trust-argument", _trusted_arguments))
    return [f"{option}={name}" for option, names in options for name in sorted(names)]


def trusted() -> dict[str, list[str]]:
    """What this process trusts, for another one: the names given to `trust`."""
    return {"modules": sorted(_trusted), "arguments": sorted(_trusted_arguments)}


def untrusted(env_id: str) -> TiplError:
    """What to say of an id, from a file, whose module nobody has named. Imports nothing."""
    module, _ = split_id(env_id)
    if not is_module_name(module):
        return TiplError(
            f"a task with the environment id {shown(env_id)} was read: expected the name of a "
            "module before the colon, as in 'my_package.envs:MyEnv-v0'; correct the id"
        )
    return TiplError(
        f"the task {shown(env_id, 200)} asks for the module {module!r}, which would be imported "
        f"({_origin(module)}): expected your word before a file names code that runs; if you trust "
        f"that module, add `--trust-module {module}` to the command, or call "
        f"tipl.trust({module!r}) first"
    )


def _origin(module: str) -> str:
    """Where a module would be imported from: to find a submodule would import its package."""
    package = module.partition(".")[0]
    try:
        spec = importlib.util.find_spec(package)
    except Exception:  # of somebody's finder, or of a module that was made by hand
        spec = None
    if spec is None:
        return f"{package} is not found here"
    places = [spec.origin, *(spec.submodule_search_locations or ())]
    return f"{package} from {next(filter(None, places), 'nowhere that could be told')}"
