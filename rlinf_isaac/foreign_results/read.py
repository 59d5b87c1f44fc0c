"""Recognises by its content which tool wrote a source, and reads it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path

from rlinf_isaac.foreign_results import arena, lerobot, robomimic, tables, vla_eval
from rlinf_isaac.foreign_results.model import ForeignResults, Options, damaged
from rlinf_isaac.ground.digest import bytes_digest, file_digest, json_digest
from rlinf_isaac.ground.errors import InvalidJob
from rlinf_isaac.ground.reading import open_regular, read_json

RLINF = "rlinf"
READERS: dict[str, Callable[[Path, Options], ForeignResults]] = {
    "lerobot": lerobot.read,
    "vla-eval": vla_eval.read,
    "arena": arena.read,
    "robomimic": robomimic.read,
    "table": tables.read,
    "wandb": partial(tables.read, format="wandb"),
}
FORMATS = (RLINF, *READERS)
_TABLES = (".csv", ".tsv", ".jsonl", ".ndjson", ".parquet")


def format_of(source: Path) -> str:
    """The format of a file or directory; `RLINF` for a directory in which no other tool's file is.

    Raises:
        InvalidJob: a file is of no known format, or cannot be read.
    """
    if source.is_dir():
        if (source / lerobot.FILE).is_file():
            return "lerobot"
        if (source / arena.FILE).is_file():
            return "arena"
        return "vla-eval" if _of_vla_eval(source) else RLINF
    if not source.exists():
        return RLINF
    try:
        with open_regular(source) as file:
            head = file.read(1 << 16)
    except OSError as error:
        raise damaged(source, error) from error
    if vla_eval.is_sqlite(head):
        return "vla-eval"
    if source.suffix == ".jsonl" and arena.begins(head):
        return "arena"
    if source.suffix in _TABLES:
        return "wandb" if b"_runtime" in head or b"_timestamp" in head else "table"
    if source.suffix == ".json":
        try:
            value = read_json(source, vla_eval.MAX_BYTES) if b"NaN" not in head else None
        except (OSError, ValueError) as error:
            raise damaged(source, error) from error
        if value is None or lerobot.is_it(value):
            return "lerobot"
        if vla_eval.is_json(value):
            return "vla-eval"
        if arena.is_it(value):
            return "arena"
    if robomimic.is_it(head):
        return "robomimic"
    cause = f"{source} is of no format that is recognised"
    raise InvalidJob.of("unknown-results", cause, f"name it: --format {'|'.join(FORMATS)}")


def read_foreign(source: Path, format: str, options: Options) -> ForeignResults:
    """Read a source in this format (a key of `READERS`). Raises InvalidJob."""
    if format == "vla-eval" and source.is_dir():
        found = _of_vla_eval(source)
        if len(found) != 1:
            cause = f"{source} has {len(found)} results of vla-eval"
            raise InvalidJob.of(
                "several-results", cause, "name one of its files *_aggregate.json or recording-*.sqlite"
            )
        source = found[0]
    if format == "arena" and source.is_dir():
        source /= arena.FILE
    results = READERS[format](source, options)
    if options.task is not None:
        results = replace(results, arms=tuple(replace(arm, task=arm.task or options.task) for arm in results.arms))
    stated = {key: value for key, value in asdict(options).items() if value is not None}
    videos = [row.video for arm in results.arms for row in arm.rows if row.video]
    content = {
        "format": format,
        "files": [file_digest(file) for file in results.files],
        "videos": [bytes_digest(f"{video.name} {video.stat().st_size}".encode()) for video in videos],
        "stated": stated,
        "policies": results.policies,
    }
    return replace(results, stated=stated, digest=json_digest(content))


def _of_vla_eval(folder: Path) -> list[Path]:
    return sorted(folder.glob("*_aggregate.json")) or sorted(folder.glob("recording-*.sqlite"))
