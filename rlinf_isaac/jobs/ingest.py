"""Reads the results of RLinf in a directory, so that they can be recorded."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from rlinf_isaac.ground.errors import Problem, VideoError

if TYPE_CHECKING:
    from rlinf_isaac.engines.rlinf.results import RlinfResults
    from rlinf_isaac.preflight import Findings


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
