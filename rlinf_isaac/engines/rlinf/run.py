"""The directory of one run on RLinf."""

from __future__ import annotations

import secrets
import time
from pathlib import Path


def new_run(output: Path) -> Path:
    """A new, empty directory below ``<output>/rlinf``, named by the time."""
    path = output / "rlinf" / f"{time.strftime('%Y%m%d-%H%M%S')}-{secrets.token_hex(2)}"
    path.mkdir(parents=True)
    return path
