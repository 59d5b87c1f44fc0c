"""Applies one journal to one store, step by step, and saves the progress after each step.

After a crash at most one step is applied twice, which is harmless (`replica.py`).
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
"""An operation, and the byte offset of its line in the journal (in the input of `_steps`: the offset after it)."""


class Cursor:
    """Applies one journal to one store. Only the owner of the journal may use it.

    Args:
        path: the journal.
        tracking_uri: URI of the store.
        again: retry refused operations once, and apply the journal from its start if another store has replaced the
            one it was begun in.
    """

    def __init__(self, path: Path, tracking_uri: str, *, again: bool = False) -> None:
        self.path, self.tracking_uri = path, tracking_uri
        own = read_header(path)[0].tracking_uri
        self._elsewhere = None if without_credentials(tracking_uri) == own else without_credentials(tracking_uri)
        self.state = State.load(path, self._elsewhere)
        self._again = again
        self._replica: Replica | None = None
        if again and any(aside.at is None for aside in self.state.aside):
            self.state.offset, self.state.aside = 0, []

    def advance(self) -> Iterator[int]:
        """Apply the rest of the journal; yields the number of applied operations after every saved step.

        Raises:
            Unreachable: the server did not accept the next step.
        """
        try:
            yield from self._advance()
        except OtherStore:
            if not self._again:
                raise
            self._again, self._replica, self.state = False, None, State()
            yield from self._advance()

    def pending(self) -> int:
        """Number of operations that are neither applied nor refused."""
        later = sum(not aside.final for aside in self.state.aside)
        return later + len(read_operations(self.path, self._start())[0])

    def _advance(self) -> Iterator[int]:
        while operations := read_operations(self.path, self._start(), _READ_BYTES)[0]:
            for step, end in _steps(operations, self._start()):
                self._apply(step)
                self.state.offset = end
                self.state.save(self.path, self._elsewhere)
                yield len(step)
        for aside in [aside for aside in self.state.aside if self._again or not aside.final]:
            self._try_again(aside)
            self.state.save(self.path, self._elsewhere)
            yield 0
        self._again = False

    def _start(self) -> int:
        return self.state.offset or read_header(self.path)[1]

    def _apply(self, step: list[Placed]) -> None:
        """Apply a step. Operations that cannot be applied are noted in the state and skipped."""
        try:
            self._connected().apply([operation for operation, _ in step])
        except (Refused, RequestTooLarge) as error:
            if len(step) > 1:  # one bad operation makes the store refuse the whole batch: apply them one by one
                for placed in step:
                    self._apply([placed])
                return
            ((operation, at),) = step
            if isinstance(error, RequestTooLarge) and not isinstance(operation, LogArtifact):
                raise
            reason = f"{type(operation).__name__}: {error}"
            self.state.aside.append(Aside(at, reason, final=isinstance(error, Refused)))

    def _try_again(self, aside: Aside) -> None:
        """Apply a skipped operation again; it is noted again if it still cannot be applied."""
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
        """Whether the journal has a later file for the same artifact."""
        place = (artifact.run, artifact.target)
        later = [operation for operation, _ in read_operations(self.path, at)[0][1:]]
        files = [operation for operation in later if isinstance(operation, LogArtifact)]
        return any((file.run, file.target) == place for file in files)

    def _connected(self) -> Replica:
        if self._replica is None:
            prepare_environment()
            from mlflow import MlflowClient

            try:
                with sorted_errors(remote=False):
                    ensure_store(self.tracking_uri)
                    client = MlflowClient(self.tracking_uri)
            except Refused as error:  # e.g. the database is locked, or its disk is not mounted
                raise Unreachable(str(error)) from error
            self._replica = Replica(client, self.tracking_uri, self.state)
        return self._replica


def _steps(operations: list[Placed], start: int) -> Iterator[tuple[list[Placed], int]]:
    """Group operations for `Replica.apply`: consecutive batched operations together, every other one alone.

    Args:
        operations: operations, each with the byte offset after it.
        start: byte offset of the first operation.

    Yields:
        operations, each with its own byte offset; and the offset after the last of them.
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
