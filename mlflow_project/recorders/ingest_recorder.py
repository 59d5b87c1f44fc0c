"""Records another tool's evaluation: a parent run per source, and a nested run per policy with its episodes.

The nested runs have the artifacts, tags and metrics of the project's own evaluations, so that whatever reads those
reads these. Of a source without episodes the table has its successes and failures in any order, and says so.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from mlflow_project.comparison.compare import Comparison, compare
from mlflow_project.comparison.episodes import success_of, success_words, table_row
from mlflow_project.comparison.evaluations import Evaluation
from mlflow_project.comparison.foreign import INGESTED
from mlflow_project.recorders.comparison_recorder import record_comparison, save_comparison_view
from mlflow_project.recorders.films import log_films
from mlflow_project.recorders.sweep_recorder import evaluation_metrics
from mlflow_project.tracking.recorder import Recorder
from mlflow_project.vocabulary import (
    ABOUT_TAG,
    EPISODES_FILE,
    EXPERIMENT_PLACEHOLDER,
    SETTINGS_FILE,
    TASK_TAG,
    VERB_TAG,
    run_placeholder,
)
from rlinf_isaac.foreign_results.model import NOT_KNOWN, Arm, ForeignResults, ForeignRow
from rlinf_isaac.ground.digest import json_digest
from rlinf_isaac.ground.events import EpisodeKey, EpisodeRow, VideoSaved


def record_foreign(parent: Recorder, results: ForeignResults, title: str) -> Comparison:
    """Record all policies of a source, and compare them in the parent run."""
    save_comparison_view(parent)
    for file in results.files:
        if file.stat().st_size <= 10_000_000:
            parent.artifact(file, f"source/{file.name}")
    finished = [_record_policy(parent, results, policy, title) for policy in results.policies]
    comparison = compare(finished)
    record_comparison(parent, comparison, title)
    return comparison


def settings_of(results: ForeignResults, arms: Sequence[Arm]) -> dict[str, Any]:
    """The settings of a policy's evaluation, in the form of `EvaluationStarted.settings`."""
    tasks = [arm.task for arm in arms if arm.task]
    ingested = {
        "format": results.format,
        "version": results.version,
        "known": dict(results.known),
        "stated": dict(results.stated),
        "counts_only": any(arm.counts is not None for arm in arms),
        "seeded": all(arm.seeded for arm in arms),
        "checkpoint step": NOT_KNOWN,
    }
    environment = {"task": ", ".join(tasks) or NOT_KNOWN}
    return {"environment": environment, "failures": ["failure"], "time_outs": False, INGESTED: ingested}


def _record_policy(parent: Recorder, results: ForeignResults, policy: str, sweep: str) -> Evaluation:
    arms = results.of(policy)
    settings = settings_of(results, arms)
    identity = json_digest({"source": results.digest, "policy": policy})
    several = len(arms) > 1
    pairs = [
        (source, _row(source, arm, i, identity, several=several))
        for arm in arms
        for i, source in enumerate(arm.rows or _outcomes(arm))
    ]
    pairs.sort(key=lambda pair: (pair[1].task, pair[1].seed))
    rows = [row for _, row in pairs]
    said = success_words(success_of(rows))
    tags = {
        VERB_TAG: "ingest",
        TASK_TAG: settings["environment"]["task"],
        f"{ABOUT_TAG}checkpoint": policy,
        f"{ABOUT_TAG}success": said,
        "ingest.format": results.format,
        "ingest.policy_sha256": identity,
    }
    recorder = parent.start_run(policy, tags)
    recorder.params({"format": results.format, "version": results.version, **results.known}, prefix="ingest")
    recorder.text(SETTINGS_FILE, json.dumps(settings, indent=2) + "\n")
    saved: dict[EpisodeKey, VideoSaved] = {
        row.key: VideoSaved(checkpoint_step=0, seed=row.seed, path=source.video, frames=0, task=row.task)
        for source, row in pairs
        if source.video is not None
    }
    videos = log_films(recorder, rows, saved)
    rows = [replace(row, video=videos.get(row.key)) for row in rows]
    recorder.table(EPISODES_FILE, [table_row(row) for row in rows])
    metrics = evaluation_metrics(rows, settings)
    recorder.metrics({name: value for name, value in metrics.items() if math.isfinite(value)}, 0)
    recorder.end("FINISHED")
    return Evaluation(
        run=run_placeholder(recorder.run),
        name=policy,
        experiment=EXPERIMENT_PLACEHOLDER,
        sweep=run_placeholder(parent.run),
        sweep_name=sweep,
        step=0,
        checkpoint=identity,
        rows=tuple(rows),
        settings=settings,
        tags=tags,
    )


def _outcomes(arm: Arm) -> list[ForeignRow]:
    """Episodes as far as counts say: that many successes, the rest failures."""
    return [ForeignRow(i < arm.successes) for i in range(arm.n)]


def _row(source: ForeignRow, arm: Arm, index: int, identity: str, *, several: bool) -> EpisodeRow:
    """An episode; one without a seed of its own has its number, and its settings say that it is none."""
    length: Any = math.nan if source.length is None else source.length
    return EpisodeRow(
        checkpoint_step=0,
        checkpoint=identity,
        seed=source.seed if arm.seeded and source.seed is not None else index,
        env_index=0,
        success=source.success,
        outcome="success" if source.success else source.outcome,
        length=length,
        episode_return=math.nan if source.episode_return is None else source.episode_return,
        policy_seed=-1,
        extras=dict(source.extras),
        task=arm.task if several else "",
    )


def title_of(results: ForeignResults) -> str:
    """Name of a source's run."""
    return f"{results.format} {results.root.name}"
