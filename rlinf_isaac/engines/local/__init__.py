"""The local engine: torch in this process, one device. Nothing heavy is imported before a job needs it."""

from __future__ import annotations

from collections.abc import Iterator

from rlinf_isaac.engines.base import EvaluationJob, RlJob, SftJob
from rlinf_isaac.ground.events import Event


class LocalEngine:
    """`rlinf_isaac.engines.base.Engine` on one device of this machine."""

    def tags(self) -> dict[str, str]:
        """Its name; the versions that count are those of this interpreter."""
        return {"engine": "local"}

    def sft(self, job: SftJob) -> Iterator[Event]:
        """Train; see `rlinf_isaac.engines.local.sft.train`."""
        from rlinf_isaac.engines.local.sft.train import train

        return train(job)

    def rl(self, job: RlJob) -> Iterator[Event]:
        """Reinforcement learning; see `rlinf_isaac.engines.local.rl.train`."""
        from rlinf_isaac.engines.local.rl.train import train

        return train(job)

    def evaluate(self, job: EvaluationJob) -> Iterator[Event]:
        """Evaluate; see `rlinf_isaac.engines.local.evaluate`."""
        from rlinf_isaac.engines.local.evaluate import evaluate

        return evaluate(job)
