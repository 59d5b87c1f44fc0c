"""Plain tables, the door for every tool: one row per episode, or per arm with ``successes`` (or ``rate``) and ``n``.

CSV, JSONL or parquet with the columns ``success``, and optionally ``policy``, ``task``, ``seed``, ``length``,
``return``; further numeric columns become numbers of the episode. Exports of W&B (runs or tables) are read here, too.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Mapping
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
    bare_rate,
    counts_of,
    damaged,
    flag,
    number,
    whole,
)
from rlinf_isaac.ground.errors import InvalidJob
from rlinf_isaac.ground.reading import check_regular, parse_json, read_bytes, read_lines

MAX_BYTES = 100_000_000
_NAMES = {
    "policy": ("policy", "model", "checkpoint", "Name", "name", "run", "_run"),
    "task": ("task", "env", "benchmark"),
    "seed": ("seed", "episode_seed"),
    "success": ("success", "is_success", "success_once", "succeeded"),
    "length": ("length", "steps", "episode_length", "Horizon"),
    "episode_return": ("return", "episode_return", "sum_reward", "reward", "Return"),
    "n": ("n", "n_episodes", "num_episodes", "episodes", "eval/n_episodes", "eval/episodes"),
    "successes": ("successes", "num_success", "Num_Success"),
    "rate": ("rate", "success_rate", "Success_Rate", "eval/success_rate", "eval/success_once", "env/success_once"),
    "percent": ("pc_success", "eval/pc_success", "eval/overall/pc_success"),
}


def read(path: Path, options: Options, format: str = "table") -> ForeignResults:
    """Read a table.

    Raises:
        InvalidJob: it is damaged, has neither ``success`` nor a rate, or rates without a number of episodes.
    """
    try:
        table = [row for row in _rows(path) if any(value not in ("", None) for value in row.values())]
        if len(table) > MAX_EPISODES:
            raise ValueError(f"it has more than {MAX_EPISODES} rows")
        arms = _arms(path, table, options)
    except InvalidJob:
        raise
    except (*UNREADABLE, csv.Error) as error:
        raise damaged(path, error) from error
    return ForeignResults(format, NOT_KNOWN, path, arms, files=(path,))


def _rows(path: Path) -> Iterable[Mapping[str, Any]]:
    if path.suffix == ".parquet":
        return _parquet(path)
    if path.suffix in (".jsonl", ".ndjson"):
        rows = [parse_json(line, finite=False) for line in read_lines(path, MAX_BYTES) if line.strip()]
        if not all(isinstance(row, dict) for row in rows):
            raise ValueError("a line is no JSON object")
        return rows
    text = read_bytes(path, MAX_BYTES).decode("utf-8-sig")
    lines = csv.reader(io.StringIO(text, newline=""), delimiter="\t" if path.suffix == ".tsv" else ",", strict=True)
    names = [name.strip() for name in next(lines, [])]
    if len({*names}) != len(names):
        raise ValueError("two columns have the same name")
    found = [line for line in lines if line]
    if bad := [i for i, line in enumerate(found) if len(line) != len(names)]:
        raise ValueError(f"row {bad[0] + 1} has {len(found[bad[0]])} cells, the heading {len(names)}")
    return [dict(zip(names, line, strict=True)) for line in found]


def _parquet(path: Path) -> Iterable[Mapping[str, Any]]:
    import pyarrow
    import pyarrow.parquet as parquet

    check_regular(path)
    try:
        file = parquet.ParquetFile(path)
        if file.metadata.num_rows > MAX_EPISODES:
            raise ValueError(f"it has more than {MAX_EPISODES} rows")
        rows: list[Mapping[str, Any]] = file.read().to_pylist()
    except (pyarrow.ArrowException, UnicodeDecodeError) as error:
        raise ValueError(f"it is no readable parquet file: {error}") from error
    return rows


def _arms(path: Path, table: list[Mapping[str, Any]], options: Options) -> tuple[Arm, ...]:
    if not table:
        raise ValueError("it has no rows")
    present = {name for row in table for name in row}
    column = {key: next((name for name in names if name in present), None) for key, names in _NAMES.items()}
    own = {name for name in column.values() if name}
    if column["success"] is None or column["n"] is not None or column["successes"] is not None:
        return tuple(_counted(path, row, column, options) for row in _last_rates(table, column))
    arms: dict[tuple[str, str], list[ForeignRow]] = {}
    for i, row in enumerate(table, start=1):
        cell = {key: row.get(name) if name else None for key, name in column.items()}
        try:
            success = flag(cell["success"])
        except ValueError as error:
            if number(cell["success"]) is not None:
                raise bare_rate(path, f"row {i}") from error
            raise ValueError(f"row {i}: {error}") from error
        extras = {
            str(name): found
            for name, value in row.items()
            if name not in own and (found := number(value if value != "" else None)) is not None
        }
        key = _text(cell["policy"]) or options.policy or path.stem, _text(cell["task"])
        rows = arms.setdefault(key, [])
        seed = whole(cell["seed"], f"row {i}: the seed")
        if seed is None and options.first_seed is not None:
            seed = options.first_seed + len(rows)
        length = whole(cell["length"], f"row {i}: the length")
        rows.append(ForeignRow(success, seed, length, number(cell["episode_return"]), extras=extras))
    for (policy, task), rows in arms.items():
        seeds = [row.seed for row in rows if row.seed is not None]
        if len({*seeds}) != len(seeds):
            raise ValueError(f"policy {policy}, task {task or '(one)'}: a seed occurs twice")
    return tuple(Arm(policy, task, tuple(rows)) for (policy, task), rows in arms.items())


def _counted(path: Path, row: Mapping[str, Any], column: Mapping[str, str | None], options: Options) -> Arm:
    cell = {key: row.get(name) if name else None for key, name in column.items()}
    policy, task = _text(cell["policy"]) or options.policy or path.stem, _text(cell["task"])
    n = whole(cell["n"], "the number of episodes", 1) or options.episodes
    where = f"{policy}{' in ' if task else ''}{task}"
    solved = whole(cell["successes"], "the number of successes")
    rate, percent = number(cell["rate"]), number(cell["percent"])
    if rate is None:
        rate = percent / 100 if percent is not None else number(cell["success"])
    if solved is not None and n is not None:
        if solved > n:
            raise ValueError(f"{where}: {solved} successes of {n} episodes")
        if n > MAX_EPISODES:
            raise ValueError(f"{where}: more than {MAX_EPISODES} episodes")
        return Arm(policy, task, counts=(solved, n))
    if rate is None:
        raise ValueError(
            f"{where}: there is neither a column `success` nor a success rate; docs/judge.md has the names"
        )
    return Arm(policy, task, counts=counts_of(path, where, rate, n))


def _last_rates(table: list[Mapping[str, Any]], column: Mapping[str, str | None]) -> list[Mapping[str, Any]]:
    """The last row of each arm that has a figure: a history has many, of which the last is the result."""
    figures = [name for key in ("rate", "percent", "successes", "success") if (name := column[key])]
    last: dict[tuple[str, str], Mapping[str, Any]] = {}
    for row in table:
        if any(number(row.get(name)) is not None for name in figures):
            key = tuple(_text(row.get(name) if (name := column[each]) else None) for each in ("policy", "task"))
            last[key[0], key[1]] = row
    if not last:
        raise ValueError("there is neither a column `success` nor a success rate; docs/judge.md has the names")
    return list(last.values())


def _text(value: Any) -> str:
    return "" if value is None else str(value).strip()[:200]
