"""Remembers the databases that verbs have recorded in, and finds one for a verb that was called elsewhere."""

from __future__ import annotations

import os
from pathlib import Path

from mlflow_project.tracking.databases import sqlite_path, sqlite_uri
from rlinf_isaac.ground.cache import cache_directory

_FILE = "mlflow.db"
_KEPT = 8


def remember_store(uri: str) -> None:
    """Note that a verb records in the store, if it is a database of this machine. Nothing is raised."""
    path = sqlite_path(uri)
    if path is None:
        return
    try:
        file = _list()
        lines = [str(path), *(line for line in _read(file) if line != str(path))][:_KEPT]
        file.parent.mkdir(parents=True, exist_ok=True)
        scratch = file.with_name(f".{file.name}.{os.getpid()}")
        scratch.write_text("".join(f"{line}\n" for line in lines))
        scratch.replace(file)
    except (OSError, RuntimeError, ValueError):
        return


def missing_store_cure(directory: Path | None = None) -> str:
    """How to name a store, where `directory` (the working directory) has none.

    The nearest database in a directory above comes first, then the ones that verbs have recorded in lately.
    """
    place = (directory or Path.cwd()).absolute()
    above = [parent / _FILE for parent in place.parents if (parent / _FILE).is_file()][:1]
    try:
        used = [Path(line) for line in _read(_list()) if Path(line).is_file()]
    except (OSError, RuntimeError, ValueError):
        used = []
    found = list(dict.fromkeys([*above, *used]))[:3]
    if not found:
        return "set MLFLOW_TRACKING_URI, or go to the directory whose mlflow.db has it"
    first, *others = (f"MLFLOW_TRACKING_URI={sqlite_uri(path)}" for path in found)
    what = "the nearest one above" if above else "the one used last"
    return f"set {first}, {what}" + (f"; others used lately: {', '.join(others)}" if others else "")


def _list() -> Path:
    return cache_directory("stores.txt")


def _read(file: Path) -> list[str]:
    try:
        return file.read_text()[:100_000].splitlines()
    except OSError:
        return []
