"""Records reinforcement learning: one nested run per start checkpoint, and in each the paired evaluation of before and
after.

The nested runs differ in nothing but the checkpoint they start from. The evaluations of start and result are runs
nested in them, so that their episodes, videos and rates look like those of `eval`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from mlflow_project.lineage.provenance import DatasetInput, digest_tags
from mlflow_project.recorders.logged_checkpoints import UploadWeights, bundle_tags, log_model
from mlflow_project.recorders.sft_recorder import SftRecorder
from mlflow_project.recorders.sweep_recorder import SweepRecorder
from mlflow_project.tracking.recorder import Recorder
from mlflow_project.vocabulary import GAIN, GAIN_P_VALUE, GAINED, LOST, SUCCESS, SUCCESS_BEFORE, VERB_TAG
from rlinf_isaac.checkpoint.bundle import Bundle, read_bundle
from rlinf_isaac.engines.base import RlJob
from rlinf_isaac.ground.events import (
    CheckpointSaved,
    EpisodeDone,
    EvaluationFinished,
    EvaluationStarted,
    Event,
    FileSaved,
    Metrics,
)
from rlinf_isaac.stats.rates import PairedGain


@dataclass(frozen=True)
class Improved:
    """What came of one start checkpoint: its step, the path and digest of the result, and the gain."""

    step: int
    path: Path
    digest: str
    gain: PairedGain


class RlRecorder:
    """Call it with every event of `Engine.rl`, then of `Engine.evaluate` of the start and the last checkpoint.

    Attributes:
        last: the newest checkpoint of the training.
        improved: the result, once both are evaluated.
    """

    def __init__(
        self,
        parent: Recorder,
        job: RlJob,
        *,
        params: Mapping[str, Any],
        model_name: str,
        dataset: DatasetInput,
        upload_weights: UploadWeights = "auto",
    ) -> None:
        """
        Args:
            parent: the run of all start checkpoints.
            job: the training from one of them.
            params: of the job; equal for all of them.
            model_name: of the start checkpoint (`logged_checkpoints.model_name`).
            dataset: what is evaluated on.
            upload_weights: whether runs hold the weights.
        """
        start = job.start
        # What the run makes, as in `sft`; of the start only which it is.
        tags = {VERB_TAG: "rl"} | digest_tags(job.lineage)
        tags |= {key: value for key, value in bundle_tags(start).items() if key.startswith("checkpoint.")}
        self.recorder = parent.start_run(f"from-step-{start.step}", tags)
        self.recorder.params(params)
        # The one param that differs.
        self.recorder.params({"step": start.step}, prefix="checkpoint")
        self.recorder.tags({"rl.reward": params["rl"]["reward"], "rl.algorithm": params["rl"]["algorithm"]})
        log_model(self.recorder, start, model_name, "input")
        self.last: CheckpointSaved | None = None
        self.improved: Improved | None = None
        self._start = start
        self._training = SftRecorder(
            self.recorder, model_name=f"{model_name}-rl-from-{start.step}", upload_weights=upload_weights
        )
        self._evaluation = SweepRecorder(
            self.recorder,
            params=params,
            model_name=model_name,
            dataset=dataset,
            name=f"before and after rl from step {start.step}",
            planned=2,
            run_name=self._evaluation_name,
            upload_weights="none",
        )
        self._successes: dict[str, dict[int, bool]] = {}

    def train(self, event: Event) -> None:
        """Record one event of the training."""
        self._training(event)
        if isinstance(event, CheckpointSaved):
            self.last = event

    def evaluate(self, event: Event) -> None:
        """Record one event of the evaluation.

        What an engine measures besides the episodes is left out: RLinf's names for it are those of the training's
        curves, at steps of other checkpoints. Its files keep apart from the training's.
        """
        if isinstance(event, Metrics):
            return
        if isinstance(event, FileSaved):
            event = replace(event, name=f"evaluation/{event.name}")
        self._evaluation(event)
        if isinstance(event, EvaluationStarted):
            self._successes[event.digest] = {}
        elif isinstance(event, EpisodeDone):
            self._successes[event.row.checkpoint][event.row.seed] = event.row.success
        elif isinstance(event, EvaluationFinished) and len(self._successes) == 2:
            self._compare()

    def result(self) -> Bundle:
        """The last checkpoint of the training."""
        assert self.last is not None
        return read_bundle(self.last.path)

    def _evaluation_name(self, event: EvaluationStarted) -> str:
        """Iterations are no optimiser steps: beside other checkpoints the name has to say which are meant."""
        start = f"step-{self._start.step}"
        return start if event.digest == self._start.digest else f"{start}-rl-{event.step}"

    def _compare(self) -> None:
        assert self.last is not None
        before, after = self._successes[self._start.digest], self._successes[self.last.digest]
        gain = PairedGain.of(before, after)
        self.recorder.metrics(
            {
                SUCCESS_BEFORE: gain.before / gain.n,
                SUCCESS: gain.after / gain.n,
                GAIN: (gain.after - gain.before) / gain.n,
                GAINED: gain.gained,
                LOST: gain.lost,
                GAIN_P_VALUE: gain.p_value,
            },
            self.last.step,
            model=self.last.digest,
        )
        self.improved = Improved(self._start.step, self.last.path, self.last.digest, gain)
        self.recorder.end("FINISHED")


def gains_markdown(improved: Sequence[Improved]) -> str:
    """The comparison as MLflow's run description shows it."""
    lines = [
        "| from step | before | after | gained | lost | episodes | p (one-sided, exact) |",
        "|---|---|---|---|---|---|---|",
    ]
    for each in improved:
        gain = each.gain
        rates = (f"{100 * successes / gain.n:.1f} %" for successes in (gain.before, gain.after))
        cells = [each.step, *rates, gain.gained, gain.lost, gain.n, f"{gain.p_value:.2g}"]
        lines.append(f"| {' | '.join(map(str, cells))} |")
    return "\n".join(lines) + "\n"
