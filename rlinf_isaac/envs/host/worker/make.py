"""Builds what a task names: an environment, or an expert."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Callable, Iterable, Mapping
from hashlib import sha256
from importlib import import_module
from importlib.metadata import PackageNotFoundError, distributions, version
from pathlib import Path
from types import ModuleType
from typing import Any


class SourceChanged(Exception):
    """A file is not the one that the task was read with."""


def make_environment(
    kind: str, make: str, options: Mapping[str, Any], directory: str | None, sources: Mapping[str, str]
) -> Any:
    """A new environment: of the function that `make` names, of ``gymnasium.make``, or of lerobot.

    Args:
        kind: as `tasks.task.Environment.kind`.
        make: as `tasks.task.Environment.make`. ``module:name`` is the module's function of that name if it has one,
            and otherwise the id of an environment that the module registers, as gymnasium writes it.
        options: its keyword arguments.
        directory: where a file is looked for.
        sources: file -> sha256 that it must have.
    """
    if kind == "lerobot":
        return make_of_lerobot(make, options, directory, sources)
    function = find_function(make, directory, sources)
    if function is not None:
        return function(**options)
    import gymnasium

    return gymnasium.make(make, **{"disable_env_checker": True, **options})


def draw_without_display() -> None:
    """Let MuJoCo draw by EGL. Where another value stands, somebody has chosen it for this machine; one that switches GL
    off is for the parent."""
    if os.environ.get("MUJOCO_GL", "disable").lower() in ("", "0", "off", "disable", "disabled"):
        os.environ["MUJOCO_GL"] = "egl"


def make_of_lerobot(make: str, options: Mapping[str, Any], directory: str | None, sources: Mapping[str, str]) -> Any:
    """A new environment of lerobot: a single one, taken out of the vector environment that lerobot makes of it.

    Args:
        make: the type of an `EnvConfig`, lerobot's own or one of a package whose name begins with ``lerobot_env_``; or
            ``package.module:class`` or ``file.py:class``, a config's class.
        options: the config's fields.
        directory, sources: as for `make_environment`.

    Raises:
        ValueError: there is no such type; it has several tasks at once; or its code would come from the hub.
    """
    failed = _import_plugins()
    from lerobot.envs.configs import EnvConfig

    function = find_function(make, directory, sources)
    if function is None:
        known = EnvConfig.get_known_choices()
        if make not in known:
            told = f"; could not be imported: {', '.join(failed)}" if failed else ""
            raise ValueError(f"lerobot has no environment of the type {make!r}, only {', '.join(sorted(known))}{told}")
        function = known[make]
    config = function(**options)
    if getattr(config, "hub_path", None):
        raise ValueError(f"{make} would execute code of {config.hub_path}; install it, and name what it makes")
    if hasattr(config, "create_envs"):
        made = config.create_envs(n_envs=1, use_async_envs=False)
    else:  # before lerobot 0.5
        from lerobot.envs.factory import make_env

        made = make_env(config, n_envs=1)
    vectors = [vector for tasks in made.values() for vector in tasks.values()]
    if len(vectors) != 1:
        raise ValueError(f"{make} is {len(vectors)} tasks; choose one of them in env.options")
    return vectors[0].envs[0]


def _import_plugins() -> list[str]:
    """Import the packages that are named as lerobot's environments are; returns those that fail."""
    failed = []
    for name in sorted({each.metadata["Name"].replace("-", "_") for each in distributions()}):
        if name.startswith("lerobot_env_"):
            try:
                import_module(name)
            except Exception as error:
                failed.append(f"{name} ({error})")
    return failed


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
    modules = [each.partition(".")[0] for each in (own, *([place] if place and place not in sources else []))]
    providers = _providers(modules)
    for module in modules:
        for name in sorted(providers[module]):
            return name, version(name)
    if place in sources:
        return Path(place).stem, sources[place][:8]
    return (place or own).partition(".")[0], "unknown"


def bases(env: Any) -> list[str]:
    """The distributions of the classes that the class of an environment, without its wrappers, is derived from: what is
    in a file may be somebody's environment with a few changes."""
    modules = [each.__module__.partition(".")[0] for each in type(getattr(env, "unwrapped", env)).__mro__]
    return sorted({name for names in _providers(modules).values() for name in names})


def _providers(modules: Iterable[str]) -> dict[str, list[str]]:
    """Top-level module -> names of the distributions that have it, as `importlib.metadata.packages_distributions` says,
    which parses all that is installed and takes most of a second."""
    found: dict[str, list[str]] = {module: [] for module in modules}
    for each in distributions():
        declared = (each.read_text("top_level.txt") or "").split()
        record = "" if declared else each.read_text("RECORD") or ""
        for module, names in found.items():
            if module in declared or re.search(rf"^{re.escape(module)}(/[^,\n]*)?\.py,", record, re.MULTILINE):
                names.append(each.metadata["Name"])
    return found


def versions(*distributions: str) -> dict[str, str]:
    """The versions of those distributions that are there."""
    found = {}
    for name in distributions:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found
