"""A conversion from beginning to end: check everything, write atomically, read again.

    job = prepare("full_weights.pt", "converted", Options(dtype="bf16"))
    run(job)

The output is a directory, so that no loader which reads every ``*.safetensors`` finds shards of two checkpoints in it.
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
_MARGIN = 1 << 20  # bytes for the index, the record and the file system's own


@dataclass(frozen=True)
class ConversionJob:
    """A conversion that can start, or that an earlier command has finished.

    Attributes:
        source: what the person named.
        stored: what is there.
        options: what to do with it.
        plan: what will be written.
        output: directory to write.
        overwrite: replace a directory that an earlier conversion wrote.
        notes: what was decided between candidates, for people.
        stamps: sizes and times of the source's files, from before they were read.
        there: the output exists and may be this conversion's own; `finished` tells.
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
    """Check all that can be checked before a byte is written. Reads only headers: well under a second.

    Args:
        source: file or directory of a checkpoint: ``.pt``, ``.pth``, RLinf's ``global_step_N``, a directory of
            torch.distributed.checkpoint, safetensors.
        output: directory to write.
        options: what to do beyond copying.
        overwrite: replace `output` if it is a directory that an earlier conversion wrote.
        record: file by which such a directory is known; ``conversion.json`` when None.
        resume: do not refuse such a directory; `finished` tells whether it is this conversion's own.

    Raises:
        InvalidJob: with every problem found.
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
        cause = f"{output} is where the input lies"
        problems.append(Problem("output-is-input", cause, "choose another --output"))
    if problems:
        raise InvalidJob(problems)
    return ConversionJob(source, stored, options, plan, output, overwrite, notes, stamps, there)


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
        return [output_exists(output)]
    if any(output.iterdir()) and not (output / record).is_file():
        cause = f"{output} was not written by a conversion (it has no {record})"
        return [Problem("output-not-ours", cause, "choose another --output or remove it")]
    return []


def output_exists(output: Path) -> Problem:
    """The refusal of an output that something else than this very conversion made."""
    return Problem("output-exists", f"{output} exists already", "pass --force, or choose another --output")


def expansion(plan: Plan) -> Problem | None:
    """A warning where stored bytes become many more: torch stores one element of an expanded tensor for all of it."""
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
    return Problem("expanded-tensors", cause, "leave them out with --exclude if they are not meant", level="warning")


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
        InvalidJob: another process makes the same output, or has just made it.
        ConversionFailed: the disk is full, or what was written is not what should have been. Nothing is left behind.
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
        WeightsError: there is none, or it is not readable.
    """
    path = Path(output) / RECORD_FILE
    try:
        record = read_json(path, _MAX_RECORD_BYTES)
        if record["format"] != "rlinf-isaac-conversion":
            raise ValueError("it is of another format")
        return record
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        cause = f"{path} is not the record of a conversion: {error}"
        raise WeightsError.of("conversion-record", cause, "convert the checkpoint again") from error


def record_of(
    job: ConversionJob, digests: Mapping[str, str | None], source_digests: Mapping[str, str], *, verified: bool
) -> dict[str, Any]:
    """The content of ``conversion.json``. Neither times nor places: equal inputs and options give an equal record.

    Args:
        digests: sha256 of the written files, by name.
        source_digests: sha256 of the source's files, by path; of those that were hashed.
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
    return json.loads(json.dumps(record))  # as it will be read again: lists, not tuples


def _stamps(files: Sequence[Path]) -> tuple[tuple[int, int], ...]:
    """Size and time of change of each file: what tells that somebody writes to it."""
    return tuple((status.st_size, status.st_mtime_ns) for status in map(os.stat, files))


class Counter:
    """Bytes done so far, told once per 16 MiB."""

    def __init__(self, label: str, total: int, tell: Callable[[Progress], None]) -> None:
        self._label, self._total, self._tell = label, total, tell
        self._done = self._told = 0

    def advance(self, count: int) -> None:
        """Count bytes."""
        self._done = min(self._done + count, self._total)
        if self._done - self._told >= 1 << 24:
            self._told = self._done
            self._tell(Progress(self._label, self._done, self._total, unit="B"))

    def finish(self) -> None:
        """Tell that all is done."""
        self._tell(Progress(self._label, self._total, self._total, unit="B"))
