"""A conversion from beginning to end: check everything, write atomically, read again.

    job = prepare("full_weights.pt", "converted", Options(dtype="bf16"))
    run(job)

The output is a directory, so that no loader which reads every ``*.safetensors`` finds shards of two checkpoints in it.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rlinf_isaac.atomic import new_directory
from rlinf_isaac.checkpoint.convert.plan import Options, Plan, plan_conversion
from rlinf_isaac.checkpoint.convert.read import Stored, read_stored
from rlinf_isaac.checkpoint.convert.write import hashing, write_files
from rlinf_isaac.checkpoint.sources import find_weights, name_within
from rlinf_isaac.errors import ConversionFailed, InvalidJob, Problem, WeightsError
from rlinf_isaac.events import Progress
from rlinf_isaac.probe import check_free_space

RECORD_FILE = "conversion.json"
_FORMAT_VERSION = 1
_MARGIN = 1 << 20  # bytes for the index, the record and the file system's own


@dataclass(frozen=True)
class ConversionJob:
    """A conversion that can start.

    Attributes:
        source: what the person named.
        stored: what is there.
        options: what to do with it.
        plan: what will be written.
        output: directory to write.
        overwrite: replace a directory that an earlier conversion wrote.
        notes: what was decided between candidates, for people.
        stamps: sizes and times of the source's files, from before they were read.
    """

    source: Path
    stored: Stored
    options: Options
    plan: Plan
    output: Path
    overwrite: bool
    notes: tuple[str, ...]
    stamps: tuple[tuple[int, int], ...]


def prepare(
    source: str | Path,
    output: str | Path,
    options: Options = Options(),  # noqa: B008  (frozen)
    *,
    overwrite: bool = False,
    record: str | None = None,
) -> ConversionJob:
    """Check all that can be checked before a byte is written. Reads only headers: well under a second.

    Args:
        source: file or directory of a checkpoint: ``.pt``, ``.pth``, RLinf's ``global_step_N``, a directory of
            torch.distributed.checkpoint, safetensors.
        output: directory to write.
        options: what to do beyond copying.
        overwrite: replace `output` if it is a directory that an earlier conversion wrote.
        record: file by which such a directory is known; ``conversion.json`` when None.

    Raises:
        InvalidJob: with every problem found.
    """
    source, output = Path(source), Path(output)
    problems = check_output(output, overwrite, record or RECORD_FILE)
    try:
        weights, notes = find_weights(source)
        stamps = _stamps(weights.files)
        stored = read_stored(weights)
        plan = plan_conversion(stored.tensors, options, recorded_ties=stored.ties, others=stored.others)
    except InvalidJob as error:
        raise InvalidJob([*problems, *error.problems]) from error
    problems += check_free_space(output.absolute().parent, plan.nbytes + _MARGIN)
    if output.absolute() in (source.absolute(), *(file.absolute().parent for file in weights.files)) and overwrite:
        cause = f"{output} is where the input lies"
        problems.append(Problem("output-is-input", cause, "choose another --output"))
    if problems:
        raise InvalidJob(problems)
    return ConversionJob(source, stored, options, plan, output, overwrite, notes, stamps)


def check_output(output: Path, overwrite: bool, record: str = RECORD_FILE) -> list[Problem]:
    """What lies in the output's place and must not be replaced (so)."""
    if output.is_symlink():
        cause = f"{output} is a symbolic link to {os.readlink(output)}"
        return [Problem("output-symlink", cause, "remove the link, or name the directory itself")]
    if not output.exists():
        parent = next(folder for folder in output.absolute().parents if os.path.lexists(folder))
        if not parent.is_dir() or not os.access(parent, os.W_OK | os.X_OK):
            cause = f"{parent} is no directory in which {output.name} can be made"
            return [Problem("output-place", cause, "choose another --output")]
        return []
    if not output.is_dir():
        return [Problem("output-is-a-file", f"{output} is not a directory", "choose another --output or remove it")]
    if not overwrite:
        return [Problem("output-exists", f"{output} exists already", "pass --force, or choose another --output")]
    if any(output.iterdir()) and not (output / record).is_file():
        cause = f"{output} was not written by a conversion (it has no {record})"
        return [Problem("output-not-ours", cause, "choose another --output or remove it")]
    return []


def run(
    job: ConversionJob,
    *,
    verify: bool = True,
    hash_source: bool = True,
    hash_output: bool = True,
    progress: Callable[[Progress], None] = lambda progress: None,
) -> dict[str, Any]:
    """Convert: after kill -9 there is a whole output, or none.

    Args:
        job: from `prepare`.
        verify: read the written files again with safetensors, the source with torch, and compare them.
        hash_source: put the sha256 of the source's files into the record.
        hash_output: put the sha256 of the written files into the record.
        progress: gets the bytes done.

    Returns:
        The content of ``conversion.json``.

    Raises:
        WeightsError: the source is damaged, or changed meanwhile. Nothing is left behind.
        ConversionFailed: the disk is full, or what was written is not what should have been. Nothing is left behind.
    """
    files = job.stored.weights.files
    done = _Counter("convert", job.plan.nbytes + _only_checked(job), progress)
    try:
        with (
            new_directory(job.output, replace=job.overwrite) as directory,
            hashing(files if hash_source else ()) as source_digests,
        ):
            digests = write_files(
                job.plan.files, directory, checked=job.stored.storages, hashes=hash_output, advance=done.advance
            )
            done.finish()
            if verify:
                from rlinf_isaac.checkpoint.convert.verify import compare

                compared = _Counter("verify", job.plan.total_size, progress)
                compare(job.stored.weights, job.plan, directory, compared.advance)
                compared.finish()
            record = _record(job, digests, {str(file): digest for file, digest in source_digests().items()}, verify)
            if _stamps(files) != job.stamps:
                cause = f"{job.source} was changed while it was converted"
                raise WeightsError.of("source-changed", cause, "wait until it is complete, and convert it again")
            (directory / RECORD_FILE).write_text(json.dumps(record, indent=2) + "\n")
    except OSError as error:
        cause = f"{error.filename or job.output}: {error.strerror or error}"
        raise ConversionFailed(f"{cause}; nothing was left in {job.output}") from error
    return record


def read_record(output: str | Path) -> dict[str, Any]:
    """The content of a conversion's ``conversion.json``.

    Raises:
        WeightsError: there is none, or it is not readable.
    """
    path = Path(output) / RECORD_FILE
    try:
        record = json.loads(path.read_bytes())
        if record["format"] != "rlinf-isaac-conversion":
            raise ValueError("it is of another format")
        return record
    except (OSError, ValueError, KeyError, TypeError) as error:
        cause = f"{path} is not the record of a conversion: {error}"
        raise WeightsError.of("conversion-record", cause, "convert the checkpoint again") from error


def _record(
    job: ConversionJob, digests: dict[str, str | None], source_digests: dict[str, str], verified: bool
) -> dict[str, Any]:
    """Neither times nor places: equal inputs and options give an equal record."""
    root = job.source if job.source.is_dir() else job.source.parent
    files = job.stored.weights.files
    record = {
        "format": "rlinf-isaac-conversion",
        "format_version": _FORMAT_VERSION,
        "source": {
            "format": job.stored.weights.format,
            "files": {
                name_within(root.absolute(), file): {
                    "sha256": source_digests.get(str(file)),
                    "bytes": file.stat().st_size,
                }
                for file in files
            },
        },
        "options": asdict(job.options),
        "output": digests,
        "plan": job.plan.summary(),
        "verified": verified,
    }
    return json.loads(json.dumps(record))  # as it will be read again: lists, not tuples


def _stamps(files: Sequence[Path]) -> tuple[tuple[int, int], ...]:
    """Size and time of change of each file: what tells that somebody writes to it."""
    return tuple((status.st_size, status.st_mtime_ns) for status in map(os.stat, files))


def _only_checked(job: ConversionJob) -> int:
    """Bytes that are read for their checksum alone (about: what tensors use in part may be read twice)."""
    used = {tensor.source.storage for tensor in job.plan.tensors if hasattr(tensor.source, "storage")}
    return sum(storage.size for storage in job.stored.storages if storage not in used)


class _Counter:
    """Bytes done so far, told once per 16 MiB."""

    def __init__(self, label: str, total: int, tell: Callable[[Progress], None]) -> None:
        self._label, self._total, self._tell = label, total, tell
        self._done = self._told = 0

    def advance(self, count: int) -> None:
        self._done = min(self._done + count, self._total)
        if self._done - self._told >= 1 << 24:
            self._told = self._done
            self._tell(Progress(self._label, self._done, self._total, unit="B"))

    def finish(self) -> None:
        self._tell(Progress(self._label, self._total, self._total, unit="B"))
