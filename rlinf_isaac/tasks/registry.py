"""Finds a task by what a person calls it: a YAML file, one of this project's (`shipped`), or one that another package
offers under the entry-point group ``rlinf_isaac.tasks``."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterator, Mapping
from functools import cache
from importlib import import_module
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from pkgutil import iter_modules
from typing import Any

from rlinf_isaac.ground.errors import InvalidJob
from rlinf_isaac.tasks.read import read_task
from rlinf_isaac.tasks.task import Task

GROUP = "rlinf_isaac.tasks"
SHIPPED = "rlinf_isaac.tasks.shipped"
TASKS, SUITES = "TASKS", "SUITES"
"""Dicts that a module of `SHIPPED` may have: name -> a function that makes the task, or that gives the names of the
tasks of a suite."""


def find_task(name: str) -> Task:
    """The task of this name, or of this YAML file.

    Raises:
        InvalidJob: there is none; the message names the nearest one. Or what describes it is wrong.
    """
    if name.endswith((".yaml", ".yml")):
        return read_task(Path(name))
    made = _offered().get(name)
    if made is None:
        near = difflib.get_close_matches(name, _offered(), n=3, cutoff=0.5) or sorted(_offered())[:6]
        cure = f"use {' or '.join(near)}, or a task of your own in a .yaml file; docs/tasks.md says how"
        raise InvalidJob.of("unknown-task", f"there is no task {name!r}", cure)
    try:
        task = made()
    except (ImportError, AttributeError) as error:
        cause = f"the entry point {name!r} of the group {GROUP} cannot be loaded: {error}"
        raise InvalidJob.of("bad-task", cause, "install what it needs, or tell the authors of the package") from error
    if not isinstance(task, Task):
        cause = f"the entry point {name!r} of the group {GROUP} gives a {type(task).__name__}"
        raise InvalidJob.of("bad-task", cause, "make it a rlinf_isaac.tasks.task.Task, or a function that returns one")
    return task


def origin_of(name: str) -> str:
    """Where the description of a task comes from: a file, this project, or another package's entry point."""
    if name.endswith((".yaml", ".yml")):
        return str(Path(name).absolute())
    point = _points().get(name)
    if point is None:
        return "this project"
    return f"{point.dist.name if point.dist else 'a package'}, {point.value}"


def task_names() -> list[str]:
    """The names of all tasks that are not in a YAML file."""
    return sorted(_offered())


@cache
def _offered() -> Mapping[str, Callable[[], Any]]:
    return dict([*offered(TASKS).items(), *_of_other_packages()])


@cache
def offered(what: str) -> Mapping[str, Callable[[], Any]]:
    """What the modules of `shipped` have under a name, `TASKS` or `SUITES`."""
    package = import_module(SHIPPED)
    modules = [import_module(module.name) for module in iter_modules(package.__path__, f"{SHIPPED}.")]
    return {name: made for module in modules for name, made in getattr(module, what, {}).items()}


@cache
def _points() -> Mapping[str, EntryPoint]:
    return {each.name: each for each in entry_points(group=GROUP)}


def _of_other_packages() -> Iterator[tuple[str, Callable[[], Any]]]:
    for each in _points().values():

        def make(point: Any = each) -> Any:
            loaded = point.load()
            return loaded() if callable(loaded) else loaded

        yield each.name, make
