"""IsaacLab-Arena: ``episode_results.jsonl``, a line per episode, or the metrics of its jobs as JSON.

The forms are those of its source: ``isaaclab_arena/evaluation/episode_recorder.py`` (and ``episode_writer.py`` before
it) and ``isaaclab_arena/metrics/metrics_logger.py``. A job is a policy in an environment; its seed is that of the whole
job, so episodes have none of their own.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rlinf_isaac.foreign_results.model import (
    MAX_EPISODES,
    NOT_KNOWN,
    UNREADABLE,
    Arm,
    ForeignResults,
    ForeignRow,
    Options,
    counts_of,
    damaged,
    flag,
    number,
    whole,
)
from rlinf_isaac.ground.errors import InvalidJob
from rlinf_isaac.ground.reading import parse_json, read_json, read_lines

FORMAT, FILE = "arena", "episode_results.jsonl"
MAX_BYTES = 100_000_000
_OWN = {"seed", "success", "episode_length", "env_id", "episode_in_env", "global_episode_index", "rebuild_idx"}


def is_it(value: Any) -> bool:
    """Whether this JSON is a mapping from jobs to metrics with a ``success_rate``, or a line of `FILE`."""
    if not isinstance(value, dict):
        return False
    if "job_name" in value:
        return "env_id" in value or "outcomes" in value
    return any(isinstance(each, dict) and "success_rate" in each for each in (value, *value.values()))


def begins(head: bytes) -> bool:
    """Whether a file with JSON lines begins with one of `FILE`."""
    try:
        return is_it(parse_json(head.split(b"\n", 1)[0]))
    except UNREADABLE:
        return False


def read(path: Path, options: Options) -> ForeignResults:
    """Read a file with episodes or with metrics.

    Raises:
        InvalidJob: it is damaged, or has a success rate without a number of episodes.
    """
    try:
        arms = _episodes(path, options) if path.suffix == ".jsonl" else _metrics(path, options)
    except InvalidJob:
        raise
    except UNREADABLE as error:
        raise damaged(path, error) from error
    return ForeignResults(FORMAT, NOT_KNOWN, path, arms, files=(path,))


def _episodes(path: Path, options: Options) -> tuple[Arm, ...]:
    arms: dict[tuple[str, str], list[ForeignRow]] = {}
    lines = [line for line in read_lines(path, MAX_BYTES) if line.strip()]
    if len(lines) > MAX_EPISODES:
        raise ValueError(f"it has more than {MAX_EPISODES} episodes")
    for i, line in enumerate(lines, start=1):
        episode = parse_json(line, finite=False)
        job, outcomes = str(episode["job_name"])[:200], episode.get("outcomes")
        task = str(episode.get("task_description") or episode.get("language_instruction") or "")[:200]
        said = _first(outcomes, "success", "success_rate") if isinstance(outcomes, dict) else episode.get("success")
        if said is None:
            raise ValueError(f"episode {i} of {job} has no success, so its task says nothing of it")
        extras = {
            str(name): value
            for name, each in (outcomes if isinstance(outcomes, dict) else episode).items()
            if name not in _OWN and (value := number(each)) is not None
        }
        length = whole(episode.get("episode_length"), f"episode {i}: the length")
        rows = arms.setdefault((options.policy or job, task or (job if options.policy else "")), [])
        rows.append(ForeignRow(flag(said), length=length, extras=extras))
    if not arms:
        raise ValueError("it has no episodes")
    return tuple(Arm(policy, task, tuple(rows)) for (policy, task), rows in arms.items())


def _metrics(path: Path, options: Options) -> tuple[Arm, ...]:
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
    return tuple(arms)


def _first(values: Mapping[str, Any], *names: str) -> Any:
    return next((values[name] for name in names if values.get(name) is not None), None)
