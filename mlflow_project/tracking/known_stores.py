"""Remembers which stores and output directories were used lately: verbs find them elsewhere, and cures name them.

There is one small file for each output directory, in the cache. It is a convenience: whatever the disk refuses is left
out, and what is deleted is only not found any more.
"""

from __future__ import annotations

import json
import os
import time
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

from mlflow_project.tracking.databases import sqlite_path, sqlite_uri
from rlinf_isaac.ground.cache import cache_directory
from rlinf_isaac.ground.digest import bytes_digest

KEPT = 50
STORE_FILE = "mlflow.db"
"""Name of the store that MLflow makes in a working directory."""


@dataclass(frozen=True)
class Known:
    """A directory of results and the store that has its runs.

    Attributes:
        uri: the store, without credentials.
        output: absolute path of the directory; its journals are in ``journal``.
        used: unix seconds of its newest verb.
    """

    uri: str
    output: str
    used: float


def remember(uri: str, output: Path) -> None:
    """Note that a verb begins that writes to `output` and records in `uri`."""
    with suppress(OSError, RuntimeError):
        directory = cache_directory("outputs")
        directory.mkdir(parents=True, exist_ok=True)
        known = Known(uri, str(output.absolute()), time.time())
        path = directory / f"{bytes_digest(known.output.encode())[:16]}.json"
        temporary = path.with_name(f".{path.name}.{os.getpid()}")
        temporary.write_text(json.dumps(asdict(known)))
        os.replace(temporary, path)
        for old in sorted(directory.glob("*.json"), key=lambda each: each.stat().st_mtime)[:-KEPT]:
            old.unlink(missing_ok=True)


def known_outputs() -> list[Known]:
    """What was used lately and is still there, the newest first."""
    found = []
    with suppress(OSError, RuntimeError):
        for path in cache_directory("outputs").glob("*.json"):
            with suppress(OSError, ValueError, TypeError):
                known = Known(**json.loads(path.read_text()))
                if Path(known.output).is_dir():
                    found.append(known)
    return sorted(found, key=lambda each: each.used, reverse=True)


def store_above(place: Path) -> Path | None:
    """The database in the nearest directory above `place` that has one."""
    return next((file for parent in place.absolute().parents if (file := parent / STORE_FILE).is_file()), None)


def missing_store_cure(directory: Path | None = None) -> str:
    """How to name a store, where `directory` (the working directory) has none.

    The nearest database in a directory above comes first, then the ones that verbs have recorded in lately.
    """
    above = store_above(directory or Path.cwd())
    used = [path for known in known_outputs() if (path := sqlite_path(known.uri)) is not None and path.is_file()]
    found = list(dict.fromkeys([*filter(None, [above]), *used]))[:3]
    if not found:
        return "set MLFLOW_TRACKING_URI, or go to the directory whose mlflow.db has it"
    first, *others = (f"MLFLOW_TRACKING_URI={sqlite_uri(path)}" for path in found)
    what = "the nearest one above" if above else "the one used last"
    return f"set {first}, {what}" + (f"; others used lately: {', '.join(others)}" if others else "")
