"""The interface of an engine: it takes a job and yields events. It does not know who consumes the events. Its `Player`
is what plays the episodes of an evaluation."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol

from rlinf_isaac.checkpoint.bundle import TRAINED_FROM, Bundle
from rlinf_isaac.checkpoint.description import checkpoint_config, config_digest
from rlinf_isaac.checkpoint.trained_with import NormStatsFile
from rlinf_isaac.config.schema import JobConfig
from rlinf_isaac.ground.digest import bytes_digest
from rlinf_isaac.ground.events import EpisodeRow, Event
from rlinf_isaac.stats.sequential import StopRule
from rlinf_isaac.tasks.variation import Variation

if TYPE_CHECKING:
    from rlinf_isaac.checkpoint.foreign.base import Base
    from rlinf_isaac.data.mixture import AnyDataset


Guardian = Callable[[Sequence[Bundle]], Mapping[str, str] | None]
"""Asked about checkpoints that are to be removed: digest -> why it has to stay, or None if that is not known now, and
none may go. It must be picklable, and answer within seconds."""


@dataclass(frozen=True)
class SftJob:
    """Supervised fine-tuning.

    Attributes:
        config: the resolved job config.
        dataset: root of a LeRobot dataset.
        dataset_digest: digest of the dataset or of the mixture, for the lineage.
        norm_stats: bytes of the dataset's norm_stats.json.
        output: directory of this job; checkpoints are written to ``output/checkpoints/<step>``.
        base: the checkpoint that training starts from; None for random weights.
        mixed_with: roots of further datasets, mixed with the first one by ``sft.mix``.
        env_python: interpreter that has the environment, for a job that plays; None: that of the task, or what
            ISAACLAB_PYTHON names.
        further_norm_stats: asset id -> bytes of the norm stats of the other tasks of a suite that does not share them.
        guardian: says which checkpoints somebody else needs, before ``sft.keep`` removes any.
    """

    config: JobConfig
    dataset: Path
    dataset_digest: str
    norm_stats: bytes
    output: Path
    base: Base | None = None
    mixed_with: tuple[Path, ...] = ()
    processes: int = 1
    sharding: Literal["replicate", "shard"] = "shard"
    env_python: str | None = None
    further_norm_stats: Mapping[str, bytes] = field(default_factory=dict)
    guardian: Guardian | None = None

    @property
    def datasets(self) -> tuple[Path, ...]:
        """The roots of all datasets."""
        return (self.dataset, *self.mixed_with)

    @property
    def lineage(self) -> dict[str, str | None]:
        """Digests of everything that the checkpoints are made from."""
        links: dict[str, str | None] = {
            "config": config_digest(self.config),
            "dataset": self.dataset_digest,
            "norm_stats": bytes_digest(self.norm_stats),
            "parent": None,
        }
        return links if self.base is None else links | {self.base.link: self.base.digest}

    def description(self, dataset: AnyDataset) -> dict[str, Any]:
        """Content of the checkpoints' ``config.json``; `dataset` is the opened dataset or mixture of `datasets`."""
        described = checkpoint_config(self.config, dataset)
        if self.base is not None:
            described["base"] = self.base.record
            if self.base.norm_stats is not None:
                described["norm_stats"] = dict(self.base.norm_stats)
        return described


@dataclass(frozen=True)
class EvaluationJob:
    """Evaluation of one or several checkpoints on the same seeds; only the checkpoint differs.

    Attributes:
        config: the resolved job config; `policy` and `model` are those of the checkpoints.
        bundles: the checkpoints, verified, in the order of evaluation.
        output: rows and videos land in ``output/<digest of the settings>/<step>-<digest of the bundle>/``.
        norm_stats: what to normalise with instead of each bundle's own; anything but equal bytes is a mismatch.
        allow_mismatch: evaluate although the job is not what the weights were trained with.
        stop_rule: go through the seeds in batches, all bundles in each, and stop when it is decided which is best.
        env_python: interpreter that has the environment, for a job that plays; None: that of the task, or what
            ISAACLAB_PYTHON names.
        varied: what differs from the usual environment in every episode; None: nothing.
        vary: axes along which the same seeds are to be played besides. An engine plays what `varied` says;
            `engines.robustness` makes a job of each.
    """

    config: JobConfig
    bundles: tuple[Bundle, ...]
    output: Path
    norm_stats: NormStatsFile | None = None
    allow_mismatch: bool = False
    stop_rule: StopRule | None = None
    env_python: str | None = None
    varied: Variation | None = None
    vary: tuple[Variation, ...] = ()


@dataclass(frozen=True)
class RlJob:
    """Reinforcement learning from one checkpoint.

    Attributes:
        config: the resolved job config; `policy` and `model` are those of the checkpoint.
        start: the checkpoint, verified.
        output: directory of this job; checkpoints land in ``output/checkpoints/<iteration>``.
        env_python: interpreter that has the environment, for a job that plays; None: that of the task, or what
            ISAACLAB_PYTHON names.
        guardian: as in `SftJob`, for ``rl.keep``.
    """

    config: JobConfig
    start: Bundle
    output: Path
    env_python: str | None = None
    guardian: Guardian | None = None

    @property
    def processes(self) -> int:
        """Number of processes that train together; it decides the minibatches, so it belongs to the lineage."""
        return self.config.compute.num_processes

    @property
    def lineage(self) -> dict[str, str | None]:
        """Digests of everything that the checkpoints are made from. The dataset is that of the start checkpoint."""
        return {
            "config": config_digest(self.config, trained_by="rl"),
            "dataset": self.start.lineage.get("dataset"),
            "norm_stats": bytes_digest(self.start.norm_stats_bytes),
            "parent": self.start.digest,
        }

    @property
    def description(self) -> dict[str, Any]:
        """Content of the checkpoints' ``config.json``: that of the start checkpoint, with this job."""
        own = {"job": self.config.as_dict(), "trained_by": "rl", TRAINED_FROM: self.start.name}
        return {**self.start.config, **own}


class Player(Protocol):
    """A running simulator that plays episodes of any checkpoint.

    Attributes:
        identity: identity of the environment (`EnvIdentity` as a dict).
        slots: number of environments that are stepped together. Seed number k of a job plays in slot ``k % slots``.
        settings: further settings that the rows of this player depend on.
    """

    identity: Mapping[str, Any]
    slots: int
    settings: Mapping[str, Any]

    def play(
        self,
        bundle: Bundle,
        seeds: Sequence[int],
        finished: Collection[int],
        films: Mapping[int, Path],
        again: bool = False,
    ) -> Iterator[EpisodeRow | Event]:
        """Play the seeds that are not `finished`; yields a row when an episode ends, and events in between.

        The caller sets `EpisodeRow.video`.

        Args:
            bundle: the checkpoint.
            seeds: all seeds of the job; their order determines the slots.
            finished: seeds that are not played.
            films: seed -> mp4 file, which must be written and verified before the episode's row is yielded. A player
                that knows states and actions writes them beside it (`rollout.film.trace_of`).
            again: whether these episodes have been played before, and only their films are wanted: nothing is measured.
        """
        ...


class Engine(Protocol):
    """Runs jobs. For work that is complete on disk it yields the events again, without repeating the work."""

    def tags(self) -> dict[str, str]:
        """Tags of a run: ``engine``, and the versions of the packages that the engine uses."""
        ...

    def sft(self, job: SftJob) -> Iterator[Event]:
        """Train; yields Metrics, CheckpointSaved, Progress."""
        ...

    def rl(self, job: RlJob) -> Iterator[Event]:
        """Train by reinforcement learning; yields Metrics, CheckpointSaved, Progress, and the local engine also
        RolledBack and ResultChosen."""
        ...

    def evaluate(self, job: EvaluationJob) -> Iterator[Event]:
        """Evaluate; yields for each checkpoint EvaluationStarted, MismatchAllowed, EpisodeDone / VideoSaved and
        EvaluationFinished, and Progress in between. With a stop rule, all checkpoints start before the first one
        finishes. After the last one, the episodes that are played again for a film follow, and for each checkpoint
        EvaluationFilmed (`engines.filming`)."""
        ...
