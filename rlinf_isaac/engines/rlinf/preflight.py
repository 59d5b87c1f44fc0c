"""Checks that RLinf is installed and can run the config of a job. Imports neither RLinf nor Ray nor torch."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

from rlinf_isaac.engines.base import EvaluationJob, RlJob, SftJob
from rlinf_isaac.engines.rlinf.config import evaluation_config, rl_config, sft_config
from rlinf_isaac.engines.rlinf.runtime import Runtime, prepared_environment
from rlinf_isaac.ground.errors import InvalidJob, Problem

TESTED = "0.3."
"""Release of RLinf that this was tested with. Others may work, because RLinf is not patched."""

_PACKAGES = ("rlinf", "ray", "torch", "torchvision", "mujoco", "omegaconf")
_PROBE = f"""
import json
from rlinf_isaac.ground.probe import importable_version
print(json.dumps({{name: version for name in {_PACKAGES!r} if (version := importable_version(name))}}))
"""


def check_runtime(runtime: Runtime) -> list[Problem]:
    """Problems of the interpreter, of the packages installed in it, and of the setup scripts."""
    try:
        found = versions_of(runtime)
    except InvalidJob as error:
        return list(error.problems)
    missing = [name for name in _PACKAGES if name not in found]
    if missing:
        cause = f"{runtime.interpreter} lacks {', '.join(missing)}"
        cure = "pip install torch torchvision 'rlinf-isaac[rlinf]' there, or name another interpreter by --rlinf-python"
        return [Problem("no-rlinf", cause, cure)]
    if not found["rlinf"].startswith(TESTED):
        cause = f"{runtime.interpreter} has rlinf {found['rlinf']}, but the tested release is {TESTED}x"
        return [Problem("rlinf-version", cause, "install rlinf==0.3.0 if it does not work", level="warning")]
    return []


def check_jobs(jobs: Sequence[SftJob | EvaluationJob | RlJob], runtime: Runtime) -> list[Problem]:
    """Problems of RLinf's config of each job, as `engines.rlinf.config` composes it; each problem once."""
    problems: dict[Problem, None] = {}
    nowhere = Path("/nonexistent")
    for job in jobs:
        if job.config.task and not isinstance(job, SftJob):
            cause = f"--engine rlinf plays stack-cube only, the task is {job.config.env.task}"
            problems[Problem("rlinf-unsupported", cause, "use --engine local")] = None
            continue
        try:
            if isinstance(job, EvaluationJob):
                evaluation_config(job, nowhere, runtime.overrides)
            elif isinstance(job, RlJob):
                rl_config(job, nowhere, None, runtime.overrides)
            else:
                sft_config(job, nowhere, nowhere, None, runtime.overrides)
        except InvalidJob as error:
            problems |= dict.fromkeys(error.problems)
    return list(problems)


@lru_cache
def versions_of(runtime: Runtime) -> dict[str, str]:
    """Versions of the packages `_PACKAGES` in RLinf's interpreter, after the setup scripts.

    Raises:
        InvalidJob: a setup script fails, or the interpreter does not run.
    """
    python, environment = runtime.interpreter, prepared_environment(runtime)
    command = [python, "-c", _PROBE]
    try:
        result = subprocess.run(command, env=environment, capture_output=True, text=True, check=True, timeout=60)
    except (OSError, subprocess.SubprocessError) as error:
        said = (getattr(error, "stderr", None) or str(error)).strip().splitlines()[-1]
        cause = f"the interpreter {python} does not run: {said}"
        raise InvalidJob.of("bad-rlinf-python", cause, "name a Python 3.11 or later with --rlinf-python") from error
    return json.loads(result.stdout.splitlines()[-1])
