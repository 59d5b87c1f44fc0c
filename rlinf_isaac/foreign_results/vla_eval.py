"""vla-eval's results (allenai/vla-evaluation-harness): its aggregate JSON, and the sqlite recording behind it."""

from __future__ import annotations

import shutil
import sqlite3
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import closing
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
    damaged,
    flag,
    number,
    whole,
)
from rlinf_isaac.ground.digest import json_digest
from rlinf_isaac.ground.errors import InvalidJob
from rlinf_isaac.ground.reading import open_regular, parse_json, read_json

MAX_BYTES = 100_000_000
MAX_RECORDING_BYTES = 20_000_000_000
"""A recording has the steps of all episodes as well, which are not read."""
_MAGIC = b"SQLite format 3\x00"
# The harness's own export keeps the last committed row of a work item that was tried again.
_EPISODES = """SELECT task_name, episode_id, metrics, steps, failure_reason, context FROM episode_results
WHERE eval_id = ? ORDER BY rowid"""


def is_json(value: Any) -> bool:
    """Whether this JSON looks like an aggregate of vla-eval."""
    return isinstance(value, dict) and "benchmark" in value and "tasks" in value


def is_sqlite(head: bytes) -> bool:
    """Whether these first bytes of a file are those of a sqlite database."""
    return head.startswith(_MAGIC)


def read(path: Path, options: Options) -> ForeignResults:
    """Read one ``*_aggregate.json``, or the recording of one benchmark.

    Episodes are told apart by vla-eval's `episode_id`, which with the benchmark's seed decides how they begin; they
    count as seeded only where the config says that seed.

    Raises:
        InvalidJob: it is damaged, has several benchmarks, or its totals differ from its episodes.
    """
    try:
        with open_regular(path) as file:
            recording = is_sqlite(file.read(16))
        value = _recording(path) if recording else read_json(path, MAX_BYTES)
        return _results(path, value, options)
    except InvalidJob:
        raise
    except (*UNREADABLE, sqlite3.Error) as error:
        raise damaged(path, error) from error


def _results(path: Path, value: Mapping[str, Any], options: Options) -> ForeignResults:
    config = value.get("config") or {}
    params = config.get("params") or {}
    seed = value.get("seed", params.get("seed"))
    server = value.get("server_info") or {}
    named = next((server[key] for key in ("model", "name", "policy") if isinstance(server.get(key), str)), None)
    policy = options.policy or named or path.absolute().stem
    arms = []
    for task in value["tasks"]:
        rows = tuple(_row(each, seeded=seed is not None) for each in task["episodes"])
        arms.append(Arm(policy, str(task["task"]), rows))
        said = number(task.get("mean_success"))
        if rows and said is not None and abs(said - arms[-1].successes / len(rows)) > 0.00006:
            raise ValueError(f"task {task['task']}: the episodes have another success rate than the summary's {said:g}")
    if not any(arm.rows for arm in arms):
        raise ValueError("it has no episodes")
    known = {
        "benchmark": str(value["benchmark"]),
        "mode": value.get("mode"),
        "seed": seed,
        "max steps": config.get("max_steps"),
        "benchmark params": json_digest({key: each for key, each in params.items() if key != "seed"}),
    }
    warnings = ("the evaluation is partial: some of its episodes were not played",) if value.get("partial") else ()
    version = str(value.get("harness_version") or NOT_KNOWN)
    found = {key: each for key, each in known.items() if each is not None}
    kept = tuple(arm for arm in arms if arm.rows)
    return ForeignResults("vla-eval", version, path, kept, known=found, files=(path,), warnings=warnings)


def _row(each: Mapping[str, Any], seeded: bool) -> ForeignRow:
    metrics = each.get("metrics") or {}
    failure = each.get("failure_reason")
    # As in the harness: an episode with an error counts, as not solved.
    success = False if failure and "success" not in metrics else flag(metrics["success"])
    extras = {
        str(key): found for key, raw in metrics.items() if key != "success" and (found := number(raw)) is not None
    }
    return ForeignRow(
        success,
        whole(each.get("episode_id"), "episode_id") if seeded else None,
        length=whole(each.get("steps"), "steps"),
        outcome=str(failure)[:80] if failure else "failure",
        extras=extras,
    )


def _recording(path: Path) -> dict[str, Any]:
    """What vla-eval's export would make of a recording. It is read in a copy with its journal, because opening a
    database that was left by a killed process writes to it."""
    with tempfile.TemporaryDirectory(prefix="rlinf-isaac-") as scratch:
        copy = Path(scratch) / "recording.sqlite"
        if path.stat().st_size > MAX_RECORDING_BYTES:
            raise ValueError("the recording is too large")
        for ending in ("", "-wal"):
            if (source := path.with_name(path.name + ending)).is_file():
                shutil.copyfile(source, f"{copy}{ending}")
        with closing(sqlite3.connect(copy)) as database:
            database.execute("PRAGMA trusted_schema = OFF")
            evaluations = database.execute("SELECT eval_id, metadata FROM eval_metadata LIMIT 100").fetchall()
            if len(evaluations) != 1:
                cause = f"{path} has {len(evaluations)} benchmarks, one can be read"
                cure = f"make a file of each (`vla-eval export {path.name}`) and name one of them"
                raise InvalidJob.of("several-results", cause, cure)
            ((eval_id, text),) = evaluations
            metadata = parse_json(text)
            tasks: dict[str, dict[Any, dict[str, Any]]] = {}
            for key, task, episode in _episodes(database, eval_id):
                tasks.setdefault(task, {}).pop(key, None)
                tasks[task][key] = episode
    listed = [{"task": task, "episodes": list(episodes.values())} for task, episodes in sorted(tasks.items())]
    seed = (metadata.get("config") or {}).get("params", {}).get("seed")
    return {**metadata, "tasks": listed} | ({} if seed is None else {"seed": seed})


def _episodes(database: sqlite3.Connection, eval_id: str) -> Iterator[tuple[Any, str, dict[str, Any]]]:
    for number_, row in enumerate(database.execute(_EPISODES, (eval_id,))):
        if number_ >= MAX_EPISODES:
            raise ValueError(f"it has more than {MAX_EPISODES} episodes")
        task, episode_id, metrics, steps, failure, context = row
        where = parse_json(context) if context else {}
        index = where.get("task_idx")
        episode = {"episode_id": episode_id, "metrics": parse_json(metrics) if metrics else {}, "steps": steps}
        key = number_ if index is None else (episode_id, str(index))
        yield key, str(task or "_unknown"), episode | ({"failure_reason": failure} if failure else {})
