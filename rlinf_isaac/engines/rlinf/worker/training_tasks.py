"""The driver's training tasks. They are separate from `tasks`, because these imports take seconds."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from rlinf.runners.embodied_runner import EmbodiedRunner
from rlinf.runners.sft_runner import SFTRunner

from rlinf_isaac.engines.rlinf.run_journal import JournalWriter
from rlinf_isaac.engines.rlinf.worker.tasks import Task
from rlinf_isaac.engines.rlinf.worker.training_workers import Learner, Trainer
from rlinf_isaac.engines.rlinf.worker.workers import Policies, Simulators


class FineTuningTask(Task):
    """RLinf's supervised fine-tuning."""

    kinds: ClassVar[Mapping[str, Any]] = {"actor": Trainer}
    runner_class = SFTRunner

    def train(self) -> None:
        self.runner.metric_logger.logger["journal"] = JournalBackend(self.journal)
        self.runner.run()


class ReinforcementTask(Task):
    """RLinf's reinforcement learning."""

    kinds: ClassVar[Mapping[str, Any]] = {"actor": Learner, "rollout": Policies, "env": Simulators}
    runner_class = EmbodiedRunner

    def train(self) -> None:
        """Evaluate the start checkpoint (unless resumed), then train."""
        self.runner.metric_logger.logger["journal"] = JournalBackend(self.journal)
        if self.config.runner.val_check_interval > 0 and self.runner.global_step == 0:
            self.runner.update_rollout_weights()
            metrics = {f"eval/{name}": value for name, value in self.runner.evaluate().items()}
            self.runner.metric_logger.log(data=metrics, step=-1)
        self.runner.run()


class JournalBackend:
    """A backend of RLinf's MetricLogger that writes to the journal.

    RLinf counts steps from 0 in its logs and from 1 in its checkpoints; the journal counts from 1.
    """

    def __init__(self, journal: JournalWriter) -> None:
        self.journal = journal

    def log(self, data: Mapping[str, Any], step: int) -> None:
        """Write one line; values may be scalars of numpy or torch."""
        self.journal.write("metrics", step=step + 1, values={name: float(value) for name, value in data.items()})

    def finish(self) -> None: ...  # no-op: lines are flushed as they are written
