"""Records how much of a journal has been applied to a store, in ``<journal>.state.json`` beside the journal."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from hashlib import sha256
from pathlib import Path

from rlinf_isaac.ground import atomic


@dataclass(frozen=True)
class Aside:
    """An operation that could not be applied and was skipped, so that later operations need not wait for it.

    Attributes:
        at: byte offset of its line in the journal; None in state files of earlier releases.
        reason: type of the operation, and the error.
        final: True if MLflow refused it or this project's code failed on it; otherwise it is retried automatically.
    """

    at: int | None
    reason: str
    final: bool = True


@dataclass
class State:
    """Progress of one journal in one store.

    Attributes:
        offset: bytes of the journal that are applied; 0 before the first operation.
        runs: local uuid -> (MLflow run id, experiment id).
        models: "<experiment id>/<bundle sha256>" -> LoggedModel id.
        aside: operations that were skipped.
        store: (id, creation time in ms) of the experiment of the first run; it identifies the store, so that another
            database at the same address is noticed.
    """

    offset: int = 0
    runs: dict[str, tuple[str, str]] = field(default_factory=dict)
    models: dict[str, str] = field(default_factory=dict)
    aside: list[Aside] = field(default_factory=list)
    store: tuple[str, int] | None = None

    @property
    def refused(self) -> list[str]:
        """Reasons of the operations that MLflow will never accept."""
        return [aside.reason for aside in self.aside if aside.final]

    @classmethod
    def load(cls, journal: Path, elsewhere: str | None = None) -> State:
        """Load the saved state of a journal, or make a new one (`elsewhere` as in `state_path`)."""
        path = state_path(journal, elsewhere)
        if not path.exists():
            return cls()
        values = json.loads(path.read_text())
        runs = {run: (ids[0], ids[1]) for run, ids in values["runs"].items()}
        aside = [Aside(None, reason) for reason in values.get("refused", ())]  # format of earlier releases
        aside += [Aside(**fields) for fields in values.get("aside", ())]
        store = values.get("store")
        return cls(values["offset"], runs, values["models"], aside, (store[0], store[1]) if store else None)

    def save(self, journal: Path, elsewhere: str | None = None) -> None:
        """Replace the saved state, atomically and durably."""
        atomic.write_file(state_path(journal, elsewhere), json.dumps(asdict(self), indent=1))


def state_path(journal: Path, elsewhere: str | None = None) -> Path:
    """Path of the state file of a journal. `elsewhere` is the store's URI if it is not the one the journal names."""
    mark = f".{sha256(elsewhere.encode()).hexdigest()[:8]}" if elsewhere is not None else ""
    return journal.with_name(f"{journal.name}{mark}.state.json")
