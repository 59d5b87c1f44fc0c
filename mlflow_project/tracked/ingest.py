"""Recording what RLinf or another tool left, as a tracked run with one nested run for each checkpoint or policy."""

from __future__ import annotations

import shlex
from pathlib import Path

from mlflow_project.lineage.provenance import digest_tags, provenance_tags
from mlflow_project.recorders.ingest_recorder import record_foreign, title_of
from mlflow_project.tracked import PROJECT
from mlflow_project.tracked.evaluation import Swept
from mlflow_project.tracking.runs import TrackedRun, tracked_run
from mlflow_project.tracking.store import existing_store
from mlflow_project.vocabulary import NOTE_TAG
from rlinf_isaac.checkpoint.foreign.find_norm_stats import NormStatsSource, find_norm_stats
from rlinf_isaac.engines.rlinf.results import RlinfResults
from rlinf_isaac.foreign_results.model import ForeignResults
from rlinf_isaac.ground.digest import file_digest
from rlinf_isaac.ground.errors import InvalidJob, NormStatsError
from rlinf_isaac.jobs import Say, silent


def run(results: RlinfResults, output: Path, say: Say = silent) -> TrackedRun | None:
    """Record as a tracked run with one nested run per checkpoint. None where the results are recorded already."""
    if known := recorded_before(results.digest):
        say(f"recorded already, unchanged, in run {known}")
        return None
    tags = {"engine": "rlinf", "ingest.source": str(results.root), "ingest.digest": results.digest}
    tags |= {"rlinf.task_type": results.task}
    name = f"rlinf {results.root.name}"
    with tracked_run("ingest", output=output, name=name, tags=provenance_tags(PROJECT) | tags) as tracked:
        recorder = tracked.recorder
        recorder.params(results.config, prefix="rlinf")
        for point in results.points:
            recorder.metrics(point.values, point.step, time_s=point.time)
        for file in (*results.files, *(video for video in results.videos if video not in results.broken)):
            recorder.artifact(file, f"rlinf/{file.relative_to(results.root).as_posix()}")
        if results.broken:
            recorder.tags({"ingest.broken_videos": ", ".join(sorted(path.name for path in results.broken))})
        commands = {}
        for step, path in results.checkpoints.items():
            stats = _norm_stats_of(path)
            commands[path] = _bundle_command(path, stats)
            tags = {"checkpoint.path": str(path), "checkpoint.step": str(step)}
            if stats is not None:
                tags |= {"checkpoint.norm_stats": str(stats.path), **digest_tags({"norm_stats": stats.sha256})}
            nested = recorder.start_run(path.name, tags | {NOTE_TAG: f"    {commands[path]}"})
            nested.params({"step": step}, prefix="checkpoint")
            nested.metrics(results.at(step), step)
            nested.end("FINISHED")
    for command in commands.values():
        say(f"make a bundle  {command}")
    return tracked


def run_foreign(results: ForeignResults, output: Path, say: Say = silent) -> Swept | None:
    """Record another tool's evaluation with a nested run per policy. None where it is recorded already."""
    if known := recorded_before(results.digest):
        say(f"recorded already, unchanged, in run {known}")
        return None
    name = title_of(results)
    tags = {"ingest.format": results.format, "ingest.source": str(results.root), "ingest.digest": results.digest}
    tags |= {"ingest.version": results.version, "ingest.sha256": " ".join(file_digest(file) for file in results.files)}
    tags |= {f"ingest.stated.{key}": str(value) for key, value in results.stated.items()}
    with tracked_run("ingest", output=output, name=name, tags=provenance_tags(PROJECT) | tags) as tracked:
        comparison = record_foreign(tracked.recorder, results, name)
    return Swept(comparison, tracked)


def _norm_stats_of(checkpoint: Path) -> NormStatsSource | None:
    """The norm stats beside the weights, or in the model's directory that the training started from; None where there
    are none, or several that differ."""
    try:
        return find_norm_stats(checkpoint)
    except NormStatsError:
        return None


def _bundle_command(checkpoint: Path, stats: NormStatsSource | None) -> str:
    """What makes a bundle of a checkpoint. It looks for norm stats in the same places, so that a name is to be filled
    in only where it would find none."""
    command = shlex.join(["rlinf-isaac", "bundle", "make", str(checkpoint)])
    return command if stats else f"{command} --norm-stats FILE"


def recorded_before(digest: str) -> str | None:
    """The run of an earlier `ingest` of the same, if the store can be asked and has one."""
    try:
        client = existing_store()
    except InvalidJob:  # a store that does not exist yet
        return None
    experiments = [experiment.experiment_id for experiment in client.search_experiments()]
    query = f"tags.`ingest.digest` = '{digest}' and attributes.status = 'FINISHED'"
    found = client.search_runs(experiments, query, max_results=1)
    return found[0].info.run_id if found else None
