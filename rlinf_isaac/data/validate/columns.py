"""Checks the parquet files of a dataset against ``meta/``: schemas, counts, and every value of the numeric columns.

Files are read one by one, but their values are checked in batches of `BATCH_ROWS` rows: numpy calls have a fixed cost,
which would otherwise be paid once for each of 2000 small files.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from rlinf_isaac.data.lerobot.files import RESTORE, open_parquet, parquet_errors
from rlinf_isaac.data.lerobot.folded_findings import FoldedFindings
from rlinf_isaac.data.lerobot.format import Feature
from rlinf_isaac.data.lerobot.meta import RecordedEpisode
from rlinf_isaac.data.validate.schema import SchemaChecks
from rlinf_isaac.data.validate.values import CheckedRows, ValueChecks
from rlinf_isaac.ground.errors import DatasetError

BATCH_ROWS = 200_000


@dataclass(frozen=True)
class DataFile:
    """A parquet file that holds the rows of its episodes.

    Attributes:
        name: relative to the dataset.
        footer: its metadata.
    """

    name: str
    footer: pq.FileMetaData


def check_columns(
    root: Path,
    episodes: Sequence[RecordedEpisode],
    features: Mapping[str, Feature],
    task_indices: Sequence[int] | None,
    fps: int | None,
    contiguous: bool,
    findings: FoldedFindings,
) -> list[DataFile]:
    """Check every data file.

    Args:
        root: the dataset's directory.
        episodes: the episodes that meta lists, in order and without duplicates.
        features: all features, including the auxiliary ones.
        task_indices: the indices of all tasks; None if they are not known.
        fps: frames per second; None if it is not known.
        contiguous: whether meta lists every episode, so that the running frame count is known.
        findings: problems are added to it.

    Returns:
        The files with the right number of rows, in the order of their episodes.
    """
    by_file: dict[str, list[RecordedEpisode]] = {}
    starts, total = {}, 0
    for episode in episodes:
        by_file.setdefault(episode.file, []).append(episode)
        starts[episode.index] = total
        total += episode.length
    values = ValueChecks(root, features, task_indices, fps, contiguous, findings)
    schemas = SchemaChecks(features)
    files, batch = [], CheckedRows()
    for name, inside in by_file.items():
        path = root / name
        try:
            with parquet_errors(path):
                parquet = open_parquet(path)
                readable = schemas.check(path, parquet.schema_arrow, findings)
                table = parquet.read(columns=readable, use_threads=False).select(readable)
                if readable and len(table) != parquet.metadata.num_rows:
                    raise pa.ArrowInvalid(f"{len(table)} of {parquet.metadata.num_rows} rows could be read")
        except DatasetError as error:
            findings.extend(error.problems)
            continue
        rows, expected = parquet.metadata.num_rows, sum(episode.length for episode in inside)
        if rows != expected:
            findings.add("frame-count", f"{path} holds {rows} frames, but meta/ says {expected}", RESTORE)
            if len(inside) > 1 or not rows:
                continue  # it is not known which of its rows belong to which episode
        else:
            files.append(DataFile(name, parquet.metadata))
        table = table.replace_schema_metadata(None)  # tables of a batch must have equal schemas
        if batch.tables and (batch.rows >= BATCH_ROWS or not table.schema.equals(batch.tables[0][1].schema)):
            values.check(batch)
            batch = CheckedRows()
        lengths = [rows] if len(inside) == 1 else [episode.length for episode in inside]
        batch.tables.append((name, table))
        batch.episodes += [
            (episode.index, n, starts[episode.index]) for episode, n in zip(inside, lengths, strict=True)
        ]
        batch.rows += len(table)
    if batch.rows:
        values.check(batch)
    values.report()
    return files
