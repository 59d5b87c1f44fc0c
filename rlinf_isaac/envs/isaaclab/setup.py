"""Creates the virtual environment in which IsaacLab runs, and compiles its kernels.

IsaacLab 3.0 needs Python 3.12 and pins its own torch version, so it cannot share this project's environment.
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
from rlinf_isaac.ground.probe import failure_of, output_of

PYTHON = "3.12"
TORCH = "torch==2.13.0"
DOWNLOAD_GB = 3.5
DISK_GB = 6.0
"""The environment took 5.6 GB on Linux x86_64, where PyPI's torch depends on the CUDA libraries and does not import
without them. The size of the download is an estimate."""

COMPILE_SECONDS = 3600.0
"""Time limit for the first start, which compiles kernels. On a busy machine it took more than half an hour."""


@dataclass(frozen=True)
class SetupPlan:
    """The plan of `set_up`.

    Attributes:
        venv: directory of the virtual environment.
        base: the Python 3.12 that creates it.
        complete: whether the environment exists and has IsaacLab.
    """

    venv: Path
    base: str
    complete: bool

    @property
    def python(self) -> Path:
        """The interpreter to pass as ``--env-python``."""
        return self.venv / "bin" / "python"

    @property
    def commands(self) -> list[list[str]]:
        """The commands that create the environment, in order."""
        pip = [str(self.python), "-m", "pip", "install", "--no-cache-dir"]
        make = [self.base, "-m", "venv", str(self.venv)]
        return [make, [*pip, TORCH], [*pip, "--no-deps", "-r", str(REQUIREMENTS)]]


def plan_setup(venv: Path, base: str | None) -> SetupPlan:
    """Check what exists already, and plan the remaining steps.

    Args:
        venv: directory of the virtual environment. It may exist from an earlier setup.
        base: a Python 3.12; None uses the one on the PATH.

    Raises:
        InvalidJob: there is no Python 3.12 or too little disk space, or `venv` is not a virtual environment.
    """
    problems = []
    venv = venv.absolute()
    complete = (venv / "bin" / "python").exists() and not check_python(str(venv / "bin" / "python"))
    python = base or shutil.which(f"python{PYTHON}")
    version = (
        output_of(python, "-I", "-c", "import sys; print(*sys.version_info[:2], sep='.')") if python else None
    ) or b""
    if version.decode().strip() != PYTHON and not complete:
        cause = f"{python or f'python{PYTHON}'} is not a Python {PYTHON}, which IsaacLab 3.0 needs"
        cure = f"install Python {PYTHON}, and name it with --python"
        if python and (said := failure_of(python, "-I", "-c", "")):
            cause = f"{python} does not run; it says: {said}"
            if "shims" in Path(python).parts:
                cure = (
                    f"this is a shim of pyenv, which has no Python {PYTHON} active here: `pyenv versions` lists them; "
                    f"pass --python $(pyenv prefix {PYTHON})/bin/python, or run `pyenv shell {PYTHON}` first"
                )
        problems.append(Problem("no-python-312", cause, cure))
    if venv.exists() and not (venv / "pyvenv.cfg").is_file() and (not venv.is_dir() or any(venv.iterdir())):
        cause = f"{venv} exists and is not a virtual environment"
        problems.append(Problem("output-exists", cause, "choose another --venv, or remove it"))
    parent = next(path for path in (venv, *venv.parents) if path.exists())
    free = shutil.disk_usage(parent).free / 1e9
    if free < DISK_GB and not complete:
        cause = f"{parent} has {free:.1f} GB free, the environment takes {DISK_GB:.0f}"
        problems.append(Problem("disk-space", cause, "free some space, or choose another --venv"))
    if problems:
        raise InvalidJob(problems)
    return SetupPlan(venv, str(python), complete)


def set_up(plan: SetupPlan) -> Iterator[str]:
    """Carry out the plan. Yields a description of each step before it starts.

    Raises:
        RlinfIsaacError: a command failed. Running the setup again continues it.
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
    """Start the simulator and use each of its functions once, so that the compiled kernels are in Warp's cache."""
    import numpy as np

    from rlinf_isaac.config.task import stack_cube
    from rlinf_isaac.envs.isaaclab.env import IsaacLabVectorEnv

    env = IsaacLabVectorEnv(1, stack_cube("stack3"), image_size=32, python=python, start_s=COMPILE_SECONDS)
    try:
        env.reset(seed=0)
        env.step(np.zeros((1, 7), np.float32))
        env.render_frame(0, 32)
    finally:
        env.close()


def _environment() -> dict[str, str]:
    """The environment variables without those with which another interpreter would find our packages."""
    return {key: value for key, value in os.environ.items() if key not in ("PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV")}
