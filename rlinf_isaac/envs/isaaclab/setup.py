"""Makes the virtual environment that IsaacLab runs in, and compiles its kernels once.

IsaacLab 3.0 wants Python 3.12 and pins a torch of its own, so it shares no environment with this project.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from rlinf_isaac.envs.isaaclab.versions import REQUIREMENTS, check_python
from rlinf_isaac.ground.errors import InvalidJob, Problem, RlinfIsaacError
from rlinf_isaac.ground.probe import output_of

PYTHON = "3.12"
TORCH = "torch==2.13.0"
DOWNLOAD_GB = 3.5
DISK_GB = 6.0
"""The environment took 5.6 GB on Linux x86_64, where PyPI's torch brings the CUDA libraries along and does not import
without them; the download is an estimate."""

COMPILE_SECONDS = 3600.0
"""For the first start, which compiles; generous, for on a busy machine it took more than half an hour."""


@dataclass(frozen=True)
class SetupPlan:
    """What `set_up` will do.

    Attributes:
        venv: where the virtual environment goes.
        base: a Python 3.12 that makes it.
        complete: it is there, and has IsaacLab.
    """

    venv: Path
    base: str
    complete: bool

    @property
    def python(self) -> Path:
        """The interpreter to pass as ``--isaaclab-python``."""
        return self.venv / "bin" / "python"

    @property
    def commands(self) -> list[list[str]]:
        """The commands, in order."""
        pip = [str(self.python), "-m", "pip", "install", "--no-cache-dir"]
        make = [self.base, "-m", "venv", str(self.venv)]
        return [make, [*pip, TORCH], [*pip, "--no-deps", "-r", str(REQUIREMENTS)]]


def plan_setup(venv: Path, base: str | None) -> SetupPlan:
    """Check what is there, and plan the rest.

    Args:
        venv: directory of the virtual environment, new or ours from before.
        base: a Python 3.12, or None: the one on the PATH.

    Raises:
        InvalidJob: no Python 3.12, too little room on the disk, or something else lies at `venv`.
    """
    problems = []
    venv = venv.absolute()
    complete = (venv / "bin" / "python").exists() and not check_python(str(venv / "bin" / "python"))
    found = base or shutil.which(f"python{PYTHON}")
    version = (
        output_of(found, "-I", "-c", "import sys; print(*sys.version_info[:2], sep='.')") if found else None
    ) or b""
    if version.decode().strip() != PYTHON and not complete:
        cause = f"{found or f'python{PYTHON}'} is no Python {PYTHON}, which IsaacLab 3.0 needs"
        problems.append(Problem("no-python-312", cause, f"install Python {PYTHON}, and name it with --python"))
    if venv.exists() and not (venv / "pyvenv.cfg").is_file() and (not venv.is_dir() or any(venv.iterdir())):
        cause = f"{venv} exists and is no virtual environment"
        problems.append(Problem("output-exists", cause, "choose another --venv, or remove it"))
    parent = next(each for each in (venv, *venv.parents) if each.exists())
    free = shutil.disk_usage(parent).free / 1e9
    if free < DISK_GB and not complete:
        cause = f"{parent} has {free:.1f} GB free, the environment takes {DISK_GB:.0f}"
        problems.append(Problem("disk-space", cause, "make room, or choose another --venv"))
    if problems:
        raise InvalidJob(problems)
    return SetupPlan(venv, str(found), complete)


def set_up(plan: SetupPlan) -> Iterator[str]:
    """Carry out the plan; yields what it does next.

    Raises:
        RlinfIsaacError: a command failed. Run again, it goes on.
        SimulatorDied: IsaacLab does not start.
    """
    if not plan.complete:
        for command in plan.commands:
            yield " ".join(command)
            if status := subprocess.run(command, env=_environment()).returncode:
                raise RlinfIsaacError(f"{' '.join(command)} failed with exit status {status}")
    yield "start IsaacLab once: the first start compiles Warp's kernels, which takes minutes"
    warm_kernels(str(plan.python))


def warm_kernels(python: str) -> None:
    """Start the simulator, and have it do everything once; the compiled kernels stay in Warp's cache."""
    import numpy as np

    from rlinf_isaac.envs.isaaclab.env import IsaacLabVectorEnv

    env = IsaacLabVectorEnv(1, image_size=32, python=python, start_s=COMPILE_SECONDS)
    try:
        env.reset(seed=0)
        env.step(np.zeros((1, 7), np.float32))
        env.render_frame(0, 32)
    finally:
        env.close()


def _environment() -> dict[str, str]:
    """Ours without what would lead another interpreter to our packages."""
    return {key: value for key, value in os.environ.items() if key not in ("PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV")}
