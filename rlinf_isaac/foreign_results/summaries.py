"""Tools that leave no episodes but a summary: IsaacLab-Arena's metrics as JSON, and robomimic's rollout statistics."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

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
from rlinf_isaac.ground.errors import InvalidJob
from rlinf_isaac.ground.reading import parse_json, read_bytes, read_json

MAX_BYTES = 50_000_000
_STATISTICS = re.compile(r"\{[^{}]{0,4000}\"Success_Rate\"[^{}]{0,4000}\}")


def is_arena(value: Any) -> bool:
    """Whether this JSON is a mapping from jobs to metrics with a ``success_rate``."""
    return isinstance(value, dict) and any(
        isinstance(each, dict) and "success_rate" in each for each in (value, *value.values())
    )


def read_arena(path: Path, options: Options) -> ForeignResults:
    """IsaacLab-Arena: ``{job: {"success_rate": ..., "num_episodes": ...}}``, or the metrics of a single job. Written
    after its source, not tested against the tool itself. Raises InvalidJob."""
    try:
        value = read_json(path, MAX_BYTES)
        jobs: Mapping[str, Any] = {path.stem: value} if "success_rate" in value else value
        arms = []
        for job, metrics in jobs.items():
            if not isinstance(metrics, dict) or "success_rate" not in metrics:
                continue
            rate = number(metrics["success_rate"])
            if rate is None:
                raise ValueError(f"the success rate of {job} is no number")
            n = whole(metrics.get("num_episodes"), "num_episodes", 1) or options.episodes
            arms.append(Arm(options.policy or job, job if options.policy else "", counts=counts_of(path, job, rate, n)))
        if not arms:
            raise ValueError("it has no success rate")
    except InvalidJob:
        raise
    except UNREADABLE as error:
        raise damaged(path, error) from error
    return ForeignResults("arena", NOT_KNOWN, path, tuple(arms), files=(path,))


def is_robomimic(head: bytes) -> bool:
    """Whether a text has robomimic's rollout statistics."""
    return b'"Success_Rate"' in head


def read_robomimic(path: Path, options: Options) -> ForeignResults:
    """The last rollout statistics in a text or log of robomimic. ``Num_Success`` and ``Success_Rate`` together say how
    many episodes there were, unless none was solved. Raises InvalidJob."""
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
