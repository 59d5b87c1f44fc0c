"""Files read from beginning to end: are the bytes those that were saved, and which are they?

torch maps a file and compares none of its checksums. Here every record is compared with its CRC-32, in the same pass
in which the file is hashed. It reads and does not map: a failing disk is an error here, and the end of a process there.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from operator import attrgetter
from pathlib import Path
from threading import Event

from rlinf_isaac.checkpoint.convert.archive import Record
from rlinf_isaac.checkpoint.convert.read import Stored
from rlinf_isaac.checkpoint.convert.tensors import AnyDense, StoredTensor, ZeroTensor
from rlinf_isaac.errors import WeightsError
from rlinf_isaac.reading import open_regular

try:
    from isal.isal_zlib import crc32  # ten times as fast as zlib's
except ImportError:
    from zlib import crc32

PIECE = 1 << 20  # fits into a core's cache, so that hashing finds there what was read


def records_of(stored: Stored, tensors: Iterable[AnyDense | ZeroTensor]) -> list[Record]:
    """What is to be compared for these tensors: all that has a checksum; of a distributed checkpoint their own alone.

    There the optimiser lies beside the model, twice as large, and is not read.
    """
    if stored.weights.format != "dcp":
        return list(stored.records)
    names = {tensor.storage.name for tensor in tensors if isinstance(tensor, StoredTensor)}
    return [record for record in stored.records if record.name in names]


def check(
    records: Iterable[Record],
    hashed: Sequence[Path] = (),
    *,
    stop: Event | None = None,
) -> dict[Path, str]:
    """Compare records with their checksums, and hash files.

    Args:
        records: what has a checksum.
        hashed: files to hash.
        stop: when set, it returns as soon as it can.

    Returns:
        sha256 of each of `hashed`.

    Raises:
        WeightsError: ``damaged-torch-file``, a checksum is not that of the bytes, or a file ends before they do.
        OSError: a file cannot be read.
    """
    by_file: dict[Path, set[Record]] = {file: set() for file in hashed}
    for record in records:
        by_file.setdefault(record.file, set()).add(record)
    digests, buffer = {}, memoryview(bytearray(PIECE))
    for file, found in by_file.items():
        digest = hashlib.sha256() if file in hashed else None
        with open_regular(file) as stream:
            fd, at = stream.fileno(), 0
            for record in sorted(found, key=attrgetter("begin")):
                if digest is not None:
                    for piece in _pieces(fd, at, record.begin, buffer, stop):
                        digest.update(piece)
                checksum, done = 0, record.begin
                for piece in _pieces(fd, done, record.begin + record.size, buffer, stop):
                    checksum, done = crc32(piece, checksum), done + len(piece)
                    if digest is not None and record.begin >= at:
                        digest.update(piece)
                if stop is not None and stop.is_set():
                    return {}
                if checksum != record.crc32 or done != record.begin + record.size:
                    cause = f"{file}: the bytes of {record.name} are not those that were saved (CRC-32 differs)"
                    raise WeightsError.of("damaged-torch-file", cause, "copy it again from where it was made")
                at = max(at, done)
            if digest is not None:
                for piece in _pieces(fd, at, os.fstat(fd).st_size, buffer, stop):
                    digest.update(piece)
                digests[file] = digest.hexdigest()
    return digests


@contextmanager
def checking(records: Iterable[Record], hashed: Sequence[Path]) -> Iterator[Callable[[], dict[Path, str]]]:
    """`check` in a thread while the block does something else; yields a function that waits for its result.

    Where the block fails for what it read, the damage is what is raised.
    """
    stop = Event()
    with ThreadPoolExecutor(1, "check") as pool:
        future = pool.submit(check, records, hashed, stop=stop)
        try:
            yield future.result
        except WeightsError:
            future.result()
            raise
        finally:
            stop.set()


def _pieces(fd: int, begin: int, end: int, buffer: memoryview, stop: Event | None) -> Iterator[memoryview]:
    """What a file holds from `begin` to `end`, or to its own end. A piece is valid until the next one is asked for."""
    while begin < end and not (stop is not None and stop.is_set()):
        count = os.preadv(fd, [buffer[: min(PIECE, end - begin)]], begin)
        if not count:
            return
        yield buffer[:count]
        begin += count
