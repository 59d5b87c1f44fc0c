"""Facts about the machine and its packages, found without importing those packages."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import json
import os
import shutil
import subprocess
import tempfile
import tomllib
from collections.abc import Iterable
from pathlib import Path

from rlinf_isaac.ground.errors import Problem

TIMEOUT_S = 10.0

_VERSIONS = """
import importlib.metadata, json, sys
versions = {}
for name in sys.argv[1:]:
    try:
        versions[name] = importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        versions[name] = None
print(json.dumps(versions))
"""


def installed_version(distribution: str) -> str | None:
    """Version of an installed distribution, or None."""
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return None


def versions_in(python: str, distributions: Iterable[str], timeout_s: float = 20.0) -> dict[str, str | None] | None:
    """Versions of distributions in another interpreter, from their metadata; None for one that is not installed.

    Returns None instead of a dict if `python` does not run.
    """
    try:
        command = [python, "-I", "-c", _VERSIONS, *distributions]
        done = subprocess.run(command, capture_output=True, text=True, timeout=timeout_s)
        return json.loads(done.stdout)
    except (OSError, subprocess.TimeoutExpired, ValueError):
        return None


def importable_version(package: str) -> str | None:
    """Version of the package that ``import package`` finds: a source checkout on the path, or the installed one."""
    try:
        spec = importlib.util.find_spec(package)
        if spec and spec.origin:
            project = tomllib.loads((Path(spec.origin).parents[1] / "pyproject.toml").read_text())["project"]
            if project.get("name") == package and "version" in project:
                return project["version"]
    except (OSError, ValueError, KeyError):  # it is not a source checkout
        pass
    return installed_version(package)


def failure_of(*command: str) -> str:
    """What a command that fails says on its standard error, in a line; empty if it does not run at all."""
    try:
        done = subprocess.run(command, capture_output=True, timeout=TIMEOUT_S)
    except (OSError, subprocess.SubprocessError):
        return ""
    return " ".join(done.stderr.decode(errors="replace").split())[:200] if done.returncode else ""


def output_of(*command: str) -> bytes | None:
    """Standard output of a command; None if it does not exist, fails, or takes longer than `TIMEOUT_S`."""
    try:
        return subprocess.run(command, capture_output=True, check=True, timeout=TIMEOUT_S).stdout
    except (OSError, subprocess.SubprocessError):
        return None


def check_output(directory: str | Path) -> list[Problem]:
    """A problem if a directory for results cannot be written to, or does not exist and cannot be created."""
    path = _existing(directory)
    if path.is_symlink() and not path.exists():
        cause = f"{path} is a symbolic link to {os.readlink(path)}, which does not exist"
        return [Problem("output-place", cause, "make its target, remove the link, or choose another --output")]
    if not path.is_dir():
        return [Problem("output-place", f"{path} is not a directory", "choose another --output")]
    if not os.access(path, os.W_OK | os.X_OK):
        cause = f"nothing can be written into {path}: no permission, or the file system is read-only"
        return [Problem("output-place", cause, "change its permissions, or choose another --output")]
    if (reason := _refusal(path)) is not None:
        cause = f"nothing can be written into {path}: {reason}"
        return [Problem("output-place", cause, "choose another --output, or another working directory")]
    return []


def _refusal(directory: Path) -> str | None:
    """Why nothing can be made in a directory, which the permissions do not say: of root, of /proc. None if it can."""
    try:  # a file without a name, where the file system has such files, so that nothing is seen of the trial
        os.close(os.open(directory, os.O_TMPFILE | os.O_WRONLY, 0o600))
        return None
    except (OSError, AttributeError):
        pass
    try:
        os.rmdir(tempfile.mkdtemp(prefix=".rlinf-isaac-", dir=directory))
    except OSError as error:
        return error.strerror or type(error).__name__
    return None


def _existing(directory: str | Path) -> Path:
    """The directory, or its nearest parent that exists (even as a broken link). OSError for an invalid name."""
    path = Path(directory).absolute()
    while True:
        try:
            os.lstat(path)
            return path
        except (FileNotFoundError, NotADirectoryError):
            path = path.parent


def check_free_space(directory: str | Path, needed_bytes: int) -> list[Problem]:
    """A problem if the file system of `directory` (or of its nearest existing parent) has too little free space."""
    if problems := check_output(directory):
        return problems
    path = _existing(directory)
    free = shutil.disk_usage(path).free
    if free >= needed_bytes:
        return []
    cause = f"{path} has {free / 1e9:.2f} GB free, the job needs about {needed_bytes / 1e9:.2f} GB"
    return [Problem("disk-space", cause, "free some space, or choose another --output")]
