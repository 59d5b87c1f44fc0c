"""Where this project keeps what it can make or fetch again: ``~/.cache/rlinf-isaac``."""

from __future__ import annotations

import os
from pathlib import Path


def cache_directory(part: str) -> Path:
    """Directory of one kind of things (not created), below ``$RLINF_ISAAC_CACHE``, else ``$XDG_CACHE_HOME``, else home.

    Raises:
        RuntimeError: there is no home.
    """
    cache = os.environ.get("RLINF_ISAAC_CACHE")
    home = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return (Path(cache) if cache else Path(home) / "rlinf-isaac").expanduser() / part
