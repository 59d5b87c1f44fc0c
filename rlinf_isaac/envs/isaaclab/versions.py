"""The supported IsaacLab release, the name of its task, and which release an interpreter has.

IsaacLab itself is not imported.
"""

from __future__ import annotations

from pathlib import Path

from rlinf_isaac.ground.errors import Problem
from rlinf_isaac.ground.probe import failure_of, versions_in

PYTHON_VARIABLE = "ISAACLAB_PYTHON"
"""Environment variable that names the interpreter with IsaacLab. It is not a config key, because its path depends on
the machine, not on the job."""

SUPPORTED = "3.0"
"""The release that `envs.isaaclab` supports. In 2.x the task needs Isaac Sim, and this project has not run it."""

TASK_ID = "IsaacContrib-Stack-Cube-Franka-IK-Rel-Visuomotor"
"""IsaacLab's name for the task of `stack_cube.contract`. In 2.x it is Isaac-Stack-Cube-Franka-IK-Rel-Visuomotor-v0."""

REQUIREMENTS = Path(__file__).with_name("requirements.txt")
"""The packages that the simulator's interpreter needs besides torch."""


def probe(python: str, timeout_s: float = 20.0) -> dict[str, str | None] | None:
    """Versions of the packages that the simulator needs, in the interpreter `python`; see `versions_in`."""
    names = [line.split("==")[0] for line in REQUIREMENTS.read_text().splitlines() if line and line[0] != "#"]
    return versions_in(python, ["torch", *names], timeout_s)


def check_python(python: str | None) -> list[Problem]:
    """The problems that keep an interpreter from running the simulator; empty if there are none."""
    setup = "rlinf-isaac isaaclab setup --venv PATH makes one; then pass --env-python PATH/bin/python"
    if python is None:
        return [Problem("no-isaaclab-python", "no interpreter for IsaacLab was named", setup)]
    versions = probe(python)
    if versions is None:
        said = failure_of(python, "-I", "-c", "")
        cause = f"{python} does not run; it says: {said}" if said else f"{python} is not a Python interpreter"
        return [Problem("no-isaaclab", cause, setup)]
    version = versions["isaaclab"]
    if version is None:
        return [Problem("no-isaaclab", f"{python} has no IsaacLab", setup)]
    if not version.startswith(f"{SUPPORTED}."):
        cause = f"{python} has IsaacLab {version}, this project supports {SUPPORTED}"
        return [Problem("isaaclab-version", cause, setup)]
    if missing := [name for name, installed in versions.items() if installed is None]:
        cause = f"{python} has IsaacLab {version}, but not {', '.join(missing)}"
        return [Problem("isaaclab-incomplete", cause, f"{python} -m pip install {' '.join(missing)}, or {setup}")]
    return []
