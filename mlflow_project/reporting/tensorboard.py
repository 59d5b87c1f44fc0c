"""TensorBoard as a target: one directory of event files for each run, below ``<output>/tensorboard``.

The records are written by TensorBoard's own `RecordWriter`, with the steps and times of the journal. An event file only
grows, so its size at the last `settle` says what is in it: what a killed process has written after that is cut off, and
no point is there twice.
"""

from __future__ import annotations

import io
import logging
import os
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import IO, Any

from PIL import Image
from tensorboard.compat.proto.event_pb2 import Event
from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.plugins.hparams.summary_v2 import hparams_pb
from tensorboard.plugins.text.summary_v2 import text_pb
from tensorboard.summary.writer.record_writer import RecordWriter

from mlflow_project.reporting.media import image_of
from mlflow_project.tracking.operations import (
    EndRun,
    LogArtifact,
    LogMetrics,
    LogParams,
    Operation,
    SetTags,
    StartRun,
)
from mlflow_project.vocabulary import NOTE_TAG

logger = logging.getLogger("mlflow_project")

_VERSION = "brain.Event:2"
_NO_FILE_NAME = re.compile(r"[^\w.+=@()-]+")


@dataclass
class _Run:
    """What is known of a run; all of it is in the state of the target."""

    directory: str
    file: str
    time_s: float
    size: int = 0
    step: int = 0
    params: dict[str, str] = field(default_factory=dict)
    tags: dict[str, str] = field(default_factory=dict)
    described: bool = False


class TensorBoard:
    """Writes the runs of one journal (`target.Target`)."""

    def __init__(self, root: Path, name: str, state: Mapping[str, Any]) -> None:
        """
        Args:
            root: what ``tensorboard --logdir`` is given.
            name: directory of the outermost run in it; nested runs have theirs below it.
            state: what the last `settle` has returned; empty for a new one.
        """
        self._root, self._name = root, name
        self._runs = {run: _Run(**values) for run, values in state.get("runs", {}).items()}
        self._files: dict[str, IO[bytes]] = {}
        self._ended: list[str] = []
        for run in self._runs.values():
            path = self._path(run)
            if path.exists():  # a person may have removed it: then there is nothing to take back
                os.truncate(path, min(run.size, path.stat().st_size))

    def apply(self, operation: Operation) -> None:
        """Report one operation."""
        if isinstance(operation, StartRun):
            self._start(operation)
            return
        run = self._runs.get(operation.run)
        if run is None:
            return
        if isinstance(operation, LogMetrics):
            self._describe(operation.run, run)
            run.step, run.time_s = operation.step, operation.time_ms / 1000
            values = [Summary.Value(tag=key, simple_value=value) for key, value in operation.values.items()]
            self._write(operation.run, run, Summary(value=values))
        elif isinstance(operation, LogParams):
            run.params |= operation.params
        elif isinstance(operation, SetTags):
            run.tags |= operation.tags
        elif isinstance(operation, LogArtifact):
            self._log_image(operation, run)
        elif isinstance(operation, EndRun):
            self._describe(operation.run, run)
            run.time_s = operation.time_ms / 1000
            note = run.tags.pop(NOTE_TAG, "")
            for tag, text in (("tags", _table(run.tags)), ("description", note), ("status", operation.status or "")):
                if text:
                    self._write(operation.run, run, text_pb(tag, text))
            self._ended.append(operation.run)

    def settle(self) -> dict[str, Any]:
        """Flush the event files to disk."""
        for uuid, file in self._files.items():
            file.flush()
            os.fsync(file.fileno())
            self._runs[uuid].size = file.tell()
        while self._ended:
            if (ended := self._files.pop(self._ended.pop(), None)) is not None:
                ended.close()
        return {"runs": {uuid: asdict(run) for uuid, run in self._runs.items()}}

    def close(self) -> None:
        """Close the event files."""
        for file in self._files.values():
            file.close()
        self._files.clear()

    def _start(self, operation: StartRun) -> None:
        outer = self._runs.get(operation.parent or "")
        directory = self._name if outer is None else f"{outer.directory}/{self._free_name(outer, operation)}"
        time_s = operation.time_ms / 1000
        file = f"events.out.tfevents.{int(time_s)}.rlinf-isaac.{operation.run[:8]}"
        run = _Run(directory, file, time_s, tags=dict(operation.tags) | {"run": operation.name})
        self._path(run).unlink(missing_ok=True)  # of a process that was killed before it noted this run
        self._runs[operation.run] = run
        self._record(operation.run, run, Event(wall_time=time_s, file_version=_VERSION))

    def _free_name(self, outer: _Run, operation: StartRun) -> str:
        """Directory of a nested run: its name, with its uuid where another run of the journal has the same one."""
        name = _NO_FILE_NAME.sub("_", operation.name).strip(".") or operation.run[:8]
        taken = {each.directory for each in self._runs.values()}
        return name if f"{outer.directory}/{name}" not in taken else f"{name}-{operation.run[:8]}"

    def _describe(self, uuid: str, run: _Run) -> None:
        """Write the params, before the first metric or at the end: for the tab HParams, and as a text."""
        if run.described or not run.params:
            return
        run.described = True
        self._write(uuid, run, hparams_pb(dict(run.params), trial_id=uuid, start_time_secs=run.time_s))
        self._write(uuid, run, text_pb("params", _table(run.params)))

    def _log_image(self, operation: LogArtifact, run: _Run) -> None:
        try:
            found = image_of(Path(operation.source), operation.target)
            if found is None:
                return
            with Image.open(io.BytesIO(found.data)) as picture:
                width, height = picture.size
        except (OSError, ValueError) as error:
            logger.warning("%s is not in TensorBoard: %s", operation.target, error)
            return
        image = Summary.Image(width=width, height=height, colorspace=3, encoded_image_string=found.data)
        step = run.step if found.step is None else found.step
        self._write(operation.run, run, Summary(value=[Summary.Value(tag=found.name, image=image)]), step)

    def _write(self, uuid: str, run: _Run, summary: Summary, step: int | None = None) -> None:
        place = run.step if step is None else step
        self._record(uuid, run, Event(wall_time=run.time_s, step=place, summary=summary))

    def _record(self, uuid: str, run: _Run, event: Event) -> None:
        if uuid not in self._files:
            path = self._path(run)
            path.parent.mkdir(parents=True, exist_ok=True)
            self._files[uuid] = open(path, "ab")  # noqa: SIM115 (open until the run ends)
        RecordWriter(self._files[uuid]).write(event.SerializeToString())

    def _path(self, run: _Run) -> Path:
        return self._root / run.directory / run.file


def _table(values: Mapping[str, str]) -> str:
    """A Markdown table of names and values."""
    rows = [f"| {key} | {' '.join(value.split()).replace('|', '&#124;')} |" for key, value in sorted(values.items())]
    return "\n".join(["| name | value |", "|---|---|", *rows]) if rows else ""
