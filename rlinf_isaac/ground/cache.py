"""The cache directory for data that can be computed or downloaded again: ``~/.cache/rlinf-isaac``."""

from __future__ import annotations

import os
from pathlib import Path


def cache_directory(part: str) -> Path:
    """Cache directory for one kind of data: below ``$RLINF_ISAAC_CACHE``, else ``$XDG_CACHE_HOME``, else home.

    The directory is not created.

    Raises:
        RuntimeError: there is no home directory.
    """
    cache = os.environ.get("RLINF_ISAAC_CACHE")
    home = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return (Path(cache) if cache else Path(home) / "rlinf-isaac").expanduser() / part
