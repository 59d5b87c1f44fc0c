"""Compares the records of a file with their checksums, and hashes the file in the same pass.

torch maps a file and compares none of its checksums. This module compares every record with its CRC-32 before anything
is written. It reads the file instead of mapping it, so that a failing disk raises an OSError.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Collection, Iterable, Iterator
from operator import attrgetter
from pathlib import Path

from rlinf_isaac.checkpoint.convert.archive import Record
from rlinf_isaac.checkpoint.convert.read import Stored
from rlinf_isaac.checkpoint.convert.tensors import AnyDense, StoredTensor, ZeroTensor
from rlinf_isaac.ground.errors import WeightsError
from rlinf_isaac.ground.reading import open_regular

try:
    from isal.isal_zlib import crc32  # ten times as fast as zlib's
except ImportError:
    from zlib import crc32

_PIECE = 1 << 20  # fits into a core's cache, so that the hash is computed from the cache


def check(
    stored: Stored,
    tensors: Iterable[AnyDense | ZeroTensor],
    *,
    hashed: Collection[Path] = (),
    advance: Callable[[int], None] = lambda count: None,
) -> dict[Path, str]:
    """Compare records with their checksums: all records, but in a distributed checkpoint only those that are used.

    Args:
        stored: the checkpoint.
        tensors: the tensors that are used. A distributed checkpoint also holds the optimiser, which is twice as large
            and is not read.
        hashed: files to hash.
        advance: called with the number of bytes of each piece that was compared.

    Returns:
        sha256 of each file in `hashed`.

    Raises:
        WeightsError: ``damaged-torch-file``, a checksum differs from that of the bytes, or a file is too short.
        OSError: a file cannot be read.
    """
    used = {tensor.storage.name for tensor in tensors if isinstance(tensor, StoredTensor)}
    by_file: dict[Path, set[Record]] = {file: set() for file in hashed}
    for record in stored.records:
        if stored.weights.format != "dcp" or record.name in used:
            by_file.setdefault(record.file, set()).add(record)
    digests, buffer = {}, memoryview(bytearray(_PIECE))
    for file, records in by_file.items():
        digest = hashlib.sha256() if file in hashed else None
        with open_regular(file) as stream:
            at, size = 0, os.fstat(stream.fileno()).st_size
            ends = Record("the rest", file, size, 0, 0)
            for record in (*sorted(records, key=attrgetter("begin")), ends):
                if digest is not None:
                    for piece in _pieces(stream.fileno(), at, record.begin, buffer):
                        digest.update(piece)
                checksum, done = 0, record.begin
                for piece in _pieces(stream.fileno(), done, done + record.size, buffer):
                    checksum, done = crc32(piece, checksum), done + len(piece)
                    advance(len(piece))
                    # Bytes that two tensors share are hashed only once.
                    if digest is not None and record.begin >= at:
                        digest.update(piece)
                if (checksum, done) != (record.crc32, record.begin + record.size):
                    cause = f"{file}: the bytes of {record.name} are not those that were saved (CRC-32 differs)"
                    raise WeightsError.of("damaged-torch-file", cause, "copy it again from where it was made")
                at = max(at, done)
        if digest is not None:
            digests[file] = digest.hexdigest()
    return digests


def _pieces(fd: int, begin: int, end: int, buffer: memoryview) -> Iterator[memoryview]:
    """Yield the bytes of a file from `begin` to `end`, or to its own end. Each piece is valid until the next one."""
    while begin < end and (count := os.preadv(fd, [buffer[: min(_PIECE, end - begin)]], begin)):
        yield buffer[:count]
        begin += count
