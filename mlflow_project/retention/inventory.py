"""What lies below a directory of results: checkpoints, evaluations and what killed processes have left."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from statistics import fmean

from mlflow_project.tracking.journal import JournalError, read_header
from mlflow_project.vocabulary import SETTINGS_FILE
from rlinf_isaac.checkpoint.bundle import Bundle, read_bundle
from rlinf_isaac.checkpoint.manifest import MANIFEST_FILE
from rlinf_isaac.checkpoint.removal import size_of
from rlinf_isaac.checkpoint.steps import CHECKPOINTS
from rlinf_isaac.engines.local.training.retention import scores_of
from rlinf_isaac.ground import atomic, lines
from rlinf_isaac.ground.errors import BundleError
from rlinf_isaac.ground.events import Metrics

BESIDE = ("checkpoints-raw", "adapters")
"""Directories beside ``checkpoints`` in which something belongs to a step."""
EPISODES = "episodes.jsonl"
JOURNAL = "journal"
STATES = ("training_state", "kept_state")
_NOT_BELOW = frozenset(
    {
        *BESIDE,
        JOURNAL,
        *STATES,
        "demos",
        "videos",
        "mlruns",
        "mlartifacts",
        "wandb",
        "tensorboard",
    }
)


@dataclass
class Training:
    """A directory in which a training has left checkpoints.

    Attributes:
        path: the directory of the job.
        bundles: step -> checkpoint.
        broken: directories that pass for checkpoints and are none; they are left to a person.
    """

    path: Path
    bundles: dict[int, Bundle] = field(default_factory=dict)
    broken: list[Path] = field(default_factory=list)

    @property
    def is_rl(self) -> bool:
        """Whether it is reinforcement learning, whose best checkpoint is its result."""
        return (self.path / "course.jsonl").exists()

    def scores(self, evaluations: dict[str, dict[str, float]]) -> dict[int, float]:
        """Step -> how good a checkpoint is, higher is better: as the training has measured it or, if it has not, by
        the evaluation with the same settings that has the most of its checkpoints.

        Args:
            evaluations: settings -> digest -> success rate.
        """
        measured = scores_of(_metrics(self.path / "metrics.jsonl"))
        if measured:
            return measured
        by_settings = [
            {step: rates[bundle.digest] for step, bundle in self.bundles.items() if bundle.digest in rates}
            for rates in evaluations.values()
        ]
        return max(by_settings, key=len, default={})

    def size(self, step: int) -> int:
        """Bytes of a checkpoint and of what belongs to its step."""
        return sum(size_of(self.path / root / str(step)) for root in (CHECKPOINTS, *BESIDE))


@dataclass
class Inventory:
    """What was found.

    Attributes:
        trainings: in the order of their paths.
        others: bundles that no training has left here (made by `bundle make`, or copied).
        results: directories of evaluated checkpoints.
        leftovers: what killed writers and removers have left.
        states: what interrupted trainings go on from, several times the size of a checkpoint.
        journals: the journals of the verbs that have written here, or have made the directory itself.
        evaluations: settings -> digest of a checkpoint -> its success rate.
    """

    trainings: list[Training] = field(default_factory=list)
    others: list[Bundle] = field(default_factory=list)
    results: list[Path] = field(default_factory=list)
    leftovers: list[Path] = field(default_factory=list)
    states: list[Path] = field(default_factory=list)
    journals: list[Path] = field(default_factory=list)
    evaluations: dict[str, dict[str, float]] = field(default_factory=dict)

    @property
    def bundles(self) -> list[Bundle]:
        """All bundles."""
        return [*self.others, *(bundle for training in self.trainings for bundle in training.bundles.values())]


def take(root: Path) -> Inventory:
    """Look through `root`. Nothing is written, and no weights are hashed."""
    found = Inventory()
    for parent in root.absolute().parents[:3]:
        found.journals += _journals(parent / JOURNAL)
    trainings: dict[Path, Training] = {}
    for directory, names, files in os.walk(root):
        here = Path(directory)
        orphans = [name for name in (*names, *files) if atomic.is_orphan(here / name)]
        found.leftovers += [here / name for name in orphans]
        if MANIFEST_FILE in files:
            names.clear()
            _add_bundle(here, found, trainings)
            continue
        if JOURNAL in names:
            found.journals += _journals(here / JOURNAL)
        found.states += [here / name for name in STATES if (here / name / "optimizer.safetensors").exists()]
        if EPISODES in files:
            found.results.append(here)
            _add_rate(here, found.evaluations)
        if any(root_name in names for root_name in (CHECKPOINTS, *BESIDE)):
            for root_name in BESIDE:  # not looked through, but something may be left there
                found.leftovers += [each for each in _children(here / root_name) if atomic.is_orphan(each)]
        names[:] = sorted(name for name in names if name not in _NOT_BELOW and name not in orphans)
    found.trainings = [trainings[path] for path in sorted(trainings)]
    return found


def _add_bundle(path: Path, found: Inventory, trainings: dict[Path, Training]) -> None:
    of_training = path.parent.name == CHECKPOINTS
    training = trainings.setdefault(path.parent.parent, Training(path.parent.parent)) if of_training else None
    try:
        bundle = read_bundle(path, verify=False)
    except BundleError:
        if training is not None:
            training.broken.append(path)
        return
    if training is None:
        found.others.append(bundle)
    else:
        training.bundles[bundle.step] = bundle


def _add_rate(directory: Path, evaluations: dict[str, dict[str, float]]) -> None:
    """The success rate of the checkpoint whose episodes are in a directory, below the one of the settings; none of
    varied episodes, which do not say how good a checkpoint is."""
    with suppress(OSError, ValueError, AttributeError):
        if json.loads((directory.parent / SETTINGS_FILE).read_text(encoding="utf-8")).get("vary"):
            return
    rows = [json.loads(line) for line, _ in lines.follow(directory / EPISODES)]
    if rows:
        rates = evaluations.setdefault(str(directory.parent), {})
        rates[rows[0]["checkpoint"]] = fmean(bool(row["success"]) for row in rows)


def _metrics(path: Path) -> Iterator[Metrics]:
    if path.exists():  # read without `lines.read`, which cuts off a torn line: another process may write it now
        yield from (Metrics(**json.loads(line)) for line, _ in lines.follow(path))


def _journals(directory: Path) -> Iterator[Path]:
    for path in sorted(directory.glob("*.jsonl")):
        with suppress(JournalError, OSError):  # of a process that was killed at once, or something else
            read_header(path)
            yield path


def _children(directory: Path) -> list[Path]:
    return sorted(directory.iterdir()) if directory.is_dir() else []
