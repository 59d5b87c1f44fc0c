"""The job that records what RLinf left in a directory: the results are read."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from rlinf_isaac.ground.errors import Problem, VideoError

if TYPE_CHECKING:
    from rlinf_isaac.engines.rlinf.results import RlinfResults
    from rlinf_isaac.preflight import Findings


def check(findings: Findings, *, source: str, quick: bool = False) -> RlinfResults | None:
    """The results in this directory, unless `findings` has errors. Videos that do not decode are warnings."""
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
    """Videos that do not decode -> why. How many frames they should have, RLinf does not say."""
    from rlinf_isaac.media.video import decode_video

    broken = {}
    for video in results.videos:
        try:
            decode_video(video)
        except VideoError as error:
            broken[video] = str(error)
    return broken
