"""The RLinf engine: runs jobs with RLinf on Ray, in separate processes. Only their interpreter needs RLinf."""

from __future__ import annotations

from collections.abc import Iterator

from rlinf_isaac.engines.base import EvaluationJob, RlJob, SftJob
from rlinf_isaac.engines.rlinf.runtime import Runtime
from rlinf_isaac.ground.events import Event


class RlinfEngine:
    """`rlinf_isaac.engines.base.Engine` on RLinf."""

    def __init__(self, runtime: Runtime | None = None) -> None:
        self.runtime = runtime or Runtime()

    def tags(self) -> dict[str, str]:
        """Tags with the engine's name and the package versions of RLinf's interpreter."""
        from rlinf_isaac.engines.rlinf.preflight import versions_of

        return {"engine": "rlinf"} | {f"rlinf.version.{k}": v for k, v in versions_of(self.runtime).items()}

    def sft(self, job: SftJob) -> Iterator[Event]:
        """Train; see `rlinf_isaac.engines.rlinf.fine_tuning`."""
        from rlinf_isaac.engines.rlinf.fine_tuning import train

        return train(job, self.runtime)

    def rl(self, job: RlJob) -> Iterator[Event]:
        """Train by reinforcement learning; see `rlinf_isaac.engines.rlinf.reinforcement_learning`."""
        from rlinf_isaac.engines.rlinf.reinforcement_learning import train

        return train(job, self.runtime)

    def evaluate(self, job: EvaluationJob) -> Iterator[Event]:
        """Evaluate; see `rlinf_isaac.engines.rlinf.evaluate`."""
        from rlinf_isaac.engines.rlinf.evaluate import evaluate

        return evaluate(job, self.runtime)
