"""The operations of a journal: each is a small record of one change in MLflow. This module does not import MLflow.

Runs are named by local uuids (32 hex digits), because a run must be recordable while no server answers; the replica
maps them to MLflow's ids. Checkpoints (LoggedModels) are named by the sha256 of their bundle. The values of tags, the
keys of experiment tags and text artifacts may contain ``{{run:<local uuid>}}`` and ``{{experiment}}``; the replica
replaces these by MLflow's ids.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

Status = Literal["FINISHED", "FAILED", "KILLED"]


@dataclass(frozen=True)
class StartRun:
    """Create a run, or adopt an existing one. A run that the journal has begun before is RUNNING again.

    Attributes:
        run: local uuid.
        name: run name. A run that is adopted keeps its own, unless MLflow made it up for `mlflow run`.
        parent: local uuid of the parent run.
        tags: initial tags.
        experiment: experiment name, or ``id:<experiment id>``; a nested run is in the experiment of its parent.
        adopt: MLflow id of an existing run to use instead of creating one.
        time_ms: start time, unix milliseconds.
    """

    run: str
    name: str
    time_ms: int
    parent: str | None = None
    tags: Mapping[str, str] = field(default_factory=dict)
    experiment: str | None = None
    adopt: str | None = None


@dataclass(frozen=True)
class LogParams:
    """Set params of a run; MLflow does not allow a param to change."""

    run: str
    params: Mapping[str, str]


@dataclass(frozen=True)
class LogMetrics:
    """Log the metrics of one step. `model` (bundle sha256) links them to a LoggedModel, and `dataset` (name, digest) to
    the dataset they were measured on."""

    run: str
    step: int
    time_ms: int
    values: Mapping[str, float]
    model: str | None = None
    dataset: tuple[str, str] | None = None


@dataclass(frozen=True)
class SetTags:
    """Set tags of a run; a later value replaces an earlier one."""

    run: str
    tags: Mapping[str, str]


@dataclass(frozen=True)
class SetExperimentTag:
    """Set a tag of the experiment that contains `run`."""

    run: str
    key: str
    value: str


@dataclass(frozen=True)
class LogArtifact:
    """Upload the local file `source` as artifact `target` (posix path with file name).

    With `fill_in` it is a text file in which placeholders of runs and the experiment are replaced. With `weights_of`,
    the sha256 of a bundle, it is not uploaded if the run that made this checkpoint has the file.
    """

    run: str
    source: str
    target: str
    fill_in: bool = False
    weights_of: str | None = None


@dataclass(frozen=True)
class LogDataset:
    """Log a dataset input. `digest` has at most 36 characters; `source`, `schema` and `profile` are JSON texts."""

    run: str
    name: str
    digest: str
    source_type: str
    source: str
    context: str
    profile: str | None = None
    schema: str | None = None


@dataclass(frozen=True)
class LogModel:
    """Link a checkpoint to a run as LoggedModel: output of a training or input of an evaluation.

    The LoggedModel is external (MLflow stores no weights). If the experiment has one with this `digest`, it is reused.
    """

    run: str
    digest: str
    name: str
    role: Literal["input", "output"]
    step: int
    params: Mapping[str, str] = field(default_factory=dict)
    tags: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class EndRun:
    """End a run. With `status` None its status stays: the run was active before, and its owner ends it."""

    run: str
    status: Status | None
    time_ms: int


Operation = (
    StartRun | LogParams | LogMetrics | SetTags | SetExperimentTag | LogArtifact | LogDataset | LogModel | EndRun
)

_TYPES: dict[str, type] = {
    "run_start": StartRun,
    "params": LogParams,
    "metrics": LogMetrics,
    "tags": SetTags,
    "experiment_tag": SetExperimentTag,
    "artifact": LogArtifact,
    "dataset": LogDataset,
    "model": LogModel,
    "run_end": EndRun,
}
_NAMES = {cls: name for name, cls in _TYPES.items()}


def encode(operation: Operation) -> str:
    """Encode as one line of JSON, without newline. NaN and infinities are written as Python's json writes them."""
    return json.dumps({"op": _NAMES[type(operation)]} | asdict(operation), separators=(",", ":"))


def decode(line: str) -> Operation:
    """Inverse of `encode`. Raises ValueError, KeyError or TypeError on anything else."""
    values: dict[str, Any] = json.loads(line)
    cls = _TYPES[values.pop("op")]
    if values.get("dataset") is not None:
        values["dataset"] = tuple(values["dataset"])
    return cls(**values)
