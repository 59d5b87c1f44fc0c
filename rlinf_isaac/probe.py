"""What can be found out about the machine without importing what is asked about."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import shutil
import subprocess
import tomllib
from pathlib import Path

from rlinf_isaac.errors import Problem

TIMEOUT_S = 10.0


def installed_version(distribution: str) -> str | None:
    """Version of an installed distribution, or None."""
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return None


def importable_version(package: str) -> str | None:
    """Version of what ``import package`` would import: that of a source checkout on the path, or the installed one."""
    try:
        spec = importlib.util.find_spec(package)
        if spec and spec.origin:
            project = tomllib.loads((Path(spec.origin).parents[1] / "pyproject.toml").read_text())["project"]
            if project.get("name") == package and "version" in project:
                return project["version"]
    except (OSError, ValueError, KeyError):  # no checkout
        pass
    return installed_version(package)


def output_of(*command: str) -> bytes | None:
    """Standard output of a command; None when it is missing, fails or hangs."""
    try:
        return subprocess.run(command, capture_output=True, check=True, timeout=TIMEOUT_S).stdout
    except (OSError, subprocess.SubprocessError):
        return None


def check_free_space(directory: str | Path, needed_bytes: int) -> list[Problem]:
    """A problem when the file system of `directory` (or its nearest existing parent) lacks room."""
    path = Path(directory).absolute()
    while not path.exists():
        path = path.parent
    free = shutil.disk_usage(path).free
    if free >= needed_bytes:
        return []
    cause = f"{path} has {free / 1e9:.2f} GB free, the job needs about {needed_bytes / 1e9:.2f} GB"
    return [Problem("disk-space", cause, "free some space, or choose another --output")]
