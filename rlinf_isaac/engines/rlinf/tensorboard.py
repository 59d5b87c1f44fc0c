"""Scalars of TensorBoard event files, read without TensorBoard.

An event file is a sequence of TFRecords: length (uint64), masked CRC-32C of it (uint32), data, masked CRC-32C of the
data; all little endian. The data is a protobuf ``Event``: wall_time = 1 (double), step = 2 (int64), summary = 5; a
``Summary`` has value = 1; a ``Summary.Value`` has tag = 1 (string), simple_value = 2 (float), tensor = 8.
Sources: ``tensorflow/core/lib/io/record_writer.h``, ``tensorboard/compat/proto/{event,summary}.proto``.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import NamedTuple

_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5


class Scalar(NamedTuple):
    """One logged value. `time` is unix seconds."""

    tag: str
    step: int
    value: float
    time: float


class TornFile(ValueError):
    """A record is cut off or damaged. Everything before it was given."""


def read_scalars(path: str | Path) -> Iterator[Scalar]:
    """The scalars of one event file, in its order. A last record that is not complete (the writer was killed, or is at
    work) ends it quietly.

    Raises:
        TornFile: a record in the middle is damaged.
    """
    for record in _records(Path(path).read_bytes()):
        time, step, values = 0.0, 0, []
        for field, _, value in _fields(record):
            if field == 1:
                (time,) = struct.unpack("<d", value)
            elif field == 2:
                step = int.from_bytes(value, "little", signed=True)
            elif field == 5:
                values += [item for number, _, item in _fields(value) if number == 1]
        for value in values:
            parts = {number: (kind, item) for number, kind, item in _fields(value)}
            if 1 in parts and parts.get(2, (None, b""))[0] == _FIXED32:
                yield Scalar(parts[1][1].decode(), step, struct.unpack("<f", parts[2][1])[0], time)


def _records(data: bytes) -> Iterator[bytes]:
    position = 0
    while position + 12 <= len(data):
        length, length_crc = struct.unpack_from("<QI", data, position)
        if _masked_crc(data[position : position + 8]) != length_crc:
            raise TornFile(f"the record at byte {position} has no valid length")
        end = position + 12 + length
        if end + 4 > len(data):
            return
        record = data[position + 12 : end]
        if _masked_crc(record) != struct.unpack_from("<I", data, end)[0]:
            raise TornFile(f"the record at byte {position} has another checksum than its data")
        yield record
        position = end + 4


def _fields(message: bytes) -> Iterator[tuple[int, int, bytes]]:
    """Number, wire type and bytes of every field; a varint as 8 bytes, little endian."""
    position = 0
    while position < len(message):
        key, position = _varint(message, position)
        number, kind = key >> 3, key & 7
        if kind == _VARINT:
            value, position = _varint(message, position)
            yield number, kind, (value & (2**64 - 1)).to_bytes(8, "little")
            continue
        if kind == _BYTES:
            size, position = _varint(message, position)
        elif kind in (_FIXED32, _FIXED64):
            size = 4 if kind == _FIXED32 else 8
        else:
            raise TornFile(f"a field has the wire type {kind}")
        if position + size > len(message):
            raise TornFile("a field is longer than its message")
        yield number, kind, message[position : position + size]
        position += size


def _varint(data: bytes, position: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        if position >= len(data) or shift > 63:
            raise TornFile("a number does not end")
        byte = data[position]
        value |= (byte & 0x7F) << shift
        position, shift = position + 1, shift + 7
        if byte < 0x80:
            return value, position


def _masked_crc(data: bytes) -> int:
    crc, table = 0xFFFFFFFF, _table()
    for byte in data:
        crc = table[(crc ^ byte) & 0xFF] ^ (crc >> 8)
    crc ^= 0xFFFFFFFF
    return (((crc >> 15) | (crc << 17)) + 0xA282EAD8) & 0xFFFFFFFF


@cache
def _table() -> tuple[int, ...]:
    """Of CRC-32C (Castagnoli, reflected polynomial 0x82F63B78)."""
    table = []
    for value in range(256):
        for _ in range(8):
            value = (value >> 1) ^ (0x82F63B78 if value & 1 else 0)
        table.append(value)
    return tuple(table)
