"""Evaluation of checkpoints, as a tracked run with one nested run for each."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

from mlflow_project.comparison.compare import Comparison
from mlflow_project.lineage.provenance import DatasetInput, digest_tags, evaluation_dataset, provenance_tags, task_tags
from mlflow_project.recorders.logged_checkpoints import fine_tuning_words, model_name
from mlflow_project.recorders.sweep_recorder import SweepRecorder
from mlflow_project.recorders.varied_recorder import VariedRecorder
from mlflow_project.tracked import PROJECT, UploadWeights
from mlflow_project.tracked.headers import evaluation_header
from mlflow_project.tracking.announce import say_header
from mlflow_project.tracking.progress import watch
from mlflow_project.tracking.runs import TrackedRun, tracked_run
from rlinf_isaac.checkpoint.removal import in_use
from rlinf_isaac.config.schema import JobConfig
from rlinf_isaac.config.task import task_of
from rlinf_isaac.engines.base import Engine, EvaluationJob
from rlinf_isaac.engines.local import LocalEngine
from rlinf_isaac.engines.robustness import control_of, varied_arms
from rlinf_isaac.jobs import Say, silent
from rlinf_isaac.jobs.used_norm_stats import say_played


class Swept(NamedTuple):
    """The checkpoints of an evaluation, compared, and the run that records it."""

    comparison: Comparison
    run: TrackedRun


def run(
    job: EvaluationJob,
    output: Path,
    upload_weights: UploadWeights = "auto",
    engine: Engine | None = None,
    say: Say = silent,
) -> Swept:
    """Evaluate as a tracked sweep, on the local engine if none is given; says which norm stats are used."""
    engine = engine or LocalEngine()
    config, rule = job.config, asdict(job.stop_rule) if job.stop_rule else None
    root = job.bundles[0].path.parent
    raw = " raw" if root.name == "checkpoints-raw" else ""  # beside the average of the same steps
    trained = job.bundles[0].config
    trainable = trained.get("job", {}).get("sft", {}).get("trainable", "all")
    how = fine_tuning_words(trainable, (trained.get("base") or {}).get("name"))
    name = f"eval {root.parent.name}{raw}{how} x {len(job.bundles)}"
    tags = provenance_tags(PROJECT) | task_tags(config) | engine.tags()
    with tracked_run("eval", output=output, name=name, tags=tags) as tracked:
        tracked.recorder.params(recorded(config))
        tracked.recorder.tags(digest_tags({"norm_stats": say_played(job.bundles, job.norm_stats, say)}))
        recorder = SweepRecorder(
            tracked.recorder,
            params=recorded(config),
            model_name=model_name(config.preset, pi05=config.model.pi05),
            dataset=played_dataset(config, rule),
            name=name,
            planned=len(job.bundles),
            upload_weights=upload_weights,
        )
        say_header(evaluation_header(job))
        with in_use(bundle.path for bundle in job.bundles):
            watch(engine.evaluate(control_of(job)), recorder)
            # Each axis meets the same seeds after that; a run that is resumed tells all of it again.
            for arm in varied_arms(job):
                assert arm.varied is not None
                watch(engine.evaluate(arm), VariedRecorder(recorder, arm.varied))
    assert recorder.comparison is not None
    return Swept(recorder.comparison, tracked)


def played_dataset(config: JobConfig, stop_rule: Mapping[str, Any] | None = None) -> DatasetInput:
    """The episodes that an evaluation plays, as a dataset."""
    described = {"task_sha256": task_of(config).digest} if config.task else {}
    return evaluation_dataset(asdict(config.env) | asdict(config.eval) | described | {"stop_rule": stop_rule})


def recorded(config: JobConfig, *own: str) -> dict[str, Any]:
    """The sections of the config that a run logs as params: what concerns an evaluation, and the verb's `own`. The
    model's constants come last: MLflow shows params in this order."""
    values = asdict(config)
    return {section: values[section] for section in ("preset", "env", *own, "eval", "policy", "compute", "model")}
