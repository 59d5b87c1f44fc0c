"""Reads the zip archives that ``torch.save`` writes, and notices every flipped bit outside of the data.

torch stores the records uncompressed, one after the other, each aligned to 64 bytes by an extra field of ``Z``. The
directory follows the last record. `zipfile` reads the directory but does not compare it with the headers of the
records, and torch compares no checksums. This module compares each header with the directory, and the end of the file
with the end that belongs to this directory. Every byte of the file is therefore either data of a record, which has a
CRC-32, or it is stated twice, or it has only one possible value.
https://pkware.cachefly.net/webdocs/casestudies/APPNOTE.TXT
"""

from __future__ import annotations

import os
import struct
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO, NamedTuple, cast

from rlinf_isaac.ground.reading import open_regular

_LOCAL, _CENTRAL = struct.Struct("<4s10s3L2H"), struct.Struct("<4sH10s3L3HH6sL")
_END, _LOCATOR, _END64 = struct.Struct("<4s4H2LH"), struct.Struct("<4sLQL"), struct.Struct("<4sQ2H2L4Q")
_MAX32, _MAX16 = 0xFFFFFFFF, 0xFFFF
_DESCRIBED, _UTF8 = 1 << 3, 1 << 11  # flags: sizes follow the data; names are UTF-8
_ZIP64, _PADDING = 0x0001, 0x4246  # extra fields: large sizes; "FB", torch's padding
_MAX_RECORDS, _MAX_DIRECTORY_BYTES = 1_000_000, 256_000_000
# "Version made by" and "needed" of the 64-bit end record: of miniz, which torch uses, and of Python's zipfile.
_END64_VERSIONS = ((0x031E, 0x2D), (45, 45), (0x032D, 45))


class ForeignArchive(ValueError):
    """The zip archive was not written by ``torch.save``: it is compressed or encrypted, or has other names."""


class Record(NamedTuple):
    """One file of an archive: `size` bytes of data at `begin` in the archive's file, with checksum `crc32`."""

    name: str
    file: Path
    begin: int
    size: int
    crc32: int


class Window:
    """A part of a file, `length` bytes from `begin` on, which `zipfile` and torch read like a whole file.

    A read returns at most as many bytes as the directory of a zip archive can have, so that a forged size costs no
    memory.
    """

    def __init__(self, path: Path, begin: int = 0, length: int | None = None) -> None:
        self._file = open_regular(path)
        size = os.fstat(self._file.fileno()).st_size
        self.begin, self.size = begin, size - begin if length is None else length
        if not 0 <= begin <= begin + self.size <= size:
            self._file.close()
            raise ValueError("the file is shorter than the content that it should have")
        self.seek(0)

    def __enter__(self) -> Window:
        return self

    def __exit__(self, *exception: object) -> None:
        self._file.close()

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        base = {os.SEEK_SET: 0, os.SEEK_CUR: self.tell(), os.SEEK_END: self.size}[whence]
        if base + offset < 0:
            raise ValueError("it was cut off")
        return self._file.seek(self.begin + base + offset) - self.begin

    def tell(self) -> int:
        return self._file.tell() - self.begin

    def fileno(self) -> int:
        return self._file.fileno()

    def seekable(self) -> bool:
        return True

    def read(self, size: int = -1) -> bytes:
        """Up to `size` bytes. Raises ValueError if that is more than the window or any zip directory can have."""
        left = max(0, self.size - self.tell())
        count = left if size < 0 else min(size, left)
        if size > left + _MAX16 or count > _MAX_DIRECTORY_BYTES:
            raise ValueError("its directory is larger than that of any checkpoint, or was cut off")
        return self._file.read(count)

    def readline(self) -> bytes:
        """The next line. Raises ValueError if it is longer than any name in a pickle."""
        at = self.tell()
        line, end, _ = self.read(10_000).partition(b"\n")
        if not end:  # without this check the first half of a name would pass for the whole name
            raise ValueError("it was cut off")
        self.seek(at + len(line) + 1)
        return line + end

    def at(self, offset: int, size: int) -> bytes:
        """`size` bytes from `offset` on, or fewer if the window ends earlier."""
        self.seek(offset)
        return self.read(min(size, max(0, self.size - offset)))


def is_archive(window: Window) -> bool:
    """Whether the window begins with a zip archive."""
    return window.at(0, 4) in (b"PK\3\4", b"PK\5\6")


def read_records(path: Path, window: Window) -> dict[str, Record]:
    """The records of an archive, by their names below its only top-level directory: ``data.pkl``, ``data/0``.

    Raises:
        ForeignArchive: ``torch.save`` did not write the archive.
        ValueError: the archive is damaged; the message says where.
        OSError: the file cannot be read.
    """
    try:
        with zipfile.ZipFile(cast(IO[bytes], window)) as archive:
            infos, directory = archive.infolist(), archive.start_dir
    except NotImplementedError as error:
        raise ForeignArchive(str(error)) from error
    except (zipfile.BadZipFile, EOFError, UnicodeDecodeError, OverflowError, struct.error) as error:
        raise ValueError(f"it was cut off, or its directory is damaged ({error})") from error
    if len(infos) > _MAX_RECORDS:
        raise ForeignArchive(f"it has {len(infos)} records")
    names = {info.orig_filename: _name(info) for info in infos}
    if len({name.partition("/")[0] for name in names}) > 1:
        raise ForeignArchive("its records are not below one directory")
    try:
        entries = list(_entries(window.at(directory, window.size - directory), infos, directory))
        records: dict[str, Record] = {}
        at = 0
        for info, fields in sorted(entries, key=lambda entry: entry[0].header_offset):
            if info.header_offset != at:
                raise ValueError(f"its records overlap or leave a gap at byte {at}")
            name = names[info.orig_filename]
            if name in records:
                raise ValueError(f"record {info.orig_filename!r} exists twice")
            begin, at = _check_header(window, info, fields)
            records[name] = Record(info.orig_filename, path, window.begin + begin, info.file_size, info.CRC)
    except struct.error as error:
        raise ValueError("it was cut off, or its directory is damaged") from error
    if at != directory:
        raise ValueError(f"unexpected bytes begin at byte {at}, between its last record and its directory")
    return records


def _entries(data: bytes, infos: list[zipfile.ZipInfo], directory: int) -> Iterator[tuple[zipfile.ZipInfo, bytes]]:
    """Yield each entry of the directory with its ten bytes of version, flags, method and time; then check the end."""
    at, common = 0, None
    for info in infos:
        magic, made_by, fields, _, _, _, names, extras, comment, disk, attributes, _ = _CENTRAL.unpack_from(data, at)
        extra = data[at + _CENTRAL.size + names :][:extras]
        at += _CENTRAL.size + names + extras
        # Nothing depends on these two values, but torch writes the same ones in every entry.
        common = common or (made_by, attributes)
        if magic != b"PK\1\2" or comment or disk or (made_by, attributes) != common:
            raise ValueError(f"the directory's entry {info.orig_filename!r} is damaged")
        if info.compress_type or info.flag_bits & ~(_DESCRIBED | _UTF8):
            raise ForeignArchive(f"record {info.orig_filename!r} is compressed or encrypted")
        large = {info.file_size, info.header_offset}
        if any(kind != _ZIP64 or not _numbers(text) <= large for kind, text in _extra_fields(extra)):
            raise ForeignArchive(f"record {info.orig_filename!r} has an unknown extra field")
        if info.compress_size != info.file_size:
            raise ValueError(f"the directory states two sizes for record {info.orig_filename!r}")
        yield info, fields
    count = len(infos)
    small = min(count, _MAX16), min(count, _MAX16), min(at, _MAX32), min(directory, _MAX32)
    end, locator = _END.pack(b"PK\5\6", 0, 0, *small, 0), _LOCATOR.pack(b"PK\6\7", 0, directory + at, 1)
    large_ends = [_END64.pack(b"PK\6\6", 44, *each, 0, 0, count, count, at, directory) for each in _END64_VERSIONS]
    if data[at:] not in (end, *(each + locator + end for each in large_ends)):
        raise ValueError("it does not end as an archive does: it was cut off, or something was added")


def _check_header(window: Window, info: zipfile.ZipInfo, fields: bytes) -> tuple[int, int]:
    """Compare the bytes around a record's data with its entry in the directory.

    Returns:
        The offsets of the first byte of the data, and of the first byte after the record and its descriptor.
    """
    at = info.header_offset
    raw = info.orig_filename.encode("utf-8" if info.flag_bits & _UTF8 else "cp437")
    magic, found, crc, packed, size, names, extras = _LOCAL.unpack(window.at(at, _LOCAL.size))
    rest = window.at(at + _LOCAL.size, names + extras)
    begin = at + _LOCAL.size + names + extras
    sizes = info.CRC, info.file_size, info.file_size
    allowed = [sizes, (info.CRC, _MAX32, _MAX32)]
    if info.flag_bits & _DESCRIBED:
        allowed += [(0, 0, 0), (0, _MAX32, _MAX32)]
    if magic != b"PK\3\4" or found != fields or rest[:names] != raw or (crc, packed, size) not in allowed:
        raise ValueError(f"the header of record {info.orig_filename!r} differs from the directory")
    for kind, payload in _extra_fields(rest[names:]):
        padding = kind == _PADDING and not payload.strip(b"Z")
        if not padding and (kind != _ZIP64 or not _numbers(payload) <= {info.file_size, at, 0}):
            raise ValueError(f"the padding before record {info.orig_filename!r} is damaged")
    end = begin + info.file_size
    if not info.flag_bits & _DESCRIBED:
        return begin, end
    formats = ("<4sL2Q",) if info.file_size > _MAX32 else ("<4s3L", "<4sL2Q")
    for descriptor in (struct.pack(each, b"PK\7\10", *sizes) for each in formats):
        if window.at(end, len(descriptor)) == descriptor:
            return begin, end + len(descriptor)
    raise ValueError(f"the descriptor after record {info.orig_filename!r} differs from the directory")


def _extra_fields(extra: bytes) -> Iterator[tuple[int, bytes]]:
    """Yield (kind, payload) of each extra field."""
    at = 0
    while at < len(extra):
        kind, length = struct.unpack_from("<2H", extra, at)
        at += 4 + length
        if at > len(extra):
            raise ValueError("an extra field is longer than its header says")
        yield kind, extra[at - length : at]


def _numbers(payload: bytes) -> set[int]:
    return {number for (number,) in struct.iter_unpack("<Q", payload)}


def _name(info: zipfile.ZipInfo) -> str:
    """The name below the top-level directory. Names are never used as paths, but an odd name means tampering."""
    name = info.orig_filename
    parts = name.split("/")
    if len(parts) < 2 or "\\" in name or any(part in ("", ".", "..") for part in parts) or not name.isprintable():
        raise ForeignArchive(f"record {name!r} has a name that torch.save never writes")
    return "/".join(parts[1:])
