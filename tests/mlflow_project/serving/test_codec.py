from __future__ import annotations

import msgpack
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from mlflow_project.serving.codec import pack, unpack
from rlinf_isaac.ground.errors import ObservationError

DTYPES = st.one_of(
    hnp.boolean_dtypes(),
    hnp.integer_dtypes(endianness="?"),
    hnp.unsigned_integer_dtypes(endianness="?"),
    hnp.floating_dtypes(endianness="?"),
    hnp.unicode_string_dtypes(max_len=4),
    hnp.byte_string_dtypes(max_len=4),
)
ARRAYS = hnp.arrays(DTYPES, hnp.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=4))
LEAVES = st.none() | st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.floats() | st.text() | st.binary() | ARRAYS
VALUES = st.recursive(
    LEAVES, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3), max_leaves=8
)


def same(left, right) -> bool:
    if isinstance(left, np.ndarray):
        return left.dtype == right.dtype and left.shape == right.shape and left.tobytes() == right.tobytes()
    if isinstance(left, dict):
        return left.keys() == right.keys() and all(same(left[key], right[key]) for key in left)
    if isinstance(left, list):
        return len(left) == len(right) and all(map(same, left, right))
    return left == right or (left != left and right != right)


@settings(deadline=None)
@given(VALUES)
def test_round_trip(value):
    assert same(value, unpack(pack(value)))


@settings(deadline=None)
@given(hnp.arrays(st.sampled_from([np.dtype(t) for t in ("?", "i1", "u2", "i8", "f4")]), (1,)))
def test_scalars_keep_their_type(array):
    """Except float64, which is a Python float for msgpack, in OpenPI as well."""
    scalar = unpack(pack({"x": array[0]}))["x"]
    assert type(scalar) is type(array[0])
    assert scalar.tobytes() == array[0].tobytes()


def refusal(data: bytes) -> str | None:
    """Code of the problem with a message. Any other exception is the test's failure."""
    try:
        unpack(data)
    except ObservationError as error:
        return error.problems[0].code
    return None


@settings(deadline=None)
@given(st.binary())
def test_any_bytes_are_decoded_or_refused(data):
    assert refusal(data) in (None, "bad-message", "message-too-large")


@settings(deadline=None)
@given(VALUES, st.data())
def test_a_damaged_message_is_decoded_or_refused(value, data):
    message = bytearray(pack(value))
    for _ in range(3):
        message[data.draw(st.integers(0, len(message) - 1))] = data.draw(st.integers(0, 255))
    assert refusal(bytes(message)) in (None, "bad-message", "message-too-large")


def array(data=b"\0" * 8, dtype="<f4", shape=(2,)) -> bytes:
    return msgpack.packb({b"__ndarray__": True, b"data": data, b"dtype": dtype, b"shape": shape})


@pytest.mark.parametrize(
    "message",
    [
        array(dtype="|O"),
        array(dtype="|V8"),
        array(dtype="<c8"),
        array(dtype="<M8[s]"),
        array(dtype="f4,f4"),
        array(dtype="nonsense"),
        array(dtype=8),
        array(shape=(3,)),
        array(shape=(1,)),
        array(shape=(-2,)),
        array(shape=(2.0,)),
        array(shape=(True, 2)),
        array(shape=2),
        array(shape=(2**40, 2**40)),
        array(data="text"),
        array(data=None),
        msgpack.packb({b"__ndarray__": True}),
        msgpack.packb({b"__npgeneric__": True, b"data": 1, b"dtype": "O"}),
        msgpack.packb({b"__npgeneric__": True, b"data": [1], b"dtype": "<i4"}),
        b"",
        msgpack.packb(1) * 2,
        msgpack.packb({1: 2}),
        b"\xdc\x00\x02\x01",
    ],
)
def test_hostile_messages(message):
    with pytest.raises(ObservationError, match="bad-message"):
        unpack(message)


@pytest.mark.parametrize("value", [np.array([object()]), np.array([1j]), np.array([(1,)], dtype=[("a", "i4")])])
def test_what_does_not_travel(value):
    with pytest.raises(ValueError, match="dtype"):
        pack(value)


def test_arrays_are_not_copied_and_not_writable():
    message = pack({"image": np.zeros((64, 64, 3), np.uint8)})
    image = unpack(message)["image"]
    assert not image.flags.writeable
    assert not image.flags.owndata
