"""The operations of a journal: small records that say what MLflow shall hold, without importing MLflow.

Runs are named by local uuids (32 hex digits) because a run must be recordable while no server answers; the replica
maps them to MLflow's ids. Checkpoints (LoggedModels) are named by the sha256 of their bundle. A tag's value
(an experiment tag's key, a text) may contain ``{{run:<local uuid>}}`` and ``{{experiment}}``; the replica puts MLflow's
ids there.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

Status = Literal["FINISHED", "FAILED", "KILLED"]


@dataclass(frozen=True)
class StartRun:
    """Create a run, or adopt one that exists.

    Attributes:
        run: local uuid.
        name: run name (not changed when adopting).
        parent: local uuid of the parent run.
        tags: tags to begin with.
        experiment: experiment name, or ``id:<experiment id>``; children live where their parent lives.
        adopt: MLflow id of an existing run to use instead of creating one.
        time_ms: start, unix milliseconds.
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
    """Params of a run; a param never changes."""

    run: str
    params: Mapping[str, str]


@dataclass(frozen=True)
class LogMetrics:
    """Metrics of one step. With `model` (bundle sha256) they are linked to that LoggedModel as well, and with
    `dataset` (name, digest) to the dataset they were measured against."""

    run: str
    step: int
    time_ms: int
    values: Mapping[str, float]
    model: str | None = None
    dataset: tuple[str, str] | None = None


@dataclass(frozen=True)
class SetTags:
    """Tags of a run; a later value replaces an earlier one."""

    run: str
    tags: Mapping[str, str]


@dataclass(frozen=True)
class SetExperimentTag:
    """A tag of the experiment that `run` lives in."""

    run: str
    key: str
    value: str


@dataclass(frozen=True)
class LogArtifact:
    """The local file `source` becomes the artifact `target` (posix path with file name).

    With `fill_in` it is a text that names runs and the experiment as a tag's value does.
    """

    run: str
    source: str
    target: str
    fill_in: bool = False


@dataclass(frozen=True)
class LogDataset:
    """A dataset input. `digest` has at most 36 characters; `source`, `schema` and `profile` are JSON texts."""

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
    """A checkpoint as LoggedModel (external: no bytes), output of a training run or input of an evaluation.

    One that the experiment knows already by `digest` is used again.
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
    """The run is over. `status` None leaves it to the process that opened it (an active run we were called inside)."""

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
    """One line of JSON, without its newline. NaN and infinities are written as Python's json writes them."""
    return json.dumps({"op": _NAMES[type(operation)]} | asdict(operation), separators=(",", ":"))


def decode(line: str) -> Operation:
    """Inverse of `encode`. Raises ValueError, KeyError or TypeError on anything else."""
    values: dict[str, Any] = json.loads(line)
    cls = _TYPES[values.pop("op")]
    if values.get("dataset") is not None:
        values["dataset"] = tuple(values["dataset"])
    return cls(**values)
