"""What differs between IsaacLab's releases: names of tasks, the order of quaternions, and which release an interpreter
has. Nothing of IsaacLab is imported."""

from __future__ import annotations

from pathlib import Path

from rlinf_isaac.ground.errors import Problem
from rlinf_isaac.ground.probe import versions_in

PYTHON_VARIABLE = "ISAACLAB_PYTHON"
"""Names the interpreter that has IsaacLab. Where it lies is no part of what a job is, so it is no config key."""

SUPPORTED = "3.0"
"""Release that `envs.isaaclab` drives. On the 2.x line the task needs Isaac Sim, and this project has not run it."""

TASK_ID = "IsaacContrib-Stack-Cube-Franka-IK-Rel-Visuomotor"
"""The task of `envs.contract`. The 2.x line calls it Isaac-Stack-Cube-Franka-IK-Rel-Visuomotor-v0."""

REQUIREMENTS = Path(__file__).with_name("requirements.txt")
"""What the simulator's interpreter needs, besides torch."""


def probe(python: str, timeout_s: float = 20.0) -> dict[str, str | None] | None:
    """Versions of what the simulator needs in the interpreter `python`, as of `versions_in`."""
    names = [line.split("==")[0] for line in REQUIREMENTS.read_text().splitlines() if line and line[0] != "#"]
    return versions_in(python, ["torch", *names], timeout_s)


def check_python(python: str | None) -> list[Problem]:
    """Whether this interpreter can run the simulator, and what is missing."""
    setup = "rlinf-isaac isaaclab setup --venv PATH makes one; then pass --isaaclab-python PATH/bin/python"
    if python is None:
        return [Problem("no-isaaclab-python", "no interpreter for IsaacLab was named", setup)]
    versions = probe(python)
    if versions is None:
        return [Problem("no-isaaclab", f"{python} is no interpreter of Python, or does not run", setup)]
    version = versions["isaaclab"]
    if version is None:
        return [Problem("no-isaaclab", f"{python} has no IsaacLab", setup)]
    if not version.startswith(f"{SUPPORTED}."):
        cause = f"{python} has IsaacLab {version}, this project drives {SUPPORTED}"
        return [Problem("isaaclab-version", cause, setup)]
    if missing := [name for name, found in versions.items() if found is None]:
        cause = f"{python} has IsaacLab {version}, but not {', '.join(missing)}"
        return [Problem("isaaclab-incomplete", cause, f"{python} -m pip install {' '.join(missing)}, or {setup}")]
    return []
