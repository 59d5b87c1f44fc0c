"""W&B as a target: every run of the journal is a W&B run, those of one verb in one group.

A W&B run has the journal's uuid as id, and its rows (metrics, pictures, videos) are numbered by their place in the
journal. So a killed process doubles nothing:

- offline, the directory of a run that had not ended is made again from the journal, unless it has been uploaded;
- online, W&B says which rows it has, and the others follow.

Where runs go is W&B's own to say: WANDB_PROJECT (`PROJECT` where it is not set), WANDB_ENTITY, WANDB_MODE. Local files
are in ``<output>/wandb``.
"""

from __future__ import annotations

import logging
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import wandb

from mlflow_project.reporting.media import STILLS, VIDEO
from mlflow_project.tracking.operations import (
    EndRun,
    LogArtifact,
    LogMetrics,
    LogParams,
    Operation,
    SetTags,
    StartRun,
)
from mlflow_project.vocabulary import NOTE_TAG, VERB_TAG

logger = logging.getLogger("mlflow_project")

PROJECT = "rlinf-isaac"
STEP = "step"
"""Metric with the step of a row, the axis of all others: W&B's own count of rows cannot go back, as steps may."""
_EXIT_CODES = {"FINISHED": 0, "FAILED": 1, "KILLED": 255, None: 0}
_UPLOADED = "*.synced"
"""File that ``wandb sync`` leaves in the directory of a run."""


class _Run:
    """An open W&B run, and how many rows of the journal it has been told."""

    def __init__(self, run: Any) -> None:
        self.run, self.rows, self.step = run, 0, 0
        self.known = int(run.starting_step)

    def log(self, values: Mapping[str, Any], time_s: float) -> None:
        if self.rows >= self.known:
            self.run.log({**values, STEP: self.step, "_timestamp": time_s}, step=self.rows)
        self.rows += 1


class WeightsAndBiases:
    """Reports the runs of one journal (`target.Target`), which has to be told from its beginning."""

    def __init__(self, output: Path, state: Mapping[str, Any]) -> None:
        """
        Args:
            output: W&B makes its directory ``wandb`` there.
            state: what the last `settle` has returned; empty for a new one.
        """
        self._output = output
        self._done: list[str] = list(state.get("done", ()))
        self._open: dict[str, _Run] = {}
        self._ending: list[tuple[str, int]] = []
        self._group: str | None = None
        self._time_s = 0.0

    def apply(self, operation: Operation) -> None:
        """Report one operation."""
        if isinstance(operation, StartRun):
            self._group = self._group or f"{operation.name} {operation.run[:8]}"
            if operation.run not in self._done:
                self._start(operation)
            return
        own = self._open.get(operation.run)
        if own is None:
            return
        if isinstance(operation, LogMetrics):
            own.step, self._time_s = operation.step, operation.time_ms / 1000
            own.log(operation.values, self._time_s)
        elif isinstance(operation, LogParams):
            own.run.config.update(dict(operation.params), allow_val_change=True)
        elif isinstance(operation, SetTags):
            self._tag(own, operation.tags)
        elif isinstance(operation, LogArtifact):
            self._log_file(own, operation)
        elif isinstance(operation, EndRun):
            self._ending.append((operation.run, _EXIT_CODES[operation.status]))

    def settle(self) -> dict[str, Any]:
        """Finish the runs that have ended. What W&B has of the others it knows itself."""
        while self._ending:
            run, exit_code = self._ending.pop(0)
            self._open.pop(run).run.finish(exit_code=exit_code)
            self._done.append(run)
        return {"done": self._done}

    def close(self) -> None:
        """End W&B's processes."""
        for own in self._open.values():
            own.run.finish(exit_code=255)
        self._open.clear()
        wandb.teardown()

    def _start(self, operation: StartRun) -> None:
        offline = os.environ.get("WANDB_MODE", "online") in ("offline", "dryrun")
        before = sorted((self._output / "wandb").glob(f"*run-*-{operation.run}"))
        if offline and any(any(directory.glob(_UPLOADED)) for directory in before):
            logger.warning("%s is uploaded to W&B already; what came later stays in the journal", operation.name)
            self._done.append(operation.run)
            return
        if offline:
            for directory in before:
                shutil.rmtree(directory)
        self._output.mkdir(parents=True, exist_ok=True)
        run = wandb.init(
            dir=str(self._output),
            id=operation.run,
            name=operation.name,
            project=os.environ.get("WANDB_PROJECT", PROJECT),
            group=self._group,
            job_type=operation.tags.get(VERB_TAG),
            resume=None if offline else "allow",
            reinit="create_new",
            # This process is not the one that works: its output, machine and code say nothing of the run.
            settings=wandb.Settings(
                console="off", silent=True, disable_git=True, save_code=False, x_disable_stats=True, x_disable_meta=True
            ),
        )
        run.define_metric(STEP, hidden=True)
        run.define_metric("*", step_metric=STEP)
        own = _Run(run)
        self._tag(own, operation.tags)
        self._open[operation.run] = own

    def _tag(self, own: _Run, tags: Mapping[str, str]) -> None:
        if NOTE_TAG in tags:
            own.run.notes = tags[NOTE_TAG]
        plain = {f"tag/{key}": value for key, value in tags.items() if key != NOTE_TAG}
        if plain:
            own.run.config.update(plain, allow_val_change=True)

    def _log_file(self, own: _Run, operation: LogArtifact) -> None:
        source, suffix = Path(operation.source), Path(operation.target).suffix.lower()
        name = str(Path(operation.target).with_suffix(""))
        if not source.is_file():
            return
        media: Any
        if suffix == VIDEO:
            media = wandb.Video(str(source), format="mp4")
        elif suffix in STILLS and not operation.target.startswith("images/"):
            media = wandb.Image(str(source))
        elif suffix == ".html":
            media = wandb.Html(source.read_text(encoding="utf-8"), inject=False)
        else:
            return
        own.log({name: media}, self._time_s)
