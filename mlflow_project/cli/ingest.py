"""`ingest`: a result directory that RLinf wrote, whoever started it, as runs."""

from __future__ import annotations

import shlex
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import click

from mlflow_project.cli import _options as options
from mlflow_project.cli._session import PROJECT, preflight, stdout, verb_session
from mlflow_project.vocabulary import NOTE_TAG
from rlinf_isaac.ground.probe import check_output

if TYPE_CHECKING:
    from rlinf_isaac.checkpoint.foreign.find_norm_stats import NormStatsSource
    from rlinf_isaac.engines.rlinf.results import RlinfResults
    from rlinf_isaac.preflight import Findings

EXAMPLE = """\b
Example:
  rlinf-isaac ingest --source /results/isaaclab_ppo_openpi_pi05
  mlflow run . -e ingest -P source=/results/isaaclab_ppo_openpi_pi05"""


@click.command("ingest", epilog=EXAMPLE)
@options.option("--source", "Directory that was RLinf's runner.logger.log_path.", None)
@options.output
def command(source: str, output: Path) -> None:
    """Record what RLinf left in a result directory: metrics, config, videos, and a nested run per checkpoint.

    Metrics keep RLinf's names; their steps become global steps, as in the names of its checkpoints. Weights stay where
    they are; the command that makes a bundle of each is printed, and is the description of its run. A directory that is
    in the store already, unchanged, is not recorded again.
    """
    with verb_session():
        with preflight() as findings:
            findings.add(check_output(output))
            results = check(findings, source=source)
        assert results is not None
        run(results, output)


def check(findings: Findings, *, source: str, quick: bool = False) -> RlinfResults | None:
    """The results in this directory, unless `findings` has errors. Videos that do not decode are warnings."""
    from rlinf_isaac.engines.rlinf.results import read_results
    from rlinf_isaac.ground.errors import Problem

    with findings.collect():
        results = read_results(Path(source).absolute())
        if not quick:
            results = replace(results, broken=_broken_videos(results))
            for problem in results.broken.values():
                findings.add([Problem("rlinf-video", problem, "it is not logged", level="warning")])
        return results
    return None


def run(results: RlinfResults, output: Path) -> str | None:
    """Record as a tracked run with one nested run per checkpoint; the MLflow id of the run that holds the results."""
    from mlflow_project.cli._summary import print_links
    from mlflow_project.lineage.provenance import digest_tags, provenance_tags
    from mlflow_project.tracking.runs import tracked_run

    if known := _recorded_before(results):
        stdout.print(f"recorded already, unchanged, in run {known}")
        return known
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
        stdout.print(f"make a bundle  {command}")
    print_links(tracked)
    ids = tracked.ids()
    return None if ids is None else ids[0]


def _norm_stats_of(checkpoint: Path) -> NormStatsSource | None:
    """The norm stats beside the weights, or in the model's directory that the training started from; None where there
    are none, or several that differ."""
    from rlinf_isaac.checkpoint.foreign.find_norm_stats import find_norm_stats
    from rlinf_isaac.ground.errors import NormStatsError

    try:
        return find_norm_stats(checkpoint)
    except NormStatsError:
        return None


def _bundle_command(checkpoint: Path, stats: NormStatsSource | None) -> str:
    """What makes a bundle of a checkpoint. It looks for norm stats in the same places, so that a name is to be filled
    in only where it would find none."""
    command = shlex.join(["rlinf-isaac", "bundle", "make", str(checkpoint)])
    return command if stats else f"{command} --norm-stats FILE"


def _broken_videos(results: RlinfResults) -> dict[Path, str]:
    """Videos that do not decode -> why. How many frames they should have, RLinf does not say."""
    from rlinf_isaac.ground.errors import VideoError
    from rlinf_isaac.media.video import decode_video

    broken = {}
    for video in results.videos:
        try:
            decode_video(video)
        except VideoError as error:
            broken[video] = str(error)
    return broken


def _recorded_before(results: RlinfResults) -> str | None:
    """The run of an earlier `ingest` of the same, if the store can be asked and has one."""
    from mlflow_project.tracking.store import existing_store
    from rlinf_isaac.ground.errors import InvalidJob

    try:
        client = existing_store()
    except InvalidJob:  # a store that does not exist yet
        return None
    experiments = [experiment.experiment_id for experiment in client.search_experiments()]
    query = f"tags.`ingest.digest` = '{results.digest}' and attributes.status = 'FINISHED'"
    found = client.search_runs(experiments, query, max_results=1)
    return found[0].info.run_id if found else None
