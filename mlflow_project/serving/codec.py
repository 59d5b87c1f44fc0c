"""OpenPI's wire format: msgpack, with numpy arrays and scalars as maps of their bytes.

Compatible with ``openpi_client.msgpack_numpy`` in both directions. That package needs numpy < 2, so it is not used
here; and unlike it, this module takes whatever comes from the network for hostile.
"""

from __future__ import annotations

import math
from typing import Any

import msgpack
import numpy as np

from rlinf_isaac.errors import ObservationError

KINDS = "biufUS"
"""Kinds of dtype that travel: bool, int, uint, float, str, bytes. OpenPI refuses objects, records and complex, too."""

_CURE = "send what openpi_client.msgpack_numpy.packb makes of a dict of numpy arrays, strings and numbers"


def pack(value: Any) -> bytes:
    """`value` as msgpack. ValueError for an array or scalar whose dtype does not travel."""
    return msgpack.packb(value, default=_encode)


def unpack(data: bytes) -> Any:
    """The value of a message. Its arrays are read-only views of `data`.

    Raises:
        ObservationError: `data` is not one whole msgpack value, or an array in it does not have the bytes it declares.
    """
    try:
        return msgpack.unpackb(data, object_hook=_decode)
    except Exception as error:  # msgpack, numpy and Unicode raise a dozen different ones on hostile input
        cause = f"the message cannot be decoded: {type(error).__name__}: {str(error)[:200]}"
        raise ObservationError.of("bad-message", cause, _CURE) from error


def _encode(value: Any) -> Any:
    if not isinstance(value, np.ndarray | np.generic):
        raise TypeError(f"{type(value).__name__} cannot be sent")
    if value.dtype.kind not in KINDS:
        raise ValueError(f"dtype {value.dtype} cannot be sent")
    if isinstance(value, np.ndarray):
        return {b"__ndarray__": True, b"data": value.tobytes(), b"dtype": value.dtype.str, b"shape": value.shape}
    return {b"__npgeneric__": True, b"data": value.item(), b"dtype": value.dtype.str}


def _decode(value: dict[Any, Any]) -> Any:
    if b"__ndarray__" in value:
        dtype, shape, data = _dtype(value[b"dtype"]), value[b"shape"], value[b"data"]
        if not all(type(size) is int and size >= 0 for size in shape):
            raise ValueError(f"shape {shape}")
        if math.prod(shape) * dtype.itemsize != len(data):
            raise ValueError(f"{len(data)} bytes for shape {shape} of {dtype}")
        return np.ndarray(tuple(shape), dtype, buffer=data)
    if b"__npgeneric__" in value:
        if not isinstance(value[b"data"], int | float | str | bytes):
            raise ValueError(f"scalar {value[b'data']!r}")
        return _dtype(value[b"dtype"]).type(value[b"data"])
    return value


def _dtype(name: Any) -> np.dtype:
    if not isinstance(name, str):
        raise ValueError(f"dtype {name!r}")
    dtype = np.dtype(name)
    if dtype.kind not in KINDS:
        raise ValueError(f"dtype {dtype}")
    return dtype
