"""Records reinforcement learning: one nested run per start checkpoint, with a paired evaluation before and after.

The nested runs differ only in the checkpoint they start from. The evaluations of the start and of the result are runs
nested in them, so their episodes, videos and rates are shown like those of `eval`.
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
from mlflow_project.vocabulary import (
    ABANDONED,
    ENDED_TAG,
    FORECAST,
    FORECAST_EPISODES,
    FORECAST_TAG,
    GAIN,
    GAIN_P_VALUE,
    GAINED,
    LOST,
    RESULT_TAG,
    ROLLBACK_TAG,
    ROLLBACKS_TAG,
    SUCCESS,
    SUCCESS_BEFORE,
    VERB_TAG,
)
from rlinf_isaac.checkpoint.bundle import Bundle, after_rl, read_bundle
from rlinf_isaac.engines.base import RlJob
from rlinf_isaac.ground.events import (
    CheckpointSaved,
    EpisodeDone,
    EvaluationFinished,
    EvaluationStarted,
    Event,
    FileSaved,
    Metrics,
    ResultChosen,
    RolledBack,
)
from rlinf_isaac.stats.rates import PairedGain
from rlinf_isaac.stats.sequential import ALPHA


@dataclass(frozen=True)
class Improved:
    """The result for one start checkpoint.

    Attributes:
        step: step of the start checkpoint.
        path: directory of the resulting bundle.
        digest: sha256 of the resulting bundle.
        gain: success before and after on the same seeds.
        ending: how the training ended and why this is its result; empty if the engine does not say.
        start: name of the start checkpoint (`Bundle.name`); by default ``step-<step>``.
    """

    step: int
    path: Path
    digest: str
    gain: PairedGain
    ending: str = ""
    start: str | None = None

    @property
    def name(self) -> str:
        """Name of the start checkpoint."""
        return self.start or f"step-{self.step}"

    @property
    def verdict(self) -> str:
        """One sentence: whether the success rate has risen, with the numbers."""
        gain = self.gain
        before, after = (f"{100 * successes / gain.n:.0f} %" for successes in (gain.before, gain.after))
        numbers = f"{gain.gained} vs {gain.lost} seeds won, one-sided p = {gain.p_value:.2g}"
        if gain.p_value <= ALPHA:
            return f"Reinforcement learning improved {self.name}: success rose from {before} to {after} ({numbers})."
        return f"No clear gain from {self.name}: success was {before} before and is {after} after ({numbers})."


class RlRecorder:
    """Records the events of `Engine.rl` (`train`), then those of `Engine.evaluate` of the start and the result
    (`evaluate`).

    Attributes:
        last: the result of the training, or its newest checkpoint where the engine names no result.
        improved: the result; None until both checkpoints are evaluated.
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
            parent: recorder of the parent run of all start checkpoints.
            job: the training from one start checkpoint.
            params: params of the job; the same for all start checkpoints.
            model_name: name of the start checkpoint's model (`logged_checkpoints.model_name`).
            dataset: the episodes of the evaluation.
            upload_weights: whether weights are uploaded to the runs.
        """
        start = job.start
        # Lineage tags describe what the run makes, as in `sft`; of the start checkpoint only its own tags are added.
        tags = {VERB_TAG: "rl"} | digest_tags(job.lineage)
        tags |= {key: value for key, value in bundle_tags(start).items() if key.startswith("checkpoint.")}
        self.recorder = parent.start_run(f"from-{start.name}", tags)
        self.recorder.params(params)
        # The only param that differs between the nested runs.
        self.recorder.params({"step": start.step}, prefix="checkpoint")
        self.recorder.tags({"rl.reward": params["rl"]["reward"], "rl.algorithm": params["rl"]["algorithm"]})
        log_model(self.recorder, start, model_name, "input")
        self.last: CheckpointSaved | ResultChosen | None = None
        self.improved: Improved | None = None
        self._start = start
        self._training = SftRecorder(
            self.recorder,
            model_name=model_name,
            upload_weights=upload_weights,
            checkpoint_name=lambda bundle: after_rl(start.name, bundle.step),
        )
        self._evaluation = SweepRecorder(
            self.recorder,
            params=params,
            model_name=model_name,
            dataset=dataset,
            name=f"before and after rl from {start.name}",
            planned=2,
            run_name=self._evaluation_name,
            # In iterations since the start, which is at 0.
            position=lambda event: 0 if event.digest == start.digest else event.step,
            upload_weights="none",
        )
        self._rollbacks = 0
        self._successes: dict[str, dict[int, bool]] = {}

    def train(self, event: Event) -> None:
        """Record one event of the training."""
        self._training(event)
        if isinstance(event, CheckpointSaved):
            self.last = event
        elif isinstance(event, Metrics) and (text := _forecast(event.values)):
            self.recorder.tags({FORECAST_TAG: f"{text}, as of iteration {event.step}"})
        elif isinstance(event, RolledBack):
            self._rollbacks += 1
            place = f"checkpoint {event.to}" if event.to else "the start checkpoint"
            said = f"back to {place}, with learning rate {event.lr:.3g}: {event.reason}"
            self.recorder.tags({ROLLBACKS_TAG: str(self._rollbacks), f"{ROLLBACK_TAG}{event.iteration}": said})
            for iteration in event.abandoned:
                self.recorder.metrics({ABANDONED: 1.0}, iteration)
        elif isinstance(event, ResultChosen):
            self.last = event
            self.recorder.tags({ENDED_TAG: event.ended, RESULT_TAG: event.message})

    def evaluate(self, event: Event) -> None:
        """Record one event of the evaluation.

        Metrics are ignored: RLinf gives them the names of the training's metrics, at steps of other checkpoints. Files
        are logged below ``evaluation/``, apart from those of the training.
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
        """The checkpoint that is the training's result."""
        assert self.last is not None
        return read_bundle(self.last.path)

    def _evaluation_name(self, event: EvaluationStarted, bundle: Bundle) -> str:
        """Name of the checkpoint. RL counts iterations, not optimiser steps, so the name contains both."""
        start = self._start
        return start.name if event.digest == start.digest else after_rl(start.name, event.step)

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
        ending = self.last.message if isinstance(self.last, ResultChosen) else ""
        self.improved = Improved(self._start.step, self.last.path, self.last.digest, gain, ending, self._start.name)
        self.recorder.end("FINISHED")


def _forecast(values: Mapping[str, float]) -> str:
    """The forecasts among the metrics of an iteration, in words."""
    said = []
    for name, iterations in values.items():
        goal = name.removeprefix(FORECAST)
        if name.startswith(FORECAST) and not goal.endswith(("_low", "_high")):
            low, high = (values[f"{name}_{bound}"] for bound in ("low", "high"))
            episodes = values[f"{FORECAST_EPISODES}{goal}"]
            said.append(
                f"{goal} % in {iterations:.0f} iterations ({low:.0f} to {high:.0f}), {episodes:.0f} episodes"
                if high > 0
                else f"{goal} % reached"
            )
    return "; ".join(said)


def gains_markdown(improved: Sequence[Improved]) -> str:
    """The run description in MLflow: a verdict for each start checkpoint, and the numbers as a Markdown table."""
    lines = [
        "| from | before | after | gained | lost | episodes | p (one-sided, exact) |",
        "|---|---|---|---|---|---|---|",
    ]
    for result in improved:
        gain = result.gain
        rates = (f"{100 * successes / gain.n:.1f} %" for successes in (gain.before, gain.after))
        cells = [result.name, *rates, gain.gained, gain.lost, gain.n, f"{gain.p_value:.2g}"]
        lines.append(f"| {' | '.join(map(str, cells))} |")
    verdicts = "".join(f"{' '.join(filter(None, (each.verdict, each.ending)))}\n\n" for each in improved)
    return verdicts + "\n".join(lines) + "\n"
