"""Reads the results of RLinf, or of another tool, so that they can be recorded."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from rlinf_isaac.foreign_results.model import MAX_EPISODES, Options
from rlinf_isaac.ground.errors import Problem, VideoError
from rlinf_isaac.jobs.options import NONE

if TYPE_CHECKING:
    from rlinf_isaac.engines.rlinf.results import RlinfResults
    from rlinf_isaac.foreign_results.model import ForeignResults
    from rlinf_isaac.preflight import Findings


def check_foreign(
    findings: Findings, *, source: str, format: str, episodes: str, policy: str, task: str, first_seed: str
) -> tuple[str, ForeignResults | None]:
    """The format of a source, and its results where that is not RLinf's; None if `findings` has errors.

    Args:
        findings: takes what is wrong.
        source: file or directory.
        format: one of `read.FORMATS`, or ``auto``.
        episodes, policy, task, first_seed: as in `Options`; ``none`` is not stated.
    """
    from rlinf_isaac.foreign_results.read import FORMATS, RLINF, format_of, read_foreign

    path = Path(source).absolute()
    if format not in ("auto", *FORMATS):
        problem = Problem("ingest-option", f"--format {format} is not known", f"name one of {', '.join(FORMATS)}")
        findings.add([problem])
        format = "auto"
    stated = Options(
        _stated(findings, "--episodes", episodes, 1, MAX_EPISODES), None if policy == NONE else policy[:200]
    )
    stated = replace(stated, task=None if task == NONE else task[:200])
    stated = replace(stated, first_seed=_stated(findings, "--first-seed", first_seed, 0, 2**62))
    with findings.collect():
        format = format_of(path) if format == "auto" else format
        if format == RLINF:
            if stated != Options():
                cause = "--episodes, --policy, --task and --first-seed are not for RLinf's results"
                findings.add([Problem("ingest-option", cause, "leave them out")])
            return format, None
        results = read_foreign(path, format, stated)
        for warning in results.warnings:
            findings.add([Problem("partial-results", f"{path}: {warning}", "finish it there", level="warning")])
        return format, _without_broken_videos(findings, results)
    return "", None


def _stated(findings: Findings, option: str, text: str, least: int, most: int) -> int | None:
    if text == NONE:
        return None
    if text.isascii() and text.isdigit() and len(text) < 20 and least <= int(text) <= most:
        return int(text)
    findings.add([Problem("ingest-option", f"{option} {text} is no number", f"give a whole number from {least} on")])
    return None


def _without_broken_videos(findings: Findings, results: ForeignResults) -> ForeignResults:
    from rlinf_isaac.media.video import decode_video

    arms = []
    for arm in results.arms:
        rows = []
        for row in arm.rows:
            if row.video is not None:
                try:
                    decode_video(row.video)
                except VideoError as error:
                    findings.add([Problem("rlinf-video", str(error), "it is not logged", level="warning")])
                    row = replace(row, video=None)
            rows.append(row)
        arms.append(replace(arm, rows=tuple(rows)))
    return replace(results, arms=tuple(arms))


def check(findings: Findings, *, source: str, quick: bool = False) -> RlinfResults | None:
    """The results in this directory, or None if `findings` has errors. A video that cannot be decoded is a warning."""
    from rlinf_isaac.engines.rlinf.results import read_results

    with findings.collect():
        results = read_results(Path(source).absolute())
        if not quick:
            results = replace(results, broken=_broken_videos(results))
            for problem in results.broken.values():
                findings.add([Problem("rlinf-video", problem, "it is not logged", level="warning")])
        return results
    return None


def _broken_videos(results: RlinfResults) -> dict[Path, str]:
    """Video that cannot be decoded -> the reason. RLinf does not record the number of frames, so it is not checked."""
    from rlinf_isaac.media.video import decode_video

    broken = {}
    for video in results.videos:
        try:
            decode_video(video)
        except VideoError as error:
            broken[video] = str(error)
    return broken
