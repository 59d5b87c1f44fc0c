"""What a target of reports is, and how far it has come with a journal.

The state of a target is the file ``<journal>.<target>.state.json`` beside the journal. A journal that has one is
reported to that target: by the verb that writes it, by `sync`, and by later verbs with the same output.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Protocol

from mlflow_project.reporting.names import TARGETS, TENSORBOARD
from mlflow_project.tracking.operations import Operation
from rlinf_isaac.ground import atomic


@dataclass
class Progress:
    """How far a target has come with a journal.

    Attributes:
        offset: bytes of the journal that are reported; 0 before the first operation.
        ended: whether the run of the verb had ended by then, so that nothing is missing.
        own: what the target needs to go on after a kill, as JSON.
    """

    offset: int = 0
    ended: bool = False
    own: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def load(cls, journal: Path, target: str) -> Progress:
        """The saved progress, or that of the beginning."""
        path = progress_path(journal, target)
        return cls(**json.loads(path.read_text())) if path.exists() else cls()

    def save(self, journal: Path, target: str) -> None:
        """Replace the saved progress, atomically and durably."""
        atomic.write_file(progress_path(journal, target), json.dumps(asdict(self)))


class Target(Protocol):
    """Takes the operations of one journal, in their order."""

    def apply(self, operation: Operation) -> None:
        """Report one operation. An operation that means nothing there is left out."""
        ...

    def settle(self) -> dict[str, Any]:
        """Make everything durable that was reported; returns `Progress.own`."""
        ...

    def close(self) -> None:
        """End. Runs that have not ended in the journal may be gone on with later."""
        ...


def open_target(name: str, journal: Path, progress: Progress) -> tuple[Target, int]:
    """The target `name` for a journal, and the offset in the journal from which it has to be told (0: the beginning).

    What an earlier process has written without noting it in `progress` is taken back first.
    """
    output = journal.parent.parent
    if name == TENSORBOARD:
        from mlflow_project.reporting.tensorboard import TensorBoard

        return TensorBoard(output / TENSORBOARD, journal.stem, progress.own), progress.offset
    from mlflow_project.reporting.wandb import WeightsAndBiases

    return WeightsAndBiases(output, progress.own), 0


def progress_path(journal: Path, target: str) -> Path:
    """Path of the state of a target."""
    return journal.with_name(f"{journal.name}.{target}.state.json")


def targets_of(journal: Path) -> list[str]:
    """The targets that a journal is reported to."""
    return [name for name in TARGETS if progress_path(journal, name).exists()]


@contextmanager
def alone(journal: Path, target: str) -> Iterator[None]:
    """Let one process at a time report a journal to a target.

    Raises:
        InvalidJob: another process does so now.
    """
    with atomic.claimed(progress_path(journal, target)):
        yield
