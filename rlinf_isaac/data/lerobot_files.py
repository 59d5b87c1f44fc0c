"""JSON and parquet files of a dataset, read with errors that name the file and tell the kinds of damage apart."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from rlinf_isaac.errors import DatasetError

RESTORE = "restore the dataset from where it was copied or recorded"


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object from a file. Raises DatasetError naming the file."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise DatasetError.of("meta-missing", f"{path} is missing", RESTORE) from error
    except (OSError, ValueError, RecursionError) as error:
        raise DatasetError.of("meta-damaged", f"{path} is not readable JSON ({error})", RESTORE) from error
    if not isinstance(value, dict):
        cause = f"{path} holds a JSON {type(value).__name__}, not an object"
        raise DatasetError.of("meta-damaged", cause, RESTORE)
    return value


def read_json_lines(path: Path) -> Iterator[Any]:
    """The values of a JSON lines file. Raises DatasetError naming the file and line."""
    try:
        lines = path.read_text(encoding="utf-8").split("\n")  # splitlines would also split at U+2028
    except FileNotFoundError as error:
        raise DatasetError.of("meta-missing", f"{path} is missing", RESTORE) from error
    except (OSError, ValueError) as error:
        raise DatasetError.of("meta-damaged", f"{path} is unreadable ({error})", RESTORE) from error
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            yield json.loads(line)
        except (ValueError, RecursionError) as error:
            cause = f"{path}, line {number}: not JSON ({error})"
            raise DatasetError.of("meta-damaged", cause, RESTORE) from error


def read_parquet(path: Path, columns: list[str] | None = None, footer: pq.FileMetaData | None = None) -> pa.Table:
    """A parquet file, whose `footer` may have been read before.

    Raises:
        DatasetError: the file is missing, truncated, damaged, or lacks a column.
    """
    with parquet_errors(path):
        file = pq.ParquetFile(path, metadata=footer, page_checksum_verification=True)
        table = file.read(columns=columns, use_threads=False)  # threads cost more than they bring on files this small
    if columns and (missing := set(columns) - set(table.column_names)):
        raise DatasetError.of("parquet-columns", f"{path} has no column {', '.join(sorted(missing))}", RESTORE)
    return table


@contextmanager
def parquet_errors(path: Path) -> Iterator[None]:
    """What pyarrow raises while it reads `path`, as a DatasetError that tells the kinds of damage apart."""
    try:
        yield
    except FileNotFoundError as error:
        raise DatasetError.of("parquet-missing", f"{path} is missing, but meta/ lists it", RESTORE) from error
    except (OSError, ValueError, pa.ArrowException) as error:  # ValueError: names that are not UTF-8
        code, what = _damage(path)
        raise DatasetError.of(code, f"{path} is not readable parquet: {what} ({error})", RESTORE) from error


def _damage(path: Path) -> tuple[str, str]:
    """Code and description, from the magic bytes that a parquet file begins and ends with."""
    magic = b"PAR1"
    try:
        with open(path, "rb") as file:
            first = file.read(4)
            file.seek(max(0, file.seek(0, os.SEEK_END) - 4))
            last = file.read(4)
    except OSError:
        return "parquet-damaged", "the file cannot be read"
    if not magic.startswith(first):
        return "not-parquet", "it does not begin like one"
    return ("parquet-damaged", "it is damaged") if last == magic else ("parquet-truncated", "it is truncated")
