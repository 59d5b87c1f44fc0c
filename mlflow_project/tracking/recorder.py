"""Logs to one MLflow run. Every method appends an operation to the journal; nothing waits for a server.

This module does not import mlflow.
"""

from __future__ import annotations

import json
import re
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from mlflow_project.lineage.provenance import DatasetInput, digest_tags
from mlflow_project.tracking import ui
from mlflow_project.tracking.journal import Journal
from mlflow_project.tracking.operations import (
    EndRun,
    LogArtifact,
    LogDataset,
    LogMetrics,
    LogModel,
    LogParams,
    SetExperimentTag,
    SetTags,
    StartRun,
    Status,
)
from mlflow_project.vocabulary import FAILURE_TAG, OF_THE_VERB, for_people_first
from rlinf_isaac.ground import atomic
from rlinf_isaac.ground.digest import bytes_digest

LONGEST_PARAM = 6000
"""Characters; MLflow silently truncates longer values."""
LONGEST_TAG = 8000


class Recorder:
    """Records one run.

    Attributes:
        journal: the journal that every method appends to.
        run: local uuid of the run; its MLflow id is known once a server has the run (`Uploader.ids`).
    """

    def __init__(self, journal: Journal, run: str, inherited: Mapping[str, str] | None = None) -> None:
        """`inherited` are the tags that runs nested in this one get."""
        self.journal = journal
        self.run = run
        self._inherited = dict(inherited or {})
        self._tables: dict[str, None] = {}
        self._texts = 0

    @classmethod
    def start(
        cls,
        journal: Journal,
        name: str,
        *,
        parent: str | None = None,
        tags: Mapping[str, str] | None = None,
        experiment: str | None = None,
        adopt: str | None = None,
        inherited: Mapping[str, str] | None = None,
    ) -> Recorder:
        """Open a run (see `operations.StartRun`).

        Args:
            inherited: tags of the verb that nested runs get as well, besides those among `tags` (`OF_THE_VERB`).
        """
        run = uuid.uuid4().hex
        own = for_people_first(_tags(tags or {}))
        journal.append(StartRun(run, name, _now_ms(), parent, own, experiment, adopt))
        known = dict(tags or {}) | dict(inherited or {})
        return cls(journal, run, {key: value for key, value in known.items() if key in OF_THE_VERB})

    def start_run(self, name: str, tags: Mapping[str, str] | None = None) -> Recorder:
        """Open a run nested in this one. It has this one's verb, commit, user, source and task (`OF_THE_VERB`), unless
        `tags` say otherwise."""
        return Recorder.start(self.journal, name, parent=self.run, tags=self._inherited | dict(tags or {}))

    def params(self, values: Mapping[str, Any], prefix: str = "cfg") -> None:
        """Log a nested mapping as flat params ``<prefix>/a/b``.

        The prefix separates them from the parameters that MLproject has logged and that must not be logged again. A
        value too long for a param is replaced by its length and sha256; log it as an artifact as well.
        """
        self.journal.append(LogParams(self.run, flatten(values, prefix)))

    def config(self, values: Mapping[str, Any]) -> None:
        """Log a resolved config as params ``cfg/...`` and as artifact ``config.json``."""
        self.params(values)
        self.text("config.json", json.dumps(values, indent=2, default=str) + "\n")

    def tags(self, values: Mapping[str, Any]) -> None:
        """Set tags. A value longer than MLflow accepts is cut and marked as cut."""
        self.journal.append(SetTags(self.run, _tags(values)))

    def experiment_tag(self, key: str, value: str) -> None:
        """Set a tag of the experiment that contains this run."""
        self.journal.append(SetExperimentTag(self.run, key, value))

    def metrics(
        self,
        values: Mapping[str, float],
        step: int = 0,
        *,
        time_s: float | None = None,
        model: str | None = None,
        dataset: tuple[str, str] | None = None,
    ) -> None:
        """Log scalars at a step.

        Args:
            time_s: unix seconds; the current time when None.
            model: sha256 of a bundle logged with `Recorder.model`; links the values to it.
            dataset: (name, digest) of a dataset logged with `Recorder.dataset`; links the values to it.
        """
        if values:
            time_ms = _now_ms() if time_s is None else round(time_s * 1000)
            numbers = {metric_key(key): float(value) for key, value in values.items()}
            self.journal.append(LogMetrics(self.run, int(step), time_ms, numbers, model, dataset))

    def artifact(self, path: str | Path, target: str | None = None, *, weights_of: str | None = None) -> None:
        """Log a file as artifact `target` (by default its own name), or all files of a directory below `target`.

        A file is read only when it is uploaded, so it must stay unchanged until then. With `weights_of`, the sha256 of
        a bundle that was logged with `model`, a file that the bundle's maker has is not logged again.
        """
        path = Path(path).absolute()
        if path.is_dir():
            files = sorted(file for file in path.rglob("*") if file.is_file())
            prefix = f"{target}/" if target else ""
            pairs = [(file, prefix + file.relative_to(path).as_posix()) for file in files]
        else:
            pairs = [(path, target or path.name)]
        if pairs:
            self.journal.append(
                *(LogArtifact(self.run, str(file), name, weights_of=weights_of) for file, name in pairs)
            )

    def text(self, target: str, content: str, *, fill_in: bool = False) -> None:
        """Log a text as artifact `target`. The text is kept in a file beside the journal.

        With `fill_in`, ``{{run:<local uuid>}}`` and ``{{experiment}}`` in the text are replaced by MLflow's ids.
        """
        # Every call writes a new file. If the upload lags behind, an earlier operation must not upload a later text,
        # which may name runs that the server does not have yet.
        self._texts += 1
        path = self.file(f"{self._texts}/{target}")
        atomic.write_file(path, content)
        self.journal.append(LogArtifact(self.run, str(path.absolute()), target, fill_in))

    def file(self, target: str) -> Path:
        """Path, beside the journal, for a file that exists only to be logged as `target`; its directory is created."""
        path = self.journal.files / self.run / target
        path.parent.mkdir(parents=True, exist_ok=True)
        return path

    def table(self, target: str, rows: Sequence[Mapping[str, Any]]) -> None:
        """Log rows with the same keys as a table that MLflow's UI shows and `mlflow.load_table` reads."""
        self.text(target, ui.table(rows))
        self._tables[target] = None
        self.tags(ui.tables_tag(list(self._tables)))

    def animation(self, key: str, step: int, write: Callable[[Path, Path], None]) -> None:
        """Log an animated image that MLflow's charts show as `key` at `step`.

        `write` is called with two paths and must write a still image (PNG) and the animation (WebP) there.
        """
        time_ms, identifier = _now_ms(), str(uuid.uuid4())
        names = ui.image_names(key, step, time_ms, identifier)
        still, animation = (self.file(name) for name in names)
        write(still, animation)
        for path, name in zip((still, animation), names, strict=True):
            self.artifact(path, name)
        self.tags(ui.LOGGED_IMAGES)

    def dataset(self, dataset: DatasetInput) -> None:
        """Log a dataset input, and its full digest as tag ``lineage.<link>.sha256``."""
        schema = json.dumps(dataset.schema) if dataset.schema is not None else None
        self.journal.append(
            LogDataset(
                self.run,
                dataset.name,
                dataset.digest,
                dataset.source_type,
                json.dumps(dataset.source),
                dataset.context,
                json.dumps(dataset.profile),
                schema,
            ),
            SetTags(self.run, digest_tags({dataset.link: dataset.sha256})),
        )

    def model(
        self,
        sha256: str,
        name: str,
        role: Literal["input", "output"],
        step: int,
        *,
        params: Mapping[str, Any] | None = None,
        tags: Mapping[str, Any] | None = None,
    ) -> None:
        """Log a checkpoint as LoggedModel: the output of this training run, or the input of this evaluation."""
        values = {key: str(value) for key, value in (params or {}).items()}
        # MLflow refuses these characters in a LoggedModel's name.
        name = re.sub(r"[/:.%\"']+", "-", name)
        self.journal.append(LogModel(self.run, sha256, name, role, step, values, _tags(tags or {})))

    def end(self, status: Status, reason: str | None = None, *, leave_to_owner: bool = False) -> None:
        """End the run, after its open nested runs. Does nothing if the run has ended already.

        Args:
            status: final status of the runs.
            reason: why the run failed or was killed, for the tag ``failure.reason``.
            leave_to_owner: end only the nested runs, because this run was active in the process before the verb began.
        """
        time_ms = _now_ms()
        for run in reversed(_open_family(self.journal.open_runs, self.run)):
            tags = [SetTags(run, _tags({FAILURE_TAG: reason}))] if reason else []
            own = None if leave_to_owner and run == self.run else status
            self.journal.append(*tags, EndRun(run, own, time_ms))


def _open_family(open_runs: Mapping[str, str | None], run: str) -> list[str]:
    """`run` and its open descendants, parents before children; empty if `run` has ended.

    Args:
        open_runs: run -> parent, in the order in which the runs were started.
    """
    family = [run] if run in open_runs else []
    for candidate, parent in open_runs.items():
        if parent in family:
            family.append(candidate)
    return family


def flatten(values: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    """Nested mapping -> {"a/b/c": text}. Lists become JSON, None becomes "none", and a text longer than `LONGEST_PARAM`
    becomes its length and sha256."""
    flat: dict[str, str] = {}
    for key, value in values.items():
        path = f"{prefix}/{key}" if prefix else str(key)
        if isinstance(value, Mapping):
            flat |= flatten(value, path)
            continue
        text = json.dumps(value) if isinstance(value, list | tuple) else "none" if value is None else str(value)
        if len(text) > LONGEST_PARAM:
            text = f"{len(text)} characters, sha256 {bytes_digest(text.encode())}"
        flat[metric_key(path)] = text
    return flat


def metric_key(key: str) -> str:
    """`key` with each character that MLflow refuses (all but letters, digits, ``_-. :/``) replaced by ``_``."""
    return re.sub(r"[^\w\-. :/]", "_", key, flags=re.ASCII)


def _tags(values: Mapping[str, Any]) -> dict[str, str]:
    texts = {key: str(value) for key, value in values.items()}
    return {
        key: text if len(text) <= LONGEST_TAG else text[: LONGEST_TAG - 20] + " ... (cut off)"
        for key, text in texts.items()
    }


def _now_ms() -> int:
    return time.time_ns() // 1_000_000
