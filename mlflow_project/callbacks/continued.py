"""The run of a training in a directory: a new one, or the one that the directory has, if the training is resumed.

A resumed training goes on in the same journal, so that its records are in one order whatever reached a server when. Its
run begins once more there (`StartRun` of the same uuid), which makes it RUNNING again. Params that have changed since
cannot replace the old ones in MLflow, and are recorded as tags.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mlflow_project.callbacks.job import Job
from mlflow_project.callbacks.options import Options
from mlflow_project.tracking.journal import Journal, JournalError, read_header, read_operations
from mlflow_project.tracking.known_stores import remember
from mlflow_project.tracking.operations import LogParams, SetTags, StartRun
from mlflow_project.tracking.recorder import Recorder, flatten
from mlflow_project.tracking.redact import without_credentials
from mlflow_project.tracking.runs import experiment_chosen
from mlflow_project.tracking.store import DEFAULT_EXPERIMENT, tracking_uri
from mlflow_project.vocabulary import OF_THE_VERB

RESUMED_TAG = "resumed"
"""Tag: how often the training was resumed."""
RELEASE_S = 30.0
"""Longest wait for the process that still uploads what the interrupted training has left."""


def opened(job: Job, options: Options, tags: Mapping[str, str], config: Mapping[str, Any]) -> Recorder:
    """The recorder of the training's run, with params and tags.

    Raises:
        OSError: the directory cannot be written.
    """
    directory = job.output / "journal"
    recorder = _continued(job, directory, tags, config) if job.resumed else None
    if recorder is None:
        journal = Journal.create(directory, job.verb, without_credentials(tracking_uri()))
        experiment = options.labels.experiment or experiment_chosen() or DEFAULT_EXPERIMENT
        recorder = Recorder.start(journal, options.labels.name or job.name, tags=tags, experiment=experiment)
        recorder.params(config, prefix=job.trainer)
    recorder.text("config.json", json.dumps(config, indent=2) + "\n")
    remember(recorder.journal.header.tracking_uri, job.output)
    return recorder


def _continued(job: Job, directory: Path, tags: Mapping[str, str], config: Mapping[str, Any]) -> Recorder | None:
    """The recorder of the run that the newest journal of this verb has; None where there is none, or where a living
    process still writes it."""
    for path in sorted(directory.glob(f"*-{job.verb}-*.jsonl"), reverse=True):
        try:
            journal = _taken_over(path)
            if journal is None:
                return None
            operations = [operation for operation, _ in read_operations(path, read_header(path)[1])[0]]
        except JournalError:
            continue
        starts = [each for each in operations if isinstance(each, StartRun) and each.parent is None]
        if not starts:
            journal.close()
            continue
        first = starts[0]
        known = {
            key: value
            for each in operations
            if isinstance(each, LogParams) and each.run == first.run
            for key, value in each.params.items()
        }
        given = flatten(config, job.trainer)
        times = sum(start.run == first.run for start in starts)
        changed = {f"{RESUMED_TAG}.{times}.{key}": text for key, text in given.items() if known.get(key, text) != text}
        again = StartRun(first.run, first.name, time.time_ns() // 1_000_000, None, dict(tags), first.experiment)
        for run in list(journal.open_runs):  # of what died: its nested runs, and this one, which begins again
            Recorder(journal, run).end("KILLED", "the process ended without ending its run")
        journal.append(
            again,
            LogParams(first.run, {key: text for key, text in given.items() if key not in known}),
            SetTags(first.run, {**tags, RESUMED_TAG: str(times), **changed}),
        )
        inherited = {key: value for key, value in tags.items() if key in OF_THE_VERB}
        return Recorder(journal, first.run, inherited)
    return None


def _taken_over(path: Path) -> Journal | None:
    deadline = time.monotonic() + RELEASE_S
    while (journal := Journal.take_over(path)) is None and time.monotonic() < deadline:
        time.sleep(0.2)
    return journal
