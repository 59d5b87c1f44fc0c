"""How processes of a run tell their parent what happens: one JSON object per line, one file per writer.

A line is written with a single ``write`` to a file opened for appending, so a writer that is killed leaves whole lines
and at most one torn one, which is never read.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

DRIVER = "driver"
STARTING = ("import", "ray", "cluster", "workers", "model_and_simulator")
"""Parts of a driver's start, in their order."""


class JournalWriter:
    """Appends to ``<directory>/<name>.jsonl``."""

    def __init__(self, directory: str | Path, name: str) -> None:
        path = Path(directory) / f"{name}.jsonl"
        path.parent.mkdir(parents=True, exist_ok=True)
        self._descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)

    def write(self, kind: str, **values: Any) -> None:
        """Add one line; `values` are JSON-ready."""
        os.write(self._descriptor, json.dumps({"kind": kind, **values}).encode() + b"\n")


class JournalReader:
    """Follows all journals of a directory."""

    def __init__(self, directory: str | Path) -> None:
        self.directory = Path(directory)
        self._offsets: dict[Path, int] = {}

    def read(self) -> Iterator[dict[str, Any]]:
        """The complete lines that are new, file by file.

        The driver's are taken in first and given last: it says that something is done after the workers have written
        what came of it, so whoever sees its line has seen theirs.
        """
        driver = self.directory / f"{DRIVER}.jsonl"
        last = list(self._new(driver))
        for path in sorted(self.directory.glob("*.jsonl")):
            if path != driver:
                yield from self._new(path)
        yield from last

    def _new(self, path: Path) -> Iterator[dict[str, Any]]:
        offset = self._offsets.get(path, 0)
        try:
            with open(path, "rb") as file:
                file.seek(offset)
                data = file.read()
        except FileNotFoundError:
            return
        complete = data[: data.rfind(b"\n") + 1]
        self._offsets[path] = offset + len(complete)
        for line in complete.split(b"\n")[:-1]:
            yield json.loads(line)
