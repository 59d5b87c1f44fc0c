"""One run, as the code that works sees it: a small set of verbs that end in the journal.

Nothing here waits for a server, and nothing here imports mlflow.
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
from mlflow_project.vocabulary import FAILURE_TAG
from rlinf_isaac.ground import atomic
from rlinf_isaac.ground.digest import bytes_digest

LONGEST_PARAM = 6000
"""Characters; MLflow cuts longer values off without a word."""
LONGEST_TAG = 8000


class Recorder:
    """Records one run.

    Attributes:
        journal: where everything goes.
        run: local uuid of the run; its MLflow id is known once a server has it (`Uploader.ids`).
    """

    def __init__(self, journal: Journal, run: str) -> None:
        self.journal = journal
        self.run = run
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
    ) -> Recorder:
        """Open a run (see `operations.StartRun`)."""
        run = uuid.uuid4().hex
        journal.append(StartRun(run, name, _now_ms(), parent, _tags(tags or {}), experiment, adopt))
        return cls(journal, run)

    def start_run(self, name: str, tags: Mapping[str, str] | None = None) -> Recorder:
        """Open a run nested in this one."""
        return Recorder.start(self.journal, name, parent=self.run, tags=tags)

    def params(self, values: Mapping[str, Any], prefix: str = "cfg") -> None:
        """Log a nested mapping as flat params ``<prefix>/a/b``; the prefix keeps them apart from MLproject's
        own parameters, which must not be logged again.

        A value too long for a param is replaced by its length and sha256; log it as an artifact as well.
        """
        self.journal.append(LogParams(self.run, flatten(values, prefix)))

    def config(self, values: Mapping[str, Any]) -> None:
        """Log a resolved config: as params ``cfg/...`` and, whole, as artifact ``config.json``."""
        self.params(values)
        self.text("config.json", json.dumps(values, indent=2, default=str) + "\n")

    def tags(self, values: Mapping[str, Any]) -> None:
        """Set tags. Values longer than MLflow takes are cut with a mark."""
        self.journal.append(SetTags(self.run, _tags(values)))

    def experiment_tag(self, key: str, value: str) -> None:
        """Set a tag of the experiment this run lives in."""
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
            time_s: unix seconds; now when None.
            model: sha256 of a bundle logged with `model`, to link the values to it.
            dataset: (name, digest) of a dataset logged with `dataset`, to link the values to it.
        """
        if values:
            time_ms = _now_ms() if time_s is None else round(time_s * 1000)
            numbers = {metric_key(key): float(value) for key, value in values.items()}
            self.journal.append(LogMetrics(self.run, int(step), time_ms, numbers, model, dataset))

    def artifact(self, path: str | Path, target: str | None = None) -> None:
        """Log a file as artifact `target` (its own name when None), or a directory below `target`.

        The file is read when it is uploaded; it has to stay until then.
        """
        path = Path(path).absolute()
        if path.is_dir():
            files = sorted(file for file in path.rglob("*") if file.is_file())
            prefix = f"{target}/" if target else ""
            pairs = [(file, prefix + file.relative_to(path).as_posix()) for file in files]
        else:
            pairs = [(path, target or path.name)]
        if pairs:
            self.journal.append(*(LogArtifact(self.run, str(file), name) for file, name in pairs))

    def text(self, target: str, content: str, *, fill_in: bool = False) -> None:
        """Log a text as artifact `target`. It is kept in a file beside the journal.

        With `fill_in`, ``{{run:<local uuid>}}`` and ``{{experiment}}`` in it become MLflow's ids.
        """
        # A file of its own each time: the server may be behind, and an earlier text must not name runs that come later.
        self._texts += 1
        path = self.file(f"{self._texts}/{target}")
        atomic.write_file(path, content)
        self.journal.append(LogArtifact(self.run, str(path.absolute()), target, fill_in))

    def file(self, target: str) -> Path:
        """Where a file that exists only to be logged is kept under the relative path `target`: beside the journal."""
        path = self.journal.files / self.run / target
        path.parent.mkdir(parents=True, exist_ok=True)
        return path

    def table(self, target: str, rows: Sequence[Mapping[str, Any]]) -> None:
        """Log rows with equal keys as a table that MLflow's UI renders and `mlflow.load_table` reads."""
        self.text(target, ui.table(rows))
        self._tables[target] = None
        self.tags(ui.tables_tag(list(self._tables)))

    def animation(self, key: str, step: int, write: Callable[[Path, Path], None]) -> None:
        """Log an animated image that MLflow's charts show as `key` at `step`.

        `write` is called with the paths of a still (PNG) and of the animation (WebP), which it has to write.
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
        """Log a checkpoint as LoggedModel: what this training run made, or what this evaluation looks at."""
        values = {key: str(value) for key, value in (params or {}).items()}
        # MLflow refuses these characters in a LoggedModel's name.
        name = re.sub(r"[/:.%\"']+", "-", name)
        self.journal.append(LogModel(self.run, sha256, name, role, step, values, _tags(tags or {})))

    def end(self, status: Status, reason: str | None = None, *, leave_to_owner: bool = False) -> None:
        """Close the run, and before it those nested in it that are open. A closed run stays as it is.

        Args:
            status: how it went.
            reason: why it failed or was killed, for the tag ``failure.reason``.
            leave_to_owner: end those nested in it only; this run was active in the process before.
        """
        time_ms = _now_ms()
        for run in reversed(_open_family(self.journal.open_runs, self.run)):
            tags = [SetTags(run, _tags({FAILURE_TAG: reason}))] if reason else []
            own = None if leave_to_owner and run == self.run else status
            self.journal.append(*tags, EndRun(run, own, time_ms))


def _open_family(open_runs: Mapping[str, str | None], run: str) -> list[str]:
    """`run` and its open descendants, parents before children; empty when `run` is closed.

    Args:
        open_runs: run -> its parent, in the order in which they were opened.
    """
    family = [run] if run in open_runs else []
    for each, parent in open_runs.items():
        if parent in family:
            family.append(each)
    return family


def flatten(values: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    """Nested mapping -> {"a/b/c": text}. Lists are JSON; None is "none"; too long values become length and sha256."""
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
    """`key` with what MLflow refuses in keys (all but letters, digits, ``_-. :/``) replaced by ``_``."""
    return re.sub(r"[^\w\-. :/]", "_", key, flags=re.ASCII)


def _tags(values: Mapping[str, Any]) -> dict[str, str]:
    texts = {key: str(value) for key, value in values.items()}
    return {
        key: text if len(text) <= LONGEST_TAG else text[: LONGEST_TAG - 20] + " ... (cut off)"
        for key, text in texts.items()
    }


def _now_ms() -> int:
    return time.time_ns() // 1_000_000
