"""Reinforcement learning from checkpoints, as a tracked run with one nested run for each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from mlflow_project.lineage.provenance import digest_tags, provenance_tags, task_tags
from mlflow_project.recorders.comparison_recorder import save_comparison_view
from mlflow_project.recorders.logged_checkpoints import model_name
from mlflow_project.recorders.rl_recorder import Improved, RlRecorder, gains_markdown
from mlflow_project.retention.guardian import StoreGuardian
from mlflow_project.tracked import PROJECT, UploadWeights
from mlflow_project.tracked.evaluation import played_dataset, recorded
from mlflow_project.tracked.headers import rl_header
from mlflow_project.tracking import ui
from mlflow_project.tracking.announce import say_header
from mlflow_project.tracking.progress import watch
from mlflow_project.tracking.runs import TrackedRun, tracked_run
from mlflow_project.vocabulary import NOTE_TAG
from rlinf_isaac.checkpoint.removal import in_use
from rlinf_isaac.engines.base import Engine, EvaluationJob, RlJob
from rlinf_isaac.engines.local import LocalEngine
from rlinf_isaac.jobs import Say, silent
from rlinf_isaac.jobs.used_norm_stats import say_played


class Gained(NamedTuple):
    """What reinforcement learning made of every start checkpoint, and the run that records it."""

    improved: list[Improved]
    run: TrackedRun


def train_with_others(jobs: Sequence[RlJob], engine: Engine | None = None) -> None:
    """Train all jobs as one of torchrun's processes that record nothing; the first one records and evaluates."""
    for job in jobs:
        for _ in (engine or LocalEngine()).rl(job):
            pass


def run(
    jobs: Sequence[RlJob],
    output: Path,
    upload_weights: UploadWeights = "auto",
    engine: Engine | None = None,
    say: Say = silent,
) -> Gained:
    """Train and evaluate all jobs, one after the other, as nested runs of one tracked run, on the local engine if none
    is given; says which norm stats are used."""
    engine, config, improved = engine or LocalEngine(), jobs[0].config, []
    name = f"rl {jobs[0].start.path.parent.parent.name} x {len(jobs)}"
    tags = provenance_tags(PROJECT) | task_tags(config) | engine.tags()
    with tracked_run("rl", output=output, name=name, tags=tags) as tracked:
        tracked.recorder.params(recorded(config, "rl"))
        tracked.recorder.tags(digest_tags({"norm_stats": say_played([job.start for job in jobs], None, say)}))
        save_comparison_view(tracked.recorder, columns=ui.GAIN_COLUMNS, charts=ui.GAIN_CHARTS)
        for job in jobs:
            recorder = RlRecorder(
                tracked.recorder,
                job,
                params=recorded(config, "rl"),
                model_name=model_name(config.preset, pi05=config.model.pi05),
                dataset=played_dataset(config),
                upload_weights=upload_weights,
            )
            say_header(rl_header(job))
            with in_use([job.start.path]):
                watch(engine.rl(replace(job, guardian=StoreGuardian.of(tracked))), recorder.train)
            bundles = (job.start, recorder.result())
            held_out = EvaluationJob(config, bundles, output.absolute() / "eval", env_python=job.env_python)
            with in_use(bundle.path for bundle in bundles):
                watch(engine.evaluate(held_out), recorder.evaluate)
            assert recorder.improved is not None
            improved.append(recorder.improved)
            tracked.recorder.tags({NOTE_TAG: gains_markdown(improved)})
    return Gained(improved, tracked)
