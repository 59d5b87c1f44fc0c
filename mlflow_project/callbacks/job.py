"""What a trainer says of a training at its start."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Job:
    """What a trainer says at its start.

    Attributes:
        trainer: ``lerobot``, ``openpi`` or ``rlinf``; params have it as prefix, and the verb is ``<trainer>-train``.
        output: the directory of its results; the journal is in ``journal`` there.
        name: name of the run.
        config: its whole config.
        source: a directory in the checkout whose commit is that of the training; None where it is not known.
        resumed: whether it continues what is in `output`.
        total: number of training steps; None where it is not known.
        tags: what else is known, such as the repo id of the data.
        evaluates_only: the verb is then ``<trainer>-eval``.
    """

    trainer: str
    output: Path
    name: str
    config: Mapping[str, Any]
    source: Path | None = None
    resumed: bool = False
    total: int | None = None
    tags: Mapping[str, str] = field(default_factory=dict)
    evaluates_only: bool = False

    @property
    def verb(self) -> str:
        """The run's verb, which is also in the name of its journal."""
        return f"{self.trainer}-{'eval' if self.evaluates_only else 'train'}"
