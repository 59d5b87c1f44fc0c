"""Paths of the files of a run, for its workers."""

from __future__ import annotations

import os
import re
from pathlib import Path


def directory() -> Path:
    """Directory of the run."""
    return Path(os.environ["RLINF_ISAAC_DIRECTORY"])


def sentinel_file(run: Path, worker: str) -> Path:
    """Path of the sentinel file of a worker, which says that the extension was loaded."""
    return run / "workers" / (re.sub(r"[^\w.-]", "-", worker) + ".json")
