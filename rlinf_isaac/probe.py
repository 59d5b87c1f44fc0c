"""What can be found out about the machine without importing what is asked about."""

from __future__ import annotations

import importlib.metadata
import subprocess

TIMEOUT_S = 10.0


def installed_version(distribution: str) -> str | None:
    """Version of an installed distribution, or None."""
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return None


def output_of(*command: str) -> bytes | None:
    """Standard output of a command; None when it is missing, fails or hangs."""
    try:
        return subprocess.run(command, capture_output=True, check=True, timeout=TIMEOUT_S).stdout
    except (OSError, subprocess.SubprocessError):
        return None
