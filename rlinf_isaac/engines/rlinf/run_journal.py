"""Journals by which the processes of a run report to their parent: one file per writer, one JSON object per line.

A line is written with a single ``write`` to a file opened for appending, so a writer that is killed leaves complete
lines and at most one incomplete line, which is never read.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

DRIVER = "driver"
STARTING = ("import", "ray", "cluster", "workers", "model_and_simulator")
"""Parts of a driver's start, in order."""


class JournalWriter:
    """Writes the journal ``<directory>/<name>.jsonl``."""

    def __init__(self, directory: str | Path, name: str) -> None:
        path = Path(directory) / f"{name}.jsonl"
        path.parent.mkdir(parents=True, exist_ok=True)
        self._descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)

    def write(self, kind: str, **values: Any) -> None:
        """Append one line; `values` are JSON-ready."""
        os.write(self._descriptor, json.dumps({"kind": kind, **values}).encode() + b"\n")


class JournalReader:
    """Reads all journals of a directory while they are written."""

    def __init__(self, directory: str | Path) -> None:
        self.directory = Path(directory)
        self._offsets: dict[Path, int] = {}

    def read(self) -> Iterator[dict[str, Any]]:
        """Yield the new complete lines, file by file.

        The driver's journal is read first, but its lines are yielded last. The driver reports that an order is done
        after the workers have written their results, so the results are always yielded before this line.
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
