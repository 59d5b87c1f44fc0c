"""How far one journal is in one store, and how it gets further: step by step, saved after each.

A crash repeats at most one step, which is harmless (`replica.py`).
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from mlflow_project.tracking.answers import Refused, RequestTooLarge, Unreachable, sorted_errors
from mlflow_project.tracking.first_store import ensure_store
from mlflow_project.tracking.journal import read_header, read_operations
from mlflow_project.tracking.mlflow_environment import prepare_environment
from mlflow_project.tracking.operations import LogArtifact, Operation
from mlflow_project.tracking.redact import without_credentials
from mlflow_project.tracking.replica import BATCHED, OtherStore, Replica
from mlflow_project.tracking.state import Aside, State

_READ_BYTES = 1 << 20

Placed = tuple[Operation, int]
"""An operation and the byte of the journal at which its line begins."""


class Cursor:
    """One journal's way into one store. Only the journal's owner may use it.

    Args:
        path: the journal.
        tracking_uri: of the store.
        again: try what was refused once more, and bring the journal whole into a store that replaced the one it was
            begun in.
    """

    def __init__(self, path: Path, tracking_uri: str, *, again: bool = False) -> None:
        self.path, self.tracking_uri = path, tracking_uri
        own = read_header(path)[0].tracking_uri
        self._elsewhere = None if without_credentials(tracking_uri) == own else without_credentials(tracking_uri)
        self.state = State.load(path, self._elsewhere)
        self._again = again
        self._replica: Replica | None = None
        if again and any(each.at is None for each in self.state.aside):
            self.state.offset, self.state.aside = 0, []

    def advance(self) -> Iterator[int]:
        """Apply everything the journal holds; yields the number of operations after every saved step.

        Raises:
            Unreachable: the server did not take the next step.
        """
        try:
            yield from self._advance()
        except OtherStore:
            if not self._again:
                raise
            self._again, self._replica, self.state = False, None, State()
            yield from self._advance()

    def pending(self) -> int:
        """Number of operations that are not applied and not refused."""
        later = sum(not each.final for each in self.state.aside)
        return later + len(read_operations(self.path, self._start())[0])

    def _advance(self) -> Iterator[int]:
        while operations := read_operations(self.path, self._start(), _READ_BYTES)[0]:
            for step, end in _steps(operations, self._start()):
                self._apply(step)
                self.state.offset = end
                self.state.save(self.path, self._elsewhere)
                yield len(step)
        for aside in [each for each in self.state.aside if self._again or not each.final]:
            self._try_again(aside)
            self.state.save(self.path, self._elsewhere)
            yield 0
        self._again = False

    def _start(self) -> int:
        return self.state.offset or read_header(self.path)[1]

    def _apply(self, step: list[Placed]) -> None:
        """Apply a step. What cannot be applied is left aside, and does not hold up the rest."""
        try:
            self._connected().apply([operation for operation, _ in step])
        except (Refused, RequestTooLarge) as error:
            if len(step) > 1:  # one bad entry makes the store refuse the whole batch: find it, keep the others
                for each in step:
                    self._apply([each])
                return
            ((operation, at),) = step
            if isinstance(error, RequestTooLarge) and not isinstance(operation, LogArtifact):
                raise
            reason = f"{type(operation).__name__}: {error}"
            self.state.aside.append(Aside(at, reason, final=isinstance(error, Refused)))

    def _try_again(self, aside: Aside) -> None:
        """Apply an operation that had been left aside; it stays there if it still cannot be applied."""
        assert aside.at is not None
        ((operation, _),), _ = read_operations(self.path, aside.at, limit=1)
        self.state.aside.remove(aside)
        if isinstance(operation, LogArtifact) and self._is_replaced(operation, aside.at):
            return
        try:
            self._apply([(operation, aside.at)])
        except Unreachable:
            self.state.aside.append(aside)
            raise

    def _is_replaced(self, artifact: LogArtifact, at: int) -> bool:
        """Whether the journal holds a later file for the same place."""
        place = (artifact.run, artifact.target)
        later = [operation for operation, _ in read_operations(self.path, at)[0][1:]]
        return any(isinstance(each, LogArtifact) and (each.run, each.target) == place for each in later)

    def _connected(self) -> Replica:
        if self._replica is None:
            prepare_environment()
            from mlflow import MlflowClient

            try:
                with sorted_errors(remote=False):
                    ensure_store(self.tracking_uri)
                    client = MlflowClient(self.tracking_uri)
            except Refused as error:  # a database that is locked, or on a disk that is not there
                raise Unreachable(str(error)) from error
            self._replica = Replica(client, self.tracking_uri, self.state)
        return self._replica


def _steps(operations: list[Placed], start: int) -> Iterator[tuple[list[Placed], int]]:
    """Split into what `Replica.apply` takes at once, runs of batched operations or a single other one, each with the
    byte after it.

    Args:
        operations: with the byte after each of them.
        start: the byte at which the first begins.
    """
    batch: list[Placed] = []
    for operation, end in operations:
        if not isinstance(operation, BATCHED) and batch:
            yield batch, start
            batch = []
        batch.append((operation, start))
        start = end
        if not isinstance(operation, BATCHED):
            yield batch, start
            batch = []
    if batch:
        yield batch, start
