"""What an engine says while it works.

``engine.sft(job)`` and ``engine.evaluate(job)`` are iterators of these events. The engine does not know who
listens: the progress bar and the MLflow recorder are two listeners of the same stream. What is already on disk
from an interrupted run is announced again rather than computed again, so the stream of a resumed run is complete.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from rlinf_isaac.ground.errors import Problem

Outcome = Literal["success", "drop", "timeout"]


@dataclass(frozen=True)
class EpisodeRow:
    """One evaluated episode: the unit of truth behind every success rate.

    Two runs of the same checkpoint with the same seeds and settings give equal rows.

    Attributes:
        checkpoint_step: optimiser step of the checkpoint.
        checkpoint: digest (sha256) of the checkpoint bundle.
        seed: seed of the environment's reset; shared by all checkpoints of a sweep, so episodes are paired.
        env_index: slot of the vector environment that ran it.
        success: the task's success term, never merely "terminated".
        outcome: how it ended.
        length: control steps taken.
        episode_return: undiscounted sum of rewards.
        policy_seed: seed of the flow-matching noise.
        subtasks: subtask flag -> reached at any time in the episode.
        video: path of the episode's video relative to the evaluation directory, or None.
    """

    checkpoint_step: int
    checkpoint: str
    seed: int
    env_index: int
    success: bool
    outcome: Outcome
    length: int
    episode_return: float
    policy_seed: int
    subtasks: Mapping[str, bool] = field(default_factory=dict)
    video: str | None = None

    def as_dict(self) -> dict[str, Any]:
        """A JSON-ready dict; `from_dict` is its inverse."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> EpisodeRow:
        """The row that `as_dict` made these values of."""
        return cls(**values)


@dataclass(frozen=True)
class Metrics:
    """Scalar metrics at a step. `time` is unix seconds; it stays the same when the event is announced again."""

    step: int
    values: Mapping[str, float]
    time: float = field(default_factory=time.time)


@dataclass(frozen=True)
class CheckpointSaved:
    """A complete, verified checkpoint bundle lies at `path`. `digest` is the bundle's sha256."""

    step: int
    path: Path
    digest: str


@dataclass(frozen=True)
class EvaluationStarted:
    """Evaluation of one checkpoint begins (or its rows, finished earlier, are about to be announced).

    `settings` is everything besides checkpoint and seed that its episodes depend on: ``environment`` (an `EnvIdentity`
    as dict), ``action_chunk``, ``policy_seed`` and more; ``stop_rule`` where the number of episodes depended on them.
    `assumed` has what a person said of its training, `unsaid` what nobody did (`checkpoint.facts`).
    """

    step: int
    path: Path
    digest: str
    settings: Mapping[str, Any] = field(default_factory=dict)
    assumed: Mapping[str, Any] = field(default_factory=dict)
    unsaid: tuple[str, ...] = ()


@dataclass(frozen=True)
class MismatchAllowed:
    """The checkpoint is run although `problem` says that the job is not what its weights were trained with."""

    step: int
    digest: str
    problem: Problem


@dataclass(frozen=True)
class EpisodeDone:
    """One episode row is durable on disk."""

    row: EpisodeRow


@dataclass(frozen=True)
class VideoSaved:
    """A verified, playable mp4 of one episode lies at `path`."""

    checkpoint_step: int
    seed: int
    path: Path
    frames: int


@dataclass(frozen=True)
class EvaluationFinished:
    """All episodes of one checkpoint are done. `directory` holds episodes.jsonl and videos/."""

    step: int
    digest: str
    directory: Path


@dataclass(frozen=True)
class FileSaved:
    """A file that belongs to the run lies at `path`; `name` is what it is called there, with slashes."""

    path: Path
    name: str


@dataclass(frozen=True)
class Progress:
    """How far a named piece of work has come, for a progress bar. `unit` is ``B`` where bytes are counted."""

    label: str
    done: int
    total: int
    note: str = ""
    unit: str = ""


Event = (
    Metrics
    | CheckpointSaved
    | EvaluationStarted
    | MismatchAllowed
    | EpisodeDone
    | VideoSaved
    | EvaluationFinished
    | FileSaved
    | Progress
)
