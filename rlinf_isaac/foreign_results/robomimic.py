"""robomimic's rollout statistics, which its evaluation prints as JSON: no episodes, but how many there were."""

from __future__ import annotations

import re
from pathlib import Path

from rlinf_isaac.foreign_results.model import (
    NOT_KNOWN,
    UNREADABLE,
    Arm,
    ForeignResults,
    Options,
    bare_rate,
    counts_of,
    damaged,
    number,
    whole,
)
from rlinf_isaac.ground.reading import parse_json, read_bytes

MAX_BYTES = 50_000_000
_STATISTICS = re.compile(r"\{[^{}]{0,4000}\"Success_Rate\"[^{}]{0,4000}\}")


def is_it(head: bytes) -> bool:
    """Whether a text has robomimic's rollout statistics."""
    return b'"Success_Rate"' in head


def read(path: Path, options: Options) -> ForeignResults:
    """The last rollout statistics in a text or log (``avg_rollout_stats`` of robomimic's ``run_trained_agent.py``).
    ``Num_Success`` and ``Success_Rate`` together say how many episodes there were, unless none was solved.

    Raises:
        InvalidJob: there are none, or they do not say how many episodes.
    """
    try:
        found = _STATISTICS.findall(read_bytes(path, MAX_BYTES).decode())
        if not found:
            raise ValueError("it has no rollout statistics")
        values = parse_json(found[-1])
        rate, solved = number(values["Success_Rate"]), whole(values.get("Num_Success"), "Num_Success")
        if rate is None:
            raise ValueError("the success rate is no number")
        n = options.episodes
        if n is None and solved and rate > 0:
            n = round(solved / rate)
    except UNREADABLE as error:
        raise damaged(path, error) from error
    if n is None:
        raise bare_rate(path, path.stem)
    counts = counts_of(path, path.stem, rate, n)
    return ForeignResults(
        "robomimic", NOT_KNOWN, path, (Arm(options.policy or path.stem, "", counts=counts),), files=(path,)
    )
