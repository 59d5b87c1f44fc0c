"""The local engine: torch in this process. Heavy modules are imported only when a job needs them."""

from __future__ import annotations

from collections.abc import Iterator

from rlinf_isaac.engines.base import EvaluationJob, RlJob, SftJob
from rlinf_isaac.ground.events import Event


class LocalEngine:
    """`rlinf_isaac.engines.base.Engine` on one device of this machine."""

    def tags(self) -> dict[str, str]:
        """Tag with the engine's name; every run has the package versions of this interpreter anyway."""
        return {"engine": "local"}

    def sft(self, job: SftJob) -> Iterator[Event]:
        """Train; see `rlinf_isaac.engines.local.sft.train`."""
        from rlinf_isaac.engines.local.sft.train import train

        return train(job)

    def rl(self, job: RlJob) -> Iterator[Event]:
        """Train by reinforcement learning; see `rlinf_isaac.engines.local.rl.train`."""
        from rlinf_isaac.engines.local.rl.train import train

        return train(job)

    def evaluate(self, job: EvaluationJob) -> Iterator[Event]:
        """Evaluate; see `rlinf_isaac.engines.local.evaluate`."""
        from rlinf_isaac.engines.local.evaluate import evaluate

        return evaluate(job)
