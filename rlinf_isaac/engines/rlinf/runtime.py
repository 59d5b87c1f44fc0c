"""Where and how RLinf runs: which interpreter, after which setup scripts, on which Ray cluster."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from rlinf_isaac.ground.errors import InvalidJob

PACKAGE_ROOT = Path(__file__).resolve().parents[3]
_SOURCE_SECONDS = 300


@dataclass(frozen=True)
class Runtime:
    """How to run RLinf.

    Attributes:
        python: interpreter that has RLinf; None for that of a virtual environment in `source`, else this one.
        source: setup scripts (conda, Isaac Sim, a site's) or virtual environments, sourced in this order in bash.
        ray_address: of a running Ray cluster; None for one of our own that ends with the run.
        overrides: ``key=value`` on RLinf's config.
        parallel: how many checkpoints are evaluated side by side, each on an accelerator or (where there are none) a
            node of its own, in turn.
        patience_s: how long nothing may be heard of before the run counts as stuck.
    """

    python: str | None = None
    source: tuple[str, ...] = ()
    ray_address: str | None = None
    overrides: tuple[str, ...] = ()
    parallel: int = 1
    patience_s: float = 1800.0

    @property
    def interpreter(self) -> str:
        """Path of the interpreter: the one asked for, that of the last virtual environment in `source`, or this one."""
        sourced = () if os.environ.get("AUTO_SETUP_ENV") == "0" else self.source
        environments = [Path(each) / "bin/python" for each in sourced if (Path(each) / "bin/activate").is_file()]
        return self.python or str([Path(sys.executable), *environments][-1])


def prepared_environment(runtime: Runtime) -> dict[str, str]:
    """The environment for RLinf's processes: this one's, after the setup scripts, with this project importable.

    MLflow's variables (credentials among them) are left out: nothing in there talks to a tracking server. So is what
    Ray tells the entry point of a Ray job: RLinf's cluster would be asked for that job's uploaded files.
    ``AUTO_SETUP_ENV=0`` leaves the setup scripts out.

    Raises:
        InvalidJob: a script does not exist, or ends the shell.
    """
    environment = dict(os.environ)
    if runtime.source and os.environ.get("AUTO_SETUP_ENV") != "0":
        environment = sourced_environment(runtime.source)
    environment.pop("RAY_JOB_CONFIG_JSON_ENV_VAR", None)
    environment = {name: value for name, value in environment.items() if not name.startswith("MLFLOW_")}
    places = [str(PACKAGE_ROOT), *filter(None, [environment.get("PYTHONPATH")])]
    return environment | {"PYTHONPATH": os.pathsep.join(places)}


def sourced_environment(scripts: tuple[str, ...], base: Mapping[str, str] | None = None) -> dict[str, str]:
    """The environment after sourcing scripts, in order, in one bash, as captured once.

    Neither ``nounset`` nor ``errexit`` is on: conda's and Isaac Sim's scripts look at variables such as ZSH_VERSION
    that are not set, and go on after commands that fail. What they print goes to stderr.

    Args:
        scripts: files; a directory stands for the virtual environment in it.
        base: environment to start from; this process's when None.

    Raises:
        InvalidJob: a script does not exist, or ends the shell.
    """
    files = [Path(script) / "bin/activate" if Path(script).is_dir() else Path(script) for script in scripts]
    for file in files:
        if not file.is_file():
            cure = "name files that can be sourced, or directories of virtual environments"
            raise InvalidJob.of("no-setup-script", f"the setup script {file} does not exist", cure)
    reader, writer = os.pipe()
    # `env` is asked for by its path: a script may have changed PATH.
    code = f'set +eu; for script; do set --; source "$script" 1>&2; done; exec /usr/bin/env -0 >&{writer}'
    # Each script is sourced without arguments: it would see those of this shell otherwise.
    command = ["bash", "--norc", "--noprofile", "-c", code, "bash", *map(str, files)]
    with subprocess.Popen(command, stdin=subprocess.DEVNULL, pass_fds=[writer], env=base) as process:
        os.close(writer)
        with os.fdopen(reader, "rb") as pipe:
            data = pipe.read()
        status = process.wait(_SOURCE_SECONDS)
    if status or not data:
        cause = f"sourcing {', '.join(map(str, files))} ended the shell with status {status}"
        cure = "run `bash -c 'source SCRIPT'` to see why, or set AUTO_SETUP_ENV=0 and set the environment up yourself"
        raise InvalidJob.of("setup-script-failed", cause, cure)
    entries = (entry.partition(b"=") for entry in data.split(b"\0") if b"=" in entry)
    return {os.fsdecode(name): os.fsdecode(value) for name, _, value in entries}
