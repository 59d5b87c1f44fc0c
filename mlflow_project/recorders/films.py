"""Logs the videos of an evaluation, with their traces and previews, under names that MLflow's pages understand."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path

from mlflow_project.comparison.traces import as_script, trace_name
from mlflow_project.tracking.recorder import Recorder
from mlflow_project.vocabulary import ROLLOUT
from rlinf_isaac.ground.errors import VideoError
from rlinf_isaac.ground.events import EpisodeKey, EpisodeRow, VideoSaved
from rlinf_isaac.media.preview import write_preview

logger = logging.getLogger("mlflow_project")


def log_films(
    recorder: Recorder, rows: Sequence[EpisodeRow], videos: Mapping[EpisodeKey, VideoSaved]
) -> dict[EpisodeKey, str]:
    """Log videos under names that are the same in every nested run; returns episode -> artifact path.

    Episodes are numbered in the order of seeds, those of several tasks in each of them. The first video is
    ``rollout.mp4`` at the root instead, because MLflow's compare page plays files of the same name side by side, but
    only those at the root. A trace lies beside its video.
    """
    names: dict[EpisodeKey, str] = {}
    for number, row in enumerate(rows):
        if row.key in videos:
            seeds = [other.seed for other in rows if other.task == row.task]
            folder = f"videos/{row.task}" if row.task else "videos"
            name = f"{folder}/episode_{seeds.index(row.seed):03d}.mp4"
            names[row.key] = name if names else "rollout.mp4"
            recorder.artifact(videos[row.key].path, names[row.key])
            if trace := videos[row.key].trace:
                recorder.text(trace_name(names[row.key]), as_script(trace.read_text()))
            _log_preview(recorder, videos[row.key].path, number)
    return names


def _log_preview(recorder: Recorder, video: Path, number: int) -> None:
    """Log an animation of a video for MLflow's image grid, whose slider selects the episode."""
    try:
        recorder.animation(ROLLOUT, number, lambda still, animation: write_preview(video, still, animation))
    except VideoError as error:  # the video itself is logged; a missing preview must not end the sweep
        logger.warning("%s", error)
