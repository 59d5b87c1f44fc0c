"""Event files, against bytes made by the rules of the format. What TensorBoard itself writes: test_ingest.py."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rlinf_isaac.engines.rlinf.tensorboard import Scalar, TornFile, _masked_crc, read_scalars

FLOATS = st.floats(width=32, allow_nan=False)
SCALARS = st.builds(
    Scalar,
    st.text(min_size=1),
    st.integers(-(2**63), 2**63 - 1),  # RLinf logs step -1 for what is before the first
    FLOATS,
    st.floats(0, 4e9),
)


def varint(value: int) -> bytes:
    value &= 2**64 - 1
    groups = [value & 0x7F]
    while value := value >> 7:
        groups.append(value & 0x7F)
    return bytes([*(group | 0x80 for group in groups[:-1]), groups[-1]])


def block(number: int, data: bytes) -> bytes:
    return varint(number << 3 | 2) + varint(len(data)) + data


def event(scalar: Scalar, extra: bytes = b"") -> bytes:
    value = block(1, scalar.tag.encode()) + bytes([2 << 3 | 5]) + struct.pack("<f", scalar.value) + extra
    time = bytes([1 << 3 | 1]) + struct.pack("<d", scalar.time)
    return time + bytes([2 << 3]) + varint(scalar.step) + block(5, block(1, value))


def record(data: bytes) -> bytes:
    length = struct.pack("<Q", len(data))
    return length + struct.pack("<I", _masked_crc(length)) + data + struct.pack("<I", _masked_crc(data))


def test_the_checksum_is_crc_32c():
    """RFC 3720, appendix B.4: 32 bytes of zeros give 0x8A9136AA; masked as TFRecords do."""
    crc = 0x8A9136AA
    assert _masked_crc(bytes(32)) == (((crc >> 15) | (crc << 17)) + 0xA282EAD8) & 0xFFFFFFFF


@settings(deadline=None)
@given(scalars=st.lists(SCALARS, max_size=5))
def test_scalars_come_as_they_were_logged(tmp_path_factory, scalars):
    path = tmp_path_factory.mktemp("events") / "events"
    version = record(bytes([1 << 3 | 1]) + struct.pack("<d", 1.0) + block(3, b"brain.Event:2"))
    path.write_bytes(version + b"".join(record(event(scalar)) for scalar in scalars))
    assert list(read_scalars(path)) == scalars


def test_what_is_no_scalar_is_left_out(tmp_path):
    """An image (field 4), and fields that nobody has heard of."""
    image = block(1, b"an image") + block(4, b"png")
    scalar = Scalar("loss", 3, 0.5, 7.0)
    text = record(block(5, block(1, image))) + record(event(scalar, extra=block(9, b"plugin")))
    (tmp_path / "events").write_bytes(text)
    assert list(read_scalars(tmp_path / "events")) == [scalar]


@pytest.mark.parametrize("cut", [1, 5, 11, 20])
def test_a_writer_that_was_killed_leaves_what_is_whole(tmp_path, cut):
    first, second = Scalar("a", 1, 1.0, 1.0), Scalar("a", 2, 2.0, 2.0)
    whole = record(event(first)) + record(event(second))
    (tmp_path / "events").write_bytes(whole[:-cut])
    assert list(read_scalars(tmp_path / "events")) == [first]


@settings(deadline=None, max_examples=50)
@given(st.data())
def test_a_flipped_bit_is_noticed(tmp_path_factory, data):
    scalars = [Scalar("a", step, float(step), 1.0) for step in range(3)]
    whole = bytearray(b"".join(record(event(scalar)) for scalar in scalars))
    position = data.draw(st.integers(0, len(whole) - 1))
    whole[position] ^= 1 << data.draw(st.integers(0, 7))
    path = tmp_path_factory.mktemp("events") / "events"
    path.write_bytes(whole)
    with pytest.raises(TornFile):
        list(read_scalars(path))
