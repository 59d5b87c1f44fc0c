"""The runtime of RLinf: interpreter, setup scripts, and Ray cluster."""

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
        python: interpreter that has RLinf; None for the one of a virtual environment in `source`, or else this one.
        source: setup scripts (of conda, Isaac Sim or a site) or virtual environments, sourced in this order in bash.
        ray_address: address of a running Ray cluster; None to start a cluster that ends with the run.
        overrides: ``key=value`` overrides of RLinf's config.
        parallel: number of checkpoints that are evaluated in parallel, each on its own accelerator, or on its own node
            if there are no accelerators.
        patience_s: seconds without a report after which the run counts as stuck.
    """

    python: str | None = None
    source: tuple[str, ...] = ()
    ray_address: str | None = None
    overrides: tuple[str, ...] = ()
    parallel: int = 1
    patience_s: float = 1800.0

    @property
    def interpreter(self) -> str:
        """Path of the interpreter: `python`, else that of the last virtual environment in `source`, else this one."""
        sourced = () if os.environ.get("AUTO_SETUP_ENV") == "0" else self.source
        environments = [Path(each) / "bin/python" for each in sourced if (Path(each) / "bin/activate").is_file()]
        return self.python or str([Path(sys.executable), *environments][-1])


def prepared_environment(runtime: Runtime) -> dict[str, str]:
    """The environment for RLinf's processes: this process's, after the setup scripts, with this project importable.

    MLflow's variables, which include credentials, are removed, because these processes do not use a tracking server.
    The variable with the config of a surrounding Ray job is removed as well; RLinf's cluster would otherwise look for
    that job's uploaded files. With ``AUTO_SETUP_ENV=0`` the setup scripts are not sourced.

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
    """Source scripts in order in one bash, and return the resulting environment.

    ``nounset`` and ``errexit`` are off, because the scripts of conda and Isaac Sim read unset variables such as
    ZSH_VERSION and continue after failing commands. The output of the scripts goes to stderr.

    Args:
        scripts: files; a directory stands for the virtual environment in it.
        base: environment to start from; None for that of this process.

    Raises:
        InvalidJob: a script does not exist, or ends the shell.
    """
    files = [Path(script) / "bin/activate" if Path(script).is_dir() else Path(script) for script in scripts]
    for file in files:
        if not file.is_file():
            cure = "name files that can be sourced, or directories of virtual environments"
            raise InvalidJob.of("no-setup-script", f"the setup script {file} does not exist", cure)
    reader, writer = os.pipe()
    # `env` is called by its full path, because a script may have changed PATH.
    code = f'set +eu; for script; do set --; source "$script" 1>&2; done; exec /usr/bin/env -0 >&{writer}'
    # `set --` clears the arguments, which a sourced script would otherwise see.
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
