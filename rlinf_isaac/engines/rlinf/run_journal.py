"""Journals by which the processes of a run report to their parent: one file per writer, one JSON object per line.

The lines need no fsync (`ground.lines`): they are read while the run is alive, and a run that a crash of the machine
ended begins anew.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from rlinf_isaac.ground import lines

DRIVER = "driver"
STARTING = ("import", "ray", "cluster", "workers", "model_and_simulator")
"""Parts of a driver's start, in order."""


class JournalWriter:
    """Writes the journal ``<directory>/<name>.jsonl``."""

    def __init__(self, directory: str | Path, name: str) -> None:
        path = Path(directory) / f"{name}.jsonl"
        path.parent.mkdir(parents=True, exist_ok=True)
        self._descriptor = lines.open_to_append(path)

    def write(self, kind: str, **values: Any) -> None:
        """Add one line; `values` are JSON-ready."""
        lines.write(self._descriptor, json.dumps({"kind": kind, **values}), durable=False)


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
        try:
            new = list(lines.follow(path, self._offsets.get(path, 0)))
        except FileNotFoundError:
            return
        for _, end in new[-1:]:
            self._offsets[path] = end
        for line, _ in new:
            yield json.loads(line)
