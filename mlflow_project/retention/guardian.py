"""Asks, for a training that keeps few checkpoints, whether somebody else needs one of those that are to go."""

from __future__ import annotations

import logging
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from mlflow_project.retention.claims import claims_of_store, pending
from mlflow_project.tracking.mlflow_environment import prepare_environment
from mlflow_project.tracking.redact import redact
from mlflow_project.tracking.runs import TrackedRun
from rlinf_isaac.checkpoint.bundle import Bundle

logger = logging.getLogger("mlflow_project")

LIMIT_S = 5.0
"""Seconds that a training waits for the answer."""


@dataclass(frozen=True)
class StoreGuardian:
    """Asks the store and the training's own journal (`engines.base.Guardian`).

    A store that does not answer lets nothing go: the training asks again when it saves its next checkpoint.

    Attributes:
        uri: the store.
        journal: the journal in which the training is recorded.
    """

    uri: str
    journal: Path

    @classmethod
    def of(cls, run: TrackedRun) -> StoreGuardian:
        """That of a training which is recorded in `run`."""
        return cls(run.tracking_uri, run.recorder.journal.path)

    def __call__(self, bundles: Sequence[Bundle]) -> Mapping[str, str] | None:
        """Digest -> why it has to stay; None if the store does not answer in time."""
        answers: list[Mapping[str, str]] = []

        def ask() -> None:
            try:
                answers.append(self._ask(bundles))
            except Exception as error:  # whatever it is, it is no reason to remove anything, nor to end a training
                logger.warning(
                    "no checkpoint is removed now: the MLflow store does not answer (%s)", redact(str(error))
                )

        thread = threading.Thread(target=ask, name="guardian", daemon=True)
        thread.start()
        thread.join(LIMIT_S)
        return answers[0] if answers else None

    def _ask(self, bundles: Sequence[Bundle]) -> Mapping[str, str]:
        found = pending(self.journal, bundles)
        asked = [bundle for bundle in bundles if bundle.digest not in found]
        if not asked:
            return found
        prepare_environment()
        from mlflow import MlflowClient

        return found | claims_of_store(MlflowClient(self.uri), asked)
