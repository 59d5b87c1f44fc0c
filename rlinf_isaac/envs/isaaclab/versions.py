"""What differs between IsaacLab's releases: names of tasks, the order of quaternions, and which release an interpreter
has. Nothing of IsaacLab is imported."""

from __future__ import annotations

import subprocess

from rlinf_isaac.errors import Problem

PYTHON_VARIABLE = "ISAACLAB_PYTHON"
"""Names the interpreter that has IsaacLab. Where it lies is no part of what a job is, so it is no config key."""

SUPPORTED = "3.0"
"""Release that `envs.isaaclab` drives. On the 2.x line the task needs Isaac Sim, and this project has not run it."""

TASK_IDS = {
    "2": "Isaac-Stack-Cube-Franka-IK-Rel-Visuomotor-v0",
    "3": "IsaacContrib-Stack-Cube-Franka-IK-Rel-Visuomotor",
}
"""Major version -> the id of the task of `envs.contract`. Release 3 renamed the stacking tasks and kept no alias."""


def task_id(known: str, version: str) -> str:
    """The id that `version` has for a stacking task known by its 2.x or 3.x id.

    Raises:
        ValueError: it is no Franka stacking task.
    """
    bare = known.removeprefix("IsaacContrib-").removeprefix("Isaac-").removesuffix("-v0")
    if not bare.startswith("Stack-Cube-"):
        raise ValueError(f"{known!r} is no stacking task of IsaacLab")
    return f"Isaac-{bare}-v0" if version.startswith("2.") else f"IsaacContrib-{bare}"


def probe(python: str, timeout_s: float = 20.0) -> str | None:
    """Version of IsaacLab in the interpreter `python`; None when it has none, or does not run. Reads metadata only."""
    code = "import importlib.metadata as m; print(m.version('isaaclab'))"
    try:
        done = subprocess.run([python, "-I", "-c", code], capture_output=True, text=True, timeout=timeout_s)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() or None if done.returncode == 0 else None


def check_python(python: str | None) -> list[Problem]:
    """Whether this interpreter can run the simulator."""
    setup = "rlinf-isaac isaaclab setup --venv PATH makes one; then pass --isaaclab-python PATH/bin/python"
    if python is None:
        return [Problem("no-isaaclab-python", "no interpreter for IsaacLab was named", setup)]
    version = probe(python)
    if version is None:
        return [Problem("no-isaaclab", f"{python} has no IsaacLab, or is no interpreter", setup)]
    if not version.startswith(f"{SUPPORTED}."):
        cause = f"{python} has IsaacLab {version}, this project drives {SUPPORTED}"
        return [Problem("isaaclab-version", cause, setup)]
    return []
