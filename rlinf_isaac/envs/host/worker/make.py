"""Builds what a task names: an environment, or an expert."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from hashlib import sha256
from importlib import import_module
from importlib.metadata import PackageNotFoundError, packages_distributions, version
from pathlib import Path
from types import ModuleType
from typing import Any


class SourceChanged(Exception):
    """A file is not the one that the task was read with."""


def make_environment(make: str, options: Mapping[str, Any], directory: str | None, sources: Mapping[str, str]) -> Any:
    """A new environment: of the function that `make` names, or of ``gymnasium.make``.

    Args:
        make: as `tasks.task.Environment.make`. ``module:name`` is the module's function of that name if it has one,
            and otherwise the id of an environment that the module registers, as gymnasium writes it.
        options: its keyword arguments.
        directory: where a file is looked for.
        sources: file -> sha256 that it must have.
    """
    function = find_function(make, directory, sources)
    if function is not None:
        return function(**options)
    import gymnasium

    return gymnasium.make(make, **{"disable_env_checker": True, **options})


def find_function(make: str, directory: str | None, sources: Mapping[str, str]) -> Callable[..., Any] | None:
    """The function that ``package.module:function`` or ``file.py:function`` names; None for an environment's id.

    Raises:
        SourceChanged: the file is not the one with this digest.
        AttributeError: the file has no such function.
    """
    place, colon, name = make.rpartition(":")
    if not colon:
        return None
    if place.endswith(".py"):
        return getattr(_load(place, directory, sources), name)
    return getattr(import_module(place), name, None) if name.isidentifier() else None


def _load(file: str, directory: str | None, sources: Mapping[str, str]) -> ModuleType:
    """The module of a file: exactly the bytes whose digest was compared are executed, and once."""
    path = Path(directory or ".") / file
    name = f"rlinf_isaac_task_{sha256(str(path).encode()).hexdigest()[:16]}"
    if name not in sys.modules:
        source = path.read_bytes()
        if sha256(source).hexdigest() != sources.get(file):
            raise SourceChanged(str(path))
        module = ModuleType(name)
        module.__file__ = str(path)
        sys.modules[name] = module  # dataclasses look for their module there
        try:
            exec(compile(source, str(path), "exec"), module.__dict__)
        except BaseException:
            del sys.modules[name]
            raise
    return sys.modules[name]


def provider(make: str, env: Any, sources: Mapping[str, str]) -> tuple[str, str]:
    """Name and version of what an environment comes from: the distribution of its class, without its wrappers, or else
    of `make`.

    What is in a file has the file's name, and the beginning of its digest for a version.
    """
    own, place = type(getattr(env, "unwrapped", env)).__module__, make.rpartition(":")[0]
    providers = packages_distributions()
    for module in (own, *([place] if place and place not in sources else [])):
        for name in sorted(providers.get(module.partition(".")[0], ())):
            return name, version(name)
    if place in sources:
        return Path(place).stem, sources[place][:8]
    return (place or own).partition(".")[0], "unknown"


def versions(*distributions: str) -> dict[str, str]:
    """The versions of those distributions that are there."""
    found = {}
    for name in distributions:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found
