"""Tells whether an output is the complete result of a job, so that the command need not be run again after a kill.

The existence of files proves nothing: the record must equal the one that the job would write, and every file must have
the hash that the record names. For this the source is read and hashed again as it would be written.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from rlinf_isaac.checkpoint.convert.job import RECORD_FILE, ConversionJob, Counter, read_record, record_of
from rlinf_isaac.checkpoint.convert.write import planned_digests
from rlinf_isaac.checkpoint.verify import list_files
from rlinf_isaac.ground.digest import file_digest
from rlinf_isaac.ground.errors import ConversionFailed, WeightsError
from rlinf_isaac.ground.events import Progress


def may_be_finished(job: ConversionJob) -> bool:
    """Whether the output's record has the same source, options and plan. Reads only the record, and hashes nothing."""
    record = _read(job.output)
    expected = record_of(job, {}, {}, verified=False)
    return record is not None and all(
        _without_digests(record.get(key)) == _without_digests(expected[key]) for key in ("source", "options", "plan")
    )


def find_finished(
    job: ConversionJob,
    *,
    verify: bool = True,
    hash_source: bool = True,
    progress: Callable[[Progress], None] = lambda progress: None,
) -> dict[str, Any] | None:
    """The record of the output if `run` with the same arguments wrote it and it is complete, else None.

    The source and the output are read once, and the source once more with `hash_source`.

    Raises:
        WeightsError: the source is damaged, or changed meanwhile.
        ConversionFailed: a file cannot be read.
    """
    record = _read(job.output)
    if record is None or not may_be_finished(job):
        return None
    try:
        digests = _planned(job, progress)
        sources = {str(file): file_digest(file) for file in job.stored.weights.files} if hash_source else {}
        if record != record_of(job, digests, sources, verified=verify or record["verified"]):
            return None
        if list_files(job.output) != {RECORD_FILE, *digests}:
            return None
        return record if all(file_digest(job.output / name) == digests[name] for name in digests) else None
    except OSError as error:
        raise ConversionFailed(f"{error.filename or job.output}: {error.strerror or error}") from error


def _planned(job: ConversionJob, progress: Callable[[Progress], None]) -> dict[str, str | None]:
    done = Counter("compare", job.plan.total_size, progress)
    digests = planned_digests(job.plan.files, job.stored, advance=done.advance)
    done.finish()
    return {**digests}


def _read(output: Path) -> dict[str, Any] | None:
    try:
        record = read_record(output)
    except WeightsError:
        return None
    return record if isinstance(record, dict) and isinstance(record.get("verified"), bool) else None


def _without_digests(value: Any) -> Any:
    """A part of a record without its sha256 digests, which are known only after the files were read."""
    if not isinstance(value, dict):
        return value
    return {key: _without_digests(each) for key, each in value.items() if key != "sha256"}
