"""Reads JSON and parquet files of a dataset. Errors name the file and distinguish kinds of damage."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from rlinf_isaac.ground import reading
from rlinf_isaac.ground.errors import DatasetError

RESTORE = "restore the dataset from where it was copied or recorded"
MAX_JSON_BYTES = 4_000_000
"""Largest JSON file that is read; ``meta/info.json`` is far smaller."""
MOST_ROWS_PER_BYTE = 8
"""Most rows per byte of a parquet file. Every frame has its own index, time and state, which need more than 1/8 byte
even when they are compressed."""
MOST_TIMES = 1000
"""Largest ratio of the unpacked data of a parquet file to the size of the file. Up to `_FEW_BYTES` of unpacked data are
always accepted."""
_FEW_BYTES = 64_000_000
MAX_LINES_BYTES = 64_000_000
"""Largest list of episodes or tasks that is read."""


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object from a file. Raises DatasetError naming the file."""
    try:
        value = reading.read_json(path, MAX_JSON_BYTES)
    except FileNotFoundError as error:
        raise DatasetError.of("meta-missing", f"{path} is missing", RESTORE) from error
    except (OSError, ValueError) as error:
        raise DatasetError.of("meta-damaged", f"{path} is not readable JSON ({_reason(error)})", RESTORE) from error
    if not isinstance(value, dict):
        cause = f"{path} holds a JSON {type(value).__name__}, not an object"
        raise DatasetError.of("meta-damaged", cause, RESTORE)
    return value


def read_json_lines(path: Path) -> Iterator[Any]:
    """The values of a JSON lines file. Raises DatasetError naming the file and line."""
    lines, number = reading.read_lines(path, MAX_LINES_BYTES), 0
    while True:
        number += 1
        try:
            line = next(lines, None)
        except FileNotFoundError as error:
            raise DatasetError.of("meta-missing", f"{path} is missing", RESTORE) from error
        except (OSError, ValueError) as error:
            raise DatasetError.of("meta-damaged", f"{path} is unreadable ({_reason(error)})", RESTORE) from error
        if line is None:
            return
        if not line.strip():
            continue
        try:
            value = reading.parse_json(line)
        except ValueError as error:
            cause = f"{path}, line {number}: not JSON ({error})"
            raise DatasetError.of("meta-damaged", cause, RESTORE) from error
        yield value


def read_parquet(path: Path, columns: list[str] | None = None, footer: pq.FileMetaData | None = None) -> pa.Table:
    """A parquet file, whose `footer` may have been read before.

    Raises:
        DatasetError: the file is missing, truncated, damaged, or lacks a column.
    """
    with parquet_errors(path):
        file = open_parquet(path, footer)
        table = file.read(columns=columns, use_threads=False)  # files are so small that threads would cost time
    if columns and (missing := set(columns) - set(table.column_names)):
        raise DatasetError.of("parquet-columns", f"{path} has no column {', '.join(sorted(missing))}", RESTORE)
    return table


def open_parquet(path: Path, footer: pq.FileMetaData | None = None) -> pq.ParquetFile:
    """A parquet file whose footer has plausible sizes. Must be called within `parquet_errors`.

    Raises:
        OSError: the file is missing, or is not a regular file.
        DatasetError: the footer claims more rows or bytes than a file of this size can hold.
    """
    size = reading.check_regular(path).st_size
    file = pq.ParquetFile(path, metadata=footer, page_checksum_verification=True)
    metadata = file.metadata
    unpacked = sum(metadata.row_group(number).total_byte_size for number in range(metadata.num_row_groups))
    if metadata.num_rows > MOST_ROWS_PER_BYTE * size or unpacked > max(MOST_TIMES * size, _FEW_BYTES):
        cause = f"{path} has {size} bytes, and claims {metadata.num_rows} rows of {unpacked} bytes"
        raise DatasetError.of("parquet-expands", cause, RESTORE)
    return file


def read_texts(path: Path) -> dict[str, list[Any]]:
    """The columns of a small parquet file that holds texts.

    Raises:
        DatasetError: as `read_parquet`; or its texts together are longer than `MAX_LINES_BYTES`. The size of the file
            does not limit them, because a text that is stored once can be the value of every row.
    """
    with parquet_errors(path):
        texts = [field.name for field in open_parquet(path).schema_arrow if _is_text(field.type)]
        table = pq.ParquetFile(path, read_dictionary=texts).read(use_threads=False)
        length = sum(_length(chunk) for column in table.columns for chunk in column.chunks)
    if length > MAX_LINES_BYTES:
        cause = f"{path} holds texts of {length} bytes, more than any dataset"
        raise DatasetError.of("parquet-expands", cause, RESTORE)
    return table.to_pydict()


def _is_text(type_: pa.DataType) -> bool:
    return pa.types.is_string(type_) or pa.types.is_large_string(type_)


def _length(chunk: pa.Array) -> int:
    """Bytes of all texts in a chunk of a column; repeated texts of a dictionary count every time."""
    if not pa.types.is_dictionary(chunk.type) or not _is_text(chunk.type.value_type):
        return chunk.nbytes
    return pc.sum(pc.take(pc.binary_length(chunk.dictionary), chunk.indices)).as_py() or 0


@contextmanager
def parquet_errors(path: Path) -> Iterator[None]:
    """Turns exceptions of pyarrow while it reads `path` into a DatasetError with the kind of damage."""
    try:
        yield
    except FileNotFoundError as error:
        raise DatasetError.of("parquet-missing", f"{path} is missing, but meta/ lists it", RESTORE) from error
    except (OSError, ValueError, pa.ArrowException) as error:  # ValueError: names that are not UTF-8
        code, what = _damage(path)
        raise DatasetError.of(code, f"{path} is not readable parquet: {what} ({error})", RESTORE) from error


def _reason(error: OSError | ValueError) -> str:
    return str(error.strerror or error) if isinstance(error, OSError) else str(error)


def _damage(path: Path) -> tuple[str, str]:
    """Code and description of the damage, from the magic bytes at the beginning and end of a parquet file."""
    magic = b"PAR1"
    try:
        with reading.open_regular(path) as file:
            first = file.read(4)
            file.seek(max(0, file.seek(0, os.SEEK_END) - 4))
            last = file.read(4)
    except OSError:
        return "parquet-damaged", "the file cannot be read"
    if not magic.startswith(first):
        return "not-parquet", "it does not begin like one"
    return ("parquet-damaged", "it is damaged") if last == magic else ("parquet-truncated", "it is truncated")
