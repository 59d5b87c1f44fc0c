"""Measures a training by the loss on held-out episodes and by episodes in the simulator.

Metrics are written to disk before they are yielded. If a run is killed before an evaluation, the resumed run does it.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Self

from rlinf_isaac.checkpoint.bundle import Bundle
from rlinf_isaac.data.mixture import AnyDataset
from rlinf_isaac.engines.base import SftJob
from rlinf_isaac.engines.local.sft.ema import Average
from rlinf_isaac.engines.local.sft.success import Success
from rlinf_isaac.engines.local.sft.task_frames import AnyProcessor
from rlinf_isaac.engines.local.sft.validation import Validation
from rlinf_isaac.engines.local.training.team import Team
from rlinf_isaac.engines.resume import MetricsLog
from rlinf_isaac.ground.events import Event, FileSaved, Metrics
from rlinf_isaac.pi0.model import Pi0

PLAYED = "heldout/success_once"


def plot_of(output: Path, step: int) -> FileSaved:
    """Event for the plot of a checkpoint in the directory of a job; it is yielded with the checkpoint."""
    return FileSaved(output / "validation" / f"step-{step}.png", f"validation/step-{step}.png")


class Watching:
    """Context manager for the measurements of one training, at the intervals of its config.

    `validate` is a collective call of all processes of the team; only the first process calls `play`.
    """

    def __init__(
        self, job: SftJob, dataset: AnyDataset, processor: AnyProcessor, team: Team, metrics: MetricsLog
    ) -> None:
        config = job.config.sft
        self._job, self._team, self._metrics = job, team, metrics
        self._validation = Validation(dataset, processor, job.config, team) if config.val_episodes else None
        self._success = Success(job.config, job.env_python) if config.eval_interval and team.first else None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._success is not None:
            self._success.close()

    def validate(self, model: Pi0, average: Average, step: int) -> Iterator[Event]:
        """If due at `step`, measure the weights that a checkpoint would have on the held-out episodes, and plot them.

        These are the moving `average` of the weights of `model` if there is one, else the weights themselves.
        """
        config = self._job.config.sft
        if self._validation is None:
            return
        last = step == config.steps
        measured = last or step % (config.val_interval or config.save_interval) == 0
        drawn = last or step % config.save_interval == 0
        if not (measured or drawn):
            return
        with average.in_place(model):
            figures = self._validation.measure(model) if measured else {}
            if drawn:
                self._validation.plot(model, step, plot_of(self._job.output, step).path)
        if figures:
            yield from self._log(Metrics(step, figures))

    def play(self, bundle: Bundle) -> Iterator[Event]:
        """If due, evaluate a checkpoint that was just written in the simulator."""
        config, step = self._job.config.sft, bundle.step
        if self._success is not None and (step == config.steps or step % config.eval_interval == 0):
            yield from self._log(Metrics(step, self._success.measure(bundle)))

    def catch_up(self, bundle: Bundle) -> Iterator[Event]:
        """Play with the checkpoint that training goes on from, if a kill came before that."""
        if not any(entry.step == bundle.step and PLAYED in entry.values for entry in self._metrics.entries()):
            yield from self.play(bundle)

    def _log(self, entry: Metrics) -> Iterator[Metrics]:
        if self._team.first:
            self._metrics.append(entry)
        yield entry
