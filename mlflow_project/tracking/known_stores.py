"""Remembers which stores and output directories were used lately, so that `ui`, `ls`, `status` and `watch` find them.

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

from mlflow_project.tracking.store import is_missing, sqlite_uri, tracking_uri
from rlinf_isaac.ground.cache import cache_directory
from rlinf_isaac.ground.digest import bytes_digest

KEPT = 50


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


def nearest_store(start: Path | None = None) -> str:
    """The store that a person in this directory means.

    It is the one that MLflow or MLFLOW_TRACKING_URI names; else ``mlflow.db`` in the working directory, or in the
    nearest directory above it that has one; else the one that was used last.
    """
    uri = tracking_uri()
    if os.environ.get("MLFLOW_TRACKING_URI") or not is_missing(uri):
        return uri
    here = (start or Path.cwd()).absolute()
    for directory in here.parents:
        if (directory / "mlflow.db").is_file():
            return sqlite_uri(directory / "mlflow.db")
    return next((known.uri for known in known_outputs() if not is_missing(known.uri)), uri)
