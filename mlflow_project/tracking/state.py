"""How far a journal has been applied, saved beside it as ``<journal>.state.json``."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from hashlib import sha256
from pathlib import Path

from rlinf_isaac.ground import atomic


@dataclass(frozen=True)
class Aside:
    """An operation that did not hold up the others.

    Attributes:
        at: bytes from the start of the journal to its line; None in the states of earlier releases.
        reason: what was said, and of which operation.
        final: MLflow refused it, or this project failed on it; otherwise it is tried again by itself.
    """

    at: int | None
    reason: str
    final: bool = True


@dataclass
class State:
    """What has been applied of one journal in one store.

    Attributes:
        offset: bytes of the journal that are applied; 0 before the first operation.
        runs: local uuid -> (MLflow run id, experiment id).
        models: "<experiment id>/<bundle sha256>" -> LoggedModel id.
        aside: operations that were left out.
        store: (id, creation time in ms) of the experiment of the first run: what tells that another database answers.
    """

    offset: int = 0
    runs: dict[str, tuple[str, str]] = field(default_factory=dict)
    models: dict[str, str] = field(default_factory=dict)
    aside: list[Aside] = field(default_factory=list)
    store: tuple[str, int] | None = None

    @property
    def refused(self) -> list[str]:
        """Why MLflow did not accept what it will never accept."""
        return [each.reason for each in self.aside if each.final]

    @classmethod
    def load(cls, journal: Path, elsewhere: str | None = None) -> State:
        """The saved state of a journal, or a new one (see `state_path`)."""
        path = state_path(journal, elsewhere)
        if not path.exists():
            return cls()
        values = json.loads(path.read_text())
        runs = {run: (ids[0], ids[1]) for run, ids in values["runs"].items()}
        aside = [Aside(None, reason) for reason in values.get("refused", ())]  # of earlier releases
        aside += [Aside(**each) for each in values.get("aside", ())]
        store = values.get("store")
        return cls(values["offset"], runs, values["models"], aside, (store[0], store[1]) if store else None)

    def save(self, journal: Path, elsewhere: str | None = None) -> None:
        """Replace the saved state, atomically and durably."""
        atomic.write_file(state_path(journal, elsewhere), json.dumps(asdict(self), indent=1))


def state_path(journal: Path, elsewhere: str | None = None) -> Path:
    """The state file of a journal; of another store than the journal's own where `elsewhere` is that store's URI."""
    mark = f".{sha256(elsewhere.encode()).hexdigest()[:8]}" if elsewhere is not None else ""
    return journal.with_name(f"{journal.name}{mark}.state.json")
