"""The directory of one run on RLinf, and the environment of its processes."""

from __future__ import annotations

import secrets
import time
from pathlib import Path

from omegaconf import DictConfig, OmegaConf

from rlinf_isaac.engines.base import EvaluationJob, RlJob, SftJob
from rlinf_isaac.envs.isaaclab.versions import PYTHON_VARIABLE

CONFIG_FILE = "config.yaml"


def new_run(output: Path) -> Path:
    """A new, unique path below ``<output>/rlinf``, with the time in its name."""
    return output / "rlinf" / f"{time.strftime('%Y%m%d-%H%M%S')}-{secrets.token_hex(2)}"


def freeze(config: DictConfig, directory: Path) -> Path:
    """Create the run's directory and write the resolved config, RLinf's only input; returns the file."""
    directory.mkdir(parents=True)
    OmegaConf.save(config, directory / CONFIG_FILE)
    return directory / CONFIG_FILE


def job_environment(job: SftJob | EvaluationJob | RlJob) -> dict[str, str]:
    """The variables that every process of a job on RLinf has: the number of threads, and the interpreter that has
    IsaacLab, if the job names one."""
    named = {} if job.env_python is None else {PYTHON_VARIABLE: job.env_python}
    return {"RLINF_ISAAC_THREADS": str(job.config.compute.threads), **named}
