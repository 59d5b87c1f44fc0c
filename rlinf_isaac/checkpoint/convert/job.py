"""A conversion from beginning to end: it is checked, written atomically, read again and compared.

    job = prepare("full_weights.pt", "converted", Options(dtype="bf16"))
    run(job)

The output is a directory of its own, so that a loader that reads every ``*.safetensors`` in a directory never finds
shards of two checkpoints.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from rlinf_isaac.checkpoint.convert.check import check
from rlinf_isaac.checkpoint.convert.plan import Options, Plan, plan_conversion
from rlinf_isaac.checkpoint.convert.read import Stored, read_stored
from rlinf_isaac.checkpoint.convert.tensors import StoredTensor, shown
from rlinf_isaac.checkpoint.convert.write import write_files
from rlinf_isaac.checkpoint.find_weights import find_weights, name_within
from rlinf_isaac.ground.atomic import claimed, new_directory
from rlinf_isaac.ground.errors import ConversionFailed, InvalidJob, Problem, WeightsError
from rlinf_isaac.ground.events import Progress
from rlinf_isaac.ground.probe import check_free_space
from rlinf_isaac.ground.reading import read_json

RECORD_FILE = "conversion.json"
_MAX_RECORD_BYTES = 100_000_000
_FORMAT_VERSION = 1
_MARGIN = 1 << 20  # bytes for the index, the record and the file system


@dataclass(frozen=True)
class ConversionJob:
    """A conversion that can start, or that an earlier command has finished.

    Attributes:
        source: the path that the user named.
        stored: the tensors of the checkpoint at that path.
        options: changes to make beyond copying.
        plan: the files to write.
        output: directory to write.
        overwrite: replace a directory that an earlier conversion wrote.
        notes: notes for the user on choices between several candidates.
        stamps: sizes and times of the source's files before they were read.
        there: whether the output exists and may be the result of this very job; `finished` decides.
    """

    source: Path
    stored: Stored
    options: Options
    plan: Plan
    output: Path
    overwrite: bool
    notes: tuple[str, ...]
    stamps: tuple[tuple[int, int], ...]
    there: bool = False


def prepare(
    source: str | Path,
    output: str | Path,
    options: Options = Options(),  # noqa: B008  (frozen)
    *,
    overwrite: bool = False,
    record: str | None = None,
    resume: bool = False,
) -> ConversionJob:
    """Check everything that can be checked before anything is written. Only headers are read, in well under a second.

    Args:
        source: file or directory of a checkpoint: ``.pt``, ``.pth``, RLinf's ``global_step_N``, a directory of
            torch.distributed.checkpoint, safetensors.
        output: directory to write.
        options: changes to make beyond copying.
        overwrite: replace `output` if it is a directory that an earlier conversion wrote.
        record: name of the file by which such a directory is recognised; None means ``conversion.json``.
        resume: do not refuse such a directory; `finished` decides whether it is the result of this very job.

    Raises:
        InvalidJob: it has every problem that was found.
    """
    source, output = Path(source), Path(output)
    record = record or RECORD_FILE
    there = resume and not overwrite and (output / record).is_file()
    problems = check_output(output, overwrite or there, record)
    try:
        weights, notes = find_weights(source)
        stamps = _stamps(weights.files)
        stored = read_stored(weights)
        plan = plan_conversion(stored.tensors, options, recorded_ties=stored.ties, others=stored.others)
    except InvalidJob as error:
        raise InvalidJob([*problems, *error.problems]) from error
    if not there:
        said = {problem.code for problem in problems}
        problems += [each for each in _check_space(output.absolute().parent, plan) if each.code not in said]
    if output.absolute() in (source.absolute(), *(file.absolute().parent for file in weights.files)) and overwrite:
        cause = f"{output} is the directory of the input"
        problems.append(Problem("output-is-input", cause, "choose another --output"))
    if problems:
        raise InvalidJob(problems)
    return ConversionJob(source, stored, options, plan, output, overwrite, notes, stamps, there)


def check_output(output: Path, overwrite: bool, record: str = RECORD_FILE) -> list[Problem]:
    """Why the output cannot be written, because of the file or directory that is at its place."""
    if output.is_symlink():
        cause = f"{output} is a symbolic link to {os.readlink(output)}"
        return [Problem("output-symlink", cause, "remove the link, or name the directory itself")]
    if not output.exists():
        parent = next(folder for folder in output.absolute().parents if os.path.lexists(folder))
        if not parent.is_dir() or not os.access(parent, os.W_OK | os.X_OK):
            cause = f"{output.name} cannot be made in {parent}: it is no directory, or it is not writable"
            return [Problem("output-place", cause, "choose another --output")]
        return []
    if not output.is_dir():
        return [Problem("output-is-a-file", f"{output} is not a directory", "choose another --output or remove it")]
    if not overwrite:
        return [output_exists(output)]
    if any(output.iterdir()) and not (output / record).is_file():
        cause = f"{output} was not written by a conversion (it has no {record})"
        return [Problem("output-not-ours", cause, "choose another --output or remove it")]
    return []


def output_exists(output: Path) -> Problem:
    """The problem that the output exists and is not the result of this very job."""
    return Problem("output-exists", f"{output} exists already", "pass --force, or choose another --output")


def expansion(plan: Plan) -> Problem | None:
    """A warning if expanded tensors make the output much larger: torch stores their repeated elements only once."""
    expanded = plan.expanded
    if not expanded:
        return None
    largest = max(expanded, key=lambda output: output.nbytes)
    storages = {output.source.storage for output in expanded if isinstance(output.source, StoredTensor)}
    stored = sum(storage.size for storage in storages)
    written = sum(output.nbytes for output in expanded) / 1e9
    count = "one tensor repeats its" if len(expanded) == 1 else f"{len(expanded)} tensors repeat their"
    cause = (
        f"{stored} stored bytes become {written:.3g} GB: {count} elements (tensor.expand),"
        f" the largest is {shown(largest.stored)} {list(largest.source.shape)}"
    )
    return Problem("expanded-tensors", cause, "leave them out with --exclude if they are not wanted", level="warning")


def _check_space(directory: Path, plan: Plan) -> list[Problem]:
    problems = check_free_space(directory, plan.nbytes + _MARGIN)
    why = expansion(plan)
    return [replace(each, cause=f"{each.cause}; {why.cause}") if why else each for each in problems]


def run(
    job: ConversionJob,
    *,
    verify: bool = True,
    hash_source: bool = True,
    hash_output: bool = True,
    progress: Callable[[Progress], None] = lambda progress: None,
) -> dict[str, Any]:
    """Convert. The output appears only when it is complete, even if the process is killed.

    Args:
        job: a job of `prepare`.
        verify: read the written files again with safetensors and the source with torch, and compare them.
        hash_source: put the sha256 of the source's files into the record.
        hash_output: put the sha256 of the written files into the record.
        progress: receives the number of bytes done.

    Returns:
        The content of ``conversion.json``.

    Raises:
        WeightsError: the source is damaged, or was changed meanwhile. Nothing is left behind.
        InvalidJob: another process is making the same output, or has just made it.
        ConversionFailed: the disk is full, or the written files differ from the source. Nothing is left behind.
    """
    files = job.stored.weights.files
    used = [tensor.source for tensor in job.plan.tensors]
    size = job.stored.weights.size if hash_source else sum(record.size for record in job.stored.records)
    checked = Counter("check", size, progress)
    done = Counter("convert", job.plan.nbytes, progress)
    try:
        with claimed(job.output), new_directory(job.output, replace=job.overwrite) as directory:
            hashed = check(job.stored, used, hashed=files if hash_source else (), advance=checked.advance)
            checked.finish()
            digests = write_files(
                job.plan.files, directory, job.stored, checks=False, hashes=hash_output, advance=done.advance
            )
            done.finish()
            if verify:
                from rlinf_isaac.checkpoint.convert.verify import compare

                compared = Counter("verify", job.plan.total_size, progress)
                compare(job.stored, job.plan, directory, compared.advance)
                compared.finish()
            of_source = {str(file): digest for file, digest in hashed.items()}
            record = record_of(job, digests, of_source, verified=verify)
            if _stamps(files) != job.stamps:
                cause = f"{job.source} was changed while it was converted"
                raise WeightsError.of("source-changed", cause, "wait until it is complete, and convert it again")
            (directory / RECORD_FILE).write_text(json.dumps(record, indent=2) + "\n")
    except FileExistsError as error:
        cause = f"{job.output} was made by another process meanwhile"
        raise InvalidJob.of("output-exists", cause, "look at what it holds; or choose another --output") from error
    except OSError as error:
        cause = f"{error.filename or job.output}: {error.strerror or error}"
        raise ConversionFailed(f"{cause}; nothing was left in {job.output}") from error
    return record


def read_record(output: str | Path) -> dict[str, Any]:
    """The content of a conversion's ``conversion.json``.

    Raises:
        WeightsError: the file does not exist or cannot be read.
    """
    path = Path(output) / RECORD_FILE
    try:
        record = read_json(path, _MAX_RECORD_BYTES)
        if record["format"] != "rlinf-isaac-conversion":
            raise ValueError("it has another format")
        return record
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        cause = f"{path} is not the record of a conversion: {error}"
        raise WeightsError.of("conversion-record", cause, "convert the checkpoint again") from error


def record_of(
    job: ConversionJob, digests: Mapping[str, str | None], source_digests: Mapping[str, str], *, verified: bool
) -> dict[str, Any]:
    """The content of ``conversion.json``. It has neither times nor absolute paths: equal jobs give equal records.

    Args:
        digests: name of each written file -> its sha256.
        source_digests: path of each file of the source that was hashed -> its sha256.
        verified: whether the result was compared with the source.
    """
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
        "output": dict(digests),
        "plan": job.plan.summary(),
        "verified": verified,
    }
    return json.loads(json.dumps(record))  # the record as it will be read again, with lists instead of tuples


def _stamps(files: Sequence[Path]) -> tuple[tuple[int, int], ...]:
    """Size and modification time of each file, which change when somebody writes to it."""
    return tuple((status.st_size, status.st_mtime_ns) for status in map(os.stat, files))


class Counter:
    """Counts bytes, and reports them once per 16 MiB."""

    def __init__(self, label: str, total: int, tell: Callable[[Progress], None]) -> None:
        self._label, self._total, self._tell = label, total, tell
        self._done = self._told = 0

    def advance(self, count: int) -> None:
        """Add `count` bytes."""
        self._done = min(self._done + count, self._total)
        if self._done - self._told >= 1 << 24:
            self._told = self._done
            self._tell(Progress(self._label, self._done, self._total, unit="B"))

    def finish(self) -> None:
        """Report that everything is done."""
        self._tell(Progress(self._label, self._total, self._total, unit="B"))
