"""OpenPI's wire format: msgpack, with numpy arrays and scalars encoded as maps of their bytes.

Compatible with ``openpi_client.msgpack_numpy`` in both directions. That package needs numpy < 2, so it is not used
here. Unlike that package, this module treats all input from the network as hostile.
"""

from __future__ import annotations

import math
import re
from typing import Any

import msgpack
import numpy as np

from mlflow_project.serving.limits import MAX_TEXT, check_limits
from rlinf_isaac.ground.errors import ObservationError

KINDS = "biufUS"
"""Kinds of dtype that can be sent: bool, int, uint, float, str, bytes. Like OpenPI, others are refused."""

MAX_DIMS = 8
"""Most dims of an array; images have three."""
_DTYPE = re.compile("[<>|=]?[A-Za-z?]{1,10}[0-9]{0,9}")

_CURE = "send a dict of numpy arrays, strings and numbers, packed by openpi_client.msgpack_numpy.packb"


def pack(value: Any) -> bytes:
    """Encode `value` as msgpack. Raises ValueError for an array or scalar whose dtype cannot be sent."""
    return msgpack.packb(value, default=_encode)


def unpack(data: bytes) -> Any:
    """Decode a message. Its arrays are read-only views of bytes.

    Raises:
        ObservationError: `data` exceeds the `limits` (``message-too-large``), is not exactly one msgpack value, or
            contains an array whose bytes do not match its shape and dtype (``bad-message``).
    """
    check_limits(data)
    try:
        return msgpack.unpackb(data, object_pairs_hook=_decode)
    except Exception as error:  # msgpack, numpy and Unicode raise a dozen different exceptions on hostile input
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


def _decode(pairs: list[tuple[Any, Any]]) -> Any:
    value = dict(pairs)
    if len(value) < len(pairs):
        raise ValueError("a map contains a key twice")
    if b"__ndarray__" in value:
        return _array(_dtype(value[b"dtype"]), value[b"shape"], value[b"data"])
    if b"__npgeneric__" in value:
        return _scalar(_dtype(value[b"dtype"]), value[b"data"])
    return value


def _array(dtype: np.dtype, shape: Any, data: Any) -> np.ndarray:
    if not isinstance(shape, list) or len(shape) > MAX_DIMS or not all(type(n) is int and n >= 0 for n in shape):
        raise ValueError(f"the shape of an array is not a list of at most {MAX_DIMS} sizes")
    if not isinstance(data, bytes):
        raise ValueError(f"the data of an array are {type(data).__name__}, not bytes")
    if not dtype.itemsize and math.prod(shape) > 1:
        raise ValueError(f"an array of {dtype} without bytes has shape {tuple(shape)}")
    if math.prod(shape) * dtype.itemsize != len(data):
        raise ValueError(f"{len(data)} bytes for shape {tuple(shape)} of {dtype}")
    if dtype.kind in "US" and len(data) > MAX_TEXT:
        raise ValueError(f"an array of strings has {len(data)} bytes, more than {MAX_TEXT}")
    if dtype.kind == "U":
        # numpy does not check the code points, and Python crashes on invalid ones.
        data.decode("utf-32-be" if dtype.byteorder == ">" else "utf-32-le")
    return np.ndarray(tuple(shape), dtype, buffer=data)


def _scalar(dtype: np.dtype, data: Any) -> np.generic:
    wanted = {"U": str, "S": bytes}.get(dtype.kind, int | float)
    if not isinstance(data, wanted):  # numpy would make zero bytes from a number for S, and parse numbers in strings
        raise ValueError(f"a scalar of {dtype} is sent as {type(data).__name__}")
    return dtype.type(data)


def _dtype(name: Any) -> np.dtype:
    if not isinstance(name, str) or not _DTYPE.fullmatch(name):  # numpy would also accept lists of dtypes of any length
        raise ValueError(f"dtype {name!r}" if isinstance(name, str) else f"a dtype is a {type(name).__name__}")
    dtype = np.dtype(name)
    if dtype.kind not in KINDS:
        raise ValueError(f"dtype {dtype}")
    return dtype
