"""The zip archives that ``torch.save`` writes, read so strictly that a flipped bit is noticed wherever it falls.

torch stores every record uncompressed, one after the other, each aligned to 64 bytes by an extra field of ``Z``; then
the directory. Nothing else is accepted: every byte of the file is the data of a record (which has a CRC-32), or is
stated twice, or has one possible value. `zipfile` would read more archives and notice less, and torch itself does not
compare the checksums. https://pkware.cachefly.net/webdocs/casestudies/APPNOTE.TXT
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from rlinf_isaac.ground.reading import open_regular

_LOCAL = struct.Struct("<4s5H3L2H")
_CENTRAL = struct.Struct("<4s6H3L5H2L")
_END = struct.Struct("<4s4H2LH")
_LOCATOR = struct.Struct("<4sLQL")
_END64 = struct.Struct("<4sQ2H2L4Q")
_DESCRIPTORS = (struct.Struct("<4s3L"), struct.Struct("<4sL2Q"))
_MAX32, _MAX16 = 0xFFFFFFFF, 0xFFFF
_DESCRIPTOR_FLAG, _UTF8_FLAG = 1 << 3, 1 << 11
_ZIP64, _PADDING = 0x0001, 0x4246  # extra fields: large sizes; "FB", torch's padding
_MAX_RECORDS = 1_000_000
_MAX_DIRECTORY_BYTES = 256_000_000
# "Version made by" and "needed" of the 64-bit end record: of miniz, which torch uses, and of Python's zipfile.
_END64_VERSIONS = {(0x031E, 0x2D), (45, 45), (0x032D, 45)}


class ForeignArchive(ValueError):
    """A zip archive that ``torch.save`` did not write: compressed, encrypted, with other names."""


class Record(NamedTuple):
    """One file of an archive: `size` bytes of data at `begin` in the archive's file, with checksum `crc32`."""

    name: str
    begin: int
    size: int
    crc32: int


class _Entry(NamedTuple):
    """What the directory says of a record. `fields`: version needed, flags, method, time and date."""

    raw_name: bytes
    header: int
    size: int
    crc32: int
    fields: tuple[int, ...]


def is_archive(path: Path, begin: int = 0) -> bool:
    """Whether a zip archive begins at byte `begin` of a file."""
    with open_regular(path) as file:
        if begin > os.fstat(file.fileno()).st_size:
            raise ValueError("the file ends before what should be in it begins")
        return os.pread(file.fileno(), 4, begin) in (b"PK\3\4", b"PK\5\6")


def read_records(path: Path, begin: int = 0, length: int | None = None) -> dict[str, Record]:
    """The records of an archive, by their names below its only top-level directory: ``data.pkl``, ``data/0``.

    Args:
        path: the file.
        begin: where the archive begins in it.
        length: its bytes; up to the end of the file when None.

    Raises:
        ForeignArchive: an archive that ``torch.save`` did not write.
        ValueError: a damaged one; the message says where.
        OSError: the file cannot be read.
    """
    with open_regular(path) as file:
        fd = file.fileno()
        size = os.fstat(fd).st_size
        end = size if length is None else begin + length
        if not 0 <= begin <= end <= size:
            raise ValueError("the file ends before the archive in it does")
        try:
            return _read(fd, begin, end)
        except struct.error as error:
            raise ValueError("it was cut off, or its directory is damaged") from error


def _read(fd: int, begin: int, end: int) -> dict[str, Record]:
    directory, count, directory_end = _find_directory(fd, begin, end)
    if count > _MAX_RECORDS:
        raise ForeignArchive(f"it has {count} records")
    if directory_end - directory > _MAX_DIRECTORY_BYTES:
        raise ValueError("its directory is larger than that of any checkpoint")
    data = os.pread(fd, directory_end - directory, directory)
    records: dict[str, Record] = {}
    root = None
    at = begin
    for entry in sorted(_read_directory(data, count), key=lambda entry: entry.header):
        if begin + entry.header != at:
            raise ValueError(f"its records overlap or leave a gap at byte {at}")
        start, at = _check_header(fd, at, entry)
        top, name = _split_name(entry.raw_name)
        root = root or top
        if top != root:
            raise ForeignArchive(f"record {entry.raw_name!r} is not below {root}/")
        if name in records:
            raise ValueError(f"record {entry.raw_name!r} is there twice")
        records[name] = Record(f"{top}/{name}", start, entry.size, entry.crc32)
    if at != directory:
        raise ValueError(f"there is something between its last record and its directory at byte {at}")
    return records


def _find_directory(fd: int, begin: int, end: int) -> tuple[int, int, int]:
    """(first byte of the directory, number of entries, byte after it), from the records that end an archive."""
    at = end - _END.size
    magic, disk, other_disk, here, count, size, offset, comment = _END.unpack(os.pread(fd, _END.size, max(at, begin)))
    if magic != b"PK\5\6" or comment:
        raise ValueError("it does not end as an archive does: it was cut off, or something was added")
    small = (here, count, size, offset)
    before = os.pread(fd, _LOCATOR.size, max(at - _LOCATOR.size, begin))
    if before.startswith(b"PK\6\7"):
        _, disk64, offset64, disks = _LOCATOR.unpack(before)
        if begin + offset64 + _END64.size != at - _LOCATOR.size or disk64 or disks != 1:
            raise ValueError("the records at its end do not follow each other")
        at = begin + offset64
        magic, length, made_by, needed, disk64, other64, *large = _END64.unpack(os.pread(fd, _END64.size, at))
        if magic != b"PK\6\6" or length != _END64.size - 12 or disk64 or other64:
            raise ValueError("the 64-bit record at its end is damaged")
        if (made_by, needed) not in _END64_VERSIONS:
            raise ForeignArchive(f"the 64-bit record at its end is of the unknown version {made_by}, {needed}")
        limits = (_MAX16, _MAX16, _MAX32, _MAX32)
        if any(one not in (other, limit) for one, other, limit in zip(small, large, limits, strict=True)):
            raise ValueError("the records at its end differ")
        here, count, size, offset = large
    elif b"PK\6\6" in os.pread(fd, _END64.size + _LOCATOR.size, max(at - _END64.size - _LOCATOR.size, begin)):
        raise ValueError("the records at its end do not follow each other")
    if disk or other_disk or here != count or begin + offset + size != at:
        raise ValueError("its directory is not where its end says")
    return begin + offset, count, at


def _read_directory(data: bytes, count: int) -> Iterator[_Entry]:
    """The entries of the central directory, which must fill `data`."""
    at, common = 0, None
    for _ in range(count):
        magic, made_by, *fields, crc, packed, size, name_length, extra_length, comment, disk, inner, outer, offset = (
            _CENTRAL.unpack_from(data, at)
        )
        name_end = at + _CENTRAL.size + name_length
        raw_name, extra = data[at + _CENTRAL.size : name_end], data[name_end : name_end + extra_length]
        at = name_end + extra_length
        common = common or (made_by, inner, outer)  # says nothing of use, but is the same throughout
        if magic != b"PK\1\2" or comment or disk or (made_by, inner, outer) != common:
            raise ValueError(f"the directory's entry {raw_name!r} is damaged")
        if fields[2] or fields[1] & ~(_DESCRIPTOR_FLAG | _UTF8_FLAG):
            raise ForeignArchive(f"record {raw_name!r} is compressed or encrypted")
        large = list(_extra_fields(extra))
        if len(large) > 1 or any(kind != _ZIP64 for kind, _ in large):
            raise ForeignArchive(f"record {raw_name!r} has an unknown extra field")
        values = _numbers(large[0][1]) if large else []
        size, packed, offset = (
            values.pop(0) if value == _MAX32 and values else value for value in (size, packed, offset)
        )
        if packed != size or values:
            raise ValueError(f"the directory states two sizes for record {raw_name!r}")
        yield _Entry(raw_name, offset, size, crc, tuple(fields))
    if at != len(data):
        raise ValueError(f"its directory has {len(data) - at} bytes too many")


def _check_header(fd: int, at: int, entry: _Entry) -> tuple[int, int]:
    """Compare the header before a record's data, and what follows it, with its entry: (first byte, byte after all)."""
    guess = os.pread(fd, _LOCAL.size + len(entry.raw_name) + 128, at)
    magic, *rest = _LOCAL.unpack_from(guess)
    fields, (crc, packed, size, name_length, extra_length) = rest[:5], rest[5:]
    if magic != b"PK\3\4" or tuple(fields) != entry.fields or name_length != len(entry.raw_name):
        raise ValueError(f"the header of record {entry.raw_name!r} differs from the directory")
    begin = at + _LOCAL.size + name_length + extra_length
    if len(guess) < begin - at:
        guess = os.pread(fd, begin - at, at)
    name, extra = guess[_LOCAL.size :][:name_length], guess[_LOCAL.size + name_length : begin - at]
    described = fields[1] & _DESCRIPTOR_FLAG
    stated = (crc, packed, size)
    known = (entry.crc32, entry.size, entry.size)
    allowed = [known, (known[0], _MAX32, _MAX32)] + ([(0, 0, 0), (0, _MAX32, _MAX32)] if described else [])
    if name != entry.raw_name or len(extra) != extra_length or stated not in allowed:
        raise ValueError(f"the header of record {entry.raw_name!r} differs from the directory")
    for kind, payload in _extra_fields(extra):
        if kind == _ZIP64:
            fits = set(_numbers(payload)) <= {entry.size, entry.header, 0}
        else:
            fits = kind == _PADDING and payload.strip(b"Z") == b""
        if not fits:
            raise ValueError(f"the padding before record {entry.raw_name!r} is damaged")
    end = begin + entry.size
    if not described:
        return begin, end
    expected = [each.pack(b"PK\7\10", *known) for each in _DESCRIPTORS[entry.size > _MAX32 :]]
    follows = os.pread(fd, _DESCRIPTORS[1].size, end)
    for descriptor in expected:
        if follows.startswith(descriptor):
            return begin, end + len(descriptor)
    raise ValueError(f"what follows record {entry.raw_name!r} differs from the directory")


def _extra_fields(extra: bytes) -> Iterator[tuple[int, bytes]]:
    """(kind, payload) of each extra field."""
    at = 0
    while at < len(extra):
        kind, length = struct.unpack_from("<2H", extra, at)
        at += 4 + length
        if at > len(extra):
            raise ValueError("an extra field is longer than its header says")
        yield kind, extra[at - length : at]


def _numbers(payload: bytes) -> list[int]:
    return [number for (number,) in struct.iter_unpack("<Q", payload)]


def _split_name(raw: bytes) -> tuple[str, str]:
    """Top-level directory and the name below it. Names are never used as paths, but odd ones mean tampering."""
    try:
        name = raw.decode()
    except UnicodeDecodeError as error:
        raise ForeignArchive(f"the name of record {raw!r} is not UTF-8") from error
    parts = name.split("/")
    if len(parts) < 2 or "\\" in name or any(part in ("", ".", "..") for part in parts) or not name.isprintable():
        raise ForeignArchive(f"record {raw!r} has a name that torch.save never writes")
    return parts[0], "/".join(parts[1:])
