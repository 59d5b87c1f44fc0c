"""What keeps a task of the kind ``isaaclab`` from being played, as far as it shows without starting IsaacLab."""

from __future__ import annotations

from rlinf_isaac.envs.host.interpreter import check_host, find_python
from rlinf_isaac.envs.isaaclab.options import read_options
from rlinf_isaac.envs.isaaclab.versions import SUPPORTED, check_python
from rlinf_isaac.ground.errors import Problem
from rlinf_isaac.tasks.task import Task

OPTIONS = "docs/environments.md says what a task of the kind isaaclab has in env.options"


def check_lab(task: Task, env_python: str | None = None) -> list[Problem]:
    """Wrong options, an interpreter that is missing or lacks something, and files that have changed.

    Args:
        task: of the kind ``isaaclab``.
        env_python: as for `host.interpreter.find_python`.
    """
    assert task.env is not None
    problems = [Problem("isaaclab-options", cause, OPTIONS) for cause in read_options(task.env.options)[1]]
    if not task.env.make:
        cure = f"name a task of IsaacLab {SUPPORTED}, as IsaacContrib-Lift-Cube-Franka-IK-Rel"
        problems.append(Problem("isaaclab-options", f"env.make of {task.name} is missing", cure))
    problems += (of_host := check_host(task, env_python))
    if not any(each.code in ("no-env-python", "no-env-package") for each in of_host):
        problems += check_python(find_python(task, env_python))
    return problems
