"""The interpreter that has a task's environment: which one it is, and whether it has what it needs.

Nothing of the environment is imported.
"""

from __future__ import annotations

import os
import re
import shutil
import sys
from hashlib import sha256
from importlib import import_module
from pathlib import Path

from rlinf_isaac.ground.errors import Problem, SimulatorError
from rlinf_isaac.ground.probe import versions_in
from rlinf_isaac.tasks.task import ISAACLAB, RLINF, Environment, Task

NEEDED = ("numpy",)
"""Distributions that a worker itself needs."""
PYTHONS = {ISAACLAB: "$ISAACLAB_PYTHON"}
"""Kind of environment -> the interpreter of tasks that name none."""
SETUPS = {ISAACLAB: "rlinf-isaac isaaclab setup --venv PATH"}
"""Kind of environment -> the command that makes such an interpreter."""
_VARIABLE = re.compile(r"\$(?:(\w+)|\{(\w+)\})")
_OURS = "rlinf_isaac."


def find_python(task: Task, env_python: str | None = None) -> str:
    """The interpreter of a task's environment: `env_python`, or that of the task, or this process's own.

    Raises:
        SimulatorError: a variable in its name is not set, or there is no such file that can be executed.
    """
    python, problems = _python(task, env_python)
    if problems:
        raise SimulatorError(problems)
    return python


def check_host(task: Task, env_python: str | None = None) -> list[Problem]:
    """What keeps the environment of a task from being made, as far as it shows without importing anything of it.

    Args:
        task: whose environment is not built in.
        env_python: as for `find_python`.
    """
    assert task.env is not None
    problems = changed_sources(task.env)
    python, not_there = _python(task, env_python)
    if not_there:
        return problems + not_there
    versions = versions_in(python, needed_by(task.env))
    if versions is None:
        cause = f"{python} is not a Python interpreter, or does not run"
        return [*problems, Problem("no-env-python", cause, _cure(task))]
    if missing := [name for name, installed in versions.items() if installed is None]:
        cause = f"{python} does not have {', '.join(missing)}, which the environment of {task.name} needs"
        problems.append(Problem("no-env-package", cause, _cure(task)))
    return problems


def needed_by(env: Environment) -> list[str]:
    """The distributions that are known to be needed. A module of this project that makes environments names those of
    others in ``REQUIRES``."""
    place = env.make.rpartition(":")[0]
    if place.startswith(_OURS):
        return [*NEEDED, *getattr(import_module(place), "REQUIRES", ())]
    if env.kind in ("lerobot", ISAACLAB):
        return [*NEEDED, env.kind]
    if env.kind == RLINF:
        own = () if place.partition(".")[0] not in ("", RLINF) or place.endswith(".py") else (RLINF,)
        return [*NEEDED, "gymnasium", "omegaconf", "torch", *own]
    return [*NEEDED, *(() if place else ("gymnasium",))]


def changed_sources(env: Environment) -> list[Problem]:
    """Files beside the task's description that are not those that it was read with."""
    problems = []
    for file, digest in env.sources.items():
        path = Path(env.directory or ".") / file
        try:
            now = sha256(path.read_bytes()).hexdigest()
        except OSError as error:
            cause = f"{path}, which the task names, cannot be read: {error.strerror}"
            problems.append(Problem("env-source-changed", cause, "put it back, or read the task again with --task"))
            continue
        if now != digest:
            cause = f"{path} is {now[:12]}, and was {digest[:12]} when the task was read"
            problems.append(Problem("env-source-changed", cause, "put it back, or read the task again with --task"))
    return problems


def _python(task: Task, env_python: str | None) -> tuple[str, list[Problem]]:
    """The interpreter, and what is wrong with it."""
    assert task.env is not None
    named = env_python or task.env.python or PYTHONS.get(task.env.kind)
    if named is None:
        return sys.executable, []
    unset = [name for match in _VARIABLE.findall(named) for name in match if name and not os.environ.get(name)]
    if unset:
        cause = f"the environment of {task.name} runs in {named}, and {', '.join(unset)} is not set"
        return named, [Problem("no-env-python", cause, _cure(task))]
    python = os.path.expanduser(os.path.expandvars(named))
    found = shutil.which(python)
    if found is None:
        cause = f"the environment of {task.name} runs in {python}, and there is no such file that can be executed"
        return python, [Problem("no-env-python", cause, _cure(task))]
    return found, []


def _cure(task: Task) -> str:
    """How a person gets the interpreter."""
    assert task.env is not None
    make = task.env.setup or SETUPS.get(task.env.kind) or "make a virtual environment with the environment's packages"
    named = task.env.python or PYTHONS.get(task.env.kind) or ""
    variables = [name for match in _VARIABLE.findall(named) for name in match if name]
    if variables:
        return f"{make}; then set {variables[0]} to its python"
    return f"{make}; then name its python in env.python, or with --env-python"
