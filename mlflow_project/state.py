"""How far a journal has been applied, saved beside it as ``<journal>.state.json``."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path

from rlinf_isaac import atomic


@dataclass
class State:
    """What has been applied of one journal.

    Attributes:
        offset: bytes of the journal that are applied; 0 before the first operation.
        runs: local uuid -> (MLflow run id, experiment id).
        models: "<experiment id>/<bundle sha256>" -> LoggedModel id.
        refused: what MLflow did not accept, with the reason.
    """

    offset: int = 0
    runs: dict[str, tuple[str, str]] = field(default_factory=dict)
    models: dict[str, str] = field(default_factory=dict)
    refused: list[str] = field(default_factory=list)

    @classmethod
    def load(cls, journal: Path) -> State:
        """The saved state of a journal, or a new one."""
        path = state_path(journal)
        if not path.exists():
            return cls()
        values = json.loads(path.read_text())
        runs = {run: (ids[0], ids[1]) for run, ids in values.pop("runs").items()}
        return cls(runs=runs, **values)

    def save(self, journal: Path) -> None:
        """Replace the saved state, atomically and durably."""
        atomic.write_file(state_path(journal), json.dumps(asdict(self), indent=1))


def state_path(journal: Path) -> Path:
    """The state file of a journal."""
    return journal.with_name(journal.name + ".state.json")
