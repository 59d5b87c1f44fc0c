"""The events that an engine yields while it works.

``engine.sft(job)`` and ``engine.evaluate(job)`` are iterators of these events. The engine does not depend on the
listeners; the progress bar and the MLflow recorder both read the same stream. Results of an interrupted run that are
already on disk are announced again instead of being computed again, so the stream of a resumed run is complete.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from rlinf_isaac.ground.errors import Problem

EpisodeKey = int | tuple[int, str]
"""The seed of an episode, or its seed and its task."""


@dataclass(frozen=True)
class EpisodeRow:
    """The record of one evaluated episode. Success rates are computed from these rows.

    Two evaluations of a checkpoint with the same seeds and settings give equal rows.

    Attributes:
        checkpoint_step: optimiser step of the checkpoint.
        checkpoint: digest (sha256) of the checkpoint bundle.
        seed: seed of the environment's reset. All checkpoints of a sweep use the same seeds, so episodes are paired.
        env_index: index of its env in the vector environment.
        success: the task's success term; an episode that merely terminated is not a success.
        outcome: how it ended: ``success``, ``timeout``, or a failure that the task names.
        length: control steps taken.
        episode_return: undiscounted sum of rewards.
        policy_seed: seed of the flow-matching noise.
        subtasks: name -> whether the subtask was reached at any time in the episode.
        extras: further numbers of the episode, which its environment gives.
        video: path of the episode's video relative to the evaluation directory, or None.
        task: the task, if the checkpoint is of several (`tasks.suite`), else empty.
        filmed_outcome, filmed_length: outcome and length of the film's episode, if it was played again to be filmed
            and did not end as this one; empty and 0 otherwise.
    """

    checkpoint_step: int
    checkpoint: str
    seed: int
    env_index: int
    success: bool
    outcome: str
    length: int
    episode_return: float
    policy_seed: int
    subtasks: Mapping[str, bool] = field(default_factory=dict)
    video: str | None = None
    extras: Mapping[str, float] = field(default_factory=dict)
    task: str = ""
    filmed_outcome: str = ""
    filmed_length: int = 0

    @property
    def film_length(self) -> int:
        """Control steps in the film, which has one frame more."""
        return self.filmed_length or self.length

    @property
    def key(self) -> EpisodeKey:
        """What tells the episodes of a checkpoint apart, in the order in which batches of seeds are played."""
        return (self.seed, self.task) if self.task else self.seed

    def as_dict(self) -> dict[str, Any]:
        """A JSON-ready dict; `from_dict` is its inverse. What is unusual is left out where it is empty, so that it is
        that of earlier releases."""
        unusual = ("extras", "task", "filmed_outcome", "filmed_length")
        return {key: value for key, value in asdict(self).items() if value or key not in unusual}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> EpisodeRow:
        """The inverse of `as_dict`."""
        return cls(**values)


@dataclass(frozen=True)
class Metrics:
    """Scalar metrics at a step. `time` is in Unix seconds and stays the same when the event is announced again."""

    step: int
    values: Mapping[str, float]
    time: float = field(default_factory=time.time)


@dataclass(frozen=True)
class CheckpointSaved:
    """A complete, verified checkpoint bundle was written to `path`. `digest` is the bundle's sha256."""

    step: int
    path: Path
    digest: str


@dataclass(frozen=True)
class CheckpointRemoved:
    """A checkpoint that was saved has been removed from `path`: the job does not keep it. `bytes` are free now."""

    step: int
    path: Path
    digest: str
    bytes: int


@dataclass(frozen=True)
class Resumed:
    """A training goes on after `step` (``rl``: iteration) of `total`, where an interrupted one has left it. `label` is
    ``sft`` or ``rl``, as in `Progress`."""

    label: str
    step: int
    total: int


@dataclass(frozen=True)
class RolledBack:
    """Reinforcement learning went back to an earlier checkpoint.

    Attributes:
        iteration: the iteration that was a collapse.
        to: iteration of the checkpoint that the next iteration begins from; 0: the start checkpoint.
        reason: one sentence on the collapse.
        abandoned: the iterations whose learning was given up.
        lr: learning rate of the policy from then on.
    """

    iteration: int
    to: int
    reason: str
    abandoned: tuple[int, ...]
    lr: float


@dataclass(frozen=True)
class ResultChosen:
    """Reinforcement learning has ended, and the checkpoint of iteration `step` is its result.

    Attributes:
        step, path, digest: as in `CheckpointSaved`.
        ended: ``complete``, ``target`` (the success that was aimed at is reached) or ``collapsed``.
        message: how it ended and why this is the result, with the numbers.
    """

    step: int
    path: Path
    digest: str
    ended: str
    message: str


@dataclass(frozen=True)
class EvaluationStarted:
    """The evaluation of one checkpoint starts, or the rows of a finished evaluation are about to be announced.

    `settings` has everything besides checkpoint and seed on which its episodes depend: ``environment`` (an
    `EnvIdentity` as dict), ``action_chunk``, ``policy_seed`` and more; also ``stop_rule``, if the results decided the
    number of episodes, and ``failures``, the outcomes of a task that is not stack-cube. Of several tasks, ``tasks`` has
    the settings of each, and the rest is what they have in common. `assumed` has assumptions about its training,
    `unsaid` the facts that are not known (`checkpoint.facts`).
    """

    step: int
    path: Path
    digest: str
    settings: Mapping[str, Any] = field(default_factory=dict)
    assumed: Mapping[str, Any] = field(default_factory=dict)
    unsaid: tuple[str, ...] = ()


@dataclass(frozen=True)
class MismatchAllowed:
    """The checkpoint is run although the job differs from the training of its weights, as `problem` says."""

    step: int
    digest: str
    problem: Problem


@dataclass(frozen=True)
class EpisodeDone:
    """One episode has ended, and its row is on disk."""

    row: EpisodeRow


@dataclass(frozen=True)
class VideoSaved:
    """A verified mp4 of one episode was written to `path`. `task` is that of the episode's row, and `trace` the file
    with its states and actions (`engines.rollout.film`), or None."""

    checkpoint_step: int
    seed: int
    path: Path
    frames: int
    task: str = ""
    trace: Path | None = None

    @property
    def key(self) -> EpisodeKey:
        """As `EpisodeRow.key`."""
        return (self.seed, self.task) if self.task else self.seed


@dataclass(frozen=True)
class EvaluationFinished:
    """All episodes of one checkpoint are done. `directory` holds episodes.jsonl and videos/."""

    step: int
    digest: str
    directory: Path


@dataclass(frozen=True)
class EvaluationFilmed:
    """Chosen episodes of a checkpoint have been played again and filmed, after its evaluation has finished. Before it
    come VideoSaved, and EpisodeDone with the row that names the video, of each of them."""

    step: int
    digest: str


@dataclass(frozen=True)
class FileSaved:
    """A file for the run was written to `path`. `name` is its name among the run's artifacts, with slashes."""

    path: Path
    name: str


@dataclass(frozen=True)
class Progress:
    """Progress of a named piece of work, for a progress bar.

    `unit` is ``B`` if bytes are counted, ``ep`` for episodes, and empty for steps and iterations.
    """

    label: str
    done: int
    total: int
    note: str = ""
    unit: str = ""


Event = (
    Metrics
    | CheckpointSaved
    | CheckpointRemoved
    | Resumed
    | RolledBack
    | ResultChosen
    | EvaluationStarted
    | MismatchAllowed
    | EpisodeDone
    | VideoSaved
    | EvaluationFinished
    | EvaluationFilmed
    | FileSaved
    | Progress
)
