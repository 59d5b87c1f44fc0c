"""Supervised fine-tuning, as a tracked run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING

from mlflow_project.comparison.evaluations import mismatch_tags
from mlflow_project.lineage.provenance import digest_tags, hub_tags, lerobot_datasets, provenance_tags, task_tags
from mlflow_project.recorders.logged_checkpoints import fine_tuning_words, model_name
from mlflow_project.recorders.sft_recorder import SftRecorder
from mlflow_project.retention.guardian import StoreGuardian
from mlflow_project.tracked import PROJECT, UploadWeights
from mlflow_project.tracked.headers import sft_header
from mlflow_project.tracking.announce import say_header
from mlflow_project.tracking.progress import watch
from mlflow_project.tracking.runs import tracked_run
from mlflow_project.vocabulary import BASE_URI_TAG
from rlinf_isaac.checkpoint.removal import in_use
from rlinf_isaac.engines.base import Engine, SftJob
from rlinf_isaac.engines.local import LocalEngine
from rlinf_isaac.engines.local.training.torchrun import launch
from rlinf_isaac.ground.errors import Problem

if TYPE_CHECKING:
    from rlinf_isaac.checkpoint.foreign.base import Base


def run(
    job: SftJob,
    output: Path,
    upload_weights: UploadWeights = "auto",
    engine: Engine | None = None,
    allowed: Sequence[Problem] = (),
) -> Path:
    """Train as one tracked run, on the local engine if none is given; returns the directory of the checkpoints.

    The run is tagged with the differences that are `allowed`.
    """
    engine = engine or LocalEngine()
    if (place := launch()) is not None and not place.first:
        for _ in engine.sft(job):  # the first process records
            pass
        return job.output / "checkpoints"
    tags = provenance_tags(PROJECT) | task_tags(job.config) | engine.tags()
    how = fine_tuning_words(job.config.sft.trainable, None if job.base is None else job.base.named.name)
    with tracked_run("sft", output=output, name=f"sft {job.output.name}{how}", tags=tags) as tracked:
        values = asdict(job.config)
        values["compute"] |= {"num_processes": job.processes, "sharding": job.sharding if job.processes > 1 else "none"}
        sections = ("preset", "sft", "policy", "compute", "model")  # MLflow shows them in this order
        tracked.recorder.params({section: values[section] for section in sections})
        tracked.recorder.tags(digest_tags(job.lineage) | mismatch_tags(allowed) | hub_tags(job.datasets))
        if job.base is not None:
            tracked.recorder.tags(_base_tags(job.base))
        recorder = SftRecorder(
            tracked.recorder,
            model_name=model_name(job.config.preset, pi05=job.config.model.pi05),
            datasets=lerobot_datasets(job.datasets, job.dataset_digest),
            upload_weights=upload_weights,
        )
        say_header(sft_header(job))
        guarded = replace(job, guardian=StoreGuardian.of(tracked))
        with in_use([] if job.base is None else [job.base.named.path]):
            watch(engine.sft(guarded), recorder)
    return job.output / "checkpoints"


def _base_tags(base: Base) -> dict[str, str]:
    """What a run records of its base, beside the digest in its lineage."""
    values = {
        "base.name": base.named.name,
        "base.kind": base.kind,
        BASE_URI_TAG: str(base.named.path.absolute()),
        "base.revision": base.named.revision or "",
        "base.parameters": base.coverage.summary,
        "base.not_known": ", ".join(base.not_known),
        "norm_stats.of": "base" if base.norm_stats is not None else "",
    }
    return {key: value for key, value in values.items() if value}
